"""Records what a script logs through azureml-core's run, which is only printed outside a workspace.

`Run.get_context()` returns an offline run there, whose metrics and tags go to standard output
(azureml/core/run.py, class _OfflineRun, seen with 1.61.0). If AZUREML_DEBUGGEE_METRICS names a
file, they are appended to it as well, one JSON object a line, and uploaded files are copied into
the run's own folder, AZUREML_DEBUGGEE_UPLOADS. Nothing is imported for this: the module is
changed when the script itself imports it.
"""

from __future__ import annotations

import os

# As good as typing.TYPE_CHECKING, without importing that.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional

MODULE = "azureml.core.run"


def install() -> None:
    """Have the SDK's module changed when it is imported, if AZUREML_DEBUGGEE_METRICS is set."""
    path = os.environ.get("AZUREML_DEBUGGEE_METRICS")
    if path:
        from . import import_hooks

        import_hooks.change_when_imported(MODULE, lambda module: change_offline_run(module, path))


def change_offline_run(module: Any, path: str) -> None:
    """Have the offline run of the SDK's module record what is logged."""
    from .announce import Announcer

    record = Announcer(path)
    offline = module._OfflineRun

    def call_first(name: str, action: Callable[..., None]) -> None:
        original = getattr(offline, name)

        def method(self: Any, *arguments: Any, **options: Any) -> Any:
            try:
                action(*arguments, **options)
            except Exception:
                pass
            return original(self, *arguments, **options)

        method.__name__, method.__doc__ = name, original.__doc__
        setattr(offline, name, method)

    def record_metric(kind: str, name: Any, value: Any) -> None:
        recorded = _save_image(name, value) if kind == "image" else as_json_value(value)
        record("metric", kind=str(kind), name=str(name), value=recorded)

    call_first("_emit", record_metric)
    call_first("tag", lambda name, value=None: record("tag", name=str(name), value=as_json_value(value)))

    def record_all(kind: str, values: Any) -> None:
        for key, value in values.items():
            record(kind, name=str(key), value=as_json_value(value))

    def copy_files(names: Any, paths: Any, *_arguments: Any, **_options: Any) -> None:
        for name, path in zip(names, paths):
            _copy_upload(str(name), path)

    call_first("set_tags", lambda tags: record_all("tag", tags))
    call_first("add_properties", lambda properties: record_all("property", properties))
    call_first("upload_file", lambda name, path_or_stream, *_, **__: _copy_upload(str(name), path_or_stream))
    call_first("upload_files", copy_files)
    call_first("upload_folder", lambda name, path, *_, **__: _copy_upload(str(name), path))


def as_json_value(value: Any) -> Any:
    """A value that JSON can represent: numbers of numpy and torch become plain ones."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): as_json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json_value(item) for item in value]
    if hasattr(value, "tolist"):
        return as_json_value(value.tolist())
    if hasattr(value, "item"):
        return as_json_value(value.item())
    return str(value)


def _upload_path(name: str) -> Optional[str]:
    """The path for an uploaded file, always below the run's own folder; None if there is no folder for uploads."""
    root = os.environ.get("AZUREML_DEBUGGEE_UPLOADS")
    if not root:
        return None
    # The run has only these two folders; files with other names go into the first.
    name = os.path.normpath(name).replace(os.sep, "/").lstrip("/")
    if name.startswith("../") or name == "..":
        return None
    if not name.startswith(("outputs/", "logs/")):
        name = "outputs/" + name
    target = os.path.join(root, *name.split("/"))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    return target


def _copy_upload(name: str, source: Any) -> None:
    import shutil

    target = _upload_path(name)
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


def _save_image(name: Any, value: Any) -> Any:
    """Save an image among the outputs; returns its name there, or the value as text."""
    target = _upload_path("outputs/{}.png".format(name))
    if target is not None and hasattr(value, "savefig"):
        value.savefig(target)
        return os.path.basename(target)
    if target is not None and isinstance(value, str) and os.path.isfile(value):
        _copy_upload(os.path.join("outputs", os.path.basename(value)), value)
        return os.path.basename(value)
    return str(value)
