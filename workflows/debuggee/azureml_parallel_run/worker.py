"""One worker of a parallel step: loads the entry script, then runs the mini-batches that it is handed.

    python worker.py COMMANDS EVENTS

Two pipes lead to the driver, one JSON object a line: the settings first, then a mini-batch at a time; back come what
became of it, and nothing of the script's own output, which goes where that of any program does.
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
    """What a ``run(mini_batch, context)`` of two parameters is told.

    Attributes:
        minibatch_index: The mini-batch's number, from 0.
        partition_key_value: Its partition keys with their values; empty where it has none.
    """

    def __init__(self, batch: Dict[str, Any]) -> None:
        self.minibatch_index = batch["index"]
        self.partition_key_value = batch.get("keys") or {}

    def __repr__(self) -> str:
        return "MiniBatchContext(minibatch_index={!r}, partition_key_value={!r})".format(
            self.minibatch_index, self.partition_key_value
        )


class _Wrong(Exception):
    """The entry script is none: what is wrong, and what to do."""


def main(commands: int, events: int) -> None:
    """Do what the driver says until it is gone."""
    for handle in (commands, events):
        os.set_inheritable(handle, False)
    with open(commands, encoding="utf-8") as orders, open(events, "w", encoding="utf-8") as answers:

        def tell(event: str, **details: Any) -> None:
            # What the script has printed until then belongs before it.
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except Exception:
                    pass
            answers.write(json.dumps({"event": event, **details}) + "\n")
            answers.flush()

        settings = json.loads(orders.readline())
        _Worker(settings, tell).work(json.loads(line) for line in orders)


class _Worker:
    def __init__(self, settings: Dict[str, Any], tell: Callable[..., None]) -> None:
        self._script, self._tell = str(settings["script"]), tell
        self._arguments: List[str] = settings["arguments"]
        self._name = os.path.basename(self._script)
        self._module: Any = None
        self._takes_context = False

    def work(self, orders: Any) -> None:
        try:
            self._begin()
        except _Wrong as error:
            self._tell("fatal", problem=error.args[0], remedy=error.args[1])
            return
        except BaseException as error:
            _leave_snapshot(error)
            self._tell("fatal", **self._described(error))
            self._let_out(error)
            return
        self._tell("ready")
        for order in orders:
            if not self._do(order):
                return
        self._end()

    def _begin(self) -> None:
        """Load the entry script and call its ``init()``."""
        _debug(self._script)
        sys.argv[:] = [self._script, *self._arguments]
        # Where its modules are looked for; this program's own folder is none of them.
        sys.path[:] = [os.path.dirname(os.path.realpath(self._script)), os.getcwd(), *sys.path[1:]]
        sys.path.append(os.path.join(_PACKAGE, "provided"))
        logging.basicConfig(stream=sys.stdout)
        module_name = os.path.splitext(self._name)[0]
        spec = importlib.util.spec_from_file_location(module_name, self._script)
        if spec is None or spec.loader is None:
            raise _Wrong("{} is not a Python file.".format(self._name), "Name one as `entry_script`.")
        self._module = importlib.util.module_from_spec(spec)
        # By its name, so that what it makes can be pickled.
        sys.modules[module_name] = self._module
        spec.loader.exec_module(self._module)
        run = getattr(self._module, "run", None)
        if not callable(run):
            raise _Wrong(
                "{} has no run(), which is called for each mini-batch.".format(self._name),
                "Define `def run(mini_batch):` in it, and `def init():` for what is done once.",
            )
        self._takes_context = _positional(run) > 1
        init = getattr(self._module, "init", None)
        if callable(init):
            init()

    def _do(self, batch: Dict[str, Any]) -> bool:
        """Run one mini-batch; whether another can follow."""
        try:
            data = batch["paths"] if batch["kind"] == "files" else _load(batch)
            items = len(data)
            self._tell("running", items=items)
            begun = time.monotonic()
            more = [MiniBatchContext(batch)] if self._takes_context else []
            found = self._module.run(data, *more)
            seconds = time.monotonic() - begun
            header, results = self._write(found, batch)
        except _Wrong as error:
            self._tell("fatal", problem=error.args[0], remedy=error.args[1])
            return False
        except BaseException as error:
            if type(error).__module__ == "azureml_parallel_run.problems":
                self._tell("fatal", problem=str(error), remedy=getattr(error, "remedy", ""))
                return False
            _leave_snapshot(error)
            self._tell("failed", **self._described(error))
            return self._let_out(error)
        self._tell("done", items=items, results=results, seconds=seconds, header=header)
        return True

    def _write(self, found: Any, batch: Dict[str, Any]) -> Any:
        """Put what ``run()`` has returned into the mini-batch's own file; a table's header, and how many they are."""
        is_table = hasattr(found, "to_csv") and hasattr(found, "columns")
        if not is_table and not isinstance(found, (list, tuple)) and not hasattr(found, "tolist"):
            line = self._module.run.__code__.co_firstlineno if hasattr(self._module.run, "__code__") else 1
            raise _Wrong(
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

    def _end(self) -> None:
        shutdown = getattr(self._module, "shutdown", None)
        if callable(shutdown):
            try:
                shutdown()
            except BaseException as error:
                self._tell("shutdown", **self._described(error))

    def _described(self, error: BaseException) -> Dict[str, Any]:
        """An error for the driver: in the person's own code if any frame is there."""
        trace = _own(error)
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

    def _let_out(self, error: BaseException) -> bool:
        """Let an exception end the process where a debugger is to see it; else the worker goes on."""
        if _lets_out():
            raise error.with_traceback(_own(error))
        return isinstance(error, Exception)


def _lets_out() -> bool:
    return os.environ.get("AZUREML_DEBUGGEE_ON_ERROR") == "1" and bool(os.environ.get("AZUREML_DEBUGGEE_PORT"))


def _leave_snapshot(error: BaseException) -> None:
    """Leave a snapshot of an error that the worker survives; one that ends it leaves it as any other does."""
    failures = sys.modules.get("azureml_debuggee.failures")
    if failures is not None and not _lets_out():
        failures.write(error, _own(error))


def _own(error: BaseException) -> Any:
    """An exception's trace without the frames of this program in front."""
    trace = error.__traceback__
    while trace is not None and os.path.abspath(trace.tb_frame.f_code.co_filename) == os.path.abspath(__file__):
        trace = trace.tb_next
    while trace is not None and "importlib" in trace.tb_frame.f_code.co_filename:
        trace = trace.tb_next
    return trace if trace is not None else error.__traceback__


def _positional(run: Any) -> int:
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


def _debug(script: str) -> None:
    """Let the debuggee in, where the step is debugged: it is the entry script that runs here."""
    step = sys.modules.get("azureml_debuggee.step")
    inject = os.path.join(_FOLDER, "inject")
    if step is not None:
        start = step.prepare_again(inject, step.Program("script", script))
        if start is not None:
            start()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
