"""How a parallel step's input is cut into mini-batches."""

from __future__ import annotations

import csv
import io
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from workflows.debuggee.azureml_parallel_run import memory, mltable
from workflows.debuggee.azureml_parallel_run.mini_batches import Input, Size
from workflows.debuggee.azureml_parallel_run.problems import Problem

NOTES: list[str] = []


def cut(path: Path, kind: str, size: str, keys: tuple[str, ...] = (), share: int = 1) -> list[dict[str, Any]]:
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    NOTES.clear()
    return list(Input(str(path), kind, Size(size), keys, share, str(scratch), NOTES.append).batches())


def rows(batch: dict[str, Any]) -> list[list[str]]:
    """What a worker hands to pandas."""
    data = Path(batch["file"]).read_bytes()
    text = (data[: batch["header"]] + data[batch["start"] : batch["end"]]).decode()
    return list(csv.reader(io.StringIO(text)))


def table(folder: Path, text: str, **files: str) -> Path:
    folder.mkdir()
    (folder / "MLTable").write_text(textwrap.dedent(text))
    for name, content in files.items():
        (folder / f"{name}.csv").write_text(content)
    return folder


DELIMITED = """
    type: mltable
    paths:
      - pattern: ./*.csv
    transformations:
      - read_delimited:
          delimiter: ","
          encoding: ascii
          header: all_files_same_headers
"""


def test_files_are_listed_once_and_in_order(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("b/2", "a", "b/1", "c"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).touch()
    found = cut(data, "uri_folder", "3")
    assert [[str(Path(path).relative_to(data)) for path in one["paths"]] for one in found] == [
        ["a", "c", "b/1"],
        ["b/2"],
    ]
    assert [one["index"] for one in found] == [0, 1]


def test_links_that_lead_in_a_circle_end_and_those_elsewhere_are_followed_once(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    for folder in (data / "in", other):
        folder.mkdir(parents=True)
        (folder / "x").touch()
    (data / "in" / "up").symlink_to(data)
    (data / "in" / "self").symlink_to("self")
    (data / "a").symlink_to(other)
    (data / "b").symlink_to(other)
    (found,) = cut(data, "uri_folder", "9")
    assert [str(Path(path).relative_to(data)) for path in found["paths"]] == ["a/x", "in/self", "in/x"]


def test_a_table_of_an_encoding_that_there_is_not_is_refused(tmp_path: Path) -> None:
    folder = table(tmp_path / "t", DELIMITED.replace("ascii", "nonsense"), one="a,b\n1,2\n")
    with pytest.raises(Problem, match="cannot be read: unknown encoding: nonsense"):
        cut(folder, "mltable", "", keys=("a",))


def test_a_table_is_cut_at_ends_of_records_and_not_across_files(tmp_path: Path) -> None:
    one = "x,y\n" + "".join(f"{number},{number * number}\n" for number in range(500))
    folder = table(tmp_path / "t", DELIMITED, one=one, two="x,y\n7,8")
    found = cut(folder, "mltable", "1KB")
    assert len(found) > 3
    assert all(rows(batch)[0] == ["x", "y"] for batch in found)
    read = [row for batch in found for row in rows(batch)[1:]]
    assert read == [[str(number), str(number * number)] for number in range(500)] + [["7", "8"]]
    assert all(batch["end"] - batch["start"] < 1100 for batch in found)


def test_a_size_cuts_csv_files_without_an_mltable_too(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("x\n" + "1\n" * 100)
    assert len(cut(data, "uri_file", "100B")) == 2
    other = tmp_path / "photo.png"
    other.write_bytes(b"x")
    with pytest.raises(Problem, match=r"is a size, which is for tables, and photo\.png is not a table"):
        cut(other, "uri_file", "1KB")


def test_records_of_several_lines_stay_whole_where_the_table_has_them(tmp_path: Path) -> None:
    content = "x,y\n" + "".join(f'{number},"first\nsecond"\n' for number in range(50))
    multi = DELIMITED.rstrip() + "\n          support_multi_line: true\n"
    found = cut(table(tmp_path / "t", multi, one=content), "mltable", "100")
    assert len(found) > 5
    assert all(row[1] == "first\nsecond" for batch in found for row in rows(batch)[1:])


def test_an_mltable_of_files_gives_files(tmp_path: Path) -> None:
    folder = table(tmp_path / "t", "paths:\n- pattern: ./*.csv\n", a="", b="")
    assert [len(one["paths"]) for one in cut(folder, "mltable", "1")] == [1, 1]


def test_a_mini_batch_larger_than_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    folder = table(tmp_path / "t", DELIMITED)
    free = memory.available_bytes()
    assert free is not None
    with (folder / "big.csv").open("wb") as file:
        file.write(b"x,y\n")
        file.truncate(free * 4)
    with pytest.raises(Problem, match=r"A mini-batch of .*big\.csv has .* of memory are free for it"):
        cut(folder, "mltable", "100TB")


def test_memory_is_shared_among_those_that_have_a_mini_batch_at_a_time(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("x\n" + "1\n" * 5000)
    free = memory.available_bytes()
    assert free is not None
    with pytest.raises(Problem, match=r"has 8\.0 KB, and .* of memory are free for it"):
        cut(data, "uri_file", "8KB", share=free // 1000)
    assert len(cut(data, "uri_file", "8KB")) == 2


def test_rows_with_the_same_keys_are_one_mini_batch(tmp_path: Path) -> None:
    content = "Store,Brand,n\n" + "".join(f"{n % 2},{'ab'[n // 2 % 2]},{n}\n" for n in range(8))
    found = cut(table(tmp_path / "t", DELIMITED, one=content), "mltable", "", keys=("Store", "Brand"))
    assert [one["keys"] for one in found] == [{"Store": store, "Brand": brand} for brand in "ab" for store in (0, 1)]
    assert [[row[2] for row in rows(one)[1:]] for one in found] == [["0", "4"], ["1", "5"], ["2", "6"], ["3", "7"]]
    with pytest.raises(Problem, match="has no column `Shop`, which is a partition key"):
        cut(tmp_path / "t", "mltable", "", keys=("Shop",))


def test_keys_are_read_off_paths_by_the_tables_own_pattern(tmp_path: Path) -> None:
    text = """
        paths:
          - pattern: ./**/*.parquet
        transformations:
          - read_parquet
          - extract_columns_from_partition_format: '/{Store}/{Brand}.parquet'
          - take: 5
    """
    folder = table(tmp_path / "t", text)
    (folder / "12").mkdir()
    (folder / "12" / "tropicana.parquet").write_bytes(b"PAR1")
    found = cut(folder, "mltable", "", keys=("Store", "Brand"))
    assert [one["keys"] for one in found] == [{"Store": 12, "Brand": "tropicana"}]
    assert NOTES == ["`take` of the MLTable file is not acted on here"]


@pytest.mark.parametrize("with_yaml", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        DELIMITED,
        DELIMITED.replace('delimiter: ","', "delimiter: ','  # a comma"),
        DELIMITED.replace("      - pattern: ./*.csv", "    - pattern: ./*.csv"),
        "paths: \n- pattern: ./*.csv\ntransformations:\n- read_delimited:\n    delimiter: ','\n    encoding: ascii\n"
        "    header: all_files_same_headers\n",
    ],
)
def test_an_mltable_file_is_read_with_and_without_pyyaml(
    tmp_path: Path, text: str, with_yaml: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_yaml:
        monkeypatch.setitem(sys.modules, "yaml", None)
    folder = table(tmp_path / "t", text, one="x\n1\n")
    found = mltable.read(str(folder))
    assert found.paths == [str(folder / "one.csv")]
    assert (found.reader, found.options) == (
        "delimited",
        {"delimiter": ",", "encoding": "ascii", "header": "all_files_same_headers"},
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("paths:\n- file: ./no.csv\n", "which does not exist"),
        ("paths:\n- file: azureml://datastores/x/paths/y\n", "which is not on this machine"),
        ("- 1\n", "is not an MLTable file"),
        ("paths: [\n", "cannot be read"),
        ("paths: 3\n", "is not a list"),
        ("paths:\n- file: ./one.csv\ntransformations: 3\n", "A transformation in"),
        ("paths:\n- file: ./one.csv\ntransformations:\n- read_delimited: {delimiter: ab}\n", "cannot be `ab`"),
        ("paths:\n- file: ./one.csv\ntransformations:\n- 3\n", "A transformation in"),
    ],
)
def test_a_broken_mltable_file_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(Problem, match=told):
        cut(table(tmp_path / "t", text, one="x\n1\n"), "mltable", "1KB")
