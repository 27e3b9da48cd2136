"""All that `inspect` does in one command: several places, values that pass by, steps, every rank, bad input."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

from pipelines import PipelineProject
from projects import ANY_ENGINE, Project, until

SCORE = """\
import json


def init():
    pass


def scale(number, factor):
    scaled = number * factor
    return scaled


def read(text):
    try:
        return json.loads(text)["data"]
    except ValueError:
        return []


def run(raw_data):
    numbers = read(raw_data)
    found = [scale(number, 10) for number in numbers]
    if len(numbers) == 4:
        breakpoint()
    return {"found": found, "total": sum(found)}
"""
FOUND = 23  # `found` is known there.
RANKS = "distribution:\n  type: pytorch\n  process_count_per_instance: 3\n"
RANK_SCRIPT = """\
import os, time
same = "as ever"
own = int(os.environ["RANK"]) * 2
open(f"../at-{own}", "w").close()
print("rank", own, same)
"""
LOOP = """\
import time


class Net:
    def forward(self, number):
        squared = number * number
        return squared


net = Net()
for number in range(100_000):
    net.forward(number)
    time.sleep(0.02)
    try:
        int("no number")
    except ValueError:
        pass
"""


def test_a_service_is_looked_at_in_every_way_without_a_restart(project: Project) -> None:
    project.write_score(SCORE)
    project.debug()
    body = json.dumps({"data": [1, 2, 3]})

    def look(*arguments: str) -> dict[str, Any]:
        return project.ok("deploy.inspect", *arguments, "--request", body, "--json").json

    seen = look("score.py:run", "--at", "score.py:scale", "--times", "2")
    assert [stop["stopped"]["function"] for stop in seen["stops"]] == ["run", "scale", "scale"]
    assert seen["response"] == {"status": 200, "body": {"found": [10, 20, 30], "total": 60}}

    logged = project.ok("deploy.inspect", "score.py:10", "--log", "(number, scaled)", "--request", body)
    assert [line.partition(" ")[2] for line in logged.out.splitlines()[:3]] == [
        f"score.py:10 #{n}: ({n}, {n * 10})" for n in (1, 2, 3)
    ]
    found = look("score.py:10", "--log", "scaled", "--times", "2")
    assert [one["value"] for one in found["logged_values"]] == ["10", "20"]

    seen = look(f"score.py:{FOUND}", "--set", "found=[7]", "--frames", "all", "--depth", "1")
    assert seen["response"] == {"status": 200, "body": {"found": [7], "total": 7}}
    assert [frame["function"] for frame in seen["frame_locals"]] == ["run"]
    opened = {one["name"]: one for one in seen["opened"]}
    assert [one["value"] for one in opened["numbers"]["children"]] == ["1", "2", "3"]

    shown = project.ok("deploy.inspect", "score.py:scale", "--steps", "2", "--request", body).out
    assert "Then scale at" in shown and "scaled = 10" in shown and "Response 200" in shown
    seen = look("score.py:run", "--steps", "3", "--step-into")
    assert [step["function"] for step in seen["stepped"]][:2] == ["read", "read"]

    # Raised and caught; and a library's function.
    wrong = project.folder / "wrong.txt"
    wrong.write_text("no JSON")
    seen = project.ok("deploy.inspect", "--on-error", "ValueError", "--request", str(wrong), "--json").json
    assert seen["stopped"]["function"] == "read" and seen["exception"]["type"].endswith("JSONDecodeError")
    assert seen["response"] == {"status": 200, "body": {"found": [], "total": 0}}
    seen = look("json.decoder:JSONDecoder.decode", "--all-code", "--when", "'data' in s", "--eval", "s")
    assert seen["values"] == {"s": repr(body)}

    four = ("--request", '{"data": [1, 2, 3, 4]}', "--json")
    seen = project.ok("deploy.inspect", *four).json
    assert seen["stopped"]["function"] == "run" and seen["response"]["body"]["total"] == 100

    many = project.ok(
        "deploy.inspect", "score.py:run", "--repeat", "3", "--times", "3", "--request", body, "--json"
    ).json
    assert len(many["stops"]) == 3 and [one["status"] for one in many["responses"]] == [200] * 3


@ANY_ENGINE
def test_what_cannot_be_looked_at_is_said_in_two_lines_and_the_service_goes_on(project: Project) -> None:
    project.write_score(SCORE)
    project.debug()
    body = json.dumps({"data": [1]})

    def refused(*arguments: str, said: tuple[str, ...], code: int = 1) -> None:
        project.inv("deploy.inspect", *arguments, "--request", body).says(*said, code=code)

    refused("score.py:scale", "--log", "number", "--when", "nobody", said=("--when nobody raises at score.py:9",))
    refused("score.py:scale", "--when", "nobody", said=("--when nobody raises at score.py:9", "NameError"))
    refused("score.py:scale", "--when", "x =", said=("--when must be a Python expression",), code=2)
    began = time.monotonic()
    endless = ("--eval", "[0 for _ in iter(int, 1)]", "--timeout", "1")
    refused("score.py:scale", *endless, said=("did not end within 1 s and was interrupted", "The program goes on."))
    assert time.monotonic() - began < 60
    refused("score.py:nothing", said=("no function nothing in score.py", "run"), code=2)
    refused("json:nothing", "--all-code", said=("no function nothing in",))
    refused("no.such.module:f", "--all-code", said=("can import no module no",))
    refused("json:loads", said=("--all-code",), code=2)
    refused("score.py:scale", "--log", "number", "--eval", "1", said=("--log does not stop",), code=2)
    refused("score.py:scale", "--times", "0", said=("--times must be a whole number",), code=2)
    refused("score.py:scale", "--set", "=1", said=("--set must be NAME=EXPRESSION",), code=2)
    refused("score.py:scale", "--set", "number=1 /", said=("--set must be a Python expression",), code=2)
    refused("score.py:scale", "--set", "number=nobody", said=("number cannot be set to nobody: NameError",))
    refused("score.py:scale", "--header", "a b=c", said=("--header must be NAME=VALUE",), code=2)
    other = project.folder / "other.py"
    other.write_text("def work():\n    return 1\n")
    refused("other.py:work", said=("other.py:work was not reached",))
    project.inv("deploy.inspect", "score.py:run", "--request", "{1}").says("neither a file nor JSON", code=2)
    refused(said=("breakpoint() was not reached",))
    refused("--on-error", "KeyError", said=("No KeyError was raised",))
    project.inv("deploy.inspect").says("Nothing says where to stop", code=2)
    # After all that it answers as ever.
    seen = project.ok("deploy.inspect", "score.py:run", "--request", body, "--json").json
    assert seen["response"]["body"] == {"found": [10], "total": 10}
    # One that holds says so, and holds on.
    project.debug("--wait")
    for _ in range(2):
        result = project.ok("deploy.inspect", "--json")
        assert result.json["holds"] and "holds before score.py is loaded" in result.err


@ANY_ENGINE
def test_ranks_are_stopped_at_once_and_what_differs_is_marked(pipelines: PipelineProject) -> None:
    pipelines.single(RANK_SCRIPT, more=RANKS)
    pipelines.ok("pipeline.debug", "--rank", "all")
    pipelines.inv("pipeline.inspect", "work.py:5", "--rank", "7").says("Rank 7 of work is not debugged", "--rank 7")
    result = pipelines.ok("pipeline.inspect", "work.py:5", "--rank", "all", "--eval", "own + 1", "--json")
    seen = result.json
    assert [row["rank"] for row in seen["by_rank"]] == [0, 1, 2]
    assert [row["locals"]["own"] for row in seen["by_rank"]] == ["0", "2", "4"]
    assert "own" in seen["differ"] and "own + 1" in seen["differ"] and "same" not in seen["differ"]
    assert "  * own = 4  (rank 2)" in result.err and "    same = 'as ever'" in result.err
    assert pipelines.until_final()["status"] == "Completed"


@ANY_ENGINE
def test_a_running_step_is_looked_at_again_and_again(pipelines: PipelineProject) -> None:
    pipelines.single(LOOP)
    pipelines.ok("pipeline.debug")
    # Before its first line, as often as one likes.
    for _ in range(2):
        seen = pipelines.ok("pipeline.inspect", "--json").json
        assert seen["holds"] and seen["stopped"]["line"] == 1 and seen["stack"] == [seen["stopped"]]
    seen = pipelines.ok("pipeline.inspect", "work.py:Net.forward", "--times", "3", "--json").json
    assert [stop["locals"]["number"] for stop in seen["stops"]] == ["0", "1", "2"]
    shown = pipelines.ok("pipeline.inspect", "work.py:7", "--log", "squared", "--times", "5").out
    assert [line.split()[2] for line in shown.splitlines() if " #" in line] == [f"#{n}:" for n in range(1, 6)]
    for kind in ("", "ValueError"):
        seen = pipelines.ok("pipeline.inspect", "--on-error", *filter(None, [kind]), "--json").json
        assert seen["exception"]["type"] == "ValueError" and seen["stopped"]["function"] == "<module>"
    # Values are shown as they come; Ctrl-C ends the look and not the step.
    child = pipelines.start("pipeline.inspect", "work.py:7", "--log", "number", "--times", "100000")
    time.sleep(3)
    child.send_signal(signal.SIGINT)
    ended = pipelines.finish(child)
    assert ended.code == 130 and ended.out.count("work.py:7 #") > 3
    # Two at once: one is told of the other.
    child = pipelines.start("pipeline.inspect", "work.py:7", "--log", "number", "--times", "100000")
    until(lambda: pipelines.step("work") and child.poll() is None, "it is there")
    time.sleep(2)
    pipelines.inv("pipeline.inspect", "work.py:7", "--timeout", "5").says("already attached")
    child.send_signal(signal.SIGINT)
    pipelines.finish(child)
    pipelines.inv("pipeline.inspect", "work.py:7", "--log", "1", "--when", "x").says("--when x raises at work.py:7")
    assert pipelines.step("work")["status"] == "Running"
    pipelines.ok("pipeline.cancel")
    pipelines.inv("pipeline.inspect", "work.py:7").says("Canceled")
