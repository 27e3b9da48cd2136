"""Describes the frames of a snapshot, with lines of source and variables, and the exceptions and threads."""

from __future__ import annotations

import os
import sys
import time
from itertools import islice

from . import imports, snapshot_program, snapshot_types
from .snapshot_types import as_str, is_a, is_exactly, is_text

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional, Tuple

    from .snapshot_names import Names
    from .snapshot_values import Values

#: Frames of an exception that are kept: the nearest to where it was raised, and the outermost.
NEAREST, OUTERMOST = 150, 50
#: The same for frames of another thread; then threads, and exceptions of a chain, at most.
_NEAREST_OF_THREAD, _OUTERMOST_OF_THREAD, _THREADS, EXCEPTIONS = 40, 10, 200, 50
#: Frames whose variables are recorded.
_WITH_VARIABLES = 60
#: Variables of one frame.
_VARIABLES = 300
#: Lines of source before and after a frame's own, in the user's code and in other code.
_AROUND, _AROUND_OTHERS = 12, 3
#: Bytes of one source file and of all source files that are read; characters of a line.
_SOURCE, _SOURCES, _LINE = 4_000_000, 20_000_000, 500
#: Bytes of all recorded lines at most.
_LINES = 250_000
_BLOCK = 1 << 20
_FRAME: Any = type(sys._getframe())
_get: Any = {name: BaseException.__dict__[name].__get__ for name in ("__cause__", "__context__", "args")}
_get["__suppress_context__"] = BaseException.__dict__["__suppress_context__"].__get__
_traceback_of: Any = BaseException.__dict__["__traceback__"].__get__
_HERE = os.path.dirname(os.path.abspath(__file__))
#: The folder of all code that is loaded into a program.
_OURS = os.path.join(os.path.dirname(_HERE), "")


class Frames:
    """The frames of all exceptions and threads.

    Args:
        names: Tells what is left out.
        folder: The folder that the program was started in, to which relative paths refer.
    """

    def __init__(self, names: Names, folder: str) -> None:
        self.entries: List[Dict[str, Any]] = []
        #: Whether any frame runs the user's code.
        self.has_own = False
        self._names, self._folder = names, folder
        self._omissions: List[str] = []
        # For each exception the index and frame of each of its frames, the nearest first.
        self._described: List[List[Tuple[int, Any]]] = []
        self._traced: List[int] = []
        self._files: Dict[str, Tuple[List[str], Optional[str]]] = {}
        self._read = 0
        prefixes = {os.path.dirname(os.path.abspath(os.__file__))}
        self._library = tuple(os.path.join(one, "") for one in prefixes | {os.path.realpath(one) for one in prefixes})
        self._owned: Dict[str, bool] = {}

    def add_trace(self, trace: Any) -> List[int]:
        """Add the frames of a traceback, and return their indices, outermost first."""
        found: List[Tuple[Any, int]] = []
        nearest: List[Tuple[Any, int]] = []
        count = 0
        # The middle of a deep traceback is not kept, not even temporarily.
        while trace is not None:
            count += 1
            if len(found) < OUTERMOST:
                found.append((trace.tb_frame, trace.tb_lineno))
            else:
                nearest.append((trace.tb_frame, trace.tb_lineno))
                if len(nearest) > 2 * NEAREST:
                    del nearest[:-NEAREST]
            trace = trace.tb_next
        found.extend(nearest[-NEAREST:])
        found = [(frame, line) for frame, line in found if not self._is_ours(frame)]
        if count > OUTERMOST + NEAREST:
            left = count - OUTERMOST - NEAREST
            self._omissions.append(
                "{:,} frames between the {} outermost and the {} nearest".format(left, OUTERMOST, NEAREST)
            )
        indices = [self._add(frame, line) for frame, line in found]
        pairs = [(index, frame) for index, (frame, _) in zip(indices, found)]
        self._described.append(pairs[::-1])
        self._traced.extend(indices[::-1])
        return indices

    def add_thread(self, frame: Any) -> List[int]:
        """Add the frames of a thread, and return their indices, outermost first."""
        found: List[Tuple[Any, int]] = []
        outermost: List[Tuple[Any, int]] = []
        while frame is not None:
            if len(found) < _NEAREST_OF_THREAD:
                found.append((frame, frame.f_lineno or 0))
            else:
                outermost.append((frame, frame.f_lineno or 0))
                if len(outermost) > 2 * _OUTERMOST_OF_THREAD:
                    del outermost[:-_OUTERMOST_OF_THREAD]
            frame = frame.f_back
        found.extend(outermost[-_OUTERMOST_OF_THREAD:])
        return [self._add(one, line) for one, line in reversed(found)]

    def add_syntax_error(self, error: Any) -> List[int]:
        """Add a frame for the place of a syntax error, which has no frame of its own; returns its index in a list."""
        own = SyntaxError.__dict__
        file, line = own["filename"].__get__(error), own["lineno"].__get__(error)
        if type(file) is not str or type(line) is not int or file.startswith("<"):
            return []
        self._traced.append(len(self.entries))
        self.entries.append(self._entry(file, line, "<module>", "__main__"))
        return [len(self.entries) - 1]

    def _is_ours(self, frame: Any) -> bool:
        return os.path.dirname(as_str(frame.f_code.co_filename)) == _HERE

    def _add(self, frame: Any, line: int) -> int:
        code = frame.f_code
        name: Any = dict.get(frame.f_globals, "__name__") if is_a(type(frame.f_globals), dict) else None
        function = as_str(getattr(code, "co_qualname", code.co_name))
        entry = self._entry(
            as_str(code.co_filename), line or 0, as_str(code.co_name), as_str(name)[:200] if is_text(name) else ""
        )
        if function != entry["function"]:
            entry["class"] = function.rpartition(".")[0]
        self.entries.append(entry)
        return len(self.entries) - 1

    def _entry(self, file: str, line: int, function: str, module: str) -> Dict[str, Any]:
        if not file.startswith("<") and not os.path.isabs(file):
            file = os.path.join(self._folder, file)
        is_own = self._is_own(file, module)
        self.has_own = self.has_own or is_own
        real = file if file.startswith("<") else os.path.realpath(file)
        return {
            "file": file[:4000],
            # In a step's working folder, scripts are reached through links.
            **({} if real == file else {"real": real[:4000]}),
            "line": line,
            "function": function[:300],
            "module": module,
            "own": is_own,
            "source": {"first": line, "lines": [], "sha256": None},
            "locals": [],
        }

    def _is_own(self, file: str, module: str) -> bool:
        """Whether a file is the user's code: it belongs neither to Python nor to an installed package."""
        known = self._owned.get(file)
        if known is None:
            if file.startswith("<"):
                known = (module == "__main__" and file in ("<string>", "<stdin>")) or file.startswith("<ipython")
            else:
                real = os.path.realpath(file)
                known = not any(
                    "-packages" + os.sep in one or one.startswith(self._library) or one.startswith(_OURS)
                    for one in (file, real)
                )
            self._owned[file] = known
        return known

    def left_out(self) -> List[str]:
        """Descriptions of what did not fit."""
        return self._omissions

    # Sources

    def read_sources(self, until: float) -> None:
        """Record the lines around each frame's own.

        Args:
            until: The end of the available time, on the monotonic clock.
        """
        size = 0
        wanted = sorted(self._traced, key=lambda index: not self.entries[index]["own"])
        for number, index in enumerate(wanted):
            # The first is the one nearest to the failure, and is always recorded.
            if number and (size > _LINES or time.monotonic() >= until):
                self._omissions.append("the source of {:,} frames".format(len(wanted) - number))
                return
            entry = self.entries[index]
            lines, digest = self._source(entry["file"])
            around = _AROUND if entry["own"] else _AROUND_OTHERS
            first = max(1, entry["line"] - around)
            part = [self._names.line(line[:_LINE]) for line in lines[first - 1 : entry["line"] + around]]
            entry["source"] = {"first": first, "lines": part, "sha256": digest}
            size += sum(map(len, part)) + 3 * len(part)

    def _source(self, file: str) -> Tuple[List[str], Optional[str]]:
        found = self._files.get(file)
        if found is None:
            try:
                found = self._read_source(file)
            except Exception:
                found = [], None  # It has been removed, or is in an archive.
            self._files[file] = found
        return found

    def _read_source(self, file: str) -> Tuple[List[str], Optional[str]]:
        if file.startswith("<"):
            # `linecache` has code that was typed, as in a notebook.
            cache = snapshot_types.from_module(sys.modules, "linecache", "cache")
            entry = dict.get(cache, file) if type(cache) is dict else None
            lines = entry[2] if type(entry) is tuple and len(entry) == 4 else []
            return [one.rstrip("\n") for one in lines if type(one) is str], None
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            status = os.fstat(handle)
            if status.st_mode & 0o170000 != 0o100000 or status.st_size > min(_SOURCE, _SOURCES - self._read):
                return [], None
            pieces = []
            while True:
                piece = os.read(handle, _BLOCK)
                if not piece:
                    break
                pieces.append(piece)
        finally:
            os.close(handle)
        data = b"".join(pieces)
        self._read += len(data)
        digest = imports.standard_module("hashlib").sha256(data).hexdigest()
        return _decode(data).splitlines(), digest

    # Variables

    def describe(self, values: Values) -> None:
        """Record the frames' variables, first those of the exception itself, the nearest frame first."""
        pairs = [pair for group in self._described for pair in group]
        pairs.sort(key=lambda pair: not self.entries[pair[0]]["own"])
        kept, rest = pairs[:_WITH_VARIABLES], pairs[_WITH_VARIABLES:]
        for number, (index, frame) in enumerate(kept):
            # The nearest frame of the user's code is the most informative.
            left = values.most - values.size
            values.limit(left // 2 if number == 0 else max(left // 4, left // (len(kept) - number)))
            recorded: List[List[Any]] = []
            for name, value in _variables(frame):
                recorded.append([name, values.add(value, name)])
                values.size += len(name) + 8
            self.entries[index]["locals"] = recorded
            values.describe_added()
        if rest:
            self._omissions.append("the variables of {:,} frames".format(len(rest)))
        # What follows may use all remaining bytes.
        values.limit(values.most)


def _variables(frame: Any) -> Iterator[Tuple[str, Any]]:
    """A frame's variables."""
    found: Any = frame.f_locals
    if is_a(type(found), dict):
        pairs = list(islice(dict.items(found), _VARIABLES))
    elif snapshot_types.class_name(type(found)) == "builtins.FrameLocalsProxy":
        pairs = list(found.items())[:_VARIABLES]
    else:
        return  # A namespace of a class of the user's own.
    is_module = found is frame.f_globals or frame.f_code.co_name == "<module>"
    for name, value in pairs:
        if not is_text(name):
            continue
        text = as_str(name)
        if is_module and text.startswith("__") and text.endswith("__"):
            continue
        yield text[:200], value


def _decode(data: bytes) -> str:
    head = data.partition(b"\n")[0] + data.partition(b"\n")[2].partition(b"\n")[0]
    if b"coding" in head and not data.startswith(b"\xef\xbb\xbf"):
        found = imports.standard_module("re").search(rb"coding[:=][ \t]*([-\w.]{1,40})", head)
        try:
            return data.decode(found.group(1).decode("ascii"), "replace")
        except Exception:
            pass  # There is no such encoding; Python would not have run the file.
    return data.decode("utf-8-sig", "replace")


# Exceptions ---------------------------------------------------------------------------------------------


def collect_exceptions(error: BaseException, trace: Any, frames: Frames) -> List[Dict[str, Any]]:
    """Collect an exception and its causes, and add their frames; the first entry is the exception itself."""
    found: List[Dict[str, Any]] = []
    known: Dict[int, int] = {}
    waiting: List[Any] = [error]
    known[id(error)] = 0
    at = 0
    while at < len(waiting):
        one = waiting[at]

        def index_of(other: Any) -> Optional[int]:
            if other is None or not is_a(type(other), BaseException):
                return None
            if id(other) not in known:
                if len(waiting) >= EXCEPTIONS:
                    return None
                known[id(other)] = len(waiting)
                waiting.append(other)
            return known[id(other)]

        indices_of_frames = frames.add_trace(trace if at == 0 else _traceback_of(one))
        if is_a(type(one), SyntaxError):
            indices_of_frames += frames.add_syntax_error(one)
        found.append(
            {
                "value": one,
                "frames": indices_of_frames,
                "cause": index_of(_get["__cause__"](one)),
                "context": index_of(_get["__context__"](one)),
                "suppress_context": bool(_get["__suppress_context__"](one)),
                "group": [index for index in map(index_of, _members(one)[: EXCEPTIONS // 2]) if index is not None],
            }
        )
        at += 1
    return found


def _members(error: Any) -> Tuple[Any, ...]:
    """The exceptions of a group."""
    for kind in snapshot_types.ancestors(type(error)):
        if snapshot_types.short_name(kind) != "BaseExceptionGroup":
            continue
        members: Any = dict(snapshot_types.class_entries(kind)).get("exceptions")
        if type(members) is snapshot_types.MEMBER:
            found = members.__get__(error, kind)
        else:
            # Before Python 3.11, the package exceptiongroup stores them here.
            found = dict.get(snapshot_types.Shape(type(error)).entries(error) or {}, "_exceptions")
        return found if type(found) is tuple else tuple(found) if type(found) is list else ()
    return ()


def describe_exceptions(found: List[Dict[str, Any]], values: Values, names: Names) -> List[Dict[str, Any]]:
    """Describe the exceptions as they are in the file."""
    entries = []
    for one in found:
        error = one.pop("value")
        kind = type(error)
        index = values.add(error)
        values.describe_added()
        attributes = snapshot_types.Shape(kind).entries(error) or {}
        notes: Any = dict.get(attributes, "__notes__")
        texts = [as_str(note) for note in notes[:50] if is_text(note)] if is_exactly(notes, list, tuple) else []
        entry = {
            "type": snapshot_types.short_name(kind),
            "module": snapshot_types.module_name(kind),
            "text": names.text(_message(error, values)),
            "notes": [names.text(text[:2000]) for text in texts],
            **one,
        }
        if index is not None:
            entry["value"] = index
        entries.append(entry)
    return entries


def _message(error: Any, values: Values) -> str:
    """An exception's message, from its arguments; its own `__str__` is not called."""
    arguments: Any = _get["args"](error)
    kind = type(error)
    if is_a(kind, OSError):
        own = OSError.__dict__
        number, reason, file = (own[name].__get__(error) for name in ("errno", "strerror", "filename"))
        if type(number) is int and is_text(reason):
            named = ": " + _value_text(file, values) if file is not None else ""
            return "[Errno {}] {}{}".format(number, as_str(reason)[:2000], named)
    if is_a(kind, SyntaxError):
        own = SyntaxError.__dict__
        message, file, line = (own[name].__get__(error) for name in ("msg", "filename", "lineno"))
        if is_text(message):
            place = " ({}, line {})".format(os.path.basename(as_str(file)), line) if is_text(file) else ""
            return as_str(message)[:2000] + place
    if is_exactly(error, UnicodeDecodeError, UnicodeEncodeError):
        encoding, reason = (kind.__dict__[name].__get__(error) for name in ("encoding", "reason"))
        if type(encoding) is str and type(reason) is str:
            return str(error)[:2000]
    if type(arguments) is not tuple or not arguments:
        return ""
    members = _members(error)
    if members and is_text(arguments[0]):
        count = len(members)
        return "{} ({} sub-exception{})".format(as_str(arguments[0])[:2000], count, "" if count == 1 else "s")
    if len(arguments) == 1:
        if is_text(arguments[0]) and not is_a(kind, KeyError):
            return as_str(str.__getitem__(arguments[0], slice(0, 4000)))
        return _value_text(arguments[0], values)
    return "({})".format(", ".join(_value_text(one, values) for one in arguments[:10]))


def _value_text(value: Any, values: Values) -> str:
    index = values.add(value)
    values.describe_added()
    values.finish()
    return "..." if index is None else str(values.entries[index].get("text", "..."))


# Threads ------------------------------------------------------------------------------------------------


def describe_threads(frames: Frames) -> List[Dict[str, Any]]:
    """Describe the other threads with their stacks."""
    import _thread

    known = snapshot_program.known_threads()
    current = _thread.get_ident()
    found = []
    for identity, frame in list(sys._current_frames().items())[:_THREADS]:
        entries = known.get(identity, {})
        # Threads of a debugger, and of the debuggee, carry one of these marks.
        marks = (dict.get(entries, mark) for mark in ("pydev_do_not_trace", "is_pydev_daemon_thread"))
        if identity == current or any(mark is True for mark in marks):
            continue
        name, daemon = dict.get(entries, "_name"), dict.get(entries, "_daemonic")
        found.append(
            {
                "name": as_str(name)[:200] if is_text(name) else "Thread-{}".format(identity),
                "ident": identity,
                "daemon": daemon is True,
                "frames": frames.add_thread(frame),
            }
        )
    return found
