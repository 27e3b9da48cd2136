"""Headless inspection of real programs under debugpy, and the reading of FILE:LINE."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dap_children import Debuggee, debuggee, fake_peer

from workflows.debugger.dap import DapClient
from workflows.debugger.inspect_stop import Inspection, check_line, inspect_stop, parse_location, resolve_source
from workflows.debugger.sessions import session as sessions_of
from workflows.debugger.sessions import stop_reader
from workflows.errors import BadValue, UserError
from workflows.models import DebugEndpoint, PathMapping

APP = """\
import os
import time

import debugpy

GLOBAL = "of the module"


def work(text):
    count = len(text)
    _hidden = [1, 2]
    callback = str.upper
    kind = dict
    name = callback("größer")
    return count * 2  # stop: work


def unreached():
    return 1  # stop: unreached


def handle(text):
    command, _, rest = text.partition(" ")
    if command == "breakpoint":
        debugpy.breakpoint()
    if command == "slow":
        time.sleep(float(rest))
    if command == "quit":
        os._exit(3)
    return work(rest)
"""


def line_of(marker: str, text: str = APP) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if f"# stop: {marker}" in line)


WORK = line_of("work")


def write_app(folder: Path, text: str = APP) -> Path:
    path = folder / "app.py"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_app(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def program(source: Path) -> Iterator[Debuggee]:
    with debuggee(source.parent) as child:
        yield child


def endpoint(port: int, *mappings: PathMapping) -> DebugEndpoint:
    return DebugEndpoint("127.0.0.1", port, mappings)


def inspect(child: Debuggee, source: Path, line: int = WORK, *expressions: str, **options: Any) -> Inspection:
    options = {"trigger": lambda: child.ask("x four"), "timeout": 10, **options}
    return inspect_stop(endpoint(child.port), source, line, expressions, **options)


# Looking


def test_a_stop_shows_place_stack_locals_and_values_and_the_program_goes_on(program: Debuggee, source: Path) -> None:
    found = inspect(program, source, WORK, "count + 1", "missing", "name", "1 +", "GLOBAL", "[][0]")
    assert found.stopped.as_json() == {"file": str(source), "line": WORK, "function": "work"}
    assert [frame.function for frame in found.stack] == ["work", "handle", "<module>"]
    assert found.stack[0] == found.stopped
    assert found.locals["text"] == "'four'"
    assert found.locals["count"] == "4"
    assert found.values["count + 1"] == "5"
    assert found.values["name"] == "'GRÖSSER'"
    assert found.values["GLOBAL"] == "'of the module'"
    assert found.values["missing"] == "NameError: name 'missing' is not defined"
    assert found.values["1 +"].startswith("SyntaxError: ")
    assert found.values["[][0]"] == "IndexError: list index out of range"
    assert list(found.values) == ["count + 1", "missing", "name", "1 +", "GLOBAL", "[][0]"]
    assert found.trigger_result == "8"
    assert program.ask("x abc") == "6"


def test_locals_are_all_of_the_functions_variables_and_nothing_else(program: Debuggee, source: Path) -> None:
    found = inspect(program, source)
    assert set(found.locals) == {"text", "count", "_hidden", "callback", "kind", "name"}
    assert found.locals["_hidden"] == "[1, 2]"


def test_json_has_the_documented_keys(program: Debuggee, source: Path) -> None:
    shown = inspect(program, source, WORK, "count").as_json()
    assert list(shown) == ["stopped", "stack", "locals", "values"]
    assert shown["stopped"] == shown["stack"][0] == {"file": str(source), "line": WORK, "function": "work"}
    assert shown["values"] == {"count": "4"}


def test_the_breakpoint_is_gone_afterwards_and_inspecting_again_works(program: Debuggee, source: Path) -> None:
    for text in ("a", "bb", "ccc"):
        found = inspect(program, source, WORK, "count", trigger=lambda text=text: program.ask(f"x {text}"))
        assert found.values["count"] == str(len(text))
        assert program.ask("x abc") == "6"


def test_a_frame_of_a_module_shows_its_variables_without_functions_and_dunders(tmp_path: Path) -> None:
    path = write_app(tmp_path, "import os\nx = 1\n_y = 2\ndef handle(text):\n    return 0\nx = 3\n")
    with debuggee(tmp_path, "--wait") as child:
        # Held in wait_for_client: nothing has to be triggered, attaching lets it run into the line.
        found = inspect(child, path, 6, "x", trigger=None)
        assert found.stopped.function == "<module>"
        assert (found.locals["x"], found.locals["_y"]) == ("1", "2")
        others = {"os", "handle", "__name__", "special variables", "function variables"}
        assert not others & set(found.locals)
        assert found.trigger_result is None
        assert child.ask("x") == "0"


def test_frames_of_many_variables_are_read_whole(tmp_path: Path) -> None:
    # Below, at and above the size of a page.
    numbers = (499, 500, 501, 1200)
    lines = []
    for number in numbers:
        lines += [
            f"def many{number}(a):",
            *(f"    v{i} = {i}" for i in range(number - 1)),
            f"    return a  # stop: {number}.",
        ]
    text = "\n".join([*lines, "def handle(text):", "    return globals()[text](0)", ""])
    path = write_app(tmp_path, text)
    with debuggee(tmp_path) as child:
        for number in numbers:
            found = inspect(
                child, path, line_of(f"{number}.", text), trigger=lambda number=number: child.ask(f"many{number}")
            )
            assert set(found.locals) == {"a", *(f"v{i}" for i in range(number - 1))}


# Paths


def test_files_are_reported_under_their_local_paths(tmp_path: Path) -> None:
    local, remote = tmp_path / "local", tmp_path / "remote"
    local.mkdir()
    remote.mkdir()
    write_app(remote)
    path = write_app(local)
    with debuggee(remote) as child:
        mapping = PathMapping(local, str(remote))
        options: dict[str, Any] = {"trigger": lambda: child.ask("x four"), "timeout": 10}
        found = inspect_stop(endpoint(child.port, mapping), path, WORK, [], **options)
        assert [frame.file for frame in found.stack[:2]] == [str(path), str(path)]

        # The same folder by another name: a link, as /tmp is on macOS.
        (tmp_path / "link").symlink_to(local)
        found = inspect_stop(endpoint(child.port, mapping), tmp_path / "link" / "app.py", WORK, [], **options)
        assert found.stopped.file == str(path)

        wrong = PathMapping(local, "/nowhere")
        with pytest.raises(UserError, match=r"The program has no file .*app\.py\.\n.*/nowhere"):
            inspect_stop(endpoint(child.port, wrong), path, WORK, [], **options)
        assert child.ask("x abc") == "6"


# What goes wrong before a stop


def test_a_line_that_is_not_reached_is_said_with_the_triggers_result(program: Debuggee, source: Path) -> None:
    with pytest.raises(UserError, match=r"app\.py:\d+ was not reached.*: status <8>"):
        inspect(program, source, line_of("unreached"), summarize=lambda answer: (f"status <{answer}>", ["its end"]))
    assert program.ask("x abc") == "6"


def test_a_line_not_reached_in_time_is_said_and_nothing_stays_behind(program: Debuggee, source: Path) -> None:
    with pytest.raises(UserError, match=r"not reached within 0\.5 s"):
        inspect(program, source, timeout=0.5, trigger=None)
    assert program.ask("x abc") == "6"


def test_errors_of_the_trigger_pass_through(program: Debuggee, source: Path) -> None:
    def fail() -> None:
        raise UserError("the service answers 502", "Look at its log.")

    with pytest.raises(UserError, match="answers 502"):
        inspect(program, source, trigger=fail)

    def bug() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        inspect(program, source, trigger=bug)
    assert program.ask("x abc") == "6"


def test_other_stops_are_let_go_on(program: Debuggee, source: Path) -> None:
    found = inspect(program, source, WORK, "count", trigger=lambda: program.ask("breakpoint abcde"))
    assert (found.stopped.line, found.values["count"], found.trigger_result) == (WORK, "5", "10")


def test_the_stop_is_recognised_where_debugpy_does_not_name_the_breakpoint(
    program: Debuggee, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DapClient.wait_event

    def without_ids(self: DapClient, *arguments: Any) -> Any:
        event = real(self, *arguments)
        event.body.pop("hitBreakpointIds", None)
        return event

    monkeypatch.setattr(DapClient, "wait_event", without_ids)
    found = inspect(program, source, trigger=lambda: program.ask("breakpoint abc"))
    assert (found.stopped.line, found.trigger_result) == (WORK, "6")


def test_an_attached_editor_is_named_and_left_alone(program: Debuggee, source: Path) -> None:
    with DapClient.connect("127.0.0.1", program.port, 5) as editor:
        editor.attach(timeout=30)
        for _ in range(2):
            with pytest.raises(UserError, match=r"(?s)editor is already attached.*Shift\+F5"):
                inspect(program, source)
        assert editor.request("threads")["threads"]
        editor.disconnect()
    assert inspect(program, source).trigger_result == "8"


def test_a_program_that_ends_before_the_line_is_said_at_once(tmp_path: Path) -> None:
    path = write_app(tmp_path)
    with debuggee(tmp_path) as child:
        began = time.monotonic()

        def leave() -> None:
            # The request never returns: only the debugger can tell.
            with contextlib.suppress(OSError):
                child.ask("quit")
            time.sleep(30)

        with pytest.raises(UserError, match="program ended before it reached"):
            inspect(child, path, trigger=leave, timeout=25)
        assert time.monotonic() - began < 10


def test_nothing_listening_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UserError, match=f"No debugger can be reached on 127.0.0.1:{port}"):
        inspect_stop(endpoint(port), Path("/x.py"), 1, [], trigger=None, timeout=1)


def test_a_silent_port_is_said_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_of, "RELEASE_TIMEOUT", 0.5)
    with fake_peer(lambda connection: None) as port, pytest.raises(UserError, match="does not answer"):
        # It returns: the farewell is bounded as well.
        inspect_stop(endpoint(port), Path("/x.py"), 1, [], trigger=lambda: pytest.fail(), timeout=1, attach_timeout=0.5)


def test_a_port_that_closes_and_one_that_is_no_debugger_are_said() -> None:
    for reply, said in ((b"", "Lost the debugger"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not a debug adapter")):

        def behave(connection: socket.socket, reply: bytes = reply) -> None:
            connection.recv(10)
            connection.sendall(reply)
            connection.shutdown(socket.SHUT_WR)

        with fake_peer(behave) as port, pytest.raises(UserError, match=said):
            inspect_stop(endpoint(port), Path("/x.py"), 1, [], trigger=None, timeout=1)


# What goes wrong after a stop


def test_a_program_is_let_go_on_when_an_expression_never_ends(program: Debuggee, source: Path) -> None:
    answer: list[str] = []
    with pytest.raises(UserError, match="did not end within 1 s"):
        inspect(
            program,
            source,
            WORK,
            "__import__('time').sleep(2.5)",
            timeout=1,
            trigger=lambda: answer.append(program.ask("x four")),
        )
    assert program.ask("x abc") == "6"
    assert answer == ["8"]
    assert inspect(program, source).trigger_result == "8"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError, UserError("no", "no")])
def test_a_program_is_let_go_on_when_reading_is_interrupted(
    program: Debuggee, source: Path, monkeypatch: pytest.MonkeyPatch, interruption: Any
) -> None:
    returned = threading.Event()

    def trigger() -> None:
        program.ask("x four")
        returned.set()

    def fail(*_: object) -> None:
        raise interruption

    monkeypatch.setattr(stop_reader, "read_locals", fail)
    with pytest.raises(interruption if isinstance(interruption, type) else UserError):
        inspect(program, source, trigger=trigger)
    assert returned.wait(5)
    assert program.ask("x abc") == "6"
    monkeypatch.undo()
    assert inspect(program, source).trigger_result == "8"


def test_a_program_that_dies_while_it_is_looked_at_is_said(tmp_path: Path) -> None:
    path = write_app(tmp_path)
    with debuggee(tmp_path) as child:
        began = time.monotonic()
        with pytest.raises(UserError, match="ended while it was being inspected"):
            inspect(child, path, WORK, "os._exit(3)", timeout=8)
        assert time.monotonic() - began < 20
        assert child.process.wait(5) == 3


def test_a_request_that_does_not_end_is_given_up_and_the_program_is_free(program: Debuggee, source: Path) -> None:
    finish = threading.Event()

    def trigger() -> None:
        program.ask("x four")
        finish.wait(20)

    with pytest.raises(UserError, match=r"the request did not end within 0\.7 s"):
        inspect(program, source, trigger=trigger, timeout=0.7)
    finish.set()
    assert program.ask("x abc") == "6"


# FILE:LINE


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("score.py:3", ("score.py", 3)),
        ("C:\\x\\score.py:3", ("C:\\x\\score.py", 3)),
        ("/a b/größe.py:12", ("/a b/größe.py", 12)),
        (" score.py:3 ", ("score.py", 3)),
        ("odd:name.py:7", ("odd:name.py", 7)),
    ],
)
def test_a_place_is_read(text: str, place: tuple[str, int]) -> None:
    assert parse_location(text) == place


@pytest.mark.parametrize(
    "text",
    ["", " ", ":", ":3", "score.py", "score.py:", "score.py:x", "score.py:0", "score.py:-1", "score.py:1.5",
     "score.py:+1", "score.py:1_0", "score.py:٣", "score.py:²", "C:\\x\\score.py", "score.py:3:", "a.py:" + "9" * 5000],
)  # fmt: skip
def test_what_is_no_place_is_refused_with_exit_code_2(text: str) -> None:
    with pytest.raises(BadValue, match=r"score\.py:42") as caught:
        parse_location(text)
    assert caught.value.exit_code == 2


def test_a_source_is_found_by_absolute_path_then_current_folder_then_roots(tmp_path: Path) -> None:
    cwd, first, second = (tmp_path / name for name in ("cwd", "first", "second"))
    for folder in (cwd, first, second):
        folder.mkdir()
    (second / "a.py").touch()
    assert resolve_source("a.py", cwd=cwd, roots=[first, second]) == second / "a.py"
    (first / "a.py").touch()
    assert resolve_source("a.py", cwd=cwd, roots=[first, second]) == first / "a.py"
    (cwd / "a.py").touch()
    assert resolve_source("a.py", cwd=cwd, roots=[first, second]) == cwd / "a.py"
    assert resolve_source(str(second / "a.py"), cwd=cwd, roots=[first]) == second / "a.py"
    assert resolve_source("../first/a.py", cwd=cwd, roots=[]) == first / "a.py"


def test_links_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.py").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert resolve_source("a.py", cwd=tmp_path / "link", roots=[]) == tmp_path / "link" / "a.py"


def test_a_source_that_is_not_there_names_the_places(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        resolve_source("no.py", cwd=tmp_path, roots=[tmp_path / "root"])
    assert "no.py" in caught.value.problem
    assert str(tmp_path / "no.py") in caught.value.remedy
    assert str(tmp_path / "root" / "no.py") in caught.value.remedy
    with pytest.raises(UserError, match="is a folder"):
        resolve_source(str(tmp_path), cwd=tmp_path, roots=[])


CODE = '''\
"""Docstring,
of two lines."""

# a comment
def f(x):
    # another
    if x:
        return (x +
                1)
    else:
        pass

    class Inner:
        def g(self): return [y for y in
                             self]

    return lambda: (
        x
    )


# the end
'''


@pytest.mark.parametrize("line", [1, 5, 7, 8, 9, 11, 13, 14, 15, 17, 18])
def test_lines_with_code_are_accepted(tmp_path: Path, line: int) -> None:
    (tmp_path / "a.py").write_text(CODE)
    check_line(tmp_path / "a.py", line)


@pytest.mark.parametrize(("line", "following"), [(3, 5), (4, 5), (6, 7), (10, 11), (12, 13), (16, 17)])
def test_a_line_without_code_is_refused_with_the_next_that_has(tmp_path: Path, line: int, following: int) -> None:
    path = tmp_path / "a.py"
    path.write_text(CODE)
    with pytest.raises(UserError, match=f"next line that does is {following}") as caught:
        check_line(path, line)
    assert str(caught.value).startswith(f"{path}:{line}: error: ")
    assert f"Line {line} of a.py" in caught.value.problem


def test_the_place_of_an_error_is_told_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "a.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        check_line(tmp_path / "service" / "a.py", 3)
    assert str(caught.value).startswith(f"{Path('service', 'a.py')}:3: error: ")


@pytest.mark.parametrize("line", [20, 22, 23, 9999])
def test_a_line_beyond_the_last_code_is_refused_with_the_last_that_has(tmp_path: Path, line: int) -> None:
    (tmp_path / "a.py").write_text(CODE)
    with pytest.raises(UserError, match="last line that does is 18"):
        check_line(tmp_path / "a.py", line)


@pytest.mark.parametrize("content", [b"def f(:\n", b"\x00", b"\xff\xfe\x00", b"# coding: nonsense\n"])
def test_files_that_do_not_compile_here_are_accepted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.py").write_bytes(content)
    check_line(tmp_path / "a.py", 99)


def test_checking_a_line_runs_nothing_and_warns_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('import os\nos.abort()\nassert (1, "\\d")\n')
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_line(tmp_path / "a.py", 3)
    assert not seen
    # Nor does a warning count as an error, after which any line would be accepted.
    with warnings.catch_warnings(), pytest.raises(UserError):
        warnings.simplefilter("error")
        check_line(tmp_path / "a.py", 4)


def test_empty_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("# nothing\n")
    with pytest.raises(UserError, match=r"a\.py:2: error: .*holds no code") as caught:
        check_line(tmp_path / "a.py", 2)
    # Python 3.11 gives an empty module an instruction in a line 0.
    assert "is 0" not in str(caught.value)
