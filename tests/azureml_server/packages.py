"""Packaged models: images that the local engine builds from what the client sends, or their build contexts."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import tarfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docker.errors import NotFound

from .images import build_environment, build_folder, connected
from .models import find_model, model_files
from .registry import Registry
from .state import ARTIFACTS, State
from .web import HttpError, Request, Response, Route, not_found, route

APP = "/var/azureml-app"


class Packages:
    """Args:
    state: The workspace.
    registry: Where images go.
    fails: Asked before a build: what it is to fail with, or nothing.
    """

    def __init__(self, state: State, registry: Registry, fails: Callable[[], str] = lambda: "") -> None:
        self._state, self._registry, self._fails = state, registry, fails

    def routes(self) -> list[Route]:
        return [
            route("POST", "/modelmanagement/v1.0{ws}/packages", self.make),
            route("GET", "/modelmanagement/v1.0{ws}/operations/{operation}", self.operation),
        ]

    def make(self, request: Request) -> Any:
        body, found = request.json, uuid.uuid4().hex
        for model in body["imageRequest"].get("modelIds") or []:
            find_model(self._state, model)
        if not body["imageRequest"].get("environment"):
            raise HttpError(400, "UserError", "An environment is needed here.")
        wants_context = body["packageType"] == "DockerBuildContext"
        operation = {
            "id": found,
            "operationType": "PackageDockerBuildContext" if wants_context else "PackageDockerImage",
            "state": "NotStarted",
            "operationLog": f"{self._state.url}/{ARTIFACTS}/packages/{found}/build.log?sig=x",
        }
        self._state.operations[found] = operation
        threading.Thread(target=self._work, args=(operation, body), daemon=True).start()
        location = f"{self._state.url}/modelmanagement/v1.0{self._state.scope}/operations/{found}"
        return Response(202, b"", {"Operation-Location": location})

    def operation(self, request: Request) -> Any:
        operation = self._state.operations.get(request["operation"])
        if operation is None:
            raise not_found(f"The operation {request['operation']}")
        return dict(operation)

    # The work

    def _work(self, operation: dict[str, Any], body: dict[str, Any]) -> None:
        log = self._state.file(ARTIFACTS, f"packages/{operation['id']}/build.log")
        log.parent.mkdir(parents=True)

        def report(line: str) -> None:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y/%m/%d %H:%M:%S')} {line}\n")

        operation["state"] = "Running"
        try:
            reason = self._fails()
            if reason:
                raise RuntimeError(reason)
            location = self._package(operation, body, report)
        except Exception as error:
            report(f"ERROR: {error}")
            operation["error"] = {"statusCode": 400, "code": "ImageBuildFailed", "message": str(error)}
            operation["state"] = "Failed"
        else:
            operation["resourceLocation"] = location
            operation["state"] = "Succeeded"

    def _package(self, operation: dict[str, Any], body: dict[str, Any], report: Callable[[str], None]) -> str:
        state, wanted = self._state, body["imageRequest"]
        host = state.url.removeprefix("http://")
        context = state.root / "packages" / operation["id"]
        context.mkdir(parents=True)
        environment = wanted["environment"]
        with connected() as client:
            report("Building the environment's image")
            base = build_environment(client, environment, state.root / "environments", report)
            if operation["operationType"] == "PackageDockerBuildContext":
                repository = f"azureml/azureml_{operation['id']}"
                self._registry.put(repository, "latest", client.images.get(base).save(named=True))
                self._app(context, wanted)
                (context / "Dockerfile").write_text(_dockerfile(f"{host}/{repository}:latest", wanted))
                return self._manifest(operation, context, environment)
            self._app(context, wanted)
            (context / "Dockerfile").write_text(_dockerfile(base, wanted))
            report("Building the package's image")
            built = f"azureml-debug-packages/{operation['id']}:latest"
            try:
                build_folder(client, context, built, report)
                name = body.get("imageName") or "package"
                tag = body.get("imageLabel") or time.strftime("%Y%m%d%H%M%S")
                report(f"Pushing {host}/{name}:{tag}")
                digest = self._registry.put(name, tag, client.images.get(built).save(named=True))
            finally:
                # Two packages with the same content are one image, which another test may have taken away.
                with contextlib.suppress(NotFound):
                    client.api.remove_image(built, force=True)
            report(f"{tag}: digest: {digest}")
        return f"{host}/{name}:{tag}"

    def _app(self, context: Path, wanted: dict[str, Any]) -> None:
        """The sources, the SDK's driver program and the models, as they lie in the image."""
        app = context / "azureml-app"
        app.mkdir()
        for asset in wanted.get("assets") or []:
            source = self._state.file(ARTIFACTS, asset["url"].removeprefix("aml://artifact/"))
            if asset.get("unpack"):
                with tarfile.open(source) as tar:
                    tar.extractall(app, filter="data")
            else:
                shutil.copyfile(source, app / Path(asset["id"]).name)
        driver = wanted.get("driverProgram")
        if driver and (app / driver).is_file():
            (app / driver).replace(app / "main.py")
        for model_id in wanted.get("modelIds") or []:
            model = find_model(self._state, model_id)
            for name, path in model_files(self._state, model).items():
                target = app / "azureml-models" / model["name"] / str(model["version"]) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)

    def _manifest(self, operation: dict[str, Any], context: Path, environment: dict[str, Any]) -> str:
        """Where the client reads what belongs to a context, and the folder that it unpacks."""
        place = f"packages/{operation['id']}"
        archive = self._state.file(ARTIFACTS, f"LocalUpload/{place.replace('/', '-')}/context.tar.gz")
        archive.parent.mkdir(parents=True)
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(context / "azureml-app", "azureml-app")
        text = base64.b64encode((context / "Dockerfile").read_bytes()).decode()
        manifest = {
            "context": [
                {"entryType": "inline", "path": "Dockerfile", "encoding": "base64", "content": text},
                {
                    "entryType": "remote",
                    "path": ".",
                    "uri": f"aml://artifact/LocalUpload/{place.replace('/', '-')}/context.tar.gz",
                    "unpack": True,
                },
            ],
            "environment": None,
        }
        path = self._state.file(ARTIFACTS, f"{place}/manifest.json")
        path.write_text(json.dumps(manifest))
        return f"{self._state.url}/{ARTIFACTS}/{place}/manifest.json?sig=x"


def _dockerfile(base: str, wanted: dict[str, Any]) -> str:
    variables = {
        str(name): str(value) for name, value in (wanted["environment"].get("environmentVariables") or {}).items()
    }
    models = wanted.get("modelIds") or []
    folder = f"/{models[0].replace(':', '/')}" if len(models) == 1 else ""
    variables["AZUREML_MODEL_DIR"] = f"{APP}/azureml-models{folder}"
    lines = [f"ENV {name}={json.dumps(value)}" for name, value in variables.items()]
    return "\n".join(
        [
            f"FROM {base}",
            f"COPY azureml-app {APP}",
            f"RUN chmod -R a+rwX {APP}",
            *lines,
            # What the program tells its own environments by would be inherited.
            'LABEL azureml-debug.kind="" azureml-debug.digest="" azureml-debug.environment="" azureml-debug.live=""',
            f"WORKDIR {APP}",
            "EXPOSE 5001",
            'CMD ["runsvdir", "/var/runit"]',
            "",
        ]
    )
