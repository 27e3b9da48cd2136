"""What the package that speaks to Azure ML does by itself, without the SDK."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from workflows import redaction
from workflows.azureml import errors, package, sdk, workspace
from workflows.azureml.checks import resource_manager, v2
from workflows.environments.definition import load_definition
from workflows.errors import BadValue, UserError
from workflows.flows.deployment import REQUIRED
from workflows.flows.packaging import read_source
from workflows.settings import Settings, packaged_defaults, resolve, service_principal

DOCKERFILE = packaged_defaults() / "env" / "inference" / "Dockerfile"
CONFIGURATION = {"subscription_id": "sub", "resource_group": "group", "workspace_name": "one"}


def settings_of(project: Path, **environ: str) -> Settings:
    return resolve(project, environ=environ)


# The workspace


@pytest.mark.parametrize("place", ["config.json", ".azureml/config.json", "aml_config/config.json", "../config.json"])
def test_config_json_is_found_where_the_sdk_finds_it(tmp_path: Path, place: str) -> None:
    project = tmp_path / "project"
    project.mkdir()
    path = project / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(CONFIGURATION))
    found = workspace.find_workspace(settings_of(project))
    assert (found.subscription_id, found.resource_group, found.workspace) == ("sub", "group", "one")
    assert found.source is not None and found.source.samefile(path)


def test_settings_come_before_config_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGURATION))
    found = workspace.find_workspace(settings_of(tmp_path, AML_WORKSPACE="two"))
    assert (found.subscription_id, found.workspace) == ("sub", "two")
    whole = {"AML_WORKSPACE": "two", "AML_RESOURCE_GROUP": "other", "AML_SUBSCRIPTION_ID": "third"}
    assert workspace.find_workspace(settings_of(tmp_path, **whole)).source is None


def test_a_workspace_that_is_not_named_or_only_in_part(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No Azure ML workspace is named"):
        workspace.find_workspace(settings_of(tmp_path))
    with pytest.raises(UserError, match="AML_SUBSCRIPTION_ID, AML_RESOURCE_GROUP is not set"):
        workspace.find_workspace(settings_of(tmp_path, AML_WORKSPACE="two"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("{\n  nothing", "config.json:2: error: This is not JSON"), ("[]", "names no workspace"),
     ('{"subscription_id": 3}', "subscription_id is not a string")],
)  # fmt: skip
def test_a_broken_config_json_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError) as caught:
        workspace.find_workspace(settings_of(tmp_path))
    assert said in str(caught.value)


# Signing in


@pytest.mark.parametrize("value", ["interactive", "service-principal", "managed-identity", "mine:sign_in", "a.b:C"])
def test_ways_to_sign_in(tmp_path: Path, value: str) -> None:
    assert settings_of(tmp_path, AML_AUTH=value).auth == value


@pytest.mark.parametrize("value", ["password", ":x", "a:b:c", "a:", "os; rm:x"])
def test_no_way_to_sign_in(tmp_path: Path, value: str) -> None:
    with pytest.raises(UserError, match="AML_AUTH"):
        settings_of(tmp_path, AML_AUTH=value)


def test_a_service_principal_comes_from_the_environment_then_from_env(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("AZURE_TENANT_ID=t\nAZURE_CLIENT_ID=file\nAZURE_CLIENT_SECRET=hush hush\n")
    found = service_principal(tmp_path, {"AZURE_CLIENT_ID": "environment"})
    assert (found.tenant_id, found.client_id, found.client_secret) == ("t", "environment", "hush hush")
    assert "hush" not in repr(found) and "hush" not in repr(settings_of(tmp_path))
    (tmp_path / ".env").unlink()
    with pytest.raises(UserError, match=r"needs AZURE_TENANT_ID, AZURE_CLIENT_SECRET\."):
        service_principal(tmp_path, {"AZURE_CLIENT_ID": "environment"})


# The SDK


def test_a_python_that_the_sdk_does_not_work_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "TOO_NEW", sys.version_info[:2])
    with pytest.raises(UserError, match="does not work on Python") as caught:
        sdk.load()
    assert "[azureml-v1]" in caught.value.remedy and "[azureml]" in caught.value.remedy


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({}, "azureml-core and azureml-pipeline-core are not installed"),
        ({"azureml-core": "1.61.0.post4"}, "azureml-pipeline-core is not installed"),
        ({"azureml-core": "1.40.0", "azureml-pipeline-core": "1.61.0"}, "azureml-core 1.40.0 is too old"),
    ],
)
def test_an_sdk_that_is_not_there_or_too_old(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], said: str
) -> None:
    monkeypatch.setattr(sdk, "TOO_NEW", (99, 0))
    monkeypatch.setattr(sdk, "version_of", versions.get)
    with pytest.raises(UserError, match=said) as caught:
        sdk.load()
    assert "pip install" in caught.value.remedy and "[azureml-v1]" in caught.value.remedy


# Errors


@pytest.mark.parametrize(
    "text",
    [
        "GET https://a.blob.core.windows.net/c/log.txt?sv=2019&sig=SECRET%3D&se=1 failed",
        "Authorization: Bearer SECRETsecret.part",
        "token eyJhbGciSECRET.eyJzdWIi.SECRET of nobody",
        '{"password": "SECRET", "user": "one"}',
        "client_secret=SECRET&grant_type=x",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=SECRET==;EndpointSuffix=x",
        "the value of SECRET-of-this-test is wrong",
    ],
)
def test_secrets_are_left_out_of_errors(text: str) -> None:
    redaction.keep_secret("SECRET-of-this-test")
    told = errors.explain(_fault("requests.exceptions", text), "reading")
    assert isinstance(told, UserError) and "SECRET" not in str(told)
    assert "SECRET" not in redaction.scrub(text) and redaction.scrub(text) != text


def test_words_without_secrets_stay_as_they_are() -> None:
    text = "The sign-in code: 5 tokens are left; see https://aka.ms/x and passwords.txt"
    assert redaction.scrub(text) == text


def _fault(module: str, text: str, status: int | None = None, **headers: str) -> Exception:
    """An exception as a library of the SDK's raises it."""
    kind = type("HttpError", (Exception,), {"__module__": module})
    made: Any = kind(text)
    if status is not None:
        made.response = type("Response", (), {"status_code": status, "headers": headers, "text": text})()
    found: Exception = made
    return found


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, errors.SignInRefused, "does not accept the sign-in"),
        (403, errors.NotAllowed, "no permission for reading the thing: you may not."),
        (404, errors.NotFound, "does not find"),
        (409, UserError, r"refused reading the thing \(409\): you may not."),
        (503, UserError, r"kept failing for 7 s"),
    ],
)
def test_an_answer_is_told_in_two_lines(status: int, kind: type[UserError], said: str) -> None:
    error = _fault("msrest.exceptions", json.dumps({"error": {"code": "X", "message": "you may not"}}), status)
    outer = RuntimeError("of the SDK")
    outer.__cause__ = error
    with pytest.raises(kind, match=said) as caught:
        raise errors.explain(outer, "reading the thing", 7.2)
    assert caught.value.remedy


def test_an_answer_is_found_in_words_that_hold_nothing_else() -> None:
    text = (
        "Received bad response from service:\nResponse Code: 429\nHeaders: {'Retry-After': '7'}\n"
        'Content: b\'{"error": {"message": "too many"}}\''
    )
    error = _fault("azureml.exceptions", text)
    assert (errors.status_of(error), errors.retry_after(error), errors.message_of(error)) == (429, 7.0, "too many.")


def test_an_error_whose_text_cannot_be_made_is_told_all_the_same() -> None:
    def fails(self: Exception) -> str:
        raise TypeError("'NoneType' object is not iterable")

    error: Any = type("ServiceException", (Exception,), {"__module__": "azureml._restclient", "__str__": fails})("x")
    told = errors.explain(error, "reading")
    assert isinstance(told, UserError) and "ServiceException" in told.problem


def test_a_bug_of_ours_stays_what_it_is() -> None:
    bug = ZeroDivisionError("division by zero")
    assert errors.explain(bug, "reading") is bug and not errors.is_transient(bug)


# Models and environments


def test_names_of_models() -> None:
    assert str(package.parse_model("houses")) == "houses"
    assert package.parse_model("my.model-1:12") == package.ModelName("my.model-1", 12)
    for text in ("", "a:b", "a:0", "a b", "a:1:2", "--x", "azureml:a:1"):
        with pytest.raises(BadValue):
            package.parse_model(text)


def test_flags_that_do_not_go_together() -> None:
    assert read_source("local", None, False) is None
    for wrong in (("azure", None, False), ("local", "a", False), ("local", None, True), ("azureml", None, False)):
        with pytest.raises(BadValue):
            read_source(*wrong)


def _recipe(folder: Path, base_image: str | None = None) -> package.Recipe:
    definition = load_definition(folder, required=REQUIRED, default_dockerfile=DOCKERFILE)
    return package.make_recipe(definition, base_image, folder / "score.py", folder)[0]


def test_an_environment_is_sent_whole_with_debugpy_when_it_is_missing(tmp_path: Path) -> None:
    (tmp_path / "conda.yml").write_text(
        "name: mine\nchannels: [conda-forge, other]\ndependencies:\n"
        "  - python=3.10\n  - numpy=1.26\n  - pip\n  - pip:\n    - -r more.txt\n    - azureml-defaults\n"
    )
    (tmp_path / "more.txt").write_text("--extra-index-url https://example.com/simple\nflask>=2  # why not\n")
    made = _recipe(tmp_path)
    sent = json.loads(made.conda)
    assert sent["channels"] == ["conda-forge", "other"]
    *conda, pip = sent["dependencies"]
    assert conda[0] == "python=3.10" and any("numpy" in line for line in conda)
    lines = pip["pip"]
    assert lines[:3] == ["--extra-index-url https://example.com/simple", "flask>=2", "azureml-defaults"]
    assert any(line.startswith("debugpy") for line in lines)
    assert not any(line.startswith("azureml-inference-server-http") for line in lines), "azureml-defaults has it"
    assert (made.base_image, made.base_dockerfile, made.source, made.entry) == (None, None, tmp_path, "score.py")


def test_a_debugpy_of_the_persons_own_stays(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("debugpy==1.8.22\n")
    (pip,) = [one for one in json.loads(_recipe(tmp_path).conda)["dependencies"] if isinstance(one, dict)]
    assert [line for line in pip["pip"] if line.startswith("debugpy")] == ["debugpy==1.8.22"]


def test_a_base_dockerfile_or_a_base_image(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("flask\n")
    (tmp_path / "Dockerfile").write_text("FROM mcr.microsoft.com/azureml/base\nRUN apt-get update\n")
    assert (_recipe(tmp_path).base_dockerfile or "").startswith("FROM mcr")
    named = _recipe(tmp_path, "some/image:1")
    assert (named.base_image, named.base_dockerfile) == ("some/image:1", None)
    (tmp_path / "Dockerfile").write_text("FROM x\nCOPY files /files\n")
    with pytest.raises(UserError) as caught:
        _recipe(tmp_path)
    assert "Dockerfile:2: error: " in str(caught.value)
    (tmp_path / "Dockerfile").write_text("FROM x AS y\nFROM z\nCOPY --from=y /a /b\n")
    assert _recipe(tmp_path).base_dockerfile


def test_the_programs_own_dockerfile_is_not_sent() -> None:
    assert _recipe(packaged_defaults() / "env" / "inference").base_dockerfile is None


def test_a_package_that_only_this_machine_has_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pyproject.toml").write_text("")
    (tmp_path / "requirements.txt").write_text("flask\n./mine\n")
    with pytest.raises(UserError) as caught:
        _recipe(tmp_path)
    assert "requirements.txt:2: error: " in str(caught.value)


# azureml.check


def test_what_a_role_allows() -> None:
    scientist = [{"actions": ["*/read", "Microsoft.MachineLearningServices/workspaces/*/action"], "notActions": []}]
    submit = "Microsoft.MachineLearningServices/workspaces/experiments/runs/submit/action"
    assert resource_manager.is_allowed(scientist, submit)
    assert resource_manager.is_allowed([{"actions": ["*"]}], submit)
    assert not resource_manager.is_allowed([{"actions": ["*"], "notActions": ["*/SUBMIT/action"]}], submit)
    assert not resource_manager.is_allowed([{"actions": ["*/read"]}], submit)
    assert not resource_manager.is_allowed([], submit)


CLUSTER = resource_manager.Compute("cpu", "AmlCompute", "Succeeded", 0, 4, "net/inner", "", "")


@pytest.mark.parametrize(
    ("compute", "ok", "said"),
    [
        (CLUSTER, True, "--remote"),
        (replace(CLUSTER, subnet=""), None, "only through a machine beside them"),
        (replace(CLUSTER, most=0), None, "stay queued"),
        (replace(CLUSTER, state="Failed"), None, "wait or fail"),
        (
            resource_manager.Compute("ci", "ComputeInstance", "Stopped", None, None, "", "", "10.0.0.4"),
            None,
            "Start it",
        ),
        (resource_manager.Compute("ci", "ComputeInstance", "Running", None, None, "", "", "10.0.0.4"), True, ""),
    ],
)
def test_what_is_said_of_a_compute_target(compute: resource_manager.Compute, ok: bool | None, said: str) -> None:
    found = resource_manager.compute_finding(compute)
    assert found.ok is ok and said in found.remedy and found.text.startswith(compute.name)


def test_a_cluster_in_no_network_is_reached_by_the_relay() -> None:
    found = resource_manager.compute_finding(replace(CLUSTER, subnet=""), relay=True)
    assert found.ok is True and not found.remedy
    assert resource_manager.compute_finding(replace(CLUSTER, most=0), relay=True).ok is None


@pytest.mark.parametrize(
    ("history", "host"),
    [
        ("https://westeurope.api.azureml.ms", "ssh-check.westeurope.nodes.azureml.ms"),
        ("https://local.api.localhost:4711/x", "ssh-check.local.nodes.localhost:4711"),
        ("https://127.0.0.1:4711", ""),
    ],
)
def test_the_relay_is_looked_for_beside_the_regions_other_services(history: str, host: str) -> None:
    assert v2.relay_host(history) == host
