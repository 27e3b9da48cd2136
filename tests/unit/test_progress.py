"""What people see of a build."""

from __future__ import annotations

import pytest

from workflows.console import Console
from workflows.environments.progress import shorten_line


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Collecting flask~=3.1.0 (from server<2,>=1.5->-r /a b/requirements.txt (line 1))", "Collecting flask~=3.1.0"),
        ("Collecting debugpy", "Collecting debugpy"),
        ("  Downloading flask-3.1-py3-none-any.whl (42 kB)", "Downloading flask-3.1-py3-none-any.whl (42 kB)"),
        ("WARNING: Location 'file:///x' is ignored: it is neither a file nor a directory.", None),
        ("Looking in indexes: somewhere", None),
        ("Using Python 3.11.7 environment at: /x", None),
        ("Downloading pydantic-core (2.0MiB)", "Downloading pydantic-core (2.0MiB)"),
        (" + flask==3.1.3", "+ flask==3.1.3"),
        (" ---> 3f2c", None),
        ("Step 3/9 : RUN sh install.sh", "Step 3/9 : RUN sh install.sh"),
        ("ERROR: No matching distribution found for nothing", "ERROR: No matching distribution found for nothing"),
        ("", None),
    ],
)
def test_a_builds_steps_are_shown_without_pips_asides(line: str, shown: str | None) -> None:
    assert shorten_line(line) == shown


def test_of_a_great_many_lines_few_stay_where_the_output_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    with console.step("build") as step:
        for number in range(200):
            step.detail_sometimes(f"Collecting package {number}")
        step.detail("waiting for another build")
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["  build: Collecting package 0", "  build: waiting for another build"]
    assert len(out) == 3 and out[2].startswith("build ")
