"""Elements and slices of an array, of which the first elements were recorded row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .model import LEFT_OUT, Place, Snapshot, Value

#: Characters of the text of several items.
_SHOWN = 2000


class Missing(LookupError):
    """The snapshot does not have what an expression names; the text is Python's own error where it is known."""


def array_item(snapshot: Snapshot, of: Value, key: Any) -> Value:
    """An element of an array, or a part with fewer dimensions.

    Args:
        snapshot: The snapshot.
        of: The array.
        key: A number, or a tuple of numbers.

    Raises:
        Missing: It was not recorded, or does not exist.
    """
    shape, start, size = _shape(of), 0, 1
    keys = key if isinstance(key, tuple) else (key,)
    if not all(type(one) in (int, bool) for one in keys):
        raise Missing("not recorded: of an array only elements by their numbers can be had, such as x[0, 1]")
    if len(keys) > len(shape):
        raise Missing(f"IndexError: too many indices for array: it has {len(shape)} dimensions")
    for place, one in enumerate(keys):
        size = _product(shape[place + 1 :])
        number = one + shape[place] if one < 0 else one
        if not 0 <= number < shape[place]:
            raise Missing(f"IndexError: index {one} is out of bounds for a dimension of {shape[place]}")
        start += number * size
    if len(keys) == len(shape):
        if start >= len(of.items):
            raise _not_kept(of, shape)
        found = snapshot.value(of.items[start][1])
        if found is None:
            raise _not_kept(of, shape)
        return found
    return _part(snapshot, of, shape[len(keys) :], start, size)


def array_slice(snapshot: Snapshot, of: Value, wanted: slice) -> Value:
    """Some rows of an array of several dimensions. Raises as :func:`array_item`."""
    shape = _shape(of)
    if not shape:
        raise Missing("IndexError: too many indices for array: it has no dimensions")
    try:
        numbers = range(shape[0])[wanted]
    except (ValueError, OverflowError) as error:
        raise Missing(f"ValueError: {error}") from error
    if len(numbers) > 1 and numbers.step != 1:
        raise Missing("not recorded: of an array of several dimensions only rows that follow each other can be had")
    row = _product(shape[1:])
    start = numbers[0] * row if numbers else 0
    return _part(snapshot, of, [len(numbers), *shape[1:]], start, len(numbers) * row)


def _part(snapshot: Snapshot, of: Value, shape: list[int], start: int, size: int) -> Value:
    kept = list(of.items[start : start + size])
    if size and not kept:
        raise _not_kept(of, _shape(of))
    more = size - len(kept)
    text = format_items(snapshot, [place for _key, place in kept], more, "[]")
    if len(shape) > 1:
        text = f"<array {tuple(shape)}> {text}"
    return Value(of.type, "array", text, length=size, items=kept, more=more, facts={**of.facts, "shape": shape})


def _not_kept(of: Value, shape: list[int]) -> Missing:
    return Missing(f"not recorded: of {_product(shape):,} elements the first {len(of.items):,} were kept")


def _shape(of: Value) -> list[int]:
    found = of.facts.get("shape")
    if not isinstance(found, list) or not all(type(one) is int and 0 <= one < 1 << 53 for one in found):
        return [of.length or len(of.items)]
    return list(found)


def _product(sizes: Sequence[int]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count


def format_items(snapshot: Snapshot, places: Sequence[Place], more: int, brackets: str) -> str:
    """The text of some items, and the number of those that were not recorded.

    Args:
        snapshot: The snapshot.
        places: The places of the items.
        more: How many items behind them were not recorded.
        brackets: The two brackets around them.
    """
    texts: list[str] = []
    letters = 0
    for place in places:
        found = snapshot.value(place)
        texts.append(found.text if found is not None else LEFT_OUT)
        letters += len(texts[-1])
        if letters > _SHOWN:
            break
    left = len(places) - len(texts) + more
    if left:
        texts.append(f"... {left:,} more")
    only = "," if brackets == "()" and len(texts) == 1 else ""
    return f"{brackets[0]}{', '.join(texts)}{only}{brackets[1]}"
