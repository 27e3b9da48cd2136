"""Wires the collections together."""

from benchmarks import tasks as bench
from invoke import Collection

from workflows import namespace as ns
from workflows.tasks import development

ns.add_task(development.test)
ns.add_task(development.lint)
ns.add_collection(Collection.from_module(bench, name="bench"))
