"""Several growing logs are followed at once: lines never mix; and the last lines of a log."""

from __future__ import annotations

import io
import random
import re
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from log_writers import MIB, ROOT, Writer, append, interleaved, yes

from workflows.logs import interleave
from workflows.logs.interleave import HUGE_LINE, Interleaver, shows_colours
from workflows.logs.log_tail import find_last_lines, tail_lines

# Several logs


def test_lines_of_64_sources_never_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # However long a busy machine keeps the writer of half a line.
    monkeypatch.setattr(interleave, "UNFINISHED_AFTER", 100.0)
    code = """
    import random
    ranks = range(int(sys.argv[1].rpartition('-')[2]), 64, 4)
    files = [open(path + '.%d' % rank, 'ab', buffering=0) for rank in ranks]
    texts = [b''.join(b'%d says %d %s\\n' % (rank, n, b'.' * random.choice((0, 9, 9000))) for n in range(100))
             for rank in ranks]
    while any(texts):
        # Cut anywhere, also in the middle of a line.
        for n, file in enumerate(files):
            size = random.randrange(4000, 40000)
            file.write(texts[n][:size])
            texts[n] = texts[n][size:]
    """
    writers = [Writer(tmp_path / f"log-{number}", code) for number in range(4)]
    sources = [
        (f"rank {rank}", tmp_path / f"log-{rank % 4}.{rank}", writers[rank % 4].ended)
        for rank in random.sample(range(64), 64)
    ]
    found = interleaved(*sources)
    for writer in writers:
        assert writer.process.wait() == 0
        writer.process.communicate()
    lines = found.split(b"\n")
    assert lines.pop() == b""
    counts = dict.fromkeys(range(64), 0)
    for line in lines:
        match = re.fullmatch(rb"\[rank (\d+)\] (\d+) says (\d+) \.*", line)
        assert match, line
        rank = int(match[1])
        assert int(match[2]) == rank and int(match[3]) == counts[rank]
        counts[rank] += 1
    assert set(counts.values()) == {100}


class Screen:
    """Where the output goes; what is to happen once a text has appeared."""

    def __init__(self) -> None:
        self.text = b""
        self._then: list[tuple[bytes, Callable[[], object]]] = []

    def once(self, text: bytes, action: Callable[[], object]) -> None:
        self._then.append((text, action))

    def write(self, data: bytes) -> None:
        self.text += data
        for then in [then for then in self._then if then[0] in self.text]:
            self._then.remove(then)
            then[1]()


def test_the_beginning_of_a_line_is_shown_and_ended_where_another_source_writes(tmp_path: Path) -> None:
    one, two, screen, over = tmp_path / "one", tmp_path / "two", Screen(), threading.Event()
    append(one, b"Continue? ")
    screen.once(b"Continue? ", lambda: append(one, b"yes"))
    screen.once(b"yes", lambda: append(two, b"meanwhile\n"))
    screen.once(b"meanwhile", lambda: append(one, b", go on\n"))
    screen.once(b"go on", lambda: append(two, b"no end"))
    screen.once(b"no end", over.set)
    Interleaver([("a", one, over.is_set), ("b", two, over.is_set)], screen.write).run()
    assert screen.text == b"[a] Continue? yes\n[b] meanwhile\n[a] , go on\n[b] no end\n"


def test_a_line_without_an_end_is_shown_when_its_source_ends(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        append(tmp_path / name, b"done: " + name.encode())
    found = interleaved(*((name, tmp_path / name, yes) for name in ("one", "two", "three", "none")))
    assert found == b"[one] done: one\n[two] done: two\n[three] done: three\n"


def test_a_huge_line_is_not_broken_by_the_others(tmp_path: Path) -> None:
    for name, text in (("a", b"x" * 5 * MIB + b"\nafter\n"), ("b", b"short\n" * 1000), ("c", b"y" * 3 * MIB + b"\n")):
        append(tmp_path / name, text)
    lines = interleaved(*((name, tmp_path / name, yes) for name in "abc")).splitlines()
    assert sorted(set(lines)) == sorted(
        {b"[a] " + b"x" * 5 * MIB, b"[a] after", b"[b] short", b"[c] " + b"y" * 3 * MIB}
    )
    assert len(lines) == 1003


def test_a_huge_line_that_does_not_go_on_keeps_the_others_for_a_moment_only(tmp_path: Path) -> None:
    one, two, screen, over = tmp_path / "one", tmp_path / "two", Screen(), threading.Event()
    huge = b"x" * 3 * HUGE_LINE
    append(one, huge)
    screen.once(huge, lambda: append(two, b"meanwhile\n"))
    screen.once(b"meanwhile\n", lambda: append(one, b"end\n"))
    screen.once(b"end\n", over.set)
    Interleaver([("a", one, over.is_set), ("b", two, over.is_set)], screen.write).run()
    assert screen.text == b"[a] " + huge + b"\n[b] meanwhile\n[a] end\n"


def test_a_source_that_comes_later_is_shown_from_its_beginning(tmp_path: Path) -> None:
    screen, over = Screen(), threading.Event()
    append(tmp_path / "train", b"training\n")
    shown = Interleaver([("train", tmp_path / "train", yes)], screen.write)

    def later() -> None:
        # From another thread, and before its log is there.
        adding = threading.Thread(target=shown.add, args=("score", tmp_path / "score", over.is_set))
        adding.start()
        adding.join()
        append(tmp_path / "score", b"scoring\n")

    screen.once(b"training\n", later)
    screen.once(b"scoring\n", over.set)
    shown.run(over.is_set)
    assert screen.text == b"[train] training\n[score] scoring\n"


def test_what_was_written_or_added_before_the_stop_is_shown(tmp_path: Path) -> None:
    out = io.BytesIO()
    shown = Interleaver([("a", tmp_path / "a", lambda: False)], out.write)

    def stop() -> bool:
        append(tmp_path / "a", b"last\n")
        append(tmp_path / "b", b"late\n" * 20_000)
        shown.add("b", tmp_path / "b", lambda: False)
        return True

    shown.run(stop)
    assert out.getvalue() == b"[a] last\n" + b"[b] late\n" * 20_000


def test_a_log_without_a_prefix_alone_is_passed_on_as_it_is(tmp_path: Path) -> None:
    path, screen, over = tmp_path / "log", Screen(), threading.Event()
    append(path, b"10 %\r")
    screen.once(b"10 %\r", lambda: append(path, b"20 %\r"))
    screen.once(b"20 %\r", lambda: append(path, b"100 %\n\xff\n"))
    screen.once(b"\xff\n", over.set)
    Interleaver([("", path, over.is_set)], screen.write, terminal=True).run()
    assert screen.text == b"10 %\r20 %\r100 %\n\xff\n"


def test_on_a_terminal_a_progress_bar_does_not_write_over_the_prefix(tmp_path: Path) -> None:
    path, screen, over = tmp_path / "log", Screen(), threading.Event()
    append(path, b"\r10 %\r")
    screen.once(b"10 %", lambda: append(path, b"20 %\r"))
    screen.once(b"20 %", lambda: append(path, b"\n100 %\r\nend"))
    screen.once(b"end", over.set)
    Interleaver([("a", path, over.is_set)], screen.write, terminal=True).run()
    assert screen.text == b"[a] \r[a] 10 %\r[a] 20 %\r\n[a] 100 %\r\n[a] end\n"
    assert interleaved(("a", path, yes)) == b"[a] \r10 %\r20 %\r\n[a] 100 %\r\n[a] end\n"


def test_each_source_has_a_colour_of_its_own(tmp_path: Path) -> None:
    out = io.BytesIO()
    for name in ("one", "two"):
        append(tmp_path / name, b"a\nb\n")
    Interleaver([(name, tmp_path / name, yes) for name in ("one", "two")], out.write, colour=True).run()
    one, two = b"\033[36m[one]\033[0m ", b"\033[33m[two]\033[0m "
    assert out.getvalue() == one + b"a\n" + one + b"b\n" + two + b"a\n" + two + b"b\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_only_on_a_terminal_whose_user_wants_them() -> None:
    assert shows_colours(Terminal(), {"TERM": "xterm-256color"})
    assert not shows_colours(io.StringIO(), {"TERM": "xterm-256color"})
    assert not shows_colours(Terminal(), {"TERM": "xterm", "NO_COLOR": "1"})
    # An empty one asks for nothing.
    assert shows_colours(Terminal(), {"TERM": "xterm", "NO_COLOR": ""})
    assert not shows_colours(Terminal(), {"TERM": "dumb"})


def test_following_needs_nothing_that_is_slow_to_import() -> None:
    code = "import sys, workflows.logs.interleave, workflows.logs.log_tail; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# The end of a log


@pytest.mark.parametrize(
    ("data", "count", "lines"),
    [
        (b"", 3, []),
        (b"\n\n", 3, []),
        (b"one", 3, ["one"]),
        (b"one\ntwo\nthree\n", 2, ["two", "three"]),
        (b"one\n\nthree\n\n \n", 2, ["", "three"]),
        (b"one\n", 0, []),
        (b"one\r\ntwo\r\n", 2, ["one", "two"]),
        (b"10 %\r20 %\r100 %\r\nend\n", 2, ["100 %", "end"]),
        (b"\xff caf\xc3\xa9 \xe2\x82\n", 1, ["\ufffd café \ufffd"]),
        (b"\x1b[1;31mError:\x1b[0m\t\x07no\x00 \x1b]0;title\x07disk\x1b(B\xc2\x85\n", 1, ["Error:\tno disk"]),
        (b"x" * 20 + b"\n" + b"y" * 16 + b"\n", 2, ["xxxxxxxxxxxxxxx…", "yyyyyyyyyyyyyyyy"]),
        (b"first\n" * 100_000 + b"last", 2, ["first", "last"]),
    ],
)
def test_the_last_lines_of_a_log(tmp_path: Path, data: bytes, count: int, lines: list[str]) -> None:
    path = tmp_path / "log"
    path.write_bytes(data)
    assert tail_lines(path, count, 16) == lines


def test_the_last_lines_of_no_log(tmp_path: Path) -> None:
    assert tail_lines(tmp_path / "none", 5) == []


def test_a_last_line_of_100_mb_is_shown_by_its_end_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.write(b"before\n")
        for _ in range(100):
            file.write("é".encode() * 500_000)
        file.write(b"the end\n")
    tracemalloc.start()
    try:
        assert tail_lines(path, 3, 12) == ["…éééé" + "the end"]
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("block", [1, 2, 3, 16 * 1024])
def test_where_the_last_lines_begin_whatever_is_read_at_once(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.logs.log_tail._SIZES", (block,))
    for log in (b"", b"\n", b"a", b"a\n", b"\n\n", b"a\nb", b"a\nbb\n\nccc\n", b"a\r\nb\r\n"):
        lines = log.splitlines(keepends=True)
        for count in range(6):
            found = log[find_last_lines(io.BytesIO(log), count) :]
            assert found == b"".join(lines[len(lines) - min(count, len(lines)) :]), (log, count)
