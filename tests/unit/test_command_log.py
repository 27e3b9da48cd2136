"""What a command writes down of itself: in a file that commands share, on standard error, and never a secret."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import docker.errors
import pytest

from workflows import command_log
from workflows.command_log import LOGGER, MOST_BYTES, log_command, shown_command
from workflows.errors import UserError
from workflows.settings import log_level
from workflows.tasks._command import _docker_error

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \d+ (?:INFO|DEBUG|ERROR) .")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".azureml-debug").mkdir()
    return tmp_path


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, form: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def log_of(project: Path) -> str:
    return (project / ".azureml-debug" / "log.txt").read_text()


def test_commands_and_requests_are_written_down_with_their_times_and_without_secrets(
    project: Path, server: str
) -> None:
    from workflows import watched_requests  # noqa: F401, I001
    import requests

    with log_command(project, 0):
        told = [sys.executable, "-c", "pass", "--password", "hidden-one", "-e", "PLAIN=hidden-two"]
        subprocess.run([*told, "--build-arg=OTHER=hidden-three"], check=True)
        with pytest.raises(FileNotFoundError):
            subprocess.run(["/nowhere/program"], check=False)
        requests.get(f"{server}/data?sv=1&sig=hidden-four", headers={"Authorization": "Bearer hidden-five"}, timeout=9)
        LOGGER.info("a token=hidden-six")
    text = log_of(project)
    assert all(LINE.match(line) for line in text.splitlines())
    assert "hidden" not in text
    assert re.search(r"INFO \S+ -c pass --password \S+ -e 'PLAIN=\*\*\*' \S+: 0 after \d+\.\d\d s\n", text)
    assert "INFO /nowhere/program: cannot be started: No such file or directory\n" in text
    assert re.search(rf"INFO GET {server}/data: 204 after \d\.\d{{3}} s\n", text)
    assert os.stat(project / ".azureml-debug" / "log.txt").st_mode & 0o777 == 0o600
    assert subprocess.Popen.__module__ == "subprocess"


def test_an_error_is_there_with_its_traceback(project: Path) -> None:
    with pytest.raises(UserError), log_command(project, 0):
        raise UserError("It is wrong.", "Mend it.")
    text = log_of(project)
    assert "ERROR error: It is wrong.\nMend it.\n" in text and "in test_an_error_is_there" in text
    assert re.search(r"INFO ended with 1 after \d\.\d\d s\n\Z", text)


def test_an_error_of_the_engine_says_where_its_request_is_written_down(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = docker.errors.APIError("409", explanation="a conflict")
    with log_command(project, 0):
        LOGGER.info("POST /containers/create: 409")
        shown = _docker_error(error, project)
    assert shown.problem == "The Docker engine says: a conflict."
    assert shown.remedy.endswith("The request and its traceback are in .azureml-debug/log.txt.")
    monkeypatch.setenv("AML_LOG", "off")
    with log_command(project, 0):
        assert "log.txt" not in _docker_error(error, project).remedy


def test_v_shows_what_is_done_and_vv_more(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for typed in (0, 1, 2):
        with log_command(project, typed):
            LOGGER.info("an info")
            LOGGER.debug("a detail of token=hidden")
            assert command_log.shown_verbosity() == typed
        shown = capsys.readouterr().err
        assert ("an info" in shown, "a detail" in shown) == (typed > 0, typed > 1) and "hidden" not in shown


def test_what_silences_the_sdks_does_not_silence_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from workflows.azureml.v2.sdk_module import quiet

    with log_command(project, 1), quiet():
        LOGGER.info("an info")
    assert "an info" in log_of(project) and "an info" in capsys.readouterr().err


def test_the_other_machine_shows_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(command_log.VARIABLE, "2")
    assert command_log.verbosity(0) == 2
    # What it starts is not asked for by that.
    assert command_log.VARIABLE not in os.environ and command_log.verbosity(1) == 1


@pytest.mark.parametrize(
    ("setting", "info", "debug"), [("off", False, False), ("info", True, False), ("debug", True, True)]
)
def test_aml_log_says_how_much_is_written(
    setting: str, info: bool, debug: bool, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AML_LOG", setting)
    with log_command(project, 0):
        LOGGER.info("an info")
        LOGGER.debug("a detail")
    text = log_of(project) if info else ""
    assert ("an info" in text, "a detail" in text) == (info, debug)
    assert (project / ".azureml-debug" / "log.txt").exists() == info


def test_it_is_taken_from_env_and_what_is_wrong_there_is_left_for_the_settings(tmp_path: Path) -> None:
    assert log_level(tmp_path, {}) == "debug"
    (tmp_path / ".env").write_text("AML_LOG=info\n")
    assert (log_level(tmp_path, {}), log_level(tmp_path, {"AML_LOG": "off"})) == ("info", "off")
    (tmp_path / ".env").write_text("AML_NOTHING=1\n")
    assert log_level(tmp_path, {}) == "debug"


def test_no_folder_is_made_for_it_and_lines_wait_for_one(tmp_path: Path) -> None:
    with log_command(tmp_path, 0):
        LOGGER.info("before")
        assert list(tmp_path.iterdir()) == []
        (tmp_path / ".azureml-debug").mkdir()
        LOGGER.info("after")
    lines = log_of(tmp_path).splitlines()
    assert [line.rpartition(" ")[2] for line in lines if "INFO" in line][1:3] == ["before", "after"]


def test_a_file_that_has_grown_begins_anew_and_one_is_kept(project: Path) -> None:
    file = project / ".azureml-debug" / "log.txt"
    file.write_text("old\n" + "x" * MOST_BYTES)
    with log_command(project, 0):
        LOGGER.info("new")
    assert "new" in log_of(project) and "old" not in log_of(project)
    assert file.with_name("log.txt.1").read_text().startswith("old")


def test_commands_at_the_same_time_write_whole_lines(project: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from workflows.command_log import LOGGER, log_command\n"
        "with log_command(Path(sys.argv[1]), 0):\n"
        "    for number in range(2000): LOGGER.info('%s %d %s', sys.argv[2], number, 'x' * 100)\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(project), name]) for name in "abcd"]
    assert [child.wait(60) for child in children] == [0] * 4
    kept = project / ".azureml-debug" / "log.txt.1"
    lines = [*(kept.read_text().splitlines() if kept.exists() else []), *log_of(project).splitlines()]
    assert all(LINE.match(line) for line in lines)
    found = [tuple(line.split()[4:6]) for line in lines if line.endswith("x" * 100)]
    assert sorted(found) == sorted((name, str(number)) for name in "abcd" for number in range(2000))


@pytest.mark.parametrize("wrong", ["a folder", "read-only", "a link"])
def test_what_cannot_be_written_changes_nothing(project: Path, wrong: str) -> None:
    file = project / ".azureml-debug" / "log.txt"
    if wrong == "a folder":
        file.mkdir()
    elif wrong == "a link":
        file.symlink_to("/etc/hostname")
    else:
        # Not even root can write there.
        (project / ".azureml-debug").rmdir()
        (project / ".azureml-debug").symlink_to("/proc/1")
    with log_command(project, 0):
        LOGGER.info("lost")
        assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout == b"1\n"


def test_a_disk_that_is_full_changes_nothing(project: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from workflows.command_log import LOGGER, log_command\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        "with log_command(Path(sys.argv[1]), 0):\n"
        "    for number in range(100): LOGGER.info('line %d', number)\n"
        "print('done')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(project)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "") and 0 < len(log_of(project)) <= 500


def test_a_command_is_shown_without_its_code_and_without_values_of_variables() -> None:
    assert shown_command(["bash", "-c", "first\nsecond"]) == "bash -c 'first…'"
    assert shown_command(["docker", "exec", "-e", "A=b", "--env=C=d", "x"]) == "docker exec -e 'A=***' '--env=C=***' x"
    assert shown_command("ls -l") == "ls -l" and shown_command(Path("/bin/ls")) == "/bin/ls"
    assert len(shown_command(["x" * 50] * 100)) < 500
