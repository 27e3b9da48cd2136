"""The tools that start a story and end it. They run the user's code, so ``--read-only`` has none of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from ..errors import UserError
from ..runs import attachable, store
from ..runs import record as records
from ..runs.record import RunRecord
from . import commands, runs, tools
from .commands import StartedCommand
from .runs import DEPLOY, PIPELINE
from .state import State
from .tools import Answer, Tool

#: Seconds that ending something may take, including the time that programs have to end by themselves.
_END_SECONDS = 20.0
#: Seconds between two checks of a run.
_LOOK_SECONDS = 0.1
_START_DESCRIPTION = (
    "RUNS CODE: builds what is needed and runs the project's own code. Starts a deployed model (deploy), a "
    "pipeline, or an experiment, to be debugged, as inv deploy.debug, pipeline.debug and experiment.debug do. "
    "Returns once a program can be attached to, or holds, or all is over, or after the timeout; then call wait "
    "with the name in `start`. Use on_error=true to run at full speed and hold only where the code raises: the "
    "quickest way to a failure. Otherwise each script holds before its first line, so that breakpoints can be set."
)
_START_PROPERTIES = {
    "story": tools.STORY,
    "name": tools.text("The experiment's name (experiment only)."),
    "file": tools.text(
        "Pipeline file, deployment file, or the experiment's script, relative to the project. Default: as set."
    ),
    "steps": tools.texts("Debug these steps only, and run nothing but what they need (pipeline)."),
    "skip": tools.texts("Leave these steps out (pipeline)."),
    "inputs": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "Inputs of the pipeline by name: a path or a value.",
    },
    "rank": tools.text("A rank's number or `all`: which ranks of a distributed step are debugged."),
    "on_error": tools.flag("Hold only where the code raises.", False),
    "hold": tools.flag("Hold each script before its first line; for deploy before the script is loaded.", True),
    "children": tools.flag("Let the debugger into child processes, too.", True),
    "from_run": tools.text("Go on from this earlier run: its completed steps are taken over (pipeline)."),
    "arguments": tools.texts("Arguments of the experiment's script, in place of those it had."),
    "timeout": tools.timeout("a program that can be attached to"),
}


def start_tools(state: State) -> list[Tool]:
    """The tools that start and end runs and the service."""
    return [_start(state), _end(state)]


def _start(state: State) -> Tool:
    def start(
        story: str,
        name: str | None = None,
        file: str | None = None,
        steps: Sequence[str] = (),
        skip: Sequence[str] = (),
        inputs: Mapping[str, str] | None = None,
        rank: str | None = None,
        on_error: bool = False,
        hold: bool = True,
        children: bool = True,
        from_run: str | None = None,
        arguments: Sequence[str] | None = None,
        timeout: float = tools.TIMEOUT,
    ) -> Answer:
        state.check_command_limit()
        deadline = time.monotonic() + timeout
        given = {"steps": steps, "skip": skip, "inputs": inputs, "from_run": from_run}
        if story != PIPELINE and (wrong := next((key for key, value in given.items() if value), None)):
            raise UserError(f"{wrong} is for a pipeline.", f"Leave it out for story={story}.")
        if story == DEPLOY:
            typed = _deployment(file, hold)
        else:
            flags = _flags(rank, on_error, hold, children)
            if story == PIPELINE:
                typed = _pipeline(file, steps, skip, inputs or {}, from_run, flags)
            else:
                typed = _experiment(name, file, arguments, flags)
        begun = StartedCommand(typed, state.project)
        begun.story = story
        known = state.add_command(begun)
        state.log(f"{state.client} begins {begun.typed}")
        return start_result(state, known, deadline)

    return Tool(
        "start",
        "Start a story",
        _START_DESCRIPTION,
        _START_PROPERTIES,
        start,
        required=("story",),
        runs_code=True,
    )


def _flags(rank: str | None, on_error: bool, hold: bool, children: bool) -> list[str]:
    flags = [f"--rank={rank}"] if rank is not None else []
    flags += ["--on-error"] if on_error else []
    return [*flags, *([] if hold else ["--no-wait"]), *([] if children else ["--no-children"])]


def _deployment(file: str | None, hold: bool) -> list[str]:
    found = [f"--deployment={file}"] if file is not None else []
    return ["deploy.debug", "--json", *found, *(["--wait"] if hold else [])]


def _pipeline(
    file: str | None,
    steps: Sequence[str],
    skip: Sequence[str],
    inputs: Mapping[str, str],
    from_run: str | None,
    flags: Sequence[str],
) -> list[str]:
    # pipeline.submit returns at once; waiting is done here, and the run goes on when the client leaves.
    typed = ["pipeline.submit", "--json", *flags]
    typed += [f"--pipeline-file={file}"] if file is not None else []
    typed += [f"--step={one}" for one in steps] + [f"--skip={one}" for one in skip]
    typed += [f"--input={name}={value}" for name, value in inputs.items()]
    return [*typed, *([f"--from-run={from_run}"] if from_run is not None else [])]


def _experiment(
    name: str | None, script: str | None, arguments: Sequence[str] | None, flags: Sequence[str]
) -> list[str]:
    if name is None:
        raise UserError("An experiment has a name.", "Give it: name=NAME")
    typed = ["experiment.debug", name, "--json", *flags]
    typed += [f"--script={script}"] if script is not None else []
    return [*typed, *(["--", *arguments] if arguments is not None else [])]


# Results of starts --------------------------------------------------------------------------------


def start_result(state: State, known: str, deadline: float) -> Answer:
    """Wait for a start until the deadline; returns what can be attached to, or what it waits for.

    Raises:
        UserError: It has failed.
    """
    begun = state.command(known)
    begun.wait_until(deadline)
    found: Answer = {"start": known, "command": begun.typed, "said": _new_output(state, begun)}
    if begun.is_at_work:
        found |= {"state": "starting", "seconds": round(begun.seconds, 1)}
        found["waits_for"] = f"{begun.typed} to come so far that something can be attached to; call wait"
        return found
    result = begun.result()
    if begun.story == DEPLOY:
        return {**found, "state": "serves", "service": runs.service_json(state)}
    run = runs.find_run(state, str(result.get("number") or result.get("run_id")), begun.story)
    return {**found, **wait_until_held(state, run, deadline)}


def _new_output(state: State, begun: StartedCommand) -> list[str]:
    """The lines of a command's output since the last call, with secrets masked."""
    return [state.secrets.mask_text(line) for line in begun.new_lines()]


def wait_until_held(state: State, run: RunRecord, deadline: float) -> Answer:
    """Wait until a step of a run holds or can be attached to, the run is over, or the deadline has come."""
    flow = runs.flow_of(state, run.kind)
    while True:
        run = flow.refresh(run)
        found = [one for one in attachable.attachables_of_run(run) if one.is_open]
        holding = [one for one in found if one.state == attachable.WAITING]
        if run.final or holding or (found and not run.on_error and not _is_to_hold(run)):
            break
        if time.monotonic() >= deadline:
            break
        time.sleep(_LOOK_SECONDS)
    state_word = "over" if run.final else "holds" if holding else "runs"
    told: Answer = {"state": state_word, "run": runs.run_json(state, run)}
    if state_word == "runs":
        told["waits_for"] = _waits_for(run)
    if run.final and run.status == records.FAILED:
        told["failure"] = _failure(state, run)
    return told


def _is_to_hold(run: RunRecord) -> bool:
    from ..runs import plan

    if run.in_workspace:
        return True
    return any(step.debug is not None and step.debug.wait for step in plan.load(run.folder).steps)


def _waits_for(run: RunRecord) -> str:
    running = [step for step in run.steps if step.status == records.RUNNING]
    what = "an exception, or the end of the run" if run.on_error else "a step to hold for its debugger"
    if not running:
        named = next((step for step in run.steps if not step.final), None)
        return f"{what}; {named.name if named else 'the run'} is {named.status if named else run.status}; call wait"
    return f"{what}; running: {', '.join(f'{one.name} for {one.seconds:.0f} s' for one in running)}; call wait"


def _failure(state: State, run: RunRecord) -> str:
    """Why a run has failed, in the words of its command."""
    from ..flows.run_failures import step_failed

    failed = next((step for step in run.steps if step.status == records.FAILED), None)
    if failed is None:
        return run.reason
    error = step_failed(run, failed)
    return state.secrets.mask_text("\n".join([*error.details, str(error)]))


def _end(state: State) -> Tool:
    def end(story: str | None = None, run: str | None = None, start: str | None = None) -> Answer:
        if start is not None:
            begun = state.command(start)
            if begun.is_at_work:
                ended = begun.interrupt(_END_SECONDS)
                state.log(f"{state.client} has ended {begun.typed}")
                return {"start": start, "ended": ended, "said": _new_output(state, begun)}
            if begun.story == DEPLOY:
                story = DEPLOY
            else:
                result = begun.result()
                story, run = begun.story, str(result.get("number") or result.get("run_id"))
        if story == DEPLOY:
            result = commands.run_command(["deploy.stop", "--json"], state.project, _END_SECONDS)
            state.log(f"{state.client} has stopped the service")
            return {"story": DEPLOY, "stopped": bool(result.get("stopped"))}
        if run is None:
            # The latest one may be somebody else's work.
            raise UserError("Which run is to be ended?", "Name it: run=NUMBER; status lists the runs.")
        chosen = runs.find_run(state, run, story)
        if chosen.final:
            return {"run": chosen.number, "status": chosen.status, "canceled": False}
        flow = runs.flow_of(state, chosen.kind)
        chosen = store.refresh(flow.cancel(chosen)) if not chosen.in_workspace else flow.cancel(chosen)
        state.log(f"{state.client} has canceled the run {chosen.run_id}")
        return {"run": chosen.number, "status": chosen.status, "canceled": chosen.status == records.CANCELED}

    return Tool(
        "end",
        "End a run, the service, or a start",
        "DESTRUCTIVE: ends programs. Cancels a run with all its processes, stops the service (story=deploy), or takes "
        "back a start that is still at work. Logs and outputs so far are kept. To leave a program running and only end "
        "the debug session, use detach.",
        {
            "story": tools.STORY,
            "run": tools.text("The run, by number or id."),
            "start": tools.text("What start has named, such as a1."),
        },
        end,
        destroys=True,
        runs_code=True,
    )
