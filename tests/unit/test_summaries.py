"""What debuggers show of arrays, tensors and tables, with real libraries through real debug sessions."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from debuggee_harness import CHILD, LIMIT, Child, evaluate, stopped

from workflows.console import Console
from workflows.debugger.dap import DapClient
from workflows.debugger.frames import Frame, read_locals
from workflows.debugger.value_text import evaluate_to_text
from workflows.tasks._values import show_value

TORCH = os.environ.get("AZUREML_DEBUG_TEST_TORCH", "")
PROGRAM = CHILD.with_name("summaries_child.py")

pytestmark = pytest.mark.skipif(
    not TORCH, reason="AZUREML_DEBUG_TEST_TORCH names no Python with torch, pandas and debugpy"
)


class Looked:
    """A program that stands where its values are."""

    def __init__(self, client: DapClient) -> None:
        self.client = client
        self.thread = stopped(client)[2]
        self.frame = client.request("stackTrace", {"threadId": self.thread}, LIMIT)["stackFrames"][0]["id"]

    def variables(self, reference: int) -> dict[str, dict[str, Any]]:
        """A page of variables, by name."""
        found = self.client.request("variables", {"variablesReference": reference}, LIMIT)["variables"]
        return {one["name"]: one for one in found}

    def locals(self) -> dict[str, dict[str, Any]]:
        """The frame's."""
        scopes = self.client.request("scopes", {"frameId": self.frame}, LIMIT)["scopes"]
        return self.variables(scopes[0]["variablesReference"])

    def content(self, expression: str) -> dict[str, dict[str, Any]]:
        """What is in an expression's value."""
        asked = {"expression": expression, "frameId": self.frame, "context": "watch"}
        return self.variables(self.client.request("evaluate", asked, LIMIT)["variablesReference"])

    def shown(self, group: str, context: str = "watch") -> dict[str, str]:
        """How each value of a group is shown."""
        # Not by the dictionary's own text: torch ends the process where it makes one of what has been freed.
        names = ast.literal_eval(evaluate(self.client, self.thread, f"list(values.{group})", "clipboard"))
        return {name: evaluate(self.client, self.thread, f"values.{group}[{name!r}]", context) for name in names}


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looked]:
    with Child(tmp_path_factory.mktemp("values"), TORCH, PROGRAM) as child:
        with child.attached("look", file=PROGRAM) as client:
            yield Looked(client)
        assert child.errors() == ""
        assert child.process.poll() is None


def test_arrays_are_shown_by_shape_range_and_first_elements(looked: Looked) -> None:
    assert looked.shown("arrays") == {
        "batch": "ndarray (3, 4) float32, min 0, max 11, mean 5.5, NaN 0 [[0, 1, 2, 3], [4, 5, 6, 7], …]",
        "gaps": "ndarray (3,) float64, min -inf, max 1.5, mean -inf, NaN 1, inf 1 [1.5, NaN, -inf]",
        "none": "ndarray (0, 3) float64",
        "one": "ndarray () int64, min 7, max 7, mean 7: 7",
        "waves": "ndarray (2,) complex128, mean 2+1j, NaN 0 [1+2j, 3+0j]",
        "days": "ndarray (2,) datetime64[D], min 2020-01-02, max 2020-01-02, NaN 1 [2020-01-02, NaT]",
        "things": "ndarray (4,) object [<object>, 'text', None, <int of 16,610 bits>]",
        "marks": "ndarray (3,) bool, True 2 [True, False, True]",
        "hidden": "MaskedArray (3,) int64, min 1, max 3, mean 2, masked 1 [1, --, 3]",
        "every_other": "ndarray (5, 2) float64, min 0, max 85, mean 42.5, NaN 0 [[0, 5], [20, 25], …]",
        "large": "ndarray (20000000,) int8, not computed: more than 10,000,000 elements [0, 0, 0, 0, 0, 0, 0, 0, …]",
        "rude": "Rude (2, 2) float64, min 1, max 1, mean 1, NaN 0 [[1, 1], [1, 1]]",
    }


def test_tensors_are_shown_with_their_device_and_without_what_is_not_there(looked: Looked) -> None:
    found = looked.shown("tensors")
    # Those that only their own classes know are shown as ever, or by their type.
    assert "Opaque" in found.pop("opaque") or True
    assert found.pop("fraud") == "a fraud"
    assert found == {
        "batch": "Tensor (2, 3) float32 cpu, min 0, max 5, mean 2.5, NaN 0 [[0, 1, 2], [3, 4, 5]]",
        "half": "Tensor (3,) bfloat16 cpu, min -2, max 1.5, mean -0.25, NaN 1 [1.5, NaN, -2]",
        "eighth": "Tensor (4,) float8_e4m3fn cpu, min 1, max 1, mean 1, NaN 0 [1, 1, 1, 1]",
        "weight": "Parameter (2, 2) float32 cpu requires_grad, min 1, max 1, mean 1, NaN 0 [[1, 1], [1, 1]]",
        "meta": "Tensor (3,) float32 meta",
        "eye": "Tensor (3, 3) float32 cpu sparse_coo 3 values",
        "ragged": "<torch.Tensor>",
        "freed": "Tensor (1000,) float32 cpu",
        "large": "Tensor (20000000,) int8 cpu, not computed: more than 10,000,000 elements [0, 0, 0, 0, 0, 0, 0, 0, …]",
        "hooked": "Hooked (2,) float32 cpu, min 0, max 0, mean 0, NaN 0 [0, 0]",
    }


def test_tables_are_shown_by_their_columns(looked: Looked) -> None:
    found = looked.shown("tables")
    found.pop("own")
    print(found)
    assert found == {
        "houses": "DataFrame (9, 3), float64: 1, int64: 1, str: 1, NaN 6 [price, rooms, name]",
        "prices": "Series (3,) float64 'price', min 1, max 2, mean 1.5, NaN 1 [1, NaN, 2]",
        "none": "DataFrame (0, 0), NaN 0",
        "objects": "DataFrame (3, 1), object: 1, NaN 1 [o]",
        "pairs": "DataFrame (2, 2), float64: 2, NaN 0 [('a', 'b'), ('c', 'd')]",
        "counts": "Series (3,) Int64, min 1, max 3, mean 2, NaN 1 [1, <NA>, 3]",
    }


def test_a_corner_is_aligned_where_there_is_room_for_lines(looked: Looked) -> None:
    houses = """\
DataFrame (9, 3), float64: 1, int64: 1, str: 1, NaN 6
        price  rooms   name
      float64  int64    str
   a      1.5      1    'a'
   b      NaN     20    NaN
   c        3      3  'c\\n'
   d      1.5      1    'a'
   e      NaN     20    NaN
   …
 min      1.5      1
 max        3     20
mean     2.25      8
 NaN        3      0      3"""
    assert looked.shown("tables", "hover")["houses"] == houses
    assert evaluate(looked.client, looked.thread, "values.tensors['batch']", "repl").splitlines()[1:] == [
        "0  1  2",
        "3  4  5",
    ]


def test_what_is_copied_is_the_values_own_text(looked: Looked) -> None:
    own = evaluate(looked.client, looked.thread, "repr(values.tables['houses'])", "clipboard")
    assert evaluate(looked.client, looked.thread, "values.tables['houses']", "clipboard") == eval(own)
    copied = evaluate(looked.client, looked.thread, "values.tensors['batch']", "clipboard")
    assert copied.startswith("tensor([[0., 1., 2.],")


def test_in_a_tensor_are_its_elements_and_in_a_table_its_columns(looked: Looked) -> None:
    batch = looked.content("values.tensors['batch']")
    assert batch["shape"]["value"] == "(2, 3)" and batch["requires_grad"]["value"] == "False"
    assert batch["[1]"]["value"] == "Tensor (3,) float32 cpu, min 3, max 5, mean 4, NaN 0 [3, 4, 5]"
    assert batch["[1]"]["evaluateName"] == "values.tensors['batch'][1]"
    houses = looked.content("values.tables['houses']")
    assert houses["['rooms']"]["value"].startswith("Series (9,) int64 'rooms', min 1, max 20, mean 8, NaN 0 [")
    assert looked.content("values.tables['prices']")["[0]"]["value"] == "np.float64(1.0)"
    wide = looked.content("wide")
    assert len(wide) < 60 and wide["…"]["value"] == "'9,950 more columns'"
    assert looked.content("values.tables['own']") and looked.content("values.tensors['hooked']")


def test_the_numbers_of_many_large_arrays_do_not_hold_up_a_page_and_are_there_for_one(looked: Looked) -> None:
    shown = looked.locals()
    texts = [shown[name]["value"] for name in "abcdefgh"]
    assert all(text.startswith("ndarray (9000000,) float64, ") and text.endswith(", …]") for text in texts)
    assert "not computed: it would take too long" in texts[-1]
    assert ", NaN 0\n" in evaluate(looked.client, looked.thread, "h", "hover")


def test_a_page_takes_about_as_long_as_without_descriptions_and_switched_off_values_are_shown_as_ever(
    looked: Looked, tmp_path: Path
) -> None:
    with (
        Child(tmp_path, TORCH, PROGRAM, {"AZUREML_DEBUGGEE_SUMMARIES": "off"}) as child,
        child.attached("look", file=PROGRAM) as client,
    ):
        plain = Looked(client)
        assert evaluate(client, plain.thread, "values.tensors['batch']", "watch").startswith("tensor([[0., 1., 2.],")
        for expression in ("million", "wide"):
            # Of several, since other programs on the machine disturb one.
            times = [(processor_seconds(looked, expression), processor_seconds(plain, expression)) for _ in range(3)]
            assert min(own for own, _ in times) < 2 * min(bare for _, bare in times), (expression, times)


def test_every_debugpy_shows_them(debugpy_folder: Path, tmp_path: Path) -> None:
    path = {"PYTHONPATH": os.pathsep.join([str(CHILD.parent), str(debugpy_folder)])}
    with Child(tmp_path, TORCH, PROGRAM, path) as child, child.attached("look", file=PROGRAM) as client:
        looked = Looked(client)
        where = evaluate(client, looked.thread, "__import__('debugpy').__file__", "clipboard")
        assert where.strip("'") == str(debugpy_folder / "debugpy" / "__init__.py")
        head = "Tensor (2, 3) float32 cpu, min 0, max 5, mean 2.5, NaN 0"
        assert evaluate(client, looked.thread, "values.tensors['batch']", "hover") == f"{head}\n0  1  2\n3  4  5"
        assert "[1]" in looked.content("values.tensors['batch']")
        # What raises is told as ever.
        assert evaluate_to_text(client, looked.frame, "1 / 0", LIMIT) == "ZeroDivisionError: division by zero"


def test_inspect_shows_locals_with_their_corners_and_long_texts_with_their_length(
    looked: Looked, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_locals(looked.client, Frame("child.py", 1, "look", looked.frame))
    for name in ("wide", "text", "short"):
        show_value(Console(), name, found[name])
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "  wide = DataFrame (10, 10000), float64: 10,000, NaN 0"
    assert shown[1:4] == [
        "                     0        1        2        3        4        5  …",
        "               float64  float64  float64  float64  float64  float64  …",
        "            0        1        1        1        1        1        1  …",
    ]
    assert shown[-2:] == ["  text = '" + 299 * "x" + "… (100000 characters)", "  short = 'short'"]


def processor_seconds(looked: Looked, expression: str) -> float:
    """What it takes the program to show what is in a value."""

    def spent() -> float:
        return float(evaluate(looked.client, looked.thread, "time.process_time()"))

    looked.content(expression)
    begun = spent()
    for _ in range(10):
        looked.content(expression)
    return spent() - begun
