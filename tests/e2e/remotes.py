"""Projects on the laptop for the tests of `--remote`, and what lies of them on the instance."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host import Host
from hosts import Hosts
from laptop import Laptop
from pipelines import ADD, PIPELINE, PREPARE, READER, TELL
from projects import PLAIN, ROOT, Project, until
from ready import BARE

from workflows.debugger.readiness import current_state
from workflows.remote.tunnels import query_keeper


@dataclass
class RemoteProject(Project):
    """A person's own project on a laptop, with an instance to work on."""

    laptop: Laptop = field(kw_only=True)
    host: Host = field(kw_only=True)

    @property
    def remote_folder(self) -> Path:
        """The project's folder on the instance, as the tests see it."""
        (found,) = self.host.path("azureml-debug").iterdir()
        return found

    @property
    def remote_root(self) -> str:
        """The same, as the instance sees it."""
        return f"{self.host.home}/azureml-debug/{self.remote_folder.name}"

    def remote(self, task: str, *arguments: str, **more: str) -> dict[str, Any]:
        """A task with `--remote --json`, which has to work."""
        return self.ok(task, "--remote", "--json", *arguments, **more).json

    def endpoint(self, name: str) -> dict[str, Any]:
        """What an editor makes of a configuration."""
        entry = self.launch()[name]
        mappings = [
            {**one, "localRoot": one["localRoot"].replace("${workspaceFolder}", str(self.folder))}
            for one in entry["pathMappings"]
        ]
        return {**entry["connect"], "path_mappings": mappings}

    def tunnels(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ok("remote.tunnels", "--json").json["tunnels"]
        return found

    def wait_for_tunnels(self, count: int, connected: bool = True) -> None:
        """Wait until there are so many tunnels, connected or not, as their process says; no command is typed for it."""

        def found() -> bool:
            answer = query_keeper(self.folder, {"do": "list"}) or {"tunnels": [], "problem": ""}
            return len(answer["tunnels"]) == count and bool(answer["problem"]) is not connected

        until(found, f"{count} tunnels, {'' if connected else 'not '}connected", pause=0.2)

    def wait_for_run(self, status: str) -> None:
        """Wait until the latest run there has a status, as its record says; no command is typed for it."""

        def found() -> bool:
            records = list(self.remote_folder.glob(".azureml-debug/runs/*/run.json"))
            latest = max((json.loads(path.read_text()) for path in records), key=lambda one: one["created"])
            return bool(latest["status"] == status)

        until(found, f"a run that is {status}", pause=0.1)

    def wait_for_step(self, step: str) -> None:
        """Wait until a step there waits for a debugger, as its events say; no command is typed for it."""
        events = f".azureml-debug/runs/*/steps/{step}/announce/events.jsonl"
        until(lambda: "waiting" in map(current_state, self.remote_folder.glob(events)), f"{step} waiting", pause=0.1)

    def files(self) -> dict[str, str]:
        """The project's files on the instance, less the program's own."""
        folder = self.remote_folder
        return {
            path.relative_to(folder).as_posix(): path.read_text()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and ".azureml-debug" not in path.parts
        }

    def clean_up(self) -> None:
        """End what a test has left."""
        super().clean_up()
        with contextlib.suppress(AssertionError):
            self.inv("remote.stop")
        for child in self.children:
            for pipe in (child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()


def make_remote_project(folder: Path, hosts: Hosts, host: Host, laptop: Laptop | None = None) -> RemoteProject:
    """A project with a service, a pipeline and a script, spaces in its paths; nothing of it is on the instance yet."""
    laptop = laptop or hosts.laptop
    (folder / "service").mkdir(parents=True)
    (folder / "tasks.py").write_text(BARE)
    (folder / "service" / "score.py").write_text(PLAIN)
    for step, text in {"prepare": PREPARE, "add": ADD, "tell": TELL}.items():
        (folder / step).mkdir()
        (folder / step / f"{step}.py").write_text(text)
    (folder / "prepare" / "helpers").mkdir()
    (folder / "prepare" / "helpers" / "numbers_file.py").write_text(READER)
    (folder / "some data").mkdir()
    (folder / "some data" / "numbers.txt").write_text("1 2 3\n")
    (folder / "pipeline.yml").write_text(PIPELINE)
    environ = {
        **laptop.environment(host),
        "PYTHONPATH": str(ROOT),
        "AML_ENGINE": "process",
        "AML_SCORE_SCRIPT": "service/score.py",
        "AML_PIPELINE_FILE": "pipeline.yml",
    }
    return RemoteProject(folder, environ, laptop=laptop, host=host)


@contextlib.contextmanager
def remote_project(folder: Path, hosts: Hosts, host: Host, laptop: Laptop | None = None) -> Iterator[RemoteProject]:
    """The same, taken away at the end."""
    made = make_remote_project(folder, hosts, host, laptop)
    try:
        yield made
    finally:
        made.clean_up()
