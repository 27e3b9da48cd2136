"""What the tests share."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine_images import images_of_the_tests
from experiments import ExperimentProject, make_experiment_project
from host import Host
from hosts import Hosts, what_is_missing
from pipelines import PipelineProject, make_pipeline_project
from projects import PLAIN, ROOT, Project

#: What several files of tests of one topic share, with its fixtures.
pytest_plugins = (
    "connecting",
    "engine_steps",
    "image_builds",
    "launch_json_files",
    "referenced_environments",
    "runconfigs",
    "ssh_person",
)

# The tests' own settings, whatever the person's are. What is slow to make, environments,
# is kept from one run to the next in a cache of the tests' own.
for _name in [name for name in os.environ if name.startswith("AML_")]:
    del os.environ[_name]
# Nor does a shell decide whether every command of a test compiles the whole program, and every worker all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
_user = os.getuid() if hasattr(os, "getuid") else "user"
_cache = Path(tempfile.gettempdir()) / f"azureml-debug-tests-{_user}"
os.environ["XDG_CACHE_HOME"] = str(_cache)
# The hosts' homes lie in it, and their user has to get there; the program would make it for its owner alone.
_cache.mkdir(mode=0o755, exist_ok=True)
_cache.chmod(0o755)
# Caches of a test's own begin with the packages that others have got.
os.environ["UV_CACHE_DIR"] = str(_cache / "azureml-debug" / "uv")

# A shell's background job has these ignored, and so would everything that the tests start.
_HANDLERS: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGQUIT: signal.SIG_DFL,
    # As under nohup.
    signal.SIGHUP: signal.SIG_DFL,
}
for _number, _handler in _HANDLERS.items():
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


#: Whether this is `inv test --quick`.
QUICK = bool(os.environ.get("AZUREML_DEBUG_TEST_QUICK"))
#: How many hostile inputs of each kind a test makes unless it is told, and what they are made from then: every run
#: of the whole suite has the same ones.
HOSTILE = 20 if QUICK else 200
HOSTILE_SEED = 13
#: The first version of debugpy that the program takes.
OLDEST_DEBUGPY = "1.8.0"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--hostile N`: any number of hostile inputs; `--hostile-seed` makes the same ones again."""
    group = parser.getgroup("hostile inputs")
    group.addoption("--hostile", type=int, metavar="N", help=f"how many of each kind ({HOSTILE}); runs them alone")
    group.addoption("--hostile-seed", type=int, metavar="SEED", help="what they are made from (shown at the top)")
    parser.getgroup("versions").addoption(
        "--debugpy-versions",
        action="store_true",
        help=f"every debugpy that pip finds, from {OLDEST_DEBUGPY} on, not only that one and the one that is "
        "installed; runs the tests of versions alone",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Settle the seed here, so that all workers have the same one."""
    if config.option.hostile_seed is None:
        config.option.hostile_seed = HOSTILE_SEED if config.option.hostile is None else secrets.randbelow(10**6)


def pytest_report_header(config: pytest.Config) -> str:
    """Show the seed."""
    count = HOSTILE if config.option.hostile is None else config.option.hostile
    return f"hostile inputs: --hostile {count} --hostile-seed {config.option.hostile_seed}"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep what is collected, which stays to the end, out of all collections of garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--hostile` or `--debugpy-versions`, only the tests that these are for."""
    wanted = "hostile" if config.option.hostile is not None else ""
    wanted = "debugpy_folder" if config.option.debugpy_versions else wanted
    if not wanted:
        return
    chosen = [item for item in items if wanted in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@dataclass(frozen=True)
class Hostile:
    """How many hostile inputs a test makes, and from what: the same seed makes the same ones."""

    count: int
    seed: int

    def random(self, index: int) -> random.Random:
        """The source of input number ``index``, so that any single one can be made again."""
        return random.Random(f"{self.seed}/{index}")


@pytest.fixture(autouse=True)
def secrets_of_one_test() -> Iterator[None]:
    """Have the secrets that one test has made known left out of nothing that another one reads."""
    redaction = sys.modules.get("workflows.redaction")
    before = copy.deepcopy(redaction._known) if redaction is not None else None
    yield
    redaction = sys.modules.get("workflows.redaction")
    if redaction is not None:
        setattr(redaction, "_known", before or redaction._Known())  # noqa: B010


@pytest.fixture
def hostile(request: pytest.FixtureRequest) -> Hostile:
    """What `--hostile` and `--hostile-seed` say."""
    option = request.config.option
    return Hostile(HOSTILE if option.hostile is None else option.hostile, option.hostile_seed)


def missing(what: str) -> None:
    """Skip a test for want of a part, but fail where CI promises that it is there."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI is set")
    pytest.skip(what)


def _pip(*arguments: str) -> str:
    """What pip says, of the packages that this Python takes."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    # A version that is asked for may be another than the pinned one.
    environ = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env=environ).stdout


@functools.cache
def _debugpy_versions() -> list[str]:
    """Every version of debugpy from the oldest on that pip finds, the newest last."""
    found = re.search(r"Available versions: (.+)", _pip("index", "versions", "debugpy"))
    assert found, "pip names no versions of debugpy"
    versions = [version for version in found[1].split(", ") if re.fullmatch(r"[\d.]+", version)]
    numbers = {version: tuple(int(part) for part in version.split(".")) for version in versions}
    oldest = tuple(int(part) for part in OLDEST_DEBUGPY.split("."))
    return sorted((version for version in versions if numbers[version] >= oldest), key=numbers.__getitem__)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of a version of debugpy, with each of them."""
    if "debugpy_folder" in metafunc.fixturenames:
        every = metafunc.config.option.debugpy_versions
        versions = _debugpy_versions() if every else [OLDEST_DEBUGPY, "installed"]
        metafunc.parametrize("debugpy_folder", versions, indirect=True)


@pytest.fixture
def debugpy_folder(request: pytest.FixtureRequest) -> Path:
    """A folder that has nothing but a version of debugpy, to be put on the import path; kept from run to run."""
    if request.param == "installed":
        import debugpy

        return Path(debugpy.__file__).parents[1]
    name = f"debugpy-{request.param}-python{sys.version_info[0]}.{sys.version_info[1]}"
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "versions" / name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            try:
                _pip("install", "--quiet", "--no-deps", "--target", f"{made}/it", f"debugpy=={request.param}")
            except subprocess.SubprocessError:
                missing(f"pip does not install debugpy {request.param}")
            # Another worker may have been quicker.
            with contextlib.suppress(OSError):
                os.replace(f"{made}/it", folder)
    return folder


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[None]:
    """A Docker engine answers, and there is a base image that needs no registry."""
    from workflows.engines.docker_client import engine_answers

    assert not QUICK, "inv test --quick promises to do without an engine"
    if not engine_answers():
        missing("no Docker engine answers")
    from workflows.engines.docker_base import make_base_image
    from workflows.engines.docker_client import connect
    from workflows.environments.base_image import BASE_IMAGE

    with contextlib.closing(connect()) as client:
        if not client.images.list(BASE_IMAGE):
            make_base_image(client, BASE_IMAGE, print)
        with images_of_the_tests(client, _cache):
            yield


def make_project(folder: Path, engine: str) -> Project:
    """A person's own project: a tasks.py of two lines, a score.py in a folder of its own."""
    (folder / "service").mkdir(parents=True)
    (folder / "tasks.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom workflows import namespace as ns\n"
    )
    (folder / "service" / "score.py").write_text(PLAIN)
    environ = {
        "AML_ENGINE": engine,
        "AML_SCORE_SCRIPT": "service/score.py",
        "AML_SCORING_PORT": "0",
        "AML_DEBUG_PORT": "0",
    }
    return Project(folder, environ)


@pytest.fixture(params=["process", "docker"])
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    name = str(request.param)
    if name == "docker":
        request.getfixturevalue("docker_engine")
    return name


@pytest.fixture
def project(tmp_path: Path, engine: str) -> Iterator[Project]:
    """A project on each engine; what a test leaves running is ended."""
    made = make_project(tmp_path / "a project", engine)
    yield made
    made.clean_up()


@pytest.fixture
def other(tmp_path: Path, engine: str) -> Iterator[Project]:
    """A second project beside it."""
    made = make_project(tmp_path / "another project", engine)
    yield made
    made.clean_up()


@pytest.fixture
def pipelines(tmp_path: Path, engine: str) -> Iterator[PipelineProject]:
    """A project with a pipeline of three steps, on each engine."""
    made = make_pipeline_project(tmp_path / "a project", engine)
    yield made
    made.clean_up()


@pytest.fixture
def experiment(tmp_path: Path, engine: str) -> Iterator[ExperimentProject]:
    """A project with a training script, on each engine."""
    made = make_experiment_project(tmp_path / "a project", engine)
    yield made
    made.clean_up()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Any]:
    """A process of this Python with the debuggee in it; see `debuggee_harness`."""
    from debuggee_harness import Child

    with Child(tmp_path) as child:
        yield child


@pytest.fixture(scope="session")
def machines() -> Iterator[Hosts]:
    """A laptop, an instance that it reaches over SSH, a node that only the instance reaches; see `hosts`."""
    reason = what_is_missing()
    if reason:
        missing(reason)
    made = Hosts(Path(os.environ["XDG_CACHE_HOME"]))
    yield made
    made.close()


@pytest.fixture
def hosts(machines: Hosts) -> Iterator[Hosts]:
    """The same, as it was at first after each test."""
    yield machines
    machines.restore()


@pytest.fixture
def loopback_instance(hosts: Hosts) -> Host:
    """An instance on 127.0.0.1, with this machine's Docker engine; `hosts.laptop` knows it."""
    return hosts.loopback
