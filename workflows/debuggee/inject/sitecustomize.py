"""Puts the debuggee into a step's script, in the place where Python looks before it starts any program.

This folder stands first in PYTHONPATH. Which process is the step's own, and what is done there, is
decided in azureml_debuggee/step.py; a sitecustomize that this one hides runs as it would without.
"""

import os
import sys

_inject = os.path.dirname(os.path.abspath(__file__))
_folder = os.path.dirname(_inject)
# For these imports only: a lasting entry could hide a module of the program's.
sys.path.insert(0, _folder)
try:
    from azureml_debuggee import step as _step  # type: ignore[import-not-found]
finally:
    sys.path.remove(_folder)

_start = _step.prepare(_inject)
del sys.modules["sitecustomize"]
try:
    # With no other there, the ImportError is the one that `site` expects.
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
finally:
    # Last: theirs may set hooks, and a debugger that is waited for sees everything in place.
    if _start is not None:
        _start()
