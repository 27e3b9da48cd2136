"""Canaries in every place where a secret can stand: real commands are run, and the canary is looked for afterwards.

It must be in nothing that a command shows, in no file that the program keeps, in no entry of launch.json or tasks.json,
in no label or history of what the Docker engine has, and on no command line but those that a person has written.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from azureml_projects import python_with_the_sdk
from conftest import make_project
from experiments import ExperimentProject
from pipelines import PipelineProject
from projects import ROOT, Project, Result
from ready import PLAIN as STARTED_PLAINLY

#: Another one for each of the processes that run tests side by side: each looks at all processes of the machine.
NAME = "Canary7Zq" + os.environ.get("PYTEST_XDIST_WORKER", "gw")
CANARY = f"{NAME}-secret"
#: How often each process is looked at, 20 ms apart.
LOOKS = 3
#: What a line of a private key looks like.
KEY_LINE = ("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ" + NAME).ljust(64, "1")


class Watch:
    """What became of the canary while commands ran."""

    def __init__(self, project: Project, cache: Path) -> None:
        self.project, self.cache = project, cache
        #: The command lines with it.
        self.lines: set[str] = set()
        self._begun, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        # What runs already has been started by something else.
        looks = Counter(dict.fromkeys(psutil.pids(), LOOKS))
        self._begun.set()
        while not self._over.wait(0.02):
            for pid in psutil.pids():
                # At first it is what its parent was.
                if looks[pid] < LOOKS:
                    looks[pid] += 1
                    with contextlib.suppress(psutil.Error, OSError):
                        process = psutil.Process(pid)
                        line = " ".join(process.cmdline())
                        if _in(line.encode()) and self._is_of_this_test(process):
                            self.lines.add(line)

    def _is_of_this_test(self, process: psutil.Process) -> bool:
        """Whether it has been started by this test, and not by one that runs beside it."""
        if Path(process.cwd()).is_relative_to(self.project.folder.parent):
            return True
        return any(one.pid == os.getpid() for one in process.parents())

    def check(self, *results: Result, typed: bool = False, own: Callable[[Path], bool] = lambda path: False) -> None:
        """See that nothing reveals it.

        Args:
            results: What commands have shown.
            typed: Whether the person had it on a command line, or in a command of theirs.
            own: Which files the person's own program has written.
        """
        for result in results:
            for stream in (result.out, result.err):
                assert not _in(stream.encode()), stream
        for folder in (self.project.folder / ".azureml-debug", self.project.folder / ".vscode", self.cache):
            for path in folder.rglob("*") if folder.is_dir() else ():
                if path.is_file() and not path.is_symlink() and not own(path):
                    assert not _in(path.read_bytes()), path
        if not typed:
            assert not self.lines


def _in(data: bytes) -> bool:
    """Whether a canary, or the better part of one, is in some bytes, as it is or encoded."""
    found = [CANARY.encode(), NAME.encode(), base64.b64encode(f"me:{CANARY}".encode())]
    return any(one in data for one in found)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watch]]:
    """Watches a project, whose cache is its own, but for some folders that have nothing to do with its secrets."""
    with contextlib.ExitStack() as stack:

        def begin(project: Project, *shared: str) -> Watch:
            cache = tmp_path / "cache"
            for name in shared:
                own, others = (Path(place, "azureml-debug", name) for place in (cache, os.environ["XDG_CACHE_HOME"]))
                own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                others.mkdir(mode=0o700, parents=True, exist_ok=True)
                own.symlink_to(others)
            # The command lines of what goes on in the background are those that users have.
            project.environ |= {"XDG_CACHE_HOME": str(cache), STARTED_PLAINLY: "1"}
            return stack.enter_context(Watch(project, cache))

        yield begin


@pytest.fixture
def server() -> Iterator[str]:
    """Host and port of a server that gives `/data.csv` to whoever knows the canary, and has nothing else."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["Authorization"] == "Basic " + base64.b64encode(f"me:{CANARY}".encode()).decode()
            good = self.path.startswith("/data.csv") and (known or f"sig={CANARY}" in self.path)
            body = b"1,2\n" if good else f"no {self.path}".encode()
            self.send_response(200 if good else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{made.server_address[1]}"
        made.shutdown()


INPUT = """\
type: pipeline
jobs:
  work:
    command: cat ${{{{inputs.data}}}}
    environment: azureml:any@latest
    inputs:
      data: {{type: uri_file, path: '{address}'}}
"""
#: What is made for any pipeline, whatever its inputs are.
BUILT = ("debugpy", "environments")
SLASH = "password with a slash"
ADDRESSES = {
    "signature": (f"http://HOST/none.csv?sv=1&sig={CANARY}%3D", "http://HOST/none.csv?sv=1&sig=***"),
    "user and password": (f"http://me:{CANARY}@HOST/none.csv", "http://***@HOST/none.csv"),
    "token as user": (f"http://{CANARY}@HOST/none.csv", "http://***@HOST/none.csv"),
    SLASH: (f"http://me:{CANARY}/{CANARY}@HOST/none.csv", "http://***@HOST/none.csv"),
    "no such port": (
        f"http://me:{CANARY}@127.0.0.1:1/none.csv?token={CANARY}",
        "http://***@127.0.0.1:1/none.csv?token=***",
    ),
}


@pytest.mark.parametrize("engine", ["process"], indirect=True)
def test_an_input_that_cannot_be_fetched(pipelines: PipelineProject, watch: Callable[..., Watch], server: str) -> None:
    seen = watch(pipelines, *BUILT)
    results = []
    for form, texts in ADDRESSES.items():
        address, shown = (text.replace("HOST", server) for text in texts)
        pipelines.pipeline.write_text(INPUT.format(address=address))
        # With --json, standard error has what is otherwise on standard output.
        for more in ([], ["--json"]) if form == SLASH else (["--json"],):
            results.append(pipelines.inv("pipeline.submit", *more))
            results[-1].says(shown, "cannot be read" if form == SLASH else "cannot be fetched")
    others = [pipelines.inv("pipeline.list", "--json"), pipelines.inv("vscode.setup", "--json")]
    seen.check(*results, *others)


@pytest.mark.parametrize("engine", ["process"], indirect=True)
@pytest.mark.parametrize(
    "address", [f"http://me:{CANARY}@HOST/data.csv", f"http://HOST/data.csv?sig={CANARY}"], ids=["user", "query"]
)
def test_an_input_that_is_fetched_with_its_secret(
    pipelines: PipelineProject, watch: Callable[..., Watch], server: str, address: str
) -> None:
    pipelines.pipeline.write_text(INPUT.format(address=address.replace("HOST", server)))
    seen = watch(pipelines, *BUILT)
    results = [pipelines.ok("pipeline.submit", "--json", "--follow")]
    assert pipelines.until_final()["status"] == "Completed" and "1,2" in results[0].err
    typed = f"work.data={address.replace('HOST', server)}"
    results += [pipelines.ok("pipeline.submit", "--json", "--input", typed), pipelines.ok("pipeline.list")]
    pipelines.until_final()
    results += [pipelines.ok("pipeline.list", "--json"), pipelines.ok("pipeline.status", "--json")]
    seen.check(*results, typed=True)


def test_variables_and_arguments_of_a_step(pipelines: PipelineProject, watch: Callable[..., Watch]) -> None:
    engine = pipelines.environ["AML_ENGINE"]
    pipelines.single(
        "import os, sys\nprint(len(os.environ['DB_PASSWORD']), len(sys.argv))\nraise SystemExit(3)\n",
        f"python work.py --api-key {CANARY}",
        f"environment_variables:\n  DB_PASSWORD: {CANARY}",
    )
    # The cache that the tests share, since an environment is built: what is new in it is looked at.
    cache, begun = Path(os.environ["XDG_CACHE_HOME"]), time.time()
    with Watch(pipelines, pipelines.folder / "none") as seen:
        results = [pipelines.ok("pipeline.debug", "--no-wait", "--json"), pipelines.inv("pipeline.status")]
        containers = _containers(pipelines) if engine == "docker" else ""
        pipelines.until_final()
        results += [pipelines.inv("pipeline.status", "--json"), pipelines.inv("pipeline.tail-log")]
    assert f"{len(CANARY)} 3" in results[-1].out and not _in(containers.encode())
    seen.check(*results, typed=True)
    # Not pathlib's, for which what other tests take away meanwhile is an error.
    for folder, _folders, names in os.walk(cache):
        for path in (Path(folder, name) for name in names if name.endswith(".json")):
            with contextlib.suppress(FileNotFoundError):
                assert path.stat().st_mtime < begun or not _in(path.read_bytes()), path


def _containers(project: Project) -> str:
    """What the engine tells of a project's containers to whoever asks, but for their own command and variables."""
    found = subprocess.run(["docker", "ps", "-aq"], capture_output=True, text=True, check=True).stdout.split()
    inspected = subprocess.run(["docker", "inspect", *found], capture_output=True, text=True, check=False).stdout
    mine = [one for one in json.loads(inspected or "[]") if str(project.folder) in json.dumps(one)]
    return json.dumps([{"name": one["Name"], "labels": one["Config"]["Labels"]} for one in mine])


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[ExperimentProject]:
    made = make_project(tmp_path / "a project", "process")
    (made.folder / "train.py").write_text("import sys\nprint(len(sys.argv))\n")
    project = ExperimentProject(made.folder, made.environ)
    yield project
    project.clean_up()


def test_arguments_of_an_experiment(experiment: ExperimentProject) -> None:
    more = ["--script", "train.py", "--", "--password", CANARY, "--url", f"https://me:{CANARY}@host/?sig={CANARY}"]
    with Watch(experiment, experiment.folder / "none") as seen:
        results = [experiment.ok("experiment.create", "sums", "--json")]
        results += [experiment.ok("experiment.run", "sums", "--json", "--follow", *more)]
        for task in ("experiment.list", "experiment.show"):
            results += [experiment.ok(task), experiment.ok(task, "--json")]
        results += [experiment.inv("experiment.run", "sums", "--data", f"x=https://me:{CANARY}@host/x", "--json")]
    assert "train.py --password *** --url 'https://***@host/?sig=***'" in results[4].out
    results[-1].says("https:/***@host/x")
    seen.check(*results, typed=True)


INDEXES: Mapping[str, tuple[str, dict[str, str]]] = {
    "conda.yml": ("  - --extra-index-url http://me:{canary}@127.0.0.1:1/simple\n      ", {}),
    "environment": ("", {"PIP_EXTRA_INDEX_URL": "http://me:{canary}@127.0.0.1:1/simple"}),
    "proxy": ("", {"HTTPS_PROXY": "http://me:{canary}@127.0.0.1:1", "PIP_INDEX_URL": "https://127.0.0.1:1/simple"}),
    "requirement": ("  - git+http://me:{canary}@127.0.0.1:1/x.git\n      ", {}),
    "address": ("  - x @ http://127.0.0.1:1/x.zip?sv=1&sig={canary}\n      ", {}),
}


@pytest.mark.parametrize("place", INDEXES)
def test_an_index_that_wants_a_password(experiment: ExperimentProject, watch: Callable[..., Watch], place: str) -> None:
    line, variables = INDEXES[place]
    folder = experiment.folder / "env" / "training"
    folder.mkdir(parents=True)
    listed = f"    {line.format(canary=CANARY)}- no-such-package-7zq==1\n".replace("      - no", "      - no")
    (folder / "conda.yml").write_text(f"dependencies:\n- pip:\n{_indented(listed)}")
    seen = watch(experiment)
    more = {name: value.format(canary=CANARY) for name, value in variables.items()} | {"PIP_RETRIES": "0"}
    experiment.ok("experiment.create", "sums")
    run = ["experiment.run", "sums", "--script", "train.py"]
    # With --json, standard error has what is otherwise on standard output.
    result = experiment.inv(*run, "--json", **more)
    result.says("could not")
    # What git is called with is pip's own doing.
    seen.check(result, typed=place == "requirement")


def _indented(text: str) -> str:
    return "".join(f"  {line.strip()}\n" for line in text.splitlines() if line.strip())


SETTINGS = {
    "model address": ({"AML_MODEL_DIR": f"https://host/m?sv=1&sig={CANARY}"}, "deploy.debug"),
    "base image": ({"AML_BASE_IMAGE": f"https://me:{CANARY}@registry/base"}, "deploy.build"),
    "remote host": ({"AML_REMOTE_HOST": f"me:{CANARY}@127.0.0.1"}, "remote.check"),
    "remote address": ({"AML_REMOTE_HOST": f"ssh://me:{CANARY}@127.0.0.1:1"}, "remote.check"),
    "gateway": ({"AML_REMOTE_HOST": "127.0.0.1", "AML_REMOTE_GATEWAY": f"me:{CANARY}@host"}, "remote.check"),
    "setting": ({"AML_IMAGE_TAG": f"https://me:{CANARY}@x"}, "deploy.build"),
    "known value": ({"AML_CONTAINER_NAME": f"/{CANARY}/", "AZURE_CLIENT_SECRET": CANARY}, "deploy.debug"),
    "engine": ({"DOCKER_HOST": f"tcp://me:{CANARY}@127.0.0.1:1", "AML_ENGINE": "docker"}, "deploy.build"),
}


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_settings(tmp_path: Path, watch: Callable[..., Watch], where: str) -> None:
    project = make_project(tmp_path / "a project", "process")
    project.environ.pop("AML_ENGINE")
    seen = watch(project)
    results = []
    for variables, task in SETTINGS.values():
        given = dict(variables)
        if where == ".env":
            own = {name: value for name, value in given.items() if name.startswith(("AML_", "AZURE_"))}
            (project.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in own.items()))
            given = {name: value for name, value in given.items() if name not in own}
        if task == "deploy.build" and "AML_ENGINE" not in variables:
            given |= {"AML_ENGINE": "docker", "DOCKER_HOST": "unix:///nowhere/docker.sock"}
        results.append(project.inv(task, *([] if task == "deploy.build" else ["--json"]), **given))
        assert results[-1].code in (1, 2) and "Traceback" not in results[-1].err
    seen.check(*results)
    project.clean_up()


@pytest.mark.docker
@pytest.mark.parametrize(
    "line",
    [
        f"RUN echo connecting to https://me:{CANARY}@host/ && false",
        f"RUN printf '%s\\n' '-----BEGIN PRIVATE KEY-----' '{KEY_LINE}' '-----END PRIVATE KEY-----'; false",
        f"FROM me:{CANARY}@127.0.0.1:1/image",
        f"ENV API_KEY={CANARY}\\nRUN env; false".replace("\\n", "\n"),
    ],
    # Those of tests that run side by side have to be the same.
    ids=["address", "private key", "base image", "variable"],
)
def test_the_output_of_a_build(docker_engine: None, tmp_path: Path, line: str) -> None:
    project = make_project(tmp_path / "a project", "docker")
    folder = project.folder / "env" / "inference"
    folder.mkdir(parents=True)
    (folder / "conda.yml").write_text("name: secret\ndependencies: []\n")
    (folder / "Dockerfile").write_text(
        line if line.startswith("FROM") else f"ARG BASE_IMAGE\nFROM $BASE_IMAGE\n{line}\n"
    )
    with Watch(project, project.folder / "none") as seen:
        # With --json, standard error has what is otherwise on standard output.
        results = [project.inv("deploy.debug", "--json")]
        results += [project.inv("deploy.build")] if line.startswith("RUN printf") else []
    assert all(result.code == 1 and KEY_LINE not in result.out + result.err for result in results)
    seen.check(*results)
    project.clean_up()


BUG = """
import sys
sys.path.insert(0, {root!r})
from workflows import namespace as ns
from workflows.flows import housekeeping

def fails(*arguments, **more):
    secret = "{canary}"
    try:
        raise OSError(f"cannot open https://me:{{secret}}@host/?sig={{secret}}")
    except OSError as error:
        raise RuntimeError({{"password": secret, "x": "\\x1b[2J\\u202e"}}) from error

for name in dir(housekeeping):
    if getattr(getattr(housekeeping, name), "__module__", "") == housekeeping.__name__:
        setattr(housekeeping, name, fails)
"""


@pytest.mark.parametrize("pressed", ["", "Any configuration"])
def test_a_bug_of_the_programs_own(tmp_path: Path, pressed: str) -> None:
    project = make_project(tmp_path / "a project", "process")
    text = BUG.format(root=str(ROOT), canary=CANARY)
    (project.folder / "tasks.py").write_text(text)
    result = project.inv("container.prune", "--json", MY_TOKEN=CANARY, AZUREML_DEBUG_F5=pressed)
    assert result.code == 1 and "Traceback" in result.err and "RuntimeError" in result.err and "OSError" in result.err
    assert "https://***@host/?sig=***" in result.err and "'password': '***'" in result.err
    assert not _in(result.err.encode()) and "\x1b" not in result.err and "\u202e" not in result.err
    project.clean_up()


def test_a_git_remote_as_the_sdk_records_it(tmp_path: Path) -> None:
    python = python_with_the_sdk()
    environ = {**os.environ, "HOME": str(tmp_path), "AZUREML_GIT_BUILD_URI": f"https://ci/x?token={CANARY}"}
    for command in (["init", "-q"], ["remote", "add", "origin", f"https://me:{CANARY}@github.com/o/r.git"]):
        subprocess.run(["git", *command], cwd=tmp_path, env=environ, check=True)
    code = (
        "from workflows.azureml import sdk; sdk.load()\n"
        "from azureml._base_sdk_common.tracking import global_tracking_info_registry as registry\n"
        "import json; print(json.dumps(registry.gather_all('.')))"
    )
    done = subprocess.run([python, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["azureml.git.repository_uri"] == "https://***@github.com/o/r.git"
    assert found["azureml.git.build_uri"] == "https://ci/x?token=***" and not _in(done.stdout.encode())


# Names with control characters

NAME = "a\x1b]0;title\x07\x1b[2J\u202eb\x9b"
WRITTEN = "a\\x1b]0;title\\x07\\x1b[2J\\u202eb\\x9b"


@pytest.mark.parametrize("engine", ["process"], indirect=True)
def test_names_with_control_characters_are_only_shown(pipelines: PipelineProject) -> None:
    pipelines.single("print('done')\n")
    text = pipelines.pipeline.read_text()
    pipelines.pipeline.write_text(text + f"    {json.dumps(NAME)}: 1\n    display_name: {json.dumps(NAME)}\n")
    folder = pipelines.folder / f"folder {NAME}"
    folder.mkdir()
    (folder / "pipeline.yml").write_text("jobs: [")
    results = [
        pipelines.inv("pipeline.submit"),
        pipelines.inv("pipeline.submit", "--pipeline-file", str(folder / "pipeline.yml")),
        pipelines.inv("pipeline.submit", "--pipeline-file", f"none {NAME}.yml", "--json"),
        pipelines.inv("pipeline.status", "--run", NAME),
        pipelines.inv("pipeline.debug", "--step", NAME),
        pipelines.inv("pipeline.submit", "--input", f"{NAME}=1"),
        pipelines.inv("experiment.create", NAME),
        pipelines.inv("deploy.debug", "--container-name", NAME),
        pipelines.inv("container.list", "--json"),
        pipelines.inv("pipeline.list"),
    ]
    for result in results:
        for stream in (result.out, result.err):
            assert all(one.isprintable() or one in "\n\t" for one in stream), ascii(stream)
    assert sum(WRITTEN in result.out + result.err for result in results) >= 5
