"""The text of a stopped program's values: descriptions on several lines, long texts with their length."""

from __future__ import annotations

import contextlib
import re

from workflows.debugger.dap import DapClient, DapClosed, DapError, DapTimeout, Json

#: The beginning of a description by the debuggee (azureml_debuggee/summary_values.py): a type, a shape.
_DESCRIPTION = re.compile(r"\w+ \((?:\d+,|\d+(?:, \d+)+)?\)(?: [\w{]|, |:)")
#: The length in characters beyond which debugpy cuts the middle out of a text.
_WHOLE = 65_000
#: Seconds for one description.
_SECONDS = 10.0


def describe_variable(client: DapClient, frame: int, entry: Json) -> str:
    """The text of a variable's value, with its complete description or its length where it has one.

    Args:
        client: An attached client.
        frame: The adapter's id of the frame.
        entry: The variable, as the adapter sent it.
    """
    value, name = str(entry["value"]), str(entry.get("evaluateName") or entry["name"])
    if _DESCRIPTION.match(value) and name.isidentifier():
        with contextlib.suppress(DapError):
            return _evaluate(client, frame, name, "hover", _SECONDS)
    if len(value) > _WHOLE and entry.get("type") in ("str", "bytes") and name.isidentifier():
        with contextlib.suppress(DapError):
            length = _evaluate(client, frame, f"{name}.__len__()", "watch", _SECONDS)
            return f"{value} ({length} characters)" if length.isdigit() else value
    return value


def evaluate_to_text(client: DapClient, frame: int, expression: str, timeout: float) -> str:
    """The text of an expression's value, or type and text of the error that it raised.

    Args:
        client: An attached client.
        frame: The adapter's id of the frame.
        expression: A Python expression.
        timeout: Seconds.

    Raises:
        DapTimeout: It did not end in time.
        DapClosed: The connection was lost.
    """
    try:
        return _evaluate(client, frame, expression, "hover", timeout)
    except (DapTimeout, DapClosed):
        raise
    except DapError as error:
        # In older versions of debugpy (1.8.0) a hover does not show the exception.
        if str(error) != "Exception occurred during evaluation.":
            return str(error)
    try:
        return _evaluate(client, frame, expression, "watch", timeout)
    except (DapTimeout, DapClosed):
        raise
    except DapError as error:
        return str(error)


def _evaluate(client: DapClient, frame: int, expression: str, context: str, timeout: float) -> str:
    arguments = {"expression": expression, "frameId": frame, "context": context}
    return str(client.request("evaluate", arguments, timeout).get("result", ""))
