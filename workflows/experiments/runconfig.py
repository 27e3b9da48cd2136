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
        UserError: It does not exist, cannot be read, is not YAML, names no script, or a value has the wrong type; with
            the line.
    """
    from .runconfig_reader import parse
    from .runconfig_text import open_documents

    return parse(open_documents(path))


def write(path: Path, config: RunConfig) -> bool:
    """Write a run configuration. In an existing file, only the values that differ are changed.

    Comments, the order and unknown keys are kept. Where ``environment`` names a file, the environment's fields are
    changed in that file. Each file is replaced atomically.

    Args:
        path: The file; its folder is created if missing.
        config: The values to write.

    Returns:
        Whether anything was written.

    Raises:
        UserError: The file cannot be read, changed or written; it is left as it was.
    """
    from .runconfig_text import open_documents, save
    from .runconfig_writer import new_file_content, updated_documents

    if not path.exists():
        save(path, new_file_content(config, path))
        return True
    before = open_documents(path)
    after = updated_documents(before, config)
    # The environment's file is written first, before the file that refers to it.
    documents = [(old, new) for old, new in zip(before, after, strict=True) if new != old]
    for _, new in reversed(documents):
        save(new.file, new.encoded)
    return bool(documents)
