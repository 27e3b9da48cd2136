"""The collection `bench`: measures everything by default, or one subject by its name."""

from __future__ import annotations

from typing import Any

from invoke import Collection, Context, Exit, Task, task

#: The module of each subject, and what it measures.
SUBJECTS = {
    "debugger": ("debugger", "Measure steps, attaching and what is shown against bare debugpy."),
    "values": ("large_values", "Measure the first page of large values against a small one."),
    "inspect": (
        "inspections",
        "Measure logged values and what is read at a stop against debugpy's own, over bare DAP.",
    ),
    "ranks": ("ranks", "Measure ranks waiting for their debuggers against bare debugpy.listen."),
    "start": ("start", "Measure inv --list against a bare Invoke tasks file."),
    "memory": ("memory", "Measure the memory of what stays in the background of a session."),
    "deploy": ("deployment", "Measure the deployment story against the published chain."),
    "peers": ("peers", "Measure the deployment story against docker stop and azure-ai-ml's local endpoint."),
    "environments": ("environments", "Measure cold builds of environments against docker build and pip install."),
    "training": ("training_environment", "Measure cold builds of a training environment of 64 packages against pip."),
    "pipeline": ("pipeline", "Measure the pipeline story against scripts started by hand under debugpy."),
    "children": ("children", "Measure a step that starts many children against the same script started plainly."),
    "experiment": ("experiment", "Measure the experiment story against a bare docker run of debugpy."),
    "postmortem": (
        "postmortem",
        "Measure what a failure leaves against coredumpy, and what that costs a run without one.",
    ),
    "remote": ("remote", "Measure --remote against the same typed there, against rsync, and against no tunnel."),
    "azureml": ("azureml", "Measure following a run in a workspace: time to the launch configuration, requests."),
    "following": ("following", "Measure following a log against tail -f."),
    "reading": ("reading", "Measure how fast configuration files are read, hostile ones among them."),
}
#: Subjects that take so long that they are measured only by name.
APART = {"growth": ("growth", "Measure how costs grow with the work; by itself, since it takes long.")}
QUICK = "Only try whether everything can be measured: one round of each, nothing is written, no figure fails."
HELP = {"quick": QUICK}


def _measure(names: tuple[str, ...], quick: bool) -> None:
    from . import harness, page

    modules = {name: module for name, (module, _doc) in {**SUBJECTS, **APART}.items()}
    subjects = {name: f"benchmarks.{modules[name]}" for name in names}
    failed = harness.attempt(subjects) if quick and len(names) > 1 else harness.measure(subjects, quick=quick)
    if not quick:
        page.write(harness.HERE, list(modules.values()))
    if failed:
        raise Exit("Could not run:\n" + "\n".join(failed), code=1)


@task(default=True, name="all", help=HELP)
def all_(_context: Context, quick: bool = False) -> None:
    """Measure everything but growth, and write benchmarks/*.json, the pages and the plots."""
    _measure(tuple(SUBJECTS), quick)


@task
def page(_context: Context) -> None:
    """Write benchmarks/README.md, docs/performance.md and the plots from benchmarks/*.json."""
    from . import harness
    from . import page as pages

    pages.write(harness.HERE, [module for module, _doc in (*SUBJECTS.values(), *APART.values())])


def _of(name: str, doc: str) -> Task[Any]:
    @task(name=name, help=HELP)
    def body(_context: Context, quick: bool = False) -> None:
        _measure((name,), quick)

    body.__doc__ = doc
    measured: Task[Any] = body
    return measured


ns = Collection(all_, page, *(_of(name, doc) for name, (_module, doc) in {**SUBJECTS, **APART}.items()))
