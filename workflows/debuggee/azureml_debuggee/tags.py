"""Writes the events that the debuggee announces to tags of the run: where a debugger can attach, and the state.

The tags are set with the standard library and the run's own token (run_history.py), in a process other than the
user's program, from a thread of its own. The log has the same information. So an error here (an offline run, a service
that is down) prints one line and never ends the run.

Run history takes up to 1,000 characters in a tag. The tags are:

* ``azureml_debug.RANK``: ``HOST:PORT PID:EVENT,PID:EVENT,…``, with the last events;
* ``azureml_debug.root``: the folder with the step's code;
* ``azureml_debug.error.RANK``: the exception that was raised;
* ``azureml_debug.node.RANK``: the number of the rank's node, from 0;
* ``azureml_debug.hostkeys.NODE``: fingerprints of the SSH host keys of a node's container.
"""

from __future__ import annotations

import queue
import sys
import threading

from . import run_history

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional

PREFIX = "azureml_debug."
#: How many of a rank's last events are in its tag.
MOST_EVENTS = 12
#: Seconds before each further attempt to set a tag.
RETRY_SECONDS = (2.0, 5.0, 15.0)


class Tags:
    """Sets tags in the background.

    Args:
        root: The folder with the step's code.
        context: Returns the run; by default the run that this process's variables name.
        node: This node's number, if a launcher sets it.
    """

    def __init__(self, root: str, context: Optional[Callable[[], Any]] = None, node: Optional[int] = None) -> None:
        self._root, self._context, self._node = root, context or run_history.this_run, node
        self._places: Dict[int, str] = {}
        self._events: Dict[int, List[str]] = {}
        self._wanted: "queue.Queue[Optional[Dict[str, str]]]" = queue.Queue()
        self._thread: Optional[threading.Thread] = None
        self._given_up = threading.Event()

    def add_event(self, event: Dict[str, Any]) -> None:
        """Add an event that the debuggee has announced."""
        rank, kind = int(event.get("rank") or 0), str(event["event"])
        tags = {}
        if kind == "listening":
            self._places[rank] = "{}:{}".format(event["host"], event["port"])
            tags[PREFIX + "root"] = self._root
            if self._node is not None:
                tags["{}node.{}".format(PREFIX, rank)] = str(self._node)
        if kind in ("raised", "gate-failed"):
            message = "{}: {}".format(event["type"], event.get("message", "")) if "type" in event else event["message"]
            tags["{}error.{}".format(PREFIX, rank)] = " ".join(str(message).split())[:200]
        events = self._events.setdefault(rank, [])
        events.append("{}:{}".format(event.get("pid", 0), kind))
        tags["{}{}".format(PREFIX, rank)] = "{} {}".format(self._places.get(rank, "-"), ",".join(events[-MOST_EVENTS:]))
        self.put(tags)

    def put(self, tags: Dict[str, str]) -> None:
        """Set these tags, unchanged."""
        self._wanted.put(tags)
        self.start()

    def start(self) -> None:
        """Start the thread, which keeps the run's token valid even before the first tag."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._set_wanted_tags, name="azureml-debuggee-tags", daemon=True)
            self._thread.start()

    def finish(self, seconds: float) -> None:
        """Wait up to so many seconds for the remaining tags to be set."""
        if self._thread is not None:
            self._wanted.put(None)
            self._thread.join(seconds)
        self._given_up.set()

    def _set_wanted_tags(self) -> None:
        try:
            run = self._context()
        except Exception as error:
            _warn("the debug address cannot be set as a tag ({}); the log has it".format(_error_text(error)))
            return
        if run is None:
            return
        while True:
            try:
                tags = self._wanted.get(timeout=run.seconds_to_renewal())
            except queue.Empty:
                # A job may send nothing for days, and its token must still be valid then.
                run.renew_token()
                continue
            ending = False
            while tags is not None:
                # Tags that arrived meanwhile go into the same request.
                try:
                    more = self._wanted.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    ending = True
                    break
                tags.update(more)
            if tags is None or (not self._set(run, tags) or ending):
                return

    def _set(self, run: Any, tags: Dict[str, str]) -> bool:
        """Set the tags, with retries; False if there is no more time for them."""
        for number, pause in enumerate((*RETRY_SECONDS, 0.0)):
            try:
                run.set_tags(tags)
                return True
            except Exception as error:
                if number == 0:
                    _warn("the debug address cannot be set as a tag ({}); the log has it".format(_error_text(error)))
                if self._given_up.wait(pause):
                    return False
        return True


def _error_text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # azureml-core's errors cannot always be shown
        text = ""
    return "{}: {}".format(type(error).__name__, " ".join(text.split())[:120]) if text else type(error).__name__


def _warn(line: str) -> None:
    try:
        sys.stderr.write("azureml_debug: {}\n".format(line))
        sys.stderr.flush()
    except Exception:
        pass
