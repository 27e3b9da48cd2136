"""What every task shares: the flags of settings, output, and how failures end.

A task is written as a function of a :class:`Command` and its own flags; :func:`command`
adds the flags of the settings that it uses and turns it into an Invoke task.

What a task needs is imported when it runs: `inv --list` and every completion in a shell load this module.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Context, Exit, Task, task

from .. import command_name
from ..byte_code import byte_code_enabled
from ..errors import Interrupted, UserError
from ._arguments import FlagTask
from ._closed_output import INTERRUPTED, UNREAD

if TYPE_CHECKING:
    from ..console import Console
    from ..settings import Settings

#: Collections whose tasks run on another machine too.
REMOTE_COLLECTIONS = ("deploy", "container", "pipeline", "experiment", "vscode")
#: Second, shorter names of settings' flags.
ALIASES = {"pipeline_file": "file"}
VERBOSE_HELP = "Show what is done on standard error; -vv with every request and traceback."
REMOTE_HELP = "Run on the machine of AML_REMOTE_HOST, with its debug ports forwarded to 127.0.0.1."
JSON_HELP = "Print one JSON object as the last line of standard output; everything else goes to standard error."


class Command:
    """One run of a task: its settings, read at the first use, and its console.

    Args:
        name: The task's full name, for messages.
        context: Invoke's context.
        flags: Values of settings typed on the command line, by field name.
        as_json: Whether ``--json`` was typed.
    """

    def __init__(self, name: str, context: Context, flags: dict[str, str | None], as_json: bool) -> None:
        from ..console import Console

        self.name = name
        self._context = context
        self.flags = flags
        self.console: Console = Console(as_json)

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings, from flags, environment variables, `.env` and defaults."""
        from ..settings import resolve

        return resolve(self.project, self.flags)

    @property
    def project(self) -> Path:
        """The folder of tasks.py; else what :func:`workflows.project.find_project` returns."""
        # Invoke has no public name for the folder in which it found the tasks file.
        prefix = getattr(self._context.config, "_project_prefix", None)
        if prefix is None and command_name.is_own():
            from ..project import find_project

            return find_project(Path.cwd())
        return Path(prefix or ".").resolve()

    def ready(self) -> None:
        """Let the editor attach, if it started this command and is waiting for it."""
        from ..vscode import f5

        f5.report_ready(self.project)

    def remainder(self) -> list[str]:
        """The arguments typed after ``--``, which Invoke does not pass to tasks."""
        return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []


def command(
    *,
    settings: Sequence[str] = (),
    json: bool = False,
    help: Mapping[str, str] | None = None,
    iterable: Sequence[str] = (),
    positional: Sequence[str] = (),
    optional: Sequence[str] = (),
    paths: Mapping[str, str] | None = None,
    before: Callable[[Command, dict[str, Any]], bool] | None = None,
    after: Callable[[Command, dict[str, Any]], None] | None = None,
    interrupted: str = "What was begun has been taken away.",
    takes_remainder: bool = False,
) -> Callable[[Callable[..., None]], Task[Any]]:
    """Make an Invoke task of a function of a :class:`Command` and flags.

    Args:
        settings: Fields of settings that get a flag on this task.
        json: Whether the task has ``--json``.
        help: Help of the function's own flags.
        iterable: Flags that may be repeated.
        positional: Arguments without a flag; one whose default is None may be left out.
        optional: Flags that may be given without a value.
        paths: Which of the function's own flags name files, and how; see :mod:`workflows.remote.request`.
        before: With ``--remote``: called on this machine first. It may change the flags' values, and returns whether
            it has used up the arguments after ``--``.
        after: With ``--remote``: called on this machine after the remote task has succeeded.
        interrupted: The sentence that describes the state after Ctrl-C.
        takes_remainder: Whether arguments may follow ``--``: see :meth:`Command.remainder`.
    """
    options = _Options(
        *(settings, json, help or {}, iterable, positional, optional, paths or {}),
        *(before, after, interrupted, takes_remainder),
    )
    return lambda function: _make_task(function, options)


@dataclass(frozen=True)
class _Options:
    """The arguments of :func:`command`."""

    settings: Sequence[str]
    json: bool
    help: Mapping[str, str]
    iterable: Sequence[str]
    positional: Sequence[str]
    optional: Sequence[str]
    paths: Mapping[str, str]
    before: Callable[[Command, dict[str, Any]], bool] | None
    after: Callable[[Command, dict[str, Any]], None] | None
    interrupted: str
    takes_remainder: bool


def _make_task(function: Callable[..., None], options: _Options) -> Task[Any]:
    """Make an Invoke task that runs a function of a :class:`Command` and flags."""
    own = list(inspect.signature(function).parameters.values())[1:]
    module = function.__module__.rpartition(".")[2]
    task_name = function.__name__.rstrip("_").replace("_", "-")
    has_remote = module in REMOTE_COLLECTIONS
    parameters, explained = _flags(own, options.settings, json=options.json, remote=has_remote)
    in_collection = has_remote or module in ("remote", "azureml", "mcp")
    name = f"{module}.{task_name}" if in_collection else task_name

    @functools.wraps(function)
    def body(context: Context, **values: Any) -> None:
        try:
            _start_task(context, function, name, options, own, values)
        except KeyboardInterrupt:
            # Ctrl-C outside the task itself: Invoke would exit with 1, as for a failure.
            raise Exit(code=INTERRUPTED) from None

    body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    del body.__wrapped__
    made: Task[Any] = task(
        name=task_name,
        help={**options.help, **explained},
        iterable=list(options.iterable),
        incrementable=["verbose"],
        positional=list(options.positional),
        optional=list(options.optional),
        auto_shortflags=False,
        klass=FlagTask,
    )(body)
    assert isinstance(made, FlagTask)
    made.takes_remainder, made.settings = options.takes_remainder, options.settings
    made.may_be_omitted = [one.name for one in own if one.name in options.positional and one.default is None]
    return made


def _start_task(
    context: Context,
    function: Callable[..., None],
    name: str,
    options: _Options,
    own: Sequence[inspect.Parameter],
    values: dict[str, Any],
) -> None:
    """Run a task with the flags that Invoke has parsed, on this machine or on the remote one.

    Args:
        context: Invoke's context.
        function: The task's function.
        name: The task's full name.
        options: What the task was declared with.
        own: The function's own flags.
        values: The values of all flags, the shared ones among them.
    """
    from . import _standard_streams

    _standard_streams.open_missing()
    from .. import command_log

    flags = _pop_settings(values, options.settings)
    as_json = bool(values.pop("json", False))
    verbose = int(values.pop("verbose", 0))
    remote = bool(values.pop("remote", False))
    for argument in options.positional:
        if str(values.get(argument, "")).startswith("-"):
            _exit_with(UserError(f"{values[argument]} is not a {argument}.", f"Help: inv --help {name}"))
    if "--" in sys.argv and not options.takes_remainder:
        _exit_with(UserError(f"{name} takes nothing after `--`.", f"Leave it out. Help: inv --help {name}"))
    call = Command(name, context, flags, as_json)
    _hide_secrets()
    with _signals_as_interrupts(), byte_code_enabled(), command_log.log_command(_project_folder(call), verbose):
        if not remote:
            _run_task(call, function, values, options.interrupted)
            return
        typed: dict[str, Any] = {"name": name, "values": values, "positional": options.positional}
        typed |= {"kinds": options.paths, "defaults": {one.name: one.default for one in own}}
        typed |= {"fields": options.settings, "as_json": as_json, "before": options.before, "after": options.after}
        _run_task(call, _run_remotely, typed, REMOTE_TASK_GOES_ON)


def _flags(
    own: Sequence[inspect.Parameter], settings: Sequence[str], *, json: bool, remote: bool
) -> tuple[list[inspect.Parameter], dict[str, str]]:
    """The parameters of a task, its own and the shared ones, and the help of the shared ones except for settings.

    Args:
        own: The function's own flags.
        settings: Fields of settings that get a flag.
        json: Whether there is ``--json``.
        remote: Whether there is ``--remote``.
    """
    shared: dict[str, tuple[Any, str]] = {}
    if json:
        shared["json"] = (False, JSON_HELP)
    shared["verbose"] = (0, VERBOSE_HELP)
    shared.update(dict.fromkeys(settings, (None, "")))
    for field in filter(ALIASES.__contains__, settings):
        shared[ALIASES[field]] = (None, f"The same as --{field.replace('_', '-')}.")
    if remote:
        shared["remote"] = (False, REMOTE_HELP)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    added = [inspect.Parameter(name, kind, default=default) for name, (default, _help) in shared.items()]
    explained = {name: text for name, (_default, text) in shared.items() if text}
    return [inspect.Parameter("context", kind), *own, *added], explained


def _pop_settings(values: dict[str, Any], settings: Sequence[str]) -> dict[str, str | None]:
    """Remove the settings' flags from the typed values and return them.

    Raises:
        Exit: Both names of the same flag were typed.
    """
    flags: dict[str, str | None] = {field: values.pop(field, None) for field in settings}
    for field in filter(ALIASES.__contains__, settings):
        short = values.pop(ALIASES[field], None)
        if None not in (short, flags[field]):
            names = f"--{ALIASES[field]} and --{field.replace('_', '-')}"
            _exit_with(UserError(f"{names} are the same flag.", "Type one of the two."))
        flags[field] = flags[field] if short is None else short
    return flags


def _apply_launch_json(call: Command) -> None:
    """Use the debug port that launch.json names, if VS Code has read launch.json and started this command."""
    from ..vscode import f5

    f5.remember_launch_json(call.project)
    if "debug_port" in call.flags and call.flags["debug_port"] is None and (port := f5.debug_port()) is not None:
        call.flags["debug_port"] = str(port)


def _hide_secrets() -> None:
    """Keep secrets out of tracebacks, and those that were typed out of all output."""
    from .. import tracebacks
    from ..redaction import keep_addresses, keep_variables

    tracebacks.install()
    for before, word in pairwise(sys.argv):
        keep_addresses(word)
        name, given, value = word.removeprefix("--env=").partition("=")
        if given and (before == "--env" or word.startswith("--env=")):
            keep_variables({name: value})


REMOTE_TASK_GOES_ON = "What was started on the other machine may go on there."


def _run_remotely(
    call: Command,
    before: Callable[[Command, dict[str, Any]], bool] | None,
    after: Callable[[Command, dict[str, Any]], None] | None,
    values: dict[str, Any],
    **typed: Any,
) -> None:
    """Run a task on the remote machine."""
    from ..remote.request import TypedTask
    from ..remote.task import run_remotely

    flags = {name: text for name, text in call.flags.items() if text is not None}
    if "score_script" in flags:
        # It may have been typed relative to the source folder.
        flags["score_script"] = str(call.settings.score_script)
    remainder = call.remainder() if "--" in sys.argv else None
    if before is not None and before(call, values):
        remainder = None
    typed["values"] = values
    code = run_remotely(call.settings, call.console, TypedTask(flags=flags, remainder=remainder, **typed))
    if code:
        raise Exit(code=code)
    if after is not None:
        after(call, values)


def _run_task(call: Command, function: Callable[..., None], values: dict[str, Any], interrupted: str) -> None:
    """Run the task. An error that a user can cause is shown in two lines, a bug of this program with its traceback."""
    from .. import report, unexpected_errors
    from ..console import show_error
    from ..vscode import f5
    from . import _exit_code, _standard_streams

    try:
        _apply_launch_json(call)
        _remove_leftovers(call.project)
        function(call, **values)
        _standard_streams.flush()
        _exit_code.set_exit_code(0)
    except UserError as error:
        _exit_with(error)
    except KeyboardInterrupt:
        where = f" in {call.console.current}" if call.console.current else ""
        _exit_with(Interrupted(f"Interrupted{where}.", f"{interrupted} Again: inv {report.typed_command()}"))
    except BrokenPipeError:
        # The reader of the output is gone. Nothing can be written any more, not even at exit.
        _standard_streams.discard_unwritable()
        raise Exit(code=UNREAD) from None
    except Exit:
        raise
    except Exception as error:
        project = _project_folder(call)
        known_error = _standard_streams.explain_unwritable(error) if isinstance(error, OSError) else None
        if known_error is not None:
            _exit_with(known_error)
        log = unexpected_errors.log_traceback(error, project)
        known_error = (
            _docker_error(error, project)
            if _is_docker_error(error)
            else unexpected_errors.explain(error, call.console.current or "", project)
        )
        if known_error is not None:
            _exit_with(known_error)
        f5.print_bug(error)
        if log is not None:
            show_error(f"This is a bug of the program; its traceback is kept in {log}:")
        raise


def _remove_leftovers(project: Path) -> None:
    """Remove what killed runners of the project have left. Nothing is imported if no run is unfinished."""
    from ..runs import active_markers

    if any(active_markers.unfinished_folders(project)):
        from ..runs import store

        store.clean_up(project)


def _project_folder(call: Command) -> Path | None:
    try:
        return call.project
    except (OSError, RuntimeError, ValueError):
        return None  # the current folder has been removed


def _is_docker_error(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("docker", "requests", "urllib3")


def _docker_error(error: BaseException, project: Path | None) -> UserError:
    from .. import command_log

    text = str(getattr(error, "explanation", None) or error)
    remedy = "Check the engine (docker info), then run this again."
    if project is not None and (log := command_log.written_file(project)) is not None:
        remedy += f" The request and its traceback are in {log}."
    return UserError(f"The Docker engine says: {text}", remedy)


def _exit_with(error: UserError) -> None:
    """Show an error and exit with its code.

    Raises:
        Exit: Always.
    """
    from ..console import show_error
    from ..vscode import f5
    from . import _exit_code, _standard_streams

    show_error(f5.format_error(error), error.details)
    _standard_streams.discard_unwritable()
    _exit_code.set_exit_code(error.exit_code)
    raise Exit(code=error.exit_code) from error


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Clean up as after Ctrl-C when the terminal closes or the editor ends its task."""
    from ..interrupts import handling_signals, reraising_lost_interrupts

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with reraising_lost_interrupts(), handling_signals(interrupt, "SIGTERM", "SIGHUP", defaults_only=True):
        yield
