"""A server on 127.0.0.1 that acts as an Azure ML workspace for both SDKs, and runs the jobs. See README.md."""

from .clients import client_environment, client_environment_v2, write_configuration
from .faults import Fault, Faults
from .runner import Behaviour
from .server import AzureMLServer
from .state import Compute, Run

__all__ = [
    "AzureMLServer",
    "Behaviour",
    "Compute",
    "Fault",
    "Faults",
    "Run",
    "client_environment",
    "client_environment_v2",
    "write_configuration",
]
