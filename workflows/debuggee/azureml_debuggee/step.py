"""Decides whether this process is the one that a step is debugged in, and makes it so.

A step's command is a text for bash that starts any number of processes: installers, launchers,
the step's script, its children. All of them have this on their PYTHONPATH; one owns the
debugger at a time, the others run as if nothing were there. The environment variables, beside
those of session.py:

========================= ======================================================
AZUREML_DEBUGGEE_CODE     folders (or files) of the step's own code; a process that runs a
                          script or module of them owns the debugger
AZUREML_DEBUGGEE_ANY      ``1``: so does a process that runs another program, once that program runs a module of the
                          step's own code (foreign_programs.py). If the code folders contain no Python, any program
                          but installers and launchers owns the debugger
AZUREML_DEBUGGEE_RANKS    ranks that are debugged: ``all``, or ``0,2`` (0, and what has no rank)
AZUREML_DEBUGGEE_MADE     ``0``, or how many of the ranks that the step's own command makes have ports of their
                          own, base + rank; further ones are let in at rank 0's. Where others than rank 0 are wanted, a
                          script without a rank is what makes them, and leaves the debugger to them
AZUREML_DEBUGGEE_ON_ERROR ``1``: let a debugger in only when the program fails
AZUREML_DEBUGGEE_OWNER    set here: the owner's process id, by which its children know
========================= ======================================================

Imported at the start of every Python process of a step: what is not always needed is imported late.
"""

from __future__ import annotations

import os
import sys

from .program import (
    BUILDERS,
    LAUNCHERS,
    OWNER,
    Program,
    code_folders,
    front_folders,
    is_own,
    remove_options,
    this_program,
)
from .ranks import rank_of, world_of

# As good as typing.TYPE_CHECKING, without importing that.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, FrozenSet, List, MutableMapping, Optional, Sequence, Tuple


def is_wanted(rank: Optional[int], environment: MutableMapping[str, str]) -> bool:
    """Whether the process of this rank is one that is debugged."""
    wanted = environment.get("AZUREML_DEBUGGEE_RANKS", "").strip() or "0"
    return wanted == "all" or str(rank or 0) in [word.strip() for word in wanted.split(",")]


def prepare(inject: str, program: Optional[Program] = None) -> Optional[Callable[[], None]]:
    """Decide what this process is; never raises.

    Args:
        inject: The folder through which this has come in.
        program: What is run; by default what Python has been told to run.

    Returns:
        What starts the debuggee, in a process that owns the debugger.
    """
    try:
        sys.path[:] = [entry for entry in sys.path if not entry or os.path.abspath(entry) != inject]
        if os.environ.get("AZUREML_DEBUGGEE_METRICS"):
            from . import metrics

            metrics.install()
        if not os.environ.get("AZUREML_DEBUGGEE_CODE"):
            return None
        if os.environ.get("AZUREML_DEBUGGEE_CHILDREN_AT"):
            from . import child

            if child.is_child(os.environ):
                return child.start_child(inject, program)
        return _prepare(inject, program or this_program(), os.environ)
    except Exception as error:
        from .startup import warn

        warn("{}: {}".format(type(error).__name__, error))
        return None


def prepare_again(inject: str, program: Program) -> Optional[Callable[[], None]]:
    """Decide once more, in a program of ours that runs a person's script in its own place; as :func:`prepare`."""
    try:
        return _prepare(inject, program, os.environ) if os.environ.get("AZUREML_DEBUGGEE_CODE") else None
    except Exception as error:
        from .startup import warn

        warn("{}: {}".format(type(error).__name__, error))
        return None


def _prepare(inject: str, program: Program, environment: MutableMapping[str, str]) -> Optional[Callable[[], None]]:
    if program.kind == "script" and os.path.dirname(os.path.abspath(program.name)) in _ours(inject):
        return None  # They ask again, with what they run.
    identity = str(os.getpid())
    if environment.get(OWNER, identity) != identity:
        return _child_on_error(inject, program, environment)
    own = is_own(program, environment)
    tools: FrozenSet[str] = frozenset() if own else frozenset(program.tool_names())
    if tools & BUILDERS:
        environment[OWNER] = identity
        leave_path(inject, environment)
        return None
    if own and _makes_ranks(environment):
        _inject_into_programs(inject, environment)
        return None
    if not own:
        if environment.get("AZUREML_DEBUGGEE_ANY") != "1":
            return None
        from . import foreign_programs

        if foreign_programs.has_python(environment):
            from . import child

            child.hide_inject_folder(inject, environment)
            child.inject_into_programs(inject)
            foreign_programs.watch(environment, lambda: _become(inject, program))
            return None
        if tools & LAUNCHERS:
            return None
    return _own(inject, program, environment)


def _ours(inject: str) -> Sequence[str]:
    """Where launch.py is, and what drives parallel steps."""
    return inject, os.path.join(os.path.dirname(inject), "azureml_parallel_run")


def _makes_ranks(environment: MutableMapping[str, str]) -> bool:
    """Whether a script of the step's is one that starts those which have been asked for."""
    wanted = environment.get("AZUREML_DEBUGGEE_RANKS", "").split(",")
    return (
        rank_of(environment) is None
        and int(environment.get("AZUREML_DEBUGGEE_MADE") or 0) > 1
        and "0" not in wanted
        and environment.get("AZUREML_DEBUGGEE_ON_ERROR") != "1"
    )


def _become(inject: str, program: Program) -> None:
    """Own the debugger from now on, in the middle of a program."""
    start = _own(inject, program, os.environ)
    if start is not None:
        start()


def _own(inject: str, program: Program, environment: MutableMapping[str, str]) -> Optional[Callable[[], None]]:
    """Own the debugger; what starts the debuggee, where this process is one that is debugged."""
    identity = str(os.getpid())
    environment[OWNER] = identity
    rank = rank_of(environment)
    with_children = is_wanted(rank, environment) and environment.get("AZUREML_DEBUGGEE_CHILDREN") == "1"
    if with_children:
        _inject_into_programs(inject, environment)
    else:
        leave_path(inject, environment)
    if any(argument.startswith("--remote_debug") for argument in sys.argv[1:]) and (
        b"--remote_debug" not in program.source()
    ):
        arguments = sys.argv[1:]
        taken = remove_options(arguments)
        sys.argv[1:] = arguments
        timeout = taken.get("--remote_debug_connection_timeout")
        if timeout:
            environment["AZUREML_DEBUGGEE_TIMEOUT"] = timeout
    if not is_wanted(rank, environment):
        return None
    if not with_children:
        _keep_through_exec(inject)
    return lambda: _start(program, rank)


def _inject_into_programs(inject: str, environment: MutableMapping[str, str]) -> None:
    """Have what this process starts come with the debuggee, without the program's seeing it."""
    # child_environment now: what the program does to itself, such as to change user, may keep it from being read later.
    from . import child, child_environment  # noqa: F401

    child.hide_inject_folder(inject, environment)
    child.inject_into_programs(inject)


def _child_on_error(
    inject: str, program: Program, environment: MutableMapping[str, str]
) -> Optional[Callable[[], None]]:
    """In a child of the owner's: watch for errors of the step's own code, where that is wanted."""
    rank = rank_of(environment)
    is_watched = (
        environment.get("AZUREML_DEBUGGEE_ON_ERROR") == "1"
        and environment.get("AZUREML_DEBUGGEE_CHILDREN") == "1"
        and is_wanted(rank, environment)
        and not frozenset(program.tool_names()) & BUILDERS
    )
    if not is_watched:
        leave_path(inject, environment)
        return None
    _inject_into_programs(inject, environment)

    def watch() -> None:
        from . import imports

        settings, folders = _settings(rank)[0], code_folders(os.environ)
        imports.set_program_folders(front_folders(program), folders)
        try:
            with imports.own:
                from . import postmortem

                postmortem.watch_child(settings, folders, b"debugpy" in program.source())
        except Exception as error:
            from .startup import report_failure

            report_failure(settings, error)

    if is_own(program, environment):
        return watch
    _once_needed(watch)
    return None


def _once_needed(watch: Callable[[], None]) -> None:
    """Begin a watch for errors in a program of others', most of which never need it: when it fails, or has threads.

    Whatever may run the step's own code and catch its errors, such as multiprocessing, imports `threading`.
    """
    from . import import_hooks

    show = sys.excepthook
    is_begun: List[bool] = []

    def hook(kind: Any, value: Any, trace: Any) -> None:
        if sys.excepthook is hook:
            begin()
            if sys.excepthook is not show:
                sys.excepthook(kind, value, trace)
                return
        show(kind, value, trace)

    def begin(_: Any = None) -> None:
        if is_begun:
            return  # What it needs itself imports `threading`, too.
        is_begun.append(True)
        if sys.excepthook is hook:
            sys.excepthook = show
        watch()

    sys.excepthook = hook
    import_hooks.change_when_imported("threading", begin)


def leave_path(inject: str, environment: MutableMapping[str, str]) -> None:
    """Make PYTHONPATH what it would be without the debuggee, for the program and, but for snapshots, its children."""
    if environment.get("AZUREML_DEBUGGEE_SNAPSHOTS"):
        _inject_into_programs(inject, environment)
        return
    path = environment.get("PYTHONPATH")
    if path is None:
        return
    entries = path.split(os.pathsep)
    kept = [entry for entry in entries if not entry or os.path.abspath(entry) != inject]
    if len(kept) == len(entries):
        return
    if kept:
        environment["PYTHONPATH"] = os.pathsep.join(kept)
    else:
        del environment["PYTHONPATH"]


def _enter_path(inject: str, environment: MutableMapping[str, str]) -> None:
    path = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = inject if path is None else os.pathsep.join([inject, path])


def _keep_through_exec(inject: str) -> None:
    """Let the program that this process turns into by an exec, often itself, be debugged as well.

    All of os.exec* goes through these two. A forked child's exec starts a plain program.
    """
    replace, replace_with = os.execv, os.execve
    identity = os.getpid()

    def execv(path: Any, argv: Any) -> Any:
        if os.getpid() != identity:
            return replace(path, argv)
        _enter_path(inject, os.environ)
        try:
            return replace(path, argv)
        finally:
            leave_path(inject, os.environ)

    def execve(path: Any, argv: Any, env: Any) -> Any:
        try:
            if os.getpid() == identity and env.get(OWNER) == str(identity):
                env = dict(env)
                _enter_path(inject, env)
        except Exception:
            pass  # What it has been given is for the real one to judge.
        return replace_with(path, argv, env)

    os.execv, os.execve = execv, execve


def _settings(rank: Optional[int]) -> Tuple[Dict[str, str], bool]:
    """What the environment says of a process of this rank, and whether it has no port of its own."""
    settings = dict(os.environ)
    settings.pop("AZUREML_DEBUGGEE_RANK", None)
    made = int(settings.get("AZUREML_DEBUGGEE_MADE") or 0)
    beyond = rank is not None and 0 < made <= rank
    if rank is not None and not beyond:
        settings["AZUREML_DEBUGGEE_RANK"] = str(rank)
        settings["AZUREML_DEBUGGEE_WORLD"] = str(world_of(settings) or "")
        port = settings.get("AZUREML_DEBUGGEE_PORT", "")
        # 0 asks for any free port.
        if port.isdigit() and int(port):
            settings["AZUREML_DEBUGGEE_PORT"] = str(int(port) + rank)
    return settings, beyond


def _start(program: Program, rank: Optional[int]) -> None:
    """Make this process, the owner, what the environment asks for; never raises."""
    from .startup import outside_site, report_failure

    settings, beyond = _settings(rank)
    # From the start on: a debugger that comes at once has the debugger's threads import `site`, and one that has begun
    # to wait for its end waits as long as this one holds.
    with outside_site():
        try:
            _start_inside(program, settings, beyond)
        except Exception as error:
            report_failure(settings, error)


def _start_inside(program: Program, settings: Dict[str, str], beyond: bool) -> None:
    from . import imports

    imports.set_program_folders(front_folders(program), code_folders(os.environ))
    if beyond and settings.get("AZUREML_DEBUGGEE_ON_ERROR") != "1":
        _join_first(settings)
        return
    with imports.own:
        if settings.get("AZUREML_DEBUGGEE_ON_ERROR") == "1":
            from . import postmortem

            postmortem.install(settings, code_folders(os.environ), b"debugpy" in program.source())
            return
        from . import child, session, siblings, startup

        begun = session.make(settings)
        begun.silent_without_gate = True
        begun.gate.start()
        child.ignore_fork_warning()
    if settings.get("AZUREML_DEBUGGEE_CHILDREN") == "1":
        child.watch_forks()
        if siblings.join_sibling(begun.gate, settings):
            return
    # Not before: a gate that gives way says that nobody is let in here.
    begun.gate.is_held = siblings.is_held
    if begun.holds_at_start:
        startup.hold(begun)


def _join_first(settings: Dict[str, str]) -> None:
    """Let the debugger in at rank 0's port, for a rank without a port of its own."""
    from . import imports

    with imports.own:
        from . import child, siblings, startup
    if settings.get("AZUREML_DEBUGGEE_CHILDREN") == "1":
        child.watch_forks()
        if siblings.join_first_rank(settings):
            return
    startup.warn("rank {} has no debug port of its own, so no debugger can be let in".format(rank_of(settings)))
