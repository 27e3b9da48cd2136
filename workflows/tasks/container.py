"""The tasks of the collection ``container``: manage running services."""

from __future__ import annotations

from ._command import Command, command


def stop_service(call: Command) -> None:
    """Stop the service, for `container.stop` and `deploy.stop`."""
    from ..flows.deployment import Deployment
    from ..project import exclusive
    from ..sessions import session_folder

    with exclusive(session_folder(call.settings.project, reading=True), call.name, ending=True):
        stopped = Deployment(call.settings, call.console, held=True).stop()
    if not stopped:
        call.console.line("No service of this project is running.")
    call.console.result({"stopped": stopped, "seconds": call.console.seconds})


@command(json=True)
def stop(call: Command) -> None:
    """Stop and remove the deployed service; its log and exit code are kept."""
    stop_service(call)


@command(
    help={
        "follow": "Keep showing the log until the service ends or you press Ctrl-C.",
        "tail": "Number of lines to begin with; default: all.",
    }
)
def logs(call: Command, follow: bool = False, tail: str | None = None) -> None:
    """Show the log of the service, or of the last one if none runs."""
    import io

    from ..errors import BadValue, UserError
    from ..flows.deployment import Deployment
    from ..logs.log_tail import find_last_lines
    from ..sessions import last_log
    from ._log_output import stream, write

    if tail is not None and not (tail.isascii() and tail.isdigit() and len(tail) < 10):
        raise BadValue(f"--tail must be a number of lines, not {tail!r}.", "Correct it.")
    lines = None if tail is None else int(tail)
    deployment = Deployment(call.settings, call.console)
    if deployment.running() is not None:
        stream(call.console, deployment.logs(follow, lines))
        return
    last = last_log(call.project)
    if last is None:
        raise UserError("No log of a service of this project is kept.", "First: inv deploy.debug")
    log, exit_code = last
    write(call.console, log if lines is None else log[find_last_lines(io.BytesIO(log), lines) :])
    call.console.line(f"[ended with exit code {exit_code}]" if exit_code is not None else "[ended]")


@command(takes_remainder=True)
def shell(call: Command) -> None:
    """Open a shell where the service runs, or run a command there: `-- COMMAND`."""
    from invoke import Exit

    from ..flows.deployment import Deployment

    code = Deployment(call.settings, call.console).shell(call.remainder())
    if code:
        raise Exit(code=code)


@command(json=True)
def code(call: Command) -> None:
    """Open VS Code inside the running container, or print the address if there is no VS Code."""
    from .. import report
    from ..flows.deployment import Deployment
    from ..vscode import dev_containers

    name, folder, docker = Deployment(call.settings, call.console).container()
    result: dict[str, object] = {"container": name, "folder": folder, "docker": docker}
    if not report.is_wanted():
        result |= dev_containers.open_in_code(call.console, dev_containers.container_address(name, folder, docker))
    call.console.result(result)


@command(json=True)
def list_(call: Command) -> None:
    """List the running services of all projects."""
    from ..flows.housekeeping import services

    rows = services(call.project)
    if not rows:
        call.console.line("No service is running.")
    for row in rows:
        call.console.line(f"{row['name']:<12} {row['engine']:<8} {row['state']:<8} {row['ports']:<24} {row['project']}")
    call.console.result({"services": rows})


@command(json=True, help={"dry_run": "Show what would be removed, and remove nothing."})
def prune(call: Command, dry_run: bool = False) -> None:
    """Remove images and environments that no project uses, and what killed runs have left."""
    from ..flows.housekeeping import prune as remove

    removed = remove(call.console, call.project, call.settings.image_tag, dry_run)
    call.console.result({"removed": removed, "dry_run": dry_run})


@command(help={"name": "Name of the image."})
def base(call: Command, name: str = "azureml-debug/base:latest") -> None:
    """Make the base image from Debian packages, for networks without an image registry."""
    from ..flows.housekeeping import make_base

    make_base(call.console, name)
