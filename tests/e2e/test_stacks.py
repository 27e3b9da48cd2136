"""Where something that hangs stands, on both engines: four ranks of which one never comes, a service, a child."""

from __future__ import annotations

import os

from pipelines import PipelineProject
from projects import ANY_ENGINE, PLAIN, Project, until
from services import Posting

#: The ranks wait for one another by files, since a barrier of a library needs that library.
HANG = """\
import multiprocessing, os, pathlib, threading, time

def all_here(folder):
    while len(list(folder.iterdir())) < 4:
        time.sleep(0.05)

def load():
    while True:
        time.sleep(0.05)

def work(number):
    load()

if __name__ == "__main__":
    rank = int(os.environ["RANK"])
    folder = pathlib.Path("here")
    folder.mkdir(exist_ok=True)
    if rank == 2:
        child = multiprocessing.get_context("spawn").Process(target=work, args=(rank,), daemon=True)
        child.start()
        load()
    (folder / str(rank)).touch()
    all_here(folder)
"""
#: Waits for a file, so that the request is on its way however long a look takes.
SLOW = """\
import os, time

def slow():
    end = time.monotonic() + 100
    while not os.path.exists(os.path.join(os.path.dirname(__file__), "go")) and time.monotonic() < end:
        time.sleep(0.05)


"""
RANKS = "distribution:\n  type: pytorch\n  process_count_per_instance: 4\n"


def test_the_rank_that_never_comes_is_the_first_of_the_groups(pipelines: PipelineProject) -> None:
    pipelines.single(HANG, more=RANKS)
    pipelines.ok("pipeline.debug", "--rank", "all", "--no-wait")

    def all_hang() -> bool:
        told = pipelines.inv("pipeline.stacks", "--json", "--eval", "rank")
        names = [one["name"] for one in told.json["groups"]] if told.code == 0 else []
        return len(names) == 3 and names[-1] == "ranks 0-1, 3"

    until(all_hang, "all ranks and the child at their places")
    told = pipelines.ok("pipeline.stacks", "--json")
    groups = {one["name"]: one["summary"] for one in told.json["groups"]}
    assert groups["rank 2"] == "load at work.py:9"
    assert groups["ranks 0-1, 3"] == "all_here at work.py:5"
    (child,) = [one for one in told.json["processes"] if one["child"]]
    assert child["process"] == "SpawnProcess-1" and child["rank"] == 2
    frames = child["threads"][0]["frames"]
    script = str(pipelines.folder / "work" / "work.py")
    assert [(one["file"], one["line"]) for one in frames if one["own"]] == [(script, 12), (script, 9)]
    # For people: the odd one first, and which value differs.
    shown = pipelines.ok("pipeline.stacks", "--eval", "'folder' in globals() and rank == 2").out
    assert shown.index("rank 2") < shown.index("ranks 0-1, 3: all_here at work.py:5")
    (odd,) = [line for line in shown.splitlines() if "<- differs" in line]
    assert "= True  (rank 2)" in odd
    alone = pipelines.ok("pipeline.stacks", "--rank", "2").out
    assert "load at work.py:9" in alone and "all_here" not in alone
    pipelines.inv("pipeline.stacks", "--rank", "9").says("Rank 9 has no debug port", "--rank all")
    # Nothing was stopped, and nobody has attached.
    assert {one["state"] for one in pipelines.step("work")["endpoints"]} == {"listening"}
    pipelines.ok("pipeline.cancel")
    pipelines.inv("pipeline.stacks").says("it is over: Canceled", "inv pipeline.debug")


@ANY_ENGINE
def test_py_spy_sees_what_an_interpreter_does_not_say(pipelines: PipelineProject) -> None:
    pipelines.single("import ctypes, time\n\ndef hold():\n    ctypes.PyDLL(None).sleep(60)\n\ntime.sleep(1)\nhold()\n")
    pipelines.ok("pipeline.debug", "--no-wait")

    def look() -> str:
        told = pipelines.inv("pipeline.stacks")
        return told.out if "C code holds the interpreter" in told.out + told.err else ""

    said = until(look, "the interpreter held")
    if os.geteuid() == 0:
        assert "hold at work.py:4" in said and "this is what py-spy sees" in said
    else:
        assert "py-spy" in said


def test_a_service_shows_where_its_request_stands(project: Project) -> None:
    head, _, body = PLAIN.partition("def run(")
    line, _, rest = body.partition("\n")
    project.score.write_text(f"{SLOW}{head}def run({line}\n    slow()\n{rest}")
    debug = project.debug()
    request = Posting(debug["scoring_url"])

    def look() -> str:
        out = project.ok("deploy.stacks", "--eval", "end > 0").out
        return out if "slow" in out else ""

    shown = until(look, "the request in slow()")
    # What the service's own code is, is known: its frames are shown, and its names can be asked for.
    shown_frames = [line.split() for line in shown.splitlines() if "score.py:" in line]
    assert [words[0] for words in shown_frames[1:]] == ["slow", "run"]
    assert "end > 0 = True" in shown
    (project.score.parent / "go").touch()
    assert request.finish() == {"answer": 60}
    project.ok("container.stop")
    project.inv("deploy.stacks").says("No service", "inv deploy.debug")


@ANY_ENGINE
def test_nothing_to_ask_is_told_before_anything_is_waited_for(pipelines: PipelineProject) -> None:
    pipelines.single("import time\ntime.sleep(600)\n")
    pipelines.ok("pipeline.submit", "--no-debug")
    until(lambda: pipelines.status()["steps"][0]["status"] == "Running", "it to run")
    pipelines.inv("pipeline.stacks").says("work runs without a debug port", "inv pipeline.debug")
