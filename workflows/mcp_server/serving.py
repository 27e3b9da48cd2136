"""The Model Context Protocol over standard input and output, with the official SDK's server and our tools.

The SDK reserves standard output for the protocol: while it serves, everything that is printed goes to standard error.
"""

from __future__ import annotations

import functools
import json
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..command_name import with_typed_command
from ..errors import UserError
from .tools import MOST_SECONDS, TIMEOUT, Answer, Tool, abandonable_call, check_arguments

if TYPE_CHECKING:
    from .state import State

NAME = "azureml-debug"
INSTRUCTIONS = (
    "Debugs Azure Machine Learning code of this project: deployed models, pipeline steps, experiments. `status` shows "
    "what runs. `start` starts a story, `attach` begins a debug session with one of its processes, and the tools that "
    "take a session go on from there. Calls do not block: each returns after its timeout at the latest, and says what "
    "it still waits for; `wait` goes on waiting. A session stays until `detach`; the program goes on then. With "
    "`start` and on_error a run goes at full speed and holds where it raises."
)
#: Calls that are handled at the same time.
AT_ONCE = 32
#: Seconds that a call may take beyond its timeout.
GRACE = 8.0


def require_sdk() -> None:
    """Check that the SDK is installed.

    Raises:
        UserError: It is not, or it is too old.
    """
    try:
        import mcp_types  # noqa: F401
        from mcp.server.lowlevel import Server  # noqa: F401
        from mcp.server.stdio import stdio_server  # noqa: F401
    except ImportError as error:
        from ..azureml.sdk import install_extra

        raise UserError(
            f"The SDK of the Model Context Protocol, version 2 or later, is not installed for {sys.executable}.",
            f"Install the extra: {install_extra('mcp')}",
        ) from error


def serve(state: State, tools: Sequence[Tool], version: str) -> None:
    """Serve a client until it leaves; its sessions are ended then, and the debugged programs continue.

    Args:
        state: The server's state.
        tools: The tools.
        version: The program's version.

    Raises:
        UserError: The SDK is not installed.
    """
    require_sdk()
    import anyio

    try:
        anyio.run(functools.partial(_serve, state, tools, version))
    finally:
        state.close()


async def _serve(state: State, tools: Sequence[Tool], version: str) -> None:
    import anyio
    import anyio.to_thread
    import mcp_types as types
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server

    known = {tool.name: tool for tool in tools}
    limiter = anyio.CapacityLimiter(AT_ONCE)
    listed = [
        types.Tool(
            name=tool.name,
            title=tool.title,
            description=tool.description,
            input_schema=tool.schema(state.read_only),
            annotations=types.ToolAnnotations(
                title=tool.title,
                read_only_hint=tool.reads,
                destructive_hint=tool.destroys,
                idempotent_hint=tool.reads,
                open_world_hint=False,
            ),
        )
        for tool in tools
    ]

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=listed)

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        state.client = _client(context) or state.client
        arguments = params.arguments or {}
        seconds = _most(arguments)
        done, is_error = _late(params.name, seconds), True
        # A call without an answer in time is abandoned; it ends by itself, since every wait in it has a limit.
        with abandonable_call() as given_up, anyio.move_on_after(seconds):
            try:
                done, is_error = await anyio.to_thread.run_sync(
                    functools.partial(answer, state, known, params.name, arguments),
                    abandon_on_cancel=True,
                    limiter=limiter,
                )
            except anyio.get_cancelled_exc_class():
                given_up.set()
                raise
        said = done["error"] if is_error else json.dumps(done, ensure_ascii=False)
        return types.CallToolResult(content=[types.TextContent(text=said)], structured_content=done, is_error=is_error)

    server: Server[Any] = Server(
        NAME,
        version=version,
        title="Azure ML debugger",
        instructions=INSTRUCTIONS + (" It was started with --read-only." if state.read_only else ""),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    async with stdio_server() as (reader, writer):
        state.log(f"serves on standard input and output{', --read-only' if state.read_only else ''}")
        await server.run(reader, writer, server.create_initialization_options())
    state.log("the client has left")


def _most(arguments: dict[str, Any]) -> float:
    """Seconds after which a call is answered in any case."""
    wanted = arguments.get("timeout")
    return GRACE + (min(max(wanted, 0), MOST_SECONDS) if isinstance(wanted, int | float) else TIMEOUT)


def _late(name: str, seconds: float) -> Answer:
    late = UserError(
        f"{name} has not been done within {seconds:g} s: the program, or a disk, does not answer.",
        "It goes on. See status for what has come of it, then call again.",
    )
    return {"error": str(late)}


def _client(context: Any) -> str:
    """The client's name and version; empty if it sends none."""
    params = getattr(getattr(context, "session", None), "client_params", None)
    info = getattr(params, "client_info", None)
    name = " ".join(f"{getattr(info, 'name', '')} {getattr(info, 'version', '')}".split())
    return name[:80] if name.isprintable() else ""


def answer(state: State, known: dict[str, Tool], name: str, arguments: dict[str, Any]) -> tuple[Answer, bool]:
    """Answer one call.

    Args:
        state: The server's state.
        known: The tools by name.
        name: The tool's name.
        arguments: The call's arguments.

    Returns:
        The answer, and whether it is an error; then ``error`` has its two lines.
    """
    from .. import unexpected_errors

    threading.current_thread().name = f"tool {name}"[:40]
    try:
        tool = known.get(name)
        if tool is None:
            raise UserError(f"There is no tool {name[:100]!r} here.", f"Existing tools: {', '.join(known)}.")
        return tool.call(**check_arguments(tool, arguments, state.read_only)), False
    except UserError as error:
        lines = [*map(str, error.details), str(error)]
        return {"error": with_typed_command(state.secrets.mask_text("\n".join(lines)))}, True
    except Exception as error:
        told = unexpected_errors.explain(error, name, state.project)
        if told is not None:
            return {"error": with_typed_command(str(told))}, True
        log = unexpected_errors.log_traceback(error, state.project)
        where = f"; its traceback is kept in {log}" if log is not None else ""
        state.log(f"{name}: {type(error).__name__}: {error}")
        bug = UserError(f"This is a bug of the program: {type(error).__name__}{where}.", "Go on with another call.")
        return {"error": str(bug)}, True
