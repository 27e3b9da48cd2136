"""Every collection of tasks, wired together."""

from __future__ import annotations

from invoke import Collection

from . import azureml, container, deploy, experiment, pipeline, remote, vscode

namespace = Collection()
namespace.add_collection(Collection.from_module(deploy))
namespace.add_collection(Collection.from_module(container))
namespace.add_collection(Collection.from_module(pipeline))
namespace.add_collection(Collection.from_module(experiment))
namespace.add_collection(Collection.from_module(remote))
namespace.add_collection(Collection.from_module(azureml))
namespace.add_collection(Collection.from_module(vscode))
