"""Signals while something goes on: really sent to this process."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from workflows.interrupts import handling_signals, reraising_lost_interrupts, uninterrupted


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    names = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in names}
    yield
    assert {number: signal.getsignal(number) for number in names} == before


@pytest.fixture
def mine() -> Iterator[list[int]]:
    """What a handler of somebody else's has taken of SIGTERM."""
    taken: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: taken.append(number))
    yield taken
    signal.signal(signal.SIGTERM, before)


def test_handlers_are_put_back_also_after_an_error(mine: list[int]) -> None:
    taken: list[int] = []
    with pytest.raises(KeyError), handling_signals(lambda number, frame: taken.append(number), "SIGTERM", "SIGNONE"):
        os.kill(os.getpid(), signal.SIGTERM)
        raise KeyError
    os.kill(os.getpid(), signal.SIGTERM)
    assert (taken, mine) == ([signal.SIGTERM], [signal.SIGTERM])


def test_what_somebody_else_handles_is_left_alone_where_only_defaults_are_wanted(mine: list[int]) -> None:
    taken: list[int] = []
    with handling_signals(lambda number, frame: taken.append(number), "SIGTERM", "SIGHUP", defaults_only=True):
        for number in (signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
    assert (taken, mine) == ([signal.SIGHUP], [signal.SIGTERM])


@pytest.mark.parametrize("defaults_only", [False, True])
def test_a_signal_that_is_ignored_stays_so(defaults_only: bool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        taken: list[int] = []
        with handling_signals(lambda number, frame: taken.append(number), "SIGHUP", defaults_only=defaults_only):
            os.kill(os.getpid(), signal.SIGHUP)
        assert taken == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_is_put_off_until_the_block_is_done() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        done.append(1)
    assert done == [1]


class Cleaned:
    """Something of which Python has to clean up more than a moment takes."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)


def test_ctrl_c_while_python_cleans_up_an_object_is_not_lost() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), reraising_lost_interrupts():
        Cleaned()
        time.sleep(10)
        reached = True
    assert not reached


def test_other_errors_of_a_finalizer_are_shown_as_before() -> None:
    seen = list[Any]()
    before, sys.unraisablehook = sys.unraisablehook, seen.append
    try:
        with reraising_lost_interrupts():
            Failing()
    finally:
        sys.unraisablehook = before
    assert [one.exc_type for one in seen] == [ValueError]


class Failing:
    """Something whose cleaning up fails."""

    def __del__(self) -> None:
        raise ValueError
