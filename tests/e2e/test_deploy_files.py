"""Online deployments as Azure ML's own files describe them: served and stopped at a breakpoint, on both engines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deployment_files import BLUE, OWN, SCORE, SCORE_LINE, make
from projects import ANY_ENGINE, Project, post

from workflows.debugger.dap import DapClient

APP = """import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FACTOR = int(Path(os.environ["AZUREML_MODEL_DIR"], "model", "weights.txt").read_text())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({}, 200 if self.path == "/ready" else 404)

    def do_POST(self):
        numbers = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["data"]
        total = sum(numbers)
        answer = total * FACTOR
        self.answer({"answer": answer, "path": self.path, "greeting": os.environ["GREETING"]})

    def answer(self, value, status=200):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
#: The line of APP at which `total` is known and `answer` is not.
APP_LINE = 16
#: The one at which the model is read, before anything serves.
FACTOR_LINE = 6
DOCKERFILE = 'FROM azureml-debug/base:latest\nWORKDIR /srv/app\nCOPY app .\nCMD ["python3", "main.py"]\n'


@pytest.fixture
def files(project: Project) -> Iterator[Project]:
    """A project with a deployment's files."""
    make(project.folder, own=OWN)
    image = project.folder / "endpoints" / "image"
    (image / "app").mkdir(parents=True)
    (image / "app" / "main.py").write_text(APP)
    (image / "Dockerfile").write_text(DOCKERFILE)
    (project.folder / "request.json").write_text('{"data": [1, 2]}')
    yield project


def stopped_at(project: Project, debug: dict[str, Any], file: Path, line: int) -> dict[str, Any]:
    """Stop at a line by the path mappings that an editor is given, during one request."""
    from services import Posting, stop_of, value_of

    client = DapClient.connect("127.0.0.1", debug["debug"]["port"], 20)
    client.attach(path_mappings=debug["path_mappings"], breakpoints={str(file): [line]}, timeout=30)
    posting = Posting(debug["scoring_url"], {"data": [1, 2]})
    frame = stop_of(client)
    seen = {"line": frame["line"], "source": frame["source"]["path"], "total": value_of(client, frame, "total")}
    client.disconnect()
    return {**seen, "answer": posting.finish()}


def test_a_deployments_file_alone_leads_to_a_breakpoint_in_its_script(files: Project) -> None:
    # The model is a link that leads out of its folder.
    weights = files.folder / "model-1" / "model" / "weights.txt"
    shared = files.folder / "model-1" / "shared"
    shared.mkdir()
    weights.rename(shared / "weights.txt")
    weights.symlink_to("../shared/weights.txt")
    debug = files.debug("--deployment", "endpoints/blue.yml")
    assert (debug["deployment"], debug["endpoint"]) == ("blue", "numbers")
    script = files.folder / "model-1" / "scoring" / "score.py"
    seen = stopped_at(files, debug, script, SCORE_LINE)
    assert seen == {
        "line": SCORE_LINE,
        "source": str(script),
        "total": "3",
        "answer": {"answer": 21, "greeting": "hello"},
    }
    # The other commands go by the service, with and without the file among the settings.
    script.write_text(SCORE.replace("total * model", "total * model + 1"))
    files.ok("deploy.reload", AML_DEPLOYMENT_FILE="endpoints/blue.yml")
    assert post(debug["scoring_url"], {"data": [1, 2]})["answer"] == 22
    (files.folder / "endpoints" / "blue.yml").write_text("name: [\n")
    files.ok("deploy.reload", AML_DEPLOYMENT_FILE="endpoints/blue.yml")
    place = f"model-1/scoring/score.py:{SCORE_LINE}"
    inspected = files.ok("deploy.inspect", place, "--request", "request.json", "--json").json
    assert inspected["locals"]["total"] == "3" and inspected["response"]["body"]["answer"] == 22
    assert files.ok("container.stop", "--json", AML_DEPLOYMENT_FILE="endpoints/blue.yml").json["stopped"]


def test_an_image_that_serves_by_itself_is_stopped_in_its_own_program_and_given_up_when_it_does_not_get_ready(
    files: Project, image_of_its_own: Callable[[Project, str], None]
) -> None:
    own = "endpoints/own.yml"
    if files.environ["AML_ENGINE"] != "docker":
        files.inv("deploy.debug", "--deployment", own).says("serves by itself", "needs Docker", "AML_ENGINE=docker")
        return
    image_of_its_own(files, "debug-that-serves-by-itself:1")
    debug = files.debug("--deployment", own)
    assert debug["scoring_url"].endswith("/predict")
    main = files.folder / "endpoints" / "image" / "app" / "main.py"
    seen = stopped_at(files, debug, main, APP_LINE)
    expected = {"answer": 21, "path": "/predict", "greeting": "hello"}
    assert seen == {"line": APP_LINE, "source": str(main), "total": "3", "answer": expected}
    again = files.ok("deploy.reload")
    assert "its code is in the image" in again.out
    place = f"endpoints/image/app/main.py:{APP_LINE}"
    inspected = files.ok("deploy.inspect", place, "--request", "request.json", "--json").json
    assert inspected["locals"]["total"] == "3" and inspected["response"]["body"] == expected
    files.ok("container.stop")
    held = files.debug("--deployment", own, "--wait")
    place = f"endpoints/image/app/main.py:{FACTOR_LINE}"
    inspected = files.ok("deploy.inspect", place, "--request", "request.json", "--json").json
    assert inspected["stopped"]["line"] == FACTOR_LINE and inspected["response"]["body"] == expected
    assert held["scoring_url"].endswith("/predict")
    files.ok("container.stop")
    an_image_that_never_gets_ready_is_given_up_with_the_end_of_its_log(files)


def an_image_that_never_gets_ready_is_given_up_with_the_end_of_its_log(files: Project) -> None:
    text = OWN.replace("/ready", "/nowhere") + "readiness_probe: {initial_delay: 1, period: 1, failure_threshold: 2}\n"
    (files.folder / "endpoints" / "own.yml").write_text(text)
    refused = files.inv("deploy.debug", "--deployment", "endpoints/own.yml")
    refused.says(
        "GET /nowhere on port 8080 (`readiness_route`) was not answered as it should within 3 s (`readiness_probe`)",
        "what came last: 404 Not Found, {}",
        "inv container.logs",
    )
    assert "GET /nowhere" in refused.err
    assert "No service" in files.ok("container.stop").out


#: Another port that says whether the program of APP is ready, by https, and that it is so from the third time on.
READY = """import http.server
import ssl
import subprocess
import threading


class Ready(http.server.BaseHTTPRequestHandler):
    times = 0

    def do_HEAD(self):
        Ready.times += self.path == "/up"
        self.send_response(204 if Ready.times > 2 else 503)
        self.end_headers()


make = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=nobody -days 2 -keyout /tmp/key -out /tmp/certificate"
subprocess.run(make.split(), check=True)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tmp/certificate", "/tmp/key")
server = http.server.ThreadingHTTPServer(("0.0.0.0", 9443), Ready)
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
"""


def test_a_probe_says_where_and_how_an_image_is_asked_whether_it_is_ready(
    files: Project, image_of_its_own: Callable[[Project, str], None]
) -> None:
    if files.environ["AML_ENGINE"] != "docker":
        pytest.skip("images take Docker")
    image_of_its_own(files, "debug-that-is-probed:1")
    (files.folder / "endpoints" / "image" / "app" / "main.py").write_text(READY + APP)
    where = "path: up, port: 9443, scheme: HTTPS, method: head"
    probe = f"{{{where}, period: 1, failure_threshold: 60, success_threshold: 2}}"
    own = f"{OWN}type: kubernetes\nreadiness_probe: {probe}\nliveness_probe: {{period: 1, failure_threshold: 1}}\n"
    (files.folder / "endpoints" / "own.yml").write_text(own)
    served = files.ok("deploy.debug", "--deployment", "endpoints/own.yml")
    assert "serves" in served.out
    assert "HEAD /up on port 9443 by https (`readiness_probe`): 204 No Content" in served.out
    # Its own liveness route is not there.
    assert "GET /alive on port 8080 (`liveness_route`) has not been answered as it should" in served.out
    assert "404 Not Found" in served.out


def test_what_a_deployment_would_run_is_shown_and_nothing_is_made(files: Project) -> None:
    shown = files.ok("deploy.debug", "--dry-run", "--json", "--deployment", "endpoints/blue.yml")
    found = {one["name"]: one for one in shown.json["findings"] if one["name"] != "note"}
    assert shown.json["ok"] and found["deployment"]["text"].startswith("blue of numbers (managed)")
    assert found["code"]["text"] == "score.py in model-1/scoring"
    assert found["model"]["text"] == "model-1/model as AZUREML_MODEL_DIR/model"
    assert "model-1/environment/conda.yml" in found["environment"]["text"]
    assert found["variables"]["text"] == "API_TOKEN=***, GREETING=hello"
    assert "nobody-sees-this" not in shown.out + shown.err
    assert not files.state.exists() or not (files.state / "session.json").exists()
    broken = BLUE.replace("../model-1/model\n", "../model-2/model\n").replace("score.py", "scor.py")
    (files.folder / "endpoints" / "blue.yml").write_text(broken)
    missing = files.inv("deploy.debug", "--dry-run", "--json", "--deployment", "endpoints/blue.yml")
    assert missing.code == 1 and not json.loads(missing.out.splitlines()[-1])["ok"]
    wrong = [one["text"] for one in missing.json["findings"] if one["ok"] is False]
    assert [text.partition(": error: ")[0] for text in wrong] == ["endpoints/blue.yml:5:3", "endpoints/blue.yml:8:3"]


@ANY_ENGINE
def test_a_registered_model_that_a_workspace_would_give_says_what_is_missing_for_that(files: Project) -> None:
    text = BLUE.replace("model:\n  path: ../model-1/model\n", "model: azureml:weights:1\n")
    (files.folder / "endpoints" / "blue.yml").write_text(text)
    named = ["deploy.debug", "--dry-run", "--deployment", "endpoints/blue.yml"]
    assert "would bring it" not in files.inv(*named).out
    files.environ |= {"AML_WORKSPACE": "ours", "AML_SDK": "v1"}
    refused = files.inv(*named)
    assert refused.code == 1 and "endpoints/blue.yml:4" in refused.out
    told = " ".join(refused.out.split())
    assert "SDK v2 can download it from the workspace, but AML_SDK=v1 is chosen. Set AML_SDK=v2. Or name" in told


def test_a_wrong_file_is_refused_before_anything_is_built(files: Project) -> None:
    broken = BLUE.replace("../model-1/model\n", "../model-2/model\n").replace("score.py", "scor.py")
    (files.folder / "endpoints" / "blue.yml").write_text(broken)
    refused = files.inv("deploy.debug", "--deployment", "endpoints/blue.yml")
    refused.says("endpoints/blue.yml:8:3: error: There is no scoring script", "Did you mean `score.py`?")
    assert "endpoints/blue.yml:5:3: error: The model " in refused.err
    assert "build " not in refused.out


def test_f5_does_the_chain_of_the_deployment_that_a_setting_names(files: Project) -> None:
    files.environ["AML_DEPLOYMENT_FILE"] = "endpoints/blue.yml"
    files.ok("vscode.setup")
    (configuration,) = [one for name, one in files.launch().items() if "Deployment" in name]
    mapping = configuration["pathMappings"][0]
    assert mapping["localRoot"] == "${workspaceFolder}/model-1/scoring"


MLFLOW = """name: tripling
endpoint_name: numbers
model:
  path: ../tripled
  type: mlflow_model
instance_type: Standard_DS3_v2
"""
MLMODEL = """flavors:
  python_function:
    code: code
    data: data.txt
    env: {conda: conda.yaml}
    loader_module: tripling
    python_version: 3.11.7
mlflow_version: 3.0.0
model_uuid: 0f5fcd4c2b7c4a86a4c5d5a9d3b5f1aa
"""
MLFLOW_ENVIRONMENT = """name: tripled
channels: [conda-forge]
dependencies:
  - python=3.11
  - pip
  - pip:
      - mlflow-skinny>=3,<4
      - pandas
"""
TRIPLING = """from pathlib import Path


class Tripling:
    def __init__(self, factor):
        self.factor = factor

    def predict(self, data, params=None):
        total = sum(data["x"])
        return [self.factor * number for number in data["x"]]


def _load_pyfunc(path):
    return Tripling(int(Path(path).read_text()))
"""


def test_a_model_of_mlflow_without_code_is_served_and_its_own_code_stops(files: Project) -> None:
    if files.environ["AML_ENGINE"] != "process":
        pytest.skip("an image with MLflow takes minutes: its environment is tried without Docker")
    model = files.folder / "tripled"
    contents = {"MLmodel": MLMODEL, "conda.yaml": MLFLOW_ENVIRONMENT, "data.txt": "3", "code/tripling.py": TRIPLING}
    for name, text in contents.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(text)
    (files.folder / "endpoints" / "tripled.yml").write_text(MLFLOW)
    (model / "conda.yaml").write_text(MLFLOW_ENVIRONMENT.replace("mlflow-skinny>=3,<4", "colorama"))
    refused = files.inv("deploy.debug", "--deployment", "endpoints/tripled.yml")
    refused.says("has no code, so MLflow has to serve its model", "does not ask for mlflow", "Add mlflow there")
    (model / "conda.yaml").write_text(MLFLOW_ENVIRONMENT)
    debug = files.debug("--deployment", "endpoints/tripled.yml")
    body = {"input_data": {"columns": ["x"], "index": [0, 1], "data": [[1], [2]]}}
    assert post(debug["scoring_url"], body) == [3, 6]
    (files.folder / "request.json").write_text(json.dumps(body))
    seen = files.ok("deploy.inspect", "tripled/code/tripling.py:10", "--request", "request.json", "--json").json
    assert seen["stopped"]["function"] == "predict" and seen["locals"]["total"] == "3"
    assert seen["response"] == {"status": 200, "body": [3, 6]}


def test_an_image_with_the_server_runs_as_it_is_and_one_without_is_refused(
    files: Project, image_of_its_own: Callable[[Project, str], None]
) -> None:
    if files.environ["AML_ENGINE"] != "docker":
        pytest.skip("images take Docker")
    image_of_its_own(files, "debug-of-an-image-as-it-is:1")
    file = files.folder / "endpoints" / "blue.yml"
    named = BLUE.replace("  conda_file: ../model-1/environment/conda.yml\n", "")
    file.write_text(named.replace("nowhere.invalid/azureml/base:latest", "azureml-debug/base:latest"))
    refused = files.inv("deploy.debug", "--deployment", "endpoints/blue.yml")
    refused.says("azureml-debug/base:latest has no inference server", "`conda_file`", "`inference_config`")
    said = files.ok("deploy.build").out
    image = next(word for word in said.split() if word.startswith("azureml-debug/inference:"))
    file.write_text(named.replace("nowhere.invalid/azureml/base:latest", image))
    debug = files.debug("--deployment", "endpoints/blue.yml")
    script = files.folder / "model-1" / "scoring" / "score.py"
    assert stopped_at(files, debug, script, SCORE_LINE)["answer"] == {"answer": 21, "greeting": "hello"}
