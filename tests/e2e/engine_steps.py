"""Steps on each engine, for the tests."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from projects import ROOT, until

from workflows import engines, settings
from workflows.engines.step_variables import MARK, step_variables
from workflows.engines.steps import StepEngine, StepProcess, StepSpec
from workflows.environments.references import resolve_environment
from workflows.models import ImageRef

#: Says that it runs, then runs for longer than any test.
SLEEPS = "import time; print('runs', flush=True); time.sleep(600)"


@pytest.fixture
def made(engine: str) -> StepEngine:
    return engines.load_steps(engine)


@pytest.fixture
def image(engine: str, tmp_path: Path) -> ImageRef:
    found = settings.resolve(ROOT, flags={}, environ={}, cwd=tmp_path)
    return resolve_environment(None, found, engine).build(engines.load(engine), print, debugged=True)


@dataclass
class Steps:
    """An engine and a step for it, whose folders have spaces in their paths."""

    engine: StepEngine
    spec: StepSpec

    @property
    def code(self) -> Path:
        assert self.spec.code is not None
        return self.spec.code

    def write(self, name: str, text: str) -> Path:
        path = self.code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def start(self, command: str, own: Mapping[str, str] | None = None) -> StepProcess:
        view = self.engine.prepare_view(self.spec)
        return self.engine.start_step(self.spec, command, step_variables(self.spec, own or {}, view.paths))

    def run(self, command: str, own: Mapping[str, str] | None = None) -> int:
        return ended(self.start(command, own))

    def log(self, rank: int | None = None) -> str:
        return self.spec.log(rank).read_text("utf-8", "replace")

    def until_logged(self, text: str, rank: int | None = None) -> None:
        until(lambda: text in self.log(rank), f"{text!r} in the log")

    def left(self) -> list[str]:
        """Processes and containers that still carry the run's mark."""
        import psutil

        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK, "").startswith(self.spec.run_id + "/"):
                    found.append(str(process))
            except psutil.Error:
                continue
        if self.engine.name == "docker":
            from workflows.engines.docker_client import connect

            client = connect()
            found += client.api.containers(all=True, filters={"label": f"azureml-debug.run={self.spec.run_id}"})
            client.close()
        return found


def ended(process: StepProcess, seconds: float = 30) -> int:
    until(lambda: process.poll() is not None, "the step's end", seconds)
    code = process.poll()
    assert code is not None
    return code


@pytest.fixture
def steps(made: StepEngine, image: ImageRef, tmp_path: Path) -> Iterator[Steps]:
    root = tmp_path / "a project"
    (root / "the code").mkdir(parents=True)
    spec = StepSpec(
        run_id=f"contract-{time.time_ns()}",
        step="train",
        project=root,
        folder=root / "its run" / "train",
        image=image,
        code=root / "the code",
    )
    found = Steps(made, spec)
    yield found
    made.end_run(spec.run_id)
    assert found.left() == []
