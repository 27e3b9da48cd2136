"""The tasks `bench.*`."""

from __future__ import annotations

from invoke import Context, task


@task(default=True, name="all")
def all_(context: Context) -> None:
    """Measure everything."""
    deploy(context)


@task
def deploy(context: Context) -> None:
    """Measure the deployment story against the published chain."""
    from . import deployment

    deployment.main()
