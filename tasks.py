"""Wires the collections together."""

from invoke import Collection

from benchmarks import tasks as bench
from workflows import namespace as ns
from workflows.tasks import development

ns.add_task(development.test)
ns.add_task(development.lint)
ns.add_task(development.docs)
ns.add_collection(Collection.from_module(bench, name="bench"))
