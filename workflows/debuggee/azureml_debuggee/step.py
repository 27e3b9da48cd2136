"""Decides whether this process of a step owns the debugger, and starts the debuggee in it.

A step's command is a command line for bash that starts any number of processes: installers, launchers,
the step's script, its children. All of them load this through PYTHONPATH. One process at a time owns
the debugger; the others run as they would without the debuggee. The environment variables, in addition to
those of session.py:

========================= ======================================================
AZUREML_DEBUGGEE_CODE     folders (or files) of the step's own code; a process that runs a
                          script or module from there owns the debugger
AZUREML_DEBUGGEE_ANY      ``1``: so does a process that runs another program, once that program runs a module of the
                          step's own code (foreign_programs.py). If the code folders contain no Python, any program
                          but installers and launchers owns the debugger
AZUREML_DEBUGGEE_RANKS    ranks that are debugged: ``all``, or a list such as ``0,2`` (``0``; a process without a rank
                          counts as 0)
AZUREML_DEBUGGEE_MADE     how many of the ranks that the step's own command starts have ports of their own, base + rank
                          (``0``: none); further ranks are debugged at rank 0's port. If only ranks other than 0
                          are debugged, a script without a rank is taken for their launcher and does not own the
                          debugger
AZUREML_DEBUGGEE_ON_ERROR ``1``: admit a debugger only when the program fails
AZUREML_DEBUGGEE_OWNER    set here: the owner's process id, by which its children recognize that they are children
========================= ======================================================

Every Python process of a step imports this when it starts, so rarely needed modules are imported in functions.
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
    """Whether the process of this rank is debugged."""
    wanted = environment.get("AZUREML_DEBUGGEE_RANKS", "").strip() or "0"
    return wanted == "all" or str(rank or 0) in [word.strip() for word in wanted.split(",")]


def prepare(inject: str, program: Optional[Program] = None) -> Optional[Callable[[], None]]:
    """Decide whether this process owns the debugger; never raises.

    Args:
        inject: The folder with the sitecustomize that has loaded this.
        program: The program; by default the one on Python's command line.

    Returns:
        A function that starts the debuggee, if this process owns the debugger.
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
    """Decide again as :func:`prepare`, in a program of ours that runs the user's script in its own process."""
    try:
        return _prepare(inject, program, os.environ) if os.environ.get("AZUREML_DEBUGGEE_CODE") else None
    except Exception as error:
        from .startup import warn

        warn("{}: {}".format(type(error).__name__, error))
        return None


def _prepare(inject: str, program: Program, environment: MutableMapping[str, str]) -> Optional[Callable[[], None]]:
    if program.kind == "script" and os.path.dirname(os.path.abspath(program.name)) in _launcher_folders(inject):
        return None  # Our launchers call this again with the program that they run.
    identity = str(os.getpid())
    if environment.get(OWNER, identity) != identity:
        return _prepare_child_on_error(inject, program, environment)
    own = is_own(program, environment)
    tools: FrozenSet[str] = frozenset() if own else frozenset(program.tool_names())
    if tools & BUILDERS:
        environment[OWNER] = identity
        remove_from_path(inject, environment)
        return None
    if own and _starts_ranks(environment):
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
            foreign_programs.watch(environment, lambda: _become_owner(inject, program))
            return None
        if tools & LAUNCHERS:
            return None
    return _prepare_owner(inject, program, environment)


def _launcher_folders(inject: str) -> Sequence[str]:
    """The folders of launch.py and of the driver of parallel steps."""
    return inject, os.path.join(os.path.dirname(inject), "azureml_parallel_run")


def _starts_ranks(environment: MutableMapping[str, str]) -> bool:
    """Whether a script of the step is the one that starts the debugged ranks."""
    wanted = environment.get("AZUREML_DEBUGGEE_RANKS", "").split(",")
    return (
        rank_of(environment) is None
        and int(environment.get("AZUREML_DEBUGGEE_MADE") or 0) > 1
        and "0" not in wanted
        and environment.get("AZUREML_DEBUGGEE_ON_ERROR") != "1"
    )


def _become_owner(inject: str, program: Program) -> None:
    """Make this process the owner while its program is running."""
    start = _prepare_owner(inject, program, os.environ)
    if start is not None:
        start()


def _prepare_owner(
    inject: str, program: Program, environment: MutableMapping[str, str]
) -> Optional[Callable[[], None]]:
    """Make this process the owner; returns what starts the debuggee if its rank is debugged."""
    identity = str(os.getpid())
    environment[OWNER] = identity
    rank = rank_of(environment)
    with_children = is_wanted(rank, environment) and environment.get("AZUREML_DEBUGGEE_CHILDREN") == "1"
    if with_children:
        _inject_into_programs(inject, environment)
    else:
        remove_from_path(inject, environment)
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
        _stay_through_exec(inject)
    return lambda: _start(program, rank)


def _inject_into_programs(inject: str, environment: MutableMapping[str, str]) -> None:
    """Have the programs that this process starts load the debuggee, without a trace in `os.environ`."""
    # Import child_environment now: if the program changes its user, for instance, it may not be readable later.
    from . import child, child_environment  # noqa: F401

    child.hide_inject_folder(inject, environment)
    child.inject_into_programs(inject)


def _prepare_child_on_error(
    inject: str, program: Program, environment: MutableMapping[str, str]
) -> Optional[Callable[[], None]]:
    """In a child of the owner: watch for errors in the step's own code, if that is wanted."""
    rank = rank_of(environment)
    is_watched = (
        environment.get("AZUREML_DEBUGGEE_ON_ERROR") == "1"
        and environment.get("AZUREML_DEBUGGEE_CHILDREN") == "1"
        and is_wanted(rank, environment)
        and not frozenset(program.tool_names()) & BUILDERS
    )
    if not is_watched:
        remove_from_path(inject, environment)
        return None
    _inject_into_programs(inject, environment)

    def watch() -> None:
        from . import imports

        settings, folders = _rank_settings(rank)[0], code_folders(os.environ)
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
    _watch_once_needed(watch)
    return None


def _watch_once_needed(watch: Callable[[], None]) -> None:
    """Begin to watch a program that is not the step's own only when it fails or imports `threading`.

    Most such programs never need the watch. Whatever may run the step's own code and catch its errors, such as
    multiprocessing, imports `threading`.
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
            return  # The watch itself imports `threading`, too.
        is_begun.append(True)
        if sys.excepthook is hook:
            sys.excepthook = show
        watch()

    sys.excepthook = hook
    import_hooks.change_when_imported("threading", begin)


def remove_from_path(inject: str, environment: MutableMapping[str, str]) -> None:
    """Remove the debuggee from PYTHONPATH, for the program and, unless snapshots are wanted, for its children."""
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


def _add_to_path(inject: str, environment: MutableMapping[str, str]) -> None:
    path = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = inject if path is None else os.pathsep.join([inject, path])


def _stay_through_exec(inject: str) -> None:
    """Keep debugging this process after an exec, by which programs often restart themselves.

    All functions os.exec* call the two that are replaced here. An exec in a forked child starts a program without the
    debuggee.
    """
    replace, replace_with = os.execv, os.execve
    identity = os.getpid()

    def execv(path: Any, argv: Any) -> Any:
        if os.getpid() != identity:
            return replace(path, argv)
        _add_to_path(inject, os.environ)
        try:
            return replace(path, argv)
        finally:
            remove_from_path(inject, os.environ)

    def execve(path: Any, argv: Any, env: Any) -> Any:
        try:
            if os.getpid() == identity and env.get(OWNER) == str(identity):
                env = dict(env)
                _add_to_path(inject, env)
        except Exception:
            pass  # The original function reports invalid arguments.
        return replace_with(path, argv, env)

    os.execv, os.execve = execv, execve


def _rank_settings(rank: Optional[int]) -> Tuple[Dict[str, str], bool]:
    """The configuration of a process of this rank, and whether it has no port of its own."""
    settings = dict(os.environ)
    settings.pop("AZUREML_DEBUGGEE_RANK", None)
    ports_made = int(settings.get("AZUREML_DEBUGGEE_MADE") or 0)
    lacks_port = rank is not None and 0 < ports_made <= rank
    if rank is not None and not lacks_port:
        settings["AZUREML_DEBUGGEE_RANK"] = str(rank)
        settings["AZUREML_DEBUGGEE_WORLD"] = str(world_of(settings) or "")
        port = settings.get("AZUREML_DEBUGGEE_PORT", "")
        # 0 asks for any free port.
        if port.isdigit() and int(port):
            settings["AZUREML_DEBUGGEE_PORT"] = str(int(port) + rank)
    return settings, lacks_port


def _start(program: Program, rank: Optional[int]) -> None:
    """Start the debuggee in the owner as the environment configures it; never raises."""
    from .startup import outside_site, report_failure

    settings, lacks_port = _rank_settings(rank)
    # Around everything: when a debugger attaches early, its threads import `site`. A thread that waits for the end of
    # that import would wait as long as this process holds.
    with outside_site():
        try:
            _start_debuggee(program, settings, lacks_port)
        except Exception as error:
            report_failure(settings, error)


def _start_debuggee(program: Program, settings: Dict[str, str], lacks_port: bool) -> None:
    from . import imports

    imports.set_program_folders(front_folders(program), code_folders(os.environ))
    if lacks_port and settings.get("AZUREML_DEBUGGEE_ON_ERROR") != "1":
        _join_first_rank(settings)
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
    # Not earlier: a gate whose port is held announces a failure, and `join_sibling` must come first.
    begun.gate.is_held = siblings.is_held
    if begun.holds_at_start:
        startup.hold(begun)


def _join_first_rank(settings: Dict[str, str]) -> None:
    """Debug a rank without a port of its own at rank 0's port."""
    from . import imports

    with imports.own:
        from . import child, siblings, startup
    if settings.get("AZUREML_DEBUGGEE_CHILDREN") == "1":
        child.watch_forks()
        if siblings.join_first_rank(settings):
            return
    startup.warn("rank {} has no debug port of its own, so no debugger can attach".format(rank_of(settings)))
