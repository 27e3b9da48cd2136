"""What the program spares azure-ai-ml."""

from __future__ import annotations

import inspect
import sys
import types

import pytest

from workflows.azureml.v2.sdk_module import quiet

NAME = "azure.ai.ml._utils._experimental"


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
