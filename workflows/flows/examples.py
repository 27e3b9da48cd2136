"""A note that the program's own example is used because no file of the user's is named."""

from __future__ import annotations

from ..console import Console
from ..settings import Settings
from ..settings_table import BY_FIELD


def note_example(settings: Settings, console: Console, field: str, usual: str) -> None:
    """Note it if a project's own file is not named, so that the example that comes with the program is used.

    Args:
        settings: The settings.
        console: Gets the note.
        field: The setting that names the file.
        usual: The usual name of such a file.
    """
    if field in settings.set_by or getattr(settings, field).is_relative_to(settings.project):
        return
    setting = BY_FIELD[field]
    yours = f". For yours: {setting.flag} {usual}" if (settings.project / usual).is_file() else ""
    named = f"no {setting.flag} ({setting.variable}) was given"
    console.line(f"  note: {named}, so the example that comes with the program is run{yours}")
