"""Hints for unknown tasks and flags, in place of Invoke's "No idea what '--epochs' is!".

Invoke has no hook for its parser's errors, so this module replaces the method that raises them. This happens only if
these tasks are loaded, and changes only the messages: what is accepted and what is refused stays Invoke's decision.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from invoke import Exit
from invoke.exceptions import ParseError
from invoke.parser.parser import ParseMachine

from .. import command_name
from ._arguments import Flag

if TYPE_CHECKING:
    from invoke.parser import Argument, ParserContext

    from ..errors import UserError

#: The most names that a hint suggests.
_MOST_SHOWN = 4
#: The least similarity of a suggested name, and by how much it may be less similar than the best one.
_SIMILAR, _LESS_SIMILAR = 0.75, 0.05
_UNKNOWN = re.compile(r"No idea what (?P<word>.+) is!", re.DOTALL)
_LACKING = re.compile(r".+ did not receive required positional arguments: (?P<names>.+)", re.DOTALL)


class Refused(ParseError, Exit):
    """An error in the command line. It is shown in two lines, and the exit code is 2."""

    def __init__(self, text: str, context: ParserContext | None) -> None:
        ParseError.__init__(self, text, context)
        # Invoke shows the text of either base class.
        self.args, self.message, self._code = (text,), None, 2


def install() -> None:
    """Make Invoke's parser give hints. Called once in a process."""
    ParseMachine.error = _error  # type: ignore[assignment,method-assign]


def _error(machine: ParseMachine, message: str) -> None:
    if _LACKING.fullmatch(message) and machine.initial.args["help"].value:
        return  # TASK --help: nothing is run, so nothing is missing.
    raise parse_error(_explain(machine, message), machine.context)


def parse_error(error: UserError, context: ParserContext | None) -> ParseError:
    """The exception for an error. With it, ``inv`` exits with 1, as for its own errors; ``azureml-debug`` with 2."""
    from ..console import as_typed
    from ..redaction import scrub
    from ..terminal import printable
    from ..vscode import f5

    text = printable(scrub(as_typed(f5.format_error(error))), lines=True)
    return Refused(text, context) if command_name.is_own() else ParseError(text, context)


def as_program_error(error: ParseError) -> ParseError:
    """The exception with which ``azureml-debug`` reports an error that Invoke raises outside its parser."""
    from ..errors import BadValue

    if isinstance(error, Refused):
        return error
    return parse_error(BadValue(f"{str(error).rstrip('.!')}.", _help_hint(error.context)), error.context)


def _explain(machine: ParseMachine, message: str) -> UserError:
    from ..errors import BadValue

    context = machine.context
    task = context.name if context else None
    if match := _UNKNOWN.fullmatch(message):
        word = str(ast.literal_eval(match["word"]))
        if task is None:
            return unknown_task(word, machine.contexts, sys.argv)
        if word.startswith("-"):
            return _unknown_flag(word, context)
        return _unexpected_word(word, context, machine.contexts)
    if match := _LACKING.fullmatch(message):
        names = match["names"].replace("'", "").replace(", ", " ").upper().replace("_", "-")
        return BadValue(f"{task} needs {names}.", f"Type: inv {task} {names}")
    flag: Argument | None = machine.flag
    if flag is None:
        return BadValue(f"{message.rstrip('.!')}.", _help_hint(context))
    dashed = "--" + str(flag.name).replace("_", "-").rstrip("-")
    if "needed value" in message:
        return BadValue(f"{dashed} needs a value.", f"{dashed} VALUE: {flag.help or 'see inv --help ' + str(task)}")
    return BadValue(f"{dashed} takes no value.", f"Leave the value out: {dashed}")


def _help_hint(context: ParserContext | None) -> str:
    return f"Help: inv --help {context.name}" if context and context.name else "All tasks: inv --list"


def unknown_task(word: str, names: Collection[str], typed: Sequence[str]) -> UserError:
    """The error for an unknown task.

    Args:
        word: The name, as typed.
        names: The names of all tasks.
        typed: The command line: the next word may be the rest of the name.
    """
    from ..errors import BadValue

    if word.startswith("-"):
        task = next((one for one in typed if one in names), None)
        where = f"Put it after the task's name: inv {task} {word}" if task and word in typed else ""
        return BadValue(f"There is no flag {word}.", where or "Put a task's flags after its name. Tasks: inv --list")
    problem = f"There is no task {word}."
    plain = re.sub(r"[:/_ ]", ".", word.lower())
    after = typed[typed.index(word) + 1 :] if word in typed else []
    if after and f"{word}.{after[0]}" in names:
        return BadValue(problem, f"Did you mean {word}.{after[0]}?")
    inside = [name for name in names if name.startswith(f"{plain}.")]
    if inside:
        problem = f"{word} is a collection of tasks."
        return BadValue(problem, f"Name one of them, such as {inside[-1]}: inv --list {plain}")
    similar = [name for name in names if name.rpartition(".")[2] == plain] or _similar_names(plain, names)
    return BadValue(problem, f"Did you mean {_join_with_or(similar)}?" if similar else "All tasks: inv --list")


def unknown_collection(word: str, names: Collection[str]) -> UserError:
    """The error for an unknown collection after ``--list``."""
    from ..errors import BadValue

    similar = _similar_names(word, names)
    return BadValue(
        f"There is no collection {word}.", f"Did you mean {_join_with_or(similar)}?" if similar else "All: inv --list"
    )


def _unknown_flag(word: str, context: ParserContext) -> UserError:
    from ..errors import BadValue
    from . import _known_flags

    flags = [*context.flag_names()]
    problem = f"{context.name} has no flag {word}."
    note = _known_flags.NOTES.get(word)
    meant = [one for one in _known_flags.SIMILAR_FLAGS.get(word, ()) if one in flags]
    if not meant and note is None:
        meant = _similar_names(word, [one for one in flags if one.startswith("--")]) if word.startswith("--") else []
    scripts = ""
    if _takes_remainder(context):
        scripts = f"Arguments of the script go after `--`: inv {_with_separator(context)}"
    if meant:
        return BadValue(problem, f"Did you mean {_join_with_or(meant)}?")
    return BadValue(problem, scripts or note or _positional_hint(word, context) or _help_hint(context))


def _takes_remainder(context: ParserContext) -> bool:
    return any(one.task.takes_remainder for one in context.args.values() if isinstance(one, Flag))


def _positional_hint(word: str, context: ParserContext) -> str:
    """A hint for a value that is given without a flag: the name of a run or experiment, or a line."""
    from . import _known_flags

    names = [one.name for one in context.positional_args]
    wanted = next((name for name in _known_flags.POSITIONAL_ARGUMENTS.get(word, ()) if name in names), None)
    return f"It is given without a flag: inv {context.name} {_known_flags.PLACEHOLDERS[wanted]}" if wanted else ""


def _with_separator(context: ParserContext) -> str:
    """The command line with the flags that the task does not know moved behind ``--``."""
    typed = sys.argv[1:]
    script_arguments = typed[typed.index("--") + 1 :] if "--" in typed else []
    known_words: list[str] = []
    moved: list[str] = []
    known = {*context.flag_names()}
    target = known_words
    for word in typed[: typed.index("--")] if "--" in typed else typed:
        if word.startswith("-"):
            target = known_words if word.partition("=")[0] in known else moved
        target.append(word)
    return shlex.join([*known_words, "--", *moved, *script_arguments])


def _unexpected_word(word: str, context: ParserContext, names: Collection[str]) -> UserError:
    from ..errors import BadValue
    from . import _known_flags

    problem = f"{context.name} takes no word {word}."
    if similar := _similar_names(word, names):
        return BadValue(problem, f"Did you mean the task {_join_with_or(similar)}?")
    if f"--{word}" in context.flag_names():
        return BadValue(problem, f"Did you mean --{word}?")
    flags = [
        flag for flag in _known_flags.FLAGS_BY_SUFFIX.get(PurePath(word).suffix, ()) if flag in context.flag_names()
    ]
    if flags:
        return BadValue(problem, f"Did you mean {flags[0]} {shlex.quote(word)}?")
    if _takes_remainder(context):
        return BadValue(problem, f"Arguments of the script go after `--`: inv {context.name} … -- {word}")
    return BadValue(problem, _help_hint(context))


def _similar_names(word: str, names: Collection[str]) -> list[str]:
    import difflib

    with_prefix = [name for name in names if len(word) > 3 and name.startswith(word)]
    if len(with_prefix) == 1:
        return with_prefix
    found = difflib.get_close_matches(word, names, n=_MOST_SHOWN, cutoff=_SIMILAR)
    # If one name is almost the same, less similar ones would only confuse.
    return [name for name in found if _similarity(word, name) > _similarity(word, found[0]) - _LESS_SIMILAR]


def _similarity(one: str, other: str) -> float:
    import difflib

    return difflib.SequenceMatcher(None, other, one).ratio()


def _join_with_or(names: Sequence[Any]) -> str:
    *first, last = names[:_MOST_SHOWN]
    return f"{', '.join(first)} or {last}" if first else str(last)
