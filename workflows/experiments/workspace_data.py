"""Data that a run configuration names in a workspace, brought here once."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..azureml.data_references import Dataset, Place, in_workspace, parse
from ..console import Console, Step
from ..errors import UserError
from ..ignoring import MOST_WILDCARDS, has_many_wildcards
from ..interrupts import uninterrupted
from ..paths import cache_folder
from ..private import make_folder
from ..received import Refused, distinct, relative_path, sent_by
from ..settings import Settings
from ..words import in_bytes

if TYPE_CHECKING:
    from ..azureml.data import Blob, WorkspaceData

_WILD = re.compile(r"[*?]")
#: Seconds between two lines of progress.
_TOLD_EVERY = 1.0


def brought(settings: Settings, console: Console, data: Mapping[str, str]) -> dict[str, str]:
    """An experiment's data with local paths only; what lies in the workspace is fetched, or found fetched.

    Args:
        settings: Which workspace, and who signs in.
        console: Shown what is fetched.
        data: Local paths, and references to the workspace's data, by name.

    Raises:
        UserError: There is no such data, or it cannot be fetched. Nothing of it is left then.
    """
    wanted = {name: parse(text) for name, text in data.items() if in_workspace(text)}
    if not wanted:
        return dict(data)
    with console.step("data") as step:
        from ..azureml.data import WorkspaceData

        source = WorkspaceData(settings, step.detail)
        told, paths = [], {}
        with sent_by(f"The workspace {source.name}"):
            for name, one in wanted.items():
                place = source.place(one)
                if isinstance(one, Dataset):
                    step.detail(f"{name}: the dataset {one} lies at {place}")
                path, size, reused = _bring(source, place, name, step)
                paths[name] = str(path)
                told.append(f"{name} ({in_bytes(size)}, {'reused' if reused else 'fetched'})")
        step.text = ", ".join(told)
    return {**data, **paths}


def _bring(source: WorkspaceData, place: Place, name: str, step: Step) -> tuple[Path, int, bool]:
    """Where a place's content lies here, its size, and whether it had been fetched before."""
    files = _files(source, place)
    size = sum(blob.size for blob in files.values())
    root = cache_folder() / "data"
    folder = root / f"{place.datastore}-{_digest([source.name, place.datastore, place.path])}"
    listing = _digest([[inside, blob.size, blob.version] for inside, blob in files.items()])
    whole = folder / listing
    only = next(iter(files)) if _is_file(place, files) else ""
    if whole.is_dir():
        return whole / only, size, True
    try:
        make_folder(root)
        with _alone(root / f"{folder.name}.lock", step):
            if whole.is_dir():
                return whole / only, size, True
            free = shutil.disk_usage(root).free
            if size > free:
                raise UserError(
                    f"{place} has {in_bytes(size)}, and there is room for {in_bytes(free)} in {root}.",
                    "Make room, or name another folder in XDG_CACHE_HOME.",
                )
            _fetch(source, place, files, whole, _Progress(step, name, len(files), size))
    except OSError as error:
        problem = f"{place} cannot be kept in {folder}: {error.strerror or error}."
        raise UserError(problem, "See to that folder, or name another in XDG_CACHE_HOME.") from error
    return whole / only, size, False


def _fetch(source: WorkspaceData, place: Place, files: Mapping[str, Blob], whole: Path, progress: _Progress) -> None:
    """Fetch all files into a folder that has its name only once they are all there."""
    made = not whole.parent.exists()
    make_folder(whole.parent)
    for left in whole.parent.glob("*.part"):
        # Of a command that was killed; nobody else is at work here.
        shutil.rmtree(left, ignore_errors=True)
    part = whole.with_name(f"{whole.name}.part")
    try:
        for inside, blob in files.items():
            target = part / inside
            make_folder(target.parent)
            source.fetch(place.datastore, blob, target, progress.received)
            # What a script writes into it would be taken for the workspace's by the next run.
            target.chmod(0o400)
            progress.next(blob.size)
        os.replace(part, whole)
    except BaseException:
        with uninterrupted():
            shutil.rmtree(part, ignore_errors=True)
            if made:
                whole.parent.rmdir()
        raise


def _files(source: WorkspaceData, place: Place) -> dict[str, Blob]:
    """The files of a place, by their paths below it.

    Raises:
        UserError: There is none, or one has a path that cannot be one here.
    """
    wild = _WILD.search(place.path)
    if has_many_wildcards(place.path):
        raise UserError(f"{place} has more than {MOST_WILDCARDS} wildcards.", "Name a folder, or use fewer of them.")
    # Wildcards are left out of what the service is asked for, with the part of the path that they stand in.
    base = place.path[: wild.start()].rpartition("/")[0] if wild else place.path
    blobs = source.blobs(place.datastore, base)
    found = {}
    for blob in blobs:
        if not wild and blob.name == base:
            _see_path(PurePosixPath(base).name, blob, place)
            return {PurePosixPath(base).name: blob}
        if base and not blob.name.startswith(f"{base}/"):
            continue
        if wild and not re.fullmatch(_pattern(place.path), blob.name):
            continue
        inside = blob.name[len(base) :].lstrip("/")
        _see_path(inside, blob, place)
        if inside in found:
            raise Refused(f"the same file twice: {inside[:80]}")
        found[inside] = blob
    distinct(found, "a file's path")
    if not found:
        raise UserError(
            f"There is nothing at {place}.", "Correct the path; https://ml.azure.com, Data, Datastores, shows it."
        )
    return found


def _see_path(inside: str, blob: Blob, place: Place) -> None:
    """See that a file's path can be one here.

    Raises:
        UserError: It cannot.
    """
    try:
        relative_path(inside, "a file's path")
    except Refused as error:
        raise UserError(
            f"{blob.name[:200]} on the datastore {place.datastore} has a path that no file here can have.",
            "Rename it there, or name a folder without it.",
        ) from error


def _is_file(place: Place, files: Mapping[str, Blob]) -> bool:
    """Whether a place is one file rather than a folder."""
    return [blob.name for blob in files.values()] == [place.path]


def _pattern(path: str) -> str:
    """A regular expression for a path with wildcards: ``**`` goes through folders, ``*`` and ``?`` do not."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(words.get(part) or re.escape(part) for part in re.split(r"(\*\*/|\*\*|\*|\?)", path) if part)


@contextmanager
def _alone(path: Path, step: Step) -> Iterator[None]:
    """While no other command fetches the same."""
    from ..locks import hold

    # As long as it takes: what is fetched may be of any size, and the reason is on the screen.
    with hold(path, math.inf, pause=0.2, waiting=lambda: step.waiting("another command that fetches the same data")):
        yield


class _Progress:
    """How much of the data is here."""

    def __init__(self, step: Step, name: str, files: int, size: int) -> None:
        self._step, self._name, self._files, self._size = step, name, files, size
        self._done = self._bytes = 0
        self._told = time.monotonic()
        self._tell(0)

    def received(self, count: int) -> None:
        """So many bytes of the file that is being fetched are here."""
        if time.monotonic() - self._told >= _TOLD_EVERY:
            self._told = time.monotonic()
            self._tell(count)

    def next(self, size: int) -> None:
        """A file of so many bytes is here."""
        self._done, self._bytes = self._done + 1, self._bytes + size

    def _tell(self, count: int) -> None:
        of = f"{self._done} of {self._files} file{'' if self._files == 1 else 's'}"
        self._step.detail(f"{self._name}: {of}, {in_bytes(self._bytes + count)} of {in_bytes(self._size)}")


def _digest(value: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
