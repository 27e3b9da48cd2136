"""The workspace's registry, which the Docker engine pulls from."""

from __future__ import annotations

import base64
import hashlib
import json
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from .state import State
from .web import Request, Response, Route, route
from .workspace import REGISTRY_PASSWORD, REGISTRY_USER

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_ASKS = {"WWW-Authenticate": 'Basic realm="registry"', "Docker-Distribution-Api-Version": "registry/2.0"}


class Registry:
    def __init__(self, state: State) -> None:
        self._folder = state.root / "registry"
        self._folder.mkdir(exist_ok=True)
        self._manifests: dict[tuple[str, str], bytes] = {}

    def routes(self) -> list[Route]:
        found = [route("GET", "/v2", self.hello, authorized=False)]
        for method in ("GET", "HEAD"):
            found += [
                route(method, "/v2/(?P<name>.+)/manifests/{reference}", self.manifest, authorized=False),
                route(method, "/v2/(?P<name>.+)/blobs/{digest}", self.blob, authorized=False),
            ]
        return found

    def hello(self, request: Request) -> Response:
        return self._refused(request) or Response(200, b"{}")

    def manifest(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused:
            return refused
        manifest = self._manifests.get((request["name"], request["reference"]))
        if manifest is None:
            return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        return Response(200, manifest, {"Docker-Content-Digest": _digest(manifest)}, MANIFEST)

    def blob(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused:
            return refused
        path = self._folder / request["digest"].removeprefix("sha256:")
        if not path.is_file():
            return _error(404, "BLOB_UNKNOWN", "blob unknown")
        headers = {"Docker-Content-Digest": request["digest"]}
        return Response(200, b"", headers, "application/octet-stream", file=path)

    def _refused(self, request: Request) -> Response | None:
        wanted = base64.b64encode(f"{REGISTRY_USER}:{REGISTRY_PASSWORD}".encode()).decode()
        if request.headers.get("authorization") == f"Basic {wanted}":
            return None
        return _error(401, "UNAUTHORIZED", "authentication required", _ASKS)

    def put(self, name: str, tag: str, archive: Iterable[bytes]) -> str:
        """Keep an image, which the engine has saved as an archive, under a name; its digest."""
        with tempfile.TemporaryFile(dir=self._folder) as file:
            for part in archive:
                file.write(part)
            file.seek(0)
            with tarfile.open(fileobj=file) as tar:
                index = json.load(_member(tar, "manifest.json"))[0]
                config = self._keep(_member(tar, index["Config"]))
                layers = [self._keep(_member(tar, layer)) for layer in index["Layers"]]
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": "application/vnd.docker.container.image.v1+json", **config},
                "layers": [
                    # They are not compressed, which the engine sees for itself.
                    {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", **layer}
                    for layer in layers
                ],
            }
        ).encode()
        for reference in (tag, _digest(manifest)):
            self._manifests[name, reference] = manifest
        return _digest(manifest)

    def _keep(self, source: IO[bytes]) -> dict[str, Any]:
        digest, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as target:
            while part := source.read(1 << 20):
                digest.update(part)
                size += len(part)
                target.write(part)
        Path(target.name).replace(self._folder / digest.hexdigest())
        return {"size": size, "digest": f"sha256:{digest.hexdigest()}"}


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    member = tar.extractfile(name)
    assert member is not None, name
    return member


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()
    return Response(status, body, headers or {})
