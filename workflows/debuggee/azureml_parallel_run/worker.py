"""One worker of a parallel step: loads the entry script, then runs the mini-batches that it is handed.

    python worker.py COMMANDS EVENTS

Two pipes lead to the driver, with one JSON object a line. The driver sends the settings first, then one mini-batch at a
time; the worker sends events with the results. The script's own output goes to standard output and standard error.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
import os
import sys
import time
import traceback
from typing import Any, Callable, Dict, List

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_FOLDER = os.path.dirname(_PACKAGE)


class MiniBatchContext:
    """The second argument of a ``run(mini_batch, context)``.

    Attributes:
        minibatch_index: The mini-batch's number, from 0.
        partition_key_value: Its partition keys with their values; empty if it has none.
    """

    def __init__(self, batch: Dict[str, Any]) -> None:
        self.minibatch_index = batch["index"]
        self.partition_key_value = batch.get("keys") or {}

    def __repr__(self) -> str:
        return "MiniBatchContext(minibatch_index={!r}, partition_key_value={!r})".format(
            self.minibatch_index, self.partition_key_value
        )


class _ScriptError(Exception):
    """The entry script is invalid; its arguments are what is wrong, and what to do."""


def main(commands: int, events: int) -> None:
    """Handle the driver's commands until it closes the pipe."""
    for handle in (commands, events):
        os.set_inheritable(handle, False)
    with open(commands, encoding="utf-8") as messages, open(events, "w", encoding="utf-8") as output:

        def send(event: str, **details: Any) -> None:
            # The script's earlier output has to appear before the event.
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except Exception:
                    pass
            output.write(json.dumps({"event": event, **details}) + "\n")
            output.flush()

        settings = json.loads(messages.readline())
        _Worker(settings, send).work(json.loads(line) for line in messages)


class _Worker:
    def __init__(self, settings: Dict[str, Any], send: Callable[..., None]) -> None:
        self._script, self._send = str(settings["script"]), send
        self._arguments: List[str] = settings["arguments"]
        self._name = os.path.basename(self._script)
        self._module: Any = None
        self._takes_context = False

    def work(self, messages: Any) -> None:
        try:
            self._load_script()
        except _ScriptError as error:
            self._send("fatal", problem=error.args[0], remedy=error.args[1])
            return
        except BaseException as error:
            _write_snapshot(error)
            self._send("fatal", **self._describe(error))
            self._end_if_debugged(error)
            return
        self._send("ready")
        for message in messages:
            if not self._run_batch(message):
                return
        self._shut_down()

    def _load_script(self) -> None:
        """Load the entry script and call its ``init()``."""
        _start_debuggee(self._script)
        sys.argv[:] = [self._script, *self._arguments]
        # The script's modules are imported from here, and not from this program's own folder.
        sys.path[:] = [os.path.dirname(os.path.realpath(self._script)), os.getcwd(), *sys.path[1:]]
        sys.path.append(os.path.join(_PACKAGE, "provided"))
        logging.basicConfig(stream=sys.stdout)
        module_name = os.path.splitext(self._name)[0]
        spec = importlib.util.spec_from_file_location(module_name, self._script)
        if spec is None or spec.loader is None:
            raise _ScriptError("{} is not a Python file.".format(self._name), "Name one as `entry_script`.")
        self._module = importlib.util.module_from_spec(spec)
        # Registered by its name, so that its objects can be pickled.
        sys.modules[module_name] = self._module
        spec.loader.exec_module(self._module)
        run = getattr(self._module, "run", None)
        if not callable(run):
            raise _ScriptError(
                "{} has no run(), which is called for each mini-batch.".format(self._name),
                "Define `def run(mini_batch):` in it, and `def init():` for what is done once.",
            )
        self._takes_context = _count_positional(run) > 1
        init = getattr(self._module, "init", None)
        if callable(init):
            init()

    def _run_batch(self, batch: Dict[str, Any]) -> bool:
        """Run one mini-batch; False if the worker has to end."""
        try:
            data = batch["paths"] if batch["kind"] == "files" else _load(batch)
            items = len(data)
            self._send("running", items=items)
            begun = time.monotonic()
            more = [MiniBatchContext(batch)] if self._takes_context else []
            found = self._module.run(data, *more)
            seconds = time.monotonic() - begun
            header, results = self._write(found, batch)
        except _ScriptError as error:
            self._send("fatal", problem=error.args[0], remedy=error.args[1])
            return False
        except BaseException as error:
            if type(error).__module__ == "azureml_parallel_run.problems":
                self._send("fatal", problem=str(error), remedy=getattr(error, "remedy", ""))
                return False
            _write_snapshot(error)
            self._send("failed", **self._describe(error))
            return self._end_if_debugged(error)
        self._send("done", items=items, results=results, seconds=seconds, header=header)
        return True

    def _write(self, found: Any, batch: Dict[str, Any]) -> Any:
        """Write the result of ``run()`` to the mini-batch's file; returns a table's header and the result count."""
        is_table = hasattr(found, "to_csv") and hasattr(found, "columns")
        if not is_table and not isinstance(found, (list, tuple)) and not hasattr(found, "tolist"):
            line = self._module.run.__code__.co_firstlineno if hasattr(self._module.run, "__code__") else 1
            raise _ScriptError(
                "{}:{}: run() has returned {} for mini-batch {}.".format(
                    self._name,
                    line,
                    "None" if found is None else "a value of type " + type(found).__name__,
                    batch["index"],
                ),
                "Return a list, a tuple or a pandas DataFrame, with one element for each item that has been processed.",
            )
        header = ""
        if batch.get("rows"):
            with open(batch["rows"], "w", encoding="utf-8", newline="") as file:
                if is_table:
                    # As in Azure: columns are separated by a space.
                    found.to_csv(file, sep=" ", header=False, index=False)
                    header = found.head(0).to_csv(sep=" ", index=False)
                else:
                    for element in found:
                        file.write("{}\n".format(element))
        return header, len(found)

    def _shut_down(self) -> None:
        shutdown = getattr(self._module, "shutdown", None)
        if callable(shutdown):
            try:
                shutdown()
            except BaseException as error:
                self._send("shutdown", **self._describe(error))

    def _describe(self, error: BaseException) -> Dict[str, Any]:
        """Describe an error for the driver; its place is in the user's own code if any frame is there."""
        trace = _own_trace(error)
        roots = {os.path.dirname(os.path.realpath(self._script)), os.path.realpath(os.getcwd())}
        roots.update(filter(None, os.environ.get("AZUREML_DEBUGGEE_CODE", "").split(os.pathsep)))
        place = ""
        if isinstance(error, SyntaxError) and error.filename:
            place = "{}:{}".format(os.path.basename(error.filename), error.lineno)
        for frame, line in traceback.walk_tb(trace):
            file = os.path.realpath(frame.f_code.co_filename)
            named = not frame.f_code.co_filename.startswith("<")
            if named and any(file.startswith(os.path.join(root, "")) for root in roots):
                place = "{}:{}".format(os.path.basename(frame.f_code.co_filename), line)
        text = "".join(traceback.format_exception_only(type(error), error)).strip()
        return {
            "message": text.splitlines()[-1] if text else type(error).__name__,
            "place": place,
            "traceback": "".join(traceback.format_exception(type(error), error, trace)),
        }

    def _end_if_debugged(self, error: BaseException) -> bool:
        """Raise an exception again if a debugger waits for it; else whether the worker can go on."""
        if _is_debugged_on_error():
            raise error.with_traceback(_own_trace(error))
        return isinstance(error, Exception)


def _is_debugged_on_error() -> bool:
    return os.environ.get("AZUREML_DEBUGGEE_ON_ERROR") == "1" and bool(os.environ.get("AZUREML_DEBUGGEE_PORT"))


def _write_snapshot(error: BaseException) -> None:
    """Write a snapshot of an error that does not end the worker; for one that does, the exception hook writes it."""
    failures = sys.modules.get("azureml_debuggee.failures")
    if failures is not None and not _is_debugged_on_error():
        failures.write(error, _own_trace(error))


def _own_trace(error: BaseException) -> Any:
    """An exception's traceback without this program's outermost frames."""
    trace = error.__traceback__
    while trace is not None and os.path.abspath(trace.tb_frame.f_code.co_filename) == os.path.abspath(__file__):
        trace = trace.tb_next
    while trace is not None and "importlib" in trace.tb_frame.f_code.co_filename:
        trace = trace.tb_next
    return trace if trace is not None else error.__traceback__


def _count_positional(run: Any) -> int:
    try:
        kinds = [one.kind for one in inspect.signature(run).parameters.values()]
    except (TypeError, ValueError):
        return 1
    return sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)


def _load(batch: Dict[str, Any]) -> Any:
    sys.path.insert(0, _FOLDER)
    try:
        from azureml_parallel_run import tables  # type: ignore[import-not-found]
    finally:
        sys.path.remove(_FOLDER)
    return tables.load(batch)


def _start_debuggee(script: str) -> None:
    """Start the debuggee, if the step is debugged: this process runs the entry script."""
    step = sys.modules.get("azureml_debuggee.step")
    inject = os.path.join(_FOLDER, "inject")
    if step is not None:
        start = step.prepare_again(inject, step.Program("script", script))
        if start is not None:
            start()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
