"""Logs followed while real processes write them."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from workflows.logs.ending import last_lines_at, tail_lines
from workflows.logs.following import Growing, follow
from workflows.logs.interleave import HUGE_LINE, Interleaver, colours

MIB = 1024 * 1024
ROOT = Path(__file__).resolve().parents[2]
#: What a writer's code begins with: `put` appends, `seen` waits until the test has seen it.
WRITER = """
import os, sys
path = sys.argv[1]
def put(data, mode="ab"):
    with open(path, mode) as file:
        file.write(data)
def seen():
    if not sys.stdin.readline():
        sys.exit(1)
"""


class Writer:
    """A process that writes a log."""

    def __init__(self, path: Path, code: str) -> None:
        # -S -I: hundreds of them are started.
        command = [sys.executable, "-S", "-I", "-c", WRITER + textwrap.dedent(code), str(path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def tell(self) -> None:
        """Say that it was seen."""
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


@contextmanager
def writing(path: Path, code: str) -> Iterator[Writer]:
    writer = Writer(path, code)
    try:
        yield writer
        assert writer.process.wait() == 0
    finally:
        writer.process.kill()
        writer.process.communicate()


def looks(count: int) -> Callable[[], bool]:
    """A writer that is done from the given look on."""
    asked = itertools.count(1)
    return lambda: next(asked) >= count


def yes() -> bool:
    return True


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def interleaved(*sources: tuple[str, Path, Callable[[], bool]], terminal: bool = False) -> bytes:
    out = io.BytesIO()
    Interleaver(sources, out.write, terminal=terminal).run()
    return out.getvalue()


def still_open(path: Path) -> bool:
    return str(path) in [file.path for file in psutil.Process().open_files()]


# One log


def test_each_line_is_seen_while_the_writer_waits_for_that(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with writing(path, "for n in range(50): put(b'line %d\\n' % n); seen()") as writer:
        lines = []
        for data in follow(path, writer.ended):
            lines.append(data)
            writer.tell()
    assert lines == [b"line %d\n" % number for number in range(50)]


def test_a_log_in_a_folder_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "run" / "azureml-logs" / "70_driver_log.txt"
    code = "seen(); os.makedirs(os.path.dirname(path)); seen(); put(b''); seen(); put(b'here\\n')"
    with writing(path, code) as writer, Growing(path, writer.ended) as file:
        for _ in range(3):
            assert file.read() == b""
            writer.tell()
        found = b""
        while (data := file.read()) is not None:
            found += data
    assert found == b"here\n"


def test_a_growing_file_comes_whole_and_in_small_pieces(tmp_path: Path) -> None:
    path = tmp_path / "log"
    code = """
    import random
    for n in range(400):
        put(random.randbytes(random.randrange(400_000)))
    """
    digest, largest = hashlib.sha256(), 0
    with writing(path, code) as writer:
        for data in follow(path, writer.ended):
            digest.update(data)
            largest = max(largest, len(data))
    assert digest.digest() == hashlib.sha256(path.read_bytes()).digest()
    assert largest <= 256 * 1024


def test_it_begins_where_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"0123456789")
    assert b"".join(follow(path, yes, 4)) == b"456789"
    assert b"".join(follow(path, yes, 10)) == b""
    # It has become shorter since somebody noted the place.
    assert b"".join(follow(path, yes, 11)) == b"0123456789"


def test_a_log_that_never_comes_ends_with_its_writer(tmp_path: Path) -> None:
    assert list(follow(tmp_path / "none", looks(3))) == []


@pytest.mark.parametrize("answers", range(1, 6))
def test_what_was_written_before_the_end_is_read(tmp_path: Path, answers: int) -> None:
    path = tmp_path / "log"
    ended = looks(answers)

    def just_ended() -> bool:
        # The last moment there is: written before the answer that there will be no more.
        append(path, b"x" * MIB)
        return ended()

    assert len(b"".join(follow(path, just_ended))) == answers * MIB


def test_no_last_line_is_lost_of_a_writer_that_ends_at_once(tmp_path: Path) -> None:
    for number in range(200):
        path = tmp_path / str(number)
        pause = random.random() * 0.03
        with writing(path, f"import time; put(b'first\\n'); time.sleep({pause}); put(b'last\\n')") as writer:
            assert b"".join(follow(path, writer.ended)) == b"first\nlast\n"


def test_a_child_that_writes_on_after_the_end_keeps_nobody(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"step\n" * 200_000)
    found = b""
    with path.open("ab") as child:
        for data in follow(path, yes):
            found += data
            child.write(b"child\n" * 100_000)
            child.flush()
    assert found == b"step\n" * 200_000


def test_bytes_that_are_no_text_pass_through(tmp_path: Path) -> None:
    path = tmp_path / "log"
    odd = bytes(range(256)) + "ü".encode()[:1] + b"\n\xff\xfe\x00\n"
    with writing(path, f"put({odd!r})") as writer:
        assert b"".join(follow(path, writer.ended)) == odd
    assert interleaved(("", path, yes)) == odd
    assert interleaved(("a", path, yes)) == b"".join(b"[a] " + line + b"\n" for line in odd[:-1].split(b"\n"))


@pytest.mark.parametrize("hold", [True, False])
def test_a_log_cut_short_is_read_from_its_start(tmp_path: Path, hold: bool) -> None:
    path = tmp_path / "log"
    code = "put(b'a long first line\\n'); seen(); put(b'', 'wb'); put(b'second\\n'); seen(); put(b'3\\n', 'wb'); seen()"
    with writing(path, code) as writer, Growing(path, writer.ended, hold=hold) as file:
        found = []
        while (data := file.read()) is not None:
            # Between the two writes only a part may be there.
            if data:
                found.append(data)
                writer.tell()
    assert found == [b"a long first line\n", b"second\n", b"3\n"]


def test_a_log_rotated_is_read_to_its_end_before_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    code = """
    import random
    put(b'first\\n'); seen()
    old = open(path, 'ab')
    old.write(b'x' * 3_000_000 + b'\\n'); old.flush()
    os.rename(path, path + '.1')
    put(b'')  # as logrotate does: the new file is there before the writer moves to it
    old.write(b'last of the old\\n'); old.flush()
    put(b'new\\n'); seen()
    """
    with writing(path, code) as writer:
        found = b""
        for data in follow(path, writer.ended):
            found += data
            if found.endswith((b"first\n", b"new\n")):
                writer.tell()
    assert found == b"first\n" + b"x" * 3_000_000 + b"\nlast of the old\nnew\n"


def test_an_empty_new_file_does_not_end_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("ab", buffering=0) as old, Growing(path, lambda: False) as file:
        old.write(b"first\n")
        assert file.read() == b"first\n"
        path.rename(tmp_path / "log.1")
        path.touch()
        assert file.read() == b""
        old.write(b"last\n")
        assert file.read() == b"last\n"
        append(path, b"new\n")
        assert file.read() == b"new\n"


def test_what_came_into_the_old_file_just_before_the_rotation_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"

    class Rotated(Growing):
        """Rotated between the look at the old file and the look for a new one."""

        def _replaced(self) -> bool:
            if not (tmp_path / "log.1").exists():
                append(path, b"last\n")
                path.rename(tmp_path / "log.1")
                append(path, b"new\n")
            return super()._replaced()

    append(path, b"first\n")
    with Rotated(path, lambda: False) as file:
        assert [file.read() for _ in range(4)] == [b"first\n", b"last\n", b"new\n", b""]


@pytest.mark.parametrize("hold", [True, False])
def test_a_log_that_python_rotates_is_followed(tmp_path: Path, hold: bool) -> None:
    path = tmp_path / "log"
    code = """
    import logging.handlers
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=100, backupCount=2)
    for n in range(60):
        handler.emit(logging.makeLogRecord({'msg': 'line %d' % n})); seen()
    """
    with writing(path, code) as writer, Growing(path, writer.ended, hold=hold) as file:
        found = b""
        while (data := file.read()) is not None:
            if data:
                found += data
                writer.tell()
    assert found.splitlines() == [b"line %d" % number for number in range(60)]


def test_a_deleted_log_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a" * MIB)
    following = follow(path, looks(2))
    first = next(following)
    path.unlink()
    assert first + b"".join(following) == b"a" * MIB


def test_without_holding_it_the_file_is_open_only_while_there_is_more(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 10)
    with Growing(path, lambda: False, piece=5, hold=False) as file:
        assert file.read() == b"xxxxx" and still_open(path)
        assert file.read() == b"xxxxx"
        assert file.read() == b"" and not still_open(path)
        with path.open("ab") as more:
            more.write(b"y")
        assert file.read() == b"y"
    with Growing(path, lambda: False) as held:
        assert held.read() and held.read() == b"" and still_open(path)
    assert not still_open(path)


@pytest.mark.parametrize("name", ["", "rank 3"])
def test_a_line_of_100_mb_passes_in_pieces(tmp_path: Path, name: str) -> None:
    path = tmp_path / "log"
    code = "[put(b'y' * 1_000_000) for _ in range(100)]; put(b'\\nafter\\n')"
    prefix = f"[{name}] ".encode() if name else b""
    expected = prefix + b"y" * 100_000_000 + b"\n" + prefix + b"after\n"
    digest, largest = hashlib.sha256(), 0

    def take(data: bytes) -> None:
        nonlocal largest
        digest.update(data)
        largest = max(largest, len(data))

    tracemalloc.start()
    try:
        with writing(path, code) as writer:
            before = tracemalloc.get_traced_memory()[0]
            Interleaver([(name, path, writer.ended)], take).run()
            assert tracemalloc.get_traced_memory()[1] - before < 2 * MIB
            for data in follow(path, writer.ended):
                largest = max(largest, len(data))
            assert tracemalloc.get_traced_memory()[1] - before < 2 * MIB
    finally:
        tracemalloc.stop()
    assert digest.digest() == hashlib.sha256(expected).digest()
    assert largest <= 256 * 1024


CTRL_C = """
import os, signal, sys
from pathlib import Path
import psutil
from workflows.logs.following import follow
from workflows.logs.interleave import Interleaver
# A shell that runs tests in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
paths = [Path(name) for name in sys.argv[2:]]
show = lambda data: (sys.stdout.buffer.write(data), sys.stdout.buffer.flush())
try:
    if sys.argv[1] == "follow":
        for data in follow(paths[0], lambda: False):
            show(data)
    else:
        Interleaver([(path.name, path, lambda: False) for path in paths], show).run()
except KeyboardInterrupt:
    left = [file.path for file in psutil.Process().open_files() if Path(file.path) in paths]
    print("interrupted", left)
"""


@pytest.mark.skipif(os.name == "nt", reason="no process of its own can be sent Ctrl-C there")
@pytest.mark.parametrize("how", ["follow", "interleave"])
def test_ctrl_c_leaves_nothing_open(tmp_path: Path, how: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"line\n")
    command = [sys.executable, "-c", CTRL_C, how, str(path), str(tmp_path / "none")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline().endswith(b"line\n")
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"interrupted []\n"
    assert process.returncode == 0


# Several logs


def test_lines_of_64_sources_never_mix(tmp_path: Path) -> None:
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
    assert colours(Terminal(), {"TERM": "xterm-256color"})
    assert not colours(io.StringIO(), {"TERM": "xterm-256color"})
    assert not colours(Terminal(), {"TERM": "xterm", "NO_COLOR": "1"})
    # An empty one asks for nothing.
    assert colours(Terminal(), {"TERM": "xterm", "NO_COLOR": ""})
    assert not colours(Terminal(), {"TERM": "dumb"})


def test_following_needs_nothing_that_is_slow_to_import() -> None:
    code = "import sys, workflows.logs.interleave, workflows.logs.ending; print('rich' in sys.modules)"
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
    monkeypatch.setattr("workflows.logs.ending._SIZES", (block,))
    for log in (b"", b"\n", b"a", b"a\n", b"\n\n", b"a\nb", b"a\nbb\n\nccc\n", b"a\r\nb\r\n"):
        lines = log.splitlines(keepends=True)
        for count in range(6):
            found = log[last_lines_at(io.BytesIO(log), count) :]
            assert found == b"".join(lines[len(lines) - min(count, len(lines)) :]), (log, count)
