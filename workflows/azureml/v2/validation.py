"""Turns the SDK's errors in a job file into this program's two lines, with the lines of the file."""

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
#: The most characters of one of the SDK's messages.
_LETTERS = 300


@contextlib.contextmanager
def explain_errors(root: Value, file: Path, project: Path) -> Iterator[None]:
    """Turn what the SDK raises while it loads a file into UserErrors.

    Where this program's own reader finds errors as well, those are raised: for a step with missing code, for example,
    the SDK only says that it has no component.

    Args:
        root: The file's content.
        file: The file.
        project: The project's folder.

    Raises:
        UserError: The file has errors.
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
        raise combine_errors(_errors_in_text(str(error), root)) from error


def check(job: Any, root: Value) -> None:
    """Check a job with the SDK.

    Raises:
        UserError: It would refuse it.
    """
    result = job._validate()
    if not result.passed:
        raise combine_errors(list(_errors(result._to_dict(), root)))


def _errors_in_text(text: str, root: Value) -> list[UserError]:
    """The errors in a message of the SDK, which contains JSON or is a sentence."""
    found = re.search(r"\{.*\}", text, re.DOTALL)
    if found is not None:
        with contextlib.suppress(ValueError):
            errors = list(_errors(json.loads(found[0]), root))
            if errors:
                return errors
    words = _shorten(text)
    return [UserError(f"Azure ML's SDK does not take the file: {words}", _REMEDY, file=str(root.file), line=root.line)]


def _errors(result: Mapping[str, Any], root: Value) -> Iterator[UserError]:
    for one in result.get("errors") or []:
        path = str(one.get("path") or "")
        place = _value_at(root, path)
        where = f"`{path}`: " if path and path != "*" else ""
        yield UserError(
            f"{where}{_shorten(str(one.get('message') or 'it is not valid'))}",
            _REMEDY,
            file=str(place.file),
            line=place.line,
        )


def _value_at(root: Value, path: str) -> Value:
    """The value at a path that the SDK names, or the last existing value on that path."""
    place = root
    for part in path.split("."):
        inner = place.get(part) if place.is_mapping else None
        if inner is None:
            break
        place = inner
    return place


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    line = line if len(line) <= _LETTERS else line[: _LETTERS - 1] + "…"
    return line if line.endswith((".", "…")) else f"{line}."
