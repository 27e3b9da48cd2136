"""Virtual environments for real: uv, pip; failures, kills and full disks too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_builds import TINY, command_lines, define, finish, gone, read_until, silent, start, wait_for

from workflows.environments import virtual_environments
from workflows.environments.definition import load_definition
from workflows.errors import UserError


def test_built_once_then_reused_without_work(tmp_path: Path) -> None:
    folder, cache = tmp_path / "a folder" / "naïve", tmp_path / "un caché"
    definition = define(folder, f"./{TINY}\n")
    lines: list[str] = []
    built = virtual_environments.ensure_environment(definition, cache, lines.append)
    assert not built.reused
    assert any("+ tiny-local==1.0" in line for line in lines)
    imported = subprocess.run(
        [built.python, "-c", "import tiny_local; print(tiny_local.answer)"], capture_output=True, check=True
    )
    assert imported.stdout == b"42\n"
    assert sorted(path.name for path in built.folder.parent.iterdir()) == [built.digest[:16]]
    assert not (built.folder / ".tmp").exists()

    # Nothing is built, and nothing said.
    again = virtual_environments.ensure_environment(definition, cache, pytest.fail)
    assert (again.reused, again.python) == (True, built.python)
    out = finish(start("virtual", folder, cache))
    assert "reused: True" in out
    assert "modules:\n" in out  # neither is needed where nothing has to be built

    changed = define(folder, f"./{TINY}\n# changed\n")
    other = virtual_environments.ensure_environment(changed, cache, silent)
    assert other.folder != built.folder
    assert virtual_environments.find_environment(changed, cache) is not None
    assert built.python.exists()


def test_condas_packages_without_conda(tmp_path: Path) -> None:
    if shutil.which("conda") or shutil.which("mamba") or shutil.which("micromamba"):
        pytest.skip("there is a conda here")
    # Not UTF-8: pip itself refuses local packages in such a folder, and nothing else.
    folder = tmp_path / "defined \udcff"
    define(folder, "# nothing more\n")
    (folder / "conda.yml").write_text(
        "name: with-conda\ndependencies:\n  - python=3.99\n  - six=1.17\n  - libgcc-ng\n"
        "  - pip:\n    - -r requirements.txt\n"
    )
    definition = load_definition(folder, default_dockerfile=Path("env/training/Dockerfile").resolve())
    built = virtual_environments.ensure_environment(definition, tmp_path / "cache", silent)
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert built.notes == (
        f"conda.yml asks for python=3.99; using {minor}, conda is not used here",
        "conda is not used here: six==1.17.* from conda.yml installed from the package index",
        "libgcc-ng is left out: only conda has it",
    )
    again = virtual_environments.ensure_environment(definition, tmp_path / "cache", silent)
    assert (again.reused, again.notes) == (True, built.notes)


def test_a_package_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a shell exports it; uv would cut its lines to that.
    monkeypatch.setenv("COLUMNS", "40")
    definition = define(tmp_path / "defined", f"./{TINY}\nno-such-package-of-ours==1\n")
    lines: list[str] = []
    with pytest.raises(UserError) as caught:
        virtual_environments.ensure_environment(definition, tmp_path / "cache", lines.append)
    error = caught.value
    assert error.problem == (
        "uv could not install the environment `defined`: no-such-package-of-ours was not found in the package registry "
        "and you require no-such-package-of-ours==1."
    )
    assert (error.file, error.line) == (definition.folder / "requirements.txt", 2)
    assert "line 2 of" in error.remedy
    assert 0 < len(error.details) <= 15
    assert list((tmp_path / "cache" / "environments").iterdir()) == []
    (definition.folder / "requirements.txt").write_text(f"./{TINY}\n")
    mended = load_definition(definition.folder, default_dockerfile=definition.dockerfile)
    assert not virtual_environments.ensure_environment(mended, tmp_path / "cache", silent).reused


def own_backend(package: Path, backend: str) -> None:
    """A package of source whose backend is a script of the test's."""
    package.mkdir(parents=True)
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (package / "backend.py").write_text(backend)


WAITS = """\
import pathlib, shutil, time
def get_requires_for_build_wheel(config=None):
    while not pathlib.Path({go!r}).exists():
        time.sleep(0.05)
    return []
def build_wheel(folder, config=None, metadata=None):
    shutil.copy({wheel!r}, folder)
    return pathlib.Path({wheel!r}).name
"""


def test_two_builds_at_once(tmp_path: Path) -> None:
    folder, go = tmp_path / "defined", tmp_path / "go"
    own_backend(folder / "waits", WAITS.format(go=str(go), wheel=str(folder / TINY)))
    define(folder, "./waits\n")
    first = start("virtual", folder, tmp_path / "cache")
    read_until(first, "building the environment")
    second = start("virtual", folder, tmp_path / "cache")
    read_until(second, "waiting for it")
    go.touch()
    outputs = [finish(first), finish(second)]
    assert "reused: False" in outputs[0]
    assert "reused: True" in outputs[1]
    assert "waiting for it" not in outputs[1], "it was said once"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_ended_half_way(tmp_path: Path, how: signal.Signals) -> None:
    # A source package whose build never ends keeps uv busy, with a grandchild of its own.
    folder, cache = tmp_path / "defined", tmp_path / "cache"
    sleeping = f"sleep 4711.{time.time_ns() % 10**6}"
    backend = "import subprocess\ndef get_requires_for_build_wheel(config=None):\n"
    own_backend(folder / "slow", f"{backend}    subprocess.run({sleeping.split()})\n    return []\n")
    define(folder, "./slow\n")
    process = start("virtual", folder, cache)
    (built,) = wait_for(lambda: list((cache / "environments").glob("*/bin/python")))
    environment = built.parents[1]
    wait_for(lambda: command_lines(sleeping))
    process.send_signal(how)
    finish(process, None)
    assert gone(lambda: command_lines(sleeping))
    assert gone(lambda: command_lines(str(environment)))
    assert environment.exists() is (how == signal.SIGKILL)
    # The same digest again: only the marker tells that the folder is half built.
    again = start("virtual", folder, cache)
    if how == signal.SIGKILL:
        read_until(again, "removing the half-built environment")
    wait_for(lambda: command_lines(sleeping))
    again.send_signal(signal.SIGINT)
    finish(again, None)
    assert not environment.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a full disk needs root and a mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    definition = define(tmp_path / "defined", "debugpy>=1.8.22,<2\n")
    with pytest.raises(UserError, match=r"The disk is full: .* MB are free") as caught:
        virtual_environments.ensure_environment(definition, small_disk / "cache", silent)
    assert str(small_disk) in caught.value.problem
    assert list((small_disk / "cache" / "environments").iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        virtual_environments.ensure_environment(define(tmp_path / "defined", f"./{TINY}\n"), tmp_path / "cache", silent)
