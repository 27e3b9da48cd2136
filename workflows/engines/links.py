"""Symbolic links that lead out of a container's mounted folders, and what else has to be mounted for them to work.

A link's text means the same in the container as here: `common -> ../shared/common` in a folder that is mounted at
/var/azureml-app leads to /var/shared/common there, and an absolute link to the same absolute path. So the link's target
is mounted at that path. For a file its folder is mounted, since an editor that saves a file replaces it.
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

#: Folder entries that are inspected at most; 100,000 files take about a second.
MOST_ENTRIES = 300_000
#: Mounts of link targets at most.
MOST_PLACES = 64
#: Links that get a note of their own at most.
_MOST_NOTES = 3
#: Folders that are not searched: no code or model is in them.
_SKIPPED = frozenset({".git", ".hg", ".svn", "__pycache__", "node_modules", STATE_FOLDER})
#: Names that mark a folder as a Python environment, which works on this machine only.
_ENVIRONMENT = ("pyvenv.cfg", "conda-meta")
#: In a link's text, `NAME/..`: into a folder, which may be a link itself, and back.
_BACK = re.compile(r"(?:^|/)(?!\.\.?/)[^/]+/\.\.(?:/|$)")
#: Folders of the container's system, below which nothing is mounted.
_TOP = frozenset({"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr"})
_VAR = frozenset({"cache", "lib", "log", "run", "runit", "spool"})
_SYSTEM = (*(f"/{name}" for name in sorted(_TOP)), *(f"/var/{name}" for name in sorted(_VAR)), "/opt/env")
#: Folders in which something may be mounted, but which are not replaced themselves.
_SHARED = ("/", "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var", "/var/tmp")  # noqa: S108
#: Folders below /usr in which data may be mounted: packages look for it there.
_DATA = ("/usr/share", "/usr/local/share")


@dataclass(frozen=True)
class Links:
    """Link targets that a container needs.

    Attributes:
        places: Real paths of files and folders on this machine, by the path at which the container has to have them.
        notes: Notes on links that lead to the container's own folders, and on folders that were not searched.
    """

    places: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_outward_links(mounts: Sequence[tuple[Path, str]], own: Collection[str] = ()) -> Links:
    """Find the links in folders that lead out of all of them.

    A link that is broken or circular here is left as it is.

    Args:
        mounts: Folders of this machine, and where each is mounted in the container.
        own: Other paths of the container that are taken.

    Raises:
        UserError: Two links need different targets at one path, or there are too many targets.
    """
    return _Search(mounts, own).run()


def find_missing_path(links: Links, present: Mapping[str, str]) -> str | None:
    """A link target that a container lacks because links have changed since it was created; None where it has all."""
    return next((local for place, local in links.places.items() if _find_mounted(place, local, present) is None), None)


def _find_mounted(place: str, real: str, mounts: Mapping[str, str]) -> str | None:
    """The path without links at which mounts provide a file; None where they do not have it at ``place``."""
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
            # Links to a folder come before links through it to other folders.
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
        """The links in a folder and below it, each with its text and the path in the container that it leads to."""
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
        """Mount the target of a link, unless the container has it already."""
        # The folder that the link is in has no links in its path.
        local = os.path.normpath(os.path.join(os.path.dirname(link), text))
        around, above = posixpath.dirname(place), self._real_path(os.path.dirname(local))
        try:
            single = stat.S_ISREG(os.lstat(local).st_mode) and not _BACK.search(text)
            if single and self._mounts.get(around) == above:
                # The shortest way out for nearly all links of a large model.
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
        """Whether something may be mounted at a path of the container."""
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
        """The places that are not inside another one."""
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
    """Whether a path is one of some folders, or inside one of them."""
    return any(place == folder or place.startswith(f"{folder}/") for folder in folders)


def _system_of(place: str) -> str:
    return next((folder for folder in (*_SYSTEM, *_SHARED[1:]) if is_below(place, [folder])), place)
