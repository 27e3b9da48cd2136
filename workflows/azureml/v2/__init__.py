"""A workspace by SDK v2: signing in by azure-identity, requests by plain REST, submitting by azure-ai-ml.

azure-ai-ml takes seconds to be imported: only what submits imports it.
"""
