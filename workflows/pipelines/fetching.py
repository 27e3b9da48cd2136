"""Inputs named by an http address: fetched once, kept in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import UserError
from ..paths import cache_folder, shown
from .definition import Input

#: Seconds of silence after which a server counts as gone.
SILENCE_SECONDS = 30
_PART = 1024 * 1024


def fetch(entry: Input, report: Callable[[str], None]) -> Path:
    """The local file of an input's address.

    Args:
        entry: The input, with a ``url``.
        report: Called with lines of progress.

    Raises:
        UserError: It cannot be fetched. Nothing of it is left then.
    """
    assert entry.url is not None
    parts = urlsplit(entry.url)
    name = re.sub(r"[^\w.-]+", "_", unquote(parts.path.rpartition("/")[2])) or "data"
    folder = cache_folder() / "inputs" / hashlib.sha256(entry.url.encode()).hexdigest()[:16]
    target = folder / name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{name}.{os.getpid()}"
    try:
        with contextlib.closing(urllib.request.urlopen(entry.url, timeout=SILENCE_SECONDS)) as response:  # noqa: S310
            _copy(response, partial, f"{parts.hostname}: {name}", report)
        os.replace(partial, target)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UserError(
            f"{entry.url} cannot be fetched: {reason}.",
            "Download it where there is a network, and name the file: --input NAME=PATH",
            file=shown(entry.file) if entry.file else None,
            line=entry.line or None,
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    return target


def _copy(response: object, partial: Path, name: str, report: Callable[[str], None]) -> None:
    length = int(response.headers.get("Content-Length") or 0)  # type: ignore[attr-defined]
    report(f"fetching {name}" + (f", {length / 1e6:.1f} MB" if length else ""))
    done = 0
    with open(partial, "wb") as file:
        while part := response.read(_PART):  # type: ignore[attr-defined]
            file.write(part)
            done += len(part)
            if done // (50 * _PART) != (done - len(part)) // (50 * _PART):
                report(f"fetching {name}: {done / 1e6:.0f} MB" + (f" of {length / 1e6:.0f}" if length else ""))
    if length and done != length:
        raise EOFError(f"it ended after {done} of {length} bytes")
