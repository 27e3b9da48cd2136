"""The code that travels into containers and onto nodes.

It runs inside the debugged process, which may be an older Python (3.8 or later), so it uses
the standard library and debugpy only. The program's other parts import nothing of it but
``azureml_debuggee.peers``, so that every listener of ours lets in the same people.
:data:`FOLDER` is what gets mounted there.
"""

from __future__ import annotations

import os

#: The folder that is mounted, or pointed to, where a debugged program runs.
FOLDER = os.path.dirname(os.path.abspath(__file__))
