"""A command's output: each step with its time, progress of long work, and the result.

With ``--json`` the last line of standard output is one JSON object and everything else
goes to standard error. Live progress (rich) only on a terminal, plain lines elsewhere.
Everything that is shown goes through this module, which removes secrets and control characters.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from . import command_name, report
from .command_log import FILE_ONLY, LOGGER
from .formatting import format_duration
from .terminal import Output, escaped, plain, printable

#: Keys of a result that hold values of the user's own program; only known secrets are masked in them.
PROGRAM_VALUES = frozenset(("locals", "values", "response", "responses", "stops", "stepped", "set")) | frozenset(
    ("frame_locals", "opened", "logged_values", "by_rank")
)
#: Seconds after which a step says what it waits for.
REASON_AFTER = 1.0
#: Seconds after which a line of progress on a terminal shows how long it has been there.
AGE_SECONDS = 10.0
#: Characters of a line of progress where the output is no terminal.
LINE_CHARACTERS = 200
#: Seconds between two lines of :meth:`Step.detail_sometimes` where the output is no terminal.
PASSING_SECONDS = 5.0
_TASK = re.compile(r"\binv ((?:deploy|container|pipeline|experiment)\.[a-z-]+)")


def as_typed(text: str) -> str:
    """A text with its commands as you have to type them.

    They begin with ``inv`` or ``azureml-debug``, as typed, and have ``--remote`` if this command was run from another
    machine.
    """
    return command_name.with_typed_command("\n".join(map(_remotely, text.split("\n"))) if report.is_wanted() else text)


def _remotely(line: str) -> str:
    # Commands in front of a `--remote` already have one.
    done = line.rfind("--remote") + 1
    return line[:done] + _TASK.sub(r"inv \1 --remote", line[done:])


class OutputLost(OSError):
    """Standard output or standard error cannot be written; `filename` says which."""


@contextmanager
def output_errors(stream: TextIO) -> Iterator[None]:
    """Raise errors of writing to a standard stream as :class:`OutputLost`, to tell them from errors of files.

    Raises:
        OutputLost: It cannot be written. A closed pipe stays BrokenPipeError.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        name = "Standard error" if stream is sys.stderr else "Standard output"
        raise OutputLost(error.errno, error.strerror, name) from error


def show(text: str, stream: TextIO) -> None:
    """Write a line; characters that the stream cannot encode become question marks."""
    with output_errors(stream):
        try:
            print(text, file=stream, flush=True)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            print(text.encode(encoding, "replace").decode(encoding), file=stream, flush=True)


def show_error(text: str, details: Sequence[str] = ()) -> None:
    """Write an error's lines to standard error, with its details above; to standard output if that fails."""
    from .redaction import LineScrubber, scrub

    scrub_line = LineScrubber()
    lines = [*(f"  {plain(scrub_line(line))}" for line in details), printable(scrub(as_typed(text)), lines=True)]
    for stream in (sys.stderr, sys.stdout):
        with contextlib.suppress(OSError, ValueError):
            for line in lines:
                show(line, stream)
            return


class Step:
    """One step of a chain while it runs."""

    def __init__(self, console: Console, name: str) -> None:
        self.name = name
        self.text = ""
        #: Whether its line is left out, because the result is shown elsewhere.
        self.hidden = False
        self._console = console
        self._started = time.perf_counter()
        self._status: Any = None
        self._reason = ""
        self._next_detail = 0.0
        #: The line that a terminal shows, and the second of the step at which it came.
        self._line, self._said = "", 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.perf_counter() - self._started

    def detail(self, line: str) -> None:
        """Show one line of progress."""
        line = plain(line)
        if not line:
            return
        if self._console.terminal:
            from .redaction import scrub

            self._show(scrub(line))
        else:
            # A compiler's command line may fill screens. Failures are found in the complete output elsewhere.
            short = line if len(line) <= LINE_CHARACTERS else f"{line[: LINE_CHARACTERS - 1]}…"
            self._console.line(f"  {self.name}: {short}")

    def detail_sometimes(self, line: str) -> None:
        """Show one of very many lines: where the output is no terminal, only one every few seconds."""
        if self._console.terminal or self.seconds >= self._next_detail:
            self._next_detail = self.seconds + PASSING_SECONDS
            self.detail(line)

    def log(self, line: str) -> None:
        """Show one line of another program's log, which also stays on a terminal."""
        self.close()
        self._console.line(f"  {self.name}: {plain(line)}")

    def report_wait(self, reason: str) -> None:
        """Show what is waited for, once the step has taken long enough to be noticed."""
        if reason != self._reason and self.seconds > REASON_AFTER:
            self._reason = reason
            self.detail(f"waiting for {reason} (Ctrl-C gives up)")

    def _show(self, line: str) -> None:
        from rich.console import Console as RichConsole

        self._line, self._said = line, self.seconds
        if self._status is None:
            self._status = RichConsole(file=self._console.stream).status(_Live(self))
            self._status.start()

    def close(self) -> None:
        """End live output."""
        if self._status is not None:
            self._status.stop()
            self._status = None


class _Live:
    """A running step on a terminal; rich redraws it, so that its times go on."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text

        step = self._step
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(printable(step.name), "bold")
        text.append(f" {_whole(step.seconds)} ")
        age = step.seconds - step._said
        since = f" (for {_whole(age)})" if age >= AGE_SECONDS else ""
        line = Text(f" {step._line}")
        # The rest of the line, at the terminal's current width.
        line.truncate(max(0, options.max_width - text.cell_len - len(since)), overflow="ellipsis")
        yield text + line + Text(since, "dim")


def _whole(seconds: float) -> str:
    return format_duration(seconds) if seconds >= 100 else f"{seconds:.0f} s"


class Console:
    """Where a command's output goes.

    Args:
        as_json: Keep standard output for the one JSON object.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.seconds: dict[str, float] = {}
        self.current: str | None = None
        #: Filters the output of the user's programs on its way to a terminal.
        self.programs = Output()

    @property
    def stream(self) -> TextIO:
        """The stream for text: standard error with ``--json``, else standard output."""
        return sys.stderr if self.as_json else sys.stdout

    @property
    def terminal(self) -> bool:
        """Whether that stream is a terminal."""
        return self.stream.isatty()

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        import os
        import shutil

        try:
            # Standard output may go elsewhere.
            return os.get_terminal_size(self.stream.fileno()).columns or shutil.get_terminal_size().columns
        except (OSError, ValueError):
            return shutil.get_terminal_size().columns

    def line(self, text: str = "") -> None:
        """Show one line."""
        from .redaction import scrub

        show(printable(scrub(as_typed(text))), self.stream)

    def value(self, text: str) -> None:
        """Show a line with a value of the user's program; only known secrets are masked in it."""
        from .redaction import mask_known_secrets

        show(printable(mask_known_secrets(text)), self.stream)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Run a step; its line appears with its time when it is done."""
        step = Step(self, name)
        self.current = name
        try:
            yield step
        finally:
            step.close()
        self.current = None
        self.seconds[name] = round(step.seconds, 3)
        LOGGER.info("step %s: %.2f s  %s", name, step.seconds, step.text, extra=FILE_ONLY)
        if not step.hidden:
            self.line(f"{name:<14} {step.seconds:6.2f} s  {step.text}".rstrip())

    def result(self, value: Mapping[str, Any]) -> None:
        """With ``--json``: print the object as the last line of standard output."""
        from .redaction import mask_known_secrets, scrub_value

        clean = {
            name: mask_known_secrets(one) if name in PROGRAM_VALUES else scrub_value({name: one})[name]
            for name, one in value.items()
        }
        if command_name.is_own():
            clean = {
                name: one if name in PROGRAM_VALUES else command_name.with_typed_command_in(one)
                for name, one in clean.items()
            }
        if report.is_wanted():
            # The other machine prints it, with its own ports and paths.
            report.add(result=clean)
        elif self.as_json:
            with output_errors(sys.stdout):
                print(escaped(json.dumps(clean)), flush=True)
