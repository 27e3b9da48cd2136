"""Loads the debuggee before a step's script: Python imports this module before it runs any program.

This folder comes first in PYTHONPATH. azureml_debuggee/step.py decides which process of the step is
debugged and how, and child.py handles its children. A sitecustomize that this one
hides runs as usual.
"""

import os
import sys

_inject = os.path.dirname(os.path.abspath(__file__))
_folder = os.path.dirname(_inject)
# The package is created by hand. Importing it would take as long as everything else that a child does when it starts,
# and would need its folder's parent on the import path, where it could hide a module of the program.
_package = type(sys)("azureml_debuggee")
_package.__path__ = [os.path.join(_folder, "azureml_debuggee")]
_package.__spec__ = type(sys.__spec__)("azureml_debuggee", None, is_package=True)
sys.modules["azureml_debuggee"] = _package
# Most often this is a child of a debugged process, which needs `child` only.
_is_child = bool(os.environ.get("AZUREML_DEBUGGEE_CHILDREN_AT"))
# Or it is a process that is not debugged, of which a snapshot is written if it fails.
_has_snapshots = bool(os.environ.get("AZUREML_DEBUGGEE_SNAPSHOTS"))
_is_plain = not (_is_child or os.environ.get("AZUREML_DEBUGGEE_CODE") or os.environ.get("AZUREML_DEBUGGEE_METRICS"))
# Compile once for each step if there is no byte code beside the source: a program may start thousands of processes.
_compiled = "{}.{}.pyc".format(
    "child" if _is_child else "failures" if _is_plain else "step", sys.implementation.cache_tag
)
_kept = sys.dont_write_bytecode, sys.pycache_prefix
_mask = os.umask(0o077)
if os.environ.get("AZUREML_DEBUGGEE_EVENTS") and (
    sys.pycache_prefix or not os.path.exists(os.path.join(_package.__path__[0], "__pycache__", _compiled))
):
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.path.join(os.path.dirname(os.environ["AZUREML_DEBUGGEE_EVENTS"]), "bytecode")
try:
    if _has_snapshots:
        from azureml_debuggee import failures as _failures  # type: ignore[import-not-found]

        _failures.watch()
    if _is_child:
        from azureml_debuggee import child as _child

        _begin = _child.start_child
        # Or the debugged process itself after an exec.
        _is_child = _child.is_child(os.environ)
    if not _is_child and not _is_plain:
        from azureml_debuggee import step as _step

        _begin = _step.prepare
finally:
    sys.dont_write_bytecode, sys.pycache_prefix = _kept
    os.umask(_mask)

if os.environ.get("AZUREML_DEBUGGEE_DEBUGPY"):
    from azureml_debuggee import debugpy_fallback as _fallback

    _fallback.install(os.environ["AZUREML_DEBUGGEE_DEBUGPY"])
if _is_plain:
    _start = None
    sys.path[:] = [_entry for _entry in sys.path if not _entry or os.path.abspath(_entry) != _inject]
else:
    _start = _begin(_inject)
del sys.modules["sitecustomize"]
try:
    # If there is no other one, this raises the ImportError that `site` expects.
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
finally:
    # Last, since the other sitecustomize may set hooks, which should be in place when a debugger attaches.
    if _start is not None:
        _start()
