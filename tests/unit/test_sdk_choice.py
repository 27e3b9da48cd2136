"""Which SDK a workspace is spoken to with, by what is installed and what AML_SDK says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from workflows.azureml import sdk, sdk_choice
from workflows.errors import UserError
from workflows.settings import Settings, resolve

V1 = {"azureml-core": "1.61.0.post4", "azureml-pipeline-core": "1.61.0"}
V2 = {"azure-ai-ml": "1.35.2"}


def asked(folder: Path, wanted: str) -> Settings:
    return resolve(folder, environ={"AML_SDK": wanted})


def install(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    monkeypatch.setattr(sdk, "version_of", versions.get)
    monkeypatch.setattr(sdk, "TOO_NEW", (99, 0))


@pytest.mark.parametrize(
    ("wanted", "installed", "chosen"),
    [
        ("auto", V2, "v2"),
        ("auto", V1, "v1"),
        ("auto", V1 | V2, "v2"),
        ("v1", V1 | V2, "v1"),
        ("v2", V1 | V2, "v2"),
        ("auto", {"azure-ai-ml": "1.99.0"}, "v2"),
    ],
)
def test_auto_is_v2_where_it_is_installed_else_v1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, installed: dict[str, str], chosen: str
) -> None:
    install(monkeypatch, installed)
    assert sdk_choice.chosen_sdk(asked(tmp_path, wanted)) == chosen


@pytest.mark.parametrize(
    ("wanted", "installed", "said", "extra"),
    [
        ("auto", {}, "No SDK of Azure ML is installed", "[azureml]'"),
        ("v2", V1, "azure-ai-ml is not installed", "[azureml]'"),
        ("v1", V2, "azureml-core and azureml-pipeline-core are not installed", "[azureml-v1]'"),
        ("auto", {"azureml-core": "1.61.0"}, "azureml-pipeline-core is not installed", "[azureml-v1]'"),
        ("auto", V1 | {"azure-ai-ml": "1.20.0"}, "azure-ai-ml 1.20.0 is too old; 1.35 is", "[azureml]'"),
        ("v2", {"azure-ai-ml": "2.0.0"}, "azure-ai-ml 2.0.0 is newer than", "[azureml]'"),
    ],
)
def test_what_is_asked_for_and_not_installed_is_told_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, installed: dict[str, str], said: str, extra: str
) -> None:
    install(monkeypatch, installed)
    with pytest.raises(UserError) as caught:
        sdk_choice.chosen_sdk(asked(tmp_path, wanted))
    assert said in caught.value.problem
    assert "pip install" in caught.value.remedy and extra in caught.value.remedy


def test_an_older_sdk_beside_one_that_does_not_fit_can_still_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, V1 | {"azure-ai-ml": "1.20.0"})
    assert sdk_choice.chosen_sdk(asked(tmp_path, "v1")) == "v1"


def test_choosing_imports_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, V1 | V2)
    for wanted in ("auto", "v1", "v2"):
        sdk_choice.chosen_sdk(asked(tmp_path, wanted))
    assert not [name for name in sys.modules if name.startswith(("azure.ai", "azureml.core"))]
