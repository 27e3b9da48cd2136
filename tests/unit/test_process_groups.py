"""Ending the processes of a service or a step."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from workflows.engines.process import end_groups

#: Ends in three parts, which together take longer than the grace, and notes that it is over.
SLOW_END = "trap 'sleep 1.2; sleep 1.2; sleep 1.2; : >ended; exit 0' TERM; : >ready; while :; do sleep 0.05; done"


def test_what_ends_one_after_the_other_is_not_killed_meanwhile(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sh", "-c", SLOW_END], cwd=tmp_path, start_new_session=True) as child:
        while not (tmp_path / "ready").exists():
            assert child.poll() is None
            time.sleep(0.02)
        end_groups([child.pid], grace=3)
        assert child.wait() == 0 and (tmp_path / "ended").exists()


def test_what_does_not_end_is_killed(tmp_path: Path) -> None:
    command = "trap '' TERM; : >ready; exec sleep 600"
    with subprocess.Popen(["/bin/sh", "-c", command], cwd=tmp_path, start_new_session=True) as child:
        while not (tmp_path / "ready").exists():
            assert child.poll() is None
            time.sleep(0.02)
        end_groups([child.pid], grace=0.2)
        assert child.wait() == -9
