"""The Azure ML workspace, through azureml-core: the only package that imports the SDK, and only where it is used.

What goes in and comes out are frozen values of ours, none of the SDK's, so that another client may take its place.
"""
