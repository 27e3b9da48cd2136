"""Which values the trials of a sweep get."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

import pytest

from workflows.errors import UserError
from workflows.pipelines.trials import trial_values
from workflows.pipelines.yaml_file import read_yaml


def trials(folder: Path, space: str, count: int, first: dict[str, Any], algorithm: str = "") -> list[dict[str, Any]]:
    file = folder / "sweep.yml"
    text = "search_space:\n" + textwrap.indent(textwrap.dedent(space).strip(), "  ") + "\n" + textwrap.dedent(algorithm)
    file.write_text(text)
    root = read_yaml(file, "sweep file")
    found = root.get("search_space")
    assert found is not None
    return trial_values(found.mapping("search_space"), first, count, root.get("sampling_algorithm"), "Step `tune`")


TWO = """
    rate: {type: choice, values: [0.1, 0.2]}
    layers: {type: choice, values: [1, 2, 3]}
"""


def test_a_grid_goes_on_where_the_first_trial_is_and_ends_with_the_space(tmp_path: Path) -> None:
    first = {"rate": 0.1, "layers": 1}
    found = trials(tmp_path, TWO, 4, first, "sampling_algorithm: grid\n")
    assert [(one["rate"], one["layers"]) for one in found] == [(0.1, 1), (0.1, 2), (0.1, 3), (0.2, 1)]
    assert len(trials(tmp_path, TWO, 100, first, "sampling_algorithm: {type: grid}\n")) == 6


def test_random_trials_are_the_same_each_time_and_others_by_another_seed(tmp_path: Path) -> None:
    space, first = "rate: {type: uniform, min_value: 0, max_value: 1}", {"rate": 0}
    found = trials(tmp_path, space, 5, first)
    assert found == trials(tmp_path, space, 5, first)
    assert found[0] == first and found[:3] == trials(tmp_path, space, 3, first)
    other = trials(tmp_path, space, 5, first, "sampling_algorithm: {type: random, seed: 7}\n")
    assert other[0] == first and other[1:] != found[1:]


def test_no_two_trials_are_the_same(tmp_path: Path) -> None:
    found = trials(tmp_path, TWO, 100, {"rate": 0.1, "layers": 1}, "sampling_algorithm: random\n")
    assert len(found) == 6 and len({tuple(one.values()) for one in found}) == 6


@pytest.mark.parametrize(
    ("space", "fits"),
    [
        ("{type: uniform, min_value: 2, max_value: 3}", lambda x: 2 <= x <= 3),
        ("{type: loguniform, min_value: -6, max_value: -1}", lambda x: math.exp(-6) <= x <= math.exp(-1)),
        ("{type: quniform, min_value: 1, max_value: 9, q: 2}", lambda x: x % 2 == 0 and isinstance(x, int)),
        ("{type: quniform, min_value: 0, max_value: 9, q: 0.5}", lambda x: x * 2 == int(x * 2)),
        ("{type: qloguniform, min_value: 0, max_value: 5, q: 10}", lambda x: x % 10 == 0),
        ("{type: normal, mu: 100, sigma: 0}", lambda x: x == 100),
        ("{type: lognormal, mu: 0, sigma: 1}", lambda x: x > 0),
        ("{type: qnormal, mu: 100, sigma: 30, q: 5}", lambda x: x % 5 == 0),
        ("{type: qlognormal, mu: 3, sigma: 1, q: 5}", lambda x: x % 5 == 0),
        ("{type: randint, upper: 50}", lambda x: 0 <= x < 50 and isinstance(x, int)),
        ("{type: choice, values: [a, b, c]}", lambda x: x in "abc"),
    ],
)
def test_each_distribution_draws_what_it_says(tmp_path: Path, space: str, fits: Any) -> None:
    found = trials(tmp_path, f"x: {space}", 40, {"x": "the first"})
    assert len(found) > 1 and all(fits(one["x"]) for one in found[1:])


@pytest.mark.parametrize(
    ("space", "algorithm", "told"),
    [
        ("x: {type: uniform, min_value: 1}", "", "has no `max_value`"),
        ("x: {type: uniform, min_value: 3, max_value: 1}", "", "`min_value` is larger than `max_value`"),
        ("x: {type: quniform, min_value: 1, max_value: 3, q: 0}", "", "is not more than 0"),
        ("x: {type: normal, mu: 1, sigma: -1}", "", "is less than 0"),
        ("x: {type: randint, upper: 0}", "", "has no values: `upper` is 0"),
        ("x: {type: uniform, min_value: a, max_value: 1}", "", "has to be a number, not `a`"),
        ("x: {type: lognormal, mu: 10000, sigma: 1}", "", "is too large a number"),
        ("x: {type: uniform, min_value: 1, max_value: 2}", "sampling_algorithm: grid\n", "is not a choice"),
        ("x: {type: randint, upper: 9}", "sampling_algorithm: guess\n", "samples by `guess`, which is unknown"),
        ("x: {type: randint, upper: 9}", "sampling_algorithm: {type: random, seed: x}\n", "has to be a whole number"),
    ],
)
def test_a_space_without_values_is_refused_with_its_line(tmp_path: Path, space: str, algorithm: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        trials(tmp_path, space, 3, {"x": 1}, algorithm)
    assert told in caught.value.problem
    assert caught.value.line == (3 if algorithm and "choice" not in told else 2)
    assert len(str(caught.value).splitlines()) == 2
