"""Writes a snapshot of a failure, which can be inspected after the process has ended.

A snapshot is one JSON document: the exceptions, their frames with lines of source and variables, the stacks of the
other threads, and the program. The nearest frames come first, within two megabytes and a second; ``left_out`` lists
what did not fit. None of the program's code runs for it: no `__repr__`, no property, no `__getattr__`
(snapshot_types.py).

This is imported only after something has failed.
"""

from __future__ import annotations

import gc
import sys
import time

from . import imports, snapshot_files, snapshot_frames, snapshot_program
from .ranks import rank_of
from .snapshot_names import Names
from .snapshot_values import Values

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict, List, MutableMapping, Optional

FORMAT, VERSION = "azureml-debug-snapshot", 1
#: Seconds for describing, of the one second that a snapshot may take; bytes for values, of the two megabytes.
SECONDS, BYTES = 0.7, 1_300_000
#: Bytes for values if there was not enough memory for more.
_LOW_MEMORY_BYTES = 60_000
#: Bytes of the file at most.
MOST_BYTES = 2_000_000


def write(
    error: BaseException, trace: Any, program: Dict[str, Any], environment: MutableMapping[str, str], name: str = ""
) -> Optional[str]:
    """Write a snapshot of an exception.

    Args:
        error: The exception.
        trace: Its traceback.
        program: What was recorded of the program when it started: ``folder``.
        environment: The environment variables, which name the folder for snapshots.
        name: The file's name; by default a snapshot's usual name.

    Returns:
        The file's path; None if there is no folder, or if the exception has not passed through the user's code.

    Raises:
        Exception: It could not be written; no part of the file is left.
    """
    is_collecting = gc.isenabled()
    # Collected objects may have finalizers, which are the program's code.
    gc.disable()
    try:
        with imports.own:
            json, re_module = imports.standard_module("json"), imports.standard_module("re")
        for size in (BYTES, BYTES // 3, _LOW_MEMORY_BYTES):
            try:
                document = _make_document(error, trace, program, environment, re_module, size)
                if document is None:
                    return None
                data = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
            except MemoryError:
                if size == _LOW_MEMORY_BYTES:
                    raise
                continue
            if len(data) <= MOST_BYTES:
                break
        return snapshot_files.write(data, environment, name)
    finally:
        if is_collecting:
            gc.enable()


def _make_document(
    error: BaseException,
    trace: Any,
    program: Dict[str, Any],
    environment: MutableMapping[str, str],
    re_module: Any,
    size: int,
) -> Optional[Dict[str, Any]]:
    begun = time.monotonic()
    names = Names(re_module, environment.get(snapshot_files.REDACT, ""))
    snapshot_program.keep_secret_variables(names)
    values = Values(names, begun + SECONDS, size)
    frames = snapshot_frames.Frames(names, program.get("folder", ""))
    exceptions = snapshot_frames.collect_exceptions(error, trace, frames)
    if not frames.has_own:
        return None
    # First the sources, then the values, both nearest first.
    frames.read_sources(begun + SECONDS / 2)
    frames.describe(values)
    of_exceptions = snapshot_frames.describe_exceptions(exceptions, values, names)
    values.finish()
    run, name = snapshot_files.run_and_step(environment)
    threads = snapshot_frames.describe_threads(frames)
    left_out: List[str] = [*frames.left_out()]
    if values.unread:
        reason = "behind the limit of time (1 s)" if values.is_out_of_time else "behind the size limit (2 MB)"
        left_out.append("{:,} values {}".format(values.unread, reason))
    left_out.extend("{} (its name looks secret)".format(one) for one in list(values.secrets)[:100])
    document: Dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "written": snapshot_program.current_time(),
        "where": {
            "story": environment.get(snapshot_files.STORY, ""),
            "run": run,
            "step": name,
            "rank": rank_of(environment) or 0,
            "request": _request(),
        },
        "program": snapshot_program.describe(names, program.get("folder", "")),
        "packages": snapshot_program.packages(),
        "exceptions": of_exceptions,
        "thread": snapshot_program.thread_name(),
        "threads": threads,
        "frames": frames.entries,
        "values": values.entries,
        "left_out": left_out,
    }
    document["seconds"] = round(time.monotonic() - begun, 3)
    scrub = names.scrubber()
    scrubbed: Dict[str, Any] = _scrub_all(document, lambda text: scrub(names.text(text)))
    # Source lines are not treated as messages: `token = next(tokens)` reveals nothing.
    for entry, original in zip(scrubbed["frames"], document["frames"]):
        entry["source"]["lines"] = [scrub(line) for line in original["source"]["lines"]]
    return scrubbed


def _request() -> Any:
    """What identifies the request that a service is answering; None if there is none."""
    requests = sys.modules.get(__package__ + ".failed_requests")
    return None if requests is None else requests.current_request()


#: Keys whose texts are names and places rather than values.
_OWN_TEXTS = frozenset(
    (
        *(
            "format",
            "version",
            "written",
            "kind",
            "type",
            "module",
            "function",
            "class",
            "file",
            "real",
            "folder",
            "lines",
            "left_out",
        ),
        *(
            "started_in",
            "executable",
            "platform",
            "python",
            "process",
            "sha256",
            "dtype",
            "device",
            "where",
            "packages",
        ),
    )
)


def _scrub_all(value: Any, scrub: Any) -> Any:
    """A document with the left-out values removed from all its texts."""
    if type(value) is str:
        return scrub(value)
    if type(value) is list:
        return [_scrub_all(one, scrub) if type(one) in (str, list, dict) else one for one in value]
    if type(value) is dict:
        return {
            key: one if key in _OWN_TEXTS or type(one) not in (str, list, dict) else _scrub_all(one, scrub)
            for key, one in value.items()
        }
    return value
