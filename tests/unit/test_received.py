"""What another machine or a service sends is looked at before anything is done with it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Hostile

from workflows import received
from workflows.errors import UserError
from workflows.received import Refused
from workflows.received_files import check_free_space, file_below, place_below

NAMES_THAT_LEAD_OUT = (
    "../x", "a/../../x", "..", "a/..", "/etc/passwd", "//x", "C:\\x", "C:/x", "c:x", "..\\x", "a\\b",
    "\\\\host\\x",
    "", ".", "./a", "a//b", "a/", "a/./b", "x\0y", "x\ny", "x\x1b[2Jy", "x\x9b2Jy", "x\u202ey", "a" * 256, "ü" * 128,
    "a/" * 600 + "a", "\ud800",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES_THAT_LEAD_OUT)
def test_a_name_that_leads_out_of_its_folder_or_is_none_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="has sent a name that"):
        place_below(tmp_path, name)
    with pytest.raises(Refused), file_below(tmp_path / "new", name):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [None, 1, True, 1.5, [], {}, ["a"], {"a": 1}])
def test_what_is_no_text_is_no_name(value: object) -> None:
    for check in (received.relative_path, received.name, received.absolute_path, received.digest, received.one_line):
        with pytest.raises(Refused):
            check(value, "a name")


@pytest.mark.parametrize(
    "name", ["a", "outputs/model.pt", "with space/ü.txt", ".hidden", "...", "a..b", "x\udcff", "-rf"]
)
def test_names_that_files_have_are_taken(name: str, tmp_path: Path) -> None:
    with file_below(tmp_path / "new", name) as file:
        file.write(b"x")
    assert (tmp_path / "new" / name).read_bytes() == b"x"
    assert stat.S_IMODE((tmp_path / "new" / name).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (received.port, [1, 80, 65535], [0, -1, 65536, "80", 80.0, True, None, 10**400]),
        (received.size, [0, 1 << 40], [-1, 1 << 60, "1", 1.0, None, False]),
        (received.real, [0, -1.5, 1e9], [float("inf"), float("nan"), "1", None, True, 10**400]),
        (received.digest, ["0" * 64], ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64]),
        (
            received.address,
            ["10.0.0.4", "::1", "fe80::1", "node-1.internal", "localhost", "a_b"],
            ["", "-oProxyCommand=x", "a b", "a;b", "1.2.3", "0x7f000001", "2130706433", "256.1.1.1", "a..b",
             "fe80::1%lo", "x\n", "a/b", "a" * 254, "[::1]", "a:80", "@x", None, 7],
        ),
        (
            received.web_address,
            ["https://x.blob.core.windows.net/a?sig=b", "http://127.0.0.1:8080/x"],
            ["file:///etc/passwd", "ftp://x/y", "//x/y", "https://", "http://[::1", "http://x:99999/", "x", "", None,
             "gopher://x", "https://x/ y", "https://x/\r\nX: y", "data:text/plain,x"],
        ),
        (received.absolute_path, ["/", "/home/x y"], ["", "x", "~/x", "/a/../b", "/a\nb", "C:\\x", "/x\0"]),
    ],
)  # fmt: skip
def test_numbers_and_addresses(check: Callable[[Any, str], object], good: list[object], bad: list[object]) -> None:
    for value in good:
        assert check(value, "a value") == value
    for value in bad:
        with pytest.raises(Refused):
            check(value, "a value")


def test_paths_that_cannot_be_beside_each_other_are_refused() -> None:
    assert received.distinct(["a", "b/c", "b/d", "ab"], "a name") == ["a", "b/c", "b/d", "ab"]
    for paths in (["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]):
        with pytest.raises(Refused):
            received.distinct(paths, "a name")


def test_two_lines_say_who_has_sent_what() -> None:
    with pytest.raises(Refused) as raised, received.sent_by("me@box:22"):
        received.relative_path("../../escaped.sh", "a name")
    first, second = str(raised.value).splitlines()
    assert first == "error: me@box:22 has sent a name that does not stay in its folder: ../../escaped.sh."
    assert "discarded" in second


def test_what_is_refused_is_shown_without_what_it_does_to_a_terminal() -> None:
    with pytest.raises(Refused) as raised:
        received.name("\x1b]0;owned\x07" + "x" * 5000, "a name")
    assert raised.value.problem.isprintable() and len(raised.value.problem) < 300
    assert received.display_text("red\x1b[31m\r\ntwo\x9b", "a word") == "red\\x1b[31m\ntwo\\x9b"
    assert len(received.display_text("x" * 9999, "a word")) == 2000
    with pytest.raises(Refused) as raised:
        received.web_address("file:///x?sig=s3cret", "an address")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"1", b"null", b'{"a": NaN}', b'{"a": 1e}', b"\xff", b"[" * 100_000, b'{"a":' * 100_000]
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        received.message(data)


def test_a_message_of_unknown_form_has_a_depth_and_a_number_of_values() -> None:
    deep: Any = 1
    for _level in range(100):
        deep = [deep]
    for value in (deep, list(range(300_000))):
        with pytest.raises(Refused):
            received.anything(value, "a result")
    assert received.anything({"a": [1, {"b": None}]}, "a result") == {"a": [1, {"b": None}]}


def test_what_is_there_is_not_written_through(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    (folder / "inner").mkdir(parents=True)
    (folder / "out").symlink_to(outside)
    (folder / "in").symlink_to("inner")
    (folder / "file.txt").symlink_to(outside / "file.txt")
    (folder / "plain").write_text("mine")
    os.mkfifo(folder / "fifo")
    in_the_way = ("out/x", "file.txt", "fifo", "inner", "plain/x", "fifo/x", "out")
    for name in in_the_way:
        with pytest.raises(UserError), file_below(folder, name) as file:
            file.write(b"theirs")
    assert os.listdir(outside) == [] and os.listdir(folder / "inner") == [] and (folder / "plain").read_text() == "mine"
    with file_below(folder, "in/x") as file:
        file.write(b"theirs")
    assert (folder / "inner" / "x").read_bytes() == b"theirs"


def test_a_file_that_was_here_stays_as_it_was_but_for_its_content(tmp_path: Path) -> None:
    path = tmp_path / "x.runconfig"
    path.write_text("before")
    path.chmod(0o640)
    with pytest.raises(UserError, match="broken"), file_below(tmp_path, "x.runconfig") as file:
        file.write(b"half")
        raise OSError(5, "broken")
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["x.runconfig"]
    with file_below(tmp_path, "x.runconfig") as file:
        file.write(b"after")
    assert path.read_text() == "after" and stat.S_IMODE(path.stat().st_mode) == 0o640


def test_folders_that_were_made_for_a_file_that_does_not_come_go_with_it(tmp_path: Path) -> None:
    with pytest.raises(Refused), file_below(tmp_path / "new", "a/b/c"):
        raise Refused("half of it")
    assert os.listdir(tmp_path) == []


def test_more_than_a_disk_has_room_for_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no room for"):
        check_free_space(tmp_path / "not there yet", 1 << 60)


def test_whatever_a_name_is_nothing_is_made_outside_its_folder(hostile: Hostile, tmp_path: Path) -> None:
    pieces = [
        "..",
        ".",
        "",
        "a",
        "b",
        "/",
        "\\",
        "C:",
        "\0",
        "\n",
        "\x1b",
        "link",
        "fifo",
        "file",
        "~",
        "ü",
        "con",
        "x" * 300,
    ]
    outside, folder = tmp_path / "outside", tmp_path / "outside" / "folder"
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(outside)
    (folder / "file").write_text("")
    os.mkfifo(folder / "fifo")
    for index in range(hostile.count):
        rng = hostile.random(index)
        name = rng.choice(["/", "", "\\"]).join(rng.choice(pieces) for _ in range(rng.randint(1, 6)))
        try:
            with file_below(folder, name) as file:
                file.write(b"x")
        except UserError:
            pass
        else:
            assert (folder / name).resolve().is_relative_to(folder), (index, name)
        assert os.listdir(outside) == ["folder"] and os.listdir(tmp_path) == ["outside"], (index, name)


def test_whatever_a_message_is_it_is_taken_or_refused(hostile: Hostile) -> None:
    from workflows.remote import messages

    checks = [messages.HELLO, messages.TASK, messages.WATCHED, messages.REPORT, messages.PLACE, messages.CONTAINER]
    checks += list(messages.ANSWERS.values())
    names = [
        "root",
        "sync",
        "files",
        "exit",
        "report",
        "entries",
        "name",
        "connect",
        "port",
        "result",
        "owner",
        "python",
    ]
    values: list[Any] = [None, True, 0, -1, 10**30, 1.5, "", "x", "/x", "../x", "\0", [], {}, [[]], "x" * 100]

    def made(rng: Any, depth: int) -> Any:
        kind = rng.random()
        if depth and kind < 0.4:
            return {rng.choice(names): made(rng, depth - 1) for _ in range(rng.randint(0, 5))}
        return [made(rng, depth - 1) for _ in range(rng.randint(0, 3))] if depth and kind < 0.6 else rng.choice(values)

    for index in range(hostile.count):
        rng = hostile.random(index)
        value = json.loads(json.dumps(made(rng, 5)))
        for check in checks:
            try:
                check(value, "a message")
            except Refused as error:
                assert error.problem.isprintable(), index
