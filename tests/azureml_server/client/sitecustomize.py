"""Points the real SDK at the server that AZUREML_DEBUG_TEST_SERVER names, where the SDK itself names Azure's hosts.

It changes modules as they are imported, and imports none by itself, so that a process that does without the SDK is
none the slower; but a part of the program where AZUREML_DEBUG_TEST_SILENT_SECONDS is set. The authentication classes
are changed only where AZUREML_DEBUG_TEST_SIGN_IN asks for it.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def _server() -> str:
    """The server of this process; a fork of it may have another one."""
    return os.environ.get("AZUREML_DEBUG_TEST_SERVER", "")


def _storage(module: ModuleType) -> None:
    """Blobs are written to `https://{account}.blob.{suffix}`, cut out of an address that is none of that form."""
    client = module.BlobServiceClient
    original = client.__init__

    def __init__(self: Any, account_url: str, credential: Any = None, **more: Any) -> None:
        original(self, _server() if ".blob." in account_url else account_url, credential, **more)

    client.__init__ = __init__


def _keys(module: ModuleType) -> None:
    """The registry's keys are asked of `management.azure.com`."""
    original = module.make_http_request

    def make_http_request(method: str, url: str, *arguments: Any, **more: Any) -> Any:
        return original(method, url.replace("https://management.azure.com", _server()), *arguments, **more)

    module.make_http_request = make_http_request  # type: ignore[attr-defined]


def _sign_in(module: ModuleType) -> None:
    """Whatever a program signs in with, it is the tests' own way."""
    if not os.environ.get("AZUREML_DEBUG_TEST_SIGN_IN"):
        return
    own = import_module("azureml_server_authentication").ServerAuthentication
    for name in ("InteractiveLoginAuthentication", "ServicePrincipalAuthentication", "MsiAuthentication"):
        setattr(module, name, type(name, (own,), {"__module__": module.__name__}))


def _flush_at_exit(module: ModuleType) -> None:
    """What a step has logged is sent before it ends, which on a node is the work of the wrapper around the script."""
    if not os.environ.get("AZUREML_RUN_ID"):
        return
    import threading

    def flush() -> None:
        for run in list(module._SubmittedRun._SubmittedRun__instances.values()):
            thread = threading.Thread(target=run.flush, kwargs={"timeout_seconds": 5}, daemon=True)
            thread.start()
            thread.join(5)

    # Before the executors are shut down, which atexit comes too late for.
    threading._register_atexit(flush)  # type: ignore[attr-defined]


CHANGES = {
    "azureml._vendor.azure_storage.blob._blob_service_client": _storage,
    "azureml._model_management._util": _keys,
    "azureml.core.authentication": _sign_in,
    "azureml.core.run": _flush_at_exit,
}


class _Changing(Loader):
    def __init__(self, loader: Any, name: str) -> None:
        self._loader, self._name = loader, name

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        CHANGES[self._name](module)


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name not in CHANGES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Changing(spec.loader, name)
        return spec


def _next() -> None:
    """The sitecustomize that this one hides."""
    own = os.path.dirname(os.path.abspath(__file__))
    places = [os.path.abspath(entry) for entry in sys.path]
    spec = PathFinder.find_spec("sitecustomize", sys.path[places.index(own) + 1 :] if own in places else [])
    if spec is not None and spec.loader is not None and spec.origin != __file__:
        from importlib.util import module_from_spec

        spec.loader.exec_module(module_from_spec(spec))


def _resolve_names() -> None:
    """Names below `localhost` are this machine, as RFC 6761 has it; glibc knows only `localhost` itself."""
    import socket

    original = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **more: Any) -> Any:
        named = isinstance(host, str) and host.endswith(".localhost")
        return original("127.0.0.1" if named else host, *arguments, **more)

    socket.getaddrinfo = getaddrinfo


if _server():
    _resolve_names()
    sys.meta_path.insert(0, _Finder())
_next()

if "AZUREML_DEBUG_TEST_SILENT_SECONDS" in os.environ:
    # What gives up a silent link does so sooner, wherever it runs.
    from workflows.remote import keepalive

    keepalive.SILENT_SECONDS = float(os.environ["AZUREML_DEBUG_TEST_SILENT_SECONDS"])
    keepalive.ASK_SECONDS = keepalive.SILENT_SECONDS / 6
