"""Timing whole commands, several sides in turn."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from workflows.errors import UserError

#: Seconds for one command; only reached when something is broken.
LIMIT = 300.0
#: Seconds that the disk may take to come to rest; a machine on which others work never does.
SETTLE_SECONDS = 20.0


def run(command: Sequence[str], cwd: Path, environ: Mapping[str, str] | None = None, *, timeout: float = LIMIT) -> str:
    """Run a command that has to work.

    Args:
        command: What to run.
        cwd: Where.
        environ: What to change in the environment.
        timeout: Seconds that it may take.

    Returns:
        Its standard output.

    Raises:
        UserError: It cannot be started, fails, or takes too long.
    """
    typed = " ".join(command)
    try:
        done = subprocess.run(
            list(command),
            cwd=cwd,
            env={**usual(), **(environ or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise UserError(f"{command[0]} cannot be started: {error.strerror}.", "Install it, or mend the path.") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"It took more than {timeout:g} s: {typed}", "Type it by hand to see why.") from None
    if done.returncode:
        last = (done.stdout + done.stderr).splitlines()[-20:]
        raise UserError(f"It ended with {done.returncode}: {typed}", "Its last lines are above.", details=last)
    return done.stdout


def usual() -> dict[str, str]:
    """This process's environment without what no person has set: Python writes byte code, and buffers its output."""
    unusual = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
    return {name: value for name, value in os.environ.items() if name not in unusual}


def seconds(action: Callable[[], object]) -> float:
    """How long an action takes, in seconds."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def settle() -> None:
    """Wait until the disk has come to rest: what another side has written or deleted is on its way for seconds.

    Only Linux tells; elsewhere what has been written is waited for.
    """
    if hasattr(os, "sync"):
        os.sync()
    deadline = time.monotonic() + SETTLE_SECONDS
    before = _disk_work()
    while time.monotonic() < deadline:
        time.sleep(1.0)
        now = _disk_work()
        if now == before:
            return
        before = now


def _disk_work() -> list[tuple[str, str]]:
    """How much each disk has written and discarded so far."""
    # Source: the kernel's documentation, "I/O statistics fields".
    try:
        lines = Path("/proc/diskstats").read_text().splitlines()
    except OSError:
        return []
    rows = [line.split() for line in lines]
    return [(row[7], row[14]) for row in rows if len(row) > 14]


def load() -> float:
    """The machine's load average of the last minute."""
    return round(psutil.getloadavg()[0], 2)


@dataclass(frozen=True)
class Samples:
    """What several sides took in turn.

    Attributes:
        values: Of each side, one value of each round.
        load: The machine's load before the first round and after the last one.
    """

    values: Mapping[str, list[float]]
    load: tuple[float, float]

    def ratios(self, ours: str, against: str) -> list[float]:
        """Ours by the other's, of each round."""
        return [mine / theirs for mine, theirs in zip(self.values[ours], self.values[against], strict=True)]

    def differences(self, ours: str, against: str) -> Samples:
        """What ours took more than the other, of each round, as the side `ours`."""
        more = [mine - theirs for mine, theirs in zip(self.values[ours], self.values[against], strict=True)]
        return Samples({"ours": more}, self.load)


def alternate(times: int, sides: Mapping[str, Callable[[], float]]) -> Samples:
    """Measure several sides in turn, so that a busy moment meets all of them.

    Every other round goes through them backwards: none is always the one after the same other.

    Args:
        times: Rounds.
        sides: What gives one value of a side.
    """
    before = load()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(times):
        for name in list(sides) if number % 2 == 0 else reversed(list(sides)):
            found[name].append(sides[name]())
    return Samples(found, (before, load()))


def joined(parts: Sequence[Samples]) -> Samples:
    """The rounds of several, one after the other."""
    sides = parts[0].values
    values = {name: [value for part in parts for value in part.values[name]] for name in sides}
    return Samples(values, (parts[0].load[0], parts[-1].load[1]))
