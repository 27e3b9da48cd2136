"""Facts about this machine, and the content and digests of its files."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from typing import Any

from . import machine
from .following import CHUNK
from .machine import cache_folder, expand_folder
from .wire import Wire, open_regular_file


def nearest_existing_folder(folder: str) -> str:
    """A folder, or the nearest existing folder above it."""
    place = os.path.realpath(expand_folder(folder))
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    return place


def collect_facts(folder: str) -> dict[str, Any]:
    """What `remote.check` shows about this machine."""
    place = nearest_existing_folder(folder)
    usage = shutil.disk_usage(place)
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401

        can_make = True
    except ImportError:
        can_make = False
    return {
        "free": usage.free,
        "total": usage.total,
        "place": place,
        "writable": os.access(place, os.W_OK),
        "venv": can_make,
        "pythons": machine.UNUSABLE_PYTHONS,
        "docker": _docker_state(),
        "sdk": _find_sdk_version(),
        "git": shutil.which("git") is not None,
    }


def _docker_state() -> dict[str, Any]:
    if shutil.which("docker") is None:
        return {"state": "missing"}
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"state": "silent", "word": str(error)}
    if done.returncode:
        word = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
        return {"state": "refused" if "permission denied" in word else "silent", "word": word}
    return {"state": "answers", "version": done.stdout.strip()}


def _find_sdk_version() -> str:
    """The version of azureml-core in one of this machine's environments; empty if none was found."""
    import glob

    homes = ["/anaconda/envs/*", os.path.join(cache_folder(), "program", "*"), sys.prefix]
    for home in homes:
        for path in glob.glob(os.path.join(home, "lib", "python3*", "site-packages", "azureml_core-*.dist-info")):
            return os.path.basename(path).removeprefix("azureml_core-").removesuffix(".dist-info")
    return ""


def send_files(wire: Wire, paths: list[str]) -> None:
    """Send files as they are, one after the other."""
    for path in paths:
        with open_regular_file(path) as file:
            seen = os.fstat(file.fileno())
            wire.send(size=seen.st_size, mode=stat.S_IMODE(seen.st_mode))
            left = seen.st_size
            while left > 0:
                # A file that is truncated meanwhile is padded to the announced length.
                data = file.read(min(CHUNK, left)) or b"\0" * min(CHUNK, left)
                wire.send_frame(b"D", data)
                left -= len(data)


def file_digest(path: str) -> str:
    """The SHA-256 digest of a file in hex; empty if there is no such file."""
    import hashlib

    try:
        with open_regular_file(path) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""
