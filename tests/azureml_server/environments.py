"""Registered environments."""

from __future__ import annotations

from typing import Any

from .state import State
from .web import HttpError, Request, Route, page, route
from .workspace import REGISTRY_PASSWORD, REGISTRY_USER


class Environments:
    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[Route]:
        place = "/environment/v[12].0{ws}/environments"
        return [
            route("GET", place, self.listed),
            route("GET", f"{place}/{{name}}", self.get),
            route("PUT", f"{place}/{{name}}", self.put),
            route("GET", f"{place}/{{name}}/versions/{{version}}", self.get),
            route("PUT", f"{place}/{{name}}/versions/{{version}}", self.put),
            route("GET", f"{place}/{{name}}/labels/{{label}}", self.get),
            route("PUT", f"{place}/{{name}}/versions/{{version}}/metadata", lambda request: {}),
            route("GET", f"{place}/{{name}}/image", self.image),
            route("GET", f"{place}/{{name}}/versions/{{version}}/image", self.image),
        ]

    def listed(self, request: Request) -> Any:
        with self._state.lock:
            return page([versions[-1] for versions in self._state.environments.values()])

    def get(self, request: Request) -> Any:
        with self._state.lock:
            versions = self._state.environments.get(request["name"], [])
            wanted = request.names.get("version")
            for one in reversed(versions):
                if wanted is None or one["version"] == wanted:
                    return one
        raise HttpError(404, "UserError", f"No environment exists for name: {request['name']}, version: {wanted}")

    def put(self, request: Request) -> Any:
        """A definition gets a version of its own, but for one that is the latest already."""
        body = {name[0].lower() + name[1:]: value for name, value in request.json.items() if name != "Name"}
        with self._state.lock:
            versions = self._state.environments.setdefault(request["name"], [])
            latest = versions[-1] if versions else {}
            if all(latest.get(name) == value for name, value in body.items()) and "version" not in request.names:
                return latest
            version = request.names.get("version") or str(len(versions) + 1)
            versions.append({"name": request["name"], "version": version, **body})
            return versions[-1]

    def image(self, request: Request) -> Any:
        environment = self.get(request)
        host = self._state.url.removeprefix("http://")
        name = f"azureml/azureml_{environment['name'].lower()}_{environment['version']}"
        return {
            "imageExistsInRegistry": False,
            "dockerImage": {
                "name": name,
                "registry": {"address": host, "username": REGISTRY_USER, "password": REGISTRY_PASSWORD},
            },
            "ingredients": {
                "dockerfile": f"FROM {(environment.get('docker') or {}).get('baseImage')}\n",
                "condaEnvironment": (environment.get("python") or {}).get("condaDependencies"),
            },
            "vendor": None,
        }
