"""What is in the cache of environments, while others build and remove beside whoever looks."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workflows.environments import store
from workflows.environments.locking import exclusive
from workflows.environments.virtual_environments import MARKER

#: Times that one looks while folders come and go.
LOOKS = 400


@contextmanager
def coming_and_going(folder: Path) -> Iterator[None]:
    """Meanwhile folders with files in them come and go in a folder."""
    enough = threading.Event()

    def work() -> None:
        while not enough.is_set():
            for name in ("a", "b", "c"):
                (folder / "tmp" / f"{name}.dist-info").mkdir(parents=True)
                (folder / "tmp" / f"{name}.dist-info" / "METADATA").write_text("x")
            shutil.rmtree(folder / "tmp")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        enough.set()
        worker.join()


def half_built(cache: Path, name: str = "half") -> Path:
    folder = cache / "environments" / name
    folder.mkdir(parents=True)
    (folder / "kept").write_bytes(b"x" * 1000)
    return folder


def mark(folder: Path) -> None:
    """Write what makes it a whole one."""
    (folder / MARKER).write_text(json.dumps({"name": "whole", "digest": "d" * 64, "bytes": 1}))


def test_what_goes_while_it_is_sized_does_not_count(tmp_path: Path) -> None:
    folder = half_built(tmp_path)
    with coming_and_going(folder):
        for _look in range(LOOKS):
            (found,) = store.list_environments(tmp_path)
            assert found.name == "half-built" and 1000 <= found.size <= 1003


def test_what_somebody_is_just_building_is_not_listed(tmp_path: Path) -> None:
    folder, lock = half_built(tmp_path), tmp_path / "locks" / "half.lock"
    with exclusive(lock, "it", print):
        assert store.list_environments(tmp_path) == []
    assert [one.folder for one in store.list_environments(tmp_path)] == [folder]
    # As a process that was killed leaves it.
    lock.touch()
    assert [one.folder for one in store.list_environments(tmp_path)] == [folder]


def test_what_was_half_built_and_is_whole_by_now_is_not_removed(tmp_path: Path) -> None:
    folder, other = half_built(tmp_path), half_built(tmp_path, "other")
    first, second = store.list_environments(tmp_path)
    mark(folder)
    first.remove()
    second.remove()
    assert folder.is_dir() and not other.exists()
    (whole,) = store.list_environments(tmp_path)
    whole.remove()
    assert not folder.exists()


def test_packages_that_go_while_they_are_looked_through_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "archive-v0").mkdir()
    with coming_and_going(tmp_path / "archive-v0"):
        for _look in range(LOOKS):
            store.clear_unused_packages(tmp_path)
