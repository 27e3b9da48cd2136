"""Code that a process started by multiprocessing runs first; see spawned_watch.py."""

from __future__ import annotations

from . import imports
from .startup import report_failure

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Dict, List


def watch_process(settings: Dict[str, str], folders: List[str], debugs_itself: bool) -> None:
    """Watch this process, which has just been started, for errors; never raises."""
    try:
        imports.set_program_folders([], folders)
        with imports.own:
            from . import postmortem

            postmortem.watch_spawned(settings, folders, debugs_itself)
    except Exception as error:
        report_failure(settings, error)
