"""Debugs a batch deployment: runs the pipeline that its file describes on the given data."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import BadValue, UserError
from ._runs import follow_to_end, show_debugged

if TYPE_CHECKING:
    from ._command import Command


def debug_batch(call: Command, data: str | None, mini_batch: str | None, follow: bool, dry_run: bool) -> None:
    """Debug the batch deployment of the settings.

    Args:
        call: The command.
        data: A folder or file, relative to the current folder; None if none was given.
        mini_batch: The only mini-batch to run, as typed.
        follow: Whether to stay and stream the log.
        dry_run: Whether to show what would run instead of running it.

    Raises:
        UserError: The settings name no batch deployment, or it cannot be run.
        BadValue: No data is given, or ``mini_batch`` is not a number.
    """
    from ..assets.kinds import BATCH_DEPLOYMENT, BATCH_ENDPOINT, kind_of_file
    from ..backends.base import DebugRequest
    from ..deployments.endpoint import find_deployment
    from ..flows.pipeline import PipelineFlow, Wanted
    from ..paths import shown
    from ..pipelines.batch import data_input
    from ..pipelines.parts import read_parts
    from ..pipelines.yaml_file import read_yaml

    file = call.settings.deployment
    if file is None:
        raise BadValue("--data is for a batch deployment, and none is named.", "Name its file: --deployment FILE")
    note = ""
    if kind_of_file(file) is BATCH_ENDPOINT:
        deployment, note = find_deployment(read_yaml(file, "deployment file"))
        file = deployment.file or file
    if kind_of_file(file) is not BATCH_DEPLOYMENT:
        raise UserError(f"{shown(file)} is not a batch deployment, so it takes no --data.", "Remove --data.")
    if data is None:
        raise BadValue("A batch deployment runs on data, and none is named.", "Name a folder or a file: --data PATH")
    if note:
        call.console.line(f"  note: {note}")
    parts = read_parts(None, mini_batch)
    wanted = Wanted({data_input(file): data}, parts=parts)
    flow = PipelineFlow(replace(call.settings, pipeline_file=file, backend="local"), call.console)
    if dry_run:
        flow.dry_run(wanted)
        return
    words = ["--deployment", str(shown(file)), "--data", data]
    run, found = flow.debug(wanted, DebugRequest(), shlex.join([*words, *parts.flags]))
    show_debugged(call, run, found)
    if follow:
        follow_to_end(call.console, flow.refresh, run)
