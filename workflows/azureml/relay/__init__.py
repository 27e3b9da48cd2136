"""Connects to a job's container, or to a compute instance, through Azure ML's own relay: SSH through a websocket.

The relay reaches nodes in a virtual network from a machine outside of it. The protocol is that of ``az ml job
connect-ssh`` (Azure/azure-cli-extensions, azext_mlv2; Azure/azure-dev, azure.ai.training: job_ssh_proxy.go).
"""
