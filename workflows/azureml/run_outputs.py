"""What a run in a workspace has written, brought into its folder here: whole, or not at all."""

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
#: Files at once.
_WORKERS = 8
#: Seconds between two looks at whether they are done.
_LOOK = 0.02
#: Bytes that a file of a run that goes on may have grown by since it was listed.
_GROWN = 64 << 20
#: Kept in the run's folder once all is here and nothing more will come.
_WHOLE, _PART = "outputs.whole", ".outputs.part"


@dataclass(frozen=True)
class _File:
    name: str
    address: str
    size: int


class _Ended(BaseException):
    """Another file has failed, or somebody has pressed Ctrl-C."""


def is_complete(run: RunRecord) -> bool:
    """Whether all that a run has written, and will write, is in its folder."""
    return (run.folder / _WHOLE).exists()


def fetch(settings: Settings, console: Console, step: Step, run: RunRecord, history: RunHistory) -> None:
    """Bring what a run has written by now.

    Args:
        settings: How much may come unasked.
        console: Where somebody is asked.
        step: Shown what is fetched.
        run: The run.
        history: The run history of its workspace.

    Raises:
        UserError: It cannot be had, or somebody does not want it. What was here before stays.
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
                    touch(run.folder / _WHOLE)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    step.text = f"{len(files)} file{'' if len(files) == 1 else 's'}, {format_size(total)}"


def job_outputs(run: RunRecord, history: RunHistory, version: str, report: Report) -> dict[str, str]:
    """Where the outputs that a job file names lie in the workspace, by name.

    Raises:
        UserError: It cannot be had.
    """
    told = attempt(lambda: history.job(run.run_id, version), "reading the job", report)
    outputs = child_object(told, "outputs")
    return {
        display_text(name, "an output's name", 300): display_text(
            child_object(outputs, name).get("uri") or f"azureml://jobs/{run.run_id}/outputs/{name}", "an address", 2000
        )
        for name in outputs
        if name != "default"
    }


def _list_files(run: RunRecord, history: RunHistory, report: Report) -> list[_File]:
    told = attempt(lambda: history.run(run.run_id), "reading the run", report)
    container = str(told.get("dataContainerId") or f"dcid.{run.run_id}")
    named: dict[str, str] = {}
    for folder in FOLDERS:
        try:
            found = attempt(lambda folder=folder: [*history.artifacts(container, folder)], "listing its files", report)  # type: ignore[misc]
        except NotFound:
            continue
        named |= {name: address for name, address in found if name.startswith(f"{folder}/")}
    distinct(named, "a file's path")

    sizes: dict[str, int] = {}

    def look(pair: tuple[str, str], ended: threading.Event) -> None:
        sizes[pair[0]] = attempt(lambda: _size(history.http, pair[1]), f"reading {pair[0]}", report)

    _for_each_in_threads(look, [*named.items()])
    return [_File(name, address, sizes[name]) for name, address in named.items()]


def _for_each_in_threads(work: Callable[[T, threading.Event], None], items: Sequence[T]) -> None:
    """Do something with each, several at once; nobody waits for the others where one fails or somebody gives up.

    Args:
        work: What to do; handed an event that is set once it is in vain.
        items: With what.
    """
    ended, failed = threading.Event(), list[BaseException]()
    left, lock = iter(items), threading.Lock()

    def go_on() -> None:
        try:
            while not ended.is_set():
                with lock:
                    item = next(left, None)
                if item is None:
                    return
                work(item, ended)
        except BaseException as error:
            # Raised where the others are waited for.
            failed.append(error)

    # A connection may be silent for as long as it is waited for: the end of this process does not wait, too.
    threads = [threading.Thread(target=go_on, daemon=True) for _ in range(min(_WORKERS, len(items)))]
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
    # What a run that goes on writes may have grown since.
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

        def whole() -> None:
            nonlocal here
            progress.add(-here)
            here = 0
            with open_file(target, "wb") as opened:
                limited_requests.download(
                    history.http, file.address, cast("BinaryIO", opened), limit=file.size + spare, received=received
                )
            if here < file.size:
                raise requests.ConnectionError(f"it ended {file.size - here} bytes early")

        attempt(whole, f"reading {file.name}", progress.report)
        progress.add(0, 1)

    import requests

    _for_each_in_threads(fetch, files)


def _replace(folder: Path, part: Path) -> None:
    """Put what has come in the place of what was here; snapshots may have come another way, and stay."""
    for path in (folder / "logs").glob(PATTERN):
        if not (part / "logs" / path.name).exists():
            make_folder(part / "logs")
            os.replace(path, part / "logs" / path.name)
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
        if (part / name).exists():
            os.replace(part / name, folder / name)
