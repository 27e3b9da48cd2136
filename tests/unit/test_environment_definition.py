"""Environment definitions: what is read, what is refused and where, what changes the digest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workflows.environments.context import build_context, conda_text, pip_files
from workflows.environments.definition import EnvironmentDefinition, load_definition
from workflows.environments.pip_failures import install_error
from workflows.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "defined"
    path.mkdir()
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n")
    return path


def load(folder: Path, *required: str) -> EnvironmentDefinition:
    return load_definition(folder, required=required, default_dockerfile=folder.parent / "default" / "Dockerfile")


def pip_lines(definition: EnvironmentDefinition) -> list[str]:
    return [item.render() for item in definition.pip]


def test_our_own_environments_can_be_read() -> None:
    # What a script is run in has the debugger only where the run is debugged.
    for name, added in {"inference": [], "training": ["debugpy"]}.items():
        definition = load_definition(ROOT / "env" / name, required=["debugpy>=1.8"], default_dockerfile=ROOT / "none")
        assert definition.name == name
        assert definition.python == ">=3.10"
        assert "debugpy" in {item.name for item in definition.pip}
        assert [item.name for item in definition.added] == added
        assert ("azureml-inference-server-http" in {item.name for item in definition.pip}) == (name == "inference")


def test_conda_file_with_everything(folder: Path) -> None:
    (folder / "conda.yml").write_text(
        "name: some env\n"
        "channels: [conda-forge, defaults]\n"
        "dependencies:\n"
        "  - python=3.10\n"
        "  - conda-forge::numpy=1.26\n"
        "  - pip\n"
        "  - pip:\n"
        "      - -r more/requirements.txt\n"
        "      - pandas>=2  # for frames\n"
    )
    (folder / "more").mkdir()
    (folder / "more" / "requirements.txt").write_text(
        "# first\n--extra-index-url file:///nowhere\nflask>=3, \\\n    <4\n-c limits.txt\n-r ../other.txt\n"
    )
    (folder / "more" / "limits.txt").write_text("werkzeug<4\n")
    (folder / "other.txt").write_text("\ufeffClick_Plugins==1.1 ; python_version > '3'\n", "utf-8")
    definition = load(folder)
    assert definition.name == "some env"
    assert definition.channels == ("conda-forge", "defaults")
    assert definition.python == "=3.10"
    assert [item.text for item in definition.conda] == ["conda-forge::numpy=1.26"]
    assert [(item.name, item.file and item.file.name, item.line) for item in definition.pip] == [
        ("flask", "requirements.txt", 3),
        ("click-plugins", "other.txt", 1),
        ("pandas", "conda.yml", 9),
    ]
    assert definition.pip[0].text == "flask>=3,     <4"
    assert definition.options == ("--extra-index-url file:///nowhere",)
    assert definition.constraints == ("werkzeug<4",)
    files = pip_files(definition, translated=True)
    assert files["requirements.txt"].splitlines()[:3] == [
        "--extra-index-url file:///nowhere",
        "-c constraints.txt",
        "numpy==1.26.*",
    ]
    assert '"python=3.10"' in conda_text(definition, python=None)


def test_requirements_file_alone(folder: Path) -> None:
    (folder / "requirements.txt").write_text("flask\n")
    definition = load(folder)
    assert (definition.name, pip_lines(definition), definition.python) == ("defined", ["flask"], "")


@pytest.mark.parametrize(
    ("line", "added"),
    [
        ("flask", ["debugpy>=1.8", "azureml-inference-server-http>=1"]),
        ("DebugPy==1.8.0", ["azureml-inference-server-http>=1"]),
        ("azureml_inference.server-http", ["debugpy>=1.8"]),
        ("azureml-defaults==1.61", ["debugpy>=1.8"]),
        # Under a condition that may not hold.
        ("debugpy[x] ; python_version > '3'", ["debugpy>=1.8,<2", "azureml-inference-server-http>=1"]),
        ("azureml-inference-server-http==1.4 ; sys_platform == 'x'", ["debugpy>=1.8", "azureml-inference-server-http"]),
        ("debugpy ; sys_platform == 'x'\ndebugpy==1.8.5", ["azureml-inference-server-http>=1"]),
        ("debugpy @ https://example.invalid/d.whl", ["azureml-inference-server-http>=1"]),
        ("git+https://example.invalid/d.git#egg=debugpy", ["azureml-inference-server-http>=1"]),
        ("debugpy-run", ["debugpy>=1.8", "azureml-inference-server-http>=1"]),
    ],
)
def test_required_packages_are_added_only_where_missing(folder: Path, line: str, added: list[str]) -> None:
    (folder / "requirements.txt").write_text(line + "\n")
    definition = load(folder, "debugpy>=1.8", "azureml-inference-server-http>=1")
    assert [item.text for item in definition.added] == added


@pytest.mark.parametrize(
    "line",
    [
        "debugpy==1.6.7",
        "debugpy<1.8  # why",
        "debugpy[x]>=1.5,<1.8.0 ; python_version > '3'",
        "debugpy (~=1.7.0)",
        "debugpy>=2",
        "DebugPy==1.6.0 --hash=sha256:00",
    ],
)
@pytest.mark.parametrize("form", ["requirements.txt", "conda.yml", "conda", "constraints"])
def test_versions_of_debugpy_that_cannot_be_used_are_refused_at_their_place(folder: Path, line: str, form: str) -> None:
    requirements, conda = folder / "requirements.txt", folder / "conda.yml"
    place = f"{requirements}:2"
    if form == "requirements.txt":
        requirements.write_text(f"flask\n{line}\n")
    elif form == "constraints":
        (folder / "limits.txt").write_text(f"flask\n{line}\n")
        requirements.write_text("-c limits.txt\n")
        place = f"{folder / 'limits.txt'}:2"
    else:
        place = f"{conda}:2"
        inner = f'- pip: ["{line}"]' if form == "conda.yml" else "- debugpy=1.6"
        conda.write_text(f"dependencies:\n  {inner}\n")
    with pytest.raises(UserError) as refused:
        load(folder, "debugpy>=1.8.22,<2")
    assert f"{refused.value.file}:{refused.value.line}" == place
    assert "debugpy 1.8 or newer" in refused.value.problem and "debugpy>=1.8" in refused.value.remedy


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "==1.8",
        "==1.8.0",
        "==1.8.*",
        "<=1.8",
        ">1.8.22,<1.8.24",
        "==1.8.17",
        ">=1.6",
        "<2",
        "!=1.8.0,<1.8.2",
        "~=1.8",
        "===1.8.5",
        " @ https://example.invalid/debugpy-1.0.whl",
        ">=1.9",
    ],
)
def test_every_rule_that_leaves_a_usable_debugpy_is_taken(folder: Path, rule: str) -> None:
    (folder / "requirements.txt").write_text(f"debugpy{rule}\n")
    assert load(folder, "debugpy>=1.8.22,<2").added == ()


def test_what_is_added_keeps_within_the_definitions_own_limits(folder: Path) -> None:
    (folder / "limits.txt").write_text("debugpy==1.8.5\n")
    (folder / "requirements.txt").write_text("-c limits.txt\n")
    assert [item.text for item in load(folder, "debugpy>=1.8.22,<2").added] == ["debugpy>=1.8,<2"]


def test_a_required_package_of_condas_counts(folder: Path) -> None:
    (folder / "conda.yml").write_text("dependencies: [debugpy=1.8, pip]\n")
    assert load(folder, "debugpy").added == ()


def test_added_packages_without_hashes_come_in_a_run_of_their_own(folder: Path) -> None:
    (folder / "requirements.txt").write_text("flask==3 \\\n  --hash=sha256:00\n")
    files = pip_files(load(folder, "debugpy"), translated=True)
    assert files["requirements.txt"] == "flask==3   --hash=sha256:00\n"
    assert files["requirements-added.txt"] == "debugpy\n"


@pytest.mark.parametrize("text", ["-e ./tool", "./tool[extra] ; python_version > '3'", "-e ../defined/tool"])
def test_local_packages(folder: Path, text: str) -> None:
    (folder / "tool").mkdir()
    (folder / "tool" / "setup.py").write_text("")
    (folder / "requirements.txt").write_text(text + "\n")
    first = load(folder)
    (item,) = first.pip
    assert item.local == (folder / "tool").resolve()
    assert str(item.local) in item.render()
    assert item.editable == text.startswith("-e")
    (folder / "tool" / "setup.py").write_text("changed")
    assert load(folder).content != first.content


def test_a_wheel_counts_by_its_name_and_bytes_and_not_by_its_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "Dockerfile").touch()
        (folder / "requirements.txt").write_text("./own-1-py3-none-any.whl\n")
        (folder / "own-1-py3-none-any.whl").write_bytes(b"a wheel")
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert (one.content, one.requirements_digest("a")) == (two.content, two.requirements_digest("a"))
    (tmp_path / "two" / "own-1-py3-none-any.whl").write_bytes(b"another")
    two = load(tmp_path / "two")
    assert one.content != two.content and one.requirements_digest("a") != two.requirements_digest("a")


BROKEN = [
    ("conda.yml", "dependencies: [a\n  b: {\n", "not valid YAML", 2),
    ("conda.yml", "- a\n- b\n", "has to be a mapping", 1),
    ("conda.yml", "", "has to be a mapping", 1),
    ("conda.yml", "name: x\n", "no list `dependencies`", None),
    ("conda.yml", "name: x\ndependencies: a\n", "`dependencies` has to be a list", 2),
    ("conda.yml", "dependencies:\n  - a\n  - [b]\n", "must be a string", 3),
    ("conda.yml", "dependencies:\n  - a\n  - npm: [b]\n", "can only be `pip:`", 3),
    ("conda.yml", "dependencies:\n  - pip: b\n", "`pip` has to be a list", 2),
    ("conda.yml", "dependencies:\n  - pip:\n    - {a: b}\n", "must be a string", 3),
    ("conda.yml", "dependencies:\n  - '=1'\n", "is not a package", 2),
    ("conda.yml", "name: [a]\ndependencies: []\n", "`name` must be a string", 1),
    ("conda.yml", "dependencies:\n  - pip:\n    - a\n    - -r gone.txt\n", "gone.txt does not exist", 4),
    ("requirements.txt", "a\n\n-r gone.txt\n", "gone.txt does not exist", 3),
    ("requirements.txt", "a\n-c gone.txt\n", "gone.txt does not exist", 2),
    ("requirements.txt", "a\n-e ./gone\n", "./gone does not exist", 2),
    ("requirements.txt", "a\n-r requirements.txt\n", "includes itself", 2),
    ("requirements.txt", "a\n-r .\n", "is not a regular file", 2),
    ("requirements.txt", "a\n-c /dev/zero\n", "/dev/zero is not a regular file", 2),
]


@pytest.mark.parametrize(("name", "text", "problem", "line"), BROKEN)
def test_broken_definitions_say_where(folder: Path, name: str, text: str, problem: str, line: int | None) -> None:
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=problem.replace("`", ".")) as caught:
        load(folder)
    assert caught.value.file == folder / name
    assert caught.value.line == line
    assert "\n" not in caught.value.problem


def test_a_file_that_is_not_utf8(folder: Path) -> None:
    (folder / "requirements.txt").write_bytes(b"a\nb # \xff\n")
    with pytest.raises(UserError, match="not UTF-8") as caught:
        load(folder)
    assert caught.value.line == 2


def test_missing_folder_and_empty_folder(folder: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load(folder / "gone")
    with pytest.raises(UserError, match=r"no conda\.yml or requirements\.txt"):
        load(folder)


def test_what_changes_the_digest(folder: Path) -> None:
    (folder / "requirements.txt").write_text("flask\n-r ../outside.txt\n")
    outside = folder.parent / "outside.txt"
    outside.write_text("click\n")
    script = folder / "runit" / "svc" / "run"
    script.parent.mkdir(parents=True)
    script.write_text("exec true\n")
    seen = {load(folder).digest("a")}

    def changed(definition: EnvironmentDefinition, *parts: str) -> None:
        digest = definition.digest(*parts)
        assert digest not in seen
        assert len(digest) == 64
        seen.add(digest)

    assert load(folder).digest("a") in seen
    changed(load(folder), "b")
    changed(load(folder), "a", "")
    changed(load(folder, "debugpy"), "a")
    script.chmod(0o755)
    changed(load(folder), "a")
    outside.write_text("click>8\n")
    changed(load(folder), "a")
    (folder / "data.bin").write_bytes(b"\0")
    changed(load(folder), "a")
    (folder / "data.bin").rename(folder / "other.bin")
    changed(load(folder), "a")
    (folder.parent / "default" / "Dockerfile").write_text("FROM scratch\n")
    changed(load(folder), "a")
    for cache in ("__pycache__/x.pyc", ".git/HEAD", "runit/svc/supervise/status"):
        path = folder / cache
        path.parent.mkdir()
        path.write_text("")
    os.mkfifo(folder / "fifo")
    assert load(folder).digest("a") in seen


def test_of_an_editable_package_counts_what_decides_how_it_is_installed(folder: Path) -> None:
    package = folder.parent / "a package"
    (package / "own").mkdir(parents=True)
    for name in ("setup.py", "setup.cfg", "own/__init__.py"):
        (package / name).write_text("")
    for place in (package, folder / "inside"):
        if place != package:
            package.rename(place)
        (folder / "requirements.txt").write_text(f"-e {place}\n")
        seen = load(folder).digest("a")
        assert load(folder).live == (place,)
        (place / "own" / "__init__.py").write_text("x = 1\n")
        assert load(folder).digest("a") == seen
        assert load(folder).as_copies().digest("a") not in (seen, load(folder).as_copies().digest("b"))
        for name in ("own/more.py", "setup.py", "setup.cfg"):
            (place / name).write_text(f"# {seen}\n")
            assert load(folder).digest("a") != seen
            seen = load(folder).digest("a")
        (place / "own" / "more.py").unlink()
    copied = load(folder).as_copies().digest("a")
    (place / "own" / "__init__.py").write_text("x = 2\n")
    assert load(folder).as_copies().digest("a") != copied
    # What has to be compiled would be missing in the folder, and one without `-e` is a copy anyway.
    (place / "own" / "fast.pyx").write_text("")
    assert load(folder).live == ()
    (place / "own" / "fast.pyx").unlink()
    (folder / "requirements.txt").write_text(f"{place}\n")
    assert load(folder).live == ()


def test_in_an_image_an_editable_package_is_installed_from_where_it_is(folder: Path) -> None:
    import tarfile

    package = folder.parent / "a package"
    package.mkdir()
    (package / "setup.py").write_text("")
    (folder / "requirements.txt").write_text(f"-e {package}\n")
    for definition, line in (
        (load(folder), f"-e {package.as_uri()}\n"),
        (load(folder).as_copies(), "./local/0\n"),
    ):
        with build_context(definition, None) as file, tarfile.open(fileobj=file) as tar:
            names = set(tar.getnames())
            read = {name: tar.extractfile(name) for name in names if name.startswith(".azureml-debug/")}
            texts = {name: found.read().decode() for name, found in read.items() if found is not None}
        assert texts[".azureml-debug/requirements-all.txt"] == line
        assert ".azureml-debug/local/0/setup.py" in names
        assert texts.get(".azureml-debug/live") == (f"local/0\t{package}\n" if definition.live else None)


def test_context_of_a_folder_without_dockerfile_and_runit(folder: Path) -> None:
    import tarfile

    run = folder.parent / "default" / "runit" / "svc" / "run"
    run.parent.mkdir(parents=True)
    run.write_text("#!/bin/sh\n")
    (folder / "requirements.txt").write_text("flask\n./tool\n")
    (folder / "tool").mkdir()
    (folder / "tool" / "setup.py").write_text("")
    (folder / ".dockerignore").write_text("*\n")
    odd = folder / "naïve file \udcff.txt"
    odd.write_text("x")
    with build_context(load(folder, "debugpy"), None) as file, tarfile.open(fileobj=file) as tar:
        names = {item.name: item for item in tar}
        extracted = tar.extractfile(".azureml-debug/requirements-all.txt")
        assert extracted is not None
        requirements = extracted.read().decode()
    assert requirements == "flask\n./local/0\ndebugpy\n"
    assert ".dockerignore" not in names
    assert names["runit/svc/run"].mode == 0o755
    assert {"Dockerfile", ".azureml-debug/install.sh", ".azureml-debug/local/0/setup.py"} <= set(names)
    assert odd.name in names


@pytest.mark.parametrize("adds", [True, False], ids=["added by the Dockerfile", "extracted by install.sh"])
@pytest.mark.parametrize("made", [True, False], ids=["made here", "made in the image"])
def test_a_dockerfile_gets_the_packages_in_one_way_only(folder: Path, tmp_path: Path, adds: bool, made: bool) -> None:
    import tarfile

    text = "FROM base\nCOPY .azureml-debug /tmp/it\nRUN sh /tmp/it/install.sh\n"
    (folder / "Dockerfile").write_text(text + "ADD .azureml-debug-packages.tar /opt/env/\n" * adds)
    (folder / "requirements.txt").write_text("flask\n")
    module = tmp_path / "packages" / "environment" / "lib" / "flask.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    with (
        build_context(load(folder), tmp_path / "packages" if made else None) as file,
        tarfile.open(fileobj=file) as tar,
    ):
        names = set(tar.getnames())
        inner = {}
        for name in (".azureml-debug-packages.tar", ".azureml-debug/environment.tar"):
            if name in names:
                with tarfile.open(fileobj=tar.extractfile(name)) as packages:
                    inner[name] = packages.getnames()
    found = [".", "lib/flask.py"] if made else ["."]
    if adds:
        # An engine cannot add a file that is not there, and extracts no tar file without an entry.
        assert inner == {".azureml-debug-packages.tar": found}
    else:
        assert inner == ({".azureml-debug/environment.tar": found} if made else {})
    assert (".azureml-debug/packages-added" in names) == (adds and made)
    assert (".azureml-debug/requirements-all.txt" in names) == (not made)


@pytest.mark.parametrize(
    ("output", "reason", "line"),
    [
        (
            "ERROR: Could not find a version that satisfies the requirement nope==1 (from versions: none)\n"
            "ERROR: No matching distribution found for nope==1\n"
            "[notice] A new release of pip is available",
            "No matching distribution found for nope==1",
            2,
        ),
        (
            "ERROR: Cannot install flask==3 and werkzeug==1 because these package versions have "
            "conflicting dependencies.\nERROR: ResolutionImpossible: for help visit",
            "Cannot install flask==3 and werkzeug==1",
            1,
        ),
        ("ERROR: Invalid requirement: 'flask=>3'", "Invalid requirement", 1),
        ("something else broke", "something else broke", None),
        ("", "it said nothing", None),
    ],
)
def test_what_pip_said(folder: Path, output: str, reason: str, line: int | None) -> None:
    (folder / "requirements.txt").write_text("flask\nnope==1\n")
    error = install_error(load(folder), output.splitlines())
    assert reason in error.problem
    assert "`defined`" in error.problem
    assert error.line == line
    assert (f"line {line} of" in error.remedy) is (line is not None)
    assert all("[notice]" not in text for text in error.details)


def test_no_network_is_not_blamed_on_the_requirement(folder: Path) -> None:
    (folder / "requirements.txt").write_text("flask\n")
    lines = [
        "WARNING: Retrying (Retry(total=4)) after connection broken",
        "ERROR: No matching distribution found for flask",
    ]
    error = install_error(load(folder), lines)
    assert "could not reach the package index" in error.problem
    assert "network" in error.remedy
