"""The values of the trials of a sweep, which are the same each time.

The first trial has the values of :func:`workflows.pipelines.search_space.first_values`. The others are the next ones
of the grid if the file asks for a grid, and otherwise drawn at random from a seed. The distributions are those of
https://learn.microsoft.com/azure/machine-learning/reference-yaml-job-sweep#attributes-of-search-space
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UserError
from .definition import Pipeline, Step
from .problems import Problems
from .yaml_file import Value, refuse

#: After this many draws without a new trial, the search space is taken to have no more.
_DRAWS = 200
#: The ``limits`` of a sweep that are used.
_LIMITS = ("max_total_trials", "max_concurrent_trials", "trial_timeout")
#: The numbers of each distribution.
_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "choice": (),
    "randint": ("upper",),
    "uniform": ("min_value", "max_value"),
    "loguniform": ("min_value", "max_value"),
    "quniform": ("min_value", "max_value", "q"),
    "qloguniform": ("min_value", "max_value", "q"),
    "normal": ("mu", "sigma"),
    "lognormal": ("mu", "sigma"),
    "qnormal": ("mu", "sigma", "q"),
    "qlognormal": ("mu", "sigma", "q"),
}


@dataclass(frozen=True)
class Sweep:
    """The search space, objective and limits of a sweep.

    Attributes:
        space: The search space.
        first: The values of the first trial.
        algorithm: The ``sampling_algorithm``.
        metric: The ``primary_metric`` by which trials are compared; empty if the file names none.
        goal: ``minimize`` or ``maximize``.
        most: The ``max_total_trials`` of its ``limits``; 0 for no limit.
        at_once: The ``max_concurrent_trials``; 0 for no limit.
        seconds: The ``trial_timeout``; 0 for no limit.
        remarks: What works differently here if there are several trials.
    """

    space: Mapping[str, Value]
    first: Mapping[str, Any]
    algorithm: Value | None
    metric: str
    goal: str
    most: int = 0
    at_once: int = 0
    seconds: int = 0
    remarks: tuple[str, ...] = ()


def read_sweep(
    first: Callable[[str], Value | None],
    chosen: Mapping[str, Value],
    what: str,
    resolve_value: Callable[[Value], Value],
    problems: Problems,
) -> Sweep:
    """Read a sweep's fields about its trials.

    Args:
        first: Returns a field.
        chosen: The values of the first trial.
        what: The step in a message.
        resolve_value: Replaces ``${{parent.inputs.x}}`` by the pipeline's input.
        problems: Gets the errors of its objective and its limits.
    """
    space, objective = first("search_space"), first("objective")
    metric, goal = "", ""
    if objective is not None and problems.mapping(objective, f"`objective` of {what.lower()}"):
        wanted = objective.get("goal")
        metric = problems.text(objective.get("primary_metric"), "`primary_metric`")
        goal = problems.text(wanted, "`goal`").lower()
        if wanted is not None and goal and goal not in ("minimize", "maximize"):
            problems.add(wanted, f"`goal` cannot be `{goal}`.", "Write minimize or maximize.")
    goal = goal or "maximize"
    entries = space.data if space is not None and space.is_mapping else {}
    values = {name: value.data for name, value in chosen.items()}
    limits = [_limit(first("limits"), key, what, resolve_value, problems) for key in _LIMITS]
    most, at_once, seconds = (number for number, _ in limits)
    remarks = (*_remarks(first, what), *(remark for _, remark in limits if remark))
    return Sweep(entries, values, first("sampling_algorithm"), metric, goal, most, at_once, seconds, remarks)


def _limit(
    limits: Value | None, key: str, what: str, resolve_value: Callable[[Value], Value], problems: Problems
) -> tuple[int, str]:
    """A limit's value, 0 if there is none; and a remark if the value is out of range."""
    with problems.collect_errors():
        found = problems.mapping(limits, f"`limits` of {what.lower()}").get(key)
        if found is None or found.data is None:
            return 0, ""
        given = resolve_value(found).data
        try:
            number = int(given)
        except (TypeError, ValueError, OverflowError):
            problem = f"`{key}` of {what.lower()} has to be a whole number, not `{found.plain()}`."
            raise refuse(found, problem, "Correct that line.") from None
        if 0 < number < 10**9:
            return number, ""
        return 0, f"`{key}: {number}` of {what.partition(' ')[2]} is not acted on here"
    return 0, ""


def _remarks(first: Callable[[str], Value | None], what: str) -> tuple[str, ...]:
    """Remarks on fields of a sweep that Azure uses and this program ignores."""
    found, step = [], what.partition(" ")[2]
    algorithm, limits = first("sampling_algorithm"), first("limits")
    if first("early_termination") is not None:
        found.append(f"`early_termination` of {step} is not acted on here: every trial goes on to its end")
    if limits is not None and limits.is_mapping and limits.get("timeout") is not None:
        found.append(f"`limits.timeout` of {step} is not acted on here; `trial_timeout` is")
    if algorithm is not None:
        named = algorithm.get("type") if algorithm.is_mapping else algorithm
        if named is not None and str(named.data).lower() == "bayesian":
            found.append(f"the trials of {step} are drawn at random: what earlier ones have shown does not count here")
        found += [
            f"`{key}` of the sampling of {step} is not acted on here: its trials are drawn at random"
            for key in ("rule", "logbase")
            if algorithm.is_mapping and (value := algorithm.get(key)) is not None and str(value.data) != "random"
        ]
    return tuple(found)


def with_trials(pipeline: Pipeline, count: int, named: Sequence[str] = ()) -> Pipeline:
    """The pipeline with several trials for each sweep, each a step of its own: ``NAME.trial0`` and so on.

    A parameter with a value on the command line has that value in all trials.

    Args:
        pipeline: The pipeline.
        count: How many trials of each sweep.
        named: Only these trials of their sweeps are run.

    Raises:
        UserError: A search space has errors, with the line; or there is no such trial.
    """
    steps, asked, notes, problems = list[Step](), list[str](), list(pipeline.notes), Problems()
    for step in pipeline.steps:
        is_asked = step.name in pipeline.asked
        if step.sweep is None:
            steps.append(step)
            asked += [step.name] if is_asked else []
            continue
        trials = list[Step]()
        most = min(count, step.sweep.most or count)
        with problems.collect_errors():
            trials = _trials(step, step.sweep, most)
        if not trials:
            continue
        names = tuple(trial.name for trial in trials)
        if count > 1:
            notes += step.sweep.remarks
        if most < count:
            notes.append(f"`max_total_trials` of `{step.name}` is {most}: there are no more trials than that")
        if len(trials) < most:
            notes.append(
                f"the search space of `{step.name}` has no more than {len(trials)} trial{'s' if trials[1:] else ''}"
            )
        wanted = [name for name in named if step.name.endswith(name.rpartition(".")[0])] if is_asked else []
        for text in wanted:
            if not any(name.endswith(text) for name in names):
                raise UserError(f"There is no trial {text}.", f"The trials of {step.name} are: {', '.join(names)}")
        best = replace(step, kind="best", command="", code=None, inputs={}, includes=(), after=names)
        best = replace(best, distribution="", processes=1, instances=1, world=0)
        needed = any(step.name in other.after for other in pipeline.steps)
        if not wanted or needed:
            steps += [*trials, best]
        else:
            steps += [trial for trial in trials if trial.name.endswith(tuple(wanted))]
        asked += [name for name in names if not wanted or name.endswith(tuple(wanted))] if is_asked else []
    problems.check()
    return replace(pipeline, steps=tuple(steps), asked=tuple(asked), notes=tuple(notes))


def _trials(step: Step, sweep: Sweep, count: int) -> list[Step]:
    given = {name for name in sweep.space if step.inputs[name].file is None}
    space = {name: entry for name, entry in sweep.space.items() if name not in given}
    first = {name: value for name, value in sweep.first.items() if name not in given}
    found = []
    for number, values in enumerate(trial_values(space, first, count, sweep.algorithm, f"Step `{step.name}`")):
        changed = {name: replace(step.inputs[name], text=str(value)) for name, value in values.items()}
        inputs = {**step.inputs, **(changed if number else {})}
        found.append(
            replace(
                step, name=f"{step.name}.trial{number}", kind="trial", sweep=None, inputs=inputs, seconds=sweep.seconds
            )
        )
    return found


def trial_values(
    space: Mapping[str, Value], first: Mapping[str, Any], count: int, algorithm: Value | None, what: str
) -> list[dict[str, Any]]:
    """The values of the first trials.

    Args:
        space: The search space, without parameters that have a fixed value.
        first: The first trial's values.
        count: How many trials, at least one.
        algorithm: The ``sampling_algorithm``: a name, or ``type`` and ``seed``.
        what: The step in a message.

    Returns:
        At most ``count``; fewer if the space has no more.

    Raises:
        UserError: A distribution lacks a number, or a grid has a parameter that is not a choice; with the line.
    """
    found = [dict(first)]
    if count <= 1 or not space:
        return found
    name, seed = _algorithm(algorithm, what)
    if name == "grid":
        for combination in itertools.islice(_grid(space, what), count):
            if combination not in found:
                found.append(combination)
        return found[:count]
    draws, problems = {}, Problems()
    for key, entry in space.items():
        with problems.collect_errors():
            draws[key] = _draw(entry, f"`{key}` in the search space of {what.lower()}")
    problems.check()
    # The trials have to be the same each time, and this is not used for secrets.
    source = random.Random(seed)  # noqa: S311
    missed = 0
    while len(found) < count and missed < _DRAWS:
        values = {key: draw(source) for key, draw in draws.items()}
        missed = missed + 1 if values in found else 0
        if not missed:
            found.append(values)
    return found


def _algorithm(value: Value | None, what: str) -> tuple[str, int]:
    """The algorithm's name and seed. Bayesian sampling draws at random here, without using earlier results."""
    if value is None:
        return "random", 0
    named = value.get("type") if value.is_mapping else value
    name = str(named.data).lower() if named is not None else "random"
    if name not in ("random", "grid", "bayesian"):
        raise refuse(
            named or value, f"{what} samples by `{name}`, which is unknown.", "Write random, grid or bayesian."
        )
    seed = value.get("seed")
    if seed is None:
        return name, 0
    if isinstance(seed.data, bool) or not isinstance(seed.data, int):
        raise refuse(seed, f"The seed of {what.lower()} has to be a whole number.", "Correct that line.")
    return name, seed.data


def _grid(space: Mapping[str, Value], what: str) -> Iterator[dict[str, Any]]:
    """Every combination of values; the last parameter changes first."""
    columns, problems = [], Problems()
    for key, entry in space.items():
        if _type(entry) != "choice":
            problem = f"`{key}` in the search space of {what.lower()} is not a choice, which a grid needs."
            problems.add(entry, problem, "Write `type: choice` and its `values`, or sample at random.")
        columns.append(_choices(entry))
    problems.check()
    for combination in itertools.product(*columns):
        yield dict(zip(space, combination, strict=True))


def _draw(entry: Value, where: str) -> Callable[[random.Random], Any]:
    """A function that draws a value."""
    kind = _type(entry)
    if kind == "choice":
        choices = _choices(entry)
        return lambda source: source.choice(choices)
    numbers = [_number(entry, key, where) for key in _NUMBERS[kind]]
    if kind == "randint":
        if numbers[0] < 1:
            raise refuse(entry, f"{where} has no values: `upper` is {numbers[0]:g}.", "Give it 1 or more.")
        return lambda source: source.randrange(int(numbers[0]))
    low, high, *steps = numbers
    base = kind.removeprefix("q")
    if base.endswith("uniform") and low > high:
        problem = f"{where} has no values: `min_value` is larger than `max_value`."
        raise refuse(entry, problem, "Exchange the two.")
    if base.endswith("normal") and high < 0:
        raise refuse(entry, f"`sigma` of {where} is less than 0.", "Correct that line.")
    if steps and steps[0] <= 0:
        raise refuse(entry, f"`q` of {where} is not more than 0.", "Correct that line.")

    def draw(source: random.Random) -> Any:
        value = source.uniform(low, high) if base.endswith("uniform") else source.gauss(low, high)
        try:
            value = math.exp(value) if base.startswith("log") else value
        except OverflowError as error:
            raise refuse(entry, f"{where} is too large a number.", "Give it smaller ones.") from error
        value = round(value / steps[0]) * steps[0] if steps else value
        return int(value) if steps and float(value).is_integer() else value

    return draw


def _type(entry: Value) -> str:
    named = entry.get("type")
    return str(named.data).lower() if named is not None else "choice"


def _choices(entry: Value) -> list[Any]:
    values = entry.get("values")
    found = [one.plain() for one in values.data] if values is not None and isinstance(values.data, list) else []
    return [json.dumps(one) if isinstance(one, (dict, list)) else one for one in found]


def _number(entry: Value, key: str, where: str) -> float:
    value = entry.get(key)
    if value is None:
        raise refuse(entry, f"{where} has no `{key}`.", f"Give it a `{key}`: a trial needs a value.")
    if isinstance(value.data, bool) or not isinstance(value.data, (int, float)):
        raise refuse(value, f"`{key}` of {where} has to be a number, not `{value.plain()}`.", "Correct that line.")
    return float(value.data)
