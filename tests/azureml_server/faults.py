"""Faults that tests let the server make."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field

from .web import HttpError


class Dropped(Exception):
    """The connection ends without an answer."""


@dataclass
class Fault:
    """What happens to requests whose `METHOD /path` holds `pattern`.

    Attributes:
        pattern: A regular expression.
        status: Answered in place of what was asked for; 0 for nothing of the kind.
        retry_after: Seconds in the Retry-After header.
        delay: Seconds before anything happens.
        drop: The connection is closed without an answer.
        cut: The connection is closed in the middle of the answer's body.
        times: How often; None for always.
        code: The error's code; the usual one by default.
        message: The error's message; the usual one by default.
        hit: How often it has happened.
    """

    pattern: str
    status: int = 0
    retry_after: float | None = None
    delay: float = 0.0
    drop: bool = False
    cut: bool = False
    times: int | None = None
    code: str = ""
    message: str = ""
    hit: int = field(default=0, compare=False)


_CODES = {
    401: ("InvalidAuthenticationToken", "The access token expiry UTC time is earlier than current UTC time."),
    403: ("AuthorizationFailed", "The client does not have authorization to perform the action over the scope."),
    404: ("ResourceNotFound", "The resource was not found."),
    429: ("TooManyRequests", "Rate limit is exceeded. Try again later."),
    500: ("InternalServerError", "The service has encountered an internal error."),
    503: ("ServiceUnavailable", "The service is unavailable."),
}


class Faults:
    """The faults that are in force."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        with self._lock:
            self._faults.remove(fault)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def throttle(self, pattern: str, retry_after: float = 1, times: int | None = None) -> Fault:
        """429 with Retry-After."""
        return self.add(Fault(pattern, status=429, retry_after=retry_after, times=times))

    def fail(self, pattern: str, status: int = 500, times: int | None = None, message: str = "") -> Fault:
        """An error in place of the answer."""
        return self.add(Fault(pattern, status=status, times=times, message=message))

    def slow(self, pattern: str, seconds: float, times: int | None = None) -> Fault:
        """An answer that takes its time."""
        return self.add(Fault(pattern, delay=seconds, times=times))

    def drop(self, pattern: str, times: int | None = None) -> Fault:
        """A connection closed without an answer."""
        return self.add(Fault(pattern, drop=True, times=times))

    def cut(self, pattern: str, times: int | None = None) -> Fault:
        """A connection closed in the middle of an answer."""
        return self.add(Fault(pattern, cut=True, times=times))

    def meet(self, method: str, path: str) -> bool:
        """Do what the faults that fit a request say; whether its answer is cut short.

        Raises:
            Dropped: The connection is to be closed.
            HttpError: The answer to give instead.
        """
        with self._lock:
            met = [
                fault
                for fault in self._faults
                if (fault.times is None or fault.hit < fault.times) and re.search(fault.pattern, f"{method} {path}")
            ]
            for fault in met:
                fault.hit += 1
        for fault in met:
            if fault.delay:
                time.sleep(fault.delay)
            if fault.drop:
                raise Dropped
            if fault.status:
                code, message = _CODES.get(fault.status, ("Error", "It went wrong."))
                headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
                raise HttpError(fault.status, fault.code or code, fault.message or message, headers)
        return any(fault.cut for fault in met)
