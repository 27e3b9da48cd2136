"""What a step installs is there for that step alone; the environment stays as it was."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from engine_steps import Steps, ended
from packages import wheel
from projects import LIMIT, ROOT

from workflows import engines, settings
from workflows.environments.references import resolve_environment
from workflows.paths import cache_folder

#: Says which versions are there; a program of the step, as a script would be.
LOOK = """
from importlib import metadata
def version(name):
    try:
        module = __import__(name)
        return metadata.version(name) + ("" if module.answer == metadata.version(name) else " torn")
    except ImportError:
        return "none"
print({name: version(name) for name in ("shared", "extra")})
"""
#: The module of a package whose version is 1.0.
ONE = "answer = '1.0'\n"
#: Containers have their own files, and an image has what its container installs.
PROCESSES = pytest.mark.parametrize("engine", ["process"], indirect=True)


def run(steps: Steps, command: str) -> int:
    """A step's exit code; pip takes its time on a busy machine."""
    return ended(steps.start(command), LIMIT)


@pytest.fixture(scope="session")
def definition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has `shared` 1.0; of this process alone, since others would make its files anew meanwhile."""
    folder = tmp_path_factory.mktemp("definition") / "env"
    (folder / "requirements.txt").write_text(f"./{wheel(folder, 'shared', code=ONE).name}\n")
    return folder


@pytest.fixture
def wheels(steps: Steps, definition: Path, tmp_path: Path) -> Steps:
    """A step whose environment has `shared` 1.0, and which finds `shared` 2.0 and `extra` in its folder."""
    folder = steps.code / "wheels"
    wheel(folder, "shared", "2.0", code="answer = '2.0'\n")
    wheel(folder, "extra", requires=["shared"], code=ONE)
    environ = {"AML_TRAINING_ENV": str(definition)}
    found = settings.resolve(ROOT, flags={}, environ=environ, cwd=tmp_path)
    engine = engines.load(steps.engine.name)
    steps.spec = replace(steps.spec, image=resolve_environment(None, found, engine.name).build(engine, print))
    steps.write("look.py", LOOK)
    return steps


def contents(steps: Steps) -> dict[str, tuple[int, int]]:
    """The environment's files; empty where it is an image, which no container changes."""
    root = Path(steps.spec.image.name)
    if not root.is_dir():
        return {}
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def another(steps: Steps, run_id: str | None = None) -> Steps:
    """A step that comes after the first, of the same run unless another is named."""
    spec = replace(steps.spec, step="after", folder=steps.spec.folder.parent / "after")
    return Steps(steps.engine, replace(spec, run_id=run_id) if run_id else spec)


# Other ways to install: test_however_an_installation_is_spelled_the_environment_keeps_its_bytes.
def test_what_a_step_installs_is_there_for_it_and_for_nobody_else(wheels: Steps) -> None:
    assert run(another(wheels), "python look.py") == 0
    before = contents(wheels)
    install = "pip install --no-index --find-links wheels extra"
    assert run(wheels, f"python look.py && {install} && python look.py") == 0, wheels.log()
    seen = [line for line in wheels.log().splitlines() if line.startswith("{")]
    # What the environment has is enough for what it needs.
    assert seen == ["{'shared': '1.0', 'extra': 'none'}", "{'shared': '1.0', 'extra': '1.0'}"]
    for later, command in (
        (another(wheels), "python look.py && pip list"),
        (another(wheels, f"{wheels.spec.run_id}-2"), "python look.py"),
    ):
        assert run(later, command) == 0, later.log()
        assert "{'shared': '1.0', 'extra': 'none'}" in later.log()
        assert "extra" not in later.log().split("}")[-1]
        later.engine.end_run(later.spec.run_id)
    assert contents(wheels) == before
    assert not (cache_folder() / "steps" / wheels.spec.run_id).exists()


#: Ways to say it, each for a package of its own: each has to go into the step.
SPELLINGS = (
    "pip3 install {}",
    '"$(dirname "$(command -v python)")/python" -m pip --quiet install --upgrade {}',
    "env pip install --break-system-packages {}",
    "python install.py {}",
    "python -c \"import os; os.system('pip install {}')\"",
    "pip install --user {}",
    "sudo -E pip install {}",
    "sudo python -m pip install {}",
    '"$VIRTUAL_ENV/bin/python" -m pip install {}',
    '"$VIRTUAL_ENV/bin/pip" install {}',
)
WITH_UV = (
    "uv pip install {}",
    "uv pip install --system {}",
    'uv pip install --python "$(command -v python)" {}',
    "uv -q pip install -p python {}",
)
INSTALL = """import subprocess, sys
import helper
subprocess.run([sys.executable, "-m", "pip", "install", *sys.argv[1:]], check=True)
"""
#: As the real one with `env_reset` and `secure_path`: nothing of the step's variables is left.
SUDO = """#!/bin/sh
[ "$1" = -E ] && shift
exec env -i PATH={path} HOME=/nowhere "$@"
"""


@pytest.fixture
def with_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sudo on the path that forgets the step's variables; with the environment's programs, which it would change."""
    place = tmp_path / "with sudo"
    place.mkdir()
    sudo = place / "sudo"
    sudo.write_text(SUDO.format(path='"$PATH"'))
    sudo.chmod(0o700)
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{place}")


@PROCESSES
@pytest.mark.usefixtures("with_sudo")
def test_however_an_installation_is_spelled_the_environment_keeps_its_bytes(wheels: Steps) -> None:
    wheels.write("install.py", INSTALL)
    wheels.write("helper.py", "")
    ways = (*SPELLINGS, *(WITH_UV if shutil.which("uv") else ()))
    for number in range(len(ways)):
        wheel(wheels.code / "wheels", f"way-{number}", requires=["shared"], code=ONE)
    assert run(another(wheels), "python look.py") == 0
    before, read = contents(wheels), all_bytes(wheels)
    commands = [way.format(f"--no-index --find-links wheels way-{number}") for number, way in enumerate(ways)]
    look = "python -c 'import pkgutil; print(sorted(m.name for m in pkgutil.iter_modules() if m.name[:4] == \"way_\"))'"
    assert run(wheels, "\n".join([*commands, "python look.py", look])) == 0, wheels.log()
    # What the environment has is enough for what they need.
    there = sorted(f"way_{number}" for number in range(len(ways)))
    assert wheels.log().splitlines()[-2:] == ["{'shared': '1.0', 'extra': 'none'}", str(there)], wheels.log()
    later = another(wheels, f"{wheels.spec.run_id}-2")
    assert run(later, look) == 0 and later.log().splitlines()[-1] == "[]"
    later.engine.end_run(later.spec.run_id)
    assert contents(wheels) == before and all_bytes(wheels) == read
    # pip was compiled once for all of them, and nothing in the step's folder.
    (pip,) = Path(wheels.spec.image.name).glob("lib/python*/site-packages/pip")
    assert list(pip.glob("_internal/commands/__pycache__/install.*.pyc"))
    assert not list(wheels.code.rglob("__pycache__"))


def all_bytes(steps: Steps) -> dict[str, str]:
    """A digest of each file of the environment."""
    root = Path(steps.spec.image.name)
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (root.rglob("*") if root.is_dir() else ())
        if path.is_file() and path.suffix != ".pyc"
    }


@PROCESSES
def test_a_setup_py_that_installs_itself_does_so_in_the_step(wheels: Steps) -> None:
    if run(another(wheels), "python -c 'import setuptools'"):
        pytest.skip("the environment has no setuptools")
    wheels.write("setup.py", "from setuptools import setup\nsetup(name='mine', version='1', py_modules=['mine'])\n")
    wheels.write("mine.py", "answer = 1\n")
    before = all_bytes(wheels)
    command = "python setup.py -q install --single-version-externally-managed --record done.txt && cat done.txt"
    assert run(wheels, command) == 0, wheels.log()
    assert "/steps/" in wheels.log()
    assert all_bytes(wheels) == before


@PROCESSES
@pytest.mark.parametrize("verb", ["install -y numpy", "env update -f x.yml", "remove numpy"])
def test_conda_says_why_it_changes_nothing_and_what_does(
    wheels: Steps, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = f"`conda {verb.partition(' -')[0].removesuffix(' numpy')}`"
    if shutil.which("conda") is None:
        assert run(wheels, "command -v conda") == 1, "a script that looks for conda finds none where there is none"
    place = tmp_path / "with conda"
    place.mkdir()
    (place / "conda").write_text('#!/bin/sh\necho "conda did $*"\n')
    (place / "conda").chmod(0o700)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    after = another(wheels, f"{wheels.spec.run_id}-2")
    assert run(after, f"conda {verb}") == 1
    assert f"{what} is not done" in after.log() and "install them by pip" in after.log()
    assert "conda did" not in after.log() and len(after.log().splitlines()) == 1
    refused = after.log()
    # An environment of one's own is nobody else's.
    after = another(wheels, f"{wheels.spec.run_id}-3")
    assert run(after, "conda install -n mine x && conda list") == 0
    assert after.log().removeprefix(refused) == "conda did install -n mine x\nconda did list\n"


def test_a_newer_version_takes_the_place_of_the_environments_and_what_is_uninstalled_is_gone(wheels: Steps) -> None:
    assert run(another(wheels), "true") == 0
    before = contents(wheels)
    commands = (
        "pip install --no-index --find-links wheels --upgrade shared extra",
        "python look.py",
        "pip uninstall --yes shared extra",
        "python look.py",
    )
    assert run(wheels, " && ".join(commands)) == 0, wheels.log()
    seen = [line for line in wheels.log().splitlines() if line.startswith("{")]
    assert seen == ["{'shared': '2.0', 'extra': '1.0'}", "{'shared': 'none', 'extra': 'none'}"]
    assert contents(wheels) == before


def test_a_program_can_import_what_it_has_installed_itself(wheels: Steps) -> None:
    wheels.write(
        "train.py",
        "import subprocess, sys\n"
        "pip = [sys.executable, '-m', 'pip', 'install', '--no-index', '--find-links', 'wheels']\n"
        "subprocess.check_call([*pip, 'extra'])\n"
        "import extra\n"
        "print('has', extra.answer, sys.prefix == sys.argv[1] or sys.argv[1] == 'image')\n",
    )
    prefix = wheels.spec.image.name if wheels.engine.name == "process" else "image"
    assert run(wheels, f"python train.py {prefix}") == 0, wheels.log()
    assert "has 1.0 True" in wheels.log()


def test_several_ranks_may_install_at_the_same_time(wheels: Steps) -> None:
    wheels.spec = replace(wheels.spec, ranks=3, distribution="pytorch")
    install = "pip install --no-index --find-links wheels --no-deps extra-$RANK && python -c 'import extra_'$RANK"
    for rank in range(3):
        wheel(wheels.code / "wheels", f"extra-{rank}")
    assert run(wheels, install) == 0, wheels.log(0) + wheels.log(1) + wheels.log(2)


@PROCESSES
def test_an_editable_package_and_a_program_of_a_package_work_in_the_step(wheels: Steps) -> None:
    site = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    wheels.write("mine/mine.py", "answer = 'editable'\n")
    commands = (
        "pip install --no-index --find-links wheels extra",
        # As pip does it for an editable package, which would want setuptools from the network.
        f'echo "$PWD/mine" > "$("$AZUREML_DEBUGGEE_PACKAGES/interpreter/python" -c "{site}")/mine.pth"',
        "python -c 'import mine; print(mine.answer)'",
        'mkdir -p "$AZUREML_DEBUGGEE_PACKAGES/bin" && echo "echo program" > "$AZUREML_DEBUGGEE_PACKAGES/bin/tool"',
        'chmod +x "$AZUREML_DEBUGGEE_PACKAGES/bin/tool" && tool',
    )
    assert run(wheels, " && ".join(commands)) == 0, wheels.log()
    assert wheels.log().endswith("editable\nprogram\n")


@PROCESSES
def test_a_step_that_installs_nothing_leaves_the_environment_as_the_person_made_it(wheels: Steps) -> None:
    wheels.write("train.py", "import os, sys, shared\nprint(sys.prefix, os.path.dirname(shared.__file__))\n")
    assert run(wheels, "python train.py && python -S -c 'print(1)' && ls \"$AZUREML_DEBUGGEE_PACKAGES\"") == 0
    prefix, site = wheels.log().splitlines()[0].rsplit(" ", 1)
    assert prefix == wheels.spec.image.name
    assert site.startswith(prefix + os.sep)
    assert wheels.log().split("1\n")[-1].split() == ["interpreter", "lib", "lib64", "programs", "pyvenv.cfg", "seen"]
