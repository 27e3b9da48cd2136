"""How tests sign in to the server, in place of Azure."""

from __future__ import annotations

import copy
import os
from typing import Any, NamedTuple

from azureml.core.authentication import AbstractAuthentication


class Subscription(NamedTuple):
    subscription_name: str
    subscription_id: str


class ServerAuthentication(AbstractAuthentication):  # type: ignore[misc]
    """Signs in to the server that AZUREML_DEBUG_TEST_SERVER names, with the token in AZUREML_DEBUG_TEST_TOKEN."""

    def __init__(self, *_: Any, **__: Any) -> None:
        os.environ.setdefault("AZUREML_CURRENT_CLOUD", "AzureCloud")
        AbstractAuthentication.__init__(self, "AzureCloud")
        cloud: Any = copy.deepcopy(self._get_cloud_type())
        cloud.endpoints.resource_manager = os.environ["AZUREML_DEBUG_TEST_SERVER"]
        self._cloud_type = cloud
        self._tenant_id = "tenant"

    def get_authentication_header(self) -> dict[str, str]:
        return {"Authorization": "Bearer " + self._get_arm_token()}

    def _get_arm_token(self) -> str:
        return os.environ["AZUREML_DEBUG_TEST_TOKEN"]

    def _get_graph_token(self) -> str:
        return self._get_arm_token()

    def _get_azureml_client_token(self) -> str:
        return self._get_arm_token()

    def _get_all_subscription_ids(self) -> tuple[list[Subscription], str]:
        return [Subscription("tests", os.environ["AZUREML_DEBUG_TEST_SUBSCRIPTION"])], "tenant"

    def _get_workspace(self, subscription_id: str, resource_group: str, name: str) -> None:
        return None
