"""A base image from Debian packages, for networks without an image registry (``inv container.base``)."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..scratch import scratch_folder

BASE_IMAGE = "azureml-debug/base:latest"
PACKAGES = ("python3", "python3-venv", "python3-pip", "runit", "ca-certificates", "procps")
CHANGES = ['CMD ["/bin/bash"]', "LABEL azureml-debug.kind=base"]
_PART = 256 * 1024
_SHOWN_LINES = 15
# mmdebstrap unmounts and removes its folder when it is told to end.
_GRACE = 20.0


def root_file_system(name: str, report: Callable[[str], None]) -> Generator[bytes, None, None]:
    """The root file system of a base image with Python and runit, made from packages of the host's apt sources.

    Args:
        name: The image's name, for the progress.
        report: Called with each line of progress.

    Returns:
        A tar archive in parts, while it is made; getting the next part may raise UserError, too.

    Raises:
        UserError: It cannot be made.
    """
    return _make_root_file_system(name, *_preconditions(), report)


def _make_root_file_system(
    name: str, program: str, codename: str, sources: list[str], report: Callable[[str], None]
) -> Generator[bytes, None, None]:
    with scratch_folder() as folder:
        listing = folder / "base.sources"
        listing.write_text("\n".join(sources), "utf-8")
        command = [program, "--variant=apt", f"--include={','.join(PACKAGES)}", "--format=tar"]
        # Documentation and man pages are a third of the size.
        command += ["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"]
        command += [codename, "-", str(listing)]
        report(f"making {name} from the {codename} packages of this machine's apt sources")
        yield from _archive(command, report)


def _preconditions() -> tuple[str, str, list[str]]:
    """The path of mmdebstrap, the release's codename, and its apt sources."""
    from .apt_sources import DISTRIBUTIONS, archive_sources, os_release

    release = os_release()
    distribution, codename = release.get("ID", ""), release.get("VERSION_CODENAME", "")
    if distribution not in DISTRIBUTIONS or not codename:
        raise UserError(
            f"A base image can only be made on Debian or Ubuntu; this is {release.get('PRETTY_NAME') or os.name}.",
            "Name an image that is here in AML_BASE_IMAGE, or make one on such a machine and `docker save` it.",
        )
    program = shutil.which("mmdebstrap")
    if program is None:
        raise UserError("mmdebstrap is not installed.", "Install it: `sudo apt-get install mmdebstrap`.")
    if os.geteuid() != 0 and (shutil.which("unshare") is None or shutil.which("newuidmap") is None):
        raise UserError(
            "mmdebstrap needs root, or user namespaces, and there is no newuidmap here.",
            "Install it (`sudo apt-get install uidmap`), or run the same command as root.",
        )
    sources = archive_sources(distribution, codename)
    if not sources:
        raise UserError(
            f"This machine's apt sources have no entry for {codename} of {release.get('NAME', distribution)}.",
            "Add one to /etc/apt/sources.list.d, then run the same command again.",
        )
    return program, codename, sources


def _archive(command: list[str], report: Callable[[str], None]) -> Iterator[bytes]:
    """The root file system while it is made. A failure raises before the end, so that the engine imports nothing."""
    from .processes import running_command

    lines = deque[str](maxlen=200)
    with running_command(command, grace=_GRACE, merge=False) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=_read_lines, args=(process.stderr, lines, report), daemon=True)
        reader.start()
        while part := process.stdout.read(_PART):
            yield part
        code = process.wait()
        reader.join(timeout=5)
        if code != 0:
            raise _failed(code, list(lines))


def _read_lines(stream: Any, lines: deque[str], report: Callable[[str], None]) -> None:
    for raw in stream:
        # Progress bars end in carriage returns; keep only their last state.
        line = raw.decode("utf-8", "replace").rstrip().rpartition("\r")[2].strip()
        if line:
            lines.append(line)
            report(line)


def _failed(code: int, lines: list[str]) -> UserError:
    from .. import storage

    if (number := storage.find_disk_error(lines)) is not None:
        return storage.full_disk(Path(tempfile.gettempdir()), number)
    reason = next((line for line in reversed(lines) if line.startswith("E: ")), f"exit code {code}")
    return UserError(
        f"mmdebstrap failed: {reason.removeprefix('E: ').rstrip('.')}.",
        "See that `sudo apt-get update` works here, then run the same command again.",
        details=lines[-_SHOWN_LINES:],
    )
