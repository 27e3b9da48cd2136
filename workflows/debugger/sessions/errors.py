"""Errors of the debugger as user errors of two lines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from workflows.debugger.dap import DapClosed, DapError, DapTimeout, DapUnreachable
from workflows.errors import UserError


class Ended(UserError):
    """The program ended before the stop that was waited for."""


class Lost(UserError):
    """The connection was lost without notice: the program was killed, or replaced by an exec."""


class EvaluationTimeout(DapTimeout):
    """An expression did not end in time."""


@contextlib.contextmanager
def as_user_errors(where: str) -> Iterator[None]:
    """Raise errors of the debugger at ``where`` (host:port) as :class:`UserError`."""
    again = "Start the program again and look at its log."
    try:
        yield
    except DapUnreachable as error:
        raise UserError(
            f"No debugger can be reached on {where}: {error}",
            "Start the program with debugging first.",
        ) from error
    except EvaluationTimeout as error:
        raise UserError(str(error), "Ask for less. The program goes on.") from error
    except DapTimeout as error:
        raise UserError(f"The debugger on {where} does not answer: {error}", again) from error
    except DapClosed as error:
        raise Lost(f"Lost the debugger on {where}: {error.reason}", again) from error
    except DapError as error:
        if "already being debugged" in str(error) and "; to take over: " in str(error):
            # An agent's session names its owner, and the command that ends it (azureml_debuggee.pair).
            said, _colon, command = str(error).partition("already being debugged. ")[2].partition("; to take over: ")
            raise UserError(f"{said} to the program on {where}", f"To take over: {command}") from error
        if "already being debugged" in str(error):
            raise UserError(
                f"An editor is already attached to the program on {where}",
                "Disconnect it (Shift+F5 in VS Code) and try again.",
            ) from error
        # The messages of debugpy 1.8.22's adapter for a program that has gone.
        if "disconnected unexpectedly" in str(error) or str(error) == "No more messages":
            raise UserError(f"The program behind {where} ended while it was being inspected", again) from error
        raise UserError(f"The debugger on {where} refused: {error}", again) from error
