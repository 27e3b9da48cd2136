"""A session with the agent on the remote machine, on one channel of Fabric's connection."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..command_log import LOGGER
from ..errors import UserError
from ..received import Refused, display_text, sent_by
from . import bootstrap, frames, messages
from .address import Address
from .connection import close_connection, open_connection

#: Seconds that the agent may take for an answer that needs no work.
ANSWER_SECONDS = 60.0
#: The same for an answer after writing many files, and after installing packages, which may print nothing for long.
WORK_SECONDS, INSTALL_SECONDS = 300.0, 3600.0
#: The most bytes that a login shell may print before the agent's greeting, and that are kept of output outside frames.
_SHELL_BYTES, _COMPLAINT_BYTES = 1 << 20, 64 << 10
#: Seconds between two keepalive messages; the agent gives up after sixty seconds without a message.
ALIVE_SECONDS = 10.0
#: Seconds to wait for the exit code of a program whose output has ended.
EXIT_SECONDS = 3.0
#: The most lines of details that are shown of a remote failure.
_DETAILS = 40


class ConnectionLost(Exception):
    """The connection was lost."""


class _EndedEarly(UserError):
    """The remote shell has ended before the agent has started; ``output`` is the end of its output."""

    def __init__(self, problem: str, remedy: str, output: str) -> None:
        super().__init__(problem, remedy)
        self.output = output


class VersionMismatch(Exception):
    """Another version of the program created the remote folder; the argument is that version."""


class Session:
    """A session with the agent on the remote machine.

    Args:
        connection: An open Fabric connection.

    Attributes:
        hello: The agent's first message, which describes the machine.
    """

    def __init__(self, connection: Any, address: Address) -> None:
        self.connection = connection
        self.address = address
        self._buffer = bytearray()
        #: Output outside frames: a shell's start-up files may print anything.
        self._stray_output = bytearray()
        #: The greetings that have not arrived yet, in their order.
        self._expected_greetings = [bootstrap.GREETING, frames.GREETING]
        self._last_keepalive = time.monotonic()
        #: Held while a frame is sent, since another thread sends the user's input.
        self._sending = threading.Lock()
        try:
            self._channel = connection.transport.open_session(timeout=ANSWER_SECONDS)
            self._channel.exec_command(bootstrap.COMMAND)
        except Exception as error:
            raise UserError(
                f"{address} accepts the login, but starts no program: {error}.",
                "See what: ssh with the same host, port and key.",
            ) from error
        with sent_by(str(address)):
            self._wait_for_shell()
            with contextlib.suppress(ConnectionLost):
                # If the shell has already ended, its output is read below and says why.
                self.send_raw(bootstrap.script(address.python))
            self.hello: dict[str, Any] = messages.HELLO(self.message(ANSWER_SECONDS), "its first message")

    @classmethod
    def open(cls, address: Address, passphrases: dict[str, str], say: Callable[[str], None] | None = None) -> Session:
        """Connect and start the agent.

        Args:
            address: The machine.
            passphrases: Passphrases of key files, by path.
            say: Called with the text of what a workspace is being waited for; None if the caller retries by itself.

        Raises:
            UserError: The machine cannot be reached, or has no suitable Python.
        """
        begun = time.perf_counter()
        connection = open_connection(address, passphrases, say)
        LOGGER.info("ssh %s: connected after %.3f s", address, time.perf_counter() - begun)
        try:
            return cls(connection, address)
        except ConnectionLost as error:
            close_connection(connection)
            raise UserError(f"The connection to {address} was lost as soon as it was made.", "Run it again.") from error
        except BaseException:
            close_connection(connection)
            raise

    def close(self) -> None:
        """End the session and the connection. A remote task goes on."""
        with contextlib.suppress(Exception):
            self._channel.close()
        close_connection(self.connection)

    def send_keepalive(self) -> None:
        """Send a keepalive message if the last one is :data:`ALIVE_SECONDS` old. Call this while waiting."""
        if time.monotonic() - self._last_keepalive > ALIVE_SECONDS:
            self._last_keepalive = time.monotonic()
            self.send(alive=True)

    # Frames

    def send_raw(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            ConnectionLost: The connection was lost.
        """
        try:
            with self._sending:
                self._channel.sendall(data)
        except (OSError, EOFError) as error:
            raise ConnectionLost from error

    def send(self, **value: Any) -> None:
        """Send a message."""
        self.send_raw(frames.message(value))

    def frame(self, seconds: float | None) -> tuple[bytes, bytes] | None:
        """The next frame; None if none arrived in time.

        Raises:
            ConnectionLost: The connection is gone.
            Refused: The frame is too long or of an unknown kind.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            if not self._expected_greetings and len(self._buffer) >= frames.HEADER.size:
                kind, length = frames.HEADER.unpack_from(self._buffer)
                length = frames.length(kind, length)
                if len(self._buffer) >= frames.HEADER.size + length:
                    payload = bytes(self._buffer[frames.HEADER.size : frames.HEADER.size + length])
                    del self._buffer[: frames.HEADER.size + length]
                    return kind, payload
            if not self._receive(deadline):
                return None

    def _receive(self, deadline: float | None) -> bool:
        """Receive data; return whether any arrived before the deadline.

        Raises:
            ConnectionLost: The connection is gone.
        """
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        self._channel.settimeout(left)
        try:
            data = self._channel.recv(1 << 20)
        except TimeoutError:
            return False
        except (OSError, EOFError) as error:
            raise ConnectionLost from error
        if self._channel.recv_stderr_ready():
            self._keep_stray_output(self._channel.recv_stderr(65536))
        if not data:
            self._raise_for_end()
        self._buffer += data
        if self._expected_greetings:
            self._find_greeting()
        return True

    def _wait_for_shell(self) -> None:
        """Wait until the login shell has run our command. Nothing is sent to it before.

        Raises:
            UserError: It has not run the command; the message says why.
        """
        deadline = time.monotonic() + bootstrap.SHELL_SECONDS
        while self._expected_greetings[0] == bootstrap.GREETING:
            if not self._receive(deadline):
                self._explain_shell()

    def _explain_shell(self) -> None:
        """Close the input, find out from the reaction what the login shell was doing, and raise that as an error."""
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()
        remedy = "Have its start-up files (~/.bashrc and the like) do that on terminals only: [ -t 0 ] || return"
        began = f"{self.address} accepts the login, but its login shell runs no command"
        deadline = time.monotonic() + bootstrap.ENDED_SECONDS
        try:
            while self._expected_greetings[0] == bootstrap.GREETING:
                if not self._receive(deadline):
                    output = self._stray_text(bytes(self._buffer))
                    reason = (
                        f"nothing has come of it for {bootstrap.SHELL_SECONDS:.0f} s{f' ({output})' if output else ''}"
                    )
                    raise UserError(f"{began}: {reason}.", "See what it does: ssh with the same host, port and key.")
        except _EndedEarly as ended:
            output = f" ({ended.output})" if ended.output else ""
            raise UserError(
                f"{began}: a start-up file puts another program in its place, such as exec fish or bash -l{output}.",
                remedy,
            ) from ended
        raise UserError(f"{began}: a start-up file waits for input, as `read` does.", remedy)

    def _stray_text(self, more: bytes = b"") -> str:
        text = (bytes(self._stray_output) + more).decode(errors="replace").strip()
        return display_text(text, "its last words", _COMPLAINT_BYTES)

    def _find_greeting(self) -> None:
        """Drop what the login shell has printed before the next greeting."""
        first = self._expected_greetings[0]
        at = self._buffer.find(first)
        if at >= 0:
            del self._expected_greetings[0]
            self._keep_stray_output(self._buffer[:at])
            del self._buffer[: at + len(first)]
            if self._expected_greetings and self._buffer:
                self._find_greeting()
        elif len(self._buffer) > _SHELL_BYTES:
            raise Refused("more than a megabyte before the greeting of this program's helper")

    def _keep_stray_output(self, data: bytes | bytearray) -> None:
        """Keep the end of output that is outside frames."""
        self._stray_output += data
        del self._stray_output[:-_COMPLAINT_BYTES]

    def _raise_for_end(self) -> None:
        """Raise the error for the end of the agent's output: the connection was lost, or the agent has ended."""
        if self._expected_greetings:
            self._keep_stray_output(self._buffer)
        # If the connection still works, the exit code arrives after the last output.
        if self.connection.transport.is_active() and self._channel.status_event.wait(EXIT_SECONDS):
            code = self._channel.recv_exit_status()
            while data := self._channel.recv_stderr(65536):
                self._keep_stray_output(data)
            text = self._stray_text()
            if code == bootstrap.NO_PYTHON and self._expected_greetings == [frames.GREETING]:
                raise self._no_python_error(text)
            if self._expected_greetings:
                why = text or f"its shell has ended with {code}"
                raise _EndedEarly(
                    f"{self.address} accepts the login, but starts no program: {why}.",
                    "See what: ssh with the same host, port and key.",
                    text,
                )
            if code != -1 and text:
                raise UserError(
                    f"The program's helper on {self.address.host} has ended with {code}.",
                    "See the lines above; if they do not help you, please report them.",
                    details=text.splitlines()[-15:],
                )
        raise ConnectionLost

    def _no_python_error(self, text: str) -> UserError:
        # A start-up file may have printed something before; the script's own line is the last.
        found = text.rpartition("\n")[2]
        if self.address.python:
            return UserError(
                f"AML_REMOTE_PYTHON={self.address.python} cannot be used on {self.address.host}: {found}.",
                "Name a Python 3.10 or later there, or unset it: then the program looks for one.",
            )
        return UserError(
            f"{self.address.host} has no Python 3.10 or later: {found}.",
            "Install one there: sudo apt install python3 python3-venv, or conda create -n debug python=3.12; "
            "one that lies elsewhere is named with AML_REMOTE_PYTHON.",
        )

    def message(self, seconds: float | None) -> dict[str, Any]:
        """The next message.

        Raises:
            ConnectionLost: The connection is gone, or nothing came in that time.
            Refused: Something else arrived.
        """
        got = self.frame(seconds)
        if got is None:
            raise ConnectionLost
        if got[0] != frames.MESSAGE:
            raise Refused("something else where a message has to come")
        return frames.read(got[1])

    def answers(self, do: str, seconds: float | None = None) -> Iterator[dict[str, Any]]:
        """The messages up to and including the answer to a request.

        Args:
            do: The request.
            seconds: Seconds to wait for each message; default: :data:`ANSWER_SECONDS`.

        Raises:
            UserError: The agent could not do it.
            VersionMismatch: Another version of the program created the remote folder.
            ConnectionLost: The connection is gone.
            Refused: A message is not valid.
        """
        details: list[str] = []
        for _count in range(messages.MESSAGES):
            answer = self.message(seconds or ANSWER_SECONDS)
            aside = next((one for one in messages.ASIDE if one in answer), None)
            checked: Any = messages.ASIDE[aside](answer[aside], f"a `{aside}`") if aside else None
            if aside == "details":
                details = checked[-_DETAILS:]
            elif aside == "failure":
                problem, remedy = checked
                raise UserError(problem, remedy, details=details)
            elif aside == "mismatch":
                raise VersionMismatch(checked)
            elif aside == "line":
                yield {"line": checked}
            elif answer.get("done") is True:
                yield {**messages.ANSWERS[do](answer, f"an answer to `{do}`"), "done": True}
                return
            elif do == "get":
                # The message before a file's content.
                yield messages.HEAD(answer, "a file")
            else:
                raise Refused(f"something else where an answer to `{do}` has to come")
        raise Refused(f"no answer to `{do}` in {messages.MESSAGES:,} messages")

    def request(
        self,
        do: str,
        report: Callable[[str], None] = lambda line: None,
        seconds: float | None = None,
        **fields: Any,
    ) -> Mapping[str, Any]:
        """Send a request and return its answer.

        Args:
            do: The request.
            report: Called with each line of progress.
            seconds: As for :meth:`answers`.
            fields: Further fields of the request.
        """
        begun = time.perf_counter()
        self.send(do=do, **fields)
        for answer in self.answers(do, seconds):
            if "line" in answer:
                report(answer["line"])
            elif answer.get("done"):
                LOGGER.info("ssh %s: %s after %.3f s", self.address, do, time.perf_counter() - begun)
                return answer
        raise ConnectionLost
