"""Runs steps as processes on this machine: each rank in a session of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from ..debuggee import FOLDER as DEBUGGEE
from ..errors import UserError
from ..models import ImageRef, PathMapping
from ..pipelines.commands import debugged_command
from ..private import make_folder, open_file
from . import mlflow_store, ports, step_packages
from .links import find_outward_links
from .process import clean_variables, end_groups, is_group_alive
from .rank_variables import rank_variables
from .step_variables import MARK, import_path, injected_variables, parallel_driver
from .steps import StepProcess, StepSpec, StepView
from .work_folder import code_mappings, include_roots, input_file_name, make_folders, make_work_folder, path_in_step

#: Seconds that a command's background processes get to finish by themselves.
_LINGER_SECONDS = 0.25
#: A path that a shell takes as one word without quotes.
_PLAIN = re.compile(r"[\w./+=:@%,-]+", re.ASCII)


class ProcessSteps:
    """Runs steps as processes."""

    name = "process"

    def prepare_view(self, spec: StepSpec) -> StepView:
        """See :class:`~workflows.engines.steps.StepEngine`."""
        code = spec.code_root
        if spec.is_followed and code is not None and os.pathsep in f"{os.path.realpath(code)}{spec.folder}":
            raise UserError(
                f"{code} cannot be debugged: the {os.pathsep!r} in its path separates folders in PYTHONPATH.",
                "Move the project to a folder without one, or use Docker.",
            )
        make_folders(spec)
        make_work_folder(spec, _code_folders(spec))
        links = links_folder() / spec.run_id / spec.step
        paths = {}
        for name, path in spec.inputs.items():
            plain = links / "inputs" / name
            paths[f"inputs.{name}"] = _shell_safe_path(path, plain if path.is_dir() else plain / input_file_name(path))
        for name, (path, is_file) in spec.outputs.items():
            plain = links / "outputs" / name
            if is_file:
                paths[f"outputs.{name}"] = f"{_shell_safe_path(path.parent, plain)}/{path.name}"
            else:
                paths[f"outputs.{name}"] = _shell_safe_path(path, plain)
        return StepView(str(spec.folder / "work"), paths, self.mappings(spec))

    def mappings(self, spec: StepSpec) -> tuple[PathMapping, ...]:
        """See :class:`~workflows.engines.steps.StepEngine`."""
        mappings = code_mappings(spec, _code_folders(spec), os.path.realpath(spec.folder / "work"))
        return (*mappings, *_link_mappings(spec)) if spec.debug is not None else mappings

    def default_variables(self, image: ImageRef) -> Mapping[str, str]:
        """See :class:`~workflows.engines.steps.StepEngine`."""
        return clean_variables(image.name)

    def start_step(self, spec: StepSpec, command: str, variables: Mapping[str, str]) -> StepProcess:
        """See :class:`~workflows.engines.steps.StepEngine`."""
        if sys.platform == "win32":
            raise UserError(
                "A step's command is a text for bash, which is not on Windows itself.",
                "Start Docker Desktop, or work in WSL.",
            )
        shell = shutil.which("bash") or "/bin/sh"
        work, places = os.path.realpath(spec.folder / "work"), _code_folders(spec)
        variables = {**variables, **import_path(spec, variables, work, os.pathsep)}
        packages = step_packages.prepare(Path(spec.image.name), spec.run_id, spec.step)
        own = {**clean_variables(spec.image.name), **packages}
        if packages:
            own["PATH"] = step_packages.program_path(packages) + os.pathsep + own["PATH"]
        own |= {**variables, **parallel_driver(spec, DEBUGGEE)}
        own |= mlflow_store.prepare_store(spec, own, _tracking_folder(spec))
        code = [os.path.realpath(spec.code_root)] if spec.code_root is not None else []
        if spec.injected and spec.image.debugpy:
            own["AZUREML_DEBUGGEE_DEBUGPY"] = spec.image.debugpy
        own |= injected_variables(
            spec,
            variables,
            debuggee=DEBUGGEE,
            code=[*code, work, *(path_in_step(path, places) for path in spec.includes)],
            events=str(spec.events),
            logs=str(spec.log().parent),
            uploads=str(spec.folder / "work"),
            listen_host="127.0.0.1",
        )
        master = (
            ports.find_free_port(frozenset(spec.debug.ports.values() if spec.debug else ())) if spec.ranks > 1 else 0
        )
        if spec.injected:
            command = debugged_command(command, f"{DEBUGGEE}/inject/launch.py")
        children: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(spec.ranks):
                with open_file(spec.log(rank), "ab") as log:
                    children.append(
                        subprocess.Popen(
                            [shell, "-c", command],
                            cwd=spec.folder / "work",
                            env={**own, **rank_variables(spec, rank, master)},
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=subprocess.STDOUT,
                            start_new_session=True,
                        )
                    )
        except BaseException as error:
            end_groups([child.pid for child in children])
            if isinstance(error, OSError):
                raise UserError(
                    f"The step {spec.step} cannot be started: {error.strerror}.",
                    "A command may be at most some 100 kB long." if error.errno == 7 else "See that bash is installed.",
                ) from error
            raise
        return _Processes(spec, children)

    def end_run(self, run_id: str) -> bool:
        """See :class:`~workflows.engines.steps.StepEngine`."""
        groups = _find_groups(run_id + "/")
        end_groups(groups)
        shutil.rmtree(links_folder() / run_id, ignore_errors=True)
        step_packages.remove(run_id)
        return bool(groups)


class _Processes:
    """The processes of one step."""

    def __init__(self, spec: StepSpec, children: list[subprocess.Popen[bytes]]) -> None:
        self._spec = spec
        self._children = children
        self._code: int | None = None
        self._ended, self._patience = 0.0, _LINGER_SECONDS

    def poll(self) -> int | None:
        """See :class:`~workflows.engines.steps.StepProcess`."""
        if self._code is not None:
            return self._code
        codes = [child.poll() for child in self._children]
        failed = next((code for code in codes if code), None)
        if failed is None and None in codes:
            return None
        if None not in codes and self._lingers():
            return None
        self._code = failed or 0
        # End the command's background processes as well, as the end of a container would.
        self._end_all(deep=failed is not None and len(codes) > 1)
        return self._code

    def _lingers(self) -> bool:
        """Whether the command's background processes still have time to finish by themselves."""
        self._ended = self._ended or time.monotonic()
        if time.monotonic() >= self._ended + self._patience:
            return False
        return any(is_group_alive(child.pid) for child in self._children)

    def end(self) -> None:
        """See :class:`~workflows.engines.steps.StepProcess`."""
        self._patience = 0.0
        self._end_all(deep=True)

    def _end_all(self, deep: bool) -> None:
        groups = [child.pid for child in self._children]
        end_groups([*groups, *(_find_groups(f"{self._spec.run_id}/{self._spec.step}", exact=True) if deep else ())])
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
        shutil.rmtree(links_folder() / self._spec.run_id / self._spec.step, ignore_errors=True)
        with contextlib.suppress(OSError):
            (links_folder() / self._spec.run_id).rmdir()
        step_packages.remove(self._spec.run_id, self._spec.step)


def _code_folders(spec: StepSpec) -> list[tuple[Path, str]]:
    """The folders of the code and of the additional includes, each with its real path."""
    code = [spec.code_root] if spec.code_root is not None else []
    return [(folder, os.path.realpath(folder)) for folder in (*code, *include_roots(spec))]


def _tracking_folder(spec: StepSpec) -> str:
    """The path of a step's mlflow store: a link where its own has a folder `artifacts`, which mlflow 3 refuses."""
    place = Path(os.path.realpath(spec.folder), mlflow_store.FOLDER)
    if mlflow_store.ARTIFACTS not in place.parts:
        return str(place)
    link = links_folder() / spec.run_id / spec.step / mlflow_store.FOLDER
    make_folder(link.parent)
    link.unlink(missing_ok=True)
    link.symlink_to(place)
    return str(link)


def _link_mappings(spec: StepSpec) -> list[PathMapping]:
    """Path mappings for the targets of links that lead out of the code: the debugger uses real paths."""
    try:
        found = find_outward_links(_code_folders(spec)).places.values()
    except UserError:
        # More targets than a container may have; without mappings the debugger still finds files by their links.
        return []
    return [PathMapping(Path(local), local) for local in dict.fromkeys(found)]


def _find_groups(mark: str, exact: bool = False) -> list[int]:
    """The process groups of a step's mark, whatever sessions the processes are in.

    Args:
        mark: The mark, ``RUN_ID/STEP``.
        exact: Whether it is the complete mark; otherwise marks that begin with it count.
    """
    import psutil

    groups = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            found = process.environ().get(MARK, "")
            if found == mark or (not exact and found.startswith(mark)):
                groups.add(os.getpgid(process.pid))
    return [group for group in groups if group != os.getpgid(0)]


def links_folder() -> Path:
    """A folder of this user's whose path needs no quotes in a shell.

    Raises:
        UserError: Another user owns a folder of that name.
    """
    root = tempfile.gettempdir()
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(root if _PLAIN.fullmatch(root) else "/tmp") / f"azureml-debug-{user}"  # noqa: S108
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if folder.is_symlink() or (hasattr(os, "getuid") and status.st_uid != user):
        raise UserError(f"{folder} belongs to somebody else.", "Let TMPDIR name a folder of your own.")
    return folder


def _shell_safe_path(path: Path, link: Path) -> str:
    """The path itself where it needs no quotes in a shell, otherwise a link to it."""
    if _PLAIN.fullmatch(str(path)):
        return str(path)
    make_folder(link.parent)
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(path)
    return str(link)
