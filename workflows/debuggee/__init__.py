"""The code that travels into containers and onto nodes.

Nothing of it is imported by the program's other parts: it runs inside the debugged
process, which may be an older Python (3.8 or later), so it uses the standard library
and debugpy only. :data:`FOLDER` is what gets mounted there.
"""

from __future__ import annotations

import os

#: The folder that is mounted, or pointed to, where a debugged program runs.
FOLDER = os.path.dirname(os.path.abspath(__file__))
