"""A growing log is followed: whole, in small pieces, over rotations, to its end."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from log_writers import MIB, ROOT, append, interleaved, looks, still_open, writing, yes

from workflows.logs.following import GrowingFile, follow
from workflows.logs.interleave import Interleaver

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
    with writing(path, code) as writer, GrowingFile(path, writer.ended) as file:
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
    with writing(path, code) as writer, GrowingFile(path, writer.ended, hold=hold) as file:
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
    with path.open("ab", buffering=0) as old, GrowingFile(path, lambda: False) as file:
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

    class Rotated(GrowingFile):
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
    with writing(path, code) as writer, GrowingFile(path, writer.ended, hold=hold) as file:
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
    with GrowingFile(path, lambda: False, piece=5, hold=False) as file:
        assert file.read() == b"xxxxx" and still_open(path)
        assert file.read() == b"xxxxx"
        assert file.read() == b"" and not still_open(path)
        with path.open("ab") as more:
            more.write(b"y")
        assert file.read() == b"y"
    with GrowingFile(path, lambda: False) as held:
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
