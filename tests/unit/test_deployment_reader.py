"""An online deployment's file: what is taken from it, what is noted, and all that is wrong with it in one message."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from deployment_files import BLUE, ENDPOINT, KUBERNETES, MANY, OWN, make
from test_pipeline_sdk import sdk

from workflows.deployments import overlay
from workflows.deployments.copied_folders import find_copied_folders
from workflows.deployments.endpoint import find_deployment
from workflows.deployments.reader import load_deployment
from workflows.errors import BadValue, UserError
from workflows.pipelines.yaml_file import read_yaml
from workflows.settings import resolve

#: What the SDK says of each file: nothing, or why it does not take it.
CHECK = """
import json, logging, sys, warnings
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
from azure.ai.ml import load_online_deployment
found = {}
for name in sys.argv[1:]:
    try:
        load_online_deployment(name)
        found[name] = ""
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""
OLDER = """name: green
endpoint_name: numbers
type: kubernetes
model:
  name: model-1
  version: 1
  local_path: ../model-1/model/weights.txt
code_configuration:
  code:
    local_path: ../model-1/scoring
  scoring_script: score.py
environment:
  name: env-1
  version: 1
  conda_file: file:../model-1/environment/conda.yml
  docker:
    image: nowhere.invalid/base
resources:
  requests: {cpu: "0.1", memory: 0.1Gi}
scale_settings:
  type: default
"""


def test_everything_comes_from_the_file(tmp_path: Path) -> None:
    found = load_deployment(make(tmp_path), tmp_path)
    assert (found.name, found.endpoint, found.kind) == ("blue", "numbers", "managed")
    assert found.code == tmp_path / "model-1" / "scoring" and found.script == found.code / "score.py"
    assert found.model is not None and found.model.path == tmp_path / "model-1" / "model"
    assert found.environment is not None and found.environment.image == "nowhere.invalid/azureml/base:latest"
    assert found.environment.conda_file == tmp_path / "model-1" / "environment" / "conda.yml"
    assert found.variables == {"GREETING": "hello", "API_TOKEN": "nobody-sees-this"}
    assert "nobody-sees-this" not in repr(found)
    assert (found.readiness.limit, found.readiness.timeout) == (5 + 5 * 30, 3)
    assert found.routes is None
    said = " ".join(found.notes)
    for part in ("request_timeout_ms: 3000", "max_concurrent_requests_per_instance: 4", "instance_count"):
        assert part in said


def test_kubernetes_and_the_spelling_of_the_preview(tmp_path: Path) -> None:
    make(tmp_path, green=OLDER)
    found = load_deployment(tmp_path / "endpoints" / "green.yml", tmp_path)
    assert found.kind == "kubernetes" and found.script is not None
    assert found.model is not None and found.model.path.name == "weights.txt"
    assert found.model.place() == "/var/azureml-app/azureml-models/model-1/1"
    assert found.environment is not None and found.environment.image == "nowhere.invalid/base"


def test_an_image_that_serves_by_itself(tmp_path: Path) -> None:
    make(tmp_path, own=OWN)
    image = tmp_path / "endpoints" / "image"
    image.mkdir()
    (image / "Dockerfile").write_text("FROM somewhere\n")
    found = load_deployment(tmp_path / "endpoints" / "own.yml", tmp_path)
    assert found.code is None and found.routes is not None
    assert (found.routes.scoring.path, found.routes.readiness.port) == ("/predict", 8080)
    assert found.model is not None and found.model.place("/models") == "/models/weights/3"


def _own(folder: Path, more: str = "") -> Path:
    """A deployment whose image serves by itself."""
    make(folder, own=OWN + more)
    image = folder / "endpoints" / "image"
    image.mkdir(exist_ok=True)
    (image / "Dockerfile").write_text("FROM somewhere\n")
    return folder / "endpoints" / "own.yml"


def test_a_probe_counts_more_than_the_route_of_its_image(tmp_path: Path) -> None:
    found = load_deployment(_own(tmp_path), tmp_path)
    assert found.ready.text == "GET /ready on port 8080 (`readiness_route`)"
    assert (found.ready.seconds, found.ready.timeout) == (310, 2)
    probe = "{path: up, port: '81', scheme: HTTPS, method: head, initial_delay: 1, period: 2, failure_threshold: 3}"
    found = load_deployment(_own(tmp_path, f"readiness_probe: {probe}\n"), tmp_path)
    assert found.ready.text == "HEAD /up on port 81 by https (`readiness_probe`)"
    assert found.ready.seconds == 7
    assert found.alive.text == "GET /alive on port 8080 (`liveness_route`)"


def test_a_probe_that_cannot_be_asked_is_refused_or_noted(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        load_deployment(_own(tmp_path, "liveness_probe: {port: 70000, path: 'a b'}\n"), tmp_path)
    assert "The port of `liveness_probe` is 1 to 65535, not 70000." in str(refused.value)
    assert "`path` of `liveness_probe` is not an HTTP path: '/a b'" in str(refused.value)
    found = load_deployment(_own(tmp_path, "liveness_probe: {scheme: gopher, method: fetch}\n"), tmp_path)
    assert found.alive.text == "GET /alive on port 8080 (`liveness_route`)"
    for word in ("gopher", "fetch"):
        assert any(word in note and "`liveness_probe`" in note for note in found.notes)
    file = make(tmp_path)
    file.write_text(BLUE.replace("  period: 5\n", "  period: 5\n  path: /up\n"))
    notes = load_deployment(file, tmp_path).notes
    assert "`path` of `readiness_probe`: the inference server is checked by GET /" in notes


def test_the_endpoint_beside_it_gives_its_name(tmp_path: Path) -> None:
    file = make(tmp_path, endpoint=ENDPOINT.replace("numbers", "sums"))
    file.write_text(BLUE.replace("endpoint_name: numbers\n", ""))
    found = load_deployment(file, tmp_path)
    assert found.endpoint == "sums"
    assert any("`endpoint_name`" in note for note in found.notes)


def test_a_registered_model_and_environment_are_files_of_those_names(tmp_path: Path) -> None:
    text = BLUE.replace("model:\n  path: ../model-1/model\n", "model: azureml:weights@latest\n")
    start, end = text.index("environment:"), text.index("environment_variables:")
    text = text[:start] + "environment: azureml:scoring:2\n" + text[end:]
    file = make(tmp_path)
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        load_deployment(file, tmp_path)
    assert "`azureml:weights@latest` is not on this machine" in refused.value.problem
    assert "--model-dir" in refused.value.remedy
    (tmp_path / "weights.yml").write_text("name: weights\nversion: 4\npath: model-1/model\ntype: custom_model\n")
    (tmp_path / "scoring.yml").write_text(
        "name: scoring\nversion: 2\nimage: some/image\nconda_file: model-1/environment/conda.yml\n"
    )
    found = load_deployment(file, tmp_path)
    assert found.model is not None and found.model.path == tmp_path / "model-1" / "model"
    assert found.routes is None
    routes = "".join(f"  {name}_route: {{port: 81, path: /{name}}}\n" for name in ("liveness", "readiness", "scoring"))
    (tmp_path / "scoring.yml").write_text(f"name: scoring\nversion: 2\nimage: some/image\ninference_config:\n{routes}")
    served = load_deployment(file, tmp_path)
    assert served.routes is not None and served.ready.text == "GET /readiness on port 81 (`readiness_route`)"
    assert served.routes.scoring.path == "/scoring" and served.environment is not None
    assert found.environment is not None and found.environment.image == "some/image"
    assert any("azureml:weights@latest" in note for note in found.notes)
    # A folder that is typed takes the model's place, wherever that is.
    other = load_deployment(file, tmp_path, tmp_path / "model-1")
    assert other.model is None and other.model_dir == tmp_path / "model-1"


def test_all_that_is_wrong_is_said_at_once_with_its_places(tmp_path: Path) -> None:
    file = make(tmp_path)
    text = BLUE.replace("../model-1/model\n", "../model-2/model\n").replace("score.py", "scor.py")
    text = text.replace("  GREETING: hello\n", "  GREETING: hello\n  AZUREML_DEBUGGEE_WAIT: 1\n")
    file.write_text(text.replace("  period: 5\n", "  period: soon\n") + "instance_typ: large\n")
    with pytest.raises(UserError) as refused:
        load_deployment(file, tmp_path)
    name = str(file)
    told = str(refused.value).splitlines()
    places = [line.removeprefix(name).partition(" error: ")[0] for line in told[::2]]
    assert places == [":5:3:", ":8:3:", ":14:3:", ":23:3:", ":25:1:"]
    assert "Did you mean `score.py`" in told[3]


@pytest.mark.parametrize(
    ("change", "problem", "place"),
    [
        (("  scoring_script: score.py\n", ""), "`code_configuration` has no `scoring_script`", "6:1"),
        (("scoring_script: score.py", "scoring_script: ../other/score.py"), "is not in the code's folder", "8:3"),
        (("path: ../model-1/model", "path: azureml://datastores/a/paths/b"), "is not on this machine", "5:3"),
        (("initial_delay: 5", "initial_delay: soon"), "is a whole number, not 'soon'", "21:3"),
        (("endpoint_name", "endpoint_nam"), "A deployment has no key `endpoint_nam`", "3:1"),
    ],
)
def test_one_thing_that_is_wrong(tmp_path: Path, change: tuple[str, str], problem: str, place: str) -> None:
    file = make(tmp_path)
    assert change[0] in BLUE
    file.write_text(BLUE.replace(*change))
    with pytest.raises(UserError) as refused:
        load_deployment(file, tmp_path)
    assert problem in refused.value.problem
    assert str(refused.value).startswith(f"{file}:{place}: error: ")


def test_odd_values_that_azures_sdk_takes_are_noted(tmp_path: Path) -> None:
    make(tmp_path, many=MANY)
    found = load_deployment(tmp_path / "endpoints" / "many.yml", tmp_path)
    assert (found.readiness.initial_delay, found.readiness.timeout) == (7, 2)
    values = found.variables
    assert (values["GREETING"], values["FLAG"], values["EMPTY"]) == ("{'a': [1]}", "True", "")
    said = " ".join(found.notes)
    for part in ("`GREETING` is a mapping", "`timeout: -1`", "scale_settings", "data_collector", "egress"):
        assert part in said


@pytest.mark.timeout(180)
def test_what_azures_sdk_takes_is_taken(tmp_path: Path) -> None:
    python = sdk()
    if python is None:
        pytest.skip("AZUREML_DEBUG_TEST_SDK_V2 names no Python with azure-ai-ml")
    make(tmp_path, own=OWN, many=MANY, green=KUBERNETES)
    (tmp_path / "endpoints" / "image").mkdir()
    (tmp_path / "endpoints" / "image" / "Dockerfile").write_text("FROM somewhere\n")
    files = sorted(map(str, (tmp_path / "endpoints").glob("*.yml")))
    assert len(files) == 4
    done = subprocess.run([python, "-c", CHECK, *files], capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == dict.fromkeys(files, "")
    for file in files:
        load_deployment(Path(file), tmp_path)


def test_nothing_serves_a_model_without_code_that_is_none_of_mlflow(tmp_path: Path) -> None:
    file = make(tmp_path)
    start, end = BLUE.index("code_configuration"), BLUE.index("environment:")
    file.write_text(BLUE[:start] + BLUE[end:])
    with pytest.raises(UserError) as refused:
        load_deployment(file, tmp_path)
    assert "not an MLflow model" in refused.value.problem and "code_configuration" in refused.value.remedy
    (tmp_path / "model-1" / "model" / "MLmodel").write_text("flavors: {}\n")
    assert load_deployment(file, tmp_path).code is None


def test_another_kind_of_file_is_refused_with_what_takes_it(tmp_path: Path) -> None:
    make(tmp_path, weights="$schema: https://azuremlschemas.azureedge.net/latest/model.schema.json\npath: x\n")
    with pytest.raises(UserError) as refused:
        load_deployment(tmp_path / "endpoints" / "weights.yml", tmp_path)
    assert "is a model, not an online deployment" in refused.value.problem


def test_an_endpoints_file_stands_for_its_only_deployment(tmp_path: Path) -> None:
    make(tmp_path, endpoint=ENDPOINT, other=BLUE.replace("endpoint_name: numbers", "endpoint_name: sums"))
    endpoint = tmp_path / "endpoints" / "endpoint.yml"
    found = load_deployment(endpoint, tmp_path)
    assert (found.name, found.endpoint, found.file) == ("blue", "numbers", tmp_path / "endpoints" / "blue.yml")
    assert "endpoint.yml is an online endpoint; its deployment is `blue`, in" in found.notes[0]
    # Of several, each is named with what to type; of none, those of other endpoints.
    (tmp_path / "endpoints" / "green.yml").write_text(BLUE.replace("name: blue", "name: green"))
    with pytest.raises(UserError) as refused:
        load_deployment(endpoint, tmp_path)
    assert "is an online endpoint with 2 deployments" in refused.value.problem
    for name in ("blue", "green"):
        assert f"inv deploy.debug --deployment {tmp_path}/endpoints/{name}.yml" in refused.value.remedy
    endpoint.write_text(ENDPOINT.replace("numbers", "products"))
    with pytest.raises(UserError) as refused:
        load_deployment(endpoint, tmp_path)
    assert "no file beside it is a deployment of products" in refused.value.problem
    assert f"--deployment {tmp_path}/endpoints/other.yml" in refused.value.remedy


def test_an_endpoints_file_with_deployments_in_it(tmp_path: Path) -> None:
    own = BLUE.partition("\n")[2].replace("endpoint_name: numbers\n", "").replace("name: blue", "name: inner")
    inner = "  " + own.strip().replace("\n", "\n    ")
    make(tmp_path, endpoint=f"{ENDPOINT}deployments:\n{inner.replace('  name', '  - name', 1)}\n")
    endpoint = tmp_path / "endpoints" / "endpoint.yml"
    found = load_deployment(endpoint, tmp_path)
    assert (found.name, found.endpoint, found.file) == ("inner", "numbers", endpoint)
    assert found.script is not None and found.script.name == "score.py"
    endpoint.write_text(f"{ENDPOINT}deployments: [./blue.yml]\n")
    assert load_deployment(endpoint, tmp_path).name == "blue"
    endpoint.write_text(f"{ENDPOINT}deployments: [{{name: a, model: ../model-1/model}}, {{name: b}}]\n")
    with pytest.raises(UserError) as refused:
        load_deployment(endpoint, tmp_path)
    assert "with 2 deployments: `a`, `b`" in refused.value.problem
    endpoint.write_text(f"{ENDPOINT}deployments: 3\n")
    with pytest.raises(UserError, match="`deployments` is a list"):
        load_deployment(endpoint, tmp_path)


def test_a_batch_endpoints_file_stands_for_its_batch_deployment(tmp_path: Path) -> None:
    schema = "$schema: https://azuremlschemas.azureedge.net/latest/batchEndpoint.schema.json\n"
    make(
        tmp_path, batch=f"{schema}name: numbers\n", scored="name: scored\nendpoint_name: numbers\nmini_batch_size: 2\n"
    )
    found, note = find_deployment(read_yaml(tmp_path / "endpoints" / "batch.yml", "file"))
    assert found.file == tmp_path / "endpoints" / "scored.yml" and "`scored`" in note
    found.file.unlink()
    with pytest.raises(UserError) as refused:
        find_deployment(read_yaml(tmp_path / "endpoints" / "batch.yml", "file"))
    assert "--deployment FILE --data FOLDER" in refused.value.remedy


def test_a_setting_counts_where_it_comes_from_as_near_a_place_as_the_files_name(tmp_path: Path) -> None:
    file = make(tmp_path)
    mine = tmp_path / "mine"
    mine.mkdir()
    nearer = {"AML_MODEL_DIR": str(mine), "AML_DEPLOYMENT_FILE": str(file)}
    assert overlay.apply_deployment_file(resolve(tmp_path, environ=nearer)).settings.model_dir == mine
    typed = resolve(tmp_path, {"deployment": str(file)}, environ={"AML_MODEL_DIR": str(mine)})
    assert overlay.apply_deployment_file(typed).settings.model_dir == tmp_path / "model-1" / "model"
    assert overlay.overruled_settings(typed) == {"model_dir"}
    beside = {"AML_SCORE_SCRIPT": "other.py", "AML_DEPLOYMENT_FILE": str(file)}
    found = overlay.apply_deployment_file(resolve(tmp_path, environ=beside))
    assert found.settings.score_script == tmp_path / "model-1" / "scoring" / "score.py" and not found.notes[3:]
    named = resolve(tmp_path, {"score_script": "other.py"}, environ={"AML_DEPLOYMENT_FILE": str(file)}, cwd=tmp_path)
    assert overlay.apply_deployment_file(named).settings.score_script == tmp_path / "other.py"
    both = resolve(tmp_path, {"deployment": str(file), "model_dir": str(mine)}, environ={})
    found = overlay.apply_deployment_file(both)
    assert found.settings.model_dir == mine and overlay.model_below(found.deployment) == ""
    assert found.settings.score_script == tmp_path / "model-1" / "scoring" / "score.py"
    with pytest.raises(BadValue):
        overlay.refuse_with_packages(typed)


def test_what_an_image_has_copies_of(tmp_path: Path) -> None:
    for name in ("app/main.py", "tools/tool.py", "single.py", "data/table.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "Dockerfile").write_text(
        "FROM base AS first\nCOPY app /gone\nFROM base\nWORKDIR /srv\nCOPY app .\nCOPY ./tools /opt/tools/\n"
        'COPY ["single.py", "/lib/code/"]\nCOPY data /data\nCOPY --from=first /x /y\nCOPY *.py /all/\nADD $WHAT /what\n'
    )
    assert find_copied_folders(tmp_path, "Dockerfile") == {
        "/srv": str(tmp_path / "app"),
        "/opt/tools": str(tmp_path / "tools"),
        "/lib/code": str(tmp_path),
    }
