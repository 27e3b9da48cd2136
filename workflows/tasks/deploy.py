"""Debugging the code of a deployed model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ..debugger.any_client import PRINT_HELP, print_endpoints
from ..errors import BadValue
from . import _agents
from ._command import Command, command
from ._inspect_flags import INSPECT_HELP, INSPECT_ITERABLE
from ._snapshots import SNAPSHOT_HELP, SNAPSHOT_HELPS, SnapshotSelection, attach_snapshot, show_snapshot
from ._stacks import HELP as STACKS_HELP
from .container import stop_service

if TYPE_CHECKING:
    from ..flows.deployment import Deployment
    from ..flows.packaging import Source
    from ..flows.service_inspection import Look
    from ._inspect_flags import InspectionPrinter

WORKSPACE = ("subscription_id", "resource_group", "workspace", "auth", "sdk", "download_mb")
ENVIRONMENT = ("engine", "deployment", "inference_env", "base_image")
RUN = (
    "score_script",
    "source_directory",
    "model_dir",
    "service_env",
    "image_tag",
    "container_name",
    "scoring_port",
    "debug_port",
    "debug_timeout",
)
WAIT_HELP = "Hold the service before it loads score.py, so that you can debug imports and init()."


ENV_HELP = {
    "env": "Environment variable for the service: NAME=value, or NAME for its value in this shell; may be repeated.",
}
SOURCE_HELP = {
    "source": "Where the image comes from: local (built here) or azureml (packaged by the workspace); default: local.",
    "model": "With --source azureml: registered model, NAME or NAME:VERSION.",
}
MODEL_HELP = {
    "model": "Registered model to download in place of a model folder, azureml:NAME[:VERSION|@latest]. "
    "NAME or NAME:VERSION is a model to package (--source azureml).",
}
GENERATE_HELP = {"generate_dockerfile": "With --source azureml: download the build context and build the image here."}


def _existing_deployment(call: Command, held: bool = True) -> Deployment:
    """The deployment, for tasks of a service that exists."""
    from ..flows.deployment import Deployment

    return Deployment(call.settings, call.console, held=held)


def _new_deployment(
    call: Command, wait: bool = False, source: Source | None = None, env: Sequence[str] = ()
) -> Deployment:
    """The deployment, for tasks that create a service, with the settings of the deployment file if one is named."""
    from ..flows.deployment import Deployment

    if call.settings.deployment is None:
        return Deployment(call.settings, call.console, wait, True, source, env)
    from ..deployments import overlay

    if source is not None:
        overlay.refuse_with_packages(call.settings)
        call.console.line("  note: AML_DEPLOYMENT_FILE does not count with --source azureml")
        return Deployment(call.settings, call.console, wait, True, source, env)
    from ..azureml.named_assets import model_downloader

    found = overlay.apply_deployment_file(call.settings, model_downloader(call.settings, call.console))
    for note in found.notes:
        call.console.line(f"  note: {note}")
    return Deployment(found.settings, call.console, wait, True, None, env, found.deployment)


def _use_registered_model(call: Command, model: str) -> None:
    """Download a registered model, and use it as the model folder of the settings."""
    from ..azureml.named_assets import with_model

    call.settings = with_model(call.settings, call.console, model)


def _source(source: str, model: str | None, generate_dockerfile: bool, needs_model: bool = True) -> Source | None:
    if (source, model, generate_dockerfile) == ("local", None, False):
        return None
    from ..flows.packaging import read_source

    return read_source(source, model, generate_dockerfile, needs_model)


@command(
    settings=(*ENVIRONMENT, *WORKSPACE, "score_script", "source_directory", "model_dir"),
    help={**SOURCE_HELP, **GENERATE_HELP},
)
def build(call: Command, source: str = "local", model: str | None = None, generate_dockerfile: bool = False) -> None:
    """Build the inference environment, unless it is built already."""
    chosen = _source(source, model, generate_dockerfile)
    with _lock_deployment(call):
        _new_deployment(call, source=chosen).build()


@command(settings=(*ENVIRONMENT, "model_dir", "image_tag"), help=SOURCE_HELP)
def tag(call: Command, source: str = "local", model: str | None = None) -> None:
    """Tag the built environment debug:1, the tag that deploy.run takes."""
    chosen = _source(source, model, False, needs_model=False)
    with _lock_deployment(call):
        _new_deployment(call, source=chosen).tag()


@command(
    settings=("engine", "deployment", "inference_env", *RUN), help={"wait": WAIT_HELP, **ENV_HELP}, iterable=["env"]
)
def run(call: Command, env: list[str], wait: bool = False) -> None:
    """Create the container of the tagged image, with its ports on 127.0.0.1."""
    with _lock_deployment(call):
        _new_deployment(call, wait, env=env).run()


@command()
def runsvdir(call: Command) -> None:
    """Start the services in the container, and check that they serve."""
    with _lock_deployment(call):
        _existing_deployment(call).runsvdir()


@command(
    json=True,
    help={"print": PRINT_HELP, "snapshot": SNAPSHOT_HELP, "take_over": _agents.TAKE_OVER_HELP},
)
def attach_config(call: Command, print: bool = False, snapshot: bool = False, take_over: bool = False) -> None:
    """Write the launch configuration of the running service to .vscode/launch.json, or print it."""
    from ..flows.deployment import CONFIGURATION

    if snapshot:
        from ..flows.snapshots import snapshots_of_service

        attach_snapshot(call, lambda: snapshots_of_service(call.settings), None, print)
        return
    if take_over:
        _agents.take_over(call.console, call.project, "")
    with _lock_deployment(call):
        deployment = _existing_deployment(call)
        deployment.attach_config(write=not print)
        service = deployment.running()
    assert service is not None
    result = {
        "debug": {"host": service.endpoint.host, "port": service.endpoint.port},
        "path_mappings": [mapping.as_json() for mapping in service.path_mappings],
        "launch_configuration": CONFIGURATION,
    }
    if print:
        print_endpoints(call.console, result)
    call.console.result(result)


@command(
    settings=(*ENVIRONMENT, *RUN, *WORKSPACE),
    json=True,
    help={
        "wait": WAIT_HELP,
        "follow": "Keep showing the service's log; after Ctrl-C the service goes on.",
        "dry_run": "Show what would run and what is missing, and start nothing; exit code 1 if something is missing.",
        "data": "For a batch deployment (--deployment): folder or file to run it on.",
        "mini_batch": "With --data: run only this mini-batch, counted from 0 as in Azure ML.",
        **ENV_HELP,
        **SOURCE_HELP,
        **MODEL_HELP,
        **GENERATE_HELP,
    },
    iterable=["env"],
    paths={"data": "path"},
)
def debug(
    call: Command,
    env: list[str],
    wait: bool = False,
    follow: bool = False,
    dry_run: bool = False,
    data: str | None = None,
    mini_batch: str | None = None,
    source: str = "local",
    model: str | None = None,
    generate_dockerfile: bool = False,
) -> None:
    """Run the whole chain: build, tag, run, runsvdir, attach-config (of a batch deployment: pipeline.debug)."""
    from ..vscode import f5

    if data is not None or mini_batch is not None:
        from ._batch import debug_batch

        if env or source != "local":
            raise BadValue("--env and --source are not for batch deployments.", "Put variables into its file.")
        debug_batch(call, data, mini_batch, follow, dry_run)
        return
    if dry_run:
        _dry_run(call, env)
        return
    if source == "local" and not generate_dockerfile and model is not None and model.startswith("azureml:"):
        _use_registered_model(call, model)
        model = None
    chosen = _source(source, model, generate_dockerfile)
    with _lock_deployment(call):
        deployment = _new_deployment(call, wait, source=chosen, env=env)
        joined = deployment.join() if f5.configuration_name() else None
        result = joined or deployment.debug()
    console, sample = call.console, _example_arguments(deployment)
    console.line()
    console.line(f'Press F5 in VS Code: "{result["launch_configuration"]}"')
    console.line(f"Post to         {result['scoring_url']}  (curl -H 'Content-Type: application/json' -d @FILE)")
    if sample:
        console.line(f"Without editor  inv deploy.inspect {sample}")
    console.line("After an edit   inv deploy.reload")
    console.line("Stop            inv container.stop")
    console.result(result)
    call.ready()
    if follow:
        from ._log_output import stream

        stream(call.console, deployment.logs(follow=True))


def _dry_run(call: Command, env: Sequence[str]) -> None:
    from invoke import Exit

    from ..findings import show_findings
    from ..flows.deployment_dry_run import check_deployment

    if not show_findings(call.console, check_deployment(call.settings, env)):
        raise Exit(code=1)


@command(json=True, interrupted="The service may be without score.py.")
def reload(call: Command) -> None:
    """Put the edited score.py into the running service."""
    with _lock_deployment(call):
        deployment = _existing_deployment(call)
        deployment.reload()
        service = deployment.running()
    assert service is not None
    call.console.result({"scoring_url": service.scoring_url, "seconds": call.console.seconds})


def _read_local_stdin(_run: Command, values: dict[str, Any]) -> bool:
    """With ``--remote``: read standard input on this machine."""
    from ._inspect_flags import read_stdin

    if values.get("request") == "-":
        try:
            values["request"] = read_stdin().decode()
        except UnicodeDecodeError as error:
            raise BadValue("Standard input is not text.", "Name a file: --request FILE") from error
    return False


@command(
    json=True,
    help={
        "location": "FILE:LINE or FILE:FUNCTION, such as score.py:21 or score.py:run; else --on-error or --failed.",
        "on_error": "Stop where the request raises, with no line named; with a TYPE where one of that type is raised.",
        "failed": "Post a failed request again: the one with this number in deploy.requests, or the latest.",
        "request": "What is posted to /score: a file of any kind, - for standard input, or JSON text; default: {}.",
        "content_type": "The request's content type; else JSON where it is JSON, or what the file's name says.",
        "form": "Form data in place of a file: NAME=VALUE or NAME=@FILE; may be repeated.",
        "query": "NAME=VALUE to add to the address; may be repeated.",
        "header": "NAME=VALUE: header of the request; may be repeated.",
        "method": "POST, GET or OPTIONS; default: POST.",
        "repeat": "N: post it N times, one after the other; default: 1.",
        **INSPECT_HELP,
        "timeout": "Seconds to wait for the stop, and then for the response; default: 60.",
    },
    iterable=["form", "query", "header", *INSPECT_ITERABLE],
    positional=["location"],
    optional=["failed", "on_error"],
    paths={"location": "file:line", "at": "file:line", "request": "path or name", "form": "name=@path"},
    before=_read_local_stdin,
    interrupted="The program goes on.",
)
def inspect(
    call: Command,
    eval: list[str],
    at: list[str],
    set: list[str],
    form: list[str],
    query: list[str],
    header: list[str],
    location: str | None = None,
    on_error: str | None = None,
    failed: str | None = None,
    request: str | None = None,
    content_type: str | None = None,
    method: str | None = None,
    repeat: str | None = None,
    timeout: str = "60",
    when: str | None = None,
    hits: str | None = None,
    times: str | None = None,
    log: str | None = None,
    steps: str | None = None,
    step_into: bool = False,
    frames: str | None = None,
    depth: str | None = None,
    all_code: bool = False,
    all_locals: bool = False,
) -> None:
    """Stop at lines during a request, or where it raises, and show stack, values and response, without an editor."""
    from ..flows.request import read_body_argument, read_request
    from ..flows.service_inspection import Look
    from ._inspect_flags import InspectFlags, InspectionPrinter, read_inspection, read_number, read_stdin
    from ._inspection import read_failed

    number = read_failed(failed)
    sent = (request, content_type, method, *form, *query, *header)
    is_given = number is not None or any(sent)
    if number is not None and any(sent):
        raise BadValue("--failed posts a request that is kept.", "Leave out what says another one.")
    typed = InspectFlags(
        *(location, at, eval, set, when, hits, times, log, steps, step_into, frames, depth, all_code),
        *(timeout, on_error, all_locals),
    )
    if typed.locations and on_error:
        raise BadValue("One stop at a time: at a line, or with --on-error where the request raises.", "Leave out one.")
    wanted = read_inspection(typed)
    shown = InspectionPrinter(call.console, [call.settings.project], all_code)
    file, body = read_body_argument(request, read_stdin)
    posted = read_request(file, content_type, method, form, query, header, body)
    often, anywhere = read_number("repeat", repeat, 1), not (typed.locations or on_error) and number is None
    look = Look(typed.locations, posted, wanted, is_given, repeat=often, at_breakpoint=anywhere)
    _inspect_service(call, look, number, shown)


def _inspect_service(call: Command, look: Look, number: int | None, shown: InspectionPrinter) -> None:
    """Inspect the service during a request, and show the response and the result.

    Args:
        call: The command.
        look: What to inspect, and the request.
        number: The number of a failed request to post again; None for another request.
        shown: Shows the stops as they arrive.
    """
    from ..flows.service_inspection import missing_request_error
    from ._inspect_flags import print_unreached
    from ._inspection import show_response

    result: dict[str, Any] = {}
    try:
        result = _existing_deployment(call, held=False).inspect(look, number, shown.show)
        if result["response"] is None:
            return
        if look.repeat == 1:
            show_response(call.console, result["response"])
        print_unreached(call.console, result)
        if not look.is_given and (error := missing_request_error(result["response"])):
            raise error
    finally:
        # The result is shown whatever happens to the request.
        if result or shown.results:
            call.console.result(result or {**shown.results, "response": None})


@command(json=True, help=STACKS_HELP, iterable=["eval"])
def stacks(call: Command, eval: list[str], watch: bool = False, all_code: bool = False) -> None:
    """Show where the service's processes, threads and tasks stand now, without stopping them."""
    from ..flows.stacks import read_stacks
    from ._stacks import show

    target = _existing_deployment(call, held=False).stack_target()
    show(call.console, lambda: read_stacks([target], eval), eval, watch=watch, all_code=all_code)


@command(json=True, help={name: text for name, text in SNAPSHOT_HELPS.items() if name != "rank"}, iterable=["eval"])
def snapshot(
    call: Command, eval: Sequence[str], number: str | None = None, frame: str | None = None, list: bool = False
) -> None:
    """Show the snapshot of the service's last exception: the exception, the stack, the variables."""
    from ..flows.snapshots import snapshots_of_service

    show_snapshot(
        call, lambda: snapshots_of_service(call.settings), SnapshotSelection(None, number, frame, tuple(eval), list)
    )


@command(json=True)
def status(call: Command) -> None:
    """Show the service, whether it waits for a debugger, and which agents are attached."""
    from ..debugger.readiness import current_state
    from ..paths import shown

    there = _existing_deployment(call, held=False)
    service = there.running()
    if service is None:
        call.console.line("No service of this project is running.")
        call.console.result({"service": None, "agents": []})
        return
    state = there.state(service)
    debugger = current_state(service.events) if state == "running" else None
    call.console.line(f"{service.name}  {state}  {service.engine}  {shown(service.score_script)}")
    if service.started and state == "running":
        call.console.line(f"Post to   {service.scoring_url}")
        call.console.line(f"Debugger  {service.endpoint.host}:{service.endpoint.port}  {debugger or ''}".rstrip())
    agents = _agents.show_sessions(call.console, call.project, "deploy", "")
    shown_service = {"name": service.name, "engine": service.engine, "status": state, "debugger": debugger}
    call.console.result({"service": shown_service, "agents": agents})


@command(json=True)
def requests(call: Command) -> None:
    """List the requests that failed; deploy.inspect --failed N posts one again."""
    service, found = _existing_deployment(call).failed_requests()
    for one in found:
        call.console.value(one.as_text(service))
    if found:
        call.console.line(f"Look at one    inv deploy.inspect --failed {found[-1].number}")
    else:
        call.console.line("No request to the service has failed since it was started.")
    call.console.result({"requests": [one.as_json(service) for one in found]})


@command(json=True)
def stop(call: Command) -> None:
    """Stop and remove the deployed service; the same as container.stop."""
    # Not the same task object as container.stop: Invoke removes the help of a task that is in two collections.
    stop_service(call)


def _lock_deployment(call: Command) -> AbstractContextManager[None]:
    """Lock the project's deployment for this command."""
    from ..project import exclusive
    from ..sessions import session_folder

    return exclusive(session_folder(call.settings.project), call.name)


def _example_arguments(deployment: Deployment) -> str:
    """Arguments for a first inspection: the last line of run() and the sample request next to the script."""
    import shlex

    from ..paths import shown
    from ._inspection import quote_location, sample_line

    script = deployment.settings.score_script
    described = deployment.described
    if described is not None and (described.code is None or described.routes is not None):
        # The scoring code is this program's, or it is in the image.
        return ""
    sample = script.parent / "sample.json"
    line = sample_line(script)
    if line is None:
        return ""
    request = shlex.quote(str(shown(sample))) if sample.exists() else "YOUR.json"
    return f"{quote_location(script.name, line)} --request {request}"
