"""The tasks `bench.*`."""

from __future__ import annotations

from invoke import Context, task


@task(default=True, name="all")
def all_(context: Context) -> None:
    """Measure everything."""
    deploy(context)
    pipeline(context)
    experiment(context)
    remote(context)
    azureml(context)
    reading(context)


@task
def deploy(context: Context) -> None:
    """Measure the deployment story against the published chain."""
    from . import deployment

    deployment.main()


@task
def pipeline(context: Context) -> None:
    """Measure the pipeline story against scripts started by hand under debugpy."""
    from . import pipeline as measured

    measured.main()


@task
def experiment(context: Context) -> None:
    """Measure the experiment story against a bare docker run of debugpy."""
    from . import experiment as measured

    measured.main()


@task
def remote(context: Context) -> None:
    """Measure --remote against the same typed on the other machine, against rsync, and against no tunnel."""
    from . import remote as measured

    measured.main()


@task
def azureml(context: Context) -> None:
    """Measure following a run in a workspace: time to the launch configuration, requests."""
    from . import azureml as measured

    measured.main()


@task
def reading(context: Context) -> None:
    """Measure how fast configuration files are read, hostile ones among them."""
    from . import reading as measured

    measured.main()
