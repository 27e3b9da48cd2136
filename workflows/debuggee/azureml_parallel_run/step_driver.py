"""Runs a parallel step: sends mini-batches to workers until all of them are done, or too many have failed."""

from __future__ import annotations

import collections
import contextlib
import os
import selectors
import shutil
import signal
import sys
import tempfile
import time
from typing import Any, Deque, Dict, Iterator, List, Optional, Tuple

from . import options as command_line
from .mini_batches import Batch, Input, Size
from .outcome import NODE, Outcome, Thresholds
from .problems import Problem
from .worker_process import Worker, deadline_after

#: The name of the output file, unless the step sets it.
FILE_NAME = "parallel_run_step.txt"
#: Seconds between two checks of the workers if they send nothing.
_POLL_SECONDS = 0.1
#: The step fails when so many times the number of workers have ended in a row before they were ready; as in Azure.
_MOST_FAILED_STARTS = 3
#: Seconds that a worker may take for its `shutdown()`.
_SHUTDOWN_SECONDS = 60.0


class Driver:
    """One parallel step.

    Args:
        options: See :mod:`.options`.
        arguments: The entry script's own arguments.
        scratch: A folder for temporary files.
    """

    def __init__(self, options: Any, arguments: List[str], scratch: str) -> None:
        self._options, self._arguments, self._scratch = options, arguments, scratch
        # A debugger attaches to one process, and a mini-batch may take any time while it is debugged.
        self._debugged = bool(os.environ.get("AZUREML_DEBUGGEE_PORT"))
        self._most_workers = 1 if self._debugged or options.only >= 0 else max(1, options.processes)
        if not os.path.isfile(options.entry_script):
            raise Problem(
                "There is no entry script {} in the step's code.".format(options.entry_script),
                "Correct `code` or `entry_script`.",
            )
        thresholds = Thresholds(
            options.mini_batch_error_threshold, options.error_threshold, options.allowed_failed_percent
        )
        self._outcome = Outcome(os.path.abspath("logs"), thresholds, print_line)
        self._output_file = _output_file(options.append_row_to)
        # Collected first, since the output is in the order of the input.
        self._rows: Dict[int, Tuple[str, str]] = {}
        self._workers: List[Worker] = []
        self._selector = selectors.DefaultSelector()
        self._started = self._failed_starts = 0
        #: The next mini-batches with the number of their tries, at most one for each worker.
        self._ahead: Deque[Tuple[Batch, int]] = collections.deque()
        self._holds_on_error = self._debugged and os.environ.get("AZUREML_DEBUGGEE_ON_ERROR") == "1"

    def run(self) -> None:
        """Run the step.

        Raises:
            Problem: The step has failed.
        """
        options = self._options
        data = Input(
            options.input,
            options.input_type,
            Size(options.mini_batch_size),
            options.keys,
            self._most_workers,
            self._scratch,
            print_line,
        )
        self._waiting = self._selected(data.batches())
        if self._debugged and options.processes > 1:
            print_line("one process instead of {}, since it is debugged".format(options.processes))
        try:
            self._loop()
            self._outcome.check_all()
            self._outcome.progress(last=True)
            if self._outcome.failed:
                print_line("what has failed is in logs/user/error.txt, and is not more than the thresholds allow")
            self._write_output()
        except Problem as error:
            self._outcome.close("failed: {}".format(error.problem))
            if self._outcome.first.get("traceback"):
                sys.stderr.write(self._outcome.first["traceback"])
            raise
        finally:
            for worker in self._workers:
                worker.kill()
        self._outcome.close("completed")

    def _selected(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The mini-batches to run: all, or the one that the options select."""
        number = self._options.only
        if number < 0:
            yield from batches
            return
        index = -1
        for batch in batches:
            index = batch["index"]
            if index == number:
                yield batch
                return
        raise Problem(
            "There is no mini-batch {}: the input has {}, from 0 on.".format(number, index + 1),
            "Name one of these: --mini-batch N",
        )

    # Workers

    def _loop(self) -> None:
        while self._read_ahead() or any(worker.batch for worker in self._workers):
            idle = next((one for one in self._workers if one.ready and one.batch is None), None)
            starting = sum(not one.ready for one in self._workers)
            if idle is not None and self._ahead:
                batch, tries = self._ahead.popleft()
                idle.until = self._deadline(self._options.overhead)
                idle.send_batch(batch, tries + 1)
            elif starting < len(self._ahead) and len(self._workers) < self._most_workers:
                self._start()
            else:
                self._handle_events()
        self._finish()

    def _read_ahead(self) -> bool:
        """Read the next mini-batches ahead; whether there is any."""
        while len(self._ahead) < self._most_workers:
            batch = next(self._waiting, None)
            if batch is None:
                break
            if self._output_file:
                batch["rows"] = os.path.join(self._scratch, "{}.rows".format(batch["index"]))
            self._ahead.append((batch, 0))
        return bool(self._ahead)

    def _deadline(self, seconds: float) -> Optional[float]:
        return None if self._debugged else deadline_after(seconds)

    def _start(self) -> None:
        name = "process{:03d}".format(self._started)
        self._started += 1
        user = self._outcome.path
        variables = {
            **os.environ,
            "AZUREML_PARALLEL_AGENT": name,
            "AZUREML_PARALLEL_LOG_DIR": os.path.dirname(user("user", "entry_script_log", NODE, name)),
            "AZUREML_PARALLEL_LOGGING_LEVEL": self._options.logging_level,
        }
        if self._options.output:
            output = os.path.abspath(self._options.output)
            # If the output is a file, it has a folder of its own.
            variables["AZUREML_BI_OUTPUT_PATH"] = output if os.path.isdir(output) else os.path.dirname(output)
        if self._options.model:
            # As in Azure: the folder that contains the model.
            variables["AZUREML_MODEL_DIR"] = self._model_folder()
        worker = Worker(
            name,
            {"script": os.path.abspath(self._options.entry_script), "arguments": self._arguments},
            variables,
            (
                user("user", "stdout", NODE, name + ".stdout.txt"),
                user("user", "stderr", NODE, name + ".stderr.txt"),
            ),
            _echo,
        )
        worker.until = self._deadline(self._options.overhead)
        self._workers.append(worker)
        for handle in worker.handles:
            self._selector.register(handle, selectors.EVENT_READ, worker)

    def _model_folder(self) -> str:
        """The folder that contains the model under the name from the deployment's file."""
        model, name = os.path.abspath(self._options.model), str(self._options.model_name)
        if not name:
            return str(os.path.dirname(model))
        folder = os.path.join(self._scratch, "model")
        if not os.path.isdir(folder):
            os.mkdir(folder)
            os.symlink(model, os.path.join(folder, name))
        return folder

    def _handle_events(self) -> None:
        """Wait for events of the workers, and handle them."""
        for key, _events in self._selector.select(_POLL_SECONDS):
            worker = key.data
            for event in worker.read(key.fd):
                self._handle_event(worker, event)
            if key.fd not in worker.handles:
                self._selector.unregister(key.fd)
        for worker in list(self._workers):
            if worker.exit_code() is not None:
                self._handle_end(worker)
            elif worker.until is not None and time.monotonic() > worker.until:
                self._time_out(worker)
        self._outcome.progress()

    def _handle_event(self, worker: Worker, event: Dict[str, Any]) -> None:
        kind = event["event"]
        if self._holds_on_error and "traceback" in event and worker.exit_code() is None:
            # The worker holds for a debugger; the failure counts when that has left.
            worker.last, worker.until = event, None
        elif kind == "ready":
            worker.ready, worker.until, self._failed_starts = True, None, 0
        elif kind == "running":
            worker.items, worker.until = event["items"], self._deadline(self._options.timeout)
        elif kind == "done":
            batch, worker.batch, worker.until = worker.batch, None, None
            assert batch is not None
            self._outcome.note_done(batch["index"], worker.name, worker.tries, event)
            if "rows" in batch:
                self._rows[batch["index"]] = batch["rows"], event["header"]
            self._outcome.check()
        elif kind == "failed":
            self._handle_failure(worker, event)
        elif kind == "shutdown":
            print_line("shutdown() failed: {}".format(event["message"]))
        elif "problem" in event:
            raise Problem(event["problem"], event["remedy"])
        else:
            sys.stderr.write(event["traceback"])
            place = " ({})".format(event["place"]) if event["place"] else ""
            raise Problem("The entry script cannot be used: {}{}".format(event["message"], place), "Correct it.")

    def _handle_failure(self, worker: Worker, event: Dict[str, Any]) -> None:
        """Handle a failed mini-batch: try it again, or count it."""
        batch, worker.batch, worker.until = worker.batch, None, None
        assert batch is not None
        self._outcome.note_trace(worker.name, batch["index"], event)
        if worker.tries <= self._options.max_retries and not self._holds_on_error:
            print_line("mini-batch {} failed, and is tried again: {}".format(batch["index"], event["message"]))
            self._ahead.appendleft((batch, worker.tries))
            return
        print_line("mini-batch {} failed: {}".format(batch["index"], event["message"]))
        self._outcome.note_failed(batch["index"], worker.name, worker.tries, worker.items, event)
        self._outcome.check()
        sys.stderr.write(event.get("traceback") or "")

    def _handle_end(self, worker: Worker) -> None:
        """Handle that a worker has ended unexpectedly."""
        self._remove(worker)
        for event in [*([worker.last] if worker.last else []), *worker.close()]:
            self._handle_event(worker, event)
        if worker.batch is not None:
            self._handle_failure(
                worker, {"message": "its process ended with {}".format(_exit_text(worker.exit_code()))}
            )
        elif not worker.ready:
            self._handle_failed_start("ended with {}".format(_exit_text(worker.exit_code())))

    def _time_out(self, worker: Worker) -> None:
        self._remove(worker)
        worker.kill()
        # The events that it sent before still count.
        for event in worker.close():
            self._handle_event(worker, event)
        if worker.batch is not None:
            limit = "{:g} s (retry_settings.timeout)".format(self._options.timeout)
            self._handle_failure(worker, {"message": "run() took longer than {}".format(limit)})
        elif not worker.ready:
            self._handle_failed_start(
                "took longer than {:g} s (--task_overhead_timeout)".format(self._options.overhead)
            )

    def _handle_failed_start(self, what: str) -> None:
        """Handle that a worker has ended or taken too long before it was ready."""
        self._failed_starts += 1
        if self._failed_starts >= _MOST_FAILED_STARTS * self._most_workers:
            raise Problem(
                "{} processes in a row, while init() ran: each {}.".format(self._failed_starts, what),
                "Check init(); it is called in each process.",
            )
        print_line("a process {} while init() ran; another one is started".format(what))

    def _remove(self, worker: Worker) -> None:
        self._workers.remove(worker)
        for handle in worker.handles:
            with contextlib.suppress(KeyError):
                self._selector.unregister(handle)

    def _finish(self) -> None:
        """Have the workers call `shutdown()`, and wait for them to end."""
        until = time.monotonic() + _SHUTDOWN_SECONDS
        for worker in self._workers:
            if worker.ready:
                worker.finish()
            else:
                worker.kill()
        while self._workers:
            for key, _events in self._selector.select(_POLL_SECONDS):
                for event in key.data.read(key.fd):
                    self._handle_event(key.data, event)
                if key.fd not in key.data.handles:
                    self._selector.unregister(key.fd)
            for worker in list(self._workers):
                if worker.exit_code() is None and time.monotonic() > until and not self._debugged:
                    print_line("shutdown() took longer than {:g} s".format(_SHUTDOWN_SECONDS))
                    worker.kill()
                if worker.exit_code() is not None:
                    self._remove(worker)
                    for event in worker.close():
                        self._handle_event(worker, event)

    def _write_output(self) -> None:
        """Append the rows of all mini-batches to the output, in the order of the input."""
        if not self._output_file:
            return
        os.makedirs(os.path.dirname(self._output_file) or ".", exist_ok=True)
        with open(self._output_file, "wb") as output:
            for number, (_index, (path, header)) in enumerate(sorted(self._rows.items())):
                if self._options.header and number == 0:
                    output.write(header.encode("utf-8"))
                with open(path, "rb") as rows:
                    shutil.copyfileobj(rows, output)
        print_line("results appended to {}".format(self._output_file))


def _output_file(named: str) -> str:
    """The file that rows are appended to; empty if there is none."""
    if named and (os.path.isdir(named) or named.endswith("/")):
        return os.path.join(named, FILE_NAME)
    return named


def _exit_text(code: Optional[int]) -> str:
    return "signal {}".format(-code) if code is not None and code < 0 else "exit code {}".format(code)


def _echo(lines: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(lines)
    sys.stdout.buffer.flush()


def print_line(text: str) -> None:
    """Write a line to the step's log."""
    sys.stdout.write("parallel run: {}\n".format(text))
    sys.stdout.flush()


def main(arguments: List[str]) -> int:
    """Run a parallel step; returns its exit code."""

    def end_by_signal(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end_by_signal)
    try:
        options, theirs = command_line.parse(arguments)
        # Beside the output, since other file systems may not have enough space.
        folder = os.path.dirname(_output_file(options.append_row_to)) or None
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix=".parallel_run_", dir=folder)
        try:
            Driver(options, theirs, scratch).run()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except Problem as error:
        sys.stdout.flush()
        sys.stderr.write("parallel run: {}\n".format(error.problem.rstrip(".") + "."))
        if error.remedy:
            sys.stderr.write("parallel run: {}\n".format(error.remedy))
        return 1
    return 0
