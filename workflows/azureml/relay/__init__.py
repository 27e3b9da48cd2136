"""The way to a job's container, or to a compute instance, that Azure ML itself keeps open: SSH through a websocket.

It leads to nodes in a virtual network from a machine that is in none. The protocol is that of ``az ml job
connect-ssh`` (Azure/azure-cli-extensions, azext_mlv2; Azure/azure-dev, azure.ai.training: job_ssh_proxy.go).
"""
