"""What is typed after ``--request`` and ``--header``."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.errors import BadValue
from workflows.flows.request import read_body_argument, read_request


def no_input() -> bytes:
    raise AssertionError("standard input was read")


@pytest.mark.parametrize("text", ['{"data": [1]}', " [1, 2]", '"a text"'])
def test_json_text_is_the_body_itself(text: str) -> None:
    file, body = read_body_argument(text, no_input)
    request = read_request(file, text=body)
    assert (request.body, request.content_type) == (text.encode(), "application/json")


def test_standard_input_is_the_body_and_a_file_stays_one(tmp_path: Path) -> None:
    file, body = read_body_argument("-", lambda: b"\xff\x00")
    request = read_request(file, text=body)
    assert (request.body, request.content_type) == (b"\xff\x00", "application/octet-stream")
    odd = tmp_path / "{odd}.json"
    odd.write_text("{}")
    for name in (str(odd), "request.json"):
        assert read_body_argument(name, no_input) == (Path(name), None)
    assert read_body_argument(None, no_input) == (None, None)


def test_a_file_whose_name_begins_as_json_does_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[1].json").write_text("{}")
    assert read_body_argument("[1].json", no_input) == (Path("[1].json"), None)


@pytest.mark.parametrize("text", ["{1}", "[", '"', "{" * 10_000])
def test_what_begins_as_json_and_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="neither a file nor JSON"):
        read_body_argument(text, no_input)


def test_headers_are_sent_and_those_of_the_connection_refused() -> None:
    assert read_request(header=["X-Key=a=b", "Authorization=Bearer x"]).extra == (
        ("X-Key", "a=b"),
        ("Authorization", "Bearer x"),
    )
    assert (
        read_request(method="GET", header=["A=1"]).extra
        == read_request(form=["a=1"], header=["A=1"]).extra
        == (("A", "1"),)
    )
    for wrong in ("a b=c", "a", "a=b\r\nc: d", "a=ä", "Content-Length=3", "content-type=x", "Host:=x"):
        with pytest.raises(BadValue, match="header"):
            read_request(header=[wrong])


def test_a_text_and_form_data_exclude_each_other() -> None:
    for options in ({"form": ["a=1"]}, {"method": "GET"}):
        with pytest.raises(BadValue):
            read_request(text=b"{}", **options)
