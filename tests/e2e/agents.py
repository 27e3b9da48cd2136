"""An agent for the tests: the SDK's own client, whose calls wait for their answers here."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from projects import ROOT, Project
from ready import typed

if TYPE_CHECKING:
    # Every worker collects the tests, and few start an agent: loading the SDK takes 0.7 s.
    from anyio.from_thread import BlockingPortal
    from mcp import Client
    from mcp.client.stdio import StdioServerParameters


@dataclass
class Agent:
    """A client of `inv mcp.serve`, with what its server has logged."""

    client: Client
    portal: BlockingPortal
    log: Path

    def ask(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that has to work."""
        result = self.portal.call(self.client.call_tool, tool, arguments)
        text = result.content[0].text
        assert not result.is_error, text
        answer: dict[str, Any] = result.structured_content
        assert json.loads(text) == answer
        return answer

    def refused(self, tool: str, **arguments: Any) -> str:
        """Call a tool that has to refuse, in two lines; what it says."""
        result = self.portal.call(self.client.call_tool, tool, arguments)
        text = str(result.content[0].text)
        assert result.is_error, text
        assert "Traceback" not in text
        wrong, todo = text.splitlines()[-2:]
        assert "error: " in wrong and todo, text
        return f"{wrong}\n{todo}"

    def begin(self, tool: str, **arguments: Any) -> Any:
        """Call a tool and do not wait for its answer."""
        return self.portal.start_task_soon(self.client.call_tool, tool, arguments)

    def tools(self) -> dict[str, Any]:
        """The tools by name."""
        return {tool.name: tool for tool in self.portal.call(self.client.list_tools).tools}


def command(project: Project, *flags: str) -> StdioServerParameters:
    """How the server of a project is started."""
    from mcp.client.stdio import StdioServerParameters

    environ = {**os.environ, **project.environ}
    words = [*typed(ROOT, project.folder, environ, "mcp"), "mcp.serve", *flags]
    return StdioServerParameters(command=words[0], args=words[1:], env=environ, cwd=project.folder)


@contextlib.contextmanager
def agent(project: Project, *flags: str, name: str = "test-agent", mode: str = "auto") -> Iterator[Agent]:
    """An agent that has started a server; at the end it leaves."""
    from anyio.from_thread import start_blocking_portal
    from mcp import Client
    from mcp.client.stdio import stdio_client
    from mcp_types import Implementation

    log = project.folder.parent / f"{name}.log"
    with open(log, "w") as errors, start_blocking_portal() as portal:
        transport = stdio_client(command(project, *flags), errlog=errors)
        client = Client(transport, client_info=Implementation(name=name, version="1"), mode=mode)
        with portal.wrap_async_context_manager(client):
            yield Agent(client, portal, log)
