"""What else is asked: facts about this machine, files, digests."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from typing import Any

from . import machine
from .following import CHUNK
from .machine import cache, named_folder
from .wire import Wire, open_plain


def nearest(folder: str) -> str:
    """A folder, or the one above it that there is."""
    place = os.path.realpath(named_folder(folder))
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    return place


def facts(folder: str) -> dict[str, Any]:
    """What `remote.check` wants to know of this machine."""
    place = nearest(folder)
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
        "pythons": machine.PYTHONS,
        "docker": _docker(),
        "sdk": _sdk(),
        "git": shutil.which("git") is not None,
    }


def _docker() -> dict[str, Any]:
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


def _sdk() -> str:
    """The version of azureml-core that this machine's environments have; empty where none was found."""
    import glob

    homes = ["/anaconda/envs/*", os.path.join(cache(), "program", "*"), sys.prefix]
    for home in homes:
        for path in glob.glob(os.path.join(home, "lib", "python3*", "site-packages", "azureml_core-*.dist-info")):
            return os.path.basename(path).removeprefix("azureml_core-").removesuffix(".dist-info")
    return ""


def send_files(wire: Wire, paths: list[str]) -> None:
    """Send files as they are, one after the other."""
    for path in paths:
        with open_plain(path) as file:
            seen = os.fstat(file.fileno())
            wire.say(size=seen.st_size, mode=stat.S_IMODE(seen.st_mode))
            left = seen.st_size
            while left > 0:
                # One that is cut meanwhile keeps the length that was promised.
                data = file.read(min(CHUNK, left)) or b"\0" * min(CHUNK, left)
                wire.frame(b"D", data)
                left -= len(data)


def digest(path: str) -> str:
    """Hex digest of a file; empty where there is none."""
    import hashlib

    try:
        with open_plain(path) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""
