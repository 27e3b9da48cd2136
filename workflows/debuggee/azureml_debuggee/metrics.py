"""Keeps what a script logs by azureml-core's run, which outside of a workspace is only printed.

`Run.get_context()` gives an offline run there, whose metrics and tags go to standard output
(azureml/core/run.py, class _OfflineRun, seen with 1.61.0). Where AZUREML_DEBUGGEE_METRICS names
a file, they are appended to it as well, one JSON object a line, and what is uploaded is copied
into the run's own folder, AZUREML_DEBUGGEE_UPLOADS. Nothing is imported for it: the module is
changed at the moment in which the script itself imports it.
"""

from __future__ import annotations

import os

# As good as typing.TYPE_CHECKING, without importing that.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional

MODULE = "azureml.core.run"


def install() -> None:
    """Check it that the SDK's module is changed once it is imported, where that is asked for."""
    path = os.environ.get("AZUREML_DEBUGGEE_METRICS")
    if path:
        from . import import_hooks

        import_hooks.change_when_imported(MODULE, lambda module: change(module, path))


def change(module: Any, path: str) -> None:
    """Have the offline run of the SDK's module write down what it is told."""
    from .announce import Announcer

    keep = Announcer(path)
    offline = module._OfflineRun

    def before(name: str, action: Callable[..., None]) -> None:
        original = getattr(offline, name)

        def method(self: Any, *arguments: Any, **options: Any) -> Any:
            try:
                action(*arguments, **options)
            except Exception:
                pass
            return original(self, *arguments, **options)

        method.__name__, method.__doc__ = name, original.__doc__
        setattr(offline, name, method)

    def metric(kind: str, name: Any, value: Any) -> None:
        keep("metric", kind=str(kind), name=str(name), value=_picture(name, value) if kind == "image" else plain(value))

    before("_emit", metric)
    before("tag", lambda name, value=None: keep("tag", name=str(name), value=plain(value)))

    def several(kind: str, values: Any) -> None:
        for key, value in values.items():
            keep(kind, name=str(key), value=plain(value))

    def upload(names: Any, paths: Any, *_arguments: Any, **_options: Any) -> None:
        for name, path in zip(names, paths):
            _copy(str(name), path)

    before("set_tags", lambda tags: several("tag", tags))
    before("add_properties", lambda properties: several("property", properties))
    before("upload_file", lambda name, path_or_stream, *_arguments, **_options: _copy(str(name), path_or_stream))
    before("upload_files", upload)
    before("upload_folder", lambda name, path, *_arguments, **_options: _copy(str(name), path))


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers of numpy's and torch's become plain ones."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if hasattr(value, "item"):
        return plain(value.item())
    return str(value)


def _target(name: str) -> Optional[str]:
    """Where a file of that name goes: below the run's own folder, never anywhere else."""
    root = os.environ.get("AZUREML_DEBUGGEE_UPLOADS")
    if not root:
        return None
    # Only these two are the run's; what is uploaded under another name lies in the first.
    name = os.path.normpath(name).replace(os.sep, "/").lstrip("/")
    if name.startswith("../") or name == "..":
        return None
    if not name.startswith(("outputs/", "logs/")):
        name = "outputs/" + name
    target = os.path.join(root, *name.split("/"))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    return target


def _copy(name: str, source: Any) -> None:
    import shutil

    target = _target(name)
    if target is None:
        return
    if hasattr(source, "read"):
        position = source.tell()
        with open(target, "wb") as file:
            data = source.read()
            file.write(data if isinstance(data, bytes) else data.encode())
        source.seek(position)
    elif os.path.isdir(source):
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif os.path.realpath(source) != os.path.realpath(target):
        shutil.copyfile(source, target)


def _picture(name: Any, value: Any) -> Any:
    """Keep a picture among the outputs; its name there, or what it is."""
    target = _target("outputs/{}.png".format(name))
    if target is not None and hasattr(value, "savefig"):
        value.savefig(target)
        return os.path.basename(target)
    if target is not None and isinstance(value, str) and os.path.isfile(value):
        _copy(os.path.join("outputs", os.path.basename(value)), value)
        return os.path.basename(value)
    return str(value)
