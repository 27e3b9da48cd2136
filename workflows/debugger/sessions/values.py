"""Values that are told each time a line is passed, without a stop.

debugpy's own logpoints send an event for each pass, which costs the program 0.1 ms, and 1 ms until it has arrived. So
the line has a condition instead, which is never true: it keeps the value in the program. The first ten of each tenth of
a second are sent at once, the others together a few times a second. Counting, too, is done there.
"""

from __future__ import annotations

import json

from workflows.debugger.sessions.model import CONDITION, LOGGED, Breakpoint, Happening

#: What begins the text of what is sent; no program's output comes this way.
_MARK = "\x01azureml\x01"
_MODULE = "__import__('sys').modules['_azureml_debug_values']"
#: Runs in the debugged program, of which any Python from 3.8 on may be the one. Of a value 2,000 characters are kept.
INSTALL = """\
def _azureml_debug_values():
    import atexit, builtins, collections, itertools, json, os, sys, time, types
    name = "_azureml_debug_values"
    if getattr(sys.modules.get(name), "pid", 0) == os.getpid():
        return
    here = types.ModuleType(name)
    here.pid = os.getpid()
    waiting, wanted, said = collections.deque(), {}, [0.0, 0]

    def want(number, expression, when, first, most):
        code = compile("repr((\\n%s\\n))" % expression, "<log>", "eval")
        condition = compile(when, "<when>", "eval") if when else None
        wanted[number] = code, condition, first, most, itertools.count(1), itertools.count(1)

    def passed(number):
        entry = wanted.get(number)
        if entry is None:
            return False
        code, condition, first, most, times, shown = entry
        frame = sys._getframe(1)
        # One of them, so that what is in a comprehension sees all.
        names = dict(frame.f_globals, **frame.f_locals)
        try:
            if condition is not None and not eval(condition, names):
                return False
        except BaseException as error:
            wanted.pop(number, None)
            waiting.append((number, time.time(), "?", "%s: %s" % (type(error).__name__, error)))
            flush()
            return False
        if next(times) < first:
            return False
        if most and next(shown) > most:
            wanted.pop(number, None)
            return False
        try:
            kind, value = "=", eval(code, names)
        except BaseException as error:
            kind, value = "!", "%s: %s" % (type(error).__name__, error)
        if len(value) > 2000:
            value = "%s\\u2026 (%d characters)" % (value[:2000], len(value))
        waiting.append((number, time.time(), kind, value))
        # The first of many at once, too: who passes once or twice may be killed soon.
        now = time.monotonic()
        if now - said[0] > 0.1:
            said[:] = [now, 0]
        said[1] += 1
        if said[1] <= 10:
            flush()
        return False

    def flush():
        found = []
        try:
            while len(found) < 5000:
                found.append(waiting.popleft())
        except IndexError:
            pass
        if found:
            say("values " + json.dumps(found))
        return len(waiting)

    def say(text):
        debugger = sys.modules["_pydevd_bundle.pydevd_constants"].get_global_debugger()
        if debugger is not None:
            debugger.writer.add_command(debugger.cmd_factory.make_io_message("\\x01azureml\\x01" + text, 1))

    def settle(number):
        while flush():
            pass
        say("settled %d" % number)

    def leave():
        while flush():
            pass

    here.want, here.flush, here.settle = want, flush, settle
    builtins._azureml_value = passed
    sys.modules[name] = here
    atexit.register(leave)

_azureml_debug_values()
"""
FLUSH = f"{_MODULE}.flush()"
"""Has what has come together sent."""


def want(number: int, breakpoint_: Breakpoint) -> str:
    """What is evaluated in the program before the breakpoint is set."""
    condition = breakpoint_.condition
    return f"{_MODULE}.want{(number, breakpoint_.log, condition.when, condition.hits, breakpoint_.most)}"


def condition_of(number: int) -> str:
    """The condition of the breakpoint's line."""
    # As short as can be, since it is compiled at each pass.
    return f"_azureml_value({number})"


def settle(number: int) -> str:
    """Has a number sent, behind all that was before."""
    return f"{_MODULE}.settle({number})"


def read_settled(text: str) -> int | None:
    """The number of :func:`settle`; None where it is another output."""
    start, _, number = text.strip().rpartition(" ")
    return int(number) if start == f"{_MARK}settled" and number.isdigit() else None


def read_values(text: str, child: int | None) -> list[Happening] | None:
    """The values, and errors of conditions, that an output tells; None where it is another output."""
    start = f"{_MARK}values "
    if not text.startswith(start):
        return None
    try:
        return [
            Happening(
                CONDITION if kind == "?" else LOGGED, float(at), child, None, int(number), str(value), kind != "="
            )
            for number, at, kind, value in json.loads(text[len(start) :])
        ]
    except (ValueError, TypeError):
        return []
