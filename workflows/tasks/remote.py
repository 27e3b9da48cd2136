"""The machine that `--remote` runs tasks on."""

from __future__ import annotations

import time

from ._command import Command, command

ADDRESS = (
    "remote_host", "remote_port", "remote_user", "remote_key", "remote_dir", "remote_gateway", "remote_python",
)  # fmt: skip


@command(
    settings=ADDRESS,
    json=True,
    help={"accept_host_key": "Add the machine's host key to known_hosts if its fingerprint is this one: SHA256:…"},
)
def check(call: Command, accept_host_key: str | None = None) -> None:
    """Check what can be wrong with the other machine, one line each."""
    from invoke import Exit

    from ..findings import show_findings
    from ..remote.check import accept_key, findings

    if accept_host_key is not None:
        call.console.line(accept_key(call.settings, accept_host_key))
    if not show_findings(call.console, findings(call.settings, call.console.line)):
        raise Exit(code=1)


@command(
    settings=ADDRESS,
    json=True,
    help={
        "yes": "Send the project without asking, however large it is.",
        "take_over": "Use a remote folder of another machine or project, with its content.",
        "update": "Use a remote folder of another version of this program.",
    },
    interrupted="What had arrived is there; the next time the rest is sent.",
)
def sync(call: Command, yes: bool = False, take_over: bool = False, update: bool = False) -> None:
    """Send the changes of the project to the other machine."""
    from ..errors import UserError
    from ..received import sent_by
    from ..remote.session import ConnectionLost
    from ..remote.task import RemoteTask

    task = RemoteTask(call.settings, call.console)
    if call.settings.model_dir is not None and call.settings.model_dir.exists():
        task.paths.include(call.settings.model_dir)
    listed = task.list_files()
    with sent_by(str(task.address)):
        session = task.connect()
        try:
            sent = task.send(session, listed, yes=yes, take=take_over, update=update)
        except ConnectionLost as error:
            raise UserError(
                f"The connection to {task.address} was lost.",
                "Run it again: files that have arrived are not sent again.",
            ) from error
        finally:
            session.close()
    call.console.result(
        {
            "folder": sent.root,
            "files": sent.files,
            "sent": sent.sent,
            "deleted": sent.deleted,
            "bytes": sent.size,
            "kept": list(sent.kept),
            "seconds": call.console.seconds,
        }
    )


@command(json=True)
def tunnels(call: Command) -> None:
    """List the tunnels of this project, with purpose, target, start and traffic."""
    from ..formatting import format_size
    from ..remote.tunnels import query_keeper

    answer = query_keeper(call.settings.project, {"do": "list"}) or {"tunnels": [], "to": None, "problem": ""}
    if not answer["tunnels"]:
        call.console.line("This project has no tunnel.")
    else:
        state = f"; not connected: {answer['problem']}" if answer["problem"] else ""
        call.console.line(f"Through {answer['to']}{state}")
    for one in answer["tunnels"]:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["since"]))
        where = f"127.0.0.1:{one['local_port']:<5} -> {one['host']}:{one['port']}"
        moved = f"{format_size(one['bytes_up'])} up, {format_size(one['bytes_down'])} down"
        call.console.line(f"  {where:<36}  since {since}  {moved:<24}  {one['for']}")
    call.console.result(answer)


@command(json=True)
def stop(call: Command) -> None:
    """Close the tunnels of this project; programs on the other machine go on."""
    from ..remote.tunnels import stop_keeper

    closed = stop_keeper(call.settings.project)
    call.console.line(
        f"{closed} tunnel{'' if closed == 1 else 's'} closed." if closed else "This project has no tunnel."
    )
    call.console.result({"closed": closed})
