"""Imports azure-ai-ml, which is only needed where a job is submitted, and suppresses its output.

The import takes seconds of CPU (2.8 to 3.8 s, 1,717 modules), so it runs in the background meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from ...errors import UserError

_MODULE = "azure.ai.ml"
#: Decides, by the names of all callers, whether the SDK remarks that something of it is experimental.
_DECIDES = "_should_skip_warning"
#: Reads the description of Azure's clouds at an address, that of ARM_CLOUD_METADATA_URL.
_READS_CLOUDS = "_get_clouds_by_metadata_url"


class BackgroundImport:
    """Imports the SDK in the background, beginning when the object is created."""

    def __init__(self) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._import, name="import azure-ai-ml", daemon=True)
        self._thread.start()

    def _import(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(_MODULE)
                importlib.import_module(f"{_MODULE}.entities")
            keep_clouds()
        except BaseException as error:  # raised by wait()
            self._error = error

    def wait(self) -> Any:
        """Wait for the import; returns the module ``azure.ai.ml``.

        Raises:
            UserError: It cannot be imported.
        """
        self._thread.join()
        if self._error is not None:
            from ..sdk import install_command

            raise UserError(
                f"azure-ai-ml cannot be imported: {type(self._error).__name__}: {self._error}.",
                f"Install it again: {install_command('v2')}",
            ) from self._error
        return importlib.import_module(_MODULE)


def keep_clouds() -> None:
    """Let the SDK read the description of Azure's clouds once in a process.

    It reads the description before most of its requests: 13 times in a submission, over a new connection each time.
    """
    module = sys.modules.get(f"{_MODULE}._azure_environments")
    read = getattr(module, _READS_CLOUDS, None)
    if read is None or hasattr(read, "__wrapped__"):
        return
    known: dict[str, Any] = {}

    @functools.wraps(read)
    def kept(address: str) -> Any:
        # The SDK returns an empty description where it could not read it, which may pass.
        known[address] = known.get(address) or read(address)
        return known[address]

    setattr(module, _READS_CLOUDS, kept)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what the SDK prints and logs, which is mostly remarks on its own experimental classes.

    Before each remark the SDK reads the source of all its callers (`inspect.stack()`), half a second of CPU time in a
    submission. It is spared that.
    """
    remarks = sys.modules.get(f"{_MODULE}._utils._experimental")
    decides = getattr(remarks, _DECIDES, None)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        if decides is not None:
            setattr(remarks, _DECIDES, lambda: True)
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        if decides is not None:
            setattr(remarks, _DECIDES, decides)
