"""Wires the collections together."""

from benchmarks import tasks as bench
from workflows import namespace as ns
from workflows.tasks import development

development.add_to(ns, bench)
