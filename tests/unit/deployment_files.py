"""Deployments in the style of Azure ML's own files, written for the tests."""

from __future__ import annotations

from pathlib import Path

SCORE = """import json
import os
from pathlib import Path

model = None


def init():
    global model
    model = int(Path(os.environ["AZUREML_MODEL_DIR"], "model", "weights.txt").read_text())


def run(raw_data):
    numbers = json.loads(raw_data)["data"]
    total = sum(numbers)
    answer = total * model
    return {"answer": answer, "greeting": os.environ.get("GREETING")}
"""
#: The line of SCORE at which `total` is known and `answer` is not.
SCORE_LINE = 16
CONDA = """name: scoring
channels: [conda-forge]
dependencies:
  - python=3.11
  - pip
  - pip:
      - azureml-inference-server-http
"""
BLUE = """$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: blue
endpoint_name: numbers
model:
  path: ../model-1/model
code_configuration:
  code: ../model-1/scoring
  scoring_script: score.py
environment:
  conda_file: ../model-1/environment/conda.yml
  image: nowhere.invalid/azureml/base:latest
environment_variables:
  GREETING: hello
  API_TOKEN: nobody-sees-this
instance_type: Standard_DS3_v2
instance_count: 2
request_settings:
  request_timeout_ms: 3000
  max_concurrent_requests_per_instance: 4
readiness_probe:
  initial_delay: 5
  period: 5
  timeout: 3
"""
ENDPOINT = """$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineEndpoint.schema.json
name: numbers
auth_mode: key
"""
OWN = """name: own
endpoint_name: numbers
model:
  name: weights
  version: 3
  path: ../model-1/model
environment:
  build:
    path: image
  inference_config:
    liveness_route: {path: /alive, port: 8080}
    readiness_route: {path: /ready, port: 8080}
    scoring_route: {path: /predict, port: 8080}
environment_variables:
  GREETING: hello
instance_type: Standard_DS3_v2
"""


#: A Kubernetes deployment, and a model that is a file.
KUBERNETES = """name: green
endpoint_name: numbers
type: kubernetes
model:
  name: model-1
  version: 1
  path: ../model-1/model/weights.txt
code_configuration:
  code: ../model-1/scoring
  scoring_script: score.py
environment:
  name: env-1
  version: 1
  conda_file: ../model-1/environment/conda.yml
  image: nowhere.invalid/base
resources:
  requests: {cpu: "0.1", memory: 0.1Gi}
scale_settings:
  type: default
"""
#: Whatever the schema has, with values that the SDK takes and nobody should write.
MANY = (
    BLUE.replace("  GREETING: hello\n", "  GREETING: {a: [1]}\n  FLAG: true\n  EMPTY:\n")
    .replace("  initial_delay: 5\n", "  initial_delay: '7'\n")
    .replace("  timeout: 3\n", "  timeout: -1\n")
    + """scale_settings: {type: target_utilization, min_instances: 1, max_instances: 3}
egress_public_network_access: disabled
data_collector: {collections: {request: {enabled: 'True'}}}
liveness_probe: {period: 5, success_threshold: 1}
tags: {a: b}
properties: {c: 1}
app_insights_enabled: true
"""
)


def make(folder: Path, **files: str) -> Path:
    """A repository with a model, its scoring code and its environment, and `endpoints/blue.yml` beside them.

    Args:
        folder: Where it is made.
        files: Further files of `endpoints`, by name without `.yml`.
    """
    contents = {
        "model-1/model/weights.txt": "7\n",
        "model-1/scoring/score.py": SCORE,
        "model-1/environment/conda.yml": CONDA,
        "endpoints/blue.yml": BLUE,
        **{f"endpoints/{name}.yml": text for name, text in files.items()},
    }
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "endpoints" / "blue.yml"
