"""Snapshots of source folders."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from .state import SNAPSHOTS, State
from .web import HttpError, Request, Response, Route, not_found, route


class Snapshots:
    def __init__(self, state: State) -> None:
        self._state = state
        self._uploads = 0
        self._trees: dict[str, dict[str, Any]] = {}

    def routes(self) -> list[Route]:
        return [
            route("GET", "/content/v1.0{ws}/snapshots/latest/metadata", self.latest),
            route("GET", "/content/v1.0{ws}/snapshots/{snapshot}/metadata", self.metadata),
            route("POST", "/content/v2.0{ws}/snapshots/getblob", self.places),
            route("POST", "/content/v2.0{ws}/snapshots/{snapshot}", self.create),
        ]

    def latest(self, request: Request) -> Any:
        """Of the latest snapshot the client sends only what is new. An empty root is the one that it takes for none."""
        with self._state.lock:
            if not self._trees:
                return {"root": {}, "id": None}
            latest = list(self._trees)[-1]
            return {"root": self._trees[latest], "id": latest}

    def metadata(self, request: Request) -> Any:
        tree = self._trees.get(request["snapshot"])
        if tree is None:
            raise not_found(f"The snapshot {request['snapshot']}")
        return {"root": tree, "id": request["snapshot"]}

    def places(self, request: Request) -> Any:
        with self._state.lock:
            self._uploads += 1
            base = f"{self._state.url}/{SNAPSHOTS}/{self._uploads}"
        names = request.json["FileNames"]
        return {"fileNodes": [{"fullName": name, "blobUri": f"{base}/{quote(name)}?sig=x"} for name in names]}

    def create(self, request: Request) -> Any:
        """A snapshot is made of its parent's files, as far as they are still there, and of those that were sent."""
        body, base = request.json, f"{self._state.url}/{SNAPSHOTS}/"
        files = dict(self._state.snapshots.get(body.get("ParentSnapshotId") or "", {}))
        for node in body["FileRevisionList"]["FileNodes"]:
            blob = unquote(node["BlobUri"].removeprefix(base).split("?")[0])
            if not self._state.file(SNAPSHOTS, blob).is_file():
                raise HttpError(400, "UserError", f"{node['FullName']} was not uploaded.")
            files[node["FullName"]] = blob
        present = set(_names(body["DirTreeNode"]))
        with self._state.lock:
            kept = {name: blob for name, blob in files.items() if name in present}
            self._state.snapshots[request["snapshot"]] = kept
            self._trees[request["snapshot"]] = body["DirTreeNode"]
        return Response(200, b"{}")


def _names(node: dict[str, Any], place: str = "") -> list[str]:
    """The files of a tree."""
    found = []
    for name, child in (node.get("children") or {}).items():
        if str(child.get("type", "")).lower() == "directory" or child.get("children"):
            found += _names(child, f"{place}{name}/")
        else:
            found.append(place + name)
    return found


def unpack(state: State, snapshot: str, folder: Path) -> None:
    """Write a snapshot's files into a folder."""
    for name, blob in state.snapshots[snapshot].items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(state.file(SNAPSHOTS, blob), target)
