"""Builds with BuildKit, which the SDK does not speak: by the docker command, with its buildx or an older one's own."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from ..environments.dockerfile import Dockerfile
from ..errors import UserError
from ..redaction import LineScrubber, scrub
from . import docker_address, docker_credentials

#: The docker command has no BuildKit of its own any more from this version on, and wants buildx.
_BUILDX_ONLY = 23
_PATIENCE = 20.0
# Of `--progress=plain`: `#4 [one 2/3] RUN make`, `#4 0.325 what it says`, `#4 ERROR: why it ended`.
_STEP = re.compile(r"^#(\d+) \[(?:\S+ )?\s*(\d+/\d+)\] (.+)$")
_LOAD = re.compile(r"^#(\d+) \[[^\]]*\] load metadata for (\S+)$")
_SAID = re.compile(r"^#(\d+) \d+\.\d+ ?(.*)$")
_ERROR = re.compile(r"^#(\d+) ERROR: (.+)$")
_NOISE = re.compile(r"^(?:#\d+ |-{4,}|\s*>? ?\[|\s*$|Dockerfile:\d+|\s+\d+ \|)")


def find_docker_command() -> str | None:
    """The first docker command on PATH that has BuildKit; None where none has."""
    # buildx may lie in the docker command's own folder.
    return _find(os.environ.get("PATH", ""), docker_address.config_folder())


@functools.cache
def _find(path: str, _config: Path) -> str | None:
    name = "docker.exe" if sys.platform == "win32" else "docker"
    for folder in path.split(os.pathsep):
        program = os.path.join(folder, name)
        if folder and os.access(program, os.X_OK) and _has_buildkit(program):
            return program
    return None


def _has_buildkit(program: str) -> bool:
    version = re.match(r"Docker version (\d+)\.", _said(program, "--version"))
    if version is None:
        return False
    return int(version[1]) < _BUILDX_ONLY or "buildx" in _said(program, "buildx", "version")


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def buildkit_missing_error(parsed: Dockerfile, path: Path) -> UserError | None:
    """The error for a Dockerfile that wants BuildKit where there is none."""
    needed = parsed.needs_buildkit()
    if needed is None or find_docker_command() is not None:
        return None
    return UserError(
        f"`{needed[1]}` in {path.name} needs BuildKit, and the docker command here has none.",
        "Install Docker's buildx (package docker-buildx-plugin or docker-buildx), or do without that instruction.",
        file=path,
        line=needed[0].line,
    )


def build(
    context: IO[bytes],
    name: str,
    labels: Mapping[str, str],
    arguments: Mapping[str, str],
    dockerfile: str | None,
    say: Callable[[str], None],
    *,
    network: str | None = None,
) -> str:
    """Build an image of a context.

    Args:
        context: A tar archive.
        name: The image's name.
        labels: The image's labels.
        arguments: The Dockerfile's ARGs; their values are handed on as variables, which no list of processes shows.
        dockerfile: The Dockerfile in the context; None for the one of that name.
        say: Called with each line, in the classic builder's form: ``Step 2/3 : RUN make``, and what it says.
        network: As the classic builder takes it; None for the usual one.

    Returns:
        Why it failed; empty where it worked.
    """
    program = find_docker_command()
    assert program is not None, "it was looked for before"
    command = [program, "build", "--progress=plain", "--tag", name]
    command += [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]
    command += [part for key in arguments for part in ("--build-arg", key)]
    command += ["--network", network] if network else []
    command += ["--file", dockerfile] if dockerfile else []
    context.flush()
    # Of the descriptor, which is what the command is handed.
    os.lseek(context.fileno(), 0, os.SEEK_SET)
    translate = _Translation(say)
    with (
        docker_credentials.usable_config() as config,
        _running([*command, "-"], context, {**arguments, **config}) as it,
    ):
        assert it.stdout is not None
        scrub_line = LineScrubber()
        for raw in it.stdout:
            translate.take(scrub_line(raw.decode("utf-8", "replace").rstrip()))
        code = it.wait()
    return "" if code == 0 else scrub(translate.failure(code))


@contextlib.contextmanager
def _running(command: list[str], context: IO[bytes], more: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "DOCKER_BUILDKIT": "1",
        # The engine's own, which has the engine's images; another one that the person has chosen has not.
        "BUILDX_BUILDER": docker_address.context_name() or "default",
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
        "DOCKER_CLI_HINTS": "false",
        **more,
    }
    process = subprocess.Popen(
        command,
        stdin=context.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        # The terminal's Ctrl-C comes to us, and we end it.
        start_new_session=sys.platform != "win32",
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            # It tells the engine to end the build.
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class _Translation:
    """BuildKit's lines in the classic builder's form."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._steps = dict[str, str]()
        self._current = ""
        self._errors = list[str]()
        self._rest = list[str]()

    def take(self, line: str) -> None:
        """Take a further line."""
        if step := _STEP.match(line):
            self._steps[step[1]] = f"Step {step[2]} : {step[3]}"
            self._begin(step[1])
        elif load := _LOAD.match(line):
            self._steps[load[1]] = f"Step 1/1 : FROM {load[2]}"
        elif error := _ERROR.match(line):
            # Stages are built side by side: what failed is told last.
            self._begin(error[1])
            self._errors.append(error[2])
        elif said := _SAID.match(line):
            if said[1] in self._steps:
                self._begin(said[1])
            self._say(re.sub(r"\x1b\[[0-9;]*m", "", said[2]))
        elif not _NOISE.match(line):
            self._rest.append(line)

    def _begin(self, number: str) -> None:
        step = self._steps.get(number)
        if step is not None and number != self._current:
            self._current = number
            self._say(step)

    def failure(self, code: int) -> str:
        """Why the build failed."""
        told = self._errors or self._rest
        text = told[-1] if told else f"docker ended with {code}"
        return re.sub(r"^(?:ERROR: )?(?:failed to solve(?: with frontend \S+)?: )?", "", text)


def remedy_for_old_buildkit(parsed: Dockerfile, failure: str) -> str:
    """What helps where the engine's own BuildKit does not know an instruction; empty where that is not it."""
    needed = parsed.needs_buildkit()
    if needed is None or parsed.syntax or not re.search(r"unknown (?:instruction|flag)", failure, re.IGNORECASE):
        return ""
    return (
        f"The engine's BuildKit does not know `{needed[1]}` by itself: begin the file with "
        "`# syntax=docker/dockerfile:1`, or update the engine (23 or later)."
    )
