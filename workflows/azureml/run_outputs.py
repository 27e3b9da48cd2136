"""Downloads what a run in a workspace has written into its folder here, either completely or not at all."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from ..console import Console, Step
from ..formatting import format_size
from ..interrupts import uninterrupted
from ..private import make_folder, open_file, touch
from ..received import display_text, distinct, size
from ..runs.record import RunRecord
from ..settings import Settings
from ..snapshots.selection import PATTERN
from . import downloads, limited_requests
from .errors import NotFound, Report, attempt
from .history import RunHistory, child_object

T = TypeVar("T")

#: The folders of a run that its script writes.
FOLDERS = ("outputs", "logs")
#: Files that are downloaded at the same time.
_WORKERS = 8
#: Seconds between two checks of whether the downloads are done.
_LOOK = 0.02
#: The most bytes that a file of a running run may have grown by since it was listed.
_GROWN = 64 << 20
#: In the run's folder: the mark that everything was downloaded after the run's end, and the folder of a download that
#: is under way.
_COMPLETE, _PART = "outputs.whole", ".outputs.part"


@dataclass(frozen=True)
class _File:
    name: str
    address: str
    size: int


class _Ended(BaseException):
    """Another file has failed, or the user has pressed Ctrl-C."""


def is_complete(run: RunRecord) -> bool:
    """Whether everything that an ended run has written is in its folder."""
    return (run.folder / _COMPLETE).exists()


def fetch(settings: Settings, console: Console, step: Step, run: RunRecord, history: RunHistory) -> None:
    """Download what a run has written by now.

    Args:
        settings: Up to which size no confirmation is needed.
        console: Where the user is asked to confirm.
        step: Shows the progress.
        run: The run.
        history: The run history of its workspace.

    Raises:
        UserError: It cannot be downloaded, or the user declines. The files that were here before stay.
    """
    final = run.final
    part = run.folder / _PART
    with downloads.download_lock(run.folder / "outputs.lock", step.report_wait):
        shutil.rmtree(part, ignore_errors=True)
        files = _list_files(run, history, step.detail)
        total = sum(one.size for one in files)
        label = f"What the run {run.run_id} has written"
        downloads.confirm_download(settings, console, step, label, total, run.folder)
        downloads.check_free_space(label, total, run.folder)
        try:
            make_folder(part)
            if files:
                _fetch_files(run, files, part, history, downloads.Progress(step.detail, run.name, len(files), total))
            with uninterrupted():
                _replace(run.folder, part)
                if final:
                    touch(run.folder / _COMPLETE)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    step.text = f"{len(files)} file{'' if len(files) == 1 else 's'}, {format_size(total)}"


def job_outputs(run: RunRecord, history: RunHistory, version: str, report: Report) -> dict[str, str]:
    """The workspace addresses of the outputs that a job file names, by name.

    Raises:
        UserError: They cannot be read.
    """
    job = attempt(lambda: history.job(run.run_id, version), "reading the job", report)
    outputs = child_object(job, "outputs")
    return {
        display_text(name, "an output's name", 300): display_text(
            child_object(outputs, name).get("uri") or f"azureml://jobs/{run.run_id}/outputs/{name}", "an address", 2000
        )
        for name in outputs
        if name != "default"
    }


def _list_files(run: RunRecord, history: RunHistory, report: Report) -> list[_File]:
    details = attempt(lambda: history.run(run.run_id), "reading the run", report)
    container = str(details.get("dataContainerId") or f"dcid.{run.run_id}")
    named: dict[str, str] = {}
    for folder in FOLDERS:
        try:
            found = attempt(lambda folder=folder: [*history.artifacts(container, folder)], "listing its files", report)  # type: ignore[misc]
        except NotFound:
            continue
        named |= {name: address for name, address in found if name.startswith(f"{folder}/")}
    distinct(named, "a file's path")

    sizes: dict[str, int] = {}

    def read_size(pair: tuple[str, str], ended: threading.Event) -> None:
        sizes[pair[0]] = attempt(lambda: _size(history.http, pair[1]), f"reading {pair[0]}", report)

    _for_each_in_threads(read_size, [*named.items()])
    return [_File(name, address, sizes[name]) for name, address in named.items()]


def _for_each_in_threads(work: Callable[[T, threading.Event], None], items: Sequence[T]) -> None:
    """Process items in several threads. Where one fails, or the user presses Ctrl-C, the others are not waited for.

    Args:
        work: Processes one item; it is passed an event that is set once its result is no longer needed.
        items: The items.
    """
    ended, failed = threading.Event(), list[BaseException]()
    left, lock = iter(items), threading.Lock()

    def work_through() -> None:
        try:
            while not ended.is_set():
                with lock:
                    item = next(left, None)
                if item is None:
                    return
                work(item, ended)
        except BaseException as error:
            # It is raised in the thread that waits.
            failed.append(error)

    # The threads are daemons: a silent connection must not delay the end of this process.
    threads = [threading.Thread(target=work_through, daemon=True) for _ in range(min(_WORKERS, len(items)))]
    try:
        for one in threads:
            one.start()
        while any(one.is_alive() for one in threads) and not failed:
            time.sleep(_LOOK)
    finally:
        ended.set()
    if failed:
        raise failed[0]


def _size(http: Any, address: str) -> int:
    with http.head(
        address, timeout=limited_requests.SILENCE_SECONDS, headers={"Accept-Encoding": "identity"}
    ) as answer:
        answer.raise_for_status()
        return size(int(answer.headers.get("Content-Length") or 0), "a file's size")


def _fetch_files(
    run: RunRecord, files: Sequence[_File], part: Path, history: RunHistory, progress: downloads.Progress
) -> None:
    # The files of a running run may have grown since they were listed.
    spare = 0 if run.final else _GROWN

    def fetch(file: _File, ended: threading.Event) -> None:
        target = part / file.name
        make_folder(target.parent)
        here = 0

        def received(count: int) -> None:
            nonlocal here
            if ended.is_set():
                raise _Ended
            here += count
            progress.add(count)

        def download_file() -> None:
            nonlocal here
            progress.add(-here)
            here = 0
            with open_file(target, "wb") as opened:
                limited_requests.download(
                    history.http, file.address, cast("BinaryIO", opened), limit=file.size + spare, received=received
                )
            if here < file.size:
                raise requests.ConnectionError(f"it ended {file.size - here} bytes early")

        attempt(download_file, f"reading {file.name}", progress.report)
        progress.add(0, 1)

    import requests

    _for_each_in_threads(fetch, files)


def _replace(folder: Path, part: Path) -> None:
    """Replace the previous files by the downloaded ones. Snapshots that were fetched another way are kept."""
    for path in (folder / "logs").glob(PATTERN):
        if not (part / "logs" / path.name).exists():
            make_folder(part / "logs")
            os.replace(path, part / "logs" / path.name)
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
        if (part / name).exists():
            os.replace(part / name, folder / name)
