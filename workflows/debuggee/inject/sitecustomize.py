"""Puts the debuggee into a step's script, in the place where Python looks before it starts any program.

This folder stands first in PYTHONPATH. Which process is the step's own, and what is done there, is
decided in azureml_debuggee/step.py, and what its children do in child.py; a sitecustomize that this one
hides runs as it would without.
"""

import os
import sys

_inject = os.path.dirname(os.path.abspath(__file__))
_folder = os.path.dirname(_inject)
# Made by hand: finding it would take as long as all that a child does at its start, and for that its folder's parent
# would stand in the import path, where it could hide a module of the program's.
_package = type(sys)("azureml_debuggee")
_package.__path__ = [os.path.join(_folder, "azureml_debuggee")]
_package.__spec__ = type(sys.__spec__)("azureml_debuggee", None, is_package=True)
sys.modules["azureml_debuggee"] = _package
# Most often a child of a debugged process, which needs no more than `child`.
_is_child = bool(os.environ.get("AZUREML_DEBUGGEE_CHILDREN_AT"))
# Or one that nobody debugs, which is looked at only when it fails.
_has_snapshots = bool(os.environ.get("AZUREML_DEBUGGEE_SNAPSHOTS"))
_is_plain = not (_is_child or os.environ.get("AZUREML_DEBUGGEE_CODE") or os.environ.get("AZUREML_DEBUGGEE_METRICS"))
# Compiled once a step where it has not been where it lies; a program may start thousands of processes.
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
        # Or what a debugged process has turned into by an exec.
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
    # With no other there, the ImportError is the one that `site` expects.
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
finally:
    # Last: theirs may set hooks, and a debugger that is waited for sees everything in place.
    if _start is not None:
        _start()
