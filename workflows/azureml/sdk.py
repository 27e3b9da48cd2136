"""Imports SDK v1 without its output, after checking that it is installed and works here.

azureml-core 1.61 runs on Python 3.8 to 3.12; on 3.13 submitting fails for want of `imghdr`.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any, TextIO

from ..errors import UserError
from ..redaction import LineScrubber, scrub_value
from ..terminal import plain

PACKAGES = ("azureml-core", "azureml-pipeline-core")
#: This program's extras that install the one SDK and the other.
EXTRAS = {"v2": "azureml", "v1": "azureml-v1"}
#: The oldest version that this program was tried with.
OLDEST = (1, 61)
#: The first Python that the SDK does not work on.
TOO_NEW = (3, 13)
#: These turn off the SDK's own retries, which wait without a message: up to 32 s after a 429, three times.
_RETRIES = {"AZUREML_DEFAULT_RETRIES": "0", "AZUREML_DEFAULT_BACKOFF": "1"}


def load() -> str:
    """Import the SDK; other modules of it can be imported afterwards.

    Returns:
        The version of azureml-core.

    Raises:
        UserError: It is not installed, or cannot work here.
    """
    version = require_v1()
    if "azureml.core" not in sys.modules:
        _first_import()
    return version


def require_v1() -> str:
    """Check that the SDK is installed and works here; it is not imported.

    Returns:
        The version of azureml-core.

    Raises:
        UserError: It is not installed, or does not work here.
    """
    if sys.version_info >= TOO_NEW:
        raise UserError(
            f"azureml-core does not work on Python {sys.version_info[0]}.{sys.version_info[1]}.",
            f"Install this program into a Python 3.10 to 3.{TOO_NEW[1] - 1}, there: {install_command('v1')};"
            f" or take SDK v2 here: {install_command('v2')}",
        )
    versions = {name: version_of(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UserError(f"{' and '.join(missing)} {verb} not installed.", f"Install the extra: {install_command('v1')}")
    for name, version in versions.items():
        assert version is not None
        if numbers(version) < OLDEST:
            raise UserError(
                f"{name} {version} is too old; {'.'.join(map(str, OLDEST))} is the oldest that works.",
                f"Install it again: {install_command('v1')}",
            )
    return str(versions["azureml-core"])


def _first_import() -> None:
    # Without a handler, what a library logs goes to standard error.
    logging.getLogger().addHandler(logging.NullHandler())
    before = {name: os.environ.get(name) for name in _RETRIES}
    os.environ.update({name: value for name, value in _RETRIES.items() if before[name] is None})
    try:
        with prints_to_standard_error():
            import azureml.core
            import azureml.pipeline.core  # noqa: F401

            from .. import watched_requests  # noqa: F401
    except Exception as error:
        raise UserError(
            f"azureml-core cannot be imported: {error}.", f"Install it again: {install_command('v1')}"
        ) from error
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
    _leave_retrying_to_us()
    _record_no_secret()


def _leave_retrying_to_us() -> None:
    """Make msrest return every response, instead of waiting for `Retry-After` without a message."""
    from msrest.universal_http.requests import ClientRetryPolicy

    original = ClientRetryPolicy.__init__

    def __init__(self: Any) -> None:
        original(self)
        self.policy.total = self.policy.connect = self.policy.read = 0
        self.policy.status_forcelist = frozenset()
        self.policy.respect_retry_after_header = False
        self.policy.raise_on_status = False

    ClientRetryPolicy.__init__ = __init__
    # The SDK's clients set it again.
    ClientRetryPolicy.retries = property(lambda self: 0, lambda self, value: None)


def _record_no_secret() -> None:
    """Remove passwords from the git remote's address that the SDK stores as a property of each run."""
    from azureml._base_sdk_common.tracking.git_tracking_info_provider import GitTrackingInfoProvider

    original = GitTrackingInfoProvider.gather
    GitTrackingInfoProvider.gather = lambda self: scrub_value(original(self))


class _Scrubbing(io.TextIOBase):
    """A stream that passes on complete lines without secrets."""

    def __init__(self, target: TextIO) -> None:
        self._target, self._rest, self._scrub = target, "", LineScrubber()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._pass_on(line)
        return len(text)

    def finish(self) -> None:
        """Pass on what has no end of line."""
        if self._rest:
            self._pass_on(self._rest)

    def _pass_on(self, line: str) -> None:
        self._target.write(plain(self._scrub(line)) + "\n")
        self._target.flush()


@contextmanager
def prints_to_standard_error() -> Iterator[None]:
    """Redirect what the SDK prints to standard error, since standard output may be JSON."""
    from contextlib import redirect_stdout

    stream = _Scrubbing(sys.stderr)
    try:
        with redirect_stdout(stream):
            yield
    finally:
        stream.finish()


def version_of(package: str) -> str | None:
    """An installed package's version, found without importing it; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def install_command(which: str) -> str:
    """The command that installs this program's extra for an SDK (``v2`` or ``v1``), for the Python that runs it."""
    return install_extra(EXTRAS[which])


def install_extra(extra: str) -> str:
    """The command that installs one of this program's extras, from where the program itself was installed."""
    from ..settings import packaged_defaults

    root = packaged_defaults()
    if (root / "pyproject.toml").is_file():
        return f"pip install -e '{root}[{extra}]'"
    source = "azureml-debug"
    try:
        # Where pip installed it from (PEP 610).
        direct_url = metadata.distribution("azureml-debug").read_text("direct_url.json")
        source = json.loads(direct_url)["url"].removeprefix("file://") if direct_url else source
    except (metadata.PackageNotFoundError, ValueError, KeyError):
        pass
    return f"pip install '{source}[{extra}]'"


def numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    parts = version.split(".")[:2]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)
