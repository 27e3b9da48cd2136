"""The driver's command line."""

from __future__ import annotations

import argparse
import os
import re
from typing import Any, List, Tuple

from .problems import Problem

#: Azure's limit, in seconds, for loading a mini-batch and for `init()`.
OVERHEAD_SECONDS = 600


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise Problem("The parallel step cannot be started: {}.".format(message), "Correct it in its file.")


def parse(arguments: List[str]) -> Tuple[argparse.Namespace, List[str]]:
    """Parse the options and, after ``--``, the entry script's own arguments.

    As in Azure, the driver reads some of its settings from the latter without removing them: entry scripts use
    ``parse_known_args``.

    Raises:
        Problem: An option is missing or invalid.
    """
    own, theirs = arguments, []  # type: List[str], List[str]
    if "--" in arguments:
        place = arguments.index("--")
        own, theirs = arguments[:place], arguments[place + 1 :]
    parser = _Parser(prog="parallel run", allow_abbrev=False, add_help=False)
    parser.add_argument("--entry-script", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--input-type", default="uri_folder")
    parser.add_argument("--mini-batch-size", default="")
    parser.add_argument("--partition-keys", default="")
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--max-retries", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=60)
    parser.add_argument("--error-threshold", type=int, default=-1)
    parser.add_argument("--mini-batch-error-threshold", type=int, default=-1)
    parser.add_argument("--logging-level", default="INFO")
    parser.add_argument("--append-row-to", default="")
    parser.add_argument("--output", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--model-name", default="")
    parser.add_argument("--only", type=int, default=-1)
    options = parser.parse_args(own)
    if not 0 < options.timeout <= 259200:
        raise Problem("retry_settings.timeout cannot be {:g}.".format(options.timeout), "Write seconds, up to 259200.")
    if options.max_retries < 0:
        raise Problem("retry_settings.max_retries cannot be {}.".format(options.max_retries), "Write 0 or more.")
    reserved = _Parser(prog="program_arguments", allow_abbrev=False, add_help=False)
    reserved.add_argument("--error_threshold", type=int, default=options.error_threshold)
    reserved.add_argument("--allowed_failed_percent", type=float, default=100.0)
    reserved.add_argument("--task_overhead_timeout", type=float, default=OVERHEAD_SECONDS)
    reserved.add_argument("--append_row_dataframe_header", default="False")
    found, _unknown = reserved.parse_known_args(theirs)
    options.error_threshold = found.error_threshold
    options.allowed_failed_percent = found.allowed_failed_percent
    options.overhead = found.task_overhead_timeout
    options.header = found.append_row_dataframe_header.lower() == "true"
    options.keys = [name for name in re.split(r"[,\s]+", options.partition_keys) if name]
    options.processes = options.processes or os.cpu_count() or 1
    level = options.logging_level.upper()
    options.logging_level = {"WARN": "WARNING"}.get(level, level)
    if options.logging_level not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        raise Problem("logging_level cannot be `{}`.".format(options.logging_level), "Write DEBUG, INFO or WARNING.")
    return options, theirs
