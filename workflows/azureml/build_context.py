"""Downloads the build context of a packaged model.

The SDK's own ``ModelPackage.save`` writes to whatever path the manifest names, and unpacks archives with everything in
them. Here every file is written below the context's folder, and archives may contain only folders and plain files.
"""

from __future__ import annotations

import base64
import binascii
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from ..received import Refused, as_json, distinct, each, fields, flag, number, one_of, relative_path, text
from ..received_files import check_free_space, file_below
from ..scratch import scratch_folder
from .limited_requests import download

#: The most bytes of a manifest, the most files of a context, and the highest ratio of an archive's content to its size
#: (RFC 1951 allows a little more than a thousand).
_MANIFEST_BYTES, _FILES, _EXPANSION = 64 << 20, 100_000, 1100
_URI = re.compile(r"aml://artifact/([^/]+)/([^/]+)/(.+)")

_ENTRY = fields(
    {"entryType": one_of("inline", "remote"), "path": text},
    {"encoding": text, "content": lambda value, what: text(value, what, _MANIFEST_BYTES), "uri": text, "unpack": flag},
)
_MANIFEST = fields({"context": each(_ENTRY, _FILES)})


class Artifacts:
    """Finds the addresses of a workspace's files.

    Args:
        workspace: The SDK's workspace.
    """

    def __init__(self, workspace: Any) -> None:
        from azureml._restclient.artifacts_client import ArtifactsClient

        self._client = ArtifactsClient(workspace.service_context)

    def address(self, origin: str, container: str, path: str) -> Any:
        """The address of one file."""
        return self._client.get_file_uri(origin, container, path)

    def list_files(self, origin: str, container: str, prefix: str) -> list[tuple[Any, Any]]:
        """The path and the address of each file whose path begins with a prefix."""
        return list(self._client.get_files_by_artifact_prefix_id(f"{origin}/{container}/{prefix}"))


def save_build_context(location: Any, artifacts: Any, folder: Path) -> None:
    """Write a build context into a new folder.

    Args:
        location: The address of its manifest.
        artifacts: Finds its files; see :class:`Artifacts`.
        folder: The folder.

    Raises:
        Refused: Something in it is not valid.
        UserError: It cannot be written.
        requests.RequestException: It cannot be read now.
    """
    import requests

    with requests.Session() as http, scratch_folder(folder.parent if folder.parent.is_dir() else None) as scratch:
        plan = scratch / "manifest.json"
        with open(plan, "wb") as file:
            download(http, location, file, _MANIFEST_BYTES)
        entries = _MANIFEST(as_json(plan.read_bytes(), "a manifest"), "a manifest")["context"]
        folder.mkdir(parents=True, exist_ok=True)
        for entry in entries:
            if entry["entryType"] == "inline":
                content = _inline(entry)
                with file_below(folder, _name(entry["path"])) as file:
                    file.write(content)
                continue
            found = _URI.fullmatch(entry.get("uri", ""))
            if found is None:
                raise Refused(f"a file with an address that is not valid: {ascii(entry.get('uri'))[:100]}")
            origin, container, path = found.groups()
            if entry.get("unpack"):
                archive = scratch / "archive"
                with open(archive, "wb") as file:
                    download(http, artifacts.address(origin, container, path), file, check_space=_space_check(scratch))
                inner = entry["path"].rstrip("/")
                unpack(archive, folder, "" if inner in ("", ".") else _name(inner))
                archive.unlink()
                continue
            _save_prefix(http, artifacts, folder, entry["path"], (origin, container, path))


def _save_prefix(http: Any, artifacts: Any, folder: Path, inner: str, place: tuple[str, str, str]) -> None:
    """Write the files of a prefix, each by its path below the prefix's last folder."""
    cut = place[2].rstrip("/").rfind("/") + 1
    above = "" if inner.rstrip("/") in ("", ".") else _name(inner.rstrip("/")) + "/"
    files = artifacts.list_files(*place)
    number(len(files), "a number of files", 0, _FILES)
    names = [_name(above + text(path, "a file's path")[cut:]) for path, _address in files]
    distinct(names, "a file's name")
    for name, (_path, address) in zip(names, files, strict=True):
        with file_below(folder, name) as file:
            download(http, address, file, check_space=_space_check(folder))


def _inline(entry: dict[str, Any]) -> bytes:
    try:
        if entry.get("encoding") != "base64":
            raise ValueError
        return base64.b64decode(entry.get("content", ""), validate=True)
    except (ValueError, binascii.Error) as error:
        raise Refused("a file that is not in base64") from error


def _name(path: str) -> str:
    return relative_path(path.removeprefix("./"), "a name of a build context")


def _space_check(folder: Path) -> Callable[[int], None]:
    return lambda size: check_free_space(folder, size)


def unpack(archive: Path, folder: Path, inner: str) -> None:
    """Write the content of a tar archive below a folder. All entries are checked before anything is written.

    Args:
        archive: The archive, compressed or not.
        folder: The folder.
        inner: A path below the folder that everything is written to; empty for the folder itself.

    Raises:
        Refused: It is not an archive, has other entries than folders and plain files, or names that lead out of it.
        UserError: It cannot be written.
    """
    above = f"{inner}/" if inner else ""
    most = archive.stat().st_size * _EXPANSION
    try:
        with tarfile.open(archive) as tar:
            members: list[tuple[str, tarfile.TarInfo]] = []
            total = 0
            for count, member in enumerate(tar, 1):
                if count > _FILES:
                    raise Refused(f"an archive of more than {_FILES:,} files")
                if not (member.isdir() or member.isreg()) or member.issparse():
                    raise Refused(f"an archive with a link or a device in it: {ascii(member.name)[:100]}")
                if member.isreg():
                    total += number(member.size, "an archive with a file of a size", 0, most)
                    number(total, "an archive of a size", 0, most)
                    members.append((_name(above + member.name), member))
                elif member.name.strip("./"):
                    _name(above + member.name.rstrip("/"))
            distinct([name for name, _member in members], "an archive with a name")
            check_free_space(folder, total)
            for name, member in members:
                source = tar.extractfile(member)
                assert source is not None
                with file_below(folder, name) as file:
                    _copy_bytes(source, file, member.size)
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
        # Each compression format raises its own errors.
        raise Refused("an archive that cannot be read") from error


def _copy_bytes(source: Any, target: BinaryIO, size: int) -> None:
    while size > 0:
        content = source.read(min(size, 1 << 20))
        if not content:
            raise Refused("an archive that ends early")
        target.write(content)
        size -= len(content)
