"""What every task shares: the flags of settings, output, and how failures end.

A task is written as a function of a :class:`Command` and its own flags; :func:`command`
adds the flags of the settings that it uses and turns it into an Invoke task.

Whatever tasks need when they run is imported then: `inv --list`, and every completion in a shell, loads this module.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Context, Exit, Task, task

from .. import command_name
from ..byte_code import kept
from ..errors import Interrupted, UserError
from ._arguments import FlagTask
from ._quiet import INTERRUPTED, UNREAD

if TYPE_CHECKING:
    from ..console import Console
    from ..settings import Settings

#: Collections whose tasks run on another machine too.
REMOTE = ("deploy", "container", "pipeline", "experiment", "vscode")
#: Second, shorter names of settings' flags.
ALIASES = {"pipeline_file": "file"}
VERBOSE_HELP = "Show what is done on standard error; -vv with every request and traceback."
REMOTE_HELP = "Run on the machine of AML_REMOTE_HOST, with its debug ports forwarded to 127.0.0.1."
JSON_HELP = "Print one JSON object as the last line of standard output; everything else goes to standard error."


class Command:
    """One run of a task: its settings and its console, each made when first asked for.

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
        """The settings, resolved."""
        from ..settings import resolve

        return resolve(self.project, self.flags)

    @property
    def project(self) -> Path:
        """The folder of tasks.py; for ``azureml-debug``, which needs none, see :func:`workflows.project.find`."""
        # Invoke has no public name for where it found the tasks file.
        prefix = getattr(self._context.config, "_project_prefix", None)
        if prefix is None and command_name.is_own():
            from ..project import find

            return find(Path.cwd())
        return Path(prefix or ".").resolve()

    def ready(self) -> None:
        """Have the editor attach, where it waits for this command."""
        from ..vscode import pressed

        pressed.ready(self.project)

    def remainder(self) -> list[str]:
        """What was typed after ``--``, which Invoke does not hand to tasks."""
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
        help: Explanations of the function's own flags.
        iterable: Flags that may be repeated.
        positional: Arguments without a flag; one whose default is None may be left out.
        optional: Flags that may stand without their value.
        paths: Which of the function's own flags name files, and how; see :mod:`workflows.remote.request`.
        before: With ``--remote``: what is done here first. It may change the flags' values; whether what came
            after ``--`` is done with, too.
        after: With ``--remote``: what is done here once the task there has done its part.
        interrupted: What to say of the state that Ctrl-C leaves.
        takes_remainder: Whether something may follow ``--``: see :meth:`Command.remainder`.
    """

    def decorate(function: Callable[..., None]) -> Task[Any]:
        own = list(inspect.signature(function).parameters.values())[1:]
        module = function.__module__.rpartition(".")[2]
        name = function.__name__.rstrip("_").replace("_", "-")
        elsewhere = module in REMOTE
        parameters, explained = _flags(own, settings, json=json, remote=elsewhere)
        if elsewhere or module in ("remote", "azureml", "mcp"):
            name = f"{module}.{name}"

        @functools.wraps(function)
        def body(context: Context, **values: Any) -> None:
            try:
                whole(context, **values)
            except KeyboardInterrupt:
                # Before or after what the task does; Invoke would end with 1, as for a failure.
                raise Exit(code=INTERRUPTED) from None

        def whole(context: Context, **values: Any) -> None:
            from . import _streams

            _streams.complete()
            flags = _take_settings(values, settings)
            as_json = bool(values.pop("json", False))
            verbose = int(values.pop("verbose", 0))
            remote = bool(elsewhere and values.pop("remote", False))
            for argument in positional:
                if str(values.get(argument, "")).startswith("-"):
                    _end(UserError(f"{values[argument]} is not a {argument}.", f"Help: inv --help {name}"))
            if "--" in sys.argv and not takes_remainder:
                _end(UserError(f"{name} takes nothing after `--`.", f"Leave it out. Help: inv --help {name}"))
            run = Command(name, context, flags, as_json)
            _keep_secrets()
            from .. import command_log

            with _signals_as_interrupts(), kept(), command_log.writing(_project(run), verbose):
                if remote:
                    typed: dict[str, Any] = {"name": name, "values": values, "positional": positional}
                    typed |= {"kinds": paths or {}, "defaults": {one.name: one.default for one in own}}
                    typed |= {"fields": settings, "as_json": as_json, "before": before, "after": after}
                    _guard(run, _elsewhere, typed, LEFT_THERE)
                else:
                    _guard(run, function, values, interrupted)

        body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        del body.__wrapped__
        made: Task[Any] = task(
            name=function.__name__.rstrip("_").replace("_", "-"),
            help={**(help or {}), **explained},
            iterable=list(iterable),
            incrementable=["verbose"],
            positional=list(positional),
            optional=list(optional),
            auto_shortflags=False,
            klass=FlagTask,
        )(body)
        assert isinstance(made, FlagTask)
        made.takes_remainder, made.settings = takes_remainder, settings
        made.may_lack = [one.name for one in own if one.name in positional and one.default is None]
        return made

    return decorate


def _flags(
    own: Sequence[inspect.Parameter], settings: Sequence[str], *, json: bool, remote: bool
) -> tuple[list[inspect.Parameter], dict[str, str]]:
    """The parameters of a task, its own ones and those that tasks share; and the help of the latter but for settings.

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


def _take_settings(values: dict[str, Any], settings: Sequence[str]) -> dict[str, str | None]:
    """Take the settings' flags out of what was typed.

    Raises:
        Exit: Both names of one were typed.
    """
    flags: dict[str, str | None] = {field: values.pop(field, None) for field in settings}
    for field in filter(ALIASES.__contains__, settings):
        short = values.pop(ALIASES[field], None)
        if None not in (short, flags[field]):
            names = f"--{ALIASES[field]} and --{field.replace('_', '-')}"
            _end(UserError(f"{names} are the same flag.", "Type one of the two."))
        flags[field] = flags[field] if short is None else short
    return flags


def _keep_pressed(run: Command) -> None:
    """Go by what launch.json says, where VS Code has read it and started this command."""
    from ..vscode import pressed

    pressed.keep_read(run.project)
    if "debug_port" in run.flags and run.flags["debug_port"] is None and (port := pressed.debug_port()) is not None:
        run.flags["debug_port"] = str(port)


def _keep_secrets() -> None:
    """Have no traceback show a secret, and nothing one that was typed."""
    from .. import tracebacks
    from ..redaction import keep_addresses, keep_variables

    tracebacks.install()
    for before, word in pairwise(sys.argv):
        keep_addresses(word)
        name, given, value = word.removeprefix("--env=").partition("=")
        if given and (before == "--env" or word.startswith("--env=")):
            keep_variables({name: value})


LEFT_THERE = "What was started on the other machine may go on there."


def _elsewhere(
    run: Command,
    before: Callable[[Command, dict[str, Any]], bool] | None,
    after: Callable[[Command, dict[str, Any]], None] | None,
    values: dict[str, Any],
    **typed: Any,
) -> None:
    """Run a task on the other machine."""
    from ..remote.request import Typed
    from ..remote.task import run_there

    flags = {name: text for name, text in run.flags.items() if text is not None}
    if "score_script" in flags:
        # It may have been named from the source folder.
        flags["score_script"] = str(run.settings.score_script)
    remainder = run.remainder() if "--" in sys.argv else None
    if before is not None and before(run, values):
        remainder = None
    typed["values"] = values
    code = run_there(run.settings, run.console, Typed(flags=flags, remainder=remainder, **typed))
    if code:
        raise Exit(code=code)
    if after is not None:
        after(run, values)


def _guard(run: Command, function: Callable[..., None], values: dict[str, Any], interrupted: str) -> None:
    """Run the task; what a user can cause ends in two lines, our own bugs in a traceback."""
    from .. import report, unforeseen
    from ..console import show_error
    from ..vscode import pressed
    from . import _ending, _streams

    try:
        _keep_pressed(run)
        _sweep(run.project)
        function(run, **values)
        _streams.flush()
        _ending.settle(0)
    except UserError as error:
        _end(error)
    except KeyboardInterrupt:
        where = f" in {run.console.current}" if run.console.current else ""
        _end(Interrupted(f"Interrupted{where}.", f"{interrupted} Again: inv {report.typed()}"))
    except BrokenPipeError:
        # Whoever read the output has gone; nothing is left to say, not even at exit.
        _streams.give_up()
        raise Exit(code=UNREAD) from None
    except Exit:
        raise
    except Exception as error:
        project = _project(run)
        told = _streams.unwritable(error) if isinstance(error, OSError) else None
        if told is not None:
            _end(told)
        log = unforeseen.keep(error, project)
        told = (
            _docker_error(error)
            if _is_dockers(error)
            else unforeseen.explained(error, run.console.current or "", project)
        )
        if told is not None:
            _end(told)
        pressed.print_bug(error)
        if log is not None:
            show_error(f"This is a bug of the program; its traceback is kept in {log}:")
        raise


def _sweep(project: Path) -> None:
    """Take away what a runner of the project has left that was killed; nothing is loaded where no run goes on."""
    from ..runs import begun

    if any(begun.unfinished(project)):
        from ..runs import store

        store.sweep(project)


def _project(run: Command) -> Path | None:
    try:
        return run.project
    except (OSError, RuntimeError, ValueError):
        return None  # the current folder is not there any more


def _is_dockers(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("docker", "requests", "urllib3")


def _docker_error(error: BaseException) -> UserError:
    text = str(getattr(error, "explanation", None) or error)
    return UserError(f"The Docker engine says: {text}", "Check the engine (docker info), then run this again.")


def _end(error: UserError) -> None:
    """Show an error and end with its exit code.

    Raises:
        Exit: Always.
    """
    from ..console import show_error
    from ..vscode import pressed
    from . import _ending, _streams

    show_error(pressed.printed(error), error.details)
    _streams.give_up()
    _ending.settle(error.exit_code)
    raise Exit(code=error.exit_code) from error


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Have a terminal that closes, or an editor that ends its task, clean up as Ctrl-C does."""
    from ..interrupts import handled, never_lost

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with never_lost(), handled(interrupt, "SIGTERM", "SIGHUP", defaults_only=True):
        yield
