"""Tells the run's record what the debuggee announces: where a debugger is welcome, and in which state.

By tags of the run that this process belongs to, set with the standard library and the run's own token
(run_history.py), in a process that is not the person's program, from a thread of its own. The log has the same; so
whatever goes wrong here (an offline run, a service that is down) is worth one line, and never the run.

Run history takes up to 1,000 characters in a tag. ``azureml_debug.RANK`` is
``HOST:PORT PID:EVENT,PID:EVENT,…``, of the last events; ``azureml_debug.root`` the folder with the step's code;
``azureml_debug.error.RANK`` what was raised; ``azureml_debug.node.RANK`` the node that a rank is on, counted from 0;
``azureml_debug.hostkeys.NODE`` fingerprints of the SSH host keys of a node's container.
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
#: How many of the last events of a rank are told.
LAST = 12
#: Seconds between two attempts at a tag that could not be set.
PAUSES = (2.0, 5.0, 15.0)


class Tags:
    """Sets tags in the background.

    Args:
        root: The folder with the step's code.
        context: Gives the run; by default that which this process's variables name.
        node: The node that this is, where a launcher says it.
    """

    def __init__(self, root: str, context: Optional[Callable[[], Any]] = None, node: Optional[int] = None) -> None:
        self._root, self._context, self._node = root, context or run_history.this_run, node
        self._places: Dict[int, str] = {}
        self._events: Dict[int, List[str]] = {}
        self._wanted: "queue.Queue[Optional[Dict[str, str]]]" = queue.Queue()
        self._thread: Optional[threading.Thread] = None
        self._given_up = threading.Event()

    def add_event(self, event: Dict[str, Any]) -> None:
        """One announcement of the debuggee."""
        rank, kind = int(event.get("rank") or 0), str(event["event"])
        tags = {}
        if kind == "listening":
            self._places[rank] = "{}:{}".format(event["host"], event["port"])
            tags[PREFIX + "root"] = self._root
            if self._node is not None:
                tags["{}node.{}".format(PREFIX, rank)] = str(self._node)
        if kind in ("raised", "gate-failed"):
            said = "{}: {}".format(event["type"], event.get("message", "")) if "type" in event else event["message"]
            tags["{}error.{}".format(PREFIX, rank)] = " ".join(str(said).split())[:200]
        events = self._events.setdefault(rank, [])
        events.append("{}:{}".format(event.get("pid", 0), kind))
        tags["{}{}".format(PREFIX, rank)] = "{} {}".format(self._places.get(rank, "-"), ",".join(events[-LAST:]))
        self.put(tags)

    def put(self, tags: Dict[str, str]) -> None:
        """Further tags, as they are."""
        self._wanted.put(tags)
        self.start()

    def start(self) -> None:
        """Keep the run's token valid from now on, whenever the first tag comes."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="azureml-debuggee-tags", daemon=True)
            self._thread.start()

    def finish(self, seconds: float) -> None:
        """Give what is still to be set so many seconds."""
        if self._thread is not None:
            self._wanted.put(None)
            self._thread.join(seconds)
        self._given_up.set()

    def _work(self) -> None:
        try:
            run = self._context()
        except Exception as error:
            _warn("no tag says where a debugger is welcome ({}); the log does".format(_brief(error)))
            return
        if run is None:
            return
        while True:
            try:
                tags = self._wanted.get(timeout=run.seconds_to_renewal())
            except queue.Empty:
                # A job may be silent for days, and has to be able to say something after all.
                run.renew_token()
                continue
            ending = False
            while tags is not None:
                # What has come meanwhile goes along, in one request.
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
        """Whether the tags could be set, at last."""
        for number, pause in enumerate((*PAUSES, 0.0)):
            try:
                run.set_tags(tags)
                return True
            except Exception as error:
                if number == 0:
                    _warn("no tag says where a debugger is welcome ({}); the log does".format(_brief(error)))
                if self._given_up.wait(pause):
                    return False
        return True


def _brief(error: BaseException) -> str:
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
