"""pip's settings are read as pip itself reads them: its own parser is asked, with the same files and variables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from workflows.environments.pip_settings import PipSettings, read_settings
from workflows.errors import UserError

#: Of each line, an environment and a prefix, a copy of a pip that has been loaded once tells what pip reads there.
PIP = """
import json, os, sys
from pip._internal.commands import create_command, install
from pip._internal.models.index import PyPI
for line in sys.stdin:
    environ, prefix = json.loads(line)
    if pid := os.fork():
        assert os.waitpid(pid, 0)[1] == 0
    else:
        break
else:
    sys.exit()
os.environ.clear()
os.environ.update(environ)
# It alone decides which file is the environment's own.
sys.prefix = prefix
options, _ = create_command("install").parser.parse_args([])
formats = options.format_control
print(json.dumps({
    "index": None if options.index_url == PyPI.simple_url else options.index_url,
    "extra": options.extra_index_urls, "no-index": bool(options.no_index),
    "links": options.find_links, "trusted": options.trusted_hosts, "cert": options.cert, "proxy": options.proxy,
    "timeout": options.timeout, "retries": options.retries, "constraints": options.constraints,
    "pre": bool(options.pre), "hashes": bool(options.require_hashes), "prefer": bool(options.prefer_binary),
    "isolated build": bool(options.build_isolation), "cache": bool(options.cache_dir),
    "no-binary": sorted(formats.no_binary), "only-binary": sorted(formats.only_binary),
}), flush=True)
"""


@pytest.fixture(scope="module")
def pip() -> Iterator[subprocess.Popen[str]]:
    """A pip that is asked what it reads."""
    command = [sys.executable, "-c", PIP]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


FILES = {
    "etc": "[global]\nindex-url = https://etc/simple\nextra-index-url = https://a/x\n  https://b/x\ntimeout = 7\n",
    "legacy": "[global]\nproxy = legacy:1\ntrusted-host = old\n[install]\nfind-links = /one /two\n",
    "person": "[global]\ntrusted_host = one two:8\n[install]\nindex_url = https://person/simple\n[wheel]\npre = yes\n",
    "site": "[global]\ncert = /site.pem\nretries = 2\n[install]\nno-binary = flask\n",
    "own": "[global]\nindex-url = https://own/simple\nno-index = off\n[install]\nonly-binary = Flask,numpy\n",
}
VARIABLES: list[dict[str, str]] = [
    {},
    {"PIP_INDEX_URL": "https://variable/simple", "PIP_EXTRA_INDEX_URL": "https://c/simple https://d/simple"},
    {"PIP_DEFAULT_TIMEOUT": "33", "PIP_PRE": "1", "PIP_REQUIRE_HASHES": "true", "PIP_PREFER_BINARY": "off"},
    {"PIP_NO_INDEX": "on", "PIP_FIND_LINKS": "/x /y", "PIP_CONSTRAINT": "c.txt d.txt", "PIP_CERT": ""},
    {"PIP_NO_BINARY": ":all:", "PIP_ONLY_BINARY": ":none:", "PIP_NO_CACHE_DIR": "false"},
    {"PIP_ONLY_BINARY": "a_b,:all:,:none:,C.d", "PIP_NO_BUILD_ISOLATION": "no", "PIP_PYPI_URL": "https://old/simple"},
    {"PIP_NO_BUILD_ISOLATION": "yes", "PIP_TRUSTED_HOST": "h1 h2", "PIP_PROXY": "user:word@proxy:1"},
]


def ours(found: PipSettings) -> dict[str, object]:
    return {
        # None is the public one, for pip as well.
        "index": found.last_value("index-url") or None,
        "extra": list(found.all("extra-index-url")),
        "no-index": found.flag("no-index"),
        "links": list(found.all("find-links")),
        "trusted": list(found.all("trusted-host")),
        "cert": found.last_value("cert") or None,
        "proxy": found.last_value("proxy"),
        "timeout": float(found.last_value("timeout") or 15),
        "retries": int(found.last_value("retries") or 5),
        "constraints": list(found.all("constraint")),
        "pre": found.flag("pre"),
        "hashes": found.flag("require-hashes"),
        "prefer": found.flag("prefer-binary"),
        "isolated build": not found.all("no-build-isolation") or found.flag("no-build-isolation"),
        "cache": not found.all("no-cache-dir"),
        "no-binary": sorted(found.formats.no_binary),
        "only-binary": sorted(found.formats.only_binary),
    }


@pytest.mark.skipif(sys.platform != "linux", reason="the files' places are those of Linux")
@pytest.mark.parametrize("named", [None, "own", "gone", os.devnull])
@pytest.mark.parametrize("variables", VARIABLES)
def test_what_pip_reads(
    tmp_path: Path, variables: Mapping[str, str], named: str | None, pip: subprocess.Popen[str]
) -> None:
    places = {
        "etc": tmp_path / "xdg" / "pip" / "pip.conf",
        "legacy": tmp_path / "home" / ".pip" / "pip.conf",
        "person": tmp_path / "home" / ".config" / "pip" / "pip.conf",
        "site": tmp_path / "venv" / "pip.conf",
        "own": tmp_path / "own.conf",
    }
    for name, path in places.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES[name])
    environ = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_DIRS": str(tmp_path / "xdg"), "PATH": os.environ["PATH"]}
    environ |= variables
    if named is not None:
        environ["PIP_CONFIG_FILE"] = named if named == os.devnull else str(tmp_path / f"{named}.conf")
    assert pip.stdin is not None and pip.stdout is not None
    pip.stdin.write(json.dumps([environ, str(tmp_path / "venv")]) + "\n")
    pip.stdin.flush()
    assert ours(read_settings(environ, prefix=tmp_path / "venv")) == json.loads(pip.stdout.readline())


def test_lines_of_a_requirements_file_add_to_them_or_take_their_place() -> None:
    found = read_settings({"PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": "https://a", "PIP_NO_INDEX": "1"})
    environ = {"TOKEN": "word", "lower": "x"}
    for line in (
        "--index-url https://me:${TOKEN}@host/simple",
        "--extra-index-url=https://${lower}/b",
        "-f '/a folder'",
        "--pre --trusted-host host",
        "--only-binary numpy --no-binary=numpy",
    ):
        found.apply_line(line, environ)
    assert found.indexes == ["https://me:word@host/simple", "https://a", "https://${lower}/b"]
    assert found.all("find-links") == ("/a folder",)
    assert (found.flag("pre"), found.all("trusted-host")) == (True, ("host",))
    assert (found.formats.no_binary, found.formats.only_binary) == ({"numpy"}, set())
    with pytest.raises(UserError, match="cannot be read"):
        found.apply_line("--find-links '/a", environ)


def test_a_file_that_cannot_be_read_and_a_flag_that_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pip.conf"
    path.write_text("index-url = x\n")
    with pytest.raises(UserError, match="pip's settings cannot be read") as caught:
        read_settings({"PIP_CONFIG_FILE": str(path), "HOME": str(tmp_path)})
    assert str(path) in caught.value.remedy
    with pytest.raises(UserError, match="neither yes nor no"):
        read_settings({"PIP_PRE": "perhaps", "PIP_CONFIG_FILE": os.devnull}).flag("pre")
