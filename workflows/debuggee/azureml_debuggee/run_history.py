"""A client for the record of this process's run, with the standard library and the run's own token.

The service gives every process of a job the address of its run history and a token for its own run; azureml-core
(``azureml/_run_impl/run_history_facade.py``) and azureml-mlflow use the same variables and routes.
"""

from __future__ import annotations

import base64
import calendar
import json
import os
import ssl
import time
import urllib.request

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict, Mapping, Optional

#: Seconds that the service may take to answer.
SECONDS = 10.0
#: A token is renewed at most so many seconds before it expires; and the seconds between two attempts.
_RENEW_SECONDS, _RETRY_SECONDS = 3600.0, 60.0
#: Bytes of an answer that are read at most.
_MOST_BYTES = 1 << 22
#: Variables with the address of the service; the first one that is set counts.
_ENDPOINTS = ("AZUREML_RUN_HISTORY_SERVICE_ENDPOINT", "AZUREML_SERVICE_ENDPOINT")
#: Variables that name a bundle of certificates, as requests and OpenSSL read them.
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


class Run:
    """A run's record in the workspace.

    Args:
        address: Its own address.
        run_id: Its id.
        token: Its token. It is renewed before it expires: an expired token cannot be renewed.
        expires: When the token expires, in seconds since 1970, if the token itself does not contain it; None for never.
    """

    def __init__(self, address: str, run_id: str, token: str, expires: Optional[float] = None) -> None:
        self._address, self._id = address, run_id
        self._token, self._renew_at = "", 0.0
        self._use_token(token, expires)

    def seconds_to_renewal(self) -> Optional[float]:
        """Seconds until the token has to be renewed (:meth:`renew_token`); None for never."""
        return max(0.0, self._renew_at - time.time()) if self._renew_at else None

    def renew_token(self) -> None:
        """Renew the token if that is due. If it fails, a later call tries again."""
        if not self._renew_at or time.time() < self._renew_at:
            return
        self._renew_at = time.time() + _RETRY_SECONDS
        try:
            found = self._request("GET", part="/token")
        except (OSError, ValueError):
            return
        if isinstance(found.get("token"), str) and found["token"]:
            self._use_token(found["token"], _parse_time(found.get("expiryTimeUtc")))

    def _use_token(self, token: str, expires: Optional[float]) -> None:
        now = time.time()
        end = _read_expiry(token) or expires
        # A token with a short life is renewed halfway through it.
        self._token, self._renew_at = token, end - min(_RENEW_SECONDS, max(0.0, end - now) / 2) if end else 0.0

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, and leave others as they are.

        Raises:
            OSError: They could not be set.
        """
        self.renew_token()
        self._request("PATCH", {"runId": self._id, "tags": dict(tags)})

    def tags(self) -> Dict[str, str]:
        """The run's current tags.

        Raises:
            OSError: They could not be read.
            ValueError: The answer is not valid.
        """
        self.renew_token()
        found = self._request("GET").get("tags")
        return found if isinstance(found, dict) else {}

    def _request(self, method: str, body: Optional[Dict[str, Any]] = None, part: str = "") -> Dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - http or https, see `this_run`
            self._address + part,
            None if body is None else json.dumps(body).encode("utf-8"),
            {"Content-Type": "application/json", "Authorization": "Bearer " + self._token},
            method=method,
        )
        context = None
        if self._address.startswith("https:"):
            bundle = next((os.environ[name] for name in _BUNDLES if os.path.isfile(os.environ.get(name, ""))), None)
            context = ssl.create_default_context(cafile=bundle)
        # urllib uses the proxies that HTTPS_PROXY and NO_PROXY name.
        with urllib.request.urlopen(request, timeout=SECONDS, context=context) as answer:  # noqa: S310
            content = answer.read(_MOST_BYTES)
        found = json.loads(content.decode("utf-8")) if content else {}
        return found if isinstance(found, dict) else {}


def this_run(environ: Optional[Mapping[str, str]] = None) -> Optional[Run]:
    """The run of this process; None if it is not a run of a workspace."""
    environ = os.environ if environ is None else environ
    endpoint = next((environ[name] for name in _ENDPOINTS if environ.get(name)), "")
    scope, experiment = environ.get("AZUREML_WORKSPACE_SCOPE"), environ.get("AZUREML_EXPERIMENT_ID")
    run_id, token = environ.get("AZUREML_RUN_ID"), environ.get("AZUREML_RUN_TOKEN")
    if not (endpoint.startswith(("https://", "http://")) and scope and experiment and run_id and token):
        return None
    address = "{}/history/v1.0{}/experimentids/{}/runs/{}".format(endpoint.rstrip("/"), scope, experiment, run_id)
    expiry = environ.get("AZUREML_RUN_TOKEN_EXPIRY", "")
    return Run(address, run_id, token, float(expiry) if expiry.isdigit() else _parse_time(expiry))


def _read_expiry(token: str) -> Optional[float]:
    """When a token expires, from its own ``exp`` (RFC 7519); None if it has none."""
    try:
        part = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode("utf-8"))["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _parse_time(text: Any) -> Optional[float]:
    """A time as the service writes it, such as ``2026-11-30T08:00:00.1234567Z``, in seconds since 1970."""
    try:
        return float(calendar.timegm(time.strptime(str(text)[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return None
