"""The SDK's errors by name, without loading the SDK: an SDK that is not loaded has not raised anything.

``except docker_errors.APIError`` saves the import of ``docker.errors``, which takes a fifth of a second.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_HOMES = {
    "APIError": "docker.errors",
    "DockerException": "docker.errors",
    "ImageNotFound": "docker.errors",
    "NotFound": "docker.errors",
    "RequestException": "requests.exceptions",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = sys.modules.get(_HOMES[name])
    # An empty tuple in an except clause matches nothing.
    return () if home is None else getattr(home, name)


@contextmanager
def suppressed(*names: str) -> Iterator[None]:
    """As ``contextlib.suppress``, with the names of this module's errors."""
    try:
        yield
    except Exception as error:
        if not any(isinstance(error, __getattr__(name)) for name in names):
            raise
