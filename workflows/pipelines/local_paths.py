"""Paths in pipeline files: local paths, web addresses, and data in the cloud."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import UserError
from ..paths import exists
from .definition import FILE_TYPES
from .job_kinds import not_runnable_here
from .notes import AddRemark
from .yaml_file import Value, listed, refuse

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):")
#: Schemes of the cloud that need no ``://``. Any other scheme with ``://`` is taken as one of the cloud, too.
_CLOUD = ("azureml", "wasb", "wasbs", "abfs", "abfss", "adl", "s3", "s3a", "gs", "hdfs", "dbfs")


class NotLocal(UserError):
    """Data that is not on this machine, and that ``--input`` can replace by local data.

    Attributes:
        option: Its name for ``--input``.
        skip: If it is the output of a step that is left out, the step that uses it and could be left out as well.
    """

    option = ""
    skip = ""


def scheme(text: str) -> str:
    """``https`` of an address, ``azureml`` of ``azureml:name:1``; empty for a local path, ``file:`` included."""
    found = _SCHEME.match(text.strip())
    if found is None or found.group(1).lower() == "file":
        return ""
    name = found.group(1).lower()
    return name if name in _CLOUD or name.startswith("git+") or text[found.end() :].startswith("//") else ""


def local_path(value: Value, text: str) -> Path:
    """The absolute path of a text, which is relative to the file that it is written in.

    A leading ``file:``, an earlier spelling, is removed. If a path with backslashes does not exist, one with slashes
    is returned.
    """
    text = re.sub(r"^file:(//(?=/|\.))?", "", text.strip())
    path = _absolute(value.folder, text)
    if "\\" in text and os.sep == "/" and not exists(path):
        path = _absolute(value.folder, text.replace("\\", "/"))
    return path


def _absolute(folder: Path, text: str) -> Path:
    return Path(os.path.abspath(folder / text))


def data_path(
    value: Value, text: str, type_: str, what: str, option: str, add_remark: AddRemark | None = None
) -> tuple[Path | None, str | None]:
    """The place of an input's data: a local path, or an address to fetch it from.

    Args:
        value: The place of the text.
        text: Path or address.
        type_: The input's type.
        what: The input in a message.
        option: Its name for ``--input``.
        add_remark: Gets a remark if a file names a folder instead of a file or the reverse, which Azure's own check
            accepts.

    Raises:
        NotLocal: It is in the cloud.
        UserError: It does not exist, or a typed path is a folder instead of a file or the reverse.
    """
    found = scheme(text)
    if found in ("http", "https") and type_ in FILE_TYPES:
        if not _is_address(text.strip()):
            problem = f"{what} is at {text.strip()}, of which the host or the port cannot be read."
            raise refuse(value, problem, "Correct it; what is special in a password is written as % and two digits.")
        return None, text.strip()
    if found in ("http", "https"):
        raise _elsewhere(value, f"{what} is a folder at {text}; only single files can be fetched.", option)
    if found == "azureml" and not text.strip().startswith("azureml://"):
        raise _elsewhere(value, f"{what} is the registered asset `{text}`, which is not on this machine.", option)
    if found:
        raise _elsewhere(value, f"{what} lies in the cloud: {text}.", option)
    path = local_path(value, text)
    if not exists(path):
        raise refuse(
            value, f"{what} names {path}, which does not exist.", f"Check the path, or: `--input {option}=PATH`."
        )
    wrong = remedy = ""
    if type_ in FILE_TYPES and path.is_dir():
        wrong, remedy = "folder", "Name a file, or make it a `uri_folder`."
    if type_ == "uri_folder" and not path.is_dir():
        wrong, remedy = "file", "Name its folder, or make it a `uri_file`."
    if wrong and (add_remark is None or value.file is None):
        raise refuse(value, f"{what} is a {type_}, but {path} is a {wrong}.", remedy)
    if wrong and add_remark is not None:
        add_remark(f"{what} is a {type_}, but {path} is a {wrong}", value)
    return path, None


def _is_address(text: str) -> bool:
    try:
        return urlsplit(text).port != 0
    except ValueError:  # not shown: its text may quote a part of a password
        return False


def _elsewhere(value: Value, problem: str, option: str) -> UserError:
    error = refuse(value, problem, f"Give a local one: `--input {option}=PATH`.")
    if value.file is None:
        return error  # a typed value is corrected alone
    found = NotLocal(error.problem, error.remedy, file=error.file, line=error.line)
    found.option = option
    return found


def combine_not_local(found: Sequence[NotLocal]) -> NotLocal:
    """Combine errors into one, at the place of the first, with all the options to type."""
    by_option = {error.option: error for error in reversed(found)}
    options = list(dict.fromkeys(error.option for error in found))
    first = by_option[options[0]]
    if len(options) == 1:
        return first
    others = listed(options[1:])
    problem = f"{first.problem[:-1]}. Not on this machine either: {others}."
    typed = " ".join(f"--input {option}=PATH" for option in options)
    skips = [error for error in found if error.skip]
    remedy = f"Give local ones: `{typed}`."
    if skips:
        flags = " ".join(dict.fromkeys(f"--skip {error.skip}" for error in skips))
        remedy = f"Give local ones: `{typed}`, or leave out what takes them: `{flags}`."
    return NotLocal(problem, remedy, file=first.file, line=first.line)


def code_path(value: Value, what: str) -> Path:
    """A step's source folder or file.

    Raises:
        NotRunnableHere: It is an address or in a workspace.
        UserError: It is a local path that does not exist.
    """
    inner = value.get("local_path") or value.get("path")  # as in files of the preview
    text = (inner or value).text(f"`code` of {what}")
    found = scheme(text)
    if found.startswith("git+") or text.rstrip("/").endswith(".git"):
        raise not_runnable_here(
            value, f"The code of {what} lies in a Git repository: {text}.", "Clone it and name the folder."
        )
    if found:
        remedy = "Name a local folder: `code: ./src`."
        raise not_runnable_here(value, f"The code of {what} is not on this machine: {text}.", remedy)
    path = local_path(value, text)
    if not exists(path):
        raise refuse(value, f"The code of {what} should be in {path}, which does not exist.", "Correct `code`.")
    return path
