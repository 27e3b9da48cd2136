"""The methods of a debug session that read a stopped program: stack, variables, values of expressions."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from workflows.debugger.dap import REQUEST_TIMEOUT, DapClosed, DapError, DapTimeout
from workflows.debugger.frames import Frame, Variable, read_locals, read_stack, read_variables
from workflows.debugger.sessions.model import Stop
from workflows.debugger.sessions.peer import Peer
from workflows.errors import UserError

#: Where a new value is stored for a moment before it is assigned.
_HOLDERS, _HOLDER = "__import__('builtins').__dict__", "_azureml_value_to_set"


class StopReader:
    """The part of a debug session that reads stops."""

    #: Whether modules, functions and classes count as variables of a module's frame.
    everything = False

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        """A context that raises errors of the debugger as :class:`UserError`."""
        raise NotImplementedError

    def _stopped(self, stop: Stop) -> Peer:
        """The process that is stopped.

        Raises:
            UserError: It has continued, or ended.
        """
        raise NotImplementedError

    def stack(self, stop: Stop, start: int = 0, count: int = 0) -> list[Frame]:
        """The frames of a stop, the innermost first; ``count`` 0 for all."""
        with self._errors():
            return read_stack(self._stopped(stop).client, stop.thread, count, start)

    def locals(self, stop: Stop, frame: Frame | None = None) -> dict[str, str]:
        """The ``repr`` of a frame's variables by name; by default of the innermost frame."""
        with self._errors():
            return read_locals(self._stopped(stop).client, frame or stop.frame, self.everything)

    def variables(
        self,
        stop: Stop,
        frame: Frame | None = None,
        *,
        path: Sequence[str] = (),
        start: int = 0,
        count: int = 100,
        depth: int = 0,
        characters: int = 1000,
    ) -> list[Variable]:
        """A page of a frame's variables with their children.

        Args:
            stop: The stop.
            frame: The frame; by default the innermost.
            path: Names, as returned here, of a container whose children are read; empty for the frame's variables.
            start: How many to skip.
            count: How many at most, here and in each container.
            depth: How many levels of containers are opened.
            characters: How many characters of each value are kept.
        """
        with self._errors():
            client = self._stopped(stop).client
            return read_variables(client, frame or stop.frame, start, count, depth, characters, path)

    def evaluate(
        self, stop: Stop, expression: str, frame: Frame | None = None, timeout: float = REQUEST_TIMEOUT
    ) -> str:
        """The ``repr`` of an expression's value in a frame, or type and text of the error that it raises.

        Raises:
            UserError: It did not end within ``timeout`` seconds; it is then interrupted, if it runs Python.
        """
        with self._errors():
            return self._stopped(stop).evaluate(frame or stop.frame, expression, timeout)

    def set_variable(
        self, stop: Stop, name: str, expression: str, frame: Frame | None = None, timeout: float = REQUEST_TIMEOUT
    ) -> str:
        """Set a variable, an attribute or an item. Returns the ``repr`` of the new value.

        Raises:
            UserError: It cannot be set, or did not end within ``timeout`` seconds and was interrupted.
        """
        with self._errors():
            peer = self._stopped(stop)
            where = frame or stop.frame
            # The value is evaluated first: an evaluation can be interrupted, and shows what it raises.
            why = peer.evaluate(where, f"{_HOLDERS}.__setitem__({_HOLDER!r}, (\n{expression}\n))", timeout, expression)
            if why != "None":
                raise UserError(f"{name} cannot be set to {expression}: {why}", "Correct it.")
            arguments = {"expression": name, "value": _HOLDER, "frameId": where.number}
            try:
                found = peer.client.request("setExpression", arguments, timeout)
            except (DapTimeout, DapClosed):
                raise
            except DapError as error:
                raise UserError(
                    f"{name} cannot be set to {expression}: {error}", "Name a variable, an attribute or an item."
                ) from error
            finally:
                with contextlib.suppress(DapError):
                    peer.evaluate(where, f"{_HOLDERS}.pop({_HOLDER!r}, None) and None", timeout)
            return str(found.get("value", ""))

    def check_alive(self, stop: Stop) -> None:
        """Check that the stopped process still exists.

        Raises:
            UserError: It has ended.
        """
        with self._errors():
            self._stopped(stop).client.request("threads")
