"""pip's settings in uv's words, what only pip does, and what uv's errors say."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from workflows.environments import uv
from workflows.environments.definition import load_definition
from workflows.environments.pip_failures import install_error
from workflows.environments.pip_settings import PipSettings, read_settings
from workflows.environments.requirements import PipLines, read_line

ROOT = Path(__file__).resolve().parents[2]


def settings(**variables: str) -> PipSettings:
    return read_settings({"PIP_CONFIG_FILE": os.devnull, **variables})


def translated(found: PipSettings, **environ: str) -> tuple[dict[str, object], uv.Translation]:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 has it")
    words = uv.translate(found, environ)
    return tomllib.loads(words.text), words


def test_indexes_and_their_passwords_are_in_the_file_alone(tmp_path: Path) -> None:
    found = settings(
        PIP_INDEX_URL="https://me:word@host/simple",
        PIP_EXTRA_INDEX_URL=f"file://{tmp_path} http://plain/simple http://kept:8/simple http://127.0.0.1:1/simple",
        PIP_TRUSTED_HOST="kept:8",
        PIP_FIND_LINKS=f"{tmp_path} /nowhere http://other/links",
    )
    table, words = translated(found)
    indexes = table["index"]
    assert isinstance(indexes, list)
    assert [one["url"] for one in indexes] == [
        "https://me:word@host/simple",
        f"file://{tmp_path}",
        "http://kept:8/simple",
        "http://127.0.0.1:1/simple",
    ]
    assert [one["default"] for one in indexes] == [True, False, False, False]
    assert table["index-strategy"] == "unsafe-best-match" and table["allow-insecure-host"] == ["kept:8"]
    assert table["pip"] == {"find-links": [str(tmp_path)]}
    assert "word" not in "".join((*words.arguments, *words.environment.values(), *words.notes))
    assert [note.split()[0] for note in words.notes] == ["plain", "/nowhere", "other"]
    assert words.several


def test_a_main_index_that_is_passed_over_leaves_no_public_one() -> None:
    table, words = translated(settings(PIP_INDEX_URL="http://plain/simple", PIP_EXTRA_INDEX_URL="https://x/simple"))
    indexes = table["index"]
    assert isinstance(indexes, list)
    assert [(one["url"], one["default"]) for one in indexes] == [("https://x/simple", False), ("file:///nowhere", True)]
    alone, _ = translated(settings(PIP_INDEX_URL="http://plain/simple"))
    assert alone["no-index"] is True and "index" not in alone
    assert len(words.notes) == 1


def test_certificates_proxies_times_and_the_rest(tmp_path: Path) -> None:
    found = settings(
        PIP_CERT="/ca.pem",
        PIP_PROXY="me:word@proxy:1",
        PIP_TIMEOUT="2.5",
        PIP_RETRIES="0",
        PIP_CLIENT_CERT="/me.pem",
        PIP_NO_CACHE_DIR="1",
        PIP_CONSTRAINT="c.txt",
        PIP_KEYRING_PROVIDER="subprocess",
        PIP_PRE="1",
        PIP_REQUIRE_HASHES="1",
        PIP_NO_BUILD_ISOLATION="0",
    )
    table, words = translated(found, SSL_CERT_DIR="/x", NO_PROXY="*", UV_INDEX_URL="https://mine", UV_LINK_MODE="copy")
    environ = words.environment
    assert (environ["SSL_CERT_FILE"], environ["SSL_CERT_DIR"], environ["SSL_CLIENT_CERT"]) == ("/ca.pem", "", "/me.pem")
    assert environ["HTTPS_PROXY"] == environ["http_proxy"] == "http://me:word@proxy:1" and "NO_PROXY" not in environ
    assert (environ["UV_HTTP_TIMEOUT"], environ["UV_HTTP_RETRIES"], environ["UV_NO_CACHE"]) == ("3", "0", "1")
    assert "UV_INDEX_URL" not in environ and environ["UV_LINK_MODE"] == "copy"
    assert table["pip"] == {
        "prerelease": "allow",
        "require-hashes": True,
        "no-build-isolation": True,
        "keyring-provider": "subprocess",
    }
    assert words.arguments == ("--constraints", "c.txt", "--build-constraints", "c.txt")
    folder = uv.translate(settings(PIP_CERT=str(tmp_path)), {}).environment
    assert (folder["SSL_CERT_DIR"], folder["SSL_CERT_FILE"]) == (str(tmp_path), "")
    own = uv.translate(settings(), {"REQUESTS_CA_BUNDLE": "/r.pem"}).environment
    assert own["SSL_CERT_FILE"] == "/r.pem"


@pytest.mark.parametrize(
    ("variables", "line", "reason"),
    [
        ({}, "flask", None),
        ({"PIP_PREFER_BINARY": "1"}, "flask", "uv has no prefer-binary"),
        ({"PIP_PREFER_BINARY": "0"}, "flask", None),
        ({"PIP_IGNORE_REQUIRES_PYTHON": "1"}, "flask", "uv has no ignore-requires-python"),
        ({"PIP_USE_DEPRECATED": "legacy-resolver"}, "flask", "uv has no legacy-resolver"),
        ({}, 'flask --config-settings="a=b"', "uv has no --config-settings of one requirement"),
        ({}, "flask==3 --hash=sha256:00", None),
        ({}, "hg+https://host/x#egg=x", "uv does not fetch from hg"),
        ({}, "x @ svn+https://host/x", "uv does not fetch from svn"),
        ({}, "-e git+https://host/x#egg=x", "uv installs only local folders as editable ones"),
        ({}, "git+https://host/x#egg=x", None),
        ({"PIP_ONLY_BINARY": ":all:"}, "git+https://host/x", "uv takes only-binary and no-binary for local"),
        ({"PIP_ONLY_BINARY": ":all:"}, "flask", None),
        ({"PIP_ONLY_BINARY": ":all:", "PIP_NO_BINARY": "x"}, "flask", "uv has no exceptions of only-binary"),
        ({"PIP_FIND_LINKS": __file__}, "flask", "uv takes only folders and addresses as find-links"),
    ],
)
def test_what_only_pip_does(tmp_path: Path, variables: dict[str, str], line: str, reason: str | None) -> None:
    lines = PipLines()
    read_line(lines, line, file=tmp_path / "requirements.txt", line=1, folder=tmp_path)
    found = uv.why_only_pip(settings(**variables), lines.requirements)
    assert found == reason or (reason is not None and found is not None and found.startswith(reason))


UNREACHABLE = """\
Using Python 3.11.7 environment at: b
error: Request failed after 3 retries in 7.2s
  cause: Failed to fetch: `http://127.0.0.1:9/x/six/`
  cause: error sending request for url (http://127.0.0.1:9/x/six/)
  cause: client error (Connect)
  cause: tcp connect error
  cause: Connection refused (os error 111)
"""


@pytest.mark.parametrize(
    ("output", "problem", "line"),
    [
        (
            "error: No solution found when resolving dependencies\n"
            "  cause: Because there is no version of flask==99 and you require flask==99, we can conclude that your "
            "requirements are unsatisfiable.\n",
            "there is no version of flask==99 and you require flask==99",
            1,
        ),
        (
            "error: No solution found when resolving dependencies\n"
            "  cause: Because flask==3.0.0 depends on werkzeug>=3.0.0 and you require flask==3.0, we can conclude that "
            "you require werkzeug>=3.0.0.\n"
            "         And because you require werkzeug==2.0, we can conclude that your requirements are "
            "unsatisfiable.\n",
            "Because flask==3.0.0 depends on werkzeug>=3.0.0 and you require flask==3.0, we can conclude that you "
            "require werkzeug>=3.0.0. And because you require werkzeug==2.0",
            1,
        ),
        (
            "error: Failed to download `werkzeug==2.0`\n"
            "  cause: Hash mismatch for `werkzeug==2.0`\n\n"
            "         Expected:\n           sha256:00\n",
            "Failed to download `werkzeug==2.0`: Hash mismatch for `werkzeug==2.0`",
            2,
        ),
        (
            "error: Failed to build `werkzeug==2.0`\n"
            "  cause: The build backend returned an error\n"
            "  cause: Call to `be.build_wheel` failed (exit status: 1)\n"
            "\n         [stderr]\n         RuntimeError: boom\n",
            "Failed to build `werkzeug==2.0`: Call to `be.build_wheel` failed (exit status: 1)",
            2,
        ),
        (UNREACHABLE, "Request failed after 3 retries in 7.2s: Connection refused (os error 111)", None),
        ("error: Distribution not found at: file:///x.whl\n", "Distribution not found at: file:///x.whl", None),
    ],
)
def test_what_uv_said(tmp_path: Path, output: str, problem: str, line: int | None) -> None:
    (tmp_path / "requirements.txt").write_text("flask\nwerkzeug\n")
    definition = load_definition(tmp_path, default_dockerfile=ROOT / "env" / "training" / "Dockerfile")
    error = install_error(definition, [one for one in output.splitlines() if one], what="uv")
    assert error.problem.partition(": ")[2] == f"{problem.rstrip('.')}."
    assert error.line == line
    assert ("could not reach the package index" in error.problem) is (output == UNREACHABLE)
    assert error.details and not any(text.startswith("Using Python") for text in error.details)


def test_pip_may_where_an_index_is_silent_among_several() -> None:
    lines = UNREACHABLE.splitlines()
    assert uv.why_pip_may_work(lines, True) == "uv wants every package index to answer"
    assert uv.why_pip_may_work(lines, False) is None
    direct = ["  cause: Package `dd` was included as a URL dependency. URL dependencies must be expressed as direct"]
    assert uv.why_pip_may_work(direct, False) == "uv takes no address that only a package asks for"
    assert uv.why_pip_may_work(["error: No solution found when resolving dependencies"], True) is None


def test_uv_comes_with_the_program() -> None:
    found = uv.find_uv()
    assert found is not None and Path(found).is_file()
    assert Path(found).is_relative_to(sys.prefix)
