"""Turns the output of a failed uv or pip into an error of two lines, with the place of the requirement."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import UserError
from ..redaction import scrub
from ..storage import find_disk_error
from .requirements import Requirement, normalise

if TYPE_CHECKING:
    from .definition import EnvironmentDefinition

_SHOWN_LINES = 15
#: Characters of a line that are searched.
_LONGEST_LINE = 2000
_NO_NETWORK = re.compile(
    r"Retrying \(Retry\(|Max retries exceeded|Could not fetch URL|Temporary failure in name resolution|"
    r"Request failed after \d+ retr|error sending request for url|client error \(Connect\)"
)
_NO_VENV = re.compile(r"ensurepip")
# The most informative lines, best first; the last line of each kind counts.
_INFORMATIVE = tuple(
    re.compile(pattern)
    for pattern in (
        r"No matching distribution found for .+",
        r"Cannot install .+ because these package versions have conflicting dependencies.*",
        r"Invalid requirement: .+",
        r"Could not find a version that satisfies .+",
        r"Failed (?:building wheel|to build) (?:for )?.+",
        r"Package '?\S+'? requires a different Python.*",
        r"THESE PACKAGES DO NOT MATCH THE HASHES.*",
        r"(?:ResolvePackageNotFound|PackagesNotFoundError|LibMambaUnsatisfiableError).*",
    )
)
_NOISE = re.compile(
    r"^\s*(?:Collecting|Using cached|Downloading|Requirement already|Looking in|Obtaining|\[notice\]|"
    r"Cache entry|Step \d|--->|Removing intermediate|Processing|Saved |"
    r"Using Python |Resolved \d|Prepared \d|Installed \d|Building |Built |Downloaded )"
)
#: uv's last error: its first line, and the causes below it; the cause of a conflict continues on further lines.
_UV_ERROR = re.compile(r"^error: (?P<text>.+)$")
_UV_CAUSE = re.compile(r"^  cause: (?P<text>.+)$")
#: uv's errors for a folder that it may not write to, most often its cache.
_NOT_WRITABLE = re.compile(r"Failed to initialize cache|Could not acquire lock|\(os error (?:13|30)\)")
_UV_CONCLUSION = ", we can conclude that your requirements are unsatisfiable."


def is_disk_full(text: str) -> bool:
    """Whether a line or message says that the disk is full."""
    return find_disk_error([text]) is not None


def install_error(
    definition: EnvironmentDefinition,
    lines: Sequence[str],
    *,
    what: str = "pip",
    conda: Sequence[Requirement] = (),
    settings: str = "",
) -> UserError:
    """The error for a failed installation.

    Args:
        definition: The environment.
        lines: The output.
        what: The program that failed.
        conda: The requirements that replace conda's packages.
        settings: The names of the user's settings that it had, where it ran in a container.
    """
    informative = [line for line in lines if not _NOISE.match(line)]
    reason = _uv_reason(informative) or _reason(informative)
    item = _requirement(reason, (*definition.pip, *conda))
    problem = f"{what} could not install the environment `{definition.name}`: {reason.rstrip('.')}"
    if any(_NO_NETWORK.search(line) for line in lines):
        problem = f"{what} could not reach the package index for the environment `{definition.name}`: {reason}"
        remedy = "Check the network and pip's settings (`pip config list`), then run the same command again."
        if settings:
            remedy = (
                f"Check the network and what it had of your settings ({settings}), then run the same command again."
            )
    elif item is not None and item.file is not None:
        remedy = f"Correct line {item.line} of {item.file}, then run the same command again."
    elif item is not None:
        remedy = f"{item.text} is added by this program: see that pip's index has it, then run it again."
    elif _NOT_WRITABLE.search(reason):
        remedy = "Let your user write to uv's cache, or have UV_CACHE_DIR name another folder, then run it again."
    else:
        remedy = f"Correct {definition.source}, then run the same command again."
    return UserError(
        problem,
        remedy,
        file=item.file if item is not None else None,
        line=item.line if item is not None and item.file is not None else None,
        details=informative[-_SHOWN_LINES:],
    )


def no_venv_error(python: str, lines: Sequence[str]) -> UserError | None:
    """The error for a Python that cannot create virtual environments; None where the output shows another failure."""
    if not any(_NO_VENV.search(line) for line in lines):
        return None
    return UserError(
        f"{python} cannot make virtual environments: its ensurepip is missing.",
        "Install it (Debian, Ubuntu: `sudo apt-get install python3-venv`), then run the same command again.",
        details=lines[-_SHOWN_LINES:],
    )


def _uv_reason(lines: Sequence[str]) -> str:
    """The reason that uv gives; empty where the output is another program's."""
    starts = [number for number, line in enumerate(lines) if _UV_ERROR.match(line)]
    if not starts:
        return ""
    first, *rest = (line[:_LONGEST_LINE] for line in lines[starts[-1] :])
    error = first.removeprefix("error: ").strip()
    causes = list[str]()
    for line in rest:
        if (match := _UV_CAUSE.match(line)) is not None:
            causes.append(match["text"].strip())
        elif causes and line.lstrip().startswith("And "):
            causes[-1] += f" {line.strip()}"
    if error.startswith("No solution found") and causes:
        reason = causes[0]
        if reason.count(_UV_CONCLUSION) == 1 and " And because " not in reason:
            reason = reason.removeprefix("Because ")
        return reason.removesuffix(_UV_CONCLUSION)[:_LONGEST_LINE]
    if any(_NO_NETWORK.search(cause) for cause in (error, *causes)):
        return f"{error}: {causes[-1]}" if causes else error
    specific = [cause for cause in causes if cause != "The build backend returned an error"]
    return f"{error}: {specific[0]}" if specific else error


def _reason(lines: Sequence[str]) -> str:
    lines = [line[:_LONGEST_LINE] for line in lines]
    for pattern in _INFORMATIVE:
        for line in reversed(lines):
            match = pattern.search(line)
            if match is not None:
                return match.group().strip()
    for line in reversed(lines):
        # "Exception:" comes before a traceback, whose last line has the reason.
        if line.startswith("ERROR: ") and not line.startswith("ERROR: Exception"):
            return line.removeprefix("ERROR: ").strip()
    return lines[-1].strip() if lines else "it said nothing"


def _requirement(reason: str, requirements: Sequence[Requirement]) -> Requirement | None:
    words = [normalise(word) for word in re.findall(r"[A-Za-z0-9][A-Za-z0-9._-]*", reason)]
    # In the order of the words: the missing package comes before "(from PACKAGE THAT NEEDS IT)".
    for word in words:
        for item in requirements:
            if item.name and (item.name == word or word.startswith(item.name + "=")):
                return item
    return next((item for item in requirements if item.text and scrub(item.text) in reason), None)
