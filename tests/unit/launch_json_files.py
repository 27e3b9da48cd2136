"""What the tests of launch.json share."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workflows.debugger.launch_json import write_configurations
from workflows.errors import UserError

ROOT = Path(__file__).parents[2]
BOM = b"\xef\xbb\xbf"
NEW = {"name": "New", "connect": {"port": 5678}}
ATTACH: dict[str, Any] = {
    "name": "Azure Machine Learning Deployment: Docker Debug",
    "type": "debugpy",
    "request": "attach",
    "connect": {"host": "127.0.0.1", "port": 5678},
    "pathMappings": [{"localRoot": "${workspaceFolder}/src", "remoteRoot": "/app"}],
    "justMyCode": True,
}


@pytest.fixture(scope="module")
def lock_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tmp_path_factory.getbasetemp()  # It is not to be made in this folder, which goes with this file's tests.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield name


@pytest.fixture
def locks_elsewhere(lock_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the lock files of hundreds of projects out of the person's own folders."""
    monkeypatch.setenv("TMPDIR", lock_folder)
    monkeypatch.setattr(tempfile, "tempdir", lock_folder)
    monkeypatch.setenv("XDG_CACHE_HOME", lock_folder)


def launch_json(folder: Path, data: bytes) -> Path:
    file = folder / ".vscode" / "launch.json"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    return file


def before_and_after(marked: str) -> tuple[bytes, bytes]:
    """A row's two texts: what stands in «» is to be added, what stands in ⟦⟧ to be taken away."""
    before = re.sub("«[^»]*»", "", marked)
    after = re.sub("⟦[^⟧]*⟧", "", marked)
    return re.sub("[⟦⟧]", "", before).encode(), re.sub("[«»]", "", after).encode()


def refused(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        write_configurations(folder, [NEW])
    assert str(caught.value).count("\n") == 1
    return caught.value


def run_python(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **{"timeout": 60, **options})
