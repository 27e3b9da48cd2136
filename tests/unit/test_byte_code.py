"""Byte code of the debuggee, which the programs that it goes into must not write beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from projects import ROOT


def run(folder: Path, *command: str, **variables: str) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env={**environ, **variables}, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def debuggee(tmp_path: Path) -> Path:
    return Path(
        shutil.copytree(
            ROOT / "workflows" / "debuggee", tmp_path / "debuggee", ignore=shutil.ignore_patterns("__pycache__")
        )
    )


def keep(folder: Path, **variables: str) -> None:
    code = f"from workflows import byte_code; from pathlib import Path; byte_code.keep(Path({str(folder)!r}))"
    run(ROOT, "-c", code, **variables)


def test_what_is_compiled_beside_the_debuggee_is_used_and_otherwise_it_is_once_a_step(
    debuggee: Path, tmp_path: Path
) -> None:
    announced = tmp_path / "announce"
    announced.mkdir()
    variables = {
        "PYTHONPATH": str(debuggee / "inject"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AZUREML_DEBUGGEE_EVENTS": str(announced / "events.jsonl"),
    }
    loaded = "import sys; print(sys.modules['azureml_debuggee.step'].__cached__)"
    assert run(tmp_path, "-c", loaded, **variables).startswith(str(announced))
    assert list(debuggee.rglob("*.pyc")) == []
    shutil.rmtree(announced)
    announced.mkdir()
    keep(debuggee)
    assert run(tmp_path, "-c", loaded, **variables).startswith(str(debuggee))
    assert list(announced.iterdir()) == []


def test_whoever_wants_no_byte_code_gets_none(debuggee: Path) -> None:
    keep(debuggee, PYTHONDONTWRITEBYTECODE="1")
    assert list(debuggee.rglob("*.pyc")) == []
