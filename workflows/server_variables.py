"""The environment variables of the inference server itself, which no setting of this program may shadow.

https://learn.microsoft.com/azure/machine-learning/how-to-inference-server-http
"""

from __future__ import annotations

#: Variables that the server reads and nothing else uses.
SERVER_VARIABLES = frozenset(
    {
        "AML_APP_INSIGHTS_ENABLED",
        "AML_APP_INSIGHTS_KEY",
        "AML_CORS_ORIGINS",
        "AML_DBG_MODEL_INFO",
        "AML_DBG_RESOURCE_INFO",
        "AML_FLASK_ONE_COMPATIBILITY",
        "AML_MODEL_DC_STORAGE_ENABLED",
        "APP_INSIGHTS_LOG_RESPONSE_ENABLED",
        "AZUREML_LOG_LEVEL",
        "GUNICORN_CMD_ARGS",
        "SCORING_TIMEOUT_MS",
        "SERVER_VERSION_LOG_RESPONSE_ENABLED",
        "WORKER_COUNT",
        "WORKER_PRELOAD",
        "WORKER_TIMEOUT",
    }
)
#: Variables that this program sets while a service is debugged.
OURS = frozenset(
    {
        "AML_APP_ROOT",
        "AZUREML_DEBUG_PORT",
        "AZUREML_ENTRY_SCRIPT",
        "SCORING_TIMEOUT_MS",
        "WORKER_COUNT",
        "WORKER_PRELOAD",
        "WORKER_TIMEOUT",
    }
)
