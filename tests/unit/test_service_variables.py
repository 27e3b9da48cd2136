"""What becomes of a service's variables before it starts: gunicorn's arguments, conda's references."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.engines.base import gunicorn_arguments
from workflows.engines.process import machine_variables
from workflows.environments.conda_variables import expand_variables
from workflows.errors import UserError


@pytest.mark.parametrize(
    ("text", "kept", "configuration"),
    [
        ("", [], ""),
        ("--log-level debug -k gthread", ["--log-level", "debug", "-k", "gthread"], ""),
        ("--preload --threads=4 -D --daemon", ["--threads=4"], ""),
        ("-c 'a file.py' --threads 4", ["--threads", "4"], "a file.py"),
        ("--config=python:mine -b :1", ["-b", ":1"], "python:mine"),
        ("-cmine.py", [], "mine.py"),
        ("-c", [], ""),
    ],
)
def test_gunicorns_arguments_are_kept_but_for_what_no_debugged_service_can_have(
    text: str, kept: list[str], configuration: str
) -> None:
    assert gunicorn_arguments(text) == (kept, configuration)


def test_condas_variables_refer_to_those_before_them_then_to_what_is_known() -> None:
    given = {"A": "1", "B": "${A}-${C}", "PATH": "/x:${PATH}", "D": "$A ${}"}
    found = expand_variables(given, {"C": "3"}, {"PATH": "/bin", "C": "9"}, file=Path("conda.yml"))
    assert found == {"A": "1", "B": "1-3", "PATH": "/x:/bin", "D": "$A ${}"}
    with pytest.raises(UserError, match=r"E refers to \$\{NOPE\}, which is not set"):
        expand_variables({"E": "${NOPE}"}, file=Path("conda.yml"))


def test_of_what_is_exported_a_service_has_what_describes_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "http_proxy", "CUDA_HOME", "LD_PRELOAD", "LC_ALL", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, "kept")
    for name in ("AWS_SECRET_ACCESS_KEY", "AML_ENGINE", "PYTHONPATH", "ANY", "AZURE_CLIENT_SECRET"):
        monkeypatch.setenv(name, "left")
    found = machine_variables("/an/environment")
    assert "left" not in found.values()
    assert {"HTTPS_PROXY", "http_proxy", "CUDA_HOME", "LD_PRELOAD", "LC_ALL", "XDG_CACHE_HOME", "TMPDIR"} <= set(found)
    assert found["PATH"].startswith("/an/environment/bin:") and found["VIRTUAL_ENV"] == "/an/environment"
