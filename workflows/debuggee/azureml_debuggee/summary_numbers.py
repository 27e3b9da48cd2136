"""Computes the range of an array's elements, their mean, and the number of NaN, within a time limit."""

from __future__ import annotations

import time

from .snapshot_arrays import COUNTED

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, List, Optional

#: Elements that are read at a time; they fit into a processor's cache.
PIECE = 1 << 16
TOO_MANY = "not computed: more than {:,} elements".format(COUNTED)
TOO_SLOW = "not computed: it would take too long"


class Numbers:
    """Results for an array's elements.

    Attributes:
        low: The smallest element as text; empty if it has not been computed.
        high: The largest.
        mean: Their mean.
        nan: How many are NaN, NaT or missing; None if they have not been counted.
        infinite: How many are infinite.
        true: How many are true; None if they are not booleans.
        note: Why something has not been computed.
    """

    def __init__(self, note: str = "") -> None:
        self.low = self.high = self.mean = ""
        self.nan: Optional[int] = None
        self.infinite = 0
        self.true: Optional[int] = None
        self.note = note

    def texts(self) -> List[str]:
        """The results as texts, in the order in which they are shown."""
        found = [
            "{} {}".format(name, text)
            for name, text in (("min", self.low), ("max", self.high), ("mean", self.mean))
            if text
        ]
        if self.true is not None:
            found.append("True {:,}".format(self.true))
        if self.nan is not None:
            found.append("NaN {:,}".format(self.nan))
        if self.infinite:
            found.append("inf {:,}".format(self.infinite))
        return found + ([self.note] if self.note else [])


def measure(numpy: Any, view: Any, until: float, convert: Optional[Callable[[Any], Any]] = None) -> Numbers:
    """Compute the results for an array's elements.

    Args:
        numpy: The contents of the module numpy.
        view: The array, of numpy's own class.
        until: The end of the available time, on the monotonic clock.
        convert: Converts a piece of the array to numbers, if its elements encode others.
    """
    kind = "f" if convert else view.dtype.kind
    if kind not in "biufcmM" or not view.size:
        return Numbers()
    if view.size > COUNTED:
        return Numbers(TOO_MANY)
    found = Numbers()
    nan = infinite = count = 0
    total: Any = 0
    lows: List[Any] = []
    highs: List[Any] = []
    is_nan = numpy["isnat" if kind in "mM" else "isnan"]
    smallest, largest, add = numpy["minimum"].reduce, numpy["maximum"].reduce, numpy["add"].reduce
    count_nonzero = numpy["count_nonzero"]
    wide = numpy["complex128" if kind == "c" else "float64"]
    flags = ["external_loop", "buffered", "zerosize_ok"]
    with numpy["errstate"](all="ignore"):
        for piece in numpy["nditer"](view, flags=flags, buffersize=PIECE, order="K"):
            # A small array, of one piece, is always read.
            if view.size > PIECE and time.monotonic() >= until:
                return Numbers(TOO_SLOW)
            if convert is not None:
                piece = convert(piece)
            if kind == "b":
                total += int(count_nonzero(piece))
                continue
            low = smallest(piece) if kind != "c" else piece[0]
            # The minimum is NaN if there is any NaN; these elements are counted and left out.
            if kind == "c" or (kind in "fmM" and low != low):
                missing = is_nan(piece)
                missing_count = int(count_nonzero(missing))
                if missing_count:
                    nan += missing_count
                    piece = piece[~missing]
                    if not piece.size:
                        continue
                    low = smallest(piece) if kind != "c" else piece[0]
            if kind != "c":
                high = largest(piece)
                lows.append(low)
                highs.append(high)
                if kind == "f" and (low in _INFINITE or high in _INFINITE):
                    infinite += int(count_nonzero(numpy["isinf"](piece)))
            if kind not in "mM":
                total += add(piece, dtype=wide)
                count += piece.size
    if kind == "b":
        found.true = total
        return found
    if kind in "fcmM":
        found.nan = nan
    found.infinite = infinite
    if lows:
        found.low, found.high = number_text(min(lows)), number_text(max(highs))
    if count:
        found.mean = number_text((complex if kind == "c" else float)(total) / count)
    return found


_INFINITE = (float("inf"), float("-inf"))


def number_text(value: Any) -> str:
    """A number as text; a fraction is rounded to four digits."""
    number = value.item() if hasattr(value, "dtype") and value.dtype.kind in "biufc" else value
    if type(number) is complex:
        return "{:.4g}{:+.4g}j".format(number.real, number.imag)
    if type(number) is float:
        return "{:.4g}".format(number).replace("nan", "NaN")
    if hasattr(number, "dtype") and number.dtype.kind in "fc":  # A wider type than Python's own.
        return number_text(complex(number) if number.dtype.kind == "c" else float(number))
    return str(number)[:40]
