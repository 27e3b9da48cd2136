"""A script that debugs a deployment with azure-ai-ml, as its documentation shows; run by a Python with azure-ai-ml.

``python endpoint_client.py DEPLOYMENT.yml``
"""

from __future__ import annotations

import logging
import sys

from azure.ai.ml import MLClient, load_online_deployment


class NoCredential:
    """A credential that is never used: local deployments send no requests to a workspace."""

    def get_token(self, *_scopes: str, **_options: object) -> object:
        """Refuse."""
        raise RuntimeError("nothing is to be asked of a workspace")


def main(file: str) -> None:
    """Deploy locally, as documented."""
    logging.disable(logging.WARNING)
    client = MLClient(NoCredential(), "00000000-0000-0000-0000-000000000000", "a-group", "a-workspace")
    client.online_deployments.begin_create_or_update(load_online_deployment(file), local=True, vscode_debug=True)


if __name__ == "__main__":
    main(sys.argv[1])
