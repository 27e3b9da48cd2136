"""Loads the rows of a mini-batch as a pandas DataFrame, as Azure passes them to ``run()``."""

from __future__ import annotations

import io
from typing import Any, Dict

from .problems import Problem


def load(batch: Dict[str, Any]) -> Any:
    """Read a mini-batch, which is a part of a file.

    Args:
        batch: One of :mod:`.mini_batches`, of kind ``table``.

    Raises:
        Problem: pandas is not installed.
        ValueError: The file is not a valid table.
    """
    try:
        import pandas
    except ImportError as error:
        raise Problem(
            "The input is a table, which run() gets as a pandas DataFrame, and pandas is not installed.",
            "Add pandas to the step's environment.",
        ) from error
    format_ = batch["format"]
    is_parquet = format_["reader"] == "parquet"
    frame = pandas.read_parquet(batch["file"]) if is_parquet else _read_text(pandas, batch, format_)
    for name, value in (batch.get("keys") or {}).items():
        if name not in frame.columns:
            frame[name] = value
    if format_.get("path_column"):
        frame.insert(0, "Path", batch["file"])
    if format_.get("keep"):
        frame = frame[[name for name in frame.columns if name in format_["keep"]]]
    return frame.drop(columns=[name for name in format_.get("drop") or () if name in frame.columns])


def _read_text(pandas: Any, batch: Dict[str, Any], format_: Dict[str, Any]) -> Any:
    with open(batch["file"], "rb") as file:
        header = file.read(batch["header"])
        file.seek(batch["start"])
        rows = file.read(batch["end"] - batch["start"])
    if format_["reader"] == "json_lines":
        return pandas.read_json(io.BytesIO(rows), lines=True, encoding=format_["encoding"])
    columns = None if format_["header"] else {"header": None}
    frame = pandas.read_csv(
        io.BytesIO(header + rows), sep=format_["delimiter"], encoding=format_["encoding"], **(columns or {})
    )
    if columns:
        frame.columns = ["Column{}".format(number + 1) for number in range(len(frame.columns))]
    return frame
