"""What the program spares azure-ai-ml."""

from __future__ import annotations

import inspect
import sys
import types

import pytest

from workflows.azureml.v2.sdk_module import keep_clouds, quiet

NAME = "azure.ai.ml._utils._experimental"
CLOUDS = "azure.ai.ml._azure_environments"


def test_remarks_that_nobody_sees_read_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(NAME)
    # As the SDK does it, but that it is seen.
    looks: list[int] = []
    module.__dict__.update(inspect=inspect, looks=looks)
    exec("def _should_skip_warning():\n    looks.append(len(inspect.stack()))\n    return False", vars(module))
    exec("def experimental():\n    return _should_skip_warning()", vars(module))
    monkeypatch.setitem(sys.modules, NAME, module)
    with pytest.raises(ZeroDivisionError), quiet():
        assert module.experimental() and not looks
        raise ZeroDivisionError
    assert not module.experimental() and len(looks) == 1


@pytest.mark.parametrize("module", [None, types.ModuleType(NAME)])
def test_an_sdk_that_decides_otherwise_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, module: types.ModuleType | None
) -> None:
    monkeypatch.setitem(sys.modules, NAME, module)
    with quiet():
        pass
    assert module is None or not hasattr(module, "_should_skip_warning")


def test_clouds_that_have_been_read_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(CLOUDS)
    # As the SDK does it: nothing where the address does not answer.
    answers: list[dict[str, str]] = [{}, {"name": "one"}, {"name": "two"}]
    module.__dict__.update(answers=answers)
    exec("def _get_clouds_by_metadata_url(metadata_url):\n    return answers.pop(0)", vars(module))
    exec("def details(address):\n    return _get_clouds_by_metadata_url(address)", vars(module))
    monkeypatch.setitem(sys.modules, CLOUDS, module)
    for _ in range(2):
        keep_clouds()
    assert [module.details("a") for _ in range(4)] == [{}] + [{"name": "one"}] * 3
    assert module.details("b") == {"name": "two"} and not answers


@pytest.mark.parametrize("module", [None, types.ModuleType(CLOUDS)])
def test_an_sdk_that_reads_clouds_otherwise_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, module: types.ModuleType | None
) -> None:
    monkeypatch.setitem(sys.modules, CLOUDS, module)
    keep_clouds()
    assert module is None or not hasattr(module, "_get_clouds_by_metadata_url")
