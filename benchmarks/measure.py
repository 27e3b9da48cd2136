"""Times commands, and measures several sides in turn."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from workflows.errors import UserError

#: The most seconds for one command; reached only if something is broken.
LIMIT = 300.0
#: The most seconds to wait for an idle disk. On a busy machine the disk is never idle.
SETTLE_SECONDS = 20.0


def run(command: Sequence[str], cwd: Path, environ: Mapping[str, str] | None = None, *, timeout: float = LIMIT) -> str:
    """Run a command that has to succeed.

    Args:
        command: The command.
        cwd: Its working directory.
        environ: Changes of the environment.
        timeout: The most seconds that it may take.

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
            env={**usual_environment(), **(environ or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise UserError(f"{command[0]} cannot be started: {error.strerror}.", "Install it, or fix the path.") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"It took more than {timeout:g} s: {typed}", "Type it by hand to see why.") from None
    if done.returncode:
        last = (done.stdout + done.stderr).splitlines()[-20:]
        raise UserError(f"It ended with {done.returncode}: {typed}", "Its last lines are above.", details=last)
    return done.stdout


def usual_environment() -> dict[str, str]:
    """This process's environment without unusual variables of Python: byte code is written, and output buffered."""
    unusual = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
    return {name: value for name, value in os.environ.items() if name not in unusual}


def seconds(action: Callable[[], object]) -> float:
    """The seconds that an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def wait_for_idle_disk() -> None:
    """Wait until the disk is idle: what another side has written or deleted keeps it busy for seconds.

    Only Linux shows a disk's activity. On other systems, only written data is waited for.
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
    """The amounts that each disk has written and discarded so far."""
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
    """The measured values of several sides.

    Attributes:
        values: For each side, one value of each round.
        load: The machine's load before the first round and after the last one.
    """

    values: Mapping[str, list[float]]
    load: tuple[float, float]

    def ratios(self, ours: str, against: str) -> list[float]:
        """Ours divided by the other side, for each round."""
        return [mine / theirs for mine, theirs in zip(self.values[ours], self.values[against], strict=True)]

    def differences(self, ours: str, against: str) -> Samples:
        """Ours minus the other side, for each round, as the side `ours`."""
        more = [mine - theirs for mine, theirs in zip(self.values[ours], self.values[against], strict=True)]
        return Samples({"ours": more}, self.load)


def alternate(times: int, sides: Mapping[str, Callable[[], float]]) -> Samples:
    """Measure several sides in turn, so that a busy moment affects all of them.

    Every other round measures them in reverse order, so that no side always follows the same other one.

    Args:
        times: The number of rounds.
        sides: For each side, a function that measures one value.
    """
    before = load()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(times):
        for name in list(sides) if number % 2 == 0 else reversed(list(sides)):
            found[name].append(sides[name]())
    return Samples(found, (before, load()))


def concatenate(parts: Sequence[Samples]) -> Samples:
    """Several samples as one, with all their rounds."""
    sides = parts[0].values
    values = {name: [value for part in parts for value in part.values[name]] for name in sides}
    return Samples(values, (parts[0].load[0], parts[-1].load[1]))
