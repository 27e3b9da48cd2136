"""Paths in pipeline files: local ones, addresses, and what lies in the cloud."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .definition import FILE_TYPES
from .yaml_file import Value, refuse

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):")
#: A scheme whose name alone says so; anything else with ``://`` is taken for a cloud as well.
_CLOUD = ("azureml", "wasb", "wasbs", "abfs", "abfss", "adl", "s3", "s3a", "gs", "hdfs", "dbfs")


def scheme(text: str) -> str:
    """``https`` of an address, ``azureml`` of ``azureml:name:1``; empty for a local path, ``file:`` included."""
    found = _SCHEME.match(text.strip())
    if found is None or found.group(1).lower() == "file":
        return ""
    name = found.group(1).lower()
    return name if name in _CLOUD or name.startswith("git+") or text[found.end() :].startswith("//") else ""


def local_path(value: Value, text: str) -> Path:
    """The absolute path that a text stands for, relative to the file that it is written in.

    ``file:`` in front, an earlier spelling, is taken off; a path with backslashes is taken for one with
    slashes where only that exists.
    """
    text = re.sub(r"^file:(//(?=/|\.))?", "", text.strip())
    path = _absolute(value.folder, text)
    if "\\" in text and os.sep == "/" and not path.exists():
        path = _absolute(value.folder, text.replace("\\", "/"))
    return path


def _absolute(folder: Path, text: str) -> Path:
    return Path(os.path.abspath(folder / text))


def exists(path: Path) -> bool:
    """Whether something is there; False also for what cannot be a path, such as one with a NUL."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def data_path(value: Value, text: str, type_: str, what: str, option: str) -> tuple[Path | None, str | None]:
    """Where an input's data lies: a local path, or an address to fetch it from.

    Args:
        value: The place of the text.
        text: Path or address.
        type_: The input's type.
        what: The input in a message.
        option: What to give to ``--input`` in its place, without the path.

    Raises:
        UserError: It lies in the cloud, is not there, or is a folder where a file is wanted or the reverse.
    """
    found = scheme(text)
    replace = f"Give a local one: `--input {option}=PATH`."
    if found in ("http", "https"):
        if type_ not in FILE_TYPES:
            raise refuse(value, f"{what} is a folder at {text}; only single files can be fetched.", replace)
        return None, text.strip()
    if found == "azureml" and not text.strip().startswith("azureml://"):
        raise refuse(value, f"{what} is the registered asset `{text}`, which is not on this machine.", replace)
    if found:
        raise refuse(value, f"{what} lies in the cloud: {text}.", replace)
    path = local_path(value, text)
    if not exists(path):
        raise refuse(
            value, f"{what} names {path}, which is not there.", f"Check the path, or: `--input {option}=PATH`."
        )
    if type_ in FILE_TYPES and path.is_dir():
        raise refuse(value, f"{what} is a {type_}, but {path} is a folder.", "Name a file, or make it a `uri_folder`.")
    if type_ == "uri_folder" and not path.is_dir():
        raise refuse(value, f"{what} is a {type_}, but {path} is a file.", "Name its folder, or make it a `uri_file`.")
    return path, None


def code_path(value: Value, what: str) -> Path:
    """A step's source folder or file.

    Raises:
        UserError: It is not there, or not on this machine.
    """
    inner = value.get("local_path") or value.get("path")  # as in files of the preview
    text = (inner or value).text(f"`code` of {what}")
    found = scheme(text)
    if found.startswith("git+") or text.rstrip("/").endswith(".git"):
        raise refuse(value, f"The code of {what} lies in a Git repository: {text}.", "Clone it and name the folder.")
    if found:
        raise refuse(
            value, f"The code of {what} is not on this machine: {text}.", "Name a local folder: `code: ./src`."
        )
    path = local_path(value, text)
    if not exists(path):
        raise refuse(value, f"The code of {what} should be in {path}, which is not there.", "Correct `code`.")
    return path
