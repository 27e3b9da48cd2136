"""The checks of ``inv doctor``: what works here, one line each, and what to do about the rest. They change nothing."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .azureml.sdk import version_of
from .errors import UserError
from .findings import Finding
from .formatting import format_size
from .paths import cache_folder, home_folder, shown
from .settings import Settings
from .version import __version__

#: Bytes of free disk below which there is a warning: an environment with torch takes 6 GB.
LOW_DISK = 10_000_000_000
#: Caches smaller than this many bytes are not listed.
SHOWN_BYTES = 1_000_000
#: Seconds for measuring one cache.
COUNT_SECONDS = 2.0
#: The extension by which VS Code attaches.
DEBUGGER_EXTENSION = "ms-python.debugpy"


def findings(settings: Settings) -> Iterator[Finding]:
    """Run the checks, one after the other.

    Args:
        settings: The project's settings.
    """
    checks: dict[str, Callable[[Settings], Iterator[Finding]]] = {
        "program": _program,
        "files": _files,
        "launch.json": _launch_json,
        "engine": _engine,
        "base image": _base_image,
        "ports": _ports,
        "disk": _disk,
        "caches": _caches,
        "conda": _conda,
        "SDKs": _sdks,
        "workspace": _workspace,
        "editor": _editor,
        "SSH": _ssh,
    }
    for name, check in checks.items():
        try:
            yield from check(settings)
        except UserError as error:
            yield Finding(name, False, error.problem, error.remedy)


def _program(settings: Settings) -> Iterator[Finding]:
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield Finding("program", True, f"azureml-debug {__version__}; the project is {settings.project}")
    uv = version_of("uv")
    yield Finding("Python", True, f"{platform.python_version()}, {sys.executable}; {system}")
    if uv is None:
        yield Finding("uv", None, "not installed: pip builds environments, which takes longer", "pip install uv")


def _files(settings: Settings) -> Iterator[Finding]:
    """Files and folders that settings name."""
    from .pipelines import python_file

    for name, field in (
        ("score script", "score_script"),
        ("pipeline", "pipeline_file"),
        ("model", "model_dir"),
        ("deployment", "deployment"),
        ("environment", "inference_env"),
        ("environment", "training_env"),
    ):
        source, value = settings.set_by.get(field), getattr(settings, field)
        if not source or not value:
            continue
        in_python = python_file.parse_place(value) if field == "pipeline_file" else None
        path = in_python.file if in_python is not None else value
        if path.exists():
            yield Finding(name, True, f"{shown(path)}, as {source} says")
        else:
            yield Finding(name, None, f"{shown(path)} does not exist", f"Correct {source}.")


def _launch_json(settings: Settings) -> Iterator[Finding]:
    from .debugger.launch_json import check_launch_json

    launch = settings.project / ".vscode" / "launch.json"
    if launch.exists():
        check_launch_json(settings.project)
        yield Finding("launch.json", True, f"{shown(launch)} can be edited")


def _engine(settings: Settings) -> Iterator[Finding]:
    from .engines.docker_client import engine_answers, engine_version, has_permission

    wanted = settings.engine
    if wanted == "process":
        yield Finding("engine", True, "processes on this machine, as AML_ENGINE says")
    elif engine_answers():
        yield Finding("engine", True, f"Docker {engine_version()} answers")
    elif wanted == "docker":
        why = "does not answer" if has_permission() else "may not be used by you"
        yield Finding(
            "engine", False, f"Docker {why}, and AML_ENGINE=docker asks for it", "Start it, or set AML_ENGINE=auto."
        )
    else:
        why = "No Docker engine answers" if has_permission() else "You may not use the Docker engine"
        yield Finding("engine", True, f"{why}: processes on this machine are used")


def _base_image(settings: Settings) -> Iterator[Finding]:
    from .engines.docker_client import connect, engine_answers
    from .engines.docker_images import PUBLIC_BASE_IMAGE, resolve_base_image

    if settings.engine == "process" or not engine_answers():
        return
    image = resolve_base_image(connect(), settings.base_image)
    remedy = "Where no registry can be reached: inv container.base" if image == PUBLIC_BASE_IMAGE else ""
    text = f"{image}, which Docker gets when it is first needed" if remedy else image
    yield Finding("base image", True, text, remedy)


def _ports(settings: Settings) -> Iterator[Finding]:
    from .engines import ports

    for name, flag, port in (
        ("scoring port", "--scoring-port", settings.scoring_port),
        ("debug port", "--debug-port", settings.debug_port),
    ):
        if not port:
            yield Finding(name, True, "a free one is chosen each time")
        elif ports.is_free(port):
            yield Finding(name, True, f"{port} is free")
        else:
            who, ours = ports.find_holder(port)
            if ours:
                yield Finding(name, True, f"{port} belongs to a session of this program; the next free one is used")
            else:
                yield Finding(name, None, f"{port} is held by {who}", f"Stop it, or: {flag} 0 for a free one")


def _disk(settings: Settings) -> Iterator[Finding]:
    places: dict[int, tuple[str, Path]] = {}
    for name, folder in (("project", settings.project), ("cache", cache_folder())):
        near = next(one for one in (folder, *folder.parents) if one.is_dir())
        places.setdefault(os.stat(near).st_dev, (name, near))
    for name, folder in places.values():
        free = shutil.disk_usage(folder).free
        remedy = "Free some space: inv container.prune" if free < LOW_DISK else ""
        yield Finding("disk", None if remedy else True, f"{format_size(free)} free for the {name}", remedy)


def _caches(settings: Settings) -> Iterator[Finding]:
    folder = cache_folder()
    if not folder.is_dir():
        yield Finding("caches", True, f"none yet; they will be in {folder}")
        return
    # An environment's files are hard links to uv's cache: each counts once.
    seen: set[tuple[int, int]] = set()
    named = sorted(one for one in folder.iterdir() if one.is_dir() and not one.is_symlink())
    counted = [(one.name, *_counted(one, seen)) for one in named]
    texts = [f"{name} {'over ' if cut else ''}{format_size(size)}" for name, size, cut in counted if size > SHOWN_BYTES]
    yield Finding("caches", True, f"{folder}: {', '.join(texts) or 'empty'}", "Remove unused ones: inv container.prune")


def _counted(folder: Path, seen: set[tuple[int, int]]) -> tuple[int, bool]:
    """The bytes on disk of a folder's files that are not in ``seen``, and whether the time was too short for all."""
    deadline = time.monotonic() + COUNT_SECONDS
    total = 0
    for place, _folders, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(place, name))
            except OSError:
                continue
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += getattr(found, "st_blocks", 0) * 512 or found.st_size
        if time.monotonic() > deadline:
            return total, True
    return total, False


def _conda(settings: Settings) -> Iterator[Finding]:
    found = next((path for name in ("conda", "mamba", "micromamba") if (path := shutil.which(name))), None)
    yield Finding("conda", True, found or "not here, and not needed: what conda.yml lists is installed by uv or pip")


def _sdks(settings: Settings) -> Iterator[Finding]:
    from .azureml.sdk_choice import chosen_sdk

    there = [f"{name} {version}" for name in ("azure-ai-ml", "azureml-core") if (version := version_of(name))]
    if not there:
        needed = settings.backend == "azureml" or settings.workspace
        remedy = "pip install 'azureml-debug[azureml]'" if needed else ""
        yield Finding("SDKs", None if needed else True, "none of Azure ML's; only a workspace needs one", remedy)
        return
    chosen = chosen_sdk(settings)
    yield Finding("SDKs", True, f"{', '.join(there)}; {chosen} is used")


def _workspace(settings: Settings) -> Iterator[Finding]:
    if settings.workspace:
        yield Finding("workspace", True, f"{settings.workspace} is named", "See whether it works: inv azureml.check")
    else:
        yield Finding("workspace", True, "none is named, so everything runs on this machine")


def _editor(settings: Settings) -> Iterator[Finding]:
    folders = [home_folder() / name / "extensions" for name in (".vscode", ".vscode-server", ".vscode-insiders")]
    there = [one for one in folders if one.is_dir()]
    program = shutil.which("code") or shutil.which("code-insiders") or shutil.which("codium")
    if program is None and not there:
        yield Finding("editor", True, "no VS Code found; the inspect tasks need none, and any DAP client can attach")
        return
    versions = sorted(
        version
        for folder in there
        for entry in folder.glob(f"{DEBUGGER_EXTENSION}-*")
        if (version := _extension_version(entry)) is not None
    )
    if versions:
        yield Finding("editor", True, f"VS Code with Python Debugger {versions[-1]}")
    else:
        yield Finding(
            "editor",
            None,
            "VS Code, and its Python Debugger was not found",
            f"Install it: code --install-extension {DEBUGGER_EXTENSION}",
        )


def _extension_version(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / "package.json").read_text("utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _ssh(settings: Settings) -> Iterator[Finding]:
    program = shutil.which("ssh")
    agent = os.environ.get("SSH_AUTH_SOCK")
    keys = "with an agent" if agent and Path(agent).exists() else "without an agent"
    text = f"{program}, {keys}" if program else "no ssh program here, and none is needed"
    if settings.remote_host:
        yield Finding("SSH", True, f"{text}; tasks go to {settings.remote_host}", "Go through it: inv remote.check")
    else:
        yield Finding("SSH", True, f"{text}; no machine is named for --remote")
