"""What a command becomes when inputs and outputs are put in, and which expressions are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.errors import UserError
from workflows.pipelines.definition import Step
from workflows.pipelines.expressions import Malformed, expressions, fill_in_run, parse_expression, render_command

VALUES = {
    "inputs.data": "/in/data",
    "inputs.epochs": "5",
    "inputs.with-dash": "d",
    "inputs.group.rate": "0.1",
    "inputs.empty": "",
    "inputs.odd": "$HOME \\1 ${{inputs.epochs}} $[[x]]",
    "outputs.model": "/out/model",
}


def step(command: str) -> Step:
    return Step("train", command, None, None, Path("/somewhere/pipeline.yml"), 12)


@pytest.mark.parametrize(
    ("command", "becomes"),
    [
        ("python train.py", "python train.py"),
        ("", ""),
        ("a ${{inputs.data}} b", "a /in/data b"),
        ("${{inputs.data}}/x${{inputs.epochs}}", "/in/data/x5"),
        ("${{ inputs.data }} ${{\tinputs . epochs }}", "/in/data 5"),
        ("${{inputs['data']}} ${{ inputs[\"epochs\"] }} ${{inputs['with-dash']}}", "/in/data 5 d"),
        ("${{inputs.with-dash}} ${{inputs.group.rate}}", "d 0.1"),
        ("a $[[--m ${{outputs.model}}]] b", "a --m /out/model b"),
        ("a $[[--m ${{inputs.none}}]] b", "a  b"),
        ("a $[[--m ${{inputs.none}} ${{inputs.data}}]] b", "a  b"),
        ("$[[--a ${{inputs['data']}}]]$[[--b ${{inputs['none']}}]]", "--a /in/data"),
        ("a $[[--flag]] b", "a --flag b"),
        ("[${{inputs.empty}}] $[[--e ${{inputs.empty}}]]", "[] --e "),
        ("if [[ -f ${{inputs.data}} ]]; then x=${HOME}; fi", "if [[ -f /in/data ]]; then x=${HOME}; fi"),
        ("a $[[--x [1]\n  ${{inputs.epochs}}\n]]\nb", "a --x [1]\n  5\n\nb"),
        ("line 1 \\\n  ${{inputs.data}}\nline 2\n", "line 1 \\\n  /in/data\nline 2\n"),
        ("$$ $( ) ${x} $[1+1] {{x}} }} ]]", "$$ $( ) ${x} $[1+1] {{x}} }} ]]"),
        ("a ${{inputs.odd}}", "a $HOME \\1 ${{inputs.epochs}} $[[x]]"),
    ],
)
def test_a_command_gets_its_values_as_they_are(command: str, becomes: str) -> None:
    assert render_command(step(command), VALUES) == becomes


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("a ${{inputs.none}}", "`inputs.none` has no value"),
        ("a $[[--x ${{inputs.data}}", "has no `]]`"),
        ("a $[[--x $[[--y]] ]]", "has no `]]`"),
        ("a ${{inputs.data", "has no `}}`"),
        ("a ${{inputs.data}} ${{inputs.epochs}", "has no `}}`"),
        ("a ${{}}", "not an expression"),
        ("a ${{inputs..x}}", "not an expression"),
        ("a ${{inputs x}}", "not an expression"),
        ("a ${{.inputs}}", "not an expression"),
        ("a ${{inputs['x}}", "not an expression"),
        ("a ${{inputs.x + 1}}", "not an expression"),
    ],
)
def test_a_command_that_cannot_be_put_together_says_why_and_where(command: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        render_command(step(command), VALUES)
    assert words in caught.value.problem
    assert (caught.value.file, caught.value.line) == (Path("/somewhere/pipeline.yml"), 12)


def test_expressions_know_whether_they_may_be_left_out() -> None:
    found = expressions("a ${{inputs.x}} $[[--y ${{ inputs['y'] }}]] ${{outputs.z}}")
    assert [(item.path, item.optional) for item in found] == [
        (("inputs", "x"), False),
        (("inputs", "y"), True),
        (("outputs", "z"), False),
    ]
    assert found[1].text == "${{ inputs['y'] }}"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("plain $text {{x}}", None),
        ("${{parent.jobs.prep-data.outputs.out}}", ("parent", "jobs", "prep-data", "outputs", "out")),
        (" ${{ parent.inputs['a'] }}\n", ("parent", "inputs", "a")),
    ],
)
def test_a_value_is_one_expression_or_none(text: str, path: tuple[str, ...] | None) -> None:
    found = parse_expression(text)
    assert (found.path if found else None) == path


@pytest.mark.parametrize("text", ["x-${{parent.inputs.a}}", "${{a}}${{b}}", "${{a", "${{a}} ${{b}}", "${{ }}"])
def test_a_value_that_mixes_expressions_and_text_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_expression(text)


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("${{name}}", "nightly-1"),
        ("${{ name }}", "nightly-1"),
        ("from ${{creation_context.trigger_time}} by ${{name}}", "from NOW by nightly-1"),
        ("${{names}} ${{name", "${{names}} ${{name"),
        ("plain $name", "plain $name"),
    ],
)
def test_what_a_schedule_says_of_its_run_is_put_in(text: str, becomes: str) -> None:
    assert fill_in_run(text, "nightly-1", "NOW") == becomes


def test_a_long_command_with_something_never_closed_is_refused() -> None:
    command = "python x.py " + "$[[--a ${{inputs.none}}]] ${{inputs.data}} [[ " * 5000 + "$[["
    with pytest.raises(Malformed):
        expressions(command)
