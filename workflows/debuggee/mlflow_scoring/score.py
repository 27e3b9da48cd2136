"""The scoring script of a deployment without code: MLflow loads the model and reads the requests.

The body has Azure ML's format for MLflow models, ``{"input_data": …, "params": …}``, or one of MLflow's own formats:
https://learn.microsoft.com/azure/machine-learning/how-to-deploy-mlflow-models#input-formats and
https://mlflow.org/docs/latest/deployment/deploy-model-locally
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Tuple

model: Any = None


def init() -> None:
    """Load the model, with its own loader."""
    global model
    try:
        from mlflow import pyfunc
    except ImportError as error:
        message = "MLflow has to serve this model, and the environment has no mlflow: {}".format(error)
        raise ImportError(message) from error
    model = pyfunc.load_model(_find_model())


def run(raw_data: Any) -> Any:
    """Handle one request; returns the model's predictions as MLflow serializes them."""
    data, parameters = _parse(raw_data)
    predictions = model.predict(data, params=parameters) if parameters else model.predict(data)
    return json.loads(_serialize(predictions))


def _find_model() -> str:
    root = os.path.join(os.environ["AZUREML_MODEL_DIR"], os.environ.get("AZUREML_DEBUGGEE_MODEL", ""))
    for parent, folders, files in os.walk(root):
        folders.sort()
        if "MLmodel" in files:
            return parent
    raise FileNotFoundError("There is no MLmodel in {}".format(root))


def _parse(raw_data: Any) -> Tuple[Any, Any]:
    body = json.loads(raw_data)
    if not isinstance(body, dict):
        raise ValueError("The body has to be a JSON object with `input_data`")
    parameters = body.pop("params", None)
    given = body.pop("input_data", None)
    if isinstance(given, dict) and {"columns", "data"} <= set(given):
        body = {"dataframe_split": given}
    elif given is not None:
        body = {"inputs": given}
    from mlflow.pyfunc import scoring_server

    schema = model.metadata.get_input_schema()
    return scoring_server.infer_and_parse_data(body, schema), parameters


def _serialize(predictions: Any) -> str:
    import io

    from mlflow.pyfunc import scoring_server

    text = io.StringIO()
    scoring_server.predictions_to_json(predictions, text)
    written = json.loads(text.getvalue())
    # Azure ML answers with the predictions alone.
    return json.dumps(written["predictions"] if isinstance(written, dict) and "predictions" in written else written)
