"""The code that travels into containers and onto nodes.

It runs inside the debugged process, which may be an older Python (3.8 or later), so it uses
the standard library and debugpy only. Other parts of the program import little of it, such as
``azureml_debuggee.peers``, so that every listener admits the same users.
:data:`FOLDER` is the folder that is mounted there.
"""

from __future__ import annotations

import os

#: The folder that is mounted, or pointed to, where a debugged program runs.
FOLDER = os.path.dirname(os.path.abspath(__file__))
