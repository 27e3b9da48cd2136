"""Inputs named by an http address: fetched once, kept in the cache."""

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
#: Letters of an address that a file's name here is made of.
_LONGEST_NAME = 60
_PART = 1024 * 1024


def fetch_all(entries: Sequence[Input], report: Callable[[str], None]) -> dict[str, Path]:
    """The local files of inputs that have a ``url``, by their address.

    Args:
        entries: The inputs.
        report: Called with lines of progress.

    Raises:
        UserError: One cannot be fetched; what to type for all of those that are not here yet is named.
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
                # It quotes a part of it: of a password with a slash what stands before that.
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
    """Where an address's file is kept."""
    # The address may be none at all, which is told when it is fetched; and a name has at most 255 bytes.
    path = url.partition("?")[0].partition("#")[0].partition("://")[2].partition("/")[2]
    name = re.sub(r"[^\w.-]+", "_", unquote(path.rpartition("/")[2]))[-_LONGEST_NAME:]
    digest = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return cache_folder() / "inputs" / digest / (name if name.strip(".") else "data")


def _fetch(url: str, report: Callable[[str], None]) -> Path:
    """Fetch a file unless it is there already. Nothing is left of one that breaks off."""
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
        error.close()  # it is an open answer as well
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        _remove_empty(folder)
    return target


def _remove_empty(folder: Path) -> None:
    """Take the folders of a file away that could not be fetched, where nothing else is in them."""
    with contextlib.suppress(OSError):
        # Each is removed only if it is empty.
        for one in (folder, folder.parent):
            one.rmdir()


def _request(url: str) -> urllib.request.Request:
    """The request for an address. A user and a password in it go into a header, which no other host is sent."""
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
    # Whoever serves it says how long it is, or goes on for ever: nobody's disk is filled by it.
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
