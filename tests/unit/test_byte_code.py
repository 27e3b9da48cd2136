"""Byte code: of the debuggee, which programs must not write beside it, and of an environment's packages."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from projects import ROOT

from workflows.environments import bytecode


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
    code = f"from workflows import byte_code; from pathlib import Path; byte_code.compile_folder(Path({str(folder)!r}))"
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
        "AZUREML_DEBUGGEE_CODE": str(tmp_path / "code"),
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


# Packages


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    site = tmp_path / "an environment" / "lib" / "python3.11" / "site-packages"
    for name in ("one", "two", "pip"):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(f"said = '{name}'\n")
    (site / "one" / "tests").mkdir()
    (site / "one" / "tests" / "test_one.py").write_text("import one\n")
    (site / "one" / "template.py").write_text("class {{ name }}:\n")
    (site / "one" / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nsaid = '\xe4'\n")
    return tmp_path / "an environment"


def compiled(environment: Path, tmp_path: Path) -> dict[str, Path]:
    with bytecode.compile_in_background(environment, Path(sys.executable), tmp_path, os.environ) as ended:
        pass
    assert [(done.code, done.lines) for done in ended] == [(0, ())] * len(ended)
    return {path.parents[1].name + "." + path.name.partition(".")[0]: path for path in environment.rglob("*.pyc")}


def test_packages_are_compiled_as_python_does_it(environment: Path, tmp_path: Path) -> None:
    found = compiled(environment, tmp_path)
    # pip is run by hand, programs do not import a package's tests, and not every file of a package is Python's.
    assert set(found) == {"one.__init__", "one.latin", "two.__init__"}
    for place in found.values():
        pythons = py_compile.compile(importlib.util.source_from_cache(str(place)), cfile=str(tmp_path / "pythons.pyc"))
        assert place.read_bytes() == Path(str(pythons)).read_bytes()


def test_byte_code_that_is_right_stays_and_what_is_old_is_made_anew(environment: Path, tmp_path: Path) -> None:
    found = compiled(environment, tmp_path)
    before = {name: (path.stat().st_ino, path.read_bytes()) for name, path in found.items()}
    # As in another environment that has the file of the same cache.
    linked = tmp_path / "linked.pyc"
    os.link(found["two.__init__"], linked)
    source = next(environment.rglob("two/__init__.py"))
    source.write_text("said = 'something else'\n")
    after = {name: (path.stat().st_ino, path.read_bytes()) for name, path in compiled(environment, tmp_path).items()}
    assert after["one.latin"] == before["one.latin"] and after["one.__init__"] == before["one.__init__"]
    assert after["two.__init__"] != before["two.__init__"]
    assert linked.read_bytes() == before["two.__init__"][1]


def test_what_is_taken_away_meanwhile_is_passed_over(environment: Path, tmp_path: Path) -> None:
    with bytecode.compile_in_background(environment, Path(sys.executable), tmp_path, os.environ) as ended:
        shutil.rmtree(environment)
    assert all(done.code == 0 for done in ended), ended


def arrive(cache: Path, name: str) -> Path:
    """A package in a cache, as uv puts it there: under its name only when it is complete."""
    unpacked = cache / f".tmp{name}"
    (unpacked / name).mkdir(parents=True)
    (unpacked / name / "__init__.py").write_text(f"said = '{name}'\n")
    # uv takes a wheel with a folder among its scripts for an invalid one.
    scripts = unpacked / f"{name}-1.data" / "scripts"
    scripts.mkdir(parents=True)
    (scripts / "tool.py").write_text("#!python\n")
    package = cache / "archive-v0" / name
    package.parent.mkdir(exist_ok=True)
    unpacked.rename(package)
    return package


def test_what_arrives_in_the_cache_is_compiled_there_while_uv_fetches_others(tmp_path: Path) -> None:
    cache = tmp_path / "a cache"
    earlier = arrive(cache, "earlier")
    with bytecode.compile_arriving(Path(sys.executable), cache, tmp_path, os.environ):
        arrived: dict[str, Path] = {}
        deadline = time.monotonic() + 60
        # The first ones may come before the process has looked for what is there.
        while not any(list(package.rglob("*.pyc")) for package in arrived.values()) and time.monotonic() < deadline:
            name = f"package{len(arrived)}"
            arrived[name] = arrive(cache, name)
            time.sleep(0.2)
        last = arrived[name]
        following = arrive(cache, "following")
        # Then all of the last one is done.
        while not list(following.rglob("*.pyc")) and time.monotonic() < deadline:
            time.sleep(0.05)
    (compiled,) = last.rglob("*.pyc")
    source = last / name / "__init__.py"
    assert compiled == Path(importlib.util.cache_from_source(str(source)))
    as_python_does_it = Path(str(py_compile.compile(str(source), cfile=str(tmp_path / "pythons.pyc"))))
    assert compiled.read_bytes() == as_python_does_it.read_bytes()
    assert not list(earlier.rglob("*.pyc"))


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is a disk of its own on Linux")
def test_a_cache_on_another_disk_is_left_alone(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        assert os.stat(name).st_dev != os.stat(tmp_path).st_dev
        cache = Path(name)
        compiler = [sys.executable, str(bytecode._COMPILER), "--arriving", str(cache), str(tmp_path / "temporary")]
        with subprocess.Popen(compiler, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            number = 0
            while process.poll() is None and number < 100:
                number += 1
                arrive(cache, f"package{number}")
                time.sleep(0.2)
            process.kill()
            assert process.stdout is not None
            assert (process.stdout.read(), process.wait()) == (b"", 0)
        assert not list(cache.rglob("*.pyc"))
