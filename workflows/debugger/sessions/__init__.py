"""Long-lived debug sessions, for the inspections of one command and for clients of many calls."""

from workflows.debugger.sessions.errors import Ended, Lost, as_user_errors
from workflows.debugger.sessions.model import Breakpoint, Function, Happening, Placed, Stop, as_mapped
from workflows.debugger.sessions.session import ATTACH_TIMEOUT, EVALUATION_LIMIT, DebugSession

__all__ = [
    "ATTACH_TIMEOUT",
    "EVALUATION_LIMIT",
    "Breakpoint",
    "DebugSession",
    "Ended",
    "Function",
    "Happening",
    "Lost",
    "Placed",
    "Stop",
    "as_mapped",
    "as_user_errors",
]
