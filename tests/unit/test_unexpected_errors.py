"""What nobody has foreseen: told from a bug by what was raised and where, and kept in a log."""

from __future__ import annotations

import errno
import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from workflows import unexpected_errors
from workflows.errors import UserError
from workflows.paths import NoHomeError, cache_folder
from workflows.reading import MOST_BYTES, read_bytes, read_text

ROOT = Path(__file__).parents[2]


def raised(call: Callable[[], object]) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


LONG = "x" * 300
GIVEN: dict[str, tuple[Callable[[], object], str]] = {
    "a name that is too long": (lambda: Path(LONG).stat(), "too long for a file: xxxx"),
    "a file that is gone": (lambda: Path("/nowhere/x").read_bytes(), "no such file or folder: /nowhere/x"),
    "a folder for a file": (lambda: Path("/").read_bytes(), "a folder, not a file: /"),
    "a file for a folder": (lambda: os.listdir(__file__), "a file, not a folder"),
    "a NUL in a path": (lambda: os.stat("a\0b"), "has a NUL in it"),
    "a NUL in an argument": (lambda: subprocess.run(["a\0b"], check=False), "has a NUL in it"),
    "no such user": (lambda: Path("~nouser/x").expanduser(), "home folder the system does not know"),
    "an address that is none": (lambda: urllib.parse.urlsplit("http://[::1"), "An address is not valid: Invalid IPv6"),
    "a port that is none": (lambda: urllib.parse.urlsplit("http://h:99999").port, "An address is not valid"),
    "an address with a blank": (lambda: urllib.request.urlopen("http://h/ x"), "control characters"),
    "a number of thousands of digits": (lambda: int("9" * 5000), "thousands of digits"),
    "a port that is too large": (lambda: too_large(), "too large"),
    "text that is not UTF-8": (lambda: b"caf\xe9 ".decode(), "A text is not utf-8: byte 0xe9 at 3"),
    "a name that is not text": (lambda: "caf\udce9".encode(), "U+DCE9"),
    "JSON that is none": (lambda: json.loads("{"), "What json was to read is wrong"),
    "JSON that is nested": (lambda: json.loads("[" * 100_000), "nested too deeply"),
    "nobody listens": (lambda: socket.create_connection(("127.0.0.1", 1), 2), "Nothing listens there"),
    "a name that no server knows": (lambda: socket.getaddrinfo("nowhere.invalid", 1), "(in build)"),
    "a program that is none": (lambda: subprocess.run([str(ROOT / "README.md")], check=False), "README.md"),
    "arguments that are too long": (lambda: subprocess.run(["/bin/true", "x" * 3_000_000], check=False), "too long"),
    "an archive that is none": (lambda: shutil.unpack_archive(__file__, "/tmp", "zip"), "not a zip file"),
}


@pytest.mark.parametrize(("call", "text"), GIVEN.values(), ids=GIVEN.keys())
def test_what_was_given_wrong_is_told_in_two_lines(call: Callable[[], object], text: str) -> None:
    error = raised(call)
    found = unexpected_errors.explain(error, "build")
    assert found is not None, repr(error)
    assert text in found.problem
    assert found.problem.endswith(" (in build).")
    assert str(found).count("\n") == 1
    assert found.remedy.endswith(".")
    assert len(str(found)) < 1000


def would_wait() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        one.recv(1)


def too_large() -> None:
    with socket.socket() as one:
        one.connect(("127.0.0.1", 70000))


BUGS: dict[str, Callable[[], object]] = {
    "a value of ours": lambda: (_ for _ in ()).throw(ValueError("remote root is not absolute")),
    "a wrong type": lambda: len(3),  # type: ignore[arg-type]
    "a missing key": lambda: dict[str, int]()["x"],
    "a closed file": lambda: os.read(9999, 1),
    "a call that cannot be": lambda: os.lseek(os.pipe()[0], 0, 0),
    "a socket that would wait": would_wait,
    "a runtime error": lambda: (_ for _ in ()).throw(RuntimeError("dictionary changed size during iteration")),
}


@pytest.mark.parametrize("call", BUGS.values(), ids=BUGS.keys())
def test_a_bug_stays_one(call: Callable[[], object]) -> None:
    error = raised(call)
    # As if a line of the program had raised it, and not one of the tests.
    assert unexpected_errors.explain(error) is None, repr(error)


def test_a_recursion_of_ours_is_a_bug() -> None:
    def again(depth: int) -> int:
        return again(depth + 1)

    error = raised(lambda: again(0))
    assert isinstance(error, RecursionError)
    assert unexpected_errors.explain(error) is None


def test_of_a_folder_that_could_not_be_copied_the_first_file_is_named_and_the_others_are_counted(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").mkdir()
    for name in ("x", "y", "z"):
        (tmp_path / "a" / name).symlink_to("nowhere")
    error = raised(lambda: shutil.copytree(tmp_path / "a", tmp_path / "b"))
    found = unexpected_errors.explain(error)
    assert found is not None
    assert "(and 2 more)" in found.problem
    assert "No such file" in found.problem


@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="only root can become somebody else")
def test_a_limit_of_processes_is_said_whatever_could_not_be_started() -> None:
    code = """
    import os, resource, subprocess, threading
    from workflows import unexpected_errors
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    os.setuid(54321)
    for start in (lambda: subprocess.Popen(["/bin/true"]), lambda: threading.Thread(target=print).start(), os.fork):
        try:
            start()
        except Exception as error:
            print(type(error).__name__, unexpected_errors.explain(error, "run"))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.count("error: No further process or thread can be started: a limit is reached (in run).") >= 2, (
        done
    )


def test_without_home_and_without_an_entry_for_the_user_it_is_said_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(number: int) -> object:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(NoHomeError, match="HOME is not set"):
        cache_folder()
    # Also where it is only looked at.
    assert unexpected_errors.log_traceback(ValueError("x"), None) is None


# The edge -------------------------------------------------------------------------------------------

TASKS = """
import json, sys, threading
sys.path.insert(0, {root!r})
from invoke import Collection
from workflows.tasks._command import command

@command()
def bug(run):
    with run.console.step("work"):
        len(3)

@command()
def gone(run):
    with run.console.step("work"):
        open("/nowhere/x")

@command()
def thread(run):
    threading._start_new_thread = lambda *a, **k: (_ for _ in ()).throw(RuntimeError("can't start new thread"))
    threading.Thread(target=print).start()

@command()
def read(run):
    json.loads("[" * 100000)

@command()
def say(run):
    run.console.line("said")
    print(sys.stdin.read(), end="")

ns = Collection(bug, gone, thread, read, say)
"""


@pytest.fixture
def typed(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Types a task of a project's own that fails in some way."""
    (tmp_path / "tasks.py").write_text(TASKS.format(root=str(ROOT)))
    (tmp_path / ".azureml-debug").mkdir()

    def inv(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "invoke", *arguments]
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            command, **{"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 60, **options}
        )

    return inv


@pytest.mark.parametrize(
    ("task", "lines"),
    [
        ("gone", "error: There is no such file or folder: /nowhere/x (in work).\nCheck the path; "),
        ("thread", "error: No further process or thread can be started: a limit is reached.\nEnd what is not needed, "),
        ("read", "error: What json was to read is nested too deeply.\nSimplify it, then run this again."),
    ],
)
def test_a_task_that_meets_it_ends_in_two_lines(
    tmp_path: Path, typed: Callable[..., subprocess.CompletedProcess[str]], task: str, lines: str
) -> None:
    done = typed(task)
    assert done.returncode == 1
    assert done.stderr.startswith(lines), done.stderr
    assert done.stderr.count("\n") == 2
    assert "Traceback" in (tmp_path / ".azureml-debug" / "errors.log").read_text()


def test_a_bug_keeps_its_traceback_and_says_where_it_is_kept(
    tmp_path: Path, typed: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = typed("bug")
    assert done.returncode == 1
    log = tmp_path / ".azureml-debug" / "errors.log"
    assert done.stderr.startswith(f"This is a bug of the program; its traceback is kept in {log}:\nTraceback")
    assert done.stderr.endswith("TypeError: object of type 'int' has no len()\n")
    assert "has no len()" in log.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="no shell that closes a stream")
def test_a_standard_stream_that_is_closed_is_none_the_less_there(tmp_path: Path, typed: Callable[..., object]) -> None:
    for closed, said in {"<&-": "said\n", ">&-": "", "<&- >&- 2>&-": ""}.items():
        done = subprocess.run(
            f"exec {closed}; exec {sys.executable} -m invoke say",
            shell=True,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, said), done


# The log --------------------------------------------------------------------------------------------


def test_the_traceback_is_kept_for_this_user_alone_and_without_secrets(tmp_path: Path) -> None:
    (tmp_path / ".azureml-debug").mkdir()
    error = raised(lambda: json.loads("https://user:canary-4711@host/x"))
    error.args = ("https://user:canary-4711@host/x",)
    path = unexpected_errors.log_traceback(error, tmp_path)
    assert path == tmp_path / ".azureml-debug" / "errors.log"
    text = path.read_text()
    assert "Traceback" in text
    assert "json/decoder.py" in text
    assert "canary-4711" not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_log_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / ".azureml-debug").mkdir()
    for _ in range(8):
        unexpected_errors.log_traceback(ValueError("y" * 100_000), tmp_path)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / ".azureml-debug").glob("errors.log*")}
    assert set(sizes) == {"errors.log", "errors.log.1"}
    assert max(sizes.values()) < 600_000


def test_a_log_that_is_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / ".azureml-debug").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".azureml-debug" / "errors.log").symlink_to(tmp_path / "mine")
    assert (
        unexpected_errors.log_traceback(ValueError("x"), tmp_path)
        == tmp_path / "cache" / "azureml-debug" / "errors.log"
    )
    assert (tmp_path / "mine").read_text() == "mine"


# Files that are read whole --------------------------------------------------------------------------


def refused(path: Path) -> OSError:
    with pytest.raises(OSError) as caught:
        read_bytes(path)
    return caught.value


def test_only_regular_files_of_a_size_that_is_said_are_read(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2 * 1024**3)
    error = refused(tmp_path / "sparse")
    assert (error.errno, error.strerror) == (errno.EFBIG, "it is larger than 16 MB, the most that is read")
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe").strerror == "it is not a regular file"
    assert refused(Path("/dev/zero")).strerror == "it is not a regular file"
    assert refused(tmp_path).errno == errno.EISDIR
    assert refused(tmp_path / LONG).errno == errno.ENAMETOOLONG
    assert refused(tmp_path / "a\0b").strerror == "its name cannot be a file's name"
    (tmp_path / "most").write_bytes(bytes(MOST_BYTES))
    assert len(read_bytes(tmp_path / "most")) == MOST_BYTES
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert read_text(tmp_path / "text", "utf-8-sig") == "a\r\nb"
    assert b"processor" in read_bytes("/proc/cpuinfo")


def test_a_file_that_grows_while_it_is_read_is_refused_all_the_same(tmp_path: Path) -> None:
    # What /proc says is of no size at all.
    with tempfile.NamedTemporaryFile(dir=tmp_path) as file:
        file.write(b"x" * 101)
        file.flush()
        with pytest.raises(OSError, match="larger than"):
            read_bytes(file.name, 100)


def test_threads_are_not_needed_to_say_so() -> None:
    """The guard itself starts nothing: at a limit it could not."""
    before = threading.active_count()
    unexpected_errors.explain(RuntimeError("can't start new thread"))
    assert threading.active_count() == before


def test_an_error_in_two_lines_stays_as_it_is() -> None:
    error = UserError("x", "y")
    assert unexpected_errors.explain(error, "build") is error
