"""Where text leaves the program, or is written down by it, no secret is in it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from workflows import report
from workflows.console import Console, show_error
from workflows.environments.processes import run
from workflows.errors import UserError
from workflows.models import ImageRef
from workflows.project import append_log, write_bytes, write_json
from workflows.runs import plan as plans
from workflows.runs import record as records
from workflows.runs import store
from workflows.tasks._log_output import write
from workflows.tracebacks import formatted

CANARY = "Canary7Zq"
ADDRESS = f"https://me:{CANARY}@host/x?sv=1&sig={CANARY}"
SHOWN = "https://***@host/x?sv=1&sig=***"
HARMFUL = "a\x1b]0;title\x07\u202eb\udc80\x9bc\nd"
WRITTEN = "a\\x1b]0;title\\x07\\u202eb\\udc80\\x9bc\\nd"


@pytest.mark.parametrize("as_json", [False, True])
def test_lines_steps_and_results_have_no_secrets(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json)
    console.line(ADDRESS)
    with console.step("build") as step:
        step.detail(f"\x1b[32mLooking in {ADDRESS}\x1b[0m")
        step.detail_sometimes(ADDRESS)
        step.log(ADDRESS)
        step.text = ADDRESS
    console.result({"reason": ADDRESS, "runs": [{"command": f"x.py --password {CANARY}"}], "token": CANARY})
    out, err = capsys.readouterr()
    assert CANARY not in out + err
    assert (err if as_json else out).count(SHOWN) == 5
    if as_json:
        shown = {"reason": SHOWN, "runs": [{"command": "x.py --password ***"}], "token": "***"}
        assert json.loads(out) == shown


def test_values_that_a_person_asks_to_see_are_shown_but_for_known_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from workflows.redaction import keep_variables

    keep_variables({"AZURE_CLIENT_SECRET": "known-secret-value"})
    console = Console(as_json=True)
    console.value("  token = 'the'")
    console.value("  secret = 'known-secret-value'")
    console.result({"locals": {"token": "'the'", "other": "'known-secret-value'"}, "response": {"token": "x"}})
    out, err = capsys.readouterr()
    assert err == "  token = 'the'\n  secret = '***'\n"
    assert json.loads(out) == {"locals": {"token": "'the'", "other": "'***'"}, "response": {"token": "x"}}


@pytest.mark.parametrize("as_json", [False, True])
def test_control_characters_of_names_are_written_out(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json)
    console.line(f"name {HARMFUL}")
    with console.step("step") as step:
        step.text = HARMFUL
    console.result({"name": HARMFUL + "\x7f"})
    show_error(f"error: {HARMFUL}", [f"detail {HARMFUL}"])
    out, err = capsys.readouterr()
    assert all(character.isprintable() or character == "\n" for character in out + err)
    assert f"name {WRITTEN}\n" in out + err and f"s  {WRITTEN}\n" in out + err
    if as_json:
        assert json.loads(out) == {"name": HARMFUL + "\x7f"}


def test_an_errors_two_lines_and_its_details_have_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    key = ["-----BEGIN PRIVATE KEY-----", CANARY, "-----END PRIVATE KEY-----"]
    show_error(f"error: {ADDRESS} cannot be fetched.\nTry {ADDRESS} again.", [f"index {ADDRESS}", *key, "after"])
    err = capsys.readouterr().err
    assert err.splitlines()[-2:] == [f"error: {SHOWN} cannot be fetched.", f"Try {SHOWN} again."]
    assert CANARY not in err and "  after\n" in err


def test_a_traceback_has_no_secrets_whatever_the_chain_of_exceptions() -> None:
    try:
        try:
            raise OSError(5, f"cannot read {ADDRESS}", f"/x?sig={CANARY}")
        except OSError as inner:
            raise ValueError({"password": CANARY}, f"\x1b[31m{ADDRESS}") from inner
    except ValueError as error:
        text = formatted(error)
    assert CANARY not in text and "\x1b" not in text
    assert "test_secrets_kept.py" in text and "OSError" in text and "ValueError" in text and "direct cause" in text


@pytest.mark.parametrize("where", ["main", "thread", "destructor"])
def test_python_itself_prints_no_secret_of_a_bug(where: str) -> None:
    code = f"""
import threading
from workflows import tracebacks
tracebacks.install()
def fail():
    raise RuntimeError({ADDRESS!r})
class Falls:
    def __del__(self):
        fail()
if {where!r} == "main":
    fail()
elif {where!r} == "thread":
    one = threading.Thread(target=fail)
    one.start()
    one.join()
else:
    Falls()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert f"RuntimeError: {SHOWN}" in done.stderr and CANARY not in done.stderr
    assert done.returncode == (1 if where == "main" else 0)


def test_the_output_of_a_child_process_has_no_secrets() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nCanary7Zq\n-----END PRIVATE KEY-----"
    said: list[str] = []
    done = run([sys.executable, "-c", f"print({ADDRESS!r}); print({key!r}); print('end')"], said.append)
    assert said == list(done.lines) == [SHOWN, "***", "***", "***", "end"]


def test_what_was_typed_is_said_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["inv", "experiment.run", "x", "--", "train.py", "--password", f"a {CANARY}"])
    assert report.typed_command() == "experiment.run x -- train.py --password ***"
    monkeypatch.setenv(report.TYPED, f"pipeline.debug --input 'data={ADDRESS}'")
    assert report.typed_command() == f"pipeline.debug --input 'data={SHOWN}'"


def test_a_runs_record_has_no_secrets_and_its_plan_has_them_for_as_long_as_it_runs(tmp_path: Path) -> None:
    run_ = store.new_run(tmp_path, "experiment", "x", "process")
    run_.command = f"train.py --password {CANARY}"
    run_.options, run_.reason, run_.trouble = f"--input data={ADDRESS}", f"{ADDRESS} is gone", ADDRESS
    run_.steps = [records.StepRecord("x", run_.run_id, reason=ADDRESS, waits_for=ADDRESS)]
    records.save(run_)
    assert CANARY not in (run_.folder / "run.json").read_text()
    step = plans.PlannedStep("x", run_.command, None, ImageRef("d", "i", "n"), variables={"DB_PASSWORD": CANARY})
    plans.save(plans.Plan((step,)), run_.folder)
    assert plans.load(run_.folder).steps == (step,)
    store.close(run_, records.COMPLETED, "")
    assert not [path for path in run_.folder.rglob("*") if path.is_file() and CANARY in path.read_text()]
    (settled,) = plans.load(run_.folder).steps
    assert settled.command == "train.py --password ***" and settled.variables == {"DB_PASSWORD": "***"}


def test_a_programs_output_is_as_it_is_in_a_file_and_has_no_commands_for_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    data = f"\x1b[32mgreen\x1b[0m \x1b]0;title\x07 {ADDRESS}\n".encode()
    write(Console(), data)
    assert capfdbinary.readouterr().out == data
    monkeypatch.setattr(Console, "terminal", True)
    console = Console()
    write(console, data[:3])
    write(console, data[3:])
    expected = data.replace(b"\x1b]", b"\\x1b]").replace(b"\x07", b"\\x07")
    assert capfdbinary.readouterr().out == expected


def test_the_log_of_a_background_process_has_no_secrets_and_only_its_user_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "runner.log"
    code = f"""
import sys
from workflows.background import log
from workflows.redaction import keep_variables
keep_variables({{"MY_TOKEN": "a-known-token"}})
log({ADDRESS!r} + " a-known-token \\x1b[2J\\nsecond line")
"""
    with append_log(path) as file:
        subprocess.run([sys.executable, "-c", code], stderr=file, timeout=60, check=True)
    assert path.read_text() == f"{SHOWN} *** \\x1b[2J\nsecond line\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_the_program_keeps_for_itself_only_its_user_reads(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    write_bytes(tmp_path / "b.txt", b"b")
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "b.txt").stat().st_mode) == 0o666 & ~_umask()
    write_json(tmp_path / "b.txt", {"b": 1})
    assert stat.S_IMODE((tmp_path / "b.txt").stat().st_mode) == 0o600


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("host", [f"me:{CANARY}@host", f"ssh://me:{CANARY}@host:22", f"me:{CANARY}@a b"])
def test_a_password_in_the_remote_hosts_setting_is_refused_and_not_shown(host: str) -> None:
    from workflows.remote.address import _split

    with pytest.raises(UserError, match="AML_REMOTE_HOST") as caught:
        _split(host, "AML_REMOTE_HOST")
    assert CANARY not in str(caught.value)


def test_no_snapshot_has_the_file_of_secrets(tmp_path: Path) -> None:
    from workflows.azureml.staging import stage

    code = tmp_path / "code"
    (code / "deep").mkdir(parents=True)
    for name in ("train.py", ".env", "deep/.env", "deep/other.env"):
        (code / name).write_text(CANARY)
    stage(tmp_path / "staged", code, [], {"command": "x"}, None, "train")
    found = {path.relative_to(tmp_path / "staged").as_posix() for path in (tmp_path / "staged").rglob("*.env")}
    found |= {path.name for path in (tmp_path / "staged").rglob(".env")}
    assert found == {"deep/other.env"}


def test_warnings_and_what_libraries_log_have_no_secrets() -> None:
    code = f"""
import logging, warnings
from workflows import tracebacks
tracebacks.install()
logging.getLogger("urllib3").warning("Retrying after %s \\x1b[2J", {ADDRESS!r})
warnings.warn({ADDRESS!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert f"Retrying after {SHOWN} \\x1b[2J\n" in done.stderr and f"UserWarning: {SHOWN}" in done.stderr
    assert CANARY not in done.stderr and "\x1b" not in done.stderr


def test_an_error_is_scrubbed_before_its_lines_are_joined_and_cut() -> None:
    key = f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----"
    error = UserError(f"{'x' * 3490} http://me:{CANARY}@host/ {'y' * 4000}", f"sig={CANARY[:5]}12\n{CANARY[5:]}\n{key}")
    assert not [part for part in (CANARY, CANARY[:6], CANARY[5:]) if part in f"{error} {error!r} {error.args}"]


def test_control_characters_in_launch_json_are_escapes(tmp_path: Path) -> None:
    from workflows.debugger import jsonc

    name = HARMFUL + "\u2028\x7f ünï"
    text = jsonc.parse(b'{"a": 1}').set(("b",), {name: name}).data.decode()
    assert all(character.isprintable() or character == "\n" for character in text) and "ünï" in text
    assert json.loads(text)["b"] == {name: name}


@pytest.fixture
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What makes this process know no more than a fresh one."""
    from workflows import redaction
    from workflows.runs import source_secrets

    def forget() -> None:
        monkeypatch.setattr(redaction, "_known", redaction._Known())
        monkeypatch.setattr(records, "_kept", set())
        monkeypatch.setattr(source_secrets, "_read", set())

    forget()
    return forget


PIPELINE = """
type: pipeline
inputs:
  password: topsecret77
  db_pass_of: {value: x}
jobs:
  s:
    code: .
    command: >-
      python s.py --password ${{inputs.password}} --pw ${{inputs.pw}} --other $DB_PASSWORD
    environment: {image: x, conda_file: {dependencies: [], variables: {CONDA_TOKEN: conda-canary-1}}}
    environment_variables:
      {API_KEY: swordfish123, OWN_TOKEN: "${{inputs.password}}", PLAIN: "${{parent.inputs.password}}"}
    inputs: {password: pass8, pw: "${{parent.inputs.password}}"}
  t:
    code: .
    command: python t.py
    environment: {image: x, conda_file: conda.yml}
"""
CONDA = "dependencies: []\nvariables: {FILE_TOKEN: conda-canary-2}\n"
GIVEN = ("topsecret77", "swordfish123", "conda-canary-1", "conda-canary-2")
RUNCONFIG = """
script: train.py
environment:
  environmentVariables: {OLD_TOKEN: topsecret77}
  python: {condaDependencies: {dependencies: [], variables: {CONDA_TOKEN: conda-canary-1}}}
environmentVariables: {API_KEY: swordfish123}
"""


def _submitted(project: Path) -> records.RunRecord:
    """A run as it is submitted, of the pipeline above."""
    from workflows.pipelines.reader import load_pipeline
    from workflows.runs.planning import _plan_input

    file = project / "pipeline.yml"
    file.write_text(PIPELINE)
    (project / "conda.yml").write_text(CONDA)
    (project / "s.py").write_text("")
    (project / "t.py").write_text("")
    pipeline = load_pipeline(file)
    run_ = store.new_run(project, "pipeline", "x", "process")
    run_.file = str(file)
    run_.steps = [
        records.StepRecord(step.name, run_.run_id, ports={0: 5678}, configurations={0: step.name})
        for step in pipeline.steps
    ]
    steps = [
        plans.PlannedStep(
            step.name,
            step.command,
            None,
            ImageRef("d", "i", "n"),
            inputs={name: _plan_input(entry, {}) for name, entry in step.inputs.items()},
            variables=step.variables,
        )
        for step in pipeline.steps
    ]
    plans.save(plans.Plan(tuple(steps)), run_.folder)
    records.save(run_)
    return run_


def _raises(run_: records.RunRecord, step: records.StepRecord) -> None:
    """Have a step announce that it holds at an exception which quotes the secrets, and say so in its log."""
    path = run_.events(step)
    path.parent.mkdir(parents=True)
    events = [{"event": "raised", "type": "ValueError", "message": " ".join(GIVEN)}, {"event": "waiting"}]
    path.write_text("".join(json.dumps({"rank": 0, "pid": 1, **event}) + "\n" for event in events))
    run_.log(step).parent.mkdir(parents=True)
    run_.log(step).write_text(f"ValueError: {' '.join(GIVEN)}\n")


def test_a_plan_of_a_run_that_is_over_keeps_references_and_no_literal_secret(
    tmp_path: Path, _nothing_known: Callable[[], None]
) -> None:
    run_ = _submitted(tmp_path)
    _nothing_known()  # the run is closed by another process than that which has read the file
    seen = records.load(run_.folder)
    assert seen is not None
    store.close(seen, records.FAILED, "bad topsecret77, bad swordfish123")
    step = plans.load(run_.folder).steps[0]
    assert step.command == "python s.py --password ${{inputs.password}} --pw ${{inputs.pw}} --other $DB_PASSWORD"
    assert {name: entry.text for name, entry in step.inputs.items()} == {"password": "***", "pw": "***"}
    assert step.variables == {"API_KEY": "***", "OWN_TOKEN": "${{inputs.password}}", "PLAIN": "***"}
    for name in ("plan.json", "run.json"):
        text = (run_.folder / name).read_text()
        assert not [secret for secret in (*GIVEN, "pass8") if secret in text], name


@pytest.mark.parametrize("over", [False, True])
def test_what_a_program_says_of_the_secrets_that_its_definition_gives_is_shown_without_them(
    tmp_path: Path, _nothing_known: Callable[[], None], capsys: pytest.CaptureFixture[str], over: bool
) -> None:
    from workflows.flows import run_failures, watching
    from workflows.runs import attachable
    from workflows.tasks._runs import remark

    run_ = _submitted(tmp_path)
    for step in run_.steps:
        _raises(run_, step)
    if over:
        store.close(run_, records.FAILED, "")
    _nothing_known()
    seen = records.load(run_.folder)
    assert seen is not None
    found = attachable.attachables_of_run(seen)
    console = Console(as_json=True)
    console.line(watching.summary(found, 5))
    console.line(remark(found, ""))
    console.result({"endpoints": [one.as_json() for one in found]})
    _nothing_known()
    error = run_failures.step_failed(seen, seen.steps[0])
    show_error(str(error), error.details)
    out, err = capsys.readouterr()
    assert not [secret for secret in GIVEN if secret in out + err]
    assert out.count("ValueError: *** *** *** ***") == 2 and "ValueError: *** *** *** ***" in err


@pytest.mark.parametrize("legacy", [False, True])
def test_what_an_experiments_script_says_of_its_variables_is_shown_without_them(
    tmp_path: Path, _nothing_known: Callable[[], None], legacy: bool
) -> None:
    from workflows.redaction import scrub
    from workflows.runs import source_secrets

    file = tmp_path / "x.runconfig"
    older = "ArgumentVector: [train.py]\nEnvironmentVariables: {API_KEY: swordfish123}\n"
    file.write_text(older if legacy else RUNCONFIG)
    run_ = store.new_run(tmp_path, "experiment", "x", "process")
    run_.file = str(file)
    source_secrets.keep_secrets(run_)
    quoted = ("swordfish123",) if legacy else GIVEN[:3]
    assert scrub(" ".join(quoted)) == " ".join(["***"] * len(quoted))


def test_variables_of_an_inference_environment_are_known_once_it_was_read(
    tmp_path: Path, _nothing_known: Callable[[], None]
) -> None:
    from workflows.environments.definition import load_definition
    from workflows.redaction import scrub

    (tmp_path / "conda.yml").write_text("dependencies: []\nvariables: {API_KEY: swordfish123}\n")
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    load_definition(tmp_path, default_dockerfile=tmp_path / "Dockerfile")
    assert scrub("bad swordfish123") == "bad ***"


@pytest.mark.parametrize("variables", [{"API_KEY": "swordfish123"}, ["API_KEY"], None])
def test_variables_of_a_service_are_known_once_its_session_was_read(
    tmp_path: Path, _nothing_known: Callable[[], None], variables: object
) -> None:
    from dataclasses import fields

    from workflows import sessions
    from workflows.models import Service
    from workflows.redaction import scrub

    values: dict[str, object] = {entry.name: "" for entry in fields(Service)}
    values |= {"project": str(tmp_path), "variables": variables, "ready": {}, "alive": {}}
    write_json(sessions.session_folder(tmp_path) / "session.json", values)
    assert sessions.load(tmp_path) is not None
    assert scrub("bad swordfish123") == ("bad ***" if isinstance(variables, dict) else "bad swordfish123")


def test_a_damaged_plan_keeps_nobody_from_a_runs_record(tmp_path: Path) -> None:
    run_ = store.new_run(tmp_path, "experiment", "x", "process")
    records.save(run_)
    for text in ('{"steps": 1}', '{"steps": [{}]}', '{"secrets": [1], "steps": []}', '{"steps": [1]}', "[", "{}"):
        (run_.folder / "plan.json").write_text(text)
        records._kept.clear()
        assert records.load(run_.folder) is not None, text
