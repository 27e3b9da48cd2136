"""What people see of a build."""

from __future__ import annotations

import pytest

from workflows.environments.progress import brief


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Collecting flask~=3.1.0 (from server<2,>=1.5->-r /a b/requirements.txt (line 1))", "Collecting flask~=3.1.0"),
        ("Collecting debugpy", "Collecting debugpy"),
        ("  Downloading flask-3.1-py3-none-any.whl (42 kB)", "Downloading flask-3.1-py3-none-any.whl (42 kB)"),
        ("WARNING: Location 'file:///x' is ignored: it is neither a file nor a directory.", None),
        ("Looking in indexes: somewhere", None),
        (" ---> 3f2c", None),
        ("Step 3/9 : RUN sh install.sh", "Step 3/9 : RUN sh install.sh"),
        ("ERROR: No matching distribution found for nothing", "ERROR: No matching distribution found for nothing"),
        ("", None),
    ],
)
def test_a_builds_steps_are_shown_without_pips_asides(line: str, shown: str | None) -> None:
    assert brief(line) == shown
