"""What a stopped program shows in a debug session: its stack, its variables, the values of expressions."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from workflows.debugger.dap import REQUEST_TIMEOUT, DapClosed, DapError, DapTimeout
from workflows.debugger.frames import Frame, Variable, read_locals, read_stack, read_variables
from workflows.debugger.sessions.model import Stop
from workflows.debugger.sessions.peer import Peer
from workflows.errors import UserError

#: Where a value is kept for a moment that something is set to.
_HOLDERS, _HOLDER = "__import__('builtins').__dict__", "_azureml_value_to_set"


class StopReader:
    """The part of a session that looks."""

    #: Whether a module's variables are shown with its modules, functions and classes.
    everything = False

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        """What goes wrong with the debugger is raised as :class:`UserError`."""
        raise NotImplementedError

    def _stopped(self, stop: Stop) -> Peer:
        """The process that stands at a stop.

        Raises:
            UserError: It has gone on, or ended.
        """
        raise NotImplementedError

    def stack(self, stop: Stop, start: int = 0, count: int = 0) -> list[Frame]:
        """The frames of what has stopped, the innermost first; ``count`` 0 is all."""
        with self._errors():
            return read_stack(self._stopped(stop).client, stop.thread, count, start)

    def locals(self, stop: Stop, frame: Frame | None = None) -> dict[str, str]:
        """``repr`` of all variables of a frame, by name; the innermost where none is named."""
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
        """A page of a frame's variables, with what is in them.

        Args:
            stop: Where it stands.
            frame: The frame; the innermost where none is named.
            path: What is in one of them, by names as they are given here; empty for the frame's own.
            start: How many to pass over.
            count: How many at most, here and in each container.
            depth: So deep containers are opened.
            characters: So many of each value are kept.
        """
        with self._errors():
            client = self._stopped(stop).client
            return read_variables(client, frame or stop.frame, start, count, depth, characters, path)

    def evaluate(
        self, stop: Stop, expression: str, frame: Frame | None = None, timeout: float = REQUEST_TIMEOUT
    ) -> str:
        """``repr`` of an expression's value in a frame, or type and text of the error that it raises.

        Raises:
            UserError: It did not end within ``timeout`` seconds; it is interrupted, where it runs Python.
        """
        with self._errors():
            return self._stopped(stop).evaluate(frame or stop.frame, expression, timeout)

    def set_variable(
        self, stop: Stop, name: str, expression: str, frame: Frame | None = None, timeout: float = REQUEST_TIMEOUT
    ) -> str:
        """Give a name, an attribute or an item another value. Returns the ``repr`` of that.

        Raises:
            UserError: It cannot be set to that, or did not end within ``timeout`` seconds; it is interrupted then.
        """
        with self._errors():
            peer = self._stopped(stop)
            where = frame or stop.frame
            # The value is made first, by an evaluation, which can be interrupted and says what it raises.
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
        """See that what has stopped is still there.

        Raises:
            UserError: It has ended.
        """
        with self._errors():
            self._stopped(stop).client.request("threads")
