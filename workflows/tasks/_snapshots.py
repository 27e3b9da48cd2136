"""Shows snapshots of failures and opens them in the editor, for the tasks of all stories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import report
from ..errors import BadValue
from ._runs import read_rank

if TYPE_CHECKING:
    from ..console import Console
    from ..flows.snapshots import Found
    from ..runs.record import RunRecord
    from ..snapshots.model import Linked, Snapshot
    from ..snapshots.sources import Sources
    from ._command import Command

SNAPSHOT_RANK_HELP = "rank, if several have failed; default: the first that failed."
SNAPSHOT_HELPS = {
    "frame": "Number of the frame whose variables are shown; default: the innermost one of your own code.",
    "eval": "Recorded value to show: a name, attribute, item or slice, such as batch[0].shape; may be repeated.",
    "rank": SNAPSHOT_RANK_HELP[0].upper() + SNAPSHOT_RANK_HELP[1:],
    "number": "Number of the snapshot in --list.",
    "list": "List the snapshots, the oldest first.",
}
SNAPSHOT_HELP = "Open the failure's snapshot in VS Code, as if the program were stopped at the exception."
#: The most exceptions, notes and lines of one text that are shown.
_MOST_LINKED, _MOST_NOTES, _MOST_LINES = 10, 10, 20
#: The most frames of one stack that are shown, and of a recursion.
_MOST_FRAMES, _MOST_ALIKE = 40, 3


@dataclass(frozen=True)
class SnapshotSelection:
    """The flags that select a snapshot and what is shown of it, as typed.

    Attributes:
        rank: The value of ``--rank``.
        number: The value of ``--number``.
        frame: The value of ``--frame``.
        expressions: The values of ``--eval``.
        listed: Whether ``--list`` was typed.
    """

    rank: str | None = None
    number: str | None = None
    frame: str | None = None
    expressions: Sequence[str] = ()
    listed: bool = False


def read_number(text: str | None, flag: str) -> int | None:
    """The number typed after a flag; None if there was none.

    Raises:
        BadValue: It is not a number.
    """
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadValue(f"{flag} must be a number, not {text!r}.", "Correct it.")
    return int(text)


def read_one_rank(text: str | None) -> int | None:
    """The rank typed after ``--rank``; None if there was none.

    Raises:
        BadValue: It is not a number.
    """
    if text is None:
        return None
    number = read_rank(text)
    if number is None:
        raise BadValue("One rank's snapshot is shown at a time.", "Name it: --rank N (all of them: --list)")
    return number


def show_snapshot(call: Command, found: Callable[[], Found], selection: SnapshotSelection) -> None:
    """Show one of the snapshots, or list them."""
    from ..snapshots import expression, inspection

    # The flags are checked before anything is fetched.
    rank, frame = read_one_rank(selection.rank), read_number(selection.frame, "--frame")
    number = read_number(selection.number, "--number")
    if None not in (rank, number):
        raise BadValue("--number says which snapshot, and so does --rank.", "Leave out one of the two.")
    for one in selection.expressions:
        expression.parse(one)
    found_snapshots = found()
    for error in found_snapshots.kept.unreadable if found_snapshots.kept.snapshots else ():
        call.console.line(f"  note: {error.problem}")
    if selection.listed:
        _list(call.console, found_snapshots)
        return
    snapshot = found_snapshots.choose(rank, number)
    result = inspection.inspect_snapshot(snapshot, found_snapshots.sources(snapshot), frame, selection.expressions)
    _show(call.console, found_snapshots, snapshot, result)
    call.console.result(result)


def attach_snapshot(call: Command, found: Callable[[], Found], rank: str | None, only_print: bool) -> None:
    """Open one of the snapshots in VS Code."""
    from ..debugger.any_client import print_endpoints
    from ..flows.snapshots import open_in_editor, report_snapshot

    number = read_one_rank(rank)
    found_snapshots = found()
    snapshot = found_snapshots.choose(number)
    if report.is_wanted():
        # With --remote, the editor is on the machine where this was typed.
        report_snapshot(found_snapshots, snapshot)
        return
    result = open_in_editor(
        call.settings,
        call.console,
        snapshot.path,
        found_snapshots.name(snapshot),
        found_snapshots.mappings.get(snapshot.path, ()),
        found_snapshots.guesses(snapshot),
        not only_print,
    )
    if only_print:
        print_endpoints(call.console, result)
    else:
        call.console.line(f'Press F5 in VS Code: "{result["launch_configuration"]}"')
    call.console.result(result)
    call.ready()


def print_snapshot_commands(console: Console, run: RunRecord) -> None:
    """Print the command that shows the snapshot of each failed step."""
    from ..flows.snapshots import snapshot_command
    from ..runs.record import FAILED

    for step in run.steps:
        command = snapshot_command(run, step) if step.status == FAILED else ""
        if command:
            console.line(f"Variables{'' if run.single else f' of {step.name}'} when it failed: {command}")


def check_no_rank(rank: str | None) -> None:
    """Check that no rank was typed without ``--snapshot``.

    Raises:
        BadValue: A rank was typed.
    """
    if rank is not None:
        raise BadValue("--rank says which rank's snapshot is opened.", "Leave it out, or type --snapshot too.")


def _list(console: Console, found: Found) -> None:
    from ..paths import shown
    from ..snapshots.inspection import summary
    from ._values import shorten

    snapshots = found.kept.snapshots
    if not snapshots:
        raise found.kept.unreadable[0]
    rows = [summary(one, found.sources(one)) for one in snapshots]
    for number, (one, row) in enumerate(zip(snapshots, rows, strict=True), 1):
        stopped = row["stopped"]
        place = f"{shown(Path(stopped['file']))}:{stopped['line']}" if stopped else ""
        console.line(f"{number:>3}  {_origin(found, one)}, {one.when}  {place}")
        console.value(f"     {shorten(_first_line(one.raised.line))}")
    console.result({"snapshots": rows})


def _origin(found: Found, snapshot: Snapshot) -> str:
    """What has failed: the step or service, its rank if there are several, and the process and thread."""
    which = f", rank {snapshot.rank}" if snapshot.rank or len(found.kept.snapshots) > 1 else ""
    process = f", {snapshot.process}" if snapshot.process else ""
    thread = f", thread {snapshot.thread}" if snapshot.thread not in ("", "MainThread") else ""
    return f"{snapshot.step or found.what}{which}{process}{thread}"


def _show(console: Console, found: Found, snapshot: Snapshot, result: dict[str, Any]) -> None:
    from ..paths import shown
    from ._values import shorten

    raised, sources = snapshot.raised, found.sources(snapshot)
    others = len(found.kept.snapshots) - 1
    console.line(f"{_origin(found, snapshot)}, {snapshot.when}")
    _show_text(console, raised.line, "")
    for note in raised.notes[:_MOST_NOTES]:
        _show_text(console, note, "  ")
    number, stopped = result["frame"], result["stopped"]
    if stopped is not None:
        console.line(f"Raised in {stopped['function']} at {shown(Path(stopped['file']))}:{stopped['line']}")
        if not stopped["same_source"]:
            console.line("  note: the file here is not the one that ran")
    for link in [None, *list(snapshot.chain())[:_MOST_LINKED]]:
        if link is not None:
            one = snapshot.exceptions[link.place]
            console.value(f"{_HOW[link.how]} {shorten(_first_line(one.line))}")
            for note in one.notes[:_MOST_NOTES]:
                _show_text(console, note, "  ")
        _show_stack(console, snapshot, sources, link, number)
    for title in ("locals", "values"):
        if result[title]:
            console.line(title.capitalize())
        for name, value in result[title].items():
            console.value(f"  {name} = {shorten(value)}")
    if snapshot.left_out:
        console.line("Left out")
    for sentence in snapshot.left_out[:_MOST_LINES]:
        console.line(f"  {sentence}")
    if others:
        more = f"{others} more snapshot{'s' if others > 1 else ''}"
        console.line(f"({more}: --list, --number N)")


def _show_stack(
    console: Console, snapshot: Snapshot, sources: Sources, link: Linked | None, chosen: int | None
) -> None:
    """Show the frames of one exception: those of the user's code, and of a recursion only the first ones."""
    from ..paths import shown
    from ..snapshots.inspection import levels

    other = again = folded = lines = left = 0
    before: tuple[str, int, str] | None = None

    def end_recursion() -> None:
        if folded:
            console.line(f"       (and {folded} more of the same)")

    for at, level in enumerate(levels(snapshot)):
        if level.link != link:
            continue
        frame = snapshot.frames[level.place]
        if not frame.own and at != chosen:
            other += 1
            continue
        place = (frame.file, frame.line, frame.function)
        if place != before:
            end_recursion()
            again, folded, before = 0, 0, place
        again += 1
        if at != chosen and again > _MOST_ALIKE:
            folded += 1
            continue
        if at != chosen and lines >= _MOST_FRAMES:
            left += 1
            continue
        lines += 1
        mark = ">" if at == chosen else " "
        console.line(f"{mark} {at:>3}  {frame.function:<24} {shown(Path(sources.path(frame)))}:{frame.line}")
    end_recursion()
    if left:
        console.line(f"       ({left} more; --json shows all)")
    if other:
        console.line(f"       ({other} frame{'s' if other > 1 else ''} of other code)")


_HOW = {"cause": "Caused by", "while handling": "While handling", "in the group": "In the group"}


def _show_text(console: Console, text: str, before: str) -> None:
    from ._values import shorten

    lines = text.splitlines() or [""]
    for line in lines[:_MOST_LINES]:
        console.value(f"{before}{shorten(line)}")
    if len(lines) > _MOST_LINES:
        console.line(f"{before}({len(lines) - _MOST_LINES} more lines; --json shows all)")


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")
