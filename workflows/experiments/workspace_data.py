"""Downloads the workspace's data that a run configuration names, once for the same content."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..azureml import downloads
from ..azureml.data_references import AssetName, DatastorePath, is_in_workspace, parse
from ..azureml.downloads import DownloadSource, Progress
from ..console import Console, Step
from ..errors import UserError
from ..formatting import format_size
from ..interrupts import uninterrupted
from ..private import make_folder
from ..received import sent_by
from ..settings import Settings

if TYPE_CHECKING:
    from ..azureml.data import WorkspaceData
    from ..azureml.downloads import Blob


def fetch_data(settings: Settings, console: Console, data: Mapping[str, str]) -> dict[str, str]:
    """An experiment's data as local paths; the workspace's data is downloaded unless it already was.

    Args:
        settings: Which workspace, and who signs in.
        console: Shows the downloads.
        data: Local paths, and references to the workspace's data, by name.

    Raises:
        UserError: There is no such data, or it cannot be downloaded.
    """
    wanted = {name: parse(text) for name, text in data.items() if is_in_workspace(text)}
    if not wanted:
        return dict(data)
    from ..azureml.sdk_choice import chosen_sdk

    with console.step("data") as step:
        if chosen_sdk(settings) == "v2":
            from ..azureml.v2.asset_downloads import download_data

            return {
                **data,
                **{name: str(path) for name, path in download_data(settings, console, step, wanted).items()},
            }
        from ..azureml.data import WorkspaceData

        source = WorkspaceData(settings, step.detail)
        summaries, paths = [], {}
        with sent_by(f"The workspace {source.name}"):
            for name, one in wanted.items():
                place = source.resolve(one)
                if isinstance(one, AssetName):
                    step.detail(f"{name}: the dataset {one} lies at {place}")
                path, size, reused = _download_path(source, place, name, step)
                paths[name] = str(path)
                summaries.append(f"{name} ({format_size(size)}, {'reused' if reused else 'fetched'})")
        step.text = ", ".join(summaries)
    return {**data, **paths}


def _download_path(source: WorkspaceData, place: DatastorePath, name: str, step: Step) -> tuple[Path, int, bool]:
    """Download a datastore path; returns its local path, its size, and whether it had been downloaded before."""
    wanted = DownloadSource(place.path, str(place), f"the datastore {place.datastore}")
    files = downloads.list_files(wanted, lambda prefix: source.blobs(place.datastore, prefix))
    size = sum(blob.size for blob in files.values())
    root = downloads.downloads_folder()
    folder = root / f"{place.datastore}-{downloads.short_digest([source.name, place.datastore, place.path])}"
    whole = folder / downloads.content_key(files)
    only = next(iter(files)) if downloads.is_file(wanted, files) else ""
    if whole.is_dir():
        return whole / only, size, True
    try:
        make_folder(root)
        with downloads.download_lock(root / f"{folder.name}.lock", step.report_wait):
            if whole.is_dir():
                return whole / only, size, True
            downloads.check_free_space(str(place), size, root)
            _download_files(source, place, files, whole, Progress(step.detail, name, len(files), size))
    except OSError as error:
        problem = f"{place} cannot be kept in {folder}: {error.strerror or error}."
        raise UserError(problem, "Check that folder, or name another in XDG_CACHE_HOME.") from error
    return whole / only, size, False


def _download_files(
    source: WorkspaceData, place: DatastorePath, files: Mapping[str, Blob], whole: Path, progress: Progress
) -> None:
    """Download all files into a folder that gets its name only when it is complete."""
    created = not whole.parent.exists()
    make_folder(whole.parent)
    for left in whole.parent.glob("*.part"):
        # A killed command left it; the lock keeps other commands out.
        shutil.rmtree(left, ignore_errors=True)
    part = whole.with_name(f"{whole.name}.part")
    try:
        for inside, blob in files.items():
            target = part / inside
            make_folder(target.parent)
            source.fetch(place.datastore, blob, target, progress.update_current)
            # The next run would take a script's changes to it for the workspace's data.
            target.chmod(0o400)
            progress.finish_file(blob.size)
        os.replace(part, whole)
    except BaseException:
        with uninterrupted():
            shutil.rmtree(part, ignore_errors=True)
            if created:
                whole.parent.rmdir()
        raise
