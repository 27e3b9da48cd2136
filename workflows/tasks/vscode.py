"""Setting up VS Code."""

from __future__ import annotations

from typing import Any

from ._command import Command, command


def _flow(call: Command, remote: bool, values: dict[str, Any]) -> Any:
    from ..flows.editor import EditorFlow, Wanted

    return EditorFlow(
        call.settings,
        call.console,
        Wanted(remote, values["wait"], values["follow"], values["stop_after"], values["mcp"]),
    )


def _show(call: Command, result: dict[str, Any]) -> None:
    if result:
        call.console.line()
        call.console.line("Open this folder in VS Code, choose one of these in Run and Debug, and press F5:")
        for name in [*result["configurations"], *result["compounds"]]:
            call.console.line(f"  {name}")
        call.console.result(result)


def _after_remote(call: Command, values: dict[str, Any]) -> None:
    _show(call, _flow(call, True, values).with_remote())


@command(
    settings=("engine", "score_script", "source_directory", "pipeline_file", "debug_port"),
    json=True,
    help={
        "wait": "F5 holds the service before it loads score.py, so that you can debug imports and init().",
        "follow": "Keep showing the log in VS Code's terminal while you debug.",
        "stop_after": "End what F5 started as soon as the debug session ends.",
        "mcp": "Write .vscode/mcp.json, too, so that agents in VS Code debug with inv mcp.serve.",
    },
    after=_after_remote,
    interrupted="launch.json and tasks.json are whole.",
)
def setup(call: Command, wait: bool = False, follow: bool = False, stop_after: bool = False, mcp: bool = False) -> None:
    """Write launch.json and tasks.json, so that F5 runs the whole chain."""
    values = {"wait": wait, "follow": follow, "stop_after": stop_after, "mcp": mcp}
    _show(call, _flow(call, False, values).setup())
