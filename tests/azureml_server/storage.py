"""The storage account: blobs in containers, read in parts as they grow."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import threading
from email.utils import formatdate
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from .state import ARTIFACTS, DATASTORE, SNAPSHOTS, State
from .tokens import claims_of
from .web import Request, Response, Route, route

#: The key of the storage account.
ACCOUNT_KEY = base64.b64encode(b"the key of the account").decode()


class Storage:
    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._blocks: dict[tuple[Path, str], bytes] = {}
        self._metadata: dict[Path, dict[str, str]] = {}

    def routes(self) -> list[Route]:
        found = []
        for name in (ARTIFACTS, DATASTORE, SNAPSHOTS):
            container = f"/(?P<container>{name})"
            found += [
                route("GET", container, self.listed, authorized=False),
                route("GET", f"{container}/{{blob*}}", self.get, authorized=False),
                route("HEAD", f"{container}/{{blob*}}", self.get, authorized=False),
                route("PUT", f"{container}/{{blob*}}", self.put, authorized=False),
                route("DELETE", f"{container}/{{blob*}}", self.delete, authorized=False),
            ]
        return found

    def _file(self, request: Request) -> Path:
        return self._state.file(request["container"], request["blob"])

    def _refused(self, request: Request) -> Response | None:
        """Why it is not open to whoever asks; with `state.open_storage` it is to all who do not sign wrongly."""
        authorization = request.headers.get("authorization", "")
        if authorization.startswith("Bearer "):
            audience = claims_of(authorization.removeprefix("Bearer ")).get("aud")
            if audience != "https://storage.azure.com":
                return _error(401, "InvalidAuthenticationInfo", f"The token is for {audience}.")
            return None
        if authorization.startswith("SharedKey "):
            if authorization == shared_key(request, self._state.url):
                return None
            return _error(403, "AuthenticationFailed", "The signature is not the one of this request.")
        if self._state.open_storage or "sig" in request.query:
            return None
        return _error(409, "PublicAccessNotPermitted", "Public access is not permitted on this storage account.")

    def get(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        path = self._file(request)
        if not path.is_file():
            return _error(404, "BlobNotFound", "The specified blob does not exist.")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            headers = {**_headers(path, size), **self._metadata.get(path, {})}
            expected = request.headers.get("if-match")
            if expected is not None and expected != headers["ETag"]:
                return _error(412, "ConditionNotMet", "The condition specified was not met.")
            wanted = request.headers.get("x-ms-range") or request.headers.get("range")
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
            if match is None or request.method == "HEAD":
                return Response(200, file.read(size), headers, "application/octet-stream")
            start, end = int(match[1]), min(int(match[2] or size), size - 1)
            if start >= size:
                return _error(
                    416, "InvalidRange", "The range is not satisfiable.", {"Content-Range": f"bytes */{size}"}
                )
            file.seek(start)
            headers["Content-Range"] = f"bytes {start}-{end}/{size}"
            return Response(206, file.read(end - start + 1), headers, "application/octet-stream")

    def put(self, request: Request) -> Response:
        path, kind = self._file(request), request.query.get("comp")
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "block":
            with self._lock:
                self._blocks[path, request.query["blockid"]] = request.body
        elif kind == "metadata":
            told = {name: value for name, value in request.headers.items() if name.startswith("x-ms-meta-")}
            self._metadata[path] = told
            return Response(200, b"", {name: value for name, value in _headers(path, 0).items() if name == "ETag"})
        elif kind == "blocklist":
            names = [node.text or "" for node in ElementTree.fromstring(request.body)]
            with self._lock:
                path.write_bytes(b"".join(self._blocks.pop((path, name)) for name in names))
        elif kind == "appendblock":
            with self._lock, path.open("ab") as file:
                file.write(request.body)
        elif kind is None:
            path.write_bytes(request.body)
        digest = base64.b64encode(hashlib.md5(request.body, usedforsecurity=False).digest()).decode()
        headers = {"Content-MD5": digest, "x-ms-request-server-encrypted": "true"}
        if path.exists():
            headers |= {name: value for name, value in _headers(path, 0).items() if name in ("ETag", "Last-Modified")}
        return Response(201, b"", headers)

    def delete(self, request: Request) -> Response:
        self._file(request).unlink(missing_ok=True)
        return Response(202)

    def listed(self, request: Request) -> Any:
        refused = self._refused(request)
        if refused is not None:
            return refused
        blobs, count, next_ = "", int(request.query.get("maxresults", "5000")), ""
        for name, path in self._found(request).items():
            if not count:
                next_ = name
                break
            count -= 1
            size = self._state.sizes.get(name, path.stat().st_size)
            values = {**_headers(path, path.stat().st_size), "Content-Length": str(size)}
            values |= {"Content-Type": "application/octet-stream", "BlobType": "BlockBlob"}
            values.pop("Accept-Ranges"), values.pop("x-ms-blob-type")
            properties = "".join(f"<{key}>{escape(value.strip(chr(34)))}</{key}>" for key, value in values.items())
            marks = {key.removeprefix("x-ms-meta-"): value for key, value in self._metadata.get(path, {}).items()}
            more = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in marks.items())
            blobs += (
                f"<Blob><Name>{escape(name)}</Name><Properties>{properties}</Properties>"
                f"<Metadata>{more}</Metadata></Blob>"
            )
        text = (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="{self._state.url}/"'
            f' ContainerName="{request["container"]}"><Blobs>{blobs}</Blobs>'
            f"<NextMarker>{escape(next_)}</NextMarker></EnumerationResults>"
        )
        return Response(200, text.encode(), type="application/xml")

    def _found(self, request: Request) -> dict[str, Path]:
        """The blobs from the marker on, with those that are only in a listing."""
        prefix, marker = request.query.get("prefix", ""), request.query.get("marker", "")
        found = {**self._state.files(request["container"], prefix), **self._state.listed_only}
        return {name: found[name] for name in sorted(found) if name.startswith(prefix) and name >= marker}


def shared_key(request: Request, url: str) -> str:
    """The header of a request that is signed by the account's key (Azure's manual: Authorize with Shared Key)."""
    headers = {name: value for name, value in request.headers.items() if name.startswith("x-ms-")}
    query = "".join(f"\n{name}:{value}" for name, value in sorted(request.query.items()))
    empty = "\n" * 6
    to_sign = (
        f"{request.method}\n{empty}\n{request.headers.get('if-match', '')}\n\n\n{request.headers.get('range', '')}\n"
        + "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        + f"/storage{request.path}{query}"
    )
    digest = hmac.new(base64.b64decode(ACCOUNT_KEY), to_sign.encode(), hashlib.sha256).digest()
    return f"SharedKey storage:{base64.b64encode(digest).decode()}"


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Response(status, text.encode(), {"x-ms-error-code": code, **(headers or {})}, "application/xml")


def _headers(path: Path, size: int) -> dict[str, str]:
    modified = path.stat().st_mtime
    return {
        "ETag": f'"{modified:.6f}-{size}"',
        "Last-Modified": formatdate(modified, usegmt=True),
        "Accept-Ranges": "bytes",
        "x-ms-blob-type": "BlockBlob",
    }
