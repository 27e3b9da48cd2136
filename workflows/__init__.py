"""Invoke tasks that debug code on Azure Machine Learning where it fails.

In a project's own tasks.py::

    from workflows import namespace as ns
"""

from __future__ import annotations

from invoke import Collection

from .tasks import container, deploy, experiment, pipeline, remote

namespace = Collection()
namespace.add_collection(Collection.from_module(deploy))
namespace.add_collection(Collection.from_module(container))
namespace.add_collection(Collection.from_module(pipeline))
namespace.add_collection(Collection.from_module(experiment))
namespace.add_collection(Collection.from_module(remote))
