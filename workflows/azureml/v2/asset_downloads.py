"""Data and models of a workspace on this machine: brought once, kept in the cache, found again by whoever asks next."""

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
from .asset_locations import AssetLocator, Location
from .assets import Asset, Assets
from .container_download import Download

#: Types of a pipeline's inputs that are models.
MODEL_TYPES = ("custom_model", "mlflow_model", "triton_model")


@dataclass(frozen=True)
class DownloadedAsset:
    """What is here.

    Attributes:
        path: The file or the folder.
        size: Bytes.
        reused: Whether it had been here before.
        location: Where it lies.
    """

    path: Path
    size: int
    reused: bool
    location: Location


class AssetDownloader:
    """Brings what a workspace has.

    Args:
        settings: Which workspace, who signs in, and how much may come unasked.
        console: Where somebody is asked.
        step: Shown what is fetched.
        assets: The workspace's assets, where it has been reached already.

    Raises:
        UserError: The workspace cannot be reached.
    """

    def __init__(self, settings: Settings, console: Console, step: Step, assets: Assets | None = None) -> None:
        self._settings, self._console, self._step = settings, console, step
        self.assets = assets or Assets(settings, step.detail)
        self._places = AssetLocator(self.assets, step.detail)

    def download(self, wanted: AssetName | DatastorePath, name: str, named_folder: bool = False) -> DownloadedAsset:
        """What is named, on this machine.

        Args:
            wanted: Its name.
            name: What it is called here.
            named_folder: Whether a folder lies in one more, by its own name, as a model does in a service.

        Raises:
            UserError: It cannot be had, or somebody does not want it. What has come of it stays for the next time.
        """
        with sent_by(f"The workspace {self.assets.name}"):
            return self._bring_from(self._places.of(wanted), name, named_folder)

    def download_address(self, uri: str, asset: Asset, name: str) -> DownloadedAsset:
        """What lies at an address that an asset names; see :meth:`bring`."""
        with sent_by(f"The workspace {self.assets.name}"):
            return self._bring_from(self._places.at(uri, asset), name, False)

    def _bring_from(self, location: Location, name: str, named_folder: bool) -> DownloadedAsset:
        if location.container is None:
            return self._of_the_web(location)
        wanted = DownloadSource(location.path, location.label, location.store, location.plain)
        self._step.detail(f"{name}: listing {location.label}")
        files = self._files(wanted, location)
        size = sum(blob.size for blob in files.values())
        single = downloads.is_file(wanted, files)
        inner = PurePosixPath(location.path).name if named_folder and not single else ""
        root = downloads.downloads_folder()
        start = PurePosixPath(location.path).name[:40] or "all"
        folder = root / f"{_as_file_name(start)}-{downloads.short_digest([location.container.address, location.path])}"
        # The files as they were at one time: a new version of the asset, or changed content, is another folder.
        whole = folder / downloads.content_key(files, inner)
        target = whole / (next(iter(files)) if single else inner)
        if whole.is_dir():
            return DownloadedAsset(target, size, True, location)
        inside = {f"{inner}/{path}" if inner else path: blob for path, blob in files.items()}
        try:
            make_folder(root)
            part = whole.with_name(f"{whole.name}.part")
            if not part.is_dir():
                downloads.check_free_space(location.label, size, root)
            downloads.confirm_download(self._settings, self._console, self._step, name, size, root, location.label)
            with downloads.download_lock(root / f"{folder.name}.lock", self._step.report_wait):
                if whole.is_dir():
                    return DownloadedAsset(target, size, True, location)
                make_folder(folder)
                for left in folder.glob("*.part"):
                    if left != part:
                        # Of what the place had in it earlier.
                        shutil.rmtree(left, ignore_errors=True)
                progress = Progress(self._step.detail, name, len(files), size)
                download = Download(location.container, inside, part, progress)
                downloads.check_free_space(location.label, size - download.here(), root)
                os.replace(download.run(), whole)
                shutil.rmtree(part, ignore_errors=True)
        except OSError as error:
            problem = f"{location.label} cannot be kept in {folder}: {error.strerror or error}."
            raise UserError(problem, "Check that folder, or name another in XDG_CACHE_HOME.") from error
        return DownloadedAsset(target, size, False, location)

    def _files(self, wanted: DownloadSource, location: Location) -> dict[str, Blob]:
        container, report = location.container, self._step.detail
        assert container is not None
        try:
            return downloads.list_files(wanted, lambda prefix: container.listed(prefix, report))
        except (NotAllowed, NotFound):
            # Of public data a file can be read where the container cannot be listed.
            one = None if wanted.has_wildcards or not wanted.path else container.one(wanted.path, report)
            if one is None:
                raise
            found = one
        return downloads.list_files(wanted, lambda prefix: [found])

    def _of_the_web(self, location: Location) -> DownloadedAsset:
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
    """An experiment's data on this machine, by its names.

    Raises:
        UserError: There is no such data, or it cannot be had.
    """
    here, told, found = AssetDownloader(settings, console, step), [], {}
    for name, one in wanted.items():
        got = here.download(one, name)
        found[name] = got.path
        told.append(f"{name} ({_about(got)})")
    step.text = ", ".join(told)
    return found


def download_model(settings: Settings, console: Console, text: str) -> DownloadedAsset:
    """A registered model on this machine, as AZUREML_MODEL_DIR has it: a folder with the model's file or folder in it.

    Args:
        settings: Which workspace.
        console: Shown what is fetched.
        text: Its name, ``azureml:NAME[:VERSION]`` or the like.

    Returns:
        The model itself, which lies in that folder.

    Raises:
        UserError: There is no such model, or it cannot be had.
    """
    wanted = parse(text, MODELS)
    with console.step("model") as step:
        got = AssetDownloader(settings, console, step).download(wanted, "the model", named_folder=True)
        step.text = f"{got.location.named or text} ({_about(got)})"
    return got


def download_inputs(settings: Settings, console: Console, wanted: Mapping[str, str]) -> dict[str, Path]:
    """Inputs of steps on this machine.

    Args:
        settings: Which workspace.
        console: Shown what is fetched.
        wanted: The inputs' types by what names their data; of one name there is one type.

    Raises:
        UserError: There is no such data, or it cannot be had.
    """
    found, told = {}, []
    with console.step("data") as step:
        here = AssetDownloader(settings, console, step)
        for text, type_ in wanted.items():
            reference = parse(text, MODELS if type_ in MODEL_TYPES else "data")
            got = here.download(reference, str(reference))
            found[text] = got.path
            told.append(f"{got.location.named or text} ({_about(got)})")
        step.text = ", ".join(told)
    return found


def _about(got: DownloadedAsset) -> str:
    return f"{format_size(got.size)}, {'reused' if got.reused else 'fetched'}"


def _as_file_name(text: str) -> str:
    return "".join(one if one.isascii() and (one.isalnum() or one in "._-") else "_" for one in text).strip(".") or "_"
