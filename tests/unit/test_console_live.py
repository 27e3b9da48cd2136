"""What a step shows while it runs: on a terminal of any width, and where the output is none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from workflows.console import LINE_CHARACTERS, Console

if sys.platform == "win32":
    pytest.skip("there are no such terminals", allow_module_level=True)

import fcntl
import pty
import struct
import termios

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys, time
from workflows import console
console.AGE_SECONDS = 1.0
with console.Console(as_json={as_json}).step("build") as step:
    step.detail_sometimes("{line}")
    time.sleep(3.5)
"""


def seen_on_a_terminal(columns: int, line: str, as_json: bool = False) -> list[str]:
    """What a terminal is told to show, one text for each time that the line is drawn."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "CI")}
    streams = {"stdin": theirs, "stderr": theirs, "stdout": subprocess.DEVNULL if as_json else theirs}
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(line=line, as_json=as_json)],
        cwd=ROOT,
        env={**environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
        **streams,  # type: ignore[call-overload]
    )
    os.close(theirs)
    data = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other side has closed it
            break
        if not piece:
            break
        data += piece
    os.close(ours)
    assert child.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode())
    return [one for one in re.split(r"[\r\n]+", text) if one.strip()]


@pytest.mark.parametrize("columns", [40, 100, 200])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_terminal_shows_the_time_and_the_age_of_the_line_in_its_own_width(columns: int, as_json: bool) -> None:
    drawn = [one for one in seen_on_a_terminal(columns, "Collecting " + "x" * 300, as_json) if "Collecting" in one]
    assert max(map(len, drawn)) == columns
    seconds = [int(found[1]) for one in drawn if (found := re.search(r"build (\d+) s ", one))]
    # A busy machine may leave a second out.
    assert seconds == sorted(seconds) and len(set(seconds)) > 2 and seconds[-1] >= 3
    assert seconds[0] > 1 or "(for" not in drawn[0]
    assert drawn[-1].endswith("s)") and "… (for" in drawn[-1]


def test_wide_characters_are_not_cut_in_half_nor_wrapped() -> None:
    drawn = [one for one in seen_on_a_terminal(40, "\u5909" * 60) if "\u5909" in one]
    assert max(len(one) + one.count("\u5909") for one in drawn) <= 40


def test_where_the_output_is_no_terminal_long_lines_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    with console.step("build") as step:
        step.detail_sometimes("gcc " + "-I/somewhere " * 500)
        step.detail("short")
    out = capsys.readouterr().out.splitlines()
    assert len(out[0]) == len("  build: ") + LINE_CHARACTERS and out[0].endswith("…")
    assert out[1] == "  build: short"
