"""The run that this process belongs to, spoken to with the standard library and the run's own token.

The service tells every process of a job where its run history is, and gives it a token for its own run; azureml-core
(``azureml/_run_impl/run_history_facade.py``) and azureml-mlflow use the same variables and routes.
"""

from __future__ import annotations

import json
import os
import ssl
import urllib.request

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict, Mapping, Optional

#: Seconds for the service to answer.
SECONDS = 10.0
#: The longest answer that is read, in bytes.
_LONGEST = 1 << 22
#: Where the service is told: the first one that is set counts.
_ENDPOINTS = ("AZUREML_RUN_HISTORY_SERVICE_ENDPOINT", "AZUREML_SERVICE_ENDPOINT")
#: Variables that name a bundle of certificates, as requests and OpenSSL read them.
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


class Run:
    """A run's record in the workspace.

    Args:
        address: Its own address.
        run_id: Its id.
        token: Its token.
    """

    def __init__(self, address: str, run_id: str, token: str) -> None:
        self._address, self._id, self._token = address, run_id, token

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; others stay as they are.

        Raises:
            OSError: They could not be set.
        """
        self._ask("PATCH", {"runId": self._id, "tags": dict(tags)})

    def tags(self) -> Dict[str, str]:
        """Its tags now.

        Raises:
            OSError: They could not be read.
            ValueError: The answer is not what it should be.
        """
        found = self._ask("GET").get("tags")
        return found if isinstance(found, dict) else {}

    def _ask(self, method: str, body: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - http or https, see `this_run`
            self._address,
            None if body is None else json.dumps(body).encode("utf-8"),
            {"Content-Type": "application/json", "Authorization": "Bearer " + self._token},
            method=method,
        )
        context = None
        if self._address.startswith("https:"):
            bundle = next((os.environ[name] for name in _BUNDLES if os.path.isfile(os.environ.get(name, ""))), None)
            context = ssl.create_default_context(cafile=bundle)
        # Proxies as HTTPS_PROXY and NO_PROXY say.
        with urllib.request.urlopen(request, timeout=SECONDS, context=context) as answer:  # noqa: S310
            content = answer.read(_LONGEST)
        found = json.loads(content.decode("utf-8")) if content else {}
        return found if isinstance(found, dict) else {}


def this_run(environ: Optional[Mapping[str, str]] = None) -> Optional[Run]:
    """The run of this process; None where no workspace knows it."""
    environ = os.environ if environ is None else environ
    endpoint = next((environ[name] for name in _ENDPOINTS if environ.get(name)), "")
    scope, experiment = environ.get("AZUREML_WORKSPACE_SCOPE"), environ.get("AZUREML_EXPERIMENT_ID")
    run_id, token = environ.get("AZUREML_RUN_ID"), environ.get("AZUREML_RUN_TOKEN")
    if not (endpoint.startswith(("https://", "http://")) and scope and experiment and run_id and token):
        return None
    address = "{}/history/v1.0{}/experimentids/{}/runs/{}".format(endpoint.rstrip("/"), scope, experiment, run_id)
    return Run(address, run_id, token)
