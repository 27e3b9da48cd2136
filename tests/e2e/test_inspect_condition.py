"""Inspections that stop at one of the many times that a line runs."""

from __future__ import annotations

import pytest
from pipelines import PipelineProject
from projects import ANY_ENGINE, PLAIN_LINE, Project

from workflows.debugger.locations import Condition, read_condition
from workflows.errors import BadValue

#: Runs a line a hundred times; number 42 is one of them.
LOOP = """\
def work(number):
    squared = number * number
    return squared

for number in range(100):
    work(number)
"""


@ANY_ENGINE
def test_only_where_the_expression_is_true_and_only_at_that_time(pipelines: PipelineProject) -> None:
    pipelines.single(LOOP)
    pipelines.ok("pipeline.debug")
    seen = pipelines.ok("pipeline.inspect", "work.py:3", "--when", "number > 40 and number % 2", "--json").json
    assert seen["locals"]["squared"] == "1681" and seen["values"] == {}
    pipelines.until_final()
    pipelines.ok("pipeline.debug")
    seen = pipelines.ok("pipeline.inspect", "work.py:3", "--hits", "8", "--eval", "number", "--json").json
    assert seen["values"] == {"number": "7"}
    pipelines.until_final()
    pipelines.ok("pipeline.debug")
    both = ("--when", "number % 10 == 0", "--hits", "3")
    assert pipelines.ok("pipeline.inspect", "work.py:3", *both, "--json").json["locals"]["number"] == "20"
    pipelines.until_final()


@ANY_ENGINE
def test_an_expression_that_raises_is_told_once_and_the_step_goes_on(pipelines: PipelineProject) -> None:
    pipelines.single(LOOP)
    pipelines.ok("pipeline.debug")
    told = pipelines.inv("pipeline.inspect", "work.py:3", "--when", "nobody > 1")
    told.says("--when nobody > 1 raises at work.py:3: NameError", "Correct it.")
    assert pipelines.until_final()["status"] == "Completed"


@ANY_ENGINE
def test_a_request_is_stopped_only_where_it_is_so(project: Project) -> None:
    project.debug()
    place = f"score.py:{PLAIN_LINE}"
    missed = project.inv("deploy.inspect", place, "--request", request(project), "--when", "False")
    missed.says(f"{place} was not reached", "")
    assert project.ok("deploy.inspect", place, "--request", request(project), "--when", "True").code == 0
    project.inv("deploy.inspect", "--on-error", "--when", "True").says("need a line", "score.py:21", code=2)


def request(project: Project) -> str:
    path = project.folder / "request.json"
    path.write_text('{"data": [1, 2]}')
    return str(path)


@pytest.mark.parametrize("when", ["", " ", "x =", "a b", "import os", "x = 1", "\x00", "(" * 500])
def test_what_is_no_expression_is_refused(when: str) -> None:
    with pytest.raises(BadValue, match="--when must be a Python expression"):
        read_condition(when, None)


@pytest.mark.parametrize("hits", ["", "0", "-1", "two", "1.5", "9" * 10, "٣"])
def test_what_is_no_number_of_hits_is_refused(hits: str) -> None:
    with pytest.raises(BadValue, match="--hits must be a whole number"):
        read_condition(None, hits)


def test_a_condition_and_a_number_of_hits_are_read_together() -> None:
    assert read_condition(" x > 1 ", "2") == Condition("x > 1", 2)
