"""The log of an image build, and a journal of the images and containers that builds have made."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from pathlib import Path

from .. import process_identity as identity
from ..environments.pip_failures import is_disk_full

_STEP = re.compile(r"^Step \d+/\d+ : (?P<instruction>\w+)\s*(?P<rest>.*)$")
_IMAGE = re.compile(r"^ ---> ([0-9a-f]{12,64})$")
_CONTAINER = re.compile(r"^ ---> Running in ([0-9a-f]{12,64})$")
_KEPT_LINES = 2000
_SHOWN_LINES = 15


class Log:
    """The log of a build, with the images and containers that it names.

    Attributes:
        lines: The last lines.
        instruction: The instruction that was begun last, in capitals; empty before the first.
        rest: That instruction's arguments.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self.lines = deque[str](maxlen=_KEPT_LINES)
        self._journal = journal
        self.images = list[str]()
        self.base_images = set[str]()  # images that a FROM names
        self.containers = list[str]()
        self.instruction, self.rest = "", ""

    def add(self, line: str) -> None:
        """Add the next line."""
        self.lines.append(line)
        if step := _STEP.match(line):
            self.instruction, self.rest = step["instruction"].upper(), step["rest"]
        elif container := _CONTAINER.match(line):
            self.containers.append(container.group(1))
            self._keep("container", container.group(1))
        elif image := _IMAGE.match(line):
            if self.instruction == "FROM":
                self.base_images.add(image.group(1))
            else:
                self.images.append(image.group(1))
                self._keep("image", image.group(1))

    def _keep(self, kind: str, number: str) -> None:
        if self._journal is not None:
            self._journal.add(kind, number)

    @property
    def shown(self) -> list[str]:
        """The last lines, without those that name images and containers."""
        return [line for line in self.lines if not line.startswith(" --->")][-_SHOWN_LINES:]

    @property
    def step(self) -> str:
        """The instruction that was begun last, for a message."""
        return f"{self.instruction} {self.rest}".strip()[:80] or "its beginning"

    @property
    def image(self) -> str:
        """The image that the last instruction begins with or copies from; empty where there is none."""
        arguments = [part for part in self.rest.split() if not part.startswith("--")]
        if self.instruction == "FROM" and arguments:
            return arguments[0]
        taken = re.match(r"--from=(\S+)", self.rest)
        return taken[1] if self.instruction == "COPY" and taken else ""

    def disk_full(self, failure: str) -> bool:
        """Whether a build failed because the engine's disk is full."""
        return any(map(is_disk_full, [failure, *list(self.lines)[-50:]]))


class Journal:
    """Images and containers that running builds have made, in one file for each process.

    The next build finds the files of processes that were killed, and removes what they left.

    Args:
        cache: The program's cache folder.
    """

    def __init__(self, cache: Path) -> None:
        self._folder = cache / "builds"
        self._path = self._folder / identity.process_mark()
        self._left = [path for path in self._folder.glob("*") if identity.is_leftover(path.name)]

    def left(self) -> list[tuple[str, str]]:
        """Kind and id of the images and containers that killed builds have left, oldest first."""
        found = list[tuple[str, str]]()
        for path in self._left:
            with contextlib.suppress(OSError, ValueError):
                found += [(kind, number) for kind, number in map(str.split, path.read_text("ascii").splitlines())]
        return found

    def add(self, kind: str, number: str) -> None:
        """Note an image or a container."""
        # The journal only matters if this process is killed: a full disk must not make the build fail.
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="ascii") as file:
                file.write(f"{kind} {number}\n")

    def close(self) -> None:
        """Remove the files: nothing of these builds is left."""
        for path in (*self._left, self._path):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
