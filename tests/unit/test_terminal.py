"""Control characters of names and messages never reach the terminal; a program's output keeps its colours."""

from __future__ import annotations

import random

import pytest
from conftest import Hostile

from workflows.terminal import Output, plain, printable

HARMFUL = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\u200e\u200f\u061c\ud800\udc80\udfff",
]


@pytest.mark.parametrize("character", HARMFUL, ids=ascii)
def test_every_control_character_of_a_name_is_written_out(character: str) -> None:
    shown = printable(f"a{character}b")
    assert shown.isprintable() and shown.encode("utf-8")
    assert shown.startswith("a\\") and shown.endswith("b")
    assert printable(shown) == shown


def test_a_text_of_several_lines_keeps_its_line_ends_and_tabs() -> None:
    assert printable("a\tb\r\nc\x1b[2Jd\re\n", lines=True) == "a\tb\nc\\x1b[2Jd\\re\n"


@pytest.mark.parametrize("text", ["", "plain", "Ünïcödé → 日本語 עברית 👩‍💻", "C:\\x1b"])
def test_other_texts_are_unchanged(text: str) -> None:
    assert printable(text) == text


def test_a_line_of_another_program_has_no_colours_and_only_what_its_progress_bar_wrote_last() -> None:
    assert plain("\x1b[1;31mred\x1b[0m and\ttab\n") == "red and tab"
    assert plain("10%\r50%\r100%") == "100%"
    assert plain("\x1b]0;title\x07x\x1b]52;c;AAAA\x1b\\y\x1b]cut off") == "xy\\x1b]cut off"


def _through(data: bytes, cuts: list[int]) -> bytes:
    output, parts = Output(), list[bytes]()
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        parts.append(output.take(data[begin:end]))
    return b"".join([*parts, output.end()])


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\x1b[31mred\x1b[0m\r\n", b"\x1b[31mred\x1b[0m\r\n"),
        (
            b"\x1b[38;2;1;2;3mx\x1b[A\x1b[2K\r50%|\xe2\x96\x88|\b",
            b"\x1b[38;2;1;2;3mx\x1b[A\x1b[2K\r50%|\xe2\x96\x88|\b",
        ),
        (b"\x1b[?25lhidden\x1b[?25h\x1b[?26h", b"\x1b[?25lhidden\x1b[?25h\\x1b[?26h"),
        (b"\x1b]0;title\x07", b"\\x1b]0;title\\x07"),
        (b"\x1b]52;c;AAAA\x1b\\", b"\\x1b]52;c;AAAA\\x1b\\"),
        (b"\x1b[6n\x1b[?1049h\x1bc\x1b[>c", b"\\x1b[6n\\x1b[?1049h\\x1bc\\x1b[>c"),
        (b"\xc2\x9b6n caf\xc3\xa9 \xc2\xa0\xff\xfe", b"\\x9b6n caf\xc3\xa9 \xc2\xa0\xff\xfe"),
        (b"the end \x1b", b"the end \\x1b"),
    ],
)
def test_a_programs_output_has_colours_and_no_commands_wherever_it_is_cut(data: bytes, shown: bytes) -> None:
    for cut in range(len(data) + 1):
        assert _through(data, [cut]) == shown
    assert _through(data, list(range(len(data)))) == shown


def test_generated_output_is_the_same_in_any_pieces(hostile: Hostile) -> None:
    pieces = [
        b"\x1b",
        b"[",
        b"?",
        b"2",
        b"5h",
        b"31m",
        b"text ",
        b"\xc2",
        b"\x9b",
        b"\n",
        b"]0;",
        b"\x07",
        b";" * 70,
        b"9",
        b"K",
        b"\xe2\x82\xac",
    ]
    for index in range(hostile.count):
        chance: random.Random = hostile.random(index)
        data = b"".join(chance.choice(pieces) for _ in range(chance.randrange(40)))
        cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(6)))
        assert _through(data, cuts) == _through(data, []), index
