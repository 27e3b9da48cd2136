"""Steps on each engine, debugged: breakpoints, ranks, and who may come."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from engine_steps import Steps, ended
from projects import listeners, until
from test_docker_access import INITIALIZE, in_container
from users import OTHER, dial, needs_users

from workflows.debugger.dap import DapClient
from workflows.debugger.readiness import read_events
from workflows.engines import docker_network
from workflows.engines.ports import find_free_port
from workflows.engines.steps import StepDebug
from workflows.errors import UserError
from workflows.models import ImageRef

# Debugging


def debugged(steps: Steps, ranks: int = 1, **more: object) -> StepDebug:
    """Make the step a debugged one, on consecutive free ports."""
    while True:
        base = find_free_port(frozenset())
        if base + ranks < 65536 and all(not listeners(base + rank) for rank in range(ranks)):
            break
    debug = StepDebug({rank: base + rank for rank in range(ranks)}, timeout=200, **more)  # type: ignore[arg-type]
    steps.spec = replace(steps.spec, debug=debug)
    return debug


def test_what_a_debuggee_has_to_know_reaches_the_step_and_the_persons_path_stays(steps: Steps) -> None:
    debug = debugged(steps, wait=False)
    steps.write("show.sh", "env\n")
    assert steps.run("bash show.sh", {"PYTHONPATH": "/of/the/person"}) == 0
    seen = dict(line.partition("=")[::2] for line in steps.log().splitlines())
    assert seen["AZUREML_DEBUGGEE_PORT"] == str(debug.ports[0])
    assert seen["AZUREML_DEBUGGEE_WAIT"] == "0" and seen["AZUREML_DEBUGGEE_TIMEOUT"] == "200"
    inject, *rest = seen["PYTHONPATH"].split(":")
    assert inject.endswith("/inject") and rest == ["/of/the/person"]


def test_a_step_that_is_not_debugged_carries_nothing_of_the_debuggees(steps: Steps) -> None:
    assert steps.run("env") == 0
    assert "PYTHONPATH" not in steps.log() and "AZUREML_DEBUGGEE_PORT" not in steps.log()


def attach(steps: Steps, port: int, breakpoints: Mapping[str, list[int]]) -> DapClient:
    client = DapClient.connect("127.0.0.1", port, 20)
    mappings = [mapping.as_json() for mapping in steps.engine.mappings(steps.spec)]
    client.attach(path_mappings=mappings, breakpoints=breakpoints, timeout=60)
    return client


def stopped(client: DapClient) -> tuple[str, int, dict[str, str]]:
    """File, line and locals of the frame in which a debuggee stops next; it goes on then."""
    event = client.wait_event("stopped", timeout=60)
    thread = event.body["threadId"]
    frame = client.request("stackTrace", {"threadId": thread, "levels": 1})["stackFrames"][0]
    scope = client.request("scopes", {"frameId": frame["id"]})["scopes"][0]
    found = client.request("variables", {"variablesReference": scope["variablesReference"]})["variables"]
    client.request("continue", {"threadId": thread})
    return frame["source"]["path"], frame["line"], {item["name"]: item["value"] for item in found}


@pytest.mark.parametrize(
    ("script", "command"),
    [
        ("train.py", "python train.py"),
        ("src/train.py", "cd src && true; cd ..; python src/train.py"),
        ("pkg/train.py", "python -m pkg.train"),
    ],
)
def test_a_breakpoint_is_hit_in_the_script_and_in_a_module_of_a_subfolder(
    steps: Steps, script: str, command: str
) -> None:
    prefix = {"train.py": "lib.", "src/train.py": "lib.", "pkg/train.py": "pkg.lib."}[script]
    folder = Path(script).parent / "lib"
    main = steps.write(
        script, f"from {prefix}helper import double\nvalue = 21\nresult = double(value)\nprint(result)\n"
    )
    steps.write(f"{folder}/__init__.py", "")
    if script.startswith("pkg"):
        steps.write("pkg/__init__.py", "")
    helper = steps.write(f"{folder}/helper.py", "def double(number):\n    twice = number * 2\n    return twice\n")
    debug = debugged(steps)
    process = steps.start(command)
    until(lambda: "waiting" in kinds(steps) or process.poll() is not None, "the hold")
    assert process.poll() is None, steps.log()
    with attach(steps, debug.ports[0], {str(main): [3], str(helper): [3]}) as client:
        path, line, values = stopped(client)
        assert (path, line, values["value"]) == (str(main), 3, "21")
        path, line, values = stopped(client)
        assert (path, line, values["twice"]) == (str(helper), 3, "42")
        client.wait_event("terminated", timeout=60)
    assert ended(process) == 0
    log = steps.log()
    wanted = ["Timeout for debug connection: 20", "ip_address: 127.0.0.1", "Debugger attached = True", "\n42\n"]
    places = [log.index(text) for text in wanted]
    assert places == sorted(places), log


def test_breakpoints_are_hit_in_additional_includes(steps: Steps, tmp_path: Path) -> None:
    """In a folder, in files beside each other, and in a file of the code's own that is included."""
    source = "def double(number):\n    twice = number * 2\n    return twice\n"
    folder = tmp_path / "other place" / "shared"
    places = [folder / "deep" / "one.py", folder.parent / "two.py", folder.parent / "three.py"]
    places.append(steps.code / "inner" / "four.py")
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(source)
    main = folder.parent / "main.py"
    main.write_text("import shared.deep.one as a, two as b, three as c, four as d\nfor m in a, b, c, d: m.double(1)\n")
    steps.spec = replace(steps.spec, includes=(folder, *places[1:], main))
    debug = debugged(steps)
    process = steps.start("python main.py")
    until(lambda: "waiting" in kinds(steps) or process.poll() is not None, "the hold")
    assert process.poll() is None, steps.log()
    lines = {**{str(place): [3] for place in places}, str(main): [2]}
    with attach(steps, debug.ports[0], lines) as client:
        assert stopped(client)[:2] == (str(main), 2)
        seen: list[tuple[str, int]] = []
        while len(seen) < len(places):
            path, line, _values = stopped(client)
            if path != str(main):
                seen.append((path, line))
        assert seen == [(str(place), 3) for place in places]
        client.disconnect()
    assert ended(process) == 0


def kinds(steps: Steps) -> list[str]:
    return [event["event"] for event in read_events(steps.spec.events)]


def test_ranks_are_debugged_on_consecutive_ports_that_only_this_machine_reaches(steps: Steps) -> None:
    steps.write("train.py", "import os\nrank = os.environ['RANK']\nprint('rank', rank)\n")
    main = steps.code / "train.py"
    steps.spec = replace(steps.spec, ranks=3, processes=3, distribution="pytorch")
    debug = debugged(steps, ranks=3)
    process = steps.start("python train.py")
    until(lambda: kinds(steps).count("waiting") == 3 or process.poll() is not None, "three holds")
    for port in debug.ports.values():
        assert listeners(port) == ["127.0.0.1"]
    clients = [attach(steps, port, {str(main): [3]}) for port in debug.ports.values()]
    seen = [stopped(client)[2]["rank"] for client in clients]
    assert seen == ["'0'", "'1'", "'2'"]
    for client in clients:
        client.disconnect()
    assert ended(process) == 0


def test_a_step_paused_at_a_breakpoint_is_ended_like_any_other(steps: Steps) -> None:
    main = steps.write("train.py", "value = 1\nprint(value)\n")
    debug = debugged(steps)
    process = steps.start("python train.py")
    until(lambda: "waiting" in kinds(steps), "the hold")
    with attach(steps, debug.ports[0], {str(main): [2]}) as client:
        client.wait_event("stopped", timeout=60)
        process.end()
    assert process.poll() not in (None, 0)
    until(lambda: not listeners(debug.ports[0]), "the port to be free")


# Only the Docker engine publishes ports and uses images.


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_a_port_that_is_held_is_named_and_no_container_is_left(steps: Steps) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        steps.spec = replace(steps.spec, debug=StepDebug({0: port}))
        with pytest.raises(UserError, match=f"Port {port} "):
            steps.start("true")
    assert steps.left() == []


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_an_image_without_debugpy_is_debugged_all_the_same(steps: Steps) -> None:
    from workflows.environments.base_image import BASE_IMAGE
    from workflows.environments.separate_debugpy import debugpy_folder
    from workflows.paths import cache_folder

    steps.spec = replace(
        steps.spec, image=ImageRef("docker", "", BASE_IMAGE, debugpy=str(debugpy_folder(cache_folder())))
    )
    main = steps.write("train.py", "value = 1\nprint(value)\n")
    debug = debugged(steps)
    process = steps.start("python3 train.py")
    until(lambda: "waiting" in kinds(steps) or process.poll() is not None, "the hold")
    assert process.poll() is None, steps.log()
    with attach(steps, debug.ports[0], {str(main): [2]}) as client:
        assert stopped(client)[:2] == (str(main), 2)
    assert ended(process) == 0


@needs_users
@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_nobody_but_the_owner_gets_into_the_ranks_of_a_step_and_no_other_container_reaches_it(steps: Steps) -> None:
    from workflows.engines.docker_client import connect
    from workflows.engines.docker_containers import gate_ports

    main = steps.write("train.py", "value = 1\nprint(value)\n")
    steps.spec = replace(steps.spec, ranks=2, processes=2, distribution="pytorch")
    debug = debugged(steps, ranks=2)
    process = steps.start("python train.py")
    until(lambda: kinds(steps).count("waiting") == 2 or process.poll() is not None, "two holds")
    with contextlib.closing(connect()) as client:
        (found,) = client.api.containers(filters={"label": f"azureml-debug.run={steps.spec.run_id}"})
        made = client.api.inspect_container(found["Id"])
    (network,) = made["NetworkSettings"]["Networks"].values()
    gates = gate_ports(made["Config"]["Labels"])
    assert set(gates) == set(debug.ports.values())
    for port, gate in gates.items():
        for host, number in (("127.0.0.1", port), ("127.0.0.1", gate), (network["IPAddress"], port)):
            with dial(number, OTHER, address=host, first=INITIALIZE, then="half-close") as stranger:
                assert not stranger.said("data"), (host, number)
    places = [f"{network['IPAddress']}:{port}" for port in gates]
    for other in ("bridge", docker_network.NAME):
        answers = in_container(other, *places)
        assert len(answers) == 2 and all(answer.startswith(b"b'' ") for answer in answers.values()), answers
    for port in gates:
        with attach(steps, port, {str(main): [2]}) as debugger:
            assert stopped(debugger)[1] == 2
            debugger.disconnect()
    assert ended(process) == 0
    assert all(not listeners(port) for port in gates)
