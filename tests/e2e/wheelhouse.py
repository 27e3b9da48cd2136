"""Packages on disk, so that pip works on the tests' remote hosts, which have no network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock
from projects import ROOT

#: The Python of the remote hosts: the distribution's.
PYTHON = "/usr/bin/python3"
_READ = """
import json, sys, tomllib
with open(sys.argv[1], "rb") as file:
    table = tomllib.load(file)
project = table["project"]
tests = [line for line in project["optional-dependencies"]["test"] if line.startswith("debugpy")]
json.dump([sys.version, project["dependencies"] + table["build-system"]["requires"] + tests], sys.stdout)
"""


def make_wheelhouse(cache: Path) -> Path:
    """A folder with wheels of all that a remote host may want to install; made once, with this host's own pip settings.

    Args:
        cache: Where to keep it.
    """
    read = subprocess.run(
        [PYTHON, "-c", _READ, str(ROOT / "pyproject.toml")], check=True, stdout=subprocess.PIPE, text=True
    )
    version, wanted = json.loads(read.stdout)
    wanted += ["pip", "setuptools", "wheel"]
    for name in ("inference", "training"):
        lines = (ROOT / "env" / name / "requirements.txt").read_text().splitlines()
        wanted += [line for line in lines if line and not line.startswith("#")]
    constraint = os.environ.get("PIP_CONSTRAINT")
    pinned = Path(constraint).read_text() if constraint else ""
    key = hashlib.sha256(json.dumps([version, sorted(wanted), pinned]).encode()).hexdigest()[:16]
    folder = cache / "wheelhouse" / key
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if folder.exists():
            return folder
        work = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            subprocess.run([PYTHON, "-m", "venv", str(work / "venv")], check=True)
            wheels = work / "wheels"
            made = subprocess.run(
                [str(work / "venv" / "bin" / "pip"), "wheel", "--quiet", "--wheel-dir", str(wheels), *wanted],
                capture_output=True,
                text=True,
            )
            assert made.returncode == 0, made.stderr
            wheels.chmod(0o755)
            for wheel in wheels.iterdir():
                wheel.chmod(0o644)
            os.replace(wheels, folder)
        finally:
            shutil.rmtree(work)
    return folder
