"""Environments as uv makes them: pip's settings, what is shared, what pip does, Pythons that are fetched."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packages import serving, wheel

from workflows.environments import store, uv, virtual_environments
from workflows.environments.definition import load_definition
from workflows.environments.virtual_environments import BuiltEnvironment
from workflows.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of pip's, and none of the machine's own indexes: only what a test says."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    return folder


def build(folder: Path, cache: Path, requirements: str, lines: list[str] | None = None) -> BuiltEnvironment:
    folder.mkdir(exist_ok=True)
    (folder / "requirements.txt").write_text(requirements)
    definition = load_definition(folder, default_dockerfile=ROOT / "env" / "training" / "Dockerfile")
    told = lines if lines is not None else []
    return virtual_environments.ensure_environment(definition, cache, told.append)


def says(built: BuiltEnvironment, code: str) -> str:
    done = subprocess.run([built.python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


# Where packages come from


def test_indexes_that_ask_for_a_password(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is in a file of pip's, in an address, in .netrc and in a keyring."""
    monkeypatch.delenv("UV_CACHE_DIR")  # what is kept there is looked through
    word = "s3cret-word"
    names = ("of-file", "of-address", "of-netrc", "of-keyring")
    with contextlib.ExitStack() as stack:
        indexes = [
            stack.enter_context(serving(wheel(tmp_path / "wheels" / name, name).parent, f"me:{word}")) for name in names
        ]
        of_file, of_address, of_netrc, of_keyring = indexes
        (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {of_file.address(f'me:{word}')}\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
        # Passwords in .netrc are for a machine, with any of its ports.
        without = of_netrc.address().replace("127.0.0.1", "localhost")
        others = (of_address.address(f"me:{word}"), without, of_keyring.address("me"))
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", " ".join(others))
        (tmp_path / "home" / ".netrc").write_text(f"machine localhost login me password {word}\n")
        (tmp_path / "home" / ".netrc").chmod(0o600)
        programs = tmp_path / "programs"
        programs.mkdir()
        program = programs / "keyring"
        program.write_text(f'#!/bin/sh\ntest "$1 $3" = "get me" && echo {word}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("PIP_KEYRING_PROVIDER", "subprocess")
        lines: list[str] = []
        built = build(tmp_path / "defined", cache, "".join(f"{name}\n" for name in names), lines)
        assert all(f"me:{word}" in index.seen for index in indexes)
        with pytest.raises(UserError) as caught:
            build(tmp_path / "other", cache, "no-such-thing\n", lines)
    assert says(built, "import of_file, of_address, of_netrc, of_keyring; print(of_keyring.answer)") == "42"
    assert built.notes == ()
    assert word not in "\n".join([*lines, str(caught.value), *caught.value.details])
    left = [path for path in cache.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]
    assert left == []


def test_the_best_version_of_all_indexes_and_folders_counts(
    tmp_path: Path, cache: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(wheels, "aa", "1.0")
    wheel(wheels, "bb", "3.0")
    other = tmp_path / "the other"
    wheel(other, "aa", "2.0")
    links = tmp_path / "links"
    wheel(links, "bb", "4.0rc1")
    wheel(links, "cc", "0.1rc1")
    with serving(wheels) as first, serving(other) as second:
        monkeypatch.setenv("PIP_INDEX_URL", first.address())
        requirements = f"--extra-index-url {second.address()}\n--find-links ../links\naa\nbb\ncc\n"
        built = build(tmp_path / "defined", cache, requirements)
        versions = "from importlib.metadata import version; print(*map(version, ('aa', 'bb', 'cc')))"
        assert says(built, versions) == "2.0 3.0 0.1rc1"
        later = build(tmp_path / "defined", cache, f"--pre\n{requirements}")
        assert says(later, versions) == "2.0 4.0rc1 0.1rc1"
        # What has been uploaded a moment ago is found.
        wheel(other, "aa", "2.1")
        newest = build(tmp_path / "defined", cache, f"{requirements}# again\n")
        assert says(newest, versions) == "2.1 3.0 0.1rc1"
        monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
        (tmp_path / "constraints.txt").write_text("aa<2\n")
        assert says(build(tmp_path / "defined", cache, f"{requirements}# pinned\n"), versions) == "1.0 3.0 0.1rc1"


def test_hashes_are_checked(tmp_path: Path, cache: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wheel(wheels, "aa")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    build(tmp_path / "defined", cache, f"aa==1.0 --hash=sha256:{digest}\n")
    with pytest.raises(UserError, match=r"Hash mismatch for `aa==1\.0`") as caught:
        build(tmp_path / "defined", cache, f"aa==1.0 --hash=sha256:{'0' * 64}\n")
    assert caught.value.line == 1
    monkeypatch.setenv("PIP_REQUIRE_HASHES", "1")
    with pytest.raises(UserError, match=r"(?i)hash"):
        build(tmp_path / "defined", cache, "aa\n")


# What pip does


def test_what_uv_cannot_do_is_done_by_pip_with_a_note(
    tmp_path: Path, cache: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = wheel(wheels, "dd")
    wheel(wheels, "cc", requires=[f"dd @ {direct.as_uri()}"])
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    lines: list[str] = []
    built = build(tmp_path / "defined", cache, "cc\n", lines)
    assert built.notes == ("pip installs the packages: uv takes no address that only a package asks for",)
    assert built.notes[0] in lines and any("Successfully installed" in line for line in lines)
    assert says(built, "import cc, dd; print(dd.answer)") == "42"


def test_where_uv_is_not_installed_pip_and_venv_do_it(
    tmp_path: Path, cache: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(wheels, "aa")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with monkeypatch.context() as missing:
        missing.setattr(uv, "find_uv", lambda: None)
        built = build(tmp_path / "defined", cache, "aa\n")
    assert built.notes == ("pip installs the packages: uv is not installed here",)
    assert says(built, "import aa; print(aa.answer)") == "42"
    # What held while it was built is not told of one that is only used.
    again = build(tmp_path / "defined", cache, "aa\n")
    assert (again.reused, again.notes) == (True, ())


def test_an_index_that_is_silent_is_passed_over_where_there_is_another(
    tmp_path: Path, cache: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(wheels, "aa")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(UserError, match="could not reach the package index") as caught:
        build(tmp_path / "defined", cache, "aa\n")
    assert "pip config list" in caught.value.remedy
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    built = build(tmp_path / "defined", cache, "aa\n")
    assert built.notes == ("pip installs the packages: uv wants every package index to answer",)


# What is shared, and what is not


def test_a_second_environment_takes_files_and_byte_code_from_the_first(
    tmp_path: Path, cache: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(wheels, "aa")
    wheel(wheels, "bb")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    first = build(tmp_path / "first", cache, "aa\n")
    second = build(tmp_path / "second", cache, "aa\nbb\n")
    places = [says(one, "import aa; print(aa.__file__); print(aa.__cached__)").splitlines() for one in (first, second)]
    for one, other in zip(*places, strict=True):
        assert one != other and os.path.samefile(one, other)
    # Python takes it for valid, and tells the module's own place.
    loaded = subprocess.run([second.python, "-I", "-v", "-c", "import aa"], capture_output=True, text=True, check=True)
    assert any("matches" in line and places[1][1] in line for line in loaded.stderr.splitlines())
    virtual_environments.remove_environment(first.folder)
    assert says(second, "import aa; print(aa.answer)") == "42"


def test_packages_go_with_the_last_environment_that_uses_them(
    tmp_path: Path, cache: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_CACHE_DIR")
    wheel(wheels, "aa")
    wheel(wheels, "bb")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    build(tmp_path / "first", cache, "aa\nbb\n")
    build(tmp_path / "second", cache, "aa\n")

    def kept() -> set[str]:
        return {path.name for path in cache.glob("uv/archive-v*/*/*.py")} & {"aa.py", "bb.py"}

    first, second = sorted(store.list_environments(cache), key=lambda one: one.name)
    first.remove()
    assert kept() == {"aa.py", "bb.py"}, "another process may just be taking what came a moment ago"
    monkeypatch.setattr(store, "_YOUNG_SECONDS", -1.0)
    store.clear_unused_packages(cache / "uv")
    assert kept() == {"aa.py"}
    second.remove()
    assert kept() == set()
    # And they come again.
    built = build(tmp_path / "first", cache, "aa\nbb\n")
    assert says(built, "import aa, bb; print(bb.answer)") == "42"


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere but there.
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "sys"))
    (tmp_path / "sys").symlink_to("/proc/sys")
    with pytest.raises(UserError) as raised:
        build(tmp_path / "first", cache, "aa\n")
    assert "UV_CACHE_DIR" in raised.value.remedy


PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "own"\n'
BACKEND = """
import zipfile
INFO = "own-1.dist-info"
WHEEL = "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
def build_wheel(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(folder + "/own-1-py3-none-any.whl", "w") as wheel:
        wheel.write("own.py")
        wheel.writestr(INFO + "/METADATA", "Metadata-Version: 2.1\\nName: own\\nVersion: 1\\n")
        wheel.writestr(INFO + "/WHEEL", WHEEL)
        wheel.writestr(INFO + "/RECORD", "own.py,,\\n")
    return "own-1-py3-none-any.whl"
"""


def test_a_changed_local_package_is_built_again(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folder = tmp_path / "defined" / "own"
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT + 'version = "1"\n')
    (folder / "backend.py").write_text(BACKEND)
    found = []
    for number in (1, 2):
        (folder / "own.py").write_text(f"number = {number}\n")
        built = build(tmp_path / "defined", cache, "./own\n")
        found.append(says(built, "import own; print(own.number)"))
    assert found == ["1", "2"]
    (folder / "backend.py").write_text("def build_wheel(*a, **k):\n    raise RuntimeError('boom')\n")
    with pytest.raises(UserError, match="uv could not install") as caught:
        build(tmp_path / "defined", cache, "./own\n")
    assert any("RuntimeError: boom" in line for line in caught.value.details)


# Pythons


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A Python of another version as uv fetches one, without ensurepip as Debian's; its minor version and uv's list."""
    ask = "import sys; print(sys.base_prefix, *sys.version_info[:3], sep='\\n')"
    given = [one for one in os.environ.get("AZUREML_DEBUG_TEST_PYTHONS", "").split(os.pathsep) if one]
    told = [subprocess.run([one, "-I", "-c", ask], capture_output=True, text=True, check=True) for one in given]
    others = [found for found in (one.stdout.split() for one in told) if int(found[2]) != sys.version_info[1]]
    if sys.platform != "linux" or not others:
        pytest.skip("AZUREML_DEBUG_TEST_PYTHONS names no other Python")
    prefix, major, minor, patch = others[-1]
    name = f"python{major}.{minor}"
    archive = tmp_path / "python.tar.gz"
    left_out = {"test", "site-packages", "idlelib", "__pycache__", "ensurepip"}

    def keep(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if left_out & set(info.name.split("/")) or info.name.endswith(".a") else info

    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(os.path.realpath(f"{prefix}/bin/{name}"), f"python/bin/{name}")
        tar.add(f"{prefix}/lib/{name}", f"python/lib/{name}", filter=keep)
        for library in Path(prefix, "lib").glob(f"lib{name}.so*"):
            tar.add(library, f"python/lib/{library.name}")
    machine = platform.machine()
    entry = {
        "name": "cpython",
        "arch": {"family": machine, "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": int(major),
        "minor": int(minor),
        "patch": int(patch),
        "prerelease": "",
        "url": archive.as_uri(),
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "variant": None,
        "build": "20260101",
    }
    path = tmp_path / "list.json"
    path.write_text(json.dumps({f"cpython-{major}.{minor}.{patch}-linux-{machine}-gnu": entry}))
    yield f"{major}.{minor}", path


def test_a_python_that_is_not_here_is_fetched_and_needs_no_ensurepip(
    tmp_path: Path, cache: Path, wheels: Path, mirror: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    minor, listing = mirror
    wheel(wheels, "aa")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PATH", "/usr/sbin:/sbin")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", str(listing))
    folder = tmp_path / "defined"
    folder.mkdir()
    (folder / "conda.yml").write_text(f"dependencies: ['python={minor}', pip, {{pip: [aa]}}]\n")
    definition = load_definition(folder, default_dockerfile=ROOT / "env" / "training" / "Dockerfile")
    lines: list[str] = []
    built = virtual_environments.ensure_environment(definition, cache, lines.append)
    assert any(line.startswith(f"fetching Python {minor}.") for line in lines)
    assert built.notes == ()
    assert says(built, "import aa, sys; print('%d.%d' % sys.version_info[:2])") == minor
    assert virtual_environments.ensure_environment(definition, cache, pytest.fail).reused


def test_a_python_that_cannot_be_fetched(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.json").write_text("{}")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", str(tmp_path / "list.json"))
    monkeypatch.setenv("PATH", "/usr/sbin:/sbin")
    folder = tmp_path / "defined"
    folder.mkdir()
    (folder / "conda.yml").write_text("dependencies: ['python=3.99']\n")
    definition = load_definition(folder, default_dockerfile=ROOT / "env" / "training" / "Dockerfile")
    built = virtual_environments.ensure_environment(definition, cache, lambda line: None)
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert built.notes == (f"conda.yml asks for python=3.99; using {minor}, conda is not used here",)
