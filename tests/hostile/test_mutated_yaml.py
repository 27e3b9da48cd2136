"""Configuration files that somebody has made wrong: each is read, or refused in two lines with the place."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import Hostile
from deployment_files import BLUE, KUBERNETES, MANY, OWN, make
from mutations import LINES, YAML, mutated
from pipelines import PIPELINE
from projects import ROOT
from runconfigs import SAVED
from test_pipeline_parallel import BATCH, COMPONENT, JOB, SWEEP

from workflows.deployments import overlay
from workflows.environments.definition import load_definition
from workflows.environments.references import resolve_environment
from workflows.errors import UserError
from workflows.experiments.runconfig import read as read_runconfig
from workflows.experiments.runconfig import write as write_runconfig
from workflows.flows.specification import serving_of
from workflows.pipelines.commands import debugged_command, names_own_script, published_option
from workflows.pipelines.expressions import render_command
from workflows.pipelines.parts import Parts
from workflows.pipelines.reader import load_pipeline
from workflows.settings import Settings, resolve
from workflows.yaml_nodes import MOST_NODES, compose

CONDA = b"""\
name: train
channels: [conda-forge, &d defaults]
dependencies:
  - python=3.11
  - numpy>=1.26,<3
  - conda-forge::pandas=2.*=py311_0
  - pip
  - pip:
      # ours
      - -r requirements.txt
      - ./package[extra] ; python_version > "3.8"
      - requests @ https://example.org/requests.whl#egg=requests
      - --extra-index-url https://example.org/simple
"""
REQUIREMENTS = b"""\
# what is wanted
numpy>=1.26 \\
    --hash=sha256:0123 # a hash
-c constraints.txt
-e ./package#egg=package
--find-links ./wheels
torch ; sys_platform == "linux"
"""
DOTENV = b"""\
# settings
AML_ENGINE=process
export AML_SCORE_SCRIPT="service/score.py"
AML_DEBUG_PORT='5679'   # ours
AML_AUTH=interactive
AML_IMAGE_TAG=debug:1
AML_WORKSPACE=${HOME}
AZURE_CLIENT_SECRET="two
lines"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project's folder with whatever the files name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("package", "wheels", "src", "some data", "prepare", "add", "tell", "env"):
        (tmp_path / name).mkdir()
    (tmp_path / "package" / "setup.py").write_text("")
    (tmp_path / "constraints.txt").write_text("numpy<3\n")
    yield tmp_path


def outcome(read: Callable[[], object], *files: Path) -> str:
    """What comes of reading: nothing but a value, or two lines that tell the place where it is a file's.

    Of several things that are wrong there are two lines each.
    """
    try:
        read()
    except UserError as error:
        text = str(error)
        each = [str(one) for one in getattr(error, "errors", [error])]
        assert text.splitlines()[:40] == "\n".join(each).splitlines()[:40], text[:500]
        assert all(one.count("\n") == 1 for one in each), text[:500]
        assert all(len(one) < 9000 for one in each), text[:500]
        assert error.file is not None or not files, text[:500]
        if error.line is not None:
            assert error.line >= 1
        return text
    return ""


def generated(source: random.Random, levels: int = 3) -> str:
    """A value in braces, of any kind."""
    leaf = (
        "a",
        "1",
        "1.5",
        "true",
        "null",
        "~",
        "'x'",
        '"y"',
        "2020-01-01",
        "&k v",
        "!!str 1",
        "./src",
        "${{inputs.x}}",
    )
    if levels == 0 or source.random() < 0.3:
        return source.choice(leaf)
    inner = [generated(source, levels - 1) for _ in range(source.randint(0, 3))]
    if source.random() < 0.5:
        return "[" + ", ".join(inner) + "]"
    names = (
        "command",
        "component",
        "inputs",
        "outputs",
        "type",
        "path",
        "code",
        "environment",
        "default",
        "enum",
        "min",
    )
    return "{" + ", ".join(f"{source.choice(names)}: {one}" for one in inner) + "}"


def _described(settings: Settings) -> None:
    serving_of(overlay.apply_deployment_file(settings).deployment)


def test_a_mutated_deployment_is_read_or_refused(folder: Path, hostile: Hostile) -> None:
    make(folder, own=OWN, many=MANY, green=KUBERNETES)
    (folder / "endpoints" / "image").mkdir()
    (folder / "endpoints" / "image" / "Dockerfile").write_text("FROM somewhere\nCOPY . /app\n")
    file = folder / "endpoints" / "mutated.yml"
    originals = [text.encode() for text in (BLUE, OWN, MANY, KUBERNETES)]
    refused = 0
    for index in range(hostile.count):
        rng = hostile.random(index)
        file.write_bytes(mutated(rng.choice(originals), rng, YAML))
        settings = resolve(folder, {"deployment": str(file)}, environ={}, cwd=folder)
        refused += bool(outcome(functools.partial(_described, settings), file))
    assert refused


def test_a_mutated_pipeline_is_read_or_refused(folder: Path, hostile: Hostile) -> None:
    example = ROOT / "examples" / "pipeline"
    originals = {
        "pipeline.yml": (example / "pipeline.yml").read_bytes(),
        "train/component.yml": (example / "train" / "component.yml").read_bytes(),
        "score/component.yml": (example / "score" / "component.yml").read_bytes(),
        "conda.yml": CONDA,
        "requirements.txt": REQUIREMENTS,
    }
    second = PIPELINE.encode()
    for name in ("train/train.py", "score/score.py", "evaluate/evaluate.py", "data/houses.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((example / name).read_bytes())
    settings = resolve(folder, {}, environ={}, cwd=folder)
    read = 0
    for index in range(hostile.count):
        source = hostile.random(index)
        files = dict(originals)
        if source.random() < 0.3:
            files["pipeline.yml"] = second
        if source.random() < 0.5:
            files["pipeline.yml"] += b"    environment: {image: debian, conda_file: conda.yml}\n"
        chosen = source.choice([*files, "pipeline.yml", "pipeline.yml"])
        if source.random() < 0.2:
            made = (
                "{jobs: {a: "
                + generated(source)
                + ", b: "
                + generated(source)
                + "}, inputs: "
                + generated(source)
                + "}"
            )
            files["pipeline.yml"] = made.encode()
        else:
            files[chosen] = mutated(files[chosen], source, LINES if chosen.endswith(".txt") else YAML)
        for name, data in files.items():
            (folder / name).write_bytes(data)

        def load() -> None:
            pipeline = load_pipeline(folder / "pipeline.yml")
            for step in pipeline.steps:
                debugged_command(step.command, "/launch.py")
                names_own_script(step.command, step.code, step.includes)
                published_option(step.command, "--remote_debug_port")
                values = {f"inputs.{name}": "x" for name in step.inputs} | {
                    f"outputs.{name}": "y" for name in step.outputs
                }
                render_command(step, values)
                resolve_environment(step.environment, settings, "process")

        read += not outcome(load, folder / "pipeline.yml")
    assert read or hostile.count < 50


def test_a_mutated_parallel_job_batch_deployment_or_sweep_is_read_or_refused(folder: Path, hostile: Hostile) -> None:
    for name in ("data", "model"):
        (folder / name).mkdir()
    (folder / "data" / "MLTable").write_text("paths: []\n")
    (folder / "src" / "score.py").touch()
    (folder / "score.py").touch()
    originals = [textwrap.dedent(text).encode() for text in (JOB, COMPONENT, BATCH, SWEEP)]
    file, read = folder / "mutated.yml", 0

    def load(inputs: dict[str, str]) -> None:
        pipeline = load_pipeline(file, inputs)
        for parts in (Parts(trials=3), Parts(mini_batch=1)):
            with contextlib.suppress(UserError):
                pipeline = parts.select_from(pipeline)
        for step in pipeline.steps:
            debugged_command(step.command, "/launch.py")

    for index in range(hostile.count):
        source = hostile.random(index)
        original = source.choice(originals)
        file.write_bytes(mutated(original, source, YAML))
        inputs = {"data": str(folder / "data")} if original in originals[1:3] else {}
        read += not outcome(functools.partial(load, inputs))
    assert read or hostile.count < 50


def test_a_mutated_run_configuration_is_read_and_changed_or_refused(folder: Path, hostile: Hostile) -> None:
    path = folder / ".azureml" / "sums.runconfig"
    path.parent.mkdir()
    (path.parent / "conda_dependencies.yml").write_bytes(CONDA)
    (folder / "train.py").write_text("")
    read = 0
    for index in range(hostile.count):
        source = hostile.random(index)
        data = mutated(SAVED.encode(), source, YAML)
        path.write_bytes(data)

        def load() -> None:
            config = read_runconfig(path)
            was = path.read_bytes()
            try:
                write_runconfig(
                    path, replace(config, arguments=("--rate", "2 x"), node_count=3, conda_file="other.yml")
                )
            except UserError:
                assert path.read_bytes() == was
                raise
            after = read_runconfig(path)
            assert (after.arguments, after.node_count) == (("--rate", "2 x"), 3)
            for line in was.splitlines():
                if line.strip().startswith(b"#"):
                    assert line in path.read_bytes()

        read += not outcome(load, path)
    assert read or hostile.count < 50


def test_a_mutated_conda_file_is_read_or_refused(folder: Path, hostile: Hostile) -> None:
    for index in range(hostile.count):
        source = hostile.random(index)
        conda, requirements = CONDA, REQUIREMENTS
        if source.random() < 0.6:
            conda = mutated(conda, source, YAML)
        else:
            requirements = mutated(requirements, source, LINES)
        (folder / "env" / "conda.yml").write_bytes(conda)
        (folder / "env" / "requirements.txt").write_bytes(requirements)
        (folder / "env" / "package").mkdir(exist_ok=True)
        (folder / "env" / "constraints.txt").write_bytes(b"numpy<3\n")

        def load() -> None:
            default = ROOT / "env" / "training" / "Dockerfile"
            found = load_definition(folder / "env", required=("debugpy>=1.8",), default_dockerfile=default)
            found.translate_conda()
            found.requirements_digest()

        outcome(load, folder / "env")


def test_a_mutated_env_file_is_read_or_refused(folder: Path, hostile: Hostile) -> None:
    for index in range(hostile.count):
        source = hostile.random(index)
        (folder / ".env").write_bytes(mutated(DOTENV, source, LINES))
        outcome(lambda: resolve(folder, {}, environ={}, cwd=folder), folder / ".env")


def plain(node: yaml.Node | None) -> object:
    if isinstance(node, yaml.MappingNode):
        return [(plain(key), plain(value)) for key, value in node.value]
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in node.value]
    return None if node is None else (node.tag, node.value, node.start_mark.line)


def test_the_tree_is_that_of_pyyaml_by_either_of_its_parsers(hostile: Hostile) -> None:
    originals = [PIPELINE.encode(), SAVED.encode(), CONDA]
    same = 0
    for index in range(hostile.count):
        source = hostile.random(index)
        data = mutated(source.choice(originals), source, YAML)
        try:
            text = data.decode()
            expected = plain(yaml.compose(text, Loader=yaml.SafeLoader))
        except (UnicodeDecodeError, yaml.YAMLError, RecursionError):
            continue
        for loader in {getattr(yaml, "CSafeLoader", yaml.SafeLoader), yaml.SafeLoader}:
            try:
                found = plain(compose(text, Path("x.yml"), loader))
            except UserError as error:
                # What libyaml takes for an error and PyYAML does not, and what goes beyond our limits.
                assert error.line is not None or "special characters" in error.problem or "control" in error.problem
                continue
            if loader is yaml.SafeLoader:
                assert found == expected
            same += found == expected
    assert same > hostile.count * 0.3 or hostile.count < 50


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
def test_aliases_that_stand_for_billions_of_values_are_refused_at_the_line_that_goes_too_far(loader: str) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 9)]
    with pytest.raises(UserError, match=f"more than {MOST_NODES} values") as caught:
        compose("\n".join(lines), Path("x.yml"), getattr(yaml, loader, yaml.SafeLoader))
    assert caught.value.line == 5


@pytest.mark.parametrize(
    "text",
    ["[" * 1_000_000, "{a: " * 300_000, "- " * 300_000, "a: &a {<<: *a}", "a: [" + "x," * 300_000 + "]"],
    ids=["brackets", "braces", "dashes", "itself", "values"],
)
def test_what_goes_beyond_the_limits_is_refused_and_ends_no_process(folder: Path, text: str) -> None:
    for name, read in {
        "p.yml": lambda path: load_pipeline(path),
        "r.runconfig": read_runconfig,
        "conda.yml": lambda path: load_definition(path.parent, default_dockerfile=path),
    }.items():
        path = folder / "env" / name
        path.write_text(text)
        found = outcome(lambda read=read, path=path: read(path), path)  # type: ignore[misc]
        assert f"{os.path.join('env', name)}:1: error: " in found
