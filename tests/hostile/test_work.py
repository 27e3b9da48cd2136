"""How the work of reading grows: four times the text takes about four times as long, whatever is in it."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workflows import report
from workflows.console import as_typed
from workflows.debugger import jsonc
from workflows.engines.docker_build_log import _STEP
from workflows.environments.conda_file import read_conda
from workflows.environments.pip_failures import _reason
from workflows.environments.progress import _ORIGIN
from workflows.environments.requirements import PipLines, logical_lines, parse_requirement, read_line, strip_comment
from workflows.errors import UserError
from workflows.pipelines.commands import debugged_command, names_own_script, published_option
from workflows.pipelines.expressions import Malformed, expressions, parse_expression, substitute
from workflows.pipelines.reader import load_pipeline
from workflows.pipelines.scripts import missing_script
from workflows.settings import resolve
from workflows.tasks._runs import _script_names
from workflows.yaml_nodes import compose

#: A square would take sixteen times as long.
MOST = 9.0


@pytest.fixture(autouse=True, scope="module")
def nothing_of_other_tests_to_collect() -> Iterator[None]:
    """What is there before is left out of the collections between the measurements, which take longer than these."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def seconds(read: Callable[[str], object], text: str) -> float:
    gc.collect()
    start = time.process_time()
    with contextlib.suppress(UserError, Malformed, jsonc.JsoncError):
        read(text)
    return time.process_time() - start


def grows_with_its_size(read: Callable[[str], object], text: Callable[[int], str]) -> None:
    """See that it does: at a size that takes long enough to be measured."""
    count = 500
    while (first := seconds(read, text(count))) < 0.006 and len(text(count)) < 1_000_000:
        count *= 2
    ratios = []
    for attempt in range(6):
        if attempt == 3 and len(text(count)) < 1_000_000:
            # Too small to be told from the machine's other work: once more with more.
            count *= 8
            first = seconds(read, text(count))
        first = min(seconds(read, text(count)), first)
        ratios.append(seconds(read, text(4 * count)) / max(first, 0.001))
        if ratios[-1] < MOST:
            return
    raise AssertionError(f"{len(text(count))} letters take {first:.3f} s, and four times as many {ratios} times that")


EXPRESSIONS: dict[str, Callable[[int], str]] = {
    "never closed": lambda n: "${{" * n,
    "closed once": lambda n: "${{" * n + "}}",
    "many": lambda n: "${{inputs.x}} " * n,
    "blanks": lambda n: "${{" + " " * n + "!}}",
    "points and blanks": lambda n: "${{inputs" + " ." * n + "!}}",
    "names": lambda n: "${{" + "['x']" * n + "}}",
    "quotes never closed": lambda n: "${{" + "['x" * n + "}}",
    "optional never closed": lambda n: "$[[" * n,
    "optional with its end far off": lambda n: "$[[" + "${{inputs.x}}" * n + "]]",
    "optional with ends inside": lambda n: "$[[ ${{inputs['" + "]]" * n + "']}} ]]",
    "optional with ends inside, never closed": lambda n: "$[[ ${{inputs['" + "]]" * n,
    "many of both, and one never closed": lambda n: "$[[--a ${{inputs.x}}]] ${{inputs.x}} [[ " * n + "$[[",
    "many optional": lambda n: "$[[--x ${{inputs.x}}]] " * n,
    "brackets": lambda n: "]]" * n + "$[[",
}


@pytest.mark.parametrize("text", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_of_expressions(text: Callable[[int], str]) -> None:
    def read(command: str) -> None:
        for one in (expressions, parse_expression, lambda value: substitute(value, lambda name: "y")):
            try:
                one(command)
            except Malformed as error:
                assert len(str(error)) < 300

    grows_with_its_size(read, text)


JSON: dict[str, Callable[[int], str]] = {
    "a string of escaped quotes, never closed": lambda n: '{"a": "' + '\\"' * n,
    "strings that break off": lambda n: '"\n' * n,
    "quotes": lambda n: '"' * n,
    "backslashes": lambda n: '{"a": "' + "\\" * n,
    "comments never closed": lambda n: "/*" * n,
    "comments": lambda n: "{" + "/**/" * n + "}",
    "comments in front of an element": lambda n: "[1, " + "/**/" * n + "2]",
    "slashes": lambda n: "/" * n,
    "blanks": lambda n: "[" + " \t" * n + "]",
    "trailing commas": lambda n: "[" + "[1,]," * n + "]",
    "commas": lambda n: "," * n,
    "numbers": lambda n: "[" + "1," * n + "1]",
    "a number": lambda n: "[" + "1" * n + "]",
    "keys": lambda n: "{" + ",".join(f'"k{i}": {i}' for i in range(n)) + "}",
    "the same key": lambda n: "{" + ",".join(['"k": {"a": 1}'] * n) + "}",
    "brackets": lambda n: "[" * n,
    "closing brackets": lambda n: "]" * n,
    "carriage returns": lambda n: "[" + "\r" * n + "1 1",
}


@pytest.mark.parametrize("text", JSON.values(), ids=JSON.keys())
def test_of_json_with_comments(text: Callable[[int], str]) -> None:
    def read(written: str) -> None:
        document = jsonc.parse(written.encode())
        if not document.is_empty:
            document.line()
            document.has_comments(())
        if isinstance(document.value, list):
            document.append((), 1).insert((), 0, 1)

    grows_with_its_size(read, text)


def entries(count: int) -> str:
    one = '{"name": "Azure Machine Learning Compute: %d", "x": [1]}'
    return '{"configurations": [' + ",\n".join(one % number for number in range(count)) + "]}"


def test_of_taking_every_other_element_out() -> None:
    def read(written: str) -> None:
        document = jsonc.parse(written.encode())
        document.delete_items(("configurations",), range(0, len(document.value["configurations"]), 2))

    grows_with_its_size(read, entries)


YAML: dict[str, Callable[[int], str]] = {
    "a mapping": lambda n: "jobs:\n" + "".join(f"  s{i}: {{command: ls, inputs: {{a: {i}}}}}\n" for i in range(n)),
    "a list": lambda n: "- a\n" * n,
    "braces": lambda n: "[" + "a, " * n + "]",
    "brackets": lambda n: "[" * n,
    "questions": lambda n: "? a\n" * n,
    "comments": lambda n: "# x\n" * n,
    "blank lines": lambda n: "a:\n" + "\n" * n + "  b: 1",
    "blanks": lambda n: "a:" + " " * n + "1",
    "a text in quotes": lambda n: 'a: "' + "x \\\n  " * n + '"',
    "a plain text": lambda n: "a: x" + "\n  y" * n,
    "a block": lambda n: "a: |\n" + "  y\n" * n,
    "never closed": lambda n: "a: '" + "''" * n,
    "anchors": lambda n: "".join(f"- &a{i} x\n" for i in range(n)),
    "aliases": lambda n: "a: &a x\nb: [" + "*a, " * n + "]",
    "merged keys": lambda n: "a: &a {x: 1}\n" + "".join(f"b{i}: {{<<: *a}}\n" for i in range(n)),
    "documents": lambda n: "--- a\n" * n,
    "tags": lambda n: "- !!str a\n" * n,
    "wrong numbers": lambda n: "- 2021-02-30\n" * n,
    "unknown keys": lambda n: "".join(f"inputz{i}: 1\n" for i in range(n)),
    "the same key": lambda n: "a: 1\n" * n,
    "tabs": lambda n: "a: 1\n" * n + "\tb: 1",
    "no characters": lambda n: "a: 1\n" * n + "\x01",
}


@pytest.mark.parametrize("text", YAML.values(), ids=YAML.keys())
@pytest.mark.parametrize("kind", ["pipeline", "conda"])
def test_of_yaml(tmp_path: Path, kind: str, text: Callable[[int], str]) -> None:
    path = tmp_path / "x.yml"

    def read(written: str) -> None:
        path.write_text(written)
        if kind == "pipeline":
            load_pipeline(path)
        else:
            read_conda(path, PipLines())

    grows_with_its_size(read, text)


def test_of_directives() -> None:
    """libyaml compares each with every one before: there are few, or none is read."""
    text = "".join(f"%TAG !a{number}! tag:x,1:\n" for number in range(20_000)) + "--- a\n"
    with pytest.raises(UserError, match="directives"):
        compose(text, Path("x.yml"))


LINES: dict[str, Callable[[int], str]] = {
    "blanks": lambda n: "numpy" + " " * n + "x",
    "blanks and comments": lambda n: "numpy" + " #" * n,
    "hashes": lambda n: "numpy" + " --hash" * n,
    "blanks in front of a hash": lambda n: "numpy" + " " * n + "--has",
    "a long name": lambda n: "a" * n + "/",
    "brackets": lambda n: "./a" + "[" * n,
    "closed brackets": lambda n: "./a" + "[]" * n,
    "an option": lambda n: "-r" + " " * n + "\tx",
    "semicolons": lambda n: "a" + ";" * n,
    "ats": lambda n: "a" + " @ " * n,
    "continued": lambda n: "a \\\n" * n,
    "eggs": lambda n: "#egg=" * n,
    "dashes": lambda n: "a" + "-." * n + "/",
}


@pytest.mark.parametrize("text", LINES.values(), ids=LINES.keys())
def test_of_lines_for_pip(tmp_path: Path, text: Callable[[int], str]) -> None:
    path = tmp_path / "requirements.txt"

    def read(written: str) -> None:
        path.write_text(written)
        parse_requirement(written).render(hashes=False)
        strip_comment(written)
        for number, line in logical_lines(path):
            read_line(PipLines(), line, file=path, line=number, folder=tmp_path)

    grows_with_its_size(read, text)


DOTENV: dict[str, Callable[[int], str]] = {
    "values": lambda n: "OTHER=1\n" * n,
    "blanks": lambda n: "OTHER=" + " " * n + "x",
    "blanks in many lines": lambda n: ("OTHER=" + " " * 900 + "x\n") * (n // 100 + 1),
    "blank lines": lambda n: "\n" * n,
    "quotes": lambda n: 'OTHER="' + '\\"' * n,
    "quotes in many lines": lambda n: "OTHER='\n" * n,
    "comments": lambda n: "OTHER=x" + " #" * n,
}


@pytest.mark.parametrize("text", DOTENV.values(), ids=DOTENV.keys())
def test_of_settings(tmp_path: Path, text: Callable[[int], str]) -> None:
    def read(written: str) -> None:
        (tmp_path / ".env").write_text(written)
        resolve(tmp_path, {}, environ={}, cwd=tmp_path)

    grows_with_its_size(read, text)


COMMANDS: dict[str, Callable[[int], str]] = {
    "words": lambda n: "a " * n,
    "a word": lambda n: "a" * n,
    "quotes": lambda n: "'" * n,
    "double quotes": lambda n: '"' * (n + 1),
    "substitutions": lambda n: "$(" * n,
    "backquotes": lambda n: "`" * (n + 1),
    "here documents": lambda n: "cat <<A\n" * n,
    "redirections": lambda n: "<" * n,
    "interpreters": lambda n: "python -I x.py; " * n,
    "folders": lambda n: "cd x; python y.py; " * n,
    "assignments": lambda n: "PYTHONPATH=x " * n + "python x.py",
    "no script": lambda n: "x" * n + " .p",
}


@pytest.mark.parametrize("text", COMMANDS.values(), ids=COMMANDS.keys())
def test_of_commands(tmp_path: Path, text: Callable[[int], str]) -> None:
    def read(command: str) -> None:
        debugged_command(command, "/launch.py")
        names_own_script(command, tmp_path)
        published_option(command, "--remote_debug_port")
        missing_script(command, tmp_path)
        _script_names(command)

    grows_with_its_size(read, text)


OUTPUT: dict[str, Callable[[int], str]] = {
    "tasks": lambda n: "inv deploy.debug " * n,
    "tasks that are remote": lambda n: "inv deploy.debug --remote " * n,
    "what pip says": lambda n: "Cannot install " * n,
    "where from": lambda n: "x (from -r a" * n,
    "where from, nested": lambda n: "x (from a" + " (b)" * n,
    "steps": lambda n: "Step 1/1 : " + "a" * n + "\t" * n,
}


@pytest.mark.parametrize("text", OUTPUT.values(), ids=OUTPUT.keys())
def test_of_what_other_programs_say(text: Callable[[int], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "is_wanted", lambda: True)

    def read(written: str) -> None:
        as_typed(written)
        _reason([written])
        _ORIGIN.search(written)
        _STEP.match(written)

    grows_with_its_size(read, text)
