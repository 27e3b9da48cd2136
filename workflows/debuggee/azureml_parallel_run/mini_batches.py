"""Cuts the input into mini-batches, one after the other; the input is never read completely.

A mini-batch is sent to a worker as JSON: paths, or the positions of its rows in a file.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from . import memory, mltable
from .mltable import Table
from .problems import Problem

_SIZE = re.compile(r"\s*(\d+)\s*([kmgt]?)(i?b)?\s*", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
#: Azure's default for tables.
DEFAULT_BYTES = 1 << 20
#: Kinds of table files by their suffix, if there is no MLTable file.
_TABLES = {".csv": "delimited", ".tsv": "delimited", ".parquet": "parquet", ".jsonl": "json_lines"}
_BLOCK = 1 << 16
#: Encodings in which the byte 10 always ends a line, and nothing else does.
_BYTEWISE = frozenset(
    ("utf8", "utf-8", "ascii", "latin1", "latin-1", "iso88591", "iso-8859-1", "windows1252", "cp1252")
)
#: Files of partitions that are open at the same time at most.
_MOST_OPEN = 64

Batch = Dict[str, Any]


class Size:
    """``mini_batch_size``: a number of files; or of bytes if it has a unit or the input is a table.

    Args:
        text: The setting as written; empty for Azure's default.

    Raises:
        Problem: It is not a size.
    """

    def __init__(self, text: str) -> None:
        match = _SIZE.fullmatch(text) if text.strip() else None
        if text.strip() and (match is None or not int(match[1])):
            raise Problem(
                "mini_batch_size cannot be `{}`.".format(text), "Write a number of files, or a size such as `100KB`."
            )
        self.text = text.strip()
        self.number = int(match[1]) * _FACTORS[match[2].lower()] if match else 0
        self.is_bytes = bool(match and (match[2] or match[3]))


class Input:
    """The input of a parallel step.

    Args:
        path: A file or folder; for ``mltable`` the folder with the MLTable file.
        kind: ``uri_folder``, ``uri_file`` or ``mltable``.
        size: How large a mini-batch is.
        keys: ``partition_keys``: a mini-batch has the same values of these, and ``size`` is ignored.
        share: The number of workers that have a mini-batch in memory at the same time.
        scratch: A folder for files of partitions.
        note: Called with a note on each difference from Azure.

    Raises:
        Problem: It does not exist, or cannot be read.
    """

    def __init__(
        self,
        path: str,
        kind: str,
        size: Size,
        keys: Sequence[str],
        share: int,
        scratch: str,
        note: Callable[[str], None],
    ) -> None:
        if not os.path.exists(path):
            raise Problem("The input {} does not exist.".format(path), "Give one that does.")
        self._path, self._size, self._keys, self._scratch = path, size, list(keys), scratch
        free = memory.available_bytes()
        self._most_bytes = None if free is None else free // max(1, share)
        self._table = mltable.read(path) if kind == "mltable" else None
        if self._table is not None:
            for name in self._table.unknown:
                note("`{}` of the MLTable file is not acted on here".format(name))
        self.is_table = bool(self._table.reader) if self._table is not None else size.is_bytes

    def batches(self) -> Iterator[Batch]:
        """The mini-batches, each with its ``index`` from 0.

        Raises:
            Problem: A mini-batch does not fit into memory, or the input is empty or cannot be read.
        """
        index = -1
        try:
            for index, batch in enumerate(self._batches()):
                yield {**batch, "index": index}
        except (OSError, ValueError, LookupError, csv.Error) as error:
            # It is not readable, not in its encoding, or the encoding does not exist.
            raise Problem("The input {} cannot be read: {}.".format(self._path, error), "Correct it.") from error
        if index < 0:
            raise Problem("The input {} is empty.".format(self._path), "Give one with data in it.")

    def _batches(self) -> Iterator[Batch]:
        if self._keys:
            return self._partitions()
        return self._rows() if self.is_table else self._files(self._size.number or 1)

    def _paths(self) -> Iterator[str]:
        return iter(self._table.paths) if self._table is not None else mltable.walk_files(self._path)

    def _files(self, number: int) -> Iterator[Batch]:
        taken: List[str] = []
        for path in self._paths():
            taken.append(path)
            if len(taken) == number:
                yield {"kind": "files", "paths": taken}
                taken = []
        if taken:
            yield {"kind": "files", "paths": taken}

    # Tables

    def _rows(self) -> Iterator[Batch]:
        for path in self._paths():
            yield from self._cut_file(path, self._format(path), {})

    def _format(self, path: str) -> Dict[str, Any]:
        """The settings for reading a file."""
        if self._table is not None:
            found = {"reader": self._table.reader, "keep": self._table.keep, "drop": self._table.drop}
            return {**found, **_delimited_options(self._table.options, path)}
        ending = os.path.splitext(path)[1].lower()
        if ending not in _TABLES:
            raise Problem(
                "mini_batch_size `{}` is a size, which is for tables, and {} is not a table.".format(
                    self._size.text, os.path.basename(path)
                ),
                "Write a number of files, or give the input as mltable.",
            )
        return {"reader": _TABLES[ending], **_delimited_options({"delimiter": "\t"} if ending == ".tsv" else {}, path)}

    def _cut_file(
        self, path: str, format_: Dict[str, Any], keys: Dict[str, Any], is_single: bool = False
    ) -> Iterator[Batch]:
        """The mini-batches of one file; as in Azure, a mini-batch does not cross the end of a file."""
        size = os.path.getsize(path)
        if not size:
            return
        base: Batch = {"kind": "table", "file": path, "format": format_, "keys": keys}
        begin = self._header_end(path, format_) if format_["reader"] == "delimited" else 0
        base["header"] = begin
        if is_single or format_["reader"] == "parquet" or format_["encoding"].lower() not in _BYTEWISE:
            self._check_memory(size, path)
            if size > begin:
                yield {**base, "start": begin, "end": size}
            return
        wanted = self._size.number or DEFAULT_BYTES
        # Checked before anything is read.
        self._check_memory(min(wanted, size - begin), path)
        for start, end in self._ranges(path, begin, wanted, bool(format_.get("quoted"))):
            yield {**base, "start": start, "end": end}

    def _ranges(self, path: str, begin: int, wanted: int, quoted: bool) -> Iterator[Tuple[int, int]]:
        """The start and end of each mini-batch of a file, at ends of records."""
        start, in_quotes = begin, False
        with open(path, "rb") as file:
            file.seek(begin)
            place = begin
            while True:
                piece = file.readline(_BLOCK)
                place += len(piece)
                if quoted and piece.count(b'"') % 2:
                    in_quotes = not in_quotes
                ended = piece.endswith(b"\n") and not in_quotes
                if place - start >= wanted and not ended:
                    self._check_memory(place - start, path)
                if not piece or (ended and place - start >= wanted):
                    if place > start:
                        yield start, place
                    start = place
                if not piece:
                    return

    def _header_end(self, path: str, format_: Dict[str, Any]) -> int:
        """The position of the first record; 0 if the file has no header."""
        if not format_["header"]:
            return 0
        with open(path, "rb") as file:
            line = file.readline(_BLOCK)
            if len(line) == _BLOCK:
                raise Problem(
                    "The first line of {} is longer than {}.".format(path, memory.format_size(_BLOCK)),
                    "Give a table whose first line names its columns.",
                )
            return len(line)

    def _check_memory(self, size: int, path: str) -> None:
        if self._most_bytes is not None and size > self._most_bytes:
            raise Problem(
                "A mini-batch of {} has {}, and {} of memory are free for it.".format(
                    path, memory.format_size(size), memory.format_size(self._most_bytes)
                ),
                "Give a smaller mini_batch_size.",
            )

    # Partitions

    def _partitions(self) -> Iterator[Batch]:
        """One mini-batch for each combination of keys, which are in the files' paths or in the tables' columns."""
        table = self._table or Table(list(mltable.walk_files(self._path)))
        found: Dict[Tuple[Any, ...], List[str]] = {}
        without_keys: List[str] = []
        for path in table.paths:
            keys = table.keys(path)
            if all(name in keys for name in self._keys):
                found.setdefault(tuple(keys[name] for name in self._keys), []).append(path)
            else:
                without_keys.append(path)
        for values, paths in found.items():
            keys = dict(zip(self._keys, values))
            if not self.is_table:
                yield {"kind": "files", "paths": paths, "keys": keys}
            else:
                for path in paths:
                    yield from self._cut_file(path, self._format(path), keys, is_single=True)
        if without_keys:
            yield from self._rows_by_keys(without_keys)

    def _rows_by_keys(self, paths: Sequence[str]) -> Iterator[Batch]:
        parts = _PartitionFiles(self._scratch)
        options: Dict[str, Any] = {}
        with contextlib.closing(parts):
            for path in paths:
                options = self._format(path) if self.is_table else {"reader": ""}
                if options["reader"] != "delimited" or not options["header"]:
                    raise Problem(
                        "{} has no {} in its path, and no header that names its columns.".format(
                            path, ", ".join(self._keys)
                        ),
                        "Partition keys are those of folders (Store=2/…), of `partition_format`, or columns of csv.",
                    )
                with io.open(path, encoding=options["encoding"], newline="") as file:
                    rows = csv.reader(file, delimiter=options["delimiter"])
                    header = next(rows, [])
                    missing = [name for name in self._keys if name not in header]
                    if missing:
                        raise Problem(
                            "{} has no column `{}`, which is a partition key.".format(path, missing[0]),
                            "Its columns are: {}.".format(", ".join(header[:20])),
                        )
                    places = [header.index(name) for name in self._keys]
                    for row in rows:
                        if len(row) > max(places):
                            parts.add(tuple(row[place] for place in places), header, row)
        for values, path in parts.files.items():
            keys = {name: mltable.parse_value(value) for name, value in zip(self._keys, values)}
            yield from self._cut_file(path, {**options, "encoding": "utf-8", "delimiter": ","}, keys, is_single=True)


class _PartitionFiles:
    """Writes one csv file for each combination of keys; a limited number of them is open at the same time."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.files: Dict[Tuple[str, ...], str] = {}
        self._open: Dict[Tuple[str, ...], Any] = {}

    def add(self, keys: Tuple[str, ...], header: Sequence[str], row: Sequence[str]) -> None:
        """Append a row to the file of its keys."""
        file = self._open.get(keys)
        if file is None:
            if len(self._open) >= _MOST_OPEN:
                self.close()
            first = keys not in self.files
            path = self.files.setdefault(keys, os.path.join(self._folder, "partition{}.csv".format(len(self.files))))
            file = io.open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115
            self._open[keys] = file
            if first:
                csv.writer(file).writerow(header)
        csv.writer(file).writerow(row)

    def close(self) -> None:
        """Close the open files."""
        for file in self._open.values():
            file.close()
        self._open.clear()


def _delimited_options(options: Dict[str, Any], path: str) -> Dict[str, Any]:
    """The options of an MLTable file's ``read_delimited``, with shorter names."""
    header: Optional[Any] = options.get("header", "all_files_same_headers")
    delimiter = str(options.get("delimiter", ","))
    if len(delimiter) != 1:
        raise Problem("The delimiter of {} cannot be `{}`.".format(path, delimiter), "Give one character.")
    return {
        "delimiter": delimiter,
        "encoding": str(options.get("encoding", "utf8")),
        "header": header not in ("no_header", False, "none"),
        "quoted": bool(options.get("support_multi_line", False)),
        "path_column": bool(options.get("include_path_column", False)),
    }
