"""Finding the snapshots of a run or a service, and choosing one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..sessions import SNAPSHOTS
from .model import Snapshot
from .snapshot_file import read_snapshot

#: The file names that the writer uses.
PATTERN = SNAPSHOTS
_PARTIAL = ".snapshot-*.partial"
#: Folders of a step that hold its logs.
LOG_FOLDERS = ("logs", "azureml-logs", "user_logs")
#: Files that are read at most: a script may write any number of them.
MOST_FILES = 1000


@dataclass
class FoundSnapshots:
    """The snapshots that were found.

    Attributes:
        snapshots: Those that can be read, in order of failure.
        unreadable: The errors of the others.
    """

    snapshots: list[Snapshot] = field(default_factory=list)
    unreadable: list[UserError] = field(default_factory=list)


def files_in(folders: Iterable[Path]) -> list[Path]:
    """The snapshots' files in some folders, sorted by name."""
    found: list[Path] = []
    for folder in folders:
        try:
            found += sorted(path for path in folder.glob(PATTERN) if path.is_file())
        except OSError:
            continue
    return found[:MOST_FILES]


def files_of_step(folder: Path) -> list[Path]:
    """The snapshots' files of a step.

    Args:
        folder: The step's own folder.
    """
    return files_in(folder / name for name in LOG_FOLDERS)


def was_cut_off(folder: Path) -> bool:
    """Whether a process of a step was killed while it wrote a snapshot, which leaves a partial file.

    Args:
        folder: The step's own folder.
    """
    return any(any((folder / name).glob(_PARTIAL)) for name in LOG_FOLDERS)


def load_snapshots(files: Iterable[Path]) -> FoundSnapshots:
    """Read all files; errors are collected."""
    kept = FoundSnapshots()
    for path in files:
        try:
            kept.snapshots.append(read_snapshot(path))
        except UserError as error:
            kept.unreadable.append(error)
    kept.snapshots.sort(key=lambda one: (one.time, one.rank))
    return kept


def choose_snapshot(
    kept: FoundSnapshots, rank: int | None, number: int | None, what: str, latest: bool = False
) -> Snapshot:
    """Choose a snapshot: by default the one that failed first.

    Args:
        kept: All of them, at least one.
        rank: The rank; None for any.
        number: Its number in the list, counted from 1; None for any.
        what: What has left them, for messages.
        latest: Choose the latest instead of the first.

    Raises:
        UserError: There is no such snapshot, or none can be read.
    """
    if not kept.snapshots:
        raise kept.unreadable[0]
    if number is not None:
        if not 1 <= number <= len(kept.snapshots):
            raise UserError(
                f"There is no snapshot {number}: {what} has {len(kept.snapshots)}.", "They are listed by: --list"
            )
        return kept.snapshots[number - 1]
    fitting = [one for one in kept.snapshots if rank in (None, one.rank)]
    if fitting:
        return fitting[-1 if latest else 0]
    ranks = ", ".join(str(one) for one in ranks_of(kept.snapshots))
    raise UserError(f"Rank {rank} of {what} has left no snapshot.", f"There are some of rank {ranks}: --rank N")


def ranks_of(snapshots: Sequence[Snapshot]) -> list[int]:
    """The ranks that have left a snapshot."""
    return sorted({one.rank for one in snapshots})
