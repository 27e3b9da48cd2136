"""A real SSH server whose Python is a lying one: real commands end in two lines, and nothing comes of the lie."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import Hosts
from remotes import RemoteProject, remote_project

#: In the place of the other machine's Python: answers as the program's helper would, with one answer from a file.
LIAR = """\
#!/usr/bin/python3
import json, os, struct, sys
if "ensurepip" in " ".join(sys.argv):
    print("3011002 3.11.2 1")
    sys.exit()
lies = json.load(open(os.path.expanduser("~/lies.json")))
source, out = sys.stdin.buffer, sys.stdout.buffer
source.read(int(source.readline()))
def put(value):
    if isinstance(value, str):
        out.write(bytes.fromhex(value))
    else:
        data = json.dumps(value).encode()
        out.write(struct.pack(">cI", b"J", len(data)) + data)
    out.flush()
def get():
    head = source.read(5)
    if len(head) < 5:
        sys.exit()
    kind, length = struct.unpack(">cI", head)
    data = source.read(length)
    return json.loads(data) if kind == b"J" else {}
out.write(b"\\0azureml-debug agent\\n")
for value in lies.get("hello", [{"python": [3, 11, 2], "executable": "/usr/bin/python3", "home": "/home/azureuser",
                                 "node": "x", "time": 1.0, "system": "Linux"}]):
    put(value)
answers = {
    "open": [{"done": True, "root": "/home/azureuser/p", "sync": "", "named": [], "files": {}, "drifted": []}],
    "files": [{"done": True, "sync": "x", "kept": []}],
    "program": [{"done": True, "root": "/home/azureuser/x", "there": True}],
    "close": [{"done": True}],
    "environment": [{"done": True, "python": "/usr/bin/python3"}],
    "task": [{"started": "/home/azureuser/t", "boot": ""}, {"exit": 0}, {"done": True}],
    "digests": [{"done": True, "digests": {}}],
}
answers.update(lies)
while True:
    asked = get()
    if asked.get("do") == "files":
        while not get().get("end"):
            pass
    for value in answers.get(asked.get("do"), []):
        put(value)
"""
STARTED: dict[str, Any] = {"started": "/home/azureuser/t", "boot": ""}


def _task(*reports: Any) -> list[Any]:
    told = [{"report": report, "offset": 10} for report in reports]
    return [STARTED, *told, {"exit": 0}, {"done": True}]


def _configurations(**changed: Any) -> dict[str, Any]:
    entry = {
        "name": "Azure Machine Learning Deployment: Docker Debug",
        "type": "debugpy",
        "request": "attach",
        "connect": {"host": "127.0.0.1", "port": 5678},
        "pathMappings": [],
        **changed,
    }
    owner = {"service": "/home/azureuser/s", "created": 1.0}
    told = {"owner": owner, "what": "x", "entries": [entry], "compounds": [], "in_use": None, "ports": {}}
    return {"configurations": told}


def _files(*names: str) -> list[Any]:
    return _task({"fetch": [[name, f"/home/azureuser/{name}"] for name in names], "copy": "/etc", "run_id": "e_1"})


#: By what is typed: the lie, and what is said of it.
COPY, DEBUG, LIST = ("experiment.outputs", "--copy", "results"), ("deploy.attach-config",), ("experiment.list",)
CASES: list[tuple[tuple[str, ...], dict[str, Any], str]] = [
    (COPY, {"task": _files("../../escaped.sh")}, "does not stay in its folder"),
    (COPY, {"task": _files("/tmp/escaped.sh")}, "does not stay in its folder"),
    (COPY, {"task": _files(".ssh/authorized_keys")}, "was not asked for"),
    (COPY, {"task": _files("outputs/a", "outputs/a/b")}, "is in a file"),
    (COPY, {"task": _files("outputs/a"), "get": [{"size": 1 << 60}]}, "is not a number"),
    (COPY, {"task": _files("outputs/a"), "get": [{"size": 3}, "44000000056162636465"]}, "were announced"),
    (LIST, {"digests": [{"done": True, "digests": {".azureml/../x.runconfig": "0" * 64}}]}, "does not stay"),
    (LIST, {"digests": [{"done": True, "digests": {"tasks.py": "0" * 64}}]}, "was not asked for"),
    (("pipeline.list",), {"task": _files("outputs/a")}, "files that were not asked for"),
    (DEBUG, {"task": _task(_configurations(type="node", request="launch", program="x"))}, "is not one of the known"),
    (DEBUG, {"task": _task(_configurations(name="mine"))}, "not one of this program's"),
    (DEBUG, {"task": _task(_configurations(connect={"host": "-oProxyCommand=x", "port": 5678}))}, "is not an address"),
    (DEBUG, {"task": _task(_configurations(connect={"host": "127.0.0.1", "port": 0}))}, "is not a number"),
    (("pipeline.list",), {"open": [{"done": True, "root": "p"}]}, "without its `sync`"),
    (("pipeline.list",), {"hello": ["4affffffff"]}, "is not a number from"),
    (("pipeline.list",), {"hello": [[1]]}, "is not a JSON object"),
    (("pipeline.list",), {"program": ["4a00000001ff"], "open": [{"failure": ["\x1b[2Jx", 7]}]}, "is not text"),
]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, hosts: Hosts) -> Iterator[RemoteProject]:
    with remote_project(tmp_path / "one" / "two" / "project", hosts, hosts.instance) as made:
        script = hosts.instance.programs / "python3"
        script.write_text(LIAR)
        script.chmod(0o755)
        yield made


def test_a_machine_that_lies_is_told_of_in_two_lines_and_nothing_comes_of_it(
    project: RemoteProject, tmp_path: Path
) -> None:
    launch = project.folder / ".vscode" / "launch.json"
    launch.parent.mkdir()
    launch.write_text(json.dumps({"version": "0.2.0", "configurations": [{"name": "mine", "type": "node"}]}))

    def seen() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes()
            for path in tmp_path.rglob("*")
            if path.is_file() and ".azureml-debug" not in path.parts and "__pycache__" not in path.parts
        }

    before = seen()
    for typed, lie, said in CASES:
        project.host.put("lies.json", json.dumps(lie))
        result = project.inv(typed[0], "--remote", *typed[1:])
        result.says("has sent", "discarded")
        assert said in result.err and project.host.address in result.err, (typed, lie, result.err)
        assert seen() == before, (typed, lie)
    assert not os.path.exists("/tmp/escaped.sh") and not (tmp_path / "escaped.sh").exists()
    assert project.tunnels() == []
