"""Builds with BuildKit, which the SDK does not support: by the docker command, with buildx or its built-in BuildKit."""

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

#: From this version on the docker command has no built-in BuildKit, and needs buildx.
_BUILDX_ONLY = 23
_TIMEOUT = 20.0
# Lines of `--progress=plain`: `#4 [one 2/3] RUN make`, `#4 0.325 OUTPUT`, `#4 ERROR: REASON`.
_STEP = re.compile(r"^#(\d+) \[(?:\S+ )?\s*(\d+/\d+)\] (.+)$")
_LOAD = re.compile(r"^#(\d+) \[[^\]]*\] load metadata for (\S+)$")
_SAID = re.compile(r"^#(\d+) \d+\.\d+ ?(.*)$")
_ERROR = re.compile(r"^#(\d+) ERROR: (.+)$")
_NOISE = re.compile(r"^(?:#\d+ |-{4,}|\s*>? ?\[|\s*$|Dockerfile:\d+|\s+\d+ \|)")


def find_docker_command() -> str | None:
    """The first docker command on PATH that has BuildKit; None where none has."""
    # The cache key has the config folder too: buildx may be a plugin in it.
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
    version = re.match(r"Docker version (\d+)\.", _output_of(program, "--version"))
    if version is None:
        return False
    return int(version[1]) < _BUILDX_ONLY or "buildx" in _output_of(program, "buildx", "version")


def _output_of(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def buildkit_missing_error(parsed: Dockerfile, path: Path) -> UserError | None:
    """The error for a Dockerfile that needs BuildKit where there is none; None where it can be built."""
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
    report: Callable[[str], None],
    *,
    network: str | None = None,
) -> str:
    """Build an image of a context.

    Args:
        context: A tar archive.
        name: The image's name.
        labels: The image's labels.
        arguments: The Dockerfile's ARGs. Their values are passed as environment variables, so that no list of
            processes shows them.
        dockerfile: The Dockerfile in the context; None for the one of that name.
        report: Called with each line, in the classic builder's form: ``Step 2/3 : RUN make``, and its output.
        network: The network mode; None for the default.

    Returns:
        The reason for a failure; empty where it worked.
    """
    program = find_docker_command()
    assert program is not None, "the caller has checked that"
    command = [program, "build", "--progress=plain", "--tag", name]
    command += [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]
    command += [part for key in arguments for part in ("--build-arg", key)]
    command += ["--network", network] if network else []
    command += ["--file", dockerfile] if dockerfile else []
    context.flush()
    # Rewind the descriptor, which is what the command gets.
    os.lseek(context.fileno(), 0, os.SEEK_SET)
    translate = _LogTranslator(report)
    with (
        docker_credentials.usable_config() as config,
        _start_build([*command, "-"], context, {**arguments, **config}) as process,
    ):
        assert process.stdout is not None
        scrub_line = LineScrubber()
        for raw in process.stdout:
            translate.add_line(scrub_line(raw.decode("utf-8", "replace").rstrip()))
        code = process.wait()
    return "" if code == 0 else scrub(translate.failure(code))


@contextlib.contextmanager
def _start_build(
    command: list[str], context: IO[bytes], variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "DOCKER_BUILDKIT": "1",
        # The engine's own builder, which has the engine's images; another one that the user has chosen has not.
        "BUILDX_BUILDER": docker_address.context_name() or "default",
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
        "DOCKER_CLI_HINTS": "false",
        **variables,
    }
    process = subprocess.Popen(
        command,
        stdin=context.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        # The terminal's Ctrl-C goes to this program, which ends the command.
        start_new_session=sys.platform != "win32",
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            # The command then tells the engine to end the build.
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class _LogTranslator:
    """Translates BuildKit's log to the classic builder's form."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._steps = dict[str, str]()
        self._current = ""
        self._errors = list[str]()
        self._rest = list[str]()

    def add_line(self, line: str) -> None:
        """Translate the next line."""
        if step := _STEP.match(line):
            self._steps[step[1]] = f"Step {step[2]} : {step[3]}"
            self._begin(step[1])
        elif load := _LOAD.match(line):
            self._steps[load[1]] = f"Step 1/1 : FROM {load[2]}"
        elif error := _ERROR.match(line):
            # Stages are built in parallel: report the one that failed last.
            self._begin(error[1])
            self._errors.append(error[2])
        elif output := _SAID.match(line):
            if output[1] in self._steps:
                self._begin(output[1])
            self._report(re.sub(r"\x1b\[[0-9;]*m", "", output[2]))
        elif not _NOISE.match(line):
            self._rest.append(line)

    def _begin(self, number: str) -> None:
        step = self._steps.get(number)
        if step is not None and number != self._current:
            self._current = number
            self._report(step)

    def failure(self, code: int) -> str:
        """Why the build failed."""
        messages = self._errors or self._rest
        text = messages[-1] if messages else f"docker ended with {code}"
        return re.sub(r"^(?:ERROR: )?(?:failed to solve(?: with frontend \S+)?: )?", "", text)


def remedy_for_old_buildkit(parsed: Dockerfile, failure: str) -> str:
    """The remedy where the engine's BuildKit is too old for an instruction; empty for any other failure."""
    needed = parsed.needs_buildkit()
    if needed is None or parsed.syntax or not re.search(r"unknown (?:instruction|flag)", failure, re.IGNORECASE):
        return ""
    return (
        f"The engine's BuildKit does not know `{needed[1]}` by itself: begin the file with "
        "`# syntax=docker/dockerfile:1`, or update the engine (23 or later)."
    )
