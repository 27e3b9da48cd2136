"""Files of each kind are read here, and whatever Azure's own SDK takes of them is taken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from azure_files import FILES, GIVEN, write

from workflows.pipelines.reader import load_pipeline

#: What the SDK says of each file: nothing, or why it does not take it.
CHECK = """
import json, logging, sys, warnings
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
from azure.ai.ml import load_component, load_job
from azure.ai.ml.entities._load_functions import load_schedule
found = {}
for name in sys.argv[1:]:
    load = load_schedule if "schedule" in name else load_component if "component.yml" in name else load_job
    try:
        loaded = load(name)
        checked = loaded._validate() if hasattr(loaded, "_validate") else None
        found[name] = "" if checked is None or checked.passed else str(checked.error_messages)
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


def sdk() -> str | None:
    """A Python with azure-ai-ml; None where there is none."""
    named = os.environ.get("AZUREML_DEBUG_TEST_SDK_V2")
    if named:
        return named
    found = subprocess.run([sys.executable, "-c", "import azure.ai.ml"], capture_output=True, timeout=60, check=False)
    return sys.executable if found.returncode == 0 else None


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_each_kind_is_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    assert load_pipeline(Path(name), GIVEN.get(name, {})).steps


@pytest.mark.timeout(180)
def test_what_azures_sdk_takes_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = sdk()
    if python is None:
        pytest.skip("AZUREML_DEBUG_TEST_SDK_V2 names no Python with azure-ai-ml")
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    done = subprocess.run(
        [python, "-c", CHECK, *FILES], capture_output=True, text=True, timeout=170, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    # The files are as people write them: one that the SDK refuses would prove nothing.
    assert {name: why for name, why in said.items() if why} == {}
    for name in FILES:
        load_pipeline(Path(name), GIVEN.get(name, {}))
