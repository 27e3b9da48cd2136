"""The environment variables of a service: what was named reaches it, the same on each engine, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from http.client import HTTPConnection
from urllib.parse import urlsplit

import psutil
import pytest
from projects import ANY_ENGINE, ROOT, Project, post
from services import attach

SCORE = """import json
import os


def init():
    pass


def run(raw_data):
    return {"has": {name: os.environ.get(name) for name in json.loads(raw_data)}}
"""
NAMES = ("FROM_FILE", "FROM_BOTH", "TYPED", "FROM_HERE", "SPACED", "ANY_EXPORTED", "UNSET")


@pytest.fixture
def told(project: Project) -> Project:
    """A service that tells its variables."""
    project.write_score(SCORE)
    return project


def has(url: str, *names: str) -> dict[str, str]:
    found = post(url, list(names))["has"]
    return {name: value for name, value in found.items() if value is not None}


#: What describes the machine, and still reaches processes on it.
MACHINE = {
    "https_proxy": "http://proxy.invalid:3128",
    "NO_PROXY": "127.0.0.1",
    "CUDA_VISIBLE_DEVICES": "1",
    "LD_LIBRARY_PATH": "/opt/nowhere/lib",
    "OMP_NUM_THREADS": "3",
    "REQUESTS_CA_BUNDLE": "/etc/ssl/some.pem",
    "LC_MONETARY": "C",
}


def test_what_a_file_and_flags_name_reaches_the_service_and_what_is_only_exported_does_not(
    told: Project, engine: str
) -> None:
    lines = ["# comment", "FROM_FILE=file", "export FROM_BOTH=file", "SPACED='a  b # $HOME'", "FROM_HERE", "UNSET"]
    (told.folder / "service.env").write_text("\r\n".join(lines) + "\r\n")
    (told.folder / ".env").write_text("AML_SERVICE_ENV=service.env\n")
    told.environ |= {"FROM_HERE": "here", "ANY_EXPORTED": "yes", "TYPED": "not this", **MACHINE}
    result = told.ok("deploy.debug", "--env", "FROM_BOTH=flag", "--env=TYPED=a=b c", "--json")
    expected = {
        "FROM_FILE": "file",
        "FROM_BOTH": "flag",
        "TYPED": "a=b c",
        "FROM_HERE": "here",
        "SPACED": "a  b # $HOME",
    }
    assert has(result.json["scoring_url"], *NAMES) == expected
    assert "note: UNSET is named without a value and is not set here" in result.err
    url = result.json["scoring_url"]
    assert has(url, *MACHINE) == (MACHINE if engine == "process" else {})
    assert has(url, "PATH", "HOME").keys() == {"PATH", "HOME"}
    # The same after a reload, and in a shell there.
    told.ok("deploy.reload", FROM_HERE="gone")
    assert has(result.json["scoring_url"], *NAMES) == expected
    shell = told.ok("container.shell", "--", "sh", "-c", "echo $FROM_BOTH $FROM_HERE")
    assert shell.out.split() == ["flag", "here"]


def test_the_variables_of_conda_yml_count_and_refer_to_others_and_a_step_by_step_start_takes_the_same(
    told: Project,
) -> None:
    folder = told.folder / "env" / "inference"
    shutil.copytree(ROOT / "env" / "inference", folder)
    with open(folder / "conda.yml", "a") as file:
        file.write(
            'variables:\n  STAGE: test\n  STORE: "${STAGE}/${REGION}"\n  PATH: "/opt/mine:${PATH}"\n  OVER: conda\n'
        )
    failed = told.inv("deploy.debug")
    failed.says("STORE refers to ${REGION}, which is not set.", "Set REGION before you type inv")
    assert not (told.state / "session.json").exists()
    told.environ["REGION"] = "west"
    (told.folder / "own.env").write_text("FROM_FILE=file\n")
    # Docker's tags are shared with the tests that run beside this one.
    told.environ["AML_IMAGE_TAG"] = f"debug-of-variables-{os.getpid()}:1"
    told.ok("deploy.build")
    told.ok("deploy.tag")
    told.ok("deploy.run", "--service-env", "own.env", "--env", "TYPED=1", "--env", "OVER=typed")
    told.ok("deploy.runsvdir")
    session = json.loads((told.state / "session.json").read_text())
    url = f"http://127.0.0.1:{session['scoring_port']}/score"
    assert has(url, *NAMES) == {"FROM_FILE": "file", "TYPED": "1"}
    found = has(url, "STAGE", "STORE", "OVER", "PATH")
    assert (found["STAGE"], found["STORE"], found["OVER"]) == ("test", "test/west", "typed")
    assert found["PATH"].startswith("/opt/mine:") and "/bin" in found["PATH"]
    if told.environ["AML_ENGINE"] == "docker":
        told.ok("container.stop")
        subprocess.run(["docker", "rmi", told.environ["AML_IMAGE_TAG"]], capture_output=True, check=True)


def test_the_servers_own_variables_reach_it_and_gunicorns_arguments_are_joined_with_the_debuggers(
    told: Project,
) -> None:
    (told.score.parent / "own_conf.py").write_text(
        "def when_ready(server):\n    print('theirs is ready', flush=True)\n"
    )
    arguments = "--preload -c own_conf.py --limit-request-line 200 --bind 127.0.0.1:1"
    (told.folder / ".env").write_text("AML_CORS_ORIGINS=https://a.example\nAML_ENGINEE=x\n")
    told.inv("deploy.debug").says(".env:2: error: AML_ENGINEE is not a setting.", "Did you mean AML_ENGINE?")
    (told.folder / ".env").write_text("AML_CORS_ORIGINS=https://a.example\nAML_APP_INSIGHTS_ENABLED=false\n")
    gunicorns = ("--env", f"GUNICORN_CMD_ARGS={arguments}")
    result = told.ok("deploy.debug", "--json", *gunicorns, WORKER_COUNT="4", AZUREML_LOG_LEVEL="ERROR")
    assert "note: WORKER_COUNT of yours: the program's own counts while a service is debugged" in result.err
    url = result.json["scoring_url"]
    found = has(url, "WORKER_COUNT", "AZUREML_LOG_LEVEL", "AML_APP_INSIGHTS_ENABLED")
    assert found == {"WORKER_COUNT": "1", "AZUREML_LOG_LEVEL": "ERROR", "AML_APP_INSIGHTS_ENABLED": "false"}
    parts = urlsplit(url)
    with contextlib.closing(HTTPConnection(str(parts.hostname), parts.port, timeout=30)) as connection:
        connection.request(
            "POST", parts.path, b"[]", {"Content-Type": "application/json", "Origin": "https://a.example"}
        )
        answer = connection.getresponse()
        answer.read()
        assert answer.getheader("Access-Control-Allow-Origin") == "https://a.example"
    with attach(told, result.json) as client:
        client.disconnect()
    with contextlib.closing(HTTPConnection(str(parts.hostname), parts.port, timeout=30)) as connection:
        connection.request("GET", "/" + "x" * 300)
        # What gunicorn says to a request line that is too long, as its version has it.
        assert connection.getresponse().status in (400, 414)
    assert "theirs is ready" in told.ok("container.logs").out


def test_a_secret_is_shown_nowhere(told: Project) -> None:
    secret = "oqu3-Eeth9-ahb4"
    (told.folder / "service.env").write_text(f"DB_PASSWORD={secret}1\n")
    told.environ |= {"API_TOKEN": f"{secret}2", "AML_SERVICE_ENV": "service.env"}
    result = told.ok("deploy.debug", "--env", "API_TOKEN", "--json")
    assert has(result.json["scoring_url"], "DB_PASSWORD", "API_TOKEN") == {
        "DB_PASSWORD": f"{secret}1",
        "API_TOKEN": f"{secret}2",
    }
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            assert secret not in " ".join(process.cmdline())
    told.write_score(
        SCORE.replace("    pass", "    raise ValueError(os.environ['API_TOKEN'] + os.environ['DB_PASSWORD'])")
    )
    failed = told.inv("deploy.reload")
    assert failed.code == 1 and "ValueError" in failed.err
    typed = told.inv("deploy.debug", "--env", f"OTHER_SECRET={secret}3", "--score-script", "nowhere.py")
    assert typed.code == 1
    assert (told.state / "session.json").stat().st_mode & 0o077 == 0
    for text in (result.out, result.err, failed.out, failed.err, typed.out, typed.err):
        assert secret not in text


@ANY_ENGINE
def test_a_variable_that_is_missing_but_set_here_is_told_with_the_flag_for_it(told: Project) -> None:
    told.write_score(SCORE.replace("    pass", "    os.environ['DB_URL']"))
    told.inv("deploy.debug").says("KeyError: 'DB_URL'", "Correct it, then: inv deploy.debug")
    told.environ["DB_URL"] = "db://x"
    told.inv("deploy.debug").says("score.py:6: error: KeyError: 'DB_URL'", "set here", "inv deploy.debug --env DB_URL")
    assert has(told.debug("--env", "DB_URL")["scoring_url"], "DB_URL") == {"DB_URL": "db://x"}


@ANY_ENGINE
def test_variables_that_cannot_be_read_are_refused_before_anything_starts(told: Project) -> None:
    for text in ("9X=1", "=1", "A B=1", "AZUREML_DEBUGGEE_PORT=1"):
        refused = told.inv("deploy.debug", "--env", text)
        assert refused.code == 2 and "--env: " in refused.err and "Write --env NAME=value" in refused.err
    told.inv("deploy.debug", "--service-env", "none.env").says(
        "none.env cannot be read: No such file", "Correct the path"
    )
    told.inv("deploy.debug", "--service-env", ".env").says(".env holds this program's settings", "AML_SERVICE_ENV=")
    (told.folder / "bad.env").write_text("A=1\nB='open\n")
    told.inv("deploy.debug", "--service-env", "bad.env").says("bad.env:2: error: The quote is not closed.")
    (told.folder / "bad.env").write_text("AZUREML_DEBUGGEE_WAIT=1\n")
    told.inv("deploy.debug", "--service-env", "bad.env").says(
        "bad.env:1: error: AZUREML_DEBUGGEE_WAIT is the program's"
    )
    told.inv("deploy.debug", GUNICORN_CMD_ARGS="--x 'open").says("GUNICORN_CMD_ARGS has a quote that is not closed.")
    assert not (told.state / "session.json").exists()
