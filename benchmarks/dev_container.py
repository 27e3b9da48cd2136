"""Stands in for VS Code's command `code`, as far as its development containers go: it starts one.

``code --folder-uri vscode-remote://dev-container+FOLDER/PATH`` with FOLDER in hexadecimal, as azure-ai-ml types it.
What the variable BENCH_WINDOW names is written once the container runs: its id, and the ports that lead to the service
and to a debugger. VS Code would go on with its own start, which nobody waits for here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

#: Where this file has a debugger's adapter listen, in the container.
ADAPTER = 5680
#: What keeps such a container up until it is told to end, as VS Code has it.
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
    container = _said([*command, wanted["image"], "-c", UP])
    ports = [int(_said(["docker", "port", container, str(inside)]).rpartition(":")[2]) for inside in (port, ADAPTER)]
    place = Path(os.environ["BENCH_WINDOW"])
    half = place.with_suffix(".half")
    half.write_text(json.dumps({"container": container, "service": ports[0], "adapter": ports[1]}))
    half.rename(place)


def _said(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main(sys.argv[sys.argv.index("--folder-uri") + 1])
