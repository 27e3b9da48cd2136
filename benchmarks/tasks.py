"""The tasks `bench.*`."""

from __future__ import annotations

from invoke import Context, task


@task(default=True, name="all")
def all_(context: Context) -> None:
    """Measure everything."""
    deploy(context)
    pipeline(context)
    experiment(context)


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
