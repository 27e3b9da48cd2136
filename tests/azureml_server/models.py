"""Registered models."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from .state import ARTIFACTS, State, now
from .web import HttpError, Request, Route, page, route


class Models:
    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[Route]:
        base = "/modelmanagement/v1.0{ws}"
        return [
            route("POST", f"{base}/assets", self.make_asset),
            route("GET", f"{base}/assets/{{asset}}", self.asset),
            route("POST", f"{base}/models", self.register),
            route("GET", f"{base}/models", self.listed),
            route("GET", f"{base}/models/{{model}}", self.model),
        ]

    def make_asset(self, request: Request) -> Any:
        asset = {**request.json, "id": str(uuid.uuid4()), "createdTime": now()}
        self._state.assets[asset["id"]] = asset
        return asset

    def asset(self, request: Request) -> Any:
        asset = self._state.assets.get(request["asset"])
        if asset is None:
            raise HttpError(404, "NotFound", f"The asset {request['asset']} was not found.")
        return asset

    def register(self, request: Request) -> Any:
        body = request.json
        with self._state.lock:
            version = 1 + sum(one["name"] == body["name"] for one in self._state.models.values())
            model = {
                "framework": "Custom",
                "kvTags": {},
                "properties": {},
                "datasets": [],
                "unpack": False,
                **{name: value for name, value in body.items() if value is not None},
                "id": f"{body['name']}:{version}",
                "version": version,
                "createdTime": now(),
                "modifiedTime": now(),
            }
            self._state.models[model["id"]] = model
            return model

    def listed(self, request: Request) -> Any:
        wanted = request.query.get("name")
        with self._state.lock:
            found = [one for one in self._state.models.values() if wanted in (None, one["name"])]
        return page(sorted(found, key=lambda one: -int(one["version"])))

    def model(self, request: Request) -> Any:
        return find_model(self._state, request["model"])


def find_model(state: State, model_id: str) -> dict[str, Any]:
    """A model by `NAME:VERSION`."""
    model = state.models.get(model_id)
    if model is None:
        raise HttpError(404, "ModelNotFound", f"The model with id {model_id} was not found.")
    return model


def model_files(state: State, model: dict[str, Any]) -> dict[str, Path]:
    """A model's files, by their names below the model's folder."""
    asset = state.assets[str(model["url"]).removeprefix("aml://asset/")]
    found = {}
    for artifact in asset["artifacts"]:
        prefix = str(artifact.get("prefix") or artifact.get("id"))
        parent = prefix.rpartition("/")[0] + "/"
        found.update({name.removeprefix(parent): path for name, path in state.files(ARTIFACTS, prefix).items()})
    return found
