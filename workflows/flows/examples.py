"""A word where the program's own example is run for want of the person's file."""

from __future__ import annotations

from ..console import Console
from ..settings import Settings
from ..settings_table import BY_FIELD


def note_example(settings: Settings, console: Console, field: str, usual: str) -> None:
    """Say so where a project's own file is not named, and the example that comes with the program is used.

    Args:
        settings: The settings.
        console: Where to say it.
        field: The setting that names the file.
        usual: What people call such a file.
    """
    if field in settings.set_by or getattr(settings, field).is_relative_to(settings.project):
        return
    setting = BY_FIELD[field]
    yours = f". For yours: {setting.flag} {usual}" if (settings.project / usual).is_file() else ""
    named = f"no {setting.flag} ({setting.variable}) was given"
    console.line(f"  note: {named}, so the example that comes with the program is run{yours}")
