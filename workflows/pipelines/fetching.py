"""Fetches inputs that are named by an http address, once; they are kept in the cache."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .. import command_log
from .. import process_identity as identity
from ..errors import UserError
from ..paths import cache_folder, shown
from ..private import make_folder
from ..project import remove_leftovers
from ..received import sent_by, size
from ..received_files import check_free_space
from ..redaction import keep_address, scrub
from .definition import Input

#: Seconds of silence after which a server counts as gone.
SILENCE_SECONDS = 30
#: How many letters of an address are used for the file's name.
_LONGEST_NAME = 60
_PART = 1024 * 1024


def fetch_all(entries: Sequence[Input], report: Callable[[str], None]) -> dict[str, Path]:
    """Fetch the inputs that have a ``url``; returns the local files by address.

    Args:
        entries: The inputs.
        report: Called with lines of progress.

    Raises:
        UserError: One cannot be fetched. The remedy has the options for all of those that are not here yet.
    """
    found: dict[str, Path] = {}
    for entry in entries:
        if entry.url is None or entry.url in found:
            continue
        keep_address(entry.url)
        try:
            found[entry.url] = _fetch(entry.url, report)
        except (OSError, ValueError, EOFError, http.client.HTTPException) as error:
            reason = scrub(str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error))
            if isinstance(error, http.client.InvalidURL):
                # Its text may quote a part of a password, the part before a slash.
                reason = "its host and port cannot be read (write % and two digits for what is special in a password)"
            away = [other.option for other in entries if other.url is not None and not _target(other.url).exists()]
            typed = " ".join(f"--input {option}=PATH" for option in dict.fromkeys(away))
            raise UserError(
                f"{scrub(entry.url)} cannot be fetched: {reason}.",
                f"Download it where there is a network, and name the file: {typed}",
                file=shown(entry.file) if entry.file else None,
                line=entry.line or None,
            ) from error
    return found


def _target(url: str) -> Path:
    """The path of an address's file in the cache."""
    # The address may be invalid, which is reported when it is fetched. A name has at most 255 bytes.
    path = url.partition("?")[0].partition("#")[0].partition("://")[2].partition("/")[2]
    name = re.sub(r"[^\w.-]+", "_", unquote(path.rpartition("/")[2]))[-_LONGEST_NAME:]
    digest = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return cache_folder() / "inputs" / digest / (name if name.strip(".") else "data")


def _fetch(url: str, report: Callable[[str], None]) -> Path:
    """Fetch a file unless it is in the cache. Partial downloads are discarded."""
    target = _target(url)
    if target.exists():
        return target
    folder, name = target.parent, target.name
    remove_leftovers(folder)
    partial = folder / f".{name[:50]}.{identity.process_mark()}"
    begun = time.perf_counter()
    try:
        with contextlib.closing(urllib.request.urlopen(_request(url), timeout=SILENCE_SECONDS)) as response:  # noqa: S310
            host = str(urlsplit(url).hostname)
            with sent_by(host):
                make_folder(folder)
                _copy(response, partial, f"{host}: {name}", report)
        os.replace(partial, target)
        command_log.log_request("GET", url, "fetched", begun)
    except urllib.error.HTTPError as error:
        error.close()  # the error is also the open response
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        _remove_empty(folder)
    return target


def _remove_empty(folder: Path) -> None:
    """Remove the folders of a file that could not be fetched, if they are empty."""
    with contextlib.suppress(OSError):
        # Each is removed only if it is empty.
        for one in (folder, folder.parent):
            one.rmdir()


def _request(url: str) -> urllib.request.Request:
    """The request for an address. Its user and password become a header, which is not sent to other hosts."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl())  # noqa: S310
    if at:
        credential = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {credential}")
    return request


def _copy(response: object, partial: Path, name: str, report: Callable[[str], None]) -> None:
    length = int(response.headers.get("Content-Length") or 0)  # type: ignore[attr-defined]
    report(f"fetching {name}" + (f", {length / 1e6:.1f} MB" if length else ""))
    # The server may send a wrong length or never end, so the disk's free space is checked before and meanwhile.
    check_free_space(partial.parent, size(length, "a length"))
    done = 0
    with open(partial, "wb") as file:
        while part := response.read(_PART):  # type: ignore[attr-defined]
            file.write(part)
            done += len(part)
            if done // (50 * _PART) != (done - len(part)) // (50 * _PART):
                check_free_space(partial.parent, 50 * _PART)
                report(f"fetching {name}: {done / 1e6:.0f} MB" + (f" of {length / 1e6:.0f}" if length else ""))
    if length and done != length:
        raise EOFError(f"it ended after {done} of {length} bytes")
