"""The namespace of all collections of tasks."""

from __future__ import annotations

from invoke import Collection

from . import _closed_output, _hints, azureml, container, deploy, experiment, mcp, pipeline, remote, vscode
from .doctor import doctor

MODULES = (deploy, container, pipeline, experiment, remote, azureml, vscode, mcp)


def collect_tasks() -> Collection:
    """The tasks that a project gets, in a new collection."""
    made = Collection()
    for module in MODULES:
        made.add_collection(Collection.from_module(module))
    made.add_task(doctor)
    return made


_closed_output.install()
_hints.install()
namespace = collect_tasks()
