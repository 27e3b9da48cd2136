"""The Azure ML workspace. Only this package imports Azure ML's SDKs, and only where they are used.

It takes and returns frozen values of this program, never objects of an SDK, so that either SDK can be used.
"""
