"""Links that lead out of the folders that a container is given: what has to be mounted for them to work there.

A link's text means the same in the container as here: `common -> ../shared/common` in a folder that is seen at
/var/azureml-app leads to /var/shared/common there, and an absolute one to the same absolute path. So what it leads
to is mounted at that place. Of a file its folder is mounted, since an editor that saves puts another file in its place.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import stat
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..errors import UserError
from ..paths import shown
from ..project import STATE_FOLDER

#: Entries of folders that are looked at: a model of a hundred thousand files takes about a second.
MOST_ENTRIES = 300_000
#: Places that a container is given for links' sake.
MOST_PLACES = 64
#: Links that are named one by one.
_MOST_NOTES = 3
#: Folders in which nobody's code or model is.
_SKIPPED = frozenset({".git", ".hg", ".svn", "__pycache__", "node_modules", STATE_FOLDER})
#: What tells a folder to be an environment for Python, made for this machine alone.
_ENVIRONMENT = ("pyvenv.cfg", "conda-meta")
#: In a link's text: into a folder, which may be a link, and back from there.
_BACK = re.compile(r"(?:^|/)(?!\.\.?/)[^/]+/\.\.(?:/|$)")
#: The container's own, below which nothing of this machine's is put.
_TOP = frozenset({"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr"})
_VAR = frozenset({"cache", "lib", "log", "run", "runit", "spool"})
_SYSTEM = (*(f"/{name}" for name in sorted(_TOP)), *(f"/var/{name}" for name in sorted(_VAR)), "/opt/env")
#: In which something of this machine's may be, but in whose place nothing is put.
_SHARED = ("/", "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var", "/var/tmp")  # noqa: S108
#: Data that packages look for there.
_DATA = ("/usr/share", "/usr/local/share")


@dataclass(frozen=True)
class Links:
    """What links need that a container would not have.

    Attributes:
        places: Files and folders of this machine, real paths, by the place at which the container has to have them.
        notes: On links that lead to something of the container's own, or were not looked for.
    """

    places: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_outward_links(mounts: Sequence[tuple[Path, str]], own: Collection[str] = ()) -> Links:
    """Find the links in folders that lead out of all of them.

    A link that leads nowhere here, or in a circle, does so there, too, and is left alone.

    Args:
        mounts: Folders of this machine, and where a container sees each.
        own: Other places of the container that are taken.

    Raises:
        UserError: Two links would need different things at one place, or there are too many places.
    """
    return _Search(mounts, own).run()


def find_missing_path(links: Links, present: Mapping[str, str]) -> str | None:
    """What of this machine a container lacks that was made when there were other links; None where it has all."""
    return next((local for place, local in links.places.items() if _find_mounted(place, local, present) is None), None)


def _find_mounted(place: str, real: str, mounts: Mapping[str, str]) -> str | None:
    """Where mounts have something at a place, as a place without links; None where they have it not."""
    for mount in (place, *map(str, PurePosixPath(place).parents)):
        folder = mounts.get(mount)
        if folder is not None and os.path.realpath(folder + place[len(mount) :]) == real:
            return mount + real[len(folder) :] if is_below(real, [folder]) else place
    return None


class _Search:
    def __init__(self, mounts: Sequence[tuple[Path, str]], own: Collection[str]) -> None:
        self._taken = own
        self._above = frozenset(
            str(one) for place in (*own, *(place for _, place in mounts)) for one in PurePosixPath(place).parents
        )
        self._roots = [(os.path.realpath(folder), place) for folder, place in mounts]
        self._left = MOST_ENTRIES
        self._places: dict[str, str] = {}
        self._mounts = {place: folder for folder, place in self._roots}
        #: The link that each place is for, for messages.
        self._links: dict[str, str] = {}
        self._notes: list[str] = []
        self._note_count = 0
        self._reals: dict[str, str] = {}
        self._queue = deque(self._roots)
        self._seen = set(self._roots)
        home = os.path.realpath(os.path.expanduser("~"))
        self._broad = frozenset(place for root in [*self._roots, (home, "")] for place in _with_parents(root[0]))

    def run(self) -> Links:
        while self._queue and self._left > 0:
            folder, place = self._queue.popleft()
            # What leads to a folder before what leads through it to another one.
            for link in sorted(self._links_below(folder, place), key=lambda one: len(one[2])):
                self._follow_link(*link)
        if self._left <= 0:
            self._notes.append(
                f"links were looked for in the first {MOST_ENTRIES} files only; what others lead to may be missing"
            )
        if self._note_count > _MOST_NOTES:
            self._notes.append(f"so do {self._note_count - _MOST_NOTES} more")
        kept = self._outermost()
        if len(kept) > MOST_PLACES:
            folder = os.path.dirname(self._links[next(reversed(kept))])
            raise UserError(
                f"Links such as those in {shown(Path(folder))} lead to {len(kept)} places, more than the {MOST_PLACES} "
                "that a container is given.",
                "Link folders in place of files, or copy what the links lead to: cp -rL",
            )
        return Links(kept, tuple(self._notes))

    def _links_below(self, top: str, place: str) -> Iterator[tuple[str, str, str]]:
        """The links in a folder and those below it, with their texts, and where each leads in the container."""
        stack = [(top, place)]
        while stack and self._left > 0:
            folder, at = stack.pop()
            try:
                with os.scandir(folder) as entries:
                    found = [entry for entry, _ in zip(entries, range(self._left + 1), strict=False)]
            except OSError:
                continue
            self._left -= len(found)
            if folder != top and not {entry.name for entry in found}.isdisjoint(_ENVIRONMENT):
                continue
            for entry in found:
                if entry.is_symlink():
                    with contextlib.suppress(OSError):
                        text = os.readlink(entry.path)
                        yield entry.path, text, posixpath.normpath(posixpath.join(at, text))
                elif entry.name not in _SKIPPED and entry.is_dir(follow_symlinks=False):
                    stack.append((entry.path, f"{at}/{entry.name}"))

    def _follow_link(self, link: str, text: str, place: str) -> None:
        """Have what a link leads to mounted, where it is not there anyway."""
        # The folder that it lies in is a real one.
        local = os.path.normpath(os.path.join(os.path.dirname(link), text))
        around, above = posixpath.dirname(place), self._real_path(os.path.dirname(local))
        try:
            single = stat.S_ISREG(os.lstat(local).st_mode) and not _BACK.search(text)
            if single and self._mounts.get(around) == above:
                # As nearly all of a large model's.
                return
            mode = os.stat(link).st_mode
        except OSError:
            return
        real = os.path.realpath(link)
        if os.path.realpath(local) != real:
            self._add_note(link, "through another link and back from there, which a container cannot be given")
            return
        covered = _find_mounted(place, real, self._mounts)
        if covered is not None:
            if stat.S_ISDIR(mode) and not is_below(covered, [mount for _, mount in self._roots]):
                self._enqueue(real, covered)
            return
        if is_below(place, [mount for _, mount in self._roots]):
            raise self._conflict_error(link, place)
        if stat.S_ISDIR(mode):
            if self._add_place(link, place, real):
                self._enqueue(real, place)
        elif stat.S_ISREG(mode):
            if single and above not in self._broad and self._may_hold(around):
                self._add_place(link, around, above)
            else:
                self._add_place(link, place, real)

    def _real_path(self, folder: str) -> str:
        found = self._reals.get(folder)
        if found is None:
            found = self._reals[folder] = os.path.realpath(folder)
        return found

    def _enqueue(self, folder: str, place: str) -> None:
        if (folder, place) not in self._seen:
            self._seen.add((folder, place))
            self._queue.append((folder, place))

    def _add_note(self, link: str, where: str) -> None:
        self._note_count += 1
        if self._note_count <= _MOST_NOTES:
            self._notes.append(f"the link {shown(Path(link))} leads {where}")

    def _add_place(self, link: str, place: str, local: str) -> bool:
        if not self._may_hold(place):
            self._add_note(link, f"to {local}: the container has a {_system_of(place)} of its own")
            return False
        if self._places.setdefault(place, local) != local:
            raise self._conflict_error(link, place)
        self._links.setdefault(place, link)
        self._mounts[place] = local
        return True

    def _may_hold(self, place: str) -> bool:
        """Whether something of this machine may be mounted at a place of the container."""
        if place in self._above or place in (*_SHARED, *_DATA) or is_below(place, self._taken):
            return False
        return not is_below(place, _SYSTEM) or is_below(place, _DATA)

    def _conflict_error(self, link: str, place: str) -> UserError:
        other = self._links.get(place)
        because = f"where {shown(Path(other))} leads to something else" if other else "which is taken"
        return UserError(
            f"The link {shown(Path(link))} would lead to {place} in the container, {because}.",
            "Give the link an absolute path, or put a copy in its place: cp -rL",
        )

    def _outermost(self) -> dict[str, str]:
        """The places that are in no other one."""
        kept: dict[str, str] = {}
        for place in sorted(self._places):
            local, above = self._places[place], next((one for one in kept if place.startswith(f"{one}/")), None)
            if above is None:
                kept[place] = local
            elif _find_mounted(place, local, {above: kept[above]}) is None:
                raise self._conflict_error(self._links[place], place)
        return kept


def _with_parents(path: str) -> Iterator[str]:
    yield path
    yield from map(str, Path(path).parents)


def is_below(place: str, folders: Collection[str]) -> bool:
    """Whether a place is one of some folders, or in one of them."""
    return any(place == folder or place.startswith(f"{folder}/") for folder in folders)


def _system_of(place: str) -> str:
    return next((folder for folder in (*_SYSTEM, *_SHARED[1:]) if is_below(place, [folder])), place)
