"""Registered datasets, and data assets of SDK v2."""

from __future__ import annotations

import json
from typing import Any

from .state import State
from .web import Request, Route, not_found, route


class Datasets:
    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[Route]:
        return [
            route("GET", "/dataset/v1.0{ws}/datasets/query/name={name}", self.dataset),
            route("GET", "/data/v1.0{ws}/dataversion/{name}/versions/{version}", self.asset),
        ]

    def dataset(self, request: Request) -> Any:
        versions = self._state.datasets.get(request["name"], [])
        number = int(request.query.get("versionId") or len(versions))
        if not 0 < number <= len(versions):
            raise not_found(f"The dataset {request['name']}")
        return {
            "datasetId": request["name"],
            "name": request["name"],
            "datasetType": "file" if len(versions[number - 1]) == 1 else "tabular",
            "latest": {
                "datasetId": request["name"],
                "versionId": str(number),
                "dataflow": json.dumps({"blocks": versions[number - 1]}),
                "savedDatasetId": f"{request['name']}-{number}",
            },
        }

    def asset(self, request: Request) -> Any:
        found = self._state.data_assets.get((request["name"], request["version"]))
        if found is None:
            raise not_found(f"The data asset {request['name']}")
        return {"dataVersion": found, "isV2": True}
