"""Debug sessions that stay, with real programs under debugpy."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dap_children import Debuggee, debuggee

from workflows.debugger.locations import ALWAYS, Condition
from workflows.debugger.sessions import Breakpoint, DebugSession, Function, Happening, Stop
from workflows.errors import UserError
from workflows.models import DebugEndpoint

APP = """\
import json
import time


class Box:
    def __init__(self, number):
        self.number = number


def work(number):
    box = Box(number)
    pairs = {"a": [1, [2, 3]], "b": {"c": number}}
    total = number * 2  # work
    return total + box.number  # result


def double(number): return number * 2  # alone


def careful(number):
    try:
        return 1 / number
    except ZeroDivisionError:
        return json.loads("[]")


def handle(text):
    command, _, rest = text.partition(" ")
    if command == "careful":
        return careful(0)
    if command == "many":
        started = time.perf_counter()
        for number in range(int(rest)):
            work(number)
        return time.perf_counter() - started
    if command == "loads":
        return json.loads(rest)
    return double(work(int(rest)))
"""


def line_of(mark: str) -> int:
    return next(number for number, line in enumerate(APP.splitlines(), 1) if line.endswith(f"# {mark}"))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debuggee]:
    folder = tmp_path_factory.mktemp("program")
    (folder / "app.py").write_text(APP)
    with debuggee(folder) as child:
        yield child


def open_session(program: Debuggee, *breakpoints: Breakpoint | Function, **options: object) -> DebugSession:
    endpoint = DebugEndpoint("127.0.0.1", program.port, ())
    return DebugSession(endpoint, breakpoints=breakpoints, timeout=20, **options)  # type: ignore[arg-type]


def at(program: Debuggee, mark: str, condition: Condition = ALWAYS, log: str = "") -> Breakpoint:
    return Breakpoint(str(program.folder / "app.py"), line_of(mark), condition, log)


def ask(program: Debuggee, text: str) -> list[str]:
    """Ask in a thread of its own; the answer is in the list once it is there."""
    answers: list[str] = []
    threading.Thread(target=lambda: answers.append(program.ask(text, 60)), daemon=True).start()
    return answers


def take(session: DebugSession, *kinds: str) -> Happening:
    """The next that happens of these kinds."""
    while True:
        found = session.wait(20)
        assert found is not None, f"none of {kinds} happened"
        if found.kind in kinds:
            return found


def stop_of(session: DebugSession) -> Stop:
    stop = take(session, "stopped").stop
    assert stop is not None
    return stop


def answered(answers: list[str], expected: str) -> None:
    deadline = time.monotonic() + 10
    while not answers and time.monotonic() < deadline:
        time.sleep(0.01)
    assert answers == [expected]


def test_a_session_stays_from_stop_to_stop_and_its_breakpoints_change_meanwhile(program: Debuggee) -> None:
    with open_session(program, at(program, "work")) as session:
        answers = ask(program, "x 5")
        stop = stop_of(session)
        assert (stop.reason, stop.frame.function, stop.breakpoint) == ("breakpoint", "work", 1)
        assert [frame.function for frame in session.stack(stop)][:2] == ["work", "handle"]
        assert session.stack(stop, 1, 1)[0].function == "handle"
        assert session.locals(stop)["number"] == "5"
        assert session.evaluate(stop, "text", session.stack(stop)[1]) == "'x 5'"
        assert session.evaluate(stop, "missing") == "NameError: name 'missing' is not defined"
        assert session.set_variable(stop, "number", "7") == "7"
        assert session.set_variable(stop, "box.number", "1") == "1"
        with pytest.raises(UserError, match="missing cannot be set to 1 /: SyntaxError"):
            session.set_variable(stop, "missing", "1 /")
        (second,) = session.add(at(program, "result"))
        session.remove(1)
        session.go_on(stop)
        with pytest.raises(UserError, match="gone on since that stop"):
            session.locals(stop)
        stop = stop_of(session)
        assert (stop.breakpoint, stop.frame.line) == (second.number, line_of("result"))
        session.step(stop, "out")
        stop = stop_of(session)
        assert (stop.reason, stop.frame.function) == ("step", "handle")
        session.step(stop, "into")
        stop = stop_of(session)
        assert stop.frame.function == "double"
        session.step(stop)
        stop_of(session)
        assert session.stops
    # Nothing stays paused, and no breakpoint.
    answered(answers, "30")
    assert program.ask("x 1") == "6"


def test_values_are_paged_and_opened_as_deep_as_is_asked(program: Debuggee) -> None:
    with open_session(program, at(program, "work")) as session:
        ask(program, "x 5")
        stop = stop_of(session)
        names = [one.name for one in session.variables(stop)]
        assert sorted(names) == ["box", "number", "pairs"]
        page = session.variables(stop, start=1, count=1)
        assert [one.name for one in page] == names[1:2]
        (pairs,) = [one for one in session.variables(stop, depth=2) if one.name == "pairs"]
        assert [(one.name, one.value) for one in pairs.children] == [("'a'", "[1, [2, 3]]"), ("'b'", "{'c': 5}")]
        assert [(one.value, one.children) for one in pairs.children[0].children] == [("1", ()), ("[2, 3]", ())]
        assert pairs.children[0].children[1].is_container
        (pairs,) = [one for one in session.variables(stop, depth=1, count=9, characters=4) if one.name == "pairs"]
        assert (pairs.value, pairs.length > 4) == ("{'a'", True)
    assert program.ask("x 1") == "6"


def test_conditions_and_hits_hold_together_and_one_that_raises_is_told_once(program: Debuggee) -> None:
    wanted = at(program, "work", Condition("number % 2 == 1", 3))
    with open_session(program, wanted, at(program, "result", Condition("nowhere > 1"))) as session:
        answers = ask(program, "many 10")
        told = take(session, "condition")
        assert told.breakpoint == 2 and "nowhere > 1 raises at app.py" in told.text
        assert "NameError: name 'nowhere' is not defined" in told.text
        found: list[str] = []
        while len(found) < 3:
            stop = stop_of(session)
            found.append(session.locals(stop)["number"])
            session.go_on(stop)
        assert found == ["5", "7", "9"]
        assert [placed.number for placed in session.breakpoints] == [1]
        deadline = time.monotonic() + 10
        while not answers and time.monotonic() < deadline:
            time.sleep(0.01)
        assert answers


def test_values_are_logged_without_a_stop_and_errors_told_as_such(program: Debuggee) -> None:
    lines = [
        at(program, "work", log='{"n": number, "t": "größe {x}"}["n"] + sum(number for _ in range(1)) # {'),
        at(program, "result", Condition("number > 0"), "[total, missing]"),
    ]
    with open_session(program, *lines) as session:
        began = time.time()
        assert program.ask("many 3").startswith("0.")
        found = [take(session, "logged") for _ in range(5)]
        assert [(one.breakpoint, one.text, one.is_error) for one in found] == [
            (1, "0", False),
            (1, "2", False),
            (2, "NameError: name 'missing' is not defined", True),
            (1, "4", False),
            (2, "NameError: name 'missing' is not defined", True),
        ]
        assert all(began <= one.at <= time.time() for one in found)
        session.add(at(program, "alone", log="'x' * 5000"))
        program.ask("x 1")
        texts = [take(session, "logged").text for _ in range(3)]
        assert texts[2] == "'" + "x" * 1999 + "… (5002 characters)"


def test_a_function_that_stands_on_one_line_is_stopped_in_where_it_runs(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with debuggee(tmp_path, "--wait") as child:
        wanted = Breakpoint(str(tmp_path / "app.py"), line_of("alone"), function="double")
        with open_session(child, wanted) as session:
            # The program waits for a debugger: the line runs once where the function is defined.
            answers = ask(child, "x 5")
            assert stop_of(session).frame.function == "double"
        answered(answers, "30")


@pytest.mark.parametrize("held", [True, False], ids=["held", "running"])
def test_a_librarys_function_is_found_by_its_module(tmp_path: Path, held: bool) -> None:
    (tmp_path / "app.py").write_text(APP)
    with debuggee(tmp_path, *(["--wait"] if held else [])) as child:
        with open_session(child, Function("json.decoder", "JSONDecoder.decode")) as session:
            answers = ask(child, "loads [1]")
            stop = stop_of(session)
            assert (stop.frame.function, Path(stop.frame.file).name) == ("decode", "decoder.py")
            for module, name, said in (
                ("json.nothing", "f", r"can import no module json\.nothing"),
                ("json", "nothing", r"no function nothing in .*json/__init__\.py"),
                ("math", "sin", "math has no Python source"),
            ):
                with pytest.raises(UserError, match=said):
                    session.add(Function(module, name))
        answered(answers, "[1]")


def test_exceptions_stop_where_they_are_raised_caught_or_not_by_type(program: Debuggee) -> None:
    with open_session(program, types=["ArithmeticError"], just_my_code=True) as session:
        answers = ask(program, "careful")
        stop = stop_of(session)
        assert stop.exception == {"type": "ZeroDivisionError", "message": "division by zero"}
        assert (stop.frame.function, stop.reason) == ("careful", "exception")
        session.set_exceptions()
        session.go_on(stop)
        answered(answers, "[]")
        assert program.ask("careful") == "[]"


def test_a_program_is_paused_and_goes_on(program: Debuggee) -> None:
    with open_session(program) as session:
        answers = ask(program, "many 1000000")
        session.pause()
        stop = stop_of(session)
        assert stop.reason == "pause"
        session.go_on(stop)
        assert not answers
        assert program.ask("x 1") == "6"


def test_an_expression_that_never_ends_is_interrupted_and_the_session_goes_on(program: Debuggee) -> None:
    with open_session(program, at(program, "work")) as session:
        answers = ask(program, "x 5")
        stop = stop_of(session)
        with pytest.raises(UserError, match=r"did not end within 0\.5 s and was interrupted"):
            session.evaluate(stop, "[0 for _ in iter(int, 1)]", timeout=0.5)
        assert session.evaluate(stop, "number") == "5"
        session.go_on(stop)
        answered(answers, "30")


def test_values_that_nobody_takes_are_counted_and_the_end_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.debugger.sessions.happening_queue._MOST_WAITING", 10)
    (tmp_path / "app.py").write_text(APP)
    with debuggee(tmp_path) as child, open_session(child, at(child, "work", log="number")) as session:
        child.ask("many 30")
        child.ask("x 1")
        time.sleep(0.5)
        assert [take(session, "logged").text for _ in range(10)] == [str(number) for number in range(10)]
        child.ask("x 2")
        assert take(session, "logged").dropped == 21
        child.process.kill()
        for _ in range(2):
            assert take(session, "ended", "lost").kind in ("ended", "lost")


def test_no_debugger_stays_where_a_session_cannot_begin(program: Debuggee) -> None:
    with pytest.raises(UserError, match="The program has no file"):
        open_session(program, Breakpoint("/nowhere/app.py", 3))
    with open_session(program), pytest.raises(UserError, match="already attached"):
        open_session(program)
    assert program.ask("x 1") == "6"
