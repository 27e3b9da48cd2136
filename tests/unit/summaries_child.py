"""What tests/unit/test_summaries.py debugs, with numpy, pandas and torch for real."""

# mypy: ignore-errors
# These libraries are in an environment of their own.

from __future__ import annotations

import time
import types
import warnings
from typing import Any

import debuggee_child
import numpy
import pandas
import torch

debuggee_child.load().start()


class Rude(numpy.ndarray):
    """Raises whatever it is asked."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __getitem__(self, at: Any) -> Any:
        raise RuntimeError("item")

    @property
    def shape(self) -> Any:
        """Not to be had."""
        raise RuntimeError("shape")

    def __array_ufunc__(self, *arguments: Any, **options: Any) -> Any:
        raise RuntimeError("ufunc")


class Hooked(torch.Tensor):
    """Raises at every function of torch's."""

    @classmethod
    def __torch_function__(cls, *arguments: Any, **options: Any) -> Any:
        raise RuntimeError("function")


class Opaque(torch.Tensor):
    """Even its shape is its own."""

    @classmethod
    def __torch_dispatch__(cls, *arguments: Any, **options: Any) -> Any:
        raise RuntimeError("dispatch")


class Houses(pandas.DataFrame):
    """A frame of the program's own."""

    @property
    def _constructor(self) -> Any:
        raise RuntimeError("constructor")


class Fraud:
    """Says that it is another."""

    @property
    def __class__(self) -> Any:
        return torch.Tensor

    def __repr__(self) -> str:
        return "a fraud"


def arrays() -> dict[str, Any]:
    """Arrays of each kind, by name."""
    return {
        "batch": numpy.arange(12, dtype="float32").reshape(3, 4),
        "gaps": numpy.array([1.5, numpy.nan, -numpy.inf]),
        "none": numpy.zeros((0, 3)),
        "one": numpy.array(7),
        "waves": numpy.array([1 + 2j, 3]),
        "days": numpy.array(["2020-01-02", "NaT"], dtype="datetime64[D]"),
        "things": numpy.array([object(), "text", None, 10**5000], dtype=object),
        "marks": numpy.array([True, False, True]),
        "hidden": numpy.ma.masked_array([1, 2, 3], mask=[0, 1, 0]),
        "every_other": numpy.arange(100.0).reshape(10, 10)[::2, ::5],
        "large": numpy.zeros(20_000_000, dtype="int8"),
        "rude": numpy.ones((2, 2)).view(Rude),
    }


def tensors() -> dict[str, Any]:
    """Tensors of each kind, by name."""
    freed = torch.zeros(1000)
    freed.untyped_storage().resize_(0)
    return {
        "batch": torch.arange(6.0).reshape(2, 3),
        "half": torch.tensor([1.5, float("nan"), -2], dtype=torch.bfloat16),
        "eighth": torch.ones(4).to(torch.float8_e4m3fn),
        "weight": torch.nn.Parameter(torch.ones(2, 2)),
        "meta": torch.zeros(3, device="meta"),
        "eye": torch.eye(3).to_sparse(),
        "ragged": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "freed": freed,
        "large": torch.zeros(20_000_000, dtype=torch.int8),
        "hooked": torch.zeros(2).as_subclass(Hooked),
        "opaque": torch.zeros(2).as_subclass(Opaque),
        "fraud": Fraud(),
    }


def tables() -> dict[str, Any]:
    """Data frames and series of each kind, by name."""
    houses = {"price": [1.5, None, 3.0] * 3, "rooms": [1, 20, 3] * 3, "name": ["a", None, "c\n"] * 3}
    return {
        "houses": pandas.DataFrame(houses, index=pandas.Index(list("abcdefghi"))),
        "prices": pandas.Series([1.0, None, 2.0], name="price"),
        "none": pandas.DataFrame(),
        "objects": pandas.DataFrame({"o": [object(), [1], None]}),
        "pairs": pandas.DataFrame(numpy.ones((2, 2)), columns=pandas.MultiIndex.from_tuples([("a", "b"), ("c", "d")])),
        "counts": pandas.Series([1, None, 3], dtype="Int64"),
        "own": Houses({"a": [1]}),
    }


#: What takes time to make is not made at each turn.
MILLION, WIDE = list(range(10**6)), pandas.DataFrame(numpy.ones((10, 10_000)))
MANY = numpy.random.default_rng(1).random(9_000_000)


def look(values: types.SimpleNamespace) -> None:
    """Where it is stopped."""
    text, short = "x" * 100_000, "short"
    small, million, wide = [1, 2, 3], MILLION, WIDE
    a = b = c = d = e = f = g = h = MANY
    seen = len(small) + len(million) + len(wide)  # LINE look
    del seen, text, short, a, b, c, d, e, f, g, h


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    VALUES = types.SimpleNamespace(arrays=arrays(), tensors=tensors(), tables=tables())
# A warning on the way would be an error.
warnings.simplefilter("error")
while True:
    look(VALUES)
    time.sleep(0.1)
