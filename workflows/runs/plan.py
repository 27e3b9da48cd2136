"""The plan of a run: what the runner is to do. Later edits of the submitted files do not change it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..models import ImageRef
from ..project import read_json, write_json
from ..redaction import MASK, find_known_secrets, is_secret_input, keep_inputs, keep_secret, keep_variables, scrub_value


@dataclass(frozen=True)
class PlannedInput:
    """An input of a step: a literal's text, a local path, or another step's output; all None if it is not given.

    Attributes:
        text: A literal.
        path: An absolute path.
        step: The step whose output it is.
        output: That output's name.
    """

    text: str | None = None
    path: str | None = None
    step: str | None = None
    output: str | None = None


@dataclass(frozen=True)
class PlannedDebug:
    """How a step is to be debugged, with the fields of :class:`~workflows.engines.steps.StepDebug`."""

    ports: Mapping[int, int]
    wait: bool
    timeout: int
    on_error: bool
    any_program: bool
    children: bool = True
    launched: str = "0"
    summaries: bool = True


@dataclass(frozen=True)
class PlannedBest:
    """How the trials of a sweep are compared.

    Attributes:
        trials: The steps that are its trials.
        metric: The ``primary_metric``.
        goal: ``minimize`` or ``maximize``.
        at_once: How many of them may run at the same time; 0 for no limit.
    """

    trials: tuple[str, ...]
    metric: str
    goal: str
    at_once: int = 0


@dataclass(frozen=True)
class PlannedStep:
    """One step.

    Attributes:
        name: Its name.
        command: The text for bash, with unresolved references.
        code: Absolute path of its source, or None.
        image: The image or environment that it runs in.
        inputs: Its inputs by name.
        outputs: Whether each output is a single file, by name.
        variables: Its own environment variables.
        distribution: As in the pipeline file.
        ranks: Number of processes.
        processes: Processes of each instance.
        shm_size: Size of /dev/shm in containers.
        after: Steps that it needs.
        includes: Absolute paths of files and folders that are placed beside the code in the working folder.
        debug: How it is debugged, or None.
        literal: Whether command and variables are used as they are, without resolving references.
        metrics: Whether the metrics that it logs with azureml-core are kept.
        best: How the trials of a sweep are compared; for the step of the sweep itself, which runs no program.
        seconds: How long it may run if it is not debugged; 0 for no limit.
    """

    name: str
    command: str
    code: str | None
    image: ImageRef
    inputs: Mapping[str, PlannedInput] = field(default_factory=dict)
    outputs: Mapping[str, bool] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    distribution: str = ""
    ranks: int = 1
    processes: int = 1
    shm_size: str = ""
    after: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    debug: PlannedDebug | None = None
    literal: bool = False
    metrics: bool = False
    best: PlannedBest | None = None
    seconds: int = 0


@dataclass(frozen=True)
class Plan:
    """A run's steps, each after those that it needs.

    Attributes:
        steps: The steps.
        outputs: The whole run's outputs: name to (step, output).
        continue_on_failure: Whether independent steps go on when one has failed.
        snapshots: Whether a failing program writes a snapshot.
        redact: A regular expression of names whose values are left out of snapshots.
    """

    steps: tuple[PlannedStep, ...]
    outputs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    continue_on_failure: bool = True
    snapshots: bool = False
    redact: str = ""


def save(plan: Plan, folder: Path) -> None:
    """Write a plan to a run's folder. It may hold secrets in commands' arguments and variables."""
    values = asdict(plan)
    # A secret of the definition may have lost its name here, as when an input of a step takes one of the pipeline.
    secrets = find_known_secrets("\n".join(_iter_texts(values["steps"])))
    write_json(folder / "plan.json", {**values, "secrets": secrets} if secrets else values)


def _iter_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _iter_texts(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _iter_texts(one)


def keep_secrets(folder: Path) -> None:
    """Have the secrets that a run's plan still has masked in all output."""
    values = read_json(folder / "plan.json")
    # A damaged plan is reported where the plan is needed.
    with contextlib.suppress(KeyError, TypeError, AttributeError):
        _register_secrets(values or {"steps": ()})


def _register_secrets(values: Mapping[str, Any]) -> None:
    for value in values.get("secrets", ()):
        keep_secret(value)
    for entry in values["steps"]:
        keep_variables({**entry["image"].get("variables", {}), **entry["variables"]})
        keep_inputs({name: one["text"] for name, one in entry["inputs"].items() if one["text"] is not None})


def remove_secrets(folder: Path) -> None:
    """Remove the secrets from the plan of a run that is over and whose steps will not run again."""
    values = read_json(folder / "plan.json")
    if values is not None:
        _register_secrets(values)
        clean = scrub_value(values["steps"])
        for entry in clean:
            for name, one in entry["inputs"].items():
                if one["text"] and is_secret_input(name, one["text"]):
                    one["text"] = MASK
        if clean != values["steps"] or values.pop("secrets", None):
            values.pop("secrets", None)
            write_json(folder / "plan.json", {**values, "steps": clean})


def load(folder: Path) -> Plan:
    """Read the plan of a run.

    Raises:
        ValueError: There is none.
    """
    values = read_json(folder / "plan.json")
    if values is None:
        raise ValueError(f"there is no plan in {folder}")
    _register_secrets(values)
    return Plan(
        steps=tuple(_parse_step(entry) for entry in values["steps"]),
        outputs={name: (step, output) for name, (step, output) in values["outputs"].items()},
        continue_on_failure=values["continue_on_failure"],
        # A run that an older version submitted has neither.
        snapshots=values.get("snapshots", False),
        redact=values.get("redact", ""),
    )


def _parse_step(values: Mapping[str, Any]) -> PlannedStep:
    found = dict(values)
    debug = found["debug"]
    if debug is not None:
        found["debug"] = PlannedDebug(**{**debug, "ports": {int(rank): port for rank, port in debug["ports"].items()}})
    best = found.get("best")
    if best is not None:
        found["best"] = PlannedBest(**{**best, "trials": tuple(best["trials"])})
    image = found["image"]
    found["image"] = ImageRef(**{**image, "notes": tuple(image["notes"]), "live": tuple(image["live"])})
    found["inputs"] = {name: PlannedInput(**entry) for name, entry in found["inputs"].items()}
    found["after"], found["includes"] = tuple(found["after"]), tuple(found["includes"])
    return PlannedStep(**found)
