"""Logs in as ssh does: asks the server about each key before unlocking it, and keeps the server's messages.

paramiko's own login signs with every key at once, asks for passphrases that are not needed, and drops the server's
reasons.
"""

from __future__ import annotations

import queue
import sys
import time
from typing import Any

from paramiko.auth_handler import AuthHandler
from paramiko.common import (
    MSG_SERVICE_ACCEPT,
    MSG_USERAUTH_BANNER,
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_INFO_REQUEST,
    MSG_USERAUTH_SUCCESS,
    cMSG_SERVICE_REQUEST,
    cMSG_USERAUTH_REQUEST,
)
from paramiko.message import Message

from ..terminal import printable
from .address import Address
from .identities import Identities, Identity
from .key_files import CERTIFICATE, NeedsPassphrase, NotAKey
from .login_failed import LoginFailed
from .passphrases import NoPassphrase, Passphrases
from .ssh_agent import AgentError

#: Seconds for each of the server's answers.
ANSWER_SECONDS = 20.0
_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")
_SHOWN = 6


class TooManyKeys(Exception):
    """The server has ended the login because too many keys were tried."""


class Login:
    """A login to one machine, for paramiko's ``auth_strategy``.

    Args:
        address: The machine.
        passphrases: Passphrases of key files, by path; those that the user types are added.
        tried: Keys that were refused on an earlier connection and are not tried again; further ones are added.
    """

    def __init__(self, address: Address, passphrases: dict[str, str], tried: list[Identity]) -> None:
        self._address = address
        self._passphrases = Passphrases(passphrases)
        self._tried = tried
        self._locked: list[NotAKey] = []

    def authenticate(self, transport: Any) -> None:
        """Log in on a paramiko transport whose host key has been checked.

        Raises:
            LoginFailed: The server refuses the login.
            TooManyKeys: The server has ended the connection, and some keys were not tried.
        """
        authentication = _Authentication(transport)
        transport.auth_handler = authentication
        found = Identities.of(self._address)
        try:
            self._log_in(authentication, transport, found)
        finally:
            found.close()

    def _log_in(self, authentication: _Authentication, transport: Any, found: Identities) -> None:
        before = {one.blob for one in self._tried if one.blob}
        waiting = [one for one in found.found if one.blob not in before]
        try:
            authentication.begin(self._address.user)
            answer = authentication.request("none")
            methods = answer.methods
            while answer.kind == "refused" and "publickey" in methods and waiting:
                one = waiting.pop(0)
                answer = self._offer(authentication, transport, one, found)
                methods = answer.methods or methods
                if answer.kind == "partly":
                    # The key was accepted, but the server wants another one in addition.
                    answer.kind = "refused"
        except _ConnectionEnded as ended:
            raise self._ended_error(transport, waiting, ended) from ended
        if answer.kind == "accepted":
            return
        raise self._refusal_error(methods, authentication.partly, found)

    def _offer(self, authentication: _Authentication, transport: Any, one: Identity, found: Identities) -> _Answer:
        """Try a key and return the server's answer."""
        algorithm = _algorithm(transport, one)
        if one.blob and not one.ready:
            self._tried.append(one)
            answer = authentication.request("publickey", (False, algorithm, one.blob))
            if answer.kind != "would do":
                return answer
        while True:
            path = one.file.path if one.file is not None else ""
            try:
                signs = one.signer(self._passphrases.known(path))
                break
            except NeedsPassphrase:
                try:
                    self._passphrases.prompt(path)
                except NoPassphrase as error:
                    self._locked.append(NotAKey(error.problem, error.remedy))
                    return _Answer("refused")
            except NotAKey as error:
                found.problems.append(error)
                return _Answer("refused")
        blob = one.blob
        if not blob:
            assert one.file is not None
            blob = self._passphrases.public_half(path)
            algorithm = _algorithm(transport, Identity(one.label, blob))
        if one.kind.startswith("sk-") and sys.stderr.isatty():
            sys.stderr.write(f"Confirm that it is you: touch the security key of {printable(one.label)}.\n")
        data = authentication.to_sign(algorithm, blob)
        try:
            signature = signs(data, algorithm.replace(CERTIFICATE, ""))
        except AgentError as error:
            found.problems.append(
                NotAKey(f"The agent has {one.label}, and {error}.", "Confirm it, or ssh-add it again.")
            )
            return _Answer("refused")
        if one not in self._tried:
            self._tried.append(one)
        return authentication.request("publickey", (True, algorithm, blob, signature))

    def _ended_error(self, transport: Any, waiting: list[Identity], ended: _ConnectionEnded) -> Exception:
        where, named = self._address.place, getattr(transport, "disconnect_message", "")
        if "too many" in named.lower():
            if waiting:
                return TooManyKeys()
            return LoginFailed(
                f"{where} ends the login after {len(self._tried)} keys, none of which it takes for "
                f"{self._address.user}: {self._names()}.",
                "Name the key: AML_REMOTE_KEY, or IdentityFile and IdentitiesOnly yes in ~/.ssh/config.",
            )
        if ended.silent:
            return LoginFailed(
                f"{where} has not answered within {ANSWER_SECONDS:.0f} s while {self._address.user} logged in.",
                "Run it again; if it stays so, see the SSH server's log there.",
            )
        reason = f": {printable(named)}" if named else ", and does not say why"
        return LoginFailed(
            f"{where} has ended the connection while {self._address.user} logged in{reason}.",
            f"See the SSH server's log there{self._tried_text()}.",
        )

    def _refusal_error(self, methods: list[str], partly: bool, found: Identities) -> LoginFailed:
        where, user = self._address.place, self._address.user
        wanted = ", ".join(printable(one) for one in methods) or "nothing that it names"
        if partly:
            return LoginFailed(
                f"{where} takes the key of {user} and wants more: {wanted}.",
                "This program logs in with keys alone; have the server ask for nothing else, or go through another.",
            )
        if "publickey" not in methods:
            return LoginFailed(
                f"{where} lets {user} in with no key at all; it takes {wanted}.",
                "This program logs in with keys alone: PubkeyAuthentication yes in sshd_config there.",
            )
        problems = [*self._locked, *found.problems]
        if not self._tried or self._locked:
            if problems:
                return LoginFailed(problems[0].problem, problems[0].remedy)
            return LoginFailed(
                f"There is no key to log in to {where} with.",
                "Name one: AML_REMOTE_KEY=~/.ssh/id_ed25519, or ssh-add it.",
            )
        also = f" {problems[0].problem}" if problems else ""
        key = "key" if len(self._tried) == 1 else "keys"
        return LoginFailed(
            f"{where} does not let {user} in with the {key} {self._names()}.{also}",
            problems[0].remedy
            if problems
            else "Correct AML_REMOTE_USER or AML_REMOTE_KEY; the public key has to be in ~/.ssh/authorized_keys there.",
        )

    def _names(self) -> str:
        names = [one.label for one in self._tried[:_SHOWN]]
        more = len(self._tried) - _SHOWN
        return ", ".join(names) + (f" and {more} more" if more > 0 else "")

    def _tried_text(self) -> str:
        return f"; tried: {self._names()}" if self._tried else ""


class _ConnectionEnded(Exception):
    """The server has ended the connection, or has not answered."""

    def __init__(self, *, silent: bool = False) -> None:
        super().__init__()
        self.silent = silent


class _Answer:
    """The server's answer: ``accepted``, ``refused``, ``partly`` (more is required) or ``would do``."""

    def __init__(self, kind: str, methods: list[str] | None = None) -> None:
        self.kind, self.methods = kind, methods or []


class _Authentication(AuthHandler):  # type: ignore[misc]
    """The messages of RFC 4252 on a paramiko transport, one request and its answer at a time."""

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        self._answers: queue.Queue[_Answer | None] = queue.Queue()
        self.partly = False

    @property
    def _client_handler_table(self) -> dict[int, Any]:
        return {
            MSG_SERVICE_ACCEPT: lambda _message: self._answers.put(_Answer("ready")),
            MSG_USERAUTH_SUCCESS: self._succeeded,
            MSG_USERAUTH_FAILURE: self._failed,
            MSG_USERAUTH_BANNER: self._parse_userauth_banner,
            # As the answer to a key, this message number means that the key would be accepted.
            MSG_USERAUTH_INFO_REQUEST: lambda _message: self._answers.put(_Answer("would do")),
        }

    def _succeeded(self, message: Any) -> None:
        self._parse_userauth_success(message)
        self._answers.put(_Answer("accepted"))

    def _failed(self, message: Any) -> None:
        methods, partly = message.get_list(), message.get_boolean()
        self.partly = self.partly or partly
        self._answers.put(_Answer("partly" if partly else "refused", methods))

    def abort(self) -> None:
        """Note that the connection has ended; called by paramiko."""
        self._answers.put(None)

    def begin(self, user: str) -> None:
        """Request the authentication service."""
        self.username = user
        message = Message()
        message.add_byte(cMSG_SERVICE_REQUEST)
        message.add_string("ssh-userauth")
        self._send(message)

    def request(self, method: str, rest: tuple[Any, ...] = ()) -> _Answer:
        """Send a login request and return the server's answer.

        Raises:
            _ConnectionEnded: There is no answer.
        """
        self.auth_method = method
        message = self._message(method, rest)
        return self._send(message)

    def to_sign(self, algorithm: str, blob: bytes) -> bytes:
        """The data that a key has to sign."""
        message = Message()
        message.add_string(self.transport.session_id)
        return bytes(message.asbytes() + self._message("publickey", (True, algorithm, blob)).asbytes())

    def _message(self, method: str, rest: tuple[Any, ...]) -> Any:
        message = Message()
        message.add_byte(cMSG_USERAUTH_REQUEST)
        for text in (self.username, "ssh-connection", method):
            message.add_string(text)
        for one in rest:
            if isinstance(one, bool):
                message.add_boolean(one)
            else:
                message.add_string(one)
        return message

    def _send(self, message: Any) -> _Answer:
        if not self.transport.is_active():
            raise _ConnectionEnded
        self.transport._send_message(message)
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                # A short wait: if the connection has ended before, no answer will be put into the queue.
                answer = self._answers.get(timeout=0.5)
            except queue.Empty:
                if not self.transport.is_active():
                    raise _ConnectionEnded from None
                if time.monotonic() > deadline:
                    raise _ConnectionEnded(silent=True) from None
                continue
            if answer is None:
                raise _ConnectionEnded
            return answer


def _algorithm(transport: Any, one: Identity) -> str:
    """The algorithm with which a key is offered: for RSA, the best one that the server accepts (RFC 8308, 8332)."""
    kind = one.kind
    if kind.removesuffix(CERTIFICATE) != "ssh-rsa":
        return kind
    named = transport.server_extensions.get("server-sig-algs", b"")
    taken = named.decode(errors="replace").split(",") if named else [_RSA[0]]
    best = next((name for name in _RSA if name in taken), _RSA[0])
    return best + (CERTIFICATE if kind.endswith(CERTIFICATE) else "")
