"""Artifacts: the files of runs. What is in them is fetched from the storage account, see `storage`."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from .state import ARTIFACTS, LOG_FOLDERS, State
from .web import Request, Response, Route, not_found, page, route


class Artifacts:
    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[Route]:
        place = "/artifact/v2.0{ws}/artifacts"
        return [
            route("GET", f"{place}/contentinfo/{{origin}}/{{container}}/{{path*}}", self.content_info),
            route("GET", f"{place}/write/{{origin}}/{{container}}/{{path*}}", self.content_info),
            route("GET", f"{place}/prefix/contentinfo/{{origin}}/{{container}}/{{path*}}", self.prefix),
            route("GET", f"{place}/prefix/contentinfo/{{origin}}/{{container}}", self.prefix),
            route("POST", f"{place}/batch/metadata/{{origin}}/{{container}}", self.create),
            route("GET", f"{place}/metadata/{{origin}}/{{container}}/{{path*}}", self.metadata),
            route("GET", f"{place}/content/{{origin}}/{{container}}/{{path*}}", self.content),
            route("GET", f"{place}/{{origin}}/{{container}}/{{path*}}", self.listed),
            route("GET", f"{place}/{{origin}}/{{container}}", self.listed),
        ]

    def _info(self, origin: str, container: str, path: str) -> dict[str, Any]:
        address = f"{self._state.url}/{ARTIFACTS}/{quote(f'{origin}/{container}/{path}')}?sig=x"
        return {"contentUri": address, "origin": origin, "container": container, "path": path}

    def _dto(self, origin: str, container: str, path: str) -> dict[str, Any]:
        return {
            "artifactId": f"{origin}/{container}/{path}",
            "origin": origin,
            "container": container,
            "path": path,
            "etag": None,
            "createdTime": None,
            "dataPath": None,
        }

    def _paths(self, request: Request) -> list[str]:
        start = f"{request['origin']}/{request['container']}/"
        names = self._state.files(ARTIFACTS, start + request.names.get("path", ""))
        return [name.removeprefix(start) for name in names]

    def _known(self, request: Request) -> tuple[str, str, str]:
        origin, container, path = request["origin"], request["container"], request["path"]
        if not self._state.file(ARTIFACTS, f"{origin}/{container}/{path}").is_file():
            raise not_found(f"The artifact {path}")
        return origin, container, path

    def content_info(self, request: Request) -> Any:
        return self._info(*self._known(request))

    def metadata(self, request: Request) -> Any:
        return self._dto(*self._known(request))

    def content(self, request: Request) -> Any:
        path = self._state.file(ARTIFACTS, "/".join(self._known(request)))
        return Response(200, path.read_bytes(), type="application/octet-stream")

    def prefix(self, request: Request) -> Any:
        return page([self._info(request["origin"], request["container"], path) for path in self._paths(request)])

    def listed(self, request: Request) -> Any:
        return page([self._dto(request["origin"], request["container"], path) for path in self._paths(request)])

    def create(self, request: Request) -> Any:
        origin, container = request["origin"], request["container"]
        paths = [one["path"] for one in request.json["paths"]]
        for path in paths:
            # A log shows once it has something to show.
            if not path.startswith(LOG_FOLDERS):
                target = self._state.file(ARTIFACTS, f"{origin}/{container}/{path}")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
        return {
            "artifacts": {path: self._dto(origin, container, path) for path in paths},
            "artifactContentInformation": {path: self._info(origin, container, path) for path in paths},
            "errors": {},
        }
