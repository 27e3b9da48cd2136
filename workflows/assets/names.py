"""Finds the local file of an asset by its registered name: ``azureml:NAME@latest`` or ``azureml:NAME:VERSION``.

A workspace has components, data, environments and models by name. Their files are usually in the same repository, and
have the name and version under which they were registered as ``name:`` and ``version:``.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..ignore_files import read_patterns
from ..paths import shown
from ..pipelines.yaml_file import Value, read_yaml, refuse
from ..reading import read_bytes
from .kinds import SUFFIXES, Kind, kind_of

#: Limits of the search: a project may have a data set of a million files in it.
MOST_ENTRIES, MOST_IN_FOLDER, MOST_FILES = 100_000, 5_000, 5_000
#: Larger files are not read: nobody writes such a file by hand.
_MOST_BYTES = 256 * 1024
_NEVER = frozenset({"node_modules", "__pycache__", "site-packages", "outputs", "mlruns"})
#: Names that mark a folder as a virtual environment, or as one of conda's.
_ENVIRONMENTS = ("pyvenv.cfg", "conda-meta")
_NAME = re.compile(rb"^name[ \t]*:[ \t]*(.*)$", re.MULTILINE)
_COLLECTIONS = "components|environments|models|data|codes"
_ID = re.compile(
    rf"azureml:/+(?:.*?/)?(?P<collection>{_COLLECTIONS})/(?P<name>[^/]+)"
    r"(?:/(?:versions/(?P<version>[^/]+)|labels/(?P<label>[^/]+)))?/?$",
    re.IGNORECASE,
)
_SHORT = re.compile(
    r"(?P<prefix>azureml:)?(?P<name>[A-Za-z0-9][\w.-]*)(?::(?P<version>[\w.-]+)|@(?P<label>[\w.-]+))?$", re.ASCII
)


@dataclass(frozen=True)
class AssetName:
    """A registered name.

    Attributes:
        text: As it is written.
        name: The asset's name.
        version: Its version; empty where any version fits.
        label: ``latest``, or another label; empty where there is none.
        registry: Whether it is in a registry.
    """

    text: str
    name: str
    version: str = ""
    label: str = ""
    registry: bool = False


def parse_name(text: str) -> AssetName | None:
    """Parse a registered name; None for a path, an address, or a name with neither ``azureml:`` nor a version."""
    text = text.strip()
    found = _ID.match(text)
    if found is not None:
        registry = text.lower().startswith("azureml://registries/")
        return AssetName(text, found["name"], found["version"] or "", found["label"] or "", registry)
    found = _SHORT.match(text)
    if found is None or not (found["prefix"] or found["version"] or found["label"]):
        return None
    return AssetName(text, found["name"], found["version"] or "", found["label"] or "")


@dataclass(frozen=True)
class Candidate:
    """A file with the requested name.

    Attributes:
        file: The file.
        version: Its version; empty where it has none.
    """

    file: Path
    version: str


@dataclass
class LocalAssets:
    """Finds files by the names in them. The folders are searched when the first name is needed.

    Attributes:
        folders: The folders to search recursively: a project's, and that of the file that has the name.
        notes: The file that was used for each name, one line each.
    """

    folders: tuple[Path, ...]
    notes: list[str] = field(default_factory=list)
    _index: dict[str, list[Path]] | None = None
    _found: dict[tuple[str, tuple[str, ...]], Path | None] = field(default_factory=dict)

    def find(self, text: str, kinds: Collection[Kind], place: Value) -> Path | None:
        """The file with a registered name.

        Args:
            text: The name, such as ``azureml:train@latest``.
            kinds: The kinds of file that fit.
            place: The value with the name, for the place of an error.

        Returns:
            The file; None where the text is not a registered name, or no file has it.

        Raises:
            UserError: Several files have the name and the same version.
        """
        requested = parse_name(text)
        if requested is None:
            return None
        key = (requested.text, tuple(sorted(kind.name for kind in kinds)))
        if key not in self._found:
            self._found[key] = self._choose(requested, self.candidates(requested.name, kinds), place)
        file = self._found[key]
        note = f"`{requested.text}` is {shown(file)} here" if file is not None else ""
        if note and note not in self.notes:
            self.notes.append(note)
        return file

    def candidates(self, name: str, kinds: Collection[Kind]) -> list[Candidate]:
        """All files with a name, of any version."""
        if self._index is None:
            self._index = _index_names(self.folders)
        found = []
        for file in self._index.get(name, ()):
            root = _read(file)
            if root is None or str(getattr(root.get("name"), "data", "")) != name or kind_of(root) not in kinds:
                continue
            version = root.get("version")
            found.append(Candidate(file, str(version.data) if version is not None else ""))
        return found

    def _choose(self, requested: AssetName, found: list[Candidate], place: Value) -> Path | None:
        if requested.version:
            # A file without a version gets the next one each time it is registered, so it may be any version.
            fitting = [one for one in found if one.version == requested.version]
            fitting = fitting or [one for one in found if not one.version]
        else:
            highest = max((_version_key(one.version) for one in found), default=())
            fitting = [one for one in found if _version_key(one.version) == highest]
        if len(fitting) > 1:
            first, second = fitting[:2]
            version = f", version {first.version}" if first.version else ""
            raise refuse(
                place,
                f"`{requested.text}` is several files here: {shown(first.file)} and {shown(second.file)} have that name"
                f"{version}.",
                "Name the file that is meant in its place, or give each another `version`.",
            )
        return fitting[0].file if fitting else None


def _version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key of versions: 10 comes after 9, 2024-01-01 after 3, and no version before all others."""
    parts = re.findall(r"\d+|[^\W\d_]+", version)
    return tuple((1, int(part), "") if part.isdecimal() and len(part) < 20 else (0, 0, part) for part in parts)


def _read(file: Path) -> Value | None:
    try:
        return read_yaml(file, "file")
    except UserError:  # not valid YAML, such as a template
        return None


def _index_names(folders: Collection[Path]) -> dict[str, list[Path]]:
    """Files by the value of ``name:`` at the beginning of a line."""
    index: dict[str, list[Path]] = {}
    for file in _list_yaml_files(folders):
        try:
            text = read_bytes(file, _MOST_BYTES)
        except OSError:
            continue
        match = _NAME.search(text.removeprefix(b"\xef\xbb\xbf"))
        if match is None:
            continue
        name = re.sub(r"\s+#.*", "", match[1].decode("utf-8", "replace").strip()).strip("'\" ")
        index.setdefault(name, []).append(file)
    return index


def _list_yaml_files(folders: Collection[Path]) -> Iterator[Path]:
    """The YAML files below folders, each once and the upper ones first, within the limits."""
    seen: set[str] = set()
    entries = files = 0
    for top in folders:
        ignored = _Ignored(top)
        waiting = deque([str(top)])
        while waiting and entries < MOST_ENTRIES:
            folder = waiting.popleft()
            real = os.path.realpath(folder)
            if real in seen:
                continue
            seen.add(real)
            found = _list_folder(folder)
            entries += len(found)
            if any(entry.name in _ENVIRONMENTS for entry in found):
                continue
            for entry in sorted(found, key=lambda entry: entry.name):
                below = entry.is_dir(follow_symlinks=False)
                if below and not entry.name.startswith(".") and entry.name not in _NEVER:
                    if not ignored(entry.path, folder=True):
                        waiting.append(entry.path)
                elif not below and entry.name.lower().endswith(SUFFIXES) and not ignored(entry.path):
                    files += 1
                    if files > MOST_FILES:
                        return
                    yield Path(entry.path)


def _list_folder(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder; none where there are too many (then it is a data set), or it cannot be read."""
    try:
        with os.scandir(folder) as found:
            entries = list(itertools.islice(found, MOST_IN_FOLDER + 1))
    except OSError:
        return []
    return entries if len(entries) <= MOST_IN_FOLDER else []


class _Ignored:
    """Matches the files that `.amlignore` excludes: these are not sent to a workspace, so not registered."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spec = None
        if (folder / ".amlignore").is_file():
            from pathspec import GitIgnoreSpec

            self._spec = GitIgnoreSpec.from_lines(read_patterns(folder / ".amlignore"))

    def __call__(self, full: str, *, folder: bool = False) -> bool:
        if self._spec is None:
            return False
        path = os.path.relpath(full, self._folder).replace(os.sep, "/")
        return self._spec.match_file(f"{path}/" if folder else path)
