"""What the SDK says is wrong with a job file, in our two lines and with the file's own lines."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...pipelines import reader
from ...pipelines.problems import combine_errors
from ...pipelines.yaml_file import Value

_REMEDY = "Correct it; the schema: https://learn.microsoft.com/azure/machine-learning/reference-yaml-overview"
#: Letters of one of the SDK's messages.
_LETTERS = 300


@contextlib.contextmanager
def explain_errors(root: Value, file: Path, project: Path) -> Iterator[None]:
    """Say what the SDK raises while it loads a file.

    Where this program's own reader finds something wrong as well, its words and places are used: the SDK says of a
    step whose code is not there that it has no component.

    Args:
        root: The file's content.
        file: The file.
        project: The project's folder.

    Raises:
        UserError: What is wrong.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("azure", "marshmallow", "builtins", "yaml"):
            raise
        with contextlib.suppress(NotImplementedError):
            _found, ours = reader.survey(file, cloud=True, project=project)
            if ours is not None:
                raise ours from error
        raise combine_errors(_of_text(str(error), root)) from error


def check(job: Any, root: Value) -> None:
    """Have the SDK check a job.

    Raises:
        UserError: It would refuse it.
    """
    result = job._validate()
    if not result.passed:
        raise combine_errors(list(_errors(result._to_dict(), root)))


def _of_text(text: str, root: Value) -> list[UserError]:
    """The errors in what the SDK raises: JSON in the middle of a text, or a sentence."""
    found = re.search(r"\{.*\}", text, re.DOTALL)
    if found is not None:
        with contextlib.suppress(ValueError):
            errors = list(_errors(json.loads(found[0]), root))
            if errors:
                return errors
    words = _short(text)
    return [UserError(f"Azure ML's SDK does not take the file: {words}", _REMEDY, file=str(root.file), line=root.line)]


def _errors(told: Mapping[str, Any], root: Value) -> Iterator[UserError]:
    for one in told.get("errors") or []:
        path = str(one.get("path") or "")
        place = _place(root, path)
        where = f"`{path}`: " if path and path != "*" else ""
        yield UserError(
            f"{where}{_short(str(one.get('message') or 'it is not valid'))}",
            _REMEDY,
            file=str(place.file),
            line=place.line,
        )


def _place(root: Value, path: str) -> Value:
    """The value that a path of the SDK's names, or the last one on the way to it that there is."""
    place = root
    for part in path.split("."):
        inner = place.get(part) if place.is_mapping else None
        if inner is None:
            break
        place = inner
    return place


def _short(text: str) -> str:
    line = " ".join(text.split())
    line = line if len(line) <= _LETTERS else line[: _LETTERS - 1] + "…"
    return line if line.endswith((".", "…")) else f"{line}."
