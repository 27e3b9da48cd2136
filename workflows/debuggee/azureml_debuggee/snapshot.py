"""Writes a snapshot of a failure: what can be looked at when the process is gone.

One JSON document: the exceptions, their frames with lines of source and variables, the stacks of the other threads,
what ran. Nearest frames come first, within two megabytes and a second; what had no room is said in ``left_out``. No
code of the program's runs meanwhile: no `__repr__`, no property, no `__getattr__` (snapshot_types.py).

Imported when something has failed, and not before.
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
#: Seconds that describing may take, of the one that a snapshot may; bytes of the values, of the two megabytes.
SECONDS, BYTES = 0.7, 1_300_000
#: The same where there was no memory for those.
_LITTLE = 60_000
#: Bytes of the file.
MOST = 2_000_000


def write(
    error: BaseException, trace: Any, program: Dict[str, Any], environment: MutableMapping[str, str], name: str = ""
) -> Optional[str]:
    """Write a snapshot of an exception.

    Args:
        error: The exception.
        trace: Its traceback.
        program: What has been noted of the program at its start: ``folder``.
        environment: Where the folder of snapshots is named.
        name: The file's name; empty for a snapshot's.

    Returns:
        The file's path; None where there is none: no folder, or nothing of the person's code in the exception.

    Raises:
        Exception: It could not be written; nothing is left of it.
    """
    is_collecting = gc.isenabled()
    # What is collected may have finalizers, and they are the program's.
    gc.disable()
    try:
        with imports.own:
            json, regular = imports.get("json"), imports.get("re")
        for size in (BYTES, BYTES // 3, _LITTLE):
            try:
                document = _document(error, trace, program, environment, regular, size)
                if document is None:
                    return None
                data = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
            except MemoryError:
                if size == _LITTLE:
                    raise
                continue
            if len(data) <= MOST:
                break
        return snapshot_files.write(data, environment, name)
    finally:
        if is_collecting:
            gc.enable()


def _document(
    error: BaseException,
    trace: Any,
    program: Dict[str, Any],
    environment: MutableMapping[str, str],
    regular: Any,
    size: int,
) -> Optional[Dict[str, Any]]:
    begun = time.monotonic()
    names = Names(regular, environment.get(snapshot_files.REDACT, ""))
    snapshot_program.keep_variables(names)
    values = Values(names, begun + SECONDS, size)
    frames = snapshot_frames.Frames(names, program.get("folder", ""))
    exceptions = snapshot_frames.exceptions(error, trace, frames)
    if not frames.has_own:
        return None
    # Their sources, then their values, both nearest first.
    frames.read_sources(begun + SECONDS / 2)
    frames.describe(values)
    of_exceptions = snapshot_frames.described(exceptions, values, names)
    values.finish()
    run, name = snapshot_files.run_and_step(environment)
    threads = snapshot_frames.threads(frames)
    said: List[str] = [*frames.left_out()]
    if values.unread:
        reason = "behind the limit of time (1 s)" if values.late else "behind the size limit (2 MB)"
        said.append("{:,} values {}".format(values.unread, reason))
    said.extend("{} (its name looks secret)".format(one) for one in list(values.secrets)[:100])
    document: Dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "written": snapshot_program.now(),
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
        "left_out": said,
    }
    document["seconds"] = round(time.monotonic() - begun, 3)
    scrub = names.scrubber()
    scrubbed: Dict[str, Any] = _scrubbed(document, lambda text: scrub(names.text(text)))
    # What a program says of itself is no message: `token = next(tokens)` gives nothing away.
    for entry, left in zip(scrubbed["frames"], document["frames"]):
        entry["source"]["lines"] = [scrub(line) for line in left["source"]["lines"]]
    return scrubbed


def _request() -> Any:
    """What tells the request that a service is answering from others; None where it is none."""
    requests = sys.modules.get(__package__ + ".failed_requests")
    return None if requests is None else requests.current_request()


#: Keys whose texts are no values: names and places.
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


def _scrubbed(value: Any, scrub: Any) -> Any:
    """A document whose texts do not hold what has been left out of it by name."""
    if type(value) is str:
        return scrub(value)
    if type(value) is list:
        return [_scrubbed(one, scrub) if type(one) in (str, list, dict) else one for one in value]
    if type(value) is dict:
        return {
            key: one if key in _OWN_TEXTS or type(one) not in (str, list, dict) else _scrubbed(one, scrub)
            for key, one in value.items()
        }
    return value
