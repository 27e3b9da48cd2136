"""Commands that begin with the program loaded: copies, by a fork, of a process that has loaded it once.

Most of what a short command takes is Python's start and its imports, and the tests type thousands of them. Such a copy
does what the command does: in a process, a session, a folder and an environment of its own, behind its own pipes.
Whatever decides how Python starts, or which modules it loads, has a command started the usual way; see `Ready.takes`.
"""

from __future__ import annotations

import array
import contextlib
import functools
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: The line that makes a folder's tasks.py one of the program under test.
LINE = "sys.path.insert(0, {!r})\nfrom workflows import namespace as ns\n"
#: All that it says where PYTHONPATH leads to the program.
BARE = "from workflows import namespace as ns\n"
#: Start every command the usual way, to look for what the two ways differ in.
PLAIN = "AZUREML_DEBUG_TEST_PLAIN"
_DECIDING = ("PYTHON", "LC_", "LD_", "MALLOC_")
_DECIDING_TOO = ("LANG", "LANGUAGE", "TZ", "AZUREML_DEBUG_TEST_SIGN_IN")
#: What leads an SDK to the server of a test.
CLIENT = Path(__file__).resolve().parents[1] / "azureml_server" / "client"
#: Has a process that is ready start what it is given, behind its own streams.
RELAY = Path(__file__).with_name("ready_relay.py")
#: The Pythons that have an SDK as well, by the variable that names each, and the SDK.
_SDKS = {"AZUREML_DEBUG_TEST_SDK": "v1", "AZUREML_DEBUG_TEST_SDK_V2": "v2"}


def deciding(environ: Mapping[str, str], root: str) -> dict[str, str]:
    """The variables that tell how Python starts; without the program's own folder at the head of PYTHONPATH."""
    found = {name: value for name, value in environ.items() if name.startswith(_DECIDING) or name in _DECIDING_TOO}
    first, _, others = found.pop("PYTHONPATH", "").partition(os.pathsep)
    path = others if first == root else os.pathsep.join(filter(None, [first, others]))
    return {**found, **({"PYTHONPATH": path} if path else {})}


class Ready:
    """A process of a Python that has loaded the program, and waits for commands.

    Args:
        python: The interpreter.
        root: The program's folder.
        deciding: The variables that tell how Python starts.
        sdk: What is loaded as well: the SDK `v1`, `v2` or `mcp`, or `relay`.
    """

    def __init__(self, python: str, root: Path, deciding: Mapping[str, str], sdk: str = "") -> None:
        self._deciding = dict(deciding)
        self._lock = threading.Lock()
        self._root = str(root)
        self._place = tempfile.TemporaryDirectory(prefix="ready")
        #: A socket at which `ready_relay` asks for a command.
        self.asked = os.path.join(self._place.name, "asked")
        ours, theirs = socket.socketpair()
        with theirs, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.asked)
            listener.listen()
            begins = str(Path(__file__).with_name("ready_process.py"))
            ends = [theirs.fileno(), listener.fileno()]
            # What leads an SDK to the server of a test is set up as for one, and asks for its address when it is used.
            server = {"AZUREML_DEBUG_TEST_SERVER": "https://none.invalid"} if sdk != "relay" else {}
            self._process = subprocess.Popen(
                [python, begins, *map(str, ends), self._root, *filter(None, [sdk])],
                cwd=root,
                env={**os.environ, **deciding, **server},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=ends,
                start_new_session=True,
            )
        self._socket = ours
        length = ours.recv(4, socket.MSG_WAITALL)
        assert len(length) == 4 and self._process.stderr, (self._process.stderr or sys.stdin.buffer).read().decode()
        names = ours.recv(struct.unpack("!I", length)[0], socket.MSG_WAITALL)
        #: What a file or folder beside tasks.py would hide, if it were not loaded already.
        self._names = frozenset(names.decode().split())

    def takes(self, folder: Path, environ: Mapping[str, str]) -> bool:
        """Whether a command in a folder would load the same modules, and Python start in the same way."""
        if str(folder) == self._root:
            # Its own tasks.py, beside what is loaded.
            return deciding(environ, self._root) == self._deciding
        if not self.takes_lines(folder, environ):
            return False
        try:
            text = (folder / "tasks.py").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return False
        led = environ.get("PYTHONPATH", "").partition(os.pathsep)[0] == self._root
        return LINE.format(self._root) in text or (led and text == BARE)

    def takes_lines(self, folder: Path, environ: Mapping[str, str]) -> bool:
        """The same for lines of Python: nothing there hides what is loaded."""
        if deciding(environ, self._root) != self._deciding:
            return False
        here = (name for name in os.listdir(folder) if name.partition(".")[0] in self._names)
        # A folder that is no package hides nothing.
        return not any(name.endswith((".py", ".so")) or (folder / name / "__init__.py").exists() for name in here)

    def begin(self, arguments: Sequence[str], folder: str, environ: Mapping[str, str], streams: Sequence[int]) -> int:
        """Start a command.

        Args:
            arguments: What Python is given: `-m` and a module, or `-c` and lines, and their own arguments.
            folder: Where.
            environ: Its variables, all of them.
            streams: Descriptors for its standard input, output and error.

        Returns:
            A descriptor that first has the process's id, and its status once it has ended; eight bytes each.
        """

        def ask(tells: int) -> None:
            with self._lock:
                send(self._socket, arguments, folder, environ, [*streams, tells])

        return _told_by(ask)

    def close(self) -> None:
        """End it; what it has started goes on."""
        self._socket.close()
        self._process.wait(30)
        assert self._process.stderr
        self._process.stderr.close()
        self._place.cleanup()


def ready(python: str, root: Path, environ: Mapping[str, str], sdk: str = "") -> Ready | None:
    """The one of this process for a Python and an environment; None where a command is started the usual way.

    Args:
        python: The interpreter.
        root: The program's folder.
        environ: The command's environment.
        sdk: What is loaded with the program, where the interpreter does not tell: `mcp`.
    """
    if not hasattr(os, "pidfd_open") or os.environ.get(PLAIN):
        return None
    own, wanted = deciding(os.environ, str(root)), deciding(environ, str(root))
    azure = next((version for name, version in _SDKS.items() if python == os.environ.get(name)), "")
    if azure:
        path = [*filter(None, [own.get("PYTHONPATH")]), str(CLIENT)]
        own["PYTHONPATH"] = os.pathsep.join(path)
        wanted.pop("AZUREML_DEBUG_TEST_SIGN_IN", None)
    elif python == sys.executable and not sdk and wanted.get("PYTHONPATH") == str(CLIENT) and "PYTHONPATH" not in own:
        # This Python and the tests' way to sign in: what reaches an instance through its workspace.
        own["PYTHONPATH"], azure = str(CLIENT), "relay"
    if own != wanted or not (azure or python == sys.executable):
        return None
    return _ready(python, root, frozenset(deciding(environ, str(root)).items()), azure or sdk)


def typed(root: Path, folder: Path, environ: Mapping[str, str], sdk: str = "") -> list[str]:
    """What others, which start a process of their own, type for `inv` in a folder: the quickest way that is the same.

    Args:
        root: The program's folder.
        folder: Where they start it.
        environ: Its environment.
        sdk: See :func:`ready`.
    """
    source = ready(sys.executable, root, environ, sdk)
    if source is None or not source.takes(folder, environ):
        return [sys.executable, "-m", "invoke"]
    return [sys.executable, "-I", "-S", str(RELAY), source.asked, "-m", "invoke"]


@functools.cache
def _ready(python: str, root: Path, deciding: frozenset[tuple[str, str]], sdk: str) -> Ready:
    import atexit

    made = Ready(python, root, dict(deciding), sdk)
    atexit.register(made.close)
    return made


class Asked:
    """The same process, asked at its socket by another than the one that has started it.

    Args:
        place: The socket.
    """

    def __init__(self, place: str) -> None:
        self._place = place

    def begin(self, arguments: Sequence[str], folder: str, environ: Mapping[str, str], streams: Sequence[int]) -> int:
        """See :meth:`Ready.begin`."""

        def ask(tells: int) -> None:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.connect(self._place)
                send(asking, arguments, folder, environ, [*streams, tells])

        return _told_by(ask)


def _told_by(ask: Callable[[int], None]) -> int:
    """A descriptor for what is written to the one that ``ask`` hands over; see :meth:`Ready.begin`."""
    told, tells = os.pipe()
    try:
        ask(tells)
    except BaseException:
        os.close(told)
        raise
    finally:
        os.close(tells)
    return told


def send(
    to: socket.socket, arguments: Sequence[str], folder: str, environ: Mapping[str, str], handed: Sequence[int]
) -> None:
    """Send a command to the process that is to start it."""
    wanted = json.dumps({"arguments": list(arguments), "folder": folder, "environ": dict(environ)}).encode()
    descriptors = array.array("i", handed)
    to.sendmsg([struct.pack("!I", len(wanted))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    to.sendall(wanted)


class Begun(subprocess.Popen[Any]):
    """A Popen whose process another one starts."""

    source: Ready | Asked
    _told = -1

    def _execute_child(
        self, args: Any, _executable: Any, _preexec: Any, _close: Any, _pass: Any, cwd: Any, env: Any, *others: Any
    ) -> None:
        # The first four of the others concern Windows and shells, or the pipes' ends follow them directly.
        ends = others[3:9]
        p2cread, _, _, c2pwrite, _, errwrite = ends
        self._told = self.source.begin(args, str(cwd or os.getcwd()), env, [p2cread, c2pwrite, errwrite])
        self.pid = struct.unpack("!q", self._eight())[0]
        self._child_created = True
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]

    def _eight(self) -> bytes:
        found = os.read(self._told, 8)
        assert len(found) == 8, "the process that starts commands has ended"
        return found

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """As waitpid does, which knows children of this process only."""
        if wait_flags & os.WNOHANG and not select.select([self._told], [], [], 0)[0]:
            return 0, 0
        status = struct.unpack("!q", self._eight())[0]
        os.close(self._told)
        self._told = -1
        return self.pid, status

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._told >= 0:
            with contextlib.ExitStack() as close:
                # Another thread that waits will know.
                if not self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
                    return None
                close.callback(self._waitpid_lock.release)  # type: ignore[attr-defined]
                if self.returncode is None and (found := self._try_wait(os.WNOHANG))[0]:
                    self._handle_exitstatus(found[1])  # type: ignore[attr-defined]
        return self.returncode


class Command(Begun):
    """A command that a :class:`Ready` has started, as a Popen.

    Args:
        source: Who starts it.
        arguments: What Python is given.
        cwd: Where.
        env: Its variables, all of them.
    """

    def __init__(self, source: Ready, arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self.source = source
        pipe = subprocess.PIPE
        super().__init__(
            list(arguments), cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )


def run_lines(
    python: str,
    lines: str,
    folder: Path,
    environ: Mapping[str, str],
    seconds: float = 150,
    arguments: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run lines of Python in a folder, from a copy of a process that has loaded an interpreter's SDK, and wait.

    Args:
        python: The interpreter.
        lines: As of `python -c`.
        folder: Where.
        environ: Their environment.
        seconds: The limit only keeps a broken test from hanging.
        arguments: What follows the lines.
    """
    words = ["-c", lines, *arguments]
    source = ready(python, ROOT, environ)
    if source is None or not source.takes_lines(folder, environ):
        return subprocess.run(
            [python, *words], cwd=folder, env=environ, capture_output=True, text=True, timeout=seconds
        )
    with Command(source, words, folder, environ) as command:
        try:
            out, err = command.communicate(timeout=seconds)
        except BaseException:
            command.kill()
            raise
    return subprocess.CompletedProcess(words, command.returncode, out, err)
