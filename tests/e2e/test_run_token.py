"""The token that a job has for its own run, in a job that lasts longer than it holds."""

from __future__ import annotations

import time

from azureml_server import AzureMLServer
from azureml_server.tokens import make_token

from workflows.debuggee.azureml_debuggee.run_history import this_run
from workflows.debuggee.azureml_debuggee.tags import Tags


def test_a_job_that_was_silent_for_longer_than_its_token_holds_still_sets_its_tags() -> None:
    with AzureMLServer() as server:
        server.state.run_token_seconds = 3
        run = server.state.add_run("a-run", "tests")
        variables = {
            "AZUREML_RUN_HISTORY_SERVICE_ENDPOINT": server.url,
            "AZUREML_WORKSPACE_SCOPE": server.state.scope,
            "AZUREML_EXPERIMENT_ID": run.experiment.id,
            "AZUREML_RUN_ID": run.id,
            "AZUREML_RUN_TOKEN": make_token(3, run=run.id),
        }
        tags = Tags("/code", lambda: this_run(variables))
        tags.start()
        time.sleep(7)
        tags.add_event({"event": "listening", "pid": 7, "host": "127.0.0.1", "port": 5678})
        tags.finish(10)
        assert run.tags["azureml_debug.0"] == "127.0.0.1:5678 7:listening"
        assert server.unknown == []
