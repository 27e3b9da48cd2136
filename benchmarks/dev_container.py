"""A replacement for VS Code's command `code` that starts a development container.

azure-ai-ml runs ``code --folder-uri vscode-remote://dev-container+FOLDER/PATH`` with FOLDER in hexadecimal. When the
container runs, the file that the variable BENCH_WINDOW names is written: the container's id, and the ports of the
service and of a debugger. VS Code's own start, which would follow, is left out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

#: The port of the debug adapter in the container.
ADAPTER = 5680
#: The command with which VS Code keeps such a container running until it gets a signal.
UP = 'trap "exit 0" 15; while sleep 1 & wait $!; do :; done'


def main(uri: str) -> None:
    """Start the container of a folder's devcontainer.json."""
    found = re.search(r"dev-container\+([0-9a-f]+)", uri)
    if found is None:
        raise SystemExit(f"not a development container: {uri}")
    folder = Path(os.fsdecode(bytes.fromhex(found.group(1))))
    wanted = json.loads((folder / ".devcontainer" / "devcontainer.json").read_text())
    (port,) = wanted["appPort"]
    command = ["docker", "run", "-d", "--entrypoint", "/bin/sh", *wanted["runArgs"]]
    for name, value in wanted["containerEnv"].items():
        command += ["-e", f"{name}={value}"]
    for mount in wanted["mounts"]:
        command += ["--mount", mount]
    for inside in (port, ADAPTER):
        command += ["-p", f"127.0.0.1::{inside}"]
    container = _output([*command, wanted["image"], "-c", UP])
    ports = [int(_output(["docker", "port", container, str(inside)]).rpartition(":")[2]) for inside in (port, ADAPTER)]
    place = Path(os.environ["BENCH_WINDOW"])
    partial = place.with_suffix(".partial")
    partial.write_text(json.dumps({"container": container, "service": ports[0], "adapter": ports[1]}))
    partial.rename(place)


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main(sys.argv[sys.argv.index("--folder-uri") + 1])
