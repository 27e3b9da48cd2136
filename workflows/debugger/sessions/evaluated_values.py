"""Expressions that the program evaluates when it passes a breakpoint's line: values to log, and conditions of stops.

debugpy's own logpoints send an event for each pass, which costs the program 0.1 ms, and 1 ms until it has arrived. So
the line gets a condition instead, which is never true and keeps the value in the program. The first ten values of each
tenth of a second are sent at once, the others together a few times a second. Hits are counted there, too.

The condition of a stop is evaluated in the same way: debugpy itself ignores one that raises, and waits for one that
does not end. Here both are reported, and the breakpoint is disabled from then on.
"""

from __future__ import annotations

import json

from workflows.debugger.sessions.model import CONDITION, ENDLESS, LOGGED, Breakpoint, Happening

#: The prefix of the output that carries values; no program's own output begins so.
_MARK = "\x01azureml\x01"
_MODULE = "__import__('sys').modules['_azureml_debug_values']"
#: Runs in the debugged program, on any Python from 3.8 on. 2,000 characters of each value are kept.
INSTALL = """\
def _azureml_debug_values():
    import _thread, atexit, builtins, collections, ctypes, dis, itertools, json, os, sys, threading, time, types
    name = "_azureml_debug_values"
    if getattr(sys.modules.get(name), "pid", 0) == os.getpid():
        return
    here = types.ModuleType(name)
    here.pid = os.getpid()
    waiting, wanted, said = collections.deque(), {}, [0.0, 0]
    # What is being evaluated, by thread: since when, how long it may take, and whether it has been interrupted.
    busy, lock = {}, _thread.allocate_lock()
    # In these before Python 3.12 the line is passed once more for each element, and the function's names are not there.
    own_frames = "<listcomp>", "<dictcomp>", "<setcomp>"
    watching, passed_at = [False], [0.0]

    def want(number, expression, when, first, most, seconds):
        code = compile("repr((\\n%s\\n))" % expression, "<log>", "eval") if expression else None
        condition = compile(when, "<when>", "eval") if when else None
        names = [one.argval for part in (code, condition) if part for one in dis.get_instructions(part)
                 if one.opname in ("LOAD_NAME", "LOAD_GLOBAL")]
        wanted[number] = code, condition, first, most, itertools.count(1), itertools.count(1), seconds, names
        passed_at[0] = time.monotonic()
        start_watching()

    def start_watching():
        if not watching[0]:
            watching[0] = True
            thread = threading.Thread(target=watch, daemon=True)
            thread.pydev_do_not_trace = thread.is_pydev_daemon_thread = True
            thread.start()

    def watch():
        try:
            look()
        finally:
            watching[0] = False

    def look():
        while busy or (wanted and time.monotonic() - passed_at[0] < 60):
            time.sleep(0.2)
            for ident, entry in list(busy.items()):
                with lock:
                    if busy.get(ident) is entry and not entry[2] and time.monotonic() - entry[0] > entry[1]:
                        entry[2] = True
                        error = ctypes.py_object(KeyboardInterrupt)
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), error)

    def evaluate(code, names, seconds):
        ident, entry = _thread.get_ident(), [time.monotonic(), seconds, False]
        busy[ident] = entry
        passed_at[0] = entry[0]
        start_watching()
        try:
            try:
                return "=", eval(code, names)
            finally:
                with lock:
                    busy.pop(ident, None)
                # It is not to reach the program's own code.
                while entry[2] and sys.exc_info()[0] is not KeyboardInterrupt:
                    pass
        except KeyboardInterrupt:
            if entry[2]:
                return "-", "did not end within %g s and was interrupted" % seconds
            return "!", "KeyboardInterrupt"
        except BaseException as error:
            return "!", "%s: %s" % (type(error).__name__, error)

    def passed(number):
        entry = wanted.get(number)
        if entry is None:
            return False
        code, condition, first, most, times, shown, seconds, needed = entry
        frame = sys._getframe(1)
        # One of them, so that what is in a comprehension sees all.
        names = dict(frame.f_globals, **frame.f_locals)
        if not all(one in names or hasattr(builtins, one) for one in needed) and program_frame(frame) in own_frames:
            return False
        if condition is not None:
            kind, value = evaluate(condition, names, seconds)
            if kind != "=":
                return end(number, "?" if kind == "!" else "-", value)
            if not value:
                return False
        if next(times) < first:
            return False
        if code is None:
            return True
        if most and next(shown) > most:
            wanted.pop(number, None)
            return False
        kind, value = evaluate(code, names, seconds)
        if kind == "-":
            return end(number, "-", value)
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

    def program_frame(frame):
        # pydevd evaluates in a frame of its own, whose names are those of the program's.
        names = frame.f_globals
        while frame is not None and (frame.f_globals is not names or frame.f_code.co_name == "<module>"):
            frame = frame.f_back
        return frame.f_code.co_name if frame is not None else ""

    def end(number, kind, text):
        wanted.pop(number, None)
        waiting.append((number, time.time(), kind, text))
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
#: Kinds by the sign that the program sends: a condition has raised; an evaluation did not end in time.
_KINDS = {"?": CONDITION, "-": ENDLESS}
FLUSH = f"{_MODULE}.flush()"
"""Expression that sends the collected values."""


def want(number: int, breakpoint_: Breakpoint, seconds: float) -> str:
    """The expression that installs a breakpoint's condition and logged expression in the program.

    Args:
        number: The breakpoint's number.
        breakpoint_: A breakpoint with a condition, or with an expression to log.
        seconds: How long an evaluation may take, after which it is interrupted and reported as an error.
    """
    condition = breakpoint_.condition
    return f"{_MODULE}.want{(number, breakpoint_.log, condition.when, condition.hits, breakpoint_.most, seconds)}"


def condition_of(number: int) -> str:
    """The condition for debugpy, which calls the installed one."""
    # As short as possible, since it is compiled at each pass.
    return f"_azureml_value({number})"


def settle(number: int) -> str:
    """The expression that sends a number after all earlier values."""
    return f"{_MODULE}.settle({number})"


def read_settled(text: str) -> int | None:
    """The number that :func:`settle` has sent; None if the text is other output."""
    start, _, number = text.strip().rpartition(" ")
    return int(number) if start == f"{_MARK}settled" and number.isdigit() else None


def read_values(text: str, child: int | None) -> list[Happening] | None:
    """The values and errors of conditions in an output; None if it is other output."""
    start = f"{_MARK}values "
    if not text.startswith(start):
        return None
    try:
        return [
            Happening(_KINDS.get(kind, LOGGED), float(at), child, None, int(number), str(value), kind != "=")
            for number, at, kind, value in json.loads(text[len(start) :])
        ]
    except (ValueError, TypeError):
        return []
