"""Looks in one command, at real programs under debugpy: stops, values that pass by, steps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dap_children import Debuggee, debuggee

from workflows.debugger.inspect_places import InspectOptions, InspectResult, inspect_places
from workflows.debugger.locations import Condition
from workflows.debugger.places import Place, find_function, is_module, read_place
from workflows.errors import BadValue, UserError
from workflows.models import DebugEndpoint

APP = """\
import json
import debugpy


class Box:
    def __init__(self, number):
        self.inside = {"number": number}

    def doubled(self): return self.inside["number"] * 2


def work(number):
    box = Box(number)
    total = 0
    for step in range(2):
        total += number
    return total + box.doubled()  # result


def caller(number):
    above = number + 1
    return work(number)


def careful(text):
    try:
        return inner(text)
    except ValueError:
        return -1


def inner(text):
    return json.loads(text)


def squares(count):
    numbers = range(count)
    return [one * one for one in numbers]


def handle(text):
    command, _, rest = text.partition(" ")
    if command == "squares":
        return squares(int(rest))
    if command == "careful":
        return careful(rest)
    if command == "break":
        debugpy.breakpoint()
        return 1
    for number in range(int(rest)):
        caller(number)
    return "done"
"""


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(APP.splitlines(), 1) if text in line)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debuggee]:
    folder = tmp_path_factory.mktemp("program")
    (folder / "app.py").write_text(APP)
    with debuggee(folder) as child:
        yield child


def look_at(
    program: Debuggee, texts: list[str], ask: str, wanted: InspectOptions
) -> tuple[InspectResult, list[tuple[str, Any]]]:
    told: list[tuple[str, Any]] = []
    places = [read_place(text, cwd=program.folder, roots=[]) for text in texts]
    found = inspect_places(
        DebugEndpoint("127.0.0.1", program.port, ()),
        places,
        wanted,
        report=lambda kind, what: told.append((kind, what)),
        is_own=lambda frame: Path(frame.file).parent == program.folder,
        trigger=lambda: program.ask(ask, 60),
    )
    return found, told


def test_several_places_are_stopped_at_as_often_as_is_wanted_and_shown_as_they_come(program: Debuggee) -> None:
    wanted = InspectOptions(times=2, expressions=("number * 10",), timeout=20)
    found, told = look_at(program, ["app.py:work", f"app.py:{line_of('above =')}"], "x 5", wanted)
    assert [stop.stopped.function for stop in found.stops] == ["caller", "work", "caller", "work"]
    assert [stop.values["number * 10"] for stop in found.stops] == ["0", "0", "10", "10"]
    assert [kind for kind, _ in told] == ["stop"] * 4 and found.result == "'done'"
    shown = found.as_json()
    assert shown["stopped"] == shown["stops"][0]["stopped"] and len(shown["stops"]) == 4
    # As many as there are, where there are fewer; a place that is never passed is named.
    found, _ = look_at(program, ["app.py:work", "app.py:inner"], "x 1", InspectOptions(times=3, timeout=20))
    assert (len(found.stops), found.missed) == (1, ["app.py:inner"])


def test_values_are_logged_with_time_and_count_up_to_a_number(program: Debuggee) -> None:
    place = f"app.py:{line_of('# result')}"
    found, told = look_at(program, [place], "x 50", InspectOptions(log="[number, total]", times=3, timeout=20))
    assert [one["value"] for one in found.logged] == ["[0, 0]", "[1, 2]", "[2, 4]"]
    assert [(kind, one["count"], one["place"]) for kind, one in told] == [("log", n, place) for n in (1, 2, 3)]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", found.logged[0]["at"])
    shown = found.as_json()
    assert shown["stopped"] is None and shown["logged_values"] == found.logged
    # All of those that come, where there are fewer; the last ones are not lost.
    found, _ = look_at(program, [place], "x 50", InspectOptions(log="number", times=1000, timeout=20))
    assert [one["value"] for one in found.logged] == [str(number) for number in range(50)]
    found, _ = look_at(
        program, [place], "x 5", InspectOptions(Condition("number > 1", 2), log="number", times=9, timeout=20)
    )
    assert [one["value"] for one in found.logged] == ["3", "4"]


def test_a_condition_of_a_log_that_raises_is_told_and_not_logged(program: Debuggee) -> None:
    with pytest.raises(UserError, match=r"--when nobody raises at app\.py:.*: NameError: name 'nobody'"):
        look_at(program, ["app.py:work"], "x 5", InspectOptions(Condition("nobody"), log="number", timeout=20))
    assert program.ask("x 1") == "'done'"


ENDLESS = "[0 for _ in iter(int, 1)]"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (InspectOptions(log=ENDLESS, timeout=2), "--log .* did not end within 1 s and was interrupted at app.py"),
        (
            InspectOptions(Condition(ENDLESS), timeout=2),
            "--when .* did not end within 1 s and was interrupted at app.py",
        ),
        (
            InspectOptions(Condition(ENDLESS), log="1", timeout=2),
            "--when .* did not end within 1 s and was interrupted",
        ),
        (InspectOptions(sets=(("box", ENDLESS),), timeout=2), "did not end within 2 s and was interrupted"),
    ],
    ids=["log", "when", "when of a log", "set"],
)
def test_an_expression_that_does_not_end_is_interrupted_and_the_program_goes_on(
    program: Debuggee, wanted: InspectOptions, told: str
) -> None:
    with pytest.raises(UserError, match=told) as caught:
        look_at(program, ["app.py:work"], "x 1", wanted)
    assert "iter(int, 1)" in caught.value.problem
    assert program.ask("x 1", 20) == "'done'"
    found, _ = look_at(program, ["app.py:work"], "x 1", InspectOptions(expressions=("number",), timeout=20))
    assert found.stops[0].values == {"number": "0"}


def test_what_is_set_has_its_value_made_once_and_says_what_it_raises(program: Debuggee) -> None:
    wanted = InspectOptions(sets=(("total", "[number, 5][1]"), ("box.inside['number']", "total")), timeout=20)
    found, _ = look_at(program, [f"app.py:{line_of('# result')}"], "x 1", wanted)
    assert found.stops[0].changed == {"total": "5", "box.inside['number']": "5"}
    with pytest.raises(UserError, match=r"box cannot be set to 1/0: ZeroDivisionError: division by zero\."):
        look_at(program, ["app.py:work"], "x 1", InspectOptions(sets=(("box", "1/0"),), timeout=20))


def test_a_line_with_a_comprehension_is_passed_once(program: Debuggee) -> None:
    place = f"app.py:{line_of('for one in numbers')}"
    found, _ = look_at(program, [place], "squares 3", InspectOptions(log="numbers", times=9, timeout=20))
    assert [one["value"] for one in found.logged] == ["range(0, 3)"]
    found, _ = look_at(
        program, [place], "squares 3", InspectOptions(Condition("len(numbers) == 3"), times=9, timeout=20)
    )
    assert len(found.stops) == 1


def test_steps_show_each_line_with_what_changes(program: Debuggee) -> None:
    found, told = look_at(program, ["app.py:work"], "x 1", InspectOptions(steps=5, timeout=20))
    steps = found.stops[0].steps
    first = line_of("box = Box")
    assert [(step["line"] - first, sorted(step["changed"])) for step in steps] == [
        (1, ["box"]),
        (2, ["total"]),
        (3, ["step"]),
        (2, []),
        (3, ["step"]),
    ]
    assert [kind for kind, _ in told] == ["stop"] + ["step"] * 5
    found, _ = look_at(program, ["app.py:work"], "x 1", InspectOptions(steps=2, into=True, timeout=20))
    assert [step["function"] for step in found.stops[0].steps] == ["__init__", "work"]
    # A program that runs out of lines of its own goes on.
    found, _ = look_at(program, [f"app.py:{line_of('# result')}"], "x 1", InspectOptions(steps=50, timeout=20))
    assert found.result == "'done'" and 1 < len(found.stops[0].steps) < 50


def test_every_own_frame_containers_and_what_is_set_are_shown(program: Debuggee) -> None:
    wanted = InspectOptions(
        every_frame=True, depth=2, sets=(("total", "40 + 2"), ("box.inside['number']", "0")), timeout=20
    )
    found, _ = look_at(program, [f"app.py:{line_of('# result')}"], "x 1", wanted)
    shown = found.stops[0].as_json()
    assert [frame["function"] for frame in shown["frame_locals"]] == ["work", "caller", "handle", "<module>"]
    assert shown["frame_locals"][1]["locals"]["above"] == "1"
    box = next(one for one in shown["opened"] if one["name"] == "box")
    assert [one["name"] for one in box["children"]] == ["inside"]
    assert [(one["name"], one["value"]) for one in box["children"][0]["children"]] == [("'number'", "0")]
    assert shown["set"] == {"total": "42", "box.inside['number']": "0"}
    with pytest.raises(UserError, match=r"nowhere\.x cannot be set to 1: "):
        look_at(program, ["app.py:work"], "x 1", InspectOptions(sets=(("nowhere.x", "1"),), timeout=20))
    assert program.ask("x 1") == "'done'"


def test_exceptions_are_stopped_at_where_they_are_raised_though_they_are_caught(program: Debuggee) -> None:
    for kind in ("", "ValueError", "json.JSONDecodeError"):
        found, _ = look_at(program, [], "careful {", InspectOptions(raised=kind, times=5, timeout=20))
        (stop,) = found.stops
        assert (stop.exception or {})["type"].endswith("JSONDecodeError")
        assert (stop.stopped.function, found.result) == ("inner", "-1")
    with pytest.raises(UserError, match="KeyError was not reached"):
        look_at(program, [], "careful {", InspectOptions(raised="KeyError", timeout=20))


def test_a_breakpoint_of_the_code_is_stopped_at_where_no_place_is_named(program: Debuggee) -> None:
    found, _ = look_at(program, [], "break", InspectOptions(timeout=20))
    assert [stop.stopped.function for stop in found.stops] == ["handle"]
    with pytest.raises(UserError, match=r"breakpoint\(\) was not reached"):
        look_at(program, [], "x 1", InspectOptions(timeout=20))


def test_a_librarys_function_is_a_place(program: Debuggee) -> None:
    found, _ = look_at(
        program, ["json.decoder:JSONDecoder.decode"], "careful []", InspectOptions(all_code=True, timeout=20)
    )
    assert found.stops[0].stopped.function == "decode"


# Places


def test_functions_are_found_by_name_also_in_classes(tmp_path: Path) -> None:
    path = tmp_path / "app.py"
    path.write_text(
        'class A:\n    def f(self):\n        """Doc."""\n        return 1\n\n    async def g(self): return 2\n\n\n'
        "if True:\n    try:\n        @staticmethod\n        def h():\n            pass\n    except ValueError:\n"
        "        def k():\n            def f(): return 3\n            return f\n"
    )
    assert find_function(path, "A.f") == (4, "")
    assert find_function(path, "g") == (6, "g")
    assert find_function(path, "h") == (13, "")
    assert find_function(path, "k.f") == (16, "f")
    with pytest.raises(BadValue, match=r"several functions f\.\n.*A\.f, k\.f"):
        find_function(path, "f")
    with pytest.raises(BadValue, match=r"no function x in app\.py\.\n.*A\.f, A\.g, h, k, k\.f") as caught:
        find_function(path, "x")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [("json:loads", True), ("a.b:C.d", True), ("app.py:run", False), ("x/app:run", False), ("app.py:3", False)],
)
def test_a_module_is_told_from_a_file(text: str, expected: bool) -> None:
    assert is_module(text) == expected


def test_a_place_is_called_as_it_was_typed(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def run():\n    return 1\n")
    assert read_place("app.py:run", cwd=tmp_path, roots=[]) == Place("app.py:run", tmp_path / "app.py", 2)
    assert read_place("app.py:2", cwd=tmp_path, roots=[]) == Place("app.py:2", tmp_path / "app.py", 2)
    assert read_place("a.b:C.d", cwd=tmp_path, roots=[]) == Place("a.b:C.d", function="C.d", module="a.b")


@pytest.mark.parametrize("all_locals", [False, True])
def test_a_modules_own_modules_and_functions_are_shown_where_that_is_asked_for(
    all_locals: bool, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text("import os\nx = 1\ndef handle(text):\n    return 0\nclass Box:\n    pass\nx = 3\n")
    with debuggee(tmp_path, "--wait") as child:
        place = read_place("app.py:7", cwd=tmp_path, roots=[])
        # Held in wait_for_client: attaching lets it run into the line.
        endpoint = DebugEndpoint("127.0.0.1", child.port, ())
        wanted = InspectOptions(all_locals=all_locals, timeout=20)
        found = inspect_places(
            endpoint, [place], wanted, report=lambda kind, what: None, is_own=lambda frame: True, trigger=None
        )
        shown = found.stops[0].locals
        assert shown["x"] == "1" and "__name__" not in shown
        assert {"os", "handle", "Box"} & set(shown) == ({"os", "handle", "Box"} if all_locals else set())
