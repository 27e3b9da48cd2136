"""Run configurations of experiments, in azureml-core's own format: ``<project>/.azureml/NAME.runconfig``.

The format is what ``azureml.core.RunConfiguration.save`` writes and ``load`` reads:
https://learn.microsoft.com/python/api/azureml-core/azureml.core.runconfig.runconfiguration
"""

from __future__ import annotations

from pathlib import Path

from .runconfig_fields import FOLDERS as FOLDERS
from .runconfig_fields import RunConfig as RunConfig


def read(path: Path) -> RunConfig:
    """Read a run configuration of any version of the SDK.

    Args:
        path: The file; the project is the folder above its own.

    Raises:
        UserError: It is not there, cannot be read, is not YAML, names no script, or a value is of the wrong
            type; with the line.
    """
    from .runconfig_reader import parse
    from .runconfig_text import open_files

    return parse(open_files(path))


def write(path: Path, config: RunConfig) -> bool:
    """Write a run configuration; in a file that is there, change no more than the values that differ.

    Comments, the order and what this program does not know are kept. The environment's fields are changed in
    the file that ``environment`` names, where it names one. Each file is replaced at one stroke.

    Args:
        path: The file; its folder is made when missing.
        config: What it is to say.

    Returns:
        Whether anything was written.

    Raises:
        UserError: The file cannot be read, changed or written; it is left as it was.
    """
    from .runconfig_text import open_files, save
    from .runconfig_writer import changed, fresh

    if not path.exists():
        save(path, fresh(config, path))
        return True
    before = open_files(path)
    after = changed(before, config)
    # The environment's own file first: nothing refers to it that is not there yet.
    documents = [(old, new) for old, new in zip(before, after, strict=True) if new != old]
    for _, new in reversed(documents):
        save(new.file, new.encoded)
    return bool(documents)
