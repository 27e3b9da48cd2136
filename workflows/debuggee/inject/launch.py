"""Runs a script under the debuggee if Python's options make it ignore PYTHONPATH or `site`.

python -I launch.py train.py ARGUMENTS
python -I launch.py -m module ARGUMENTS
"""

import os
import sys

_inject = os.path.dirname(os.path.abspath(__file__))
_folder = os.path.dirname(_inject)
sys.path.insert(0, _folder)
try:
    from azureml_debuggee import launch as _launch  # type: ignore[import-not-found]
finally:
    sys.path.remove(_folder)

_launch.run(_inject)
