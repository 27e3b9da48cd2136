"""Downloads data and models of a workspace into the cache, once for the same content."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...console import Console, Step
from ...errors import UserError
from ...formatting import format_size
from ...private import make_folder
from ...received import sent_by
from ...settings import Settings
from .. import downloads
from ..data_references import MODELS, AssetName, DatastorePath, parse
from ..downloads import Blob, DownloadSource, Progress
from ..errors import NotAllowed, NotFound
from .asset_locations import AssetLocation, AssetLocator
from .assets import Asset, Assets
from .container_download import Download

#: Types of a pipeline's inputs that are models.
MODEL_TYPES = ("custom_model", "mlflow_model", "triton_model")


@dataclass(frozen=True)
class DownloadedAsset:
    """A download.

    Attributes:
        path: The file or the folder.
        size: Its size in bytes.
        reused: Whether it had been downloaded before.
        location: Its location in the workspace.
    """

    path: Path
    size: int
    reused: bool
    location: AssetLocation


class AssetDownloader:
    """Downloads a workspace's assets and data.

    Args:
        settings: Which workspace, who signs in, and up to which size no confirmation is needed.
        console: Where the user is asked to confirm.
        step: Shows the progress.
        assets: The workspace's assets, where it is already connected.

    Raises:
        UserError: The workspace cannot be reached.
    """

    def __init__(self, settings: Settings, console: Console, step: Step, assets: Assets | None = None) -> None:
        self._settings, self._console, self._step = settings, console, step
        self.assets = assets or Assets(settings, step.detail)
        self._places = AssetLocator(self.assets, step.detail)

    def download(self, wanted: AssetName | DatastorePath, name: str, named_folder: bool = False) -> DownloadedAsset:
        """Download what is named, unless it was already downloaded.

        Args:
            wanted: The asset or the path on a datastore.
            name: Its name in messages.
            named_folder: Whether to put a folder into another folder under its own name, as for a model in a service.

        Raises:
            UserError: The download failed, or the user declines. What has arrived is kept for the next time.
        """
        with sent_by(f"The workspace {self.assets.name}"):
            return self._download_from(self._places.locate(wanted), name, named_folder)

    def download_address(self, uri: str, asset: Asset, name: str) -> DownloadedAsset:
        """Download what is at an address that an asset names; see :meth:`download`."""
        with sent_by(f"The workspace {self.assets.name}"):
            return self._download_from(self._places.locate_address(uri, asset), name, False)

    def _download_from(self, location: AssetLocation, name: str, named_folder: bool) -> DownloadedAsset:
        if location.container is None:
            return self._download_url(location)
        wanted = DownloadSource(location.path, location.label, location.store, location.plain)
        self._step.detail(f"{name}: listing {location.label}")
        files = self._files(wanted, location)
        size = sum(blob.size for blob in files.values())
        single = downloads.is_file(wanted, files)
        inner = PurePosixPath(location.path).name if named_folder and not single else ""
        root = downloads.downloads_folder()
        start = PurePosixPath(location.path).name[:40] or "all"
        folder = root / f"{_as_file_name(start)}-{downloads.short_digest([location.container.address, location.path])}"
        # The folder's name depends on the content: a new version of the asset, or changed files, gets another folder.
        complete_folder = folder / downloads.content_key(files, inner)
        target = complete_folder / (next(iter(files)) if single else inner)
        if complete_folder.is_dir():
            return DownloadedAsset(target, size, True, location)
        inside = {f"{inner}/{path}" if inner else path: blob for path, blob in files.items()}
        try:
            make_folder(root)
            part = complete_folder.with_name(f"{complete_folder.name}.part")
            if not part.is_dir():
                downloads.check_free_space(location.label, size, root)
            downloads.confirm_download(self._settings, self._console, self._step, name, size, root, location.label)
            with downloads.download_lock(root / f"{folder.name}.lock", self._step.report_wait):
                if complete_folder.is_dir():
                    return DownloadedAsset(target, size, True, location)
                make_folder(folder)
                for left in folder.glob("*.part"):
                    if left != part:
                        # It belongs to earlier content at the same path.
                        shutil.rmtree(left, ignore_errors=True)
                progress = Progress(self._step.detail, name, len(files), size)
                download = Download(location.container, inside, part, progress)
                downloads.check_free_space(location.label, size - download.present_bytes(), root)
                os.replace(download.run(), complete_folder)
                shutil.rmtree(part, ignore_errors=True)
        except OSError as error:
            problem = f"{location.label} cannot be kept in {folder}: {error.strerror or error}."
            raise UserError(problem, "Check that folder, or name another in XDG_CACHE_HOME.") from error
        return DownloadedAsset(target, size, False, location)

    def _files(self, wanted: DownloadSource, location: AssetLocation) -> dict[str, Blob]:
        container, report = location.container, self._step.detail
        assert container is not None
        try:
            return downloads.list_files(wanted, lambda prefix: container.list_blobs(prefix, report))
        except (NotAllowed, NotFound):
            # A public file can be read even where its container cannot be listed.
            one = None if wanted.has_wildcards or not wanted.path else container.find_blob(wanted.path, report)
            if one is None:
                raise
            found = one
        return downloads.list_files(wanted, lambda prefix: [found])

    def _download_url(self, location: AssetLocation) -> DownloadedAsset:
        from ...pipelines.definition import Input
        from ...pipelines.fetching import fetch_all

        entry = Input("uri_file", url=location.url)
        try:
            path = fetch_all([entry], self._step.detail)[location.url]
        except UserError as error:
            raise UserError(error.problem, "Download it where there is a network, and name the local path.") from error
        return DownloadedAsset(path, path.stat().st_size, False, location)


def download_data(
    settings: Settings, console: Console, step: Step, wanted: Mapping[str, AssetName | DatastorePath]
) -> dict[str, Path]:
    """Download an experiment's data; returns the local paths by name.

    Raises:
        UserError: There is no such data, or it cannot be downloaded.
    """
    here, summaries, found = AssetDownloader(settings, console, step), [], {}
    for name, one in wanted.items():
        downloaded = here.download(one, name)
        found[name] = downloaded.path
        summaries.append(f"{name} ({_summary(downloaded)})")
    step.text = ", ".join(summaries)
    return found


def download_model(settings: Settings, console: Console, text: str) -> DownloadedAsset:
    """Download a registered model into a folder for AZUREML_MODEL_DIR, which contains the model's file or folder.

    Args:
        settings: Which workspace.
        console: Shows the download.
        text: Its name, such as ``azureml:NAME[:VERSION]``.

    Returns:
        The model itself, inside that folder.

    Raises:
        UserError: There is no such model, or it cannot be downloaded.
    """
    wanted = parse(text, MODELS)
    with console.step("model") as step:
        downloaded = AssetDownloader(settings, console, step).download(wanted, "the model", named_folder=True)
        step.text = f"{downloaded.location.named or text} ({_summary(downloaded)})"
    return downloaded


def download_inputs(settings: Settings, console: Console, wanted: Mapping[str, str]) -> dict[str, Path]:
    """Download the inputs of steps; returns the local paths by the names of their data.

    Args:
        settings: Which workspace.
        console: Shows the downloads.
        wanted: The inputs' types by the names of their data.

    Raises:
        UserError: There is no such data, or it cannot be downloaded.
    """
    found, summaries = {}, []
    with console.step("data") as step:
        here = AssetDownloader(settings, console, step)
        for text, type_ in wanted.items():
            reference = parse(text, MODELS if type_ in MODEL_TYPES else "data")
            downloaded = here.download(reference, str(reference))
            found[text] = downloaded.path
            summaries.append(f"{downloaded.location.named or text} ({_summary(downloaded)})")
        step.text = ", ".join(summaries)
    return found


def _summary(downloaded: DownloadedAsset) -> str:
    return f"{format_size(downloaded.size)}, {'reused' if downloaded.reused else 'fetched'}"


def _as_file_name(text: str) -> str:
    return "".join(one if one.isascii() and (one.isalnum() or one in "._-") else "_" for one in text).strip(".") or "_"
