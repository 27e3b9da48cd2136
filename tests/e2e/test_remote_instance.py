"""`AML_REMOTE_HOST=azureml:NAME`: an instance with no port of its own, reached through its workspace's websocket.

The workspace is `azureml_server`, the instance a host with a real OpenSSH server behind a real websocket.
"""

from __future__ import annotations

import contextlib
import os
import signal
import site
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_server import AzureMLServer, write_configuration
from azureml_server.server import CLIENT
from hosts import Hosts
from laptop import Laptop
from pipelines import ADD_LINE, FAMILY, PREPARE_LINE, go_on, session, stop_of, value_of
from projects import PLAIN_LINE, ROOT, post, until
from remotes import RemoteProject, remote_project

from workflows.azureml.relay import instance as instances
from workflows.console import Console
from workflows.errors import UserError
from workflows.remote import address, keepalive
from workflows.remote.container_editor import open_remote_container
from workflows.remote.session import ConnectionLost, Session
from workflows.settings import resolve

OWN = "azureml_server_credential:ServerCredential"
DEPLOYMENT = "Azure Machine Learning Deployment: Docker Debug"
#: What `remote.check` looks at on the way, and what it looks at on every machine.
WAY = ["package", "sign-in", "workspace", "instance", "SSH key", "websocket"]
MACHINE = ["host key", "login", "Python", "disk", "Docker", "Azure ML", "clock"]


@pytest.fixture
def server(hosts: Hosts) -> Iterator[AzureMLServer]:
    with AzureMLServer(secure=True) as made:
        place = hosts.instance.address, hosts.instance.port
        made.add_instance("ci-one", sshd=place, public_key=hosts.laptop.public_key())
        made.add_instance("ci-two", sshd=place)
        yield made
        assert not made.unknown


@pytest.fixture
def project(tmp_path: Path, hosts: Hosts, server: AzureMLServer) -> Iterator[RemoteProject]:
    """A project on the laptop whose settings name the instance by its name alone."""
    with remote_project(tmp_path / "a project", hosts, hosts.instance) as made:
        write_configuration(server, made.folder)
        for name in ("AML_REMOTE_PORT", "AML_REMOTE_USER"):
            del made.environ[name]
        made.environ |= {
            "AML_REMOTE_HOST": "azureml:ci-one",
            "AML_AUTH": OWN,
            "PYTHONPATH": f"{ROOT}:{CLIENT}",
            "REQUESTS_CA_BUNDLE": str(server.authorities),
            "ARM_CLOUD_METADATA_URL": f"{server.url}/metadata/endpoints",
        }
        yield made


def known(laptop: Laptop) -> Path:
    """Where the program keeps the host keys of instances."""
    return laptop.home / ".local" / "state" / "azureml-debug" / "known_hosts"


def look(project: RemoteProject, **more: str) -> dict[str, dict[str, Any]]:
    """What `remote.check` finds, by its names."""
    result = project.inv("remote.check", "--json", **more)
    assert "Traceback" not in result.err, result.err
    return {one["name"]: one for one in result.json["findings"]}


def failed(project: RemoteProject, name: str, *parts: str, **more: str) -> None:
    """Assert that this is the last that `remote.check` looks at, that it has failed, and what is said of it."""
    found = look(project, **more)
    assert list(found)[-1] == name and found[name]["ok"] is False, found
    said = f"{found[name]['text']}\n{found[name]['remedy']}"
    assert found[name]["remedy"]
    for part in parts:
        assert part in said


def signed_in_here(project: RemoteProject, monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    """Have this process sign in as the project's commands do."""
    for name, value in {**project.environ, **more}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(CLIENT))


class Proxy:
    """A proxy on 127.0.0.1 that knows CONNECT.

    Attributes:
        seen: Where it was asked to connect to.
        ports: The ports from which it has connected.
        answer: The status that it refuses with; empty where it lets everybody through.
        frozen: Whether it passes nothing on: connections stay open and are silent.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.ports: list[int] = []
        self.answer = ""
        self.frozen = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            method, place, _version = head.split(b"\r\n")[0].decode().split()
            assert method == "CONNECT"
            self.seen.append(place)
            if self.answer:
                client.sendall(f"HTTP/1.1 {self.answer}\r\n\r\n".encode())
                return
            host, _, port = place.rpartition(":")
            with socket.create_connection((host, int(port))) as there:
                self.ports.append(there.getsockname()[1])
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pass_on, args=(there, client, self.frozen), daemon=True)
                back.start()
                _pass_on(client, there, self.frozen)
                back.join(5)


def _pass_on(source: socket.socket, target: socket.socket, frozen: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if not frozen.is_set():
                target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


# What works


def test_a_pipeline_on_the_instance_stops_at_a_breakpoint_set_here(
    project: RemoteProject, server: AzureMLServer
) -> None:
    result = project.remote("pipeline.debug")
    assert [one["step"] for one in result["endpoints"]] == ["prepare"]
    script = project.folder / "prepare" / "prepare.py"
    with session(project.endpoint(f"{FAMILY} (prepare)"), {script: [PREPARE_LINE]}) as client:
        frame = stop_of(client)
        assert (frame["source"]["path"], frame["line"]) == (str(script), PREPARE_LINE)
        assert value_of(client, frame, "numbers") == "[1, 2, 3]"
        go_on(client, frame)
    # One that begins later comes home through the background process alone.
    script = project.folder / "add" / "add.py"
    project.wait_for_step("add")
    with session(project.endpoint(f"{FAMILY} (add)"), {script: [ADD_LINE]}) as client:
        assert value_of(client, stop_of(client), "total") == "12"
    project.ok("pipeline.cancel", "--remote")
    # Nothing of an SDK was needed: plain requests for the instance alone.
    assert {one.path.rpartition("/")[2] for one in server.requests if "/computes" in one.path} == {"ci-one"}
    assert server.relay.shown


def test_the_token_is_in_no_file_and_on_no_command_line(project: RemoteProject) -> None:
    project.remote("deploy.debug")
    try:
        (tunnel, *_) = project.tunnels()
        assert tunnel["local_port"]
        # A JSON web token of the tests begins so.
        token = "eyJhbGciOiAibm9uZSIsICJ0eXAiOiAiSldUIn0"
        for path in [*project.folder.rglob("*"), *project.laptop.home.rglob("*")]:
            if path.is_file() and not path.is_symlink():
                assert token.encode() not in path.read_bytes(), path
        lines = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
        assert "workflows.remote.keeper" in lines and token not in lines
    finally:
        project.remote("container.stop")


def test_check_goes_through_the_way_and_the_machine_a_line_each(project: RemoteProject, hosts: Hosts) -> None:
    found = look(project)
    assert list(found) == [*WAY, *MACHINE]
    assert all(found[name]["ok"] for name in WAY)
    assert found["sign-in"]["text"] == "by the factory of AML_AUTH" and found["instance"]["text"] == "ci-one is Running"
    assert found["SSH key"]["text"].startswith("Azure has ssh-ed25519 SHA256:")
    assert found["login"]["text"].startswith("as azureuser")
    assert not hosts.laptop.ssh_config.exists()


def test_a_key_of_the_persons_own_is_found_by_what_azure_has(project: RemoteProject, hosts: Hosts) -> None:
    del project.environ["AML_REMOTE_KEY"]
    refused = project.inv("remote.check")
    assert "FAILED   login" in refused.out and "Set AML_REMOTE_KEY to the private half" in refused.out
    assert hosts.laptop.public_key().split()[2] in refused.out
    for end in ("", ".pub"):
        (hosts.laptop.home / ".ssh" / f"from azure{end}").write_bytes(Path(f"{hosts.laptop.key()}{end}").read_bytes())
    (hosts.laptop.home / ".ssh" / "from azure").chmod(0o600)
    found = look(project)
    assert found["SSH key"]["text"].endswith("which is " + str(hosts.laptop.home / ".ssh" / "from azure"))
    assert found["login"]["ok"]


def test_the_first_host_key_is_said_and_kept_and_another_one_is_refused(project: RemoteProject, hosts: Hosts) -> None:
    host, before = project.host, hosts.laptop.known_hosts.read_text()
    first = project.ok("remote.sync")
    shown = host.sshd.fingerprint
    assert f"The host key of azureml:ci-one, {shown}, is accepted" in first.err
    name = f"ci-one.workspace.group.{'11111111-2222-3333-4444-555555555555'}"
    assert known(hosts.laptop).read_text() == f"{name} {host.sshd.host_key}\n"
    assert known(hosts.laptop).stat().st_mode & 0o777 == 0o600
    assert "host key" not in project.ok("remote.sync").err
    host.sshd.new_host_key()
    for command in (["remote.sync"], ["remote.check", "--accept-host-key", host.sshd.fingerprint]):
        refused = project.inv(*command)
        refused.says(
            "of azureml:ci-one has changed", shown, host.sshd.fingerprint, f"ssh-keygen -f {known(hosts.laptop)} -R"
        )
    # What the message says helps.
    subprocess.run(["ssh-keygen", "-f", known(hosts.laptop), "-R", name], check=True, capture_output=True)
    wrong = host.sshd.fingerprint[:-4] + "AAAA"
    project.inv("remote.check", "--accept-host-key", wrong).says("shows another host key", host.sshd.fingerprint)
    assert name not in known(hosts.laptop).read_text()
    project.ok("remote.check", "--accept-host-key", host.sshd.fingerprint)
    project.ok("remote.sync")
    # The person's own file is ssh's, to which these names mean nothing.
    assert hosts.laptop.known_hosts.read_text() == before


def test_a_proxy_is_gone_through_and_one_that_refuses_is_said(
    project: RemoteProject, server: AzureMLServer, proxy: Proxy
) -> None:
    through = {"HTTPS_PROXY": proxy.address, "NO_PROXY": "elsewhere.invalid"}
    project.ok("remote.sync", **through)
    # The questions and the websocket.
    assert set(proxy.seen) == {server.url.split("/")[2]}
    assert server.relay.peers and set(server.relay.peers) < set(proxy.ports)
    seen = len(proxy.seen)
    project.ok("remote.sync")
    assert len(proxy.seen) == seen
    proxy.answer = "407 Proxy Authentication Required"
    project.inv("remote.sync", **through).says("HTTPS_PROXY")


def test_a_connection_that_drops_comes_back_with_a_fresh_token_on_the_same_port(
    project: RemoteProject, server: AzureMLServer
) -> None:
    result = project.remote("deploy.debug")
    ports = sorted(one["local_port"] for one in project.tunnels())
    endpoint = project.endpoint(DEPLOYMENT)
    try:
        with session(endpoint, {project.score: [PLAIN_LINE]}):
            before = server.relay.shown[-1]
            # The token that the background process was given ends, in the midst of a session.
            server.relay.ended = before + 1
            server.services.drop()
            until(lambda: server.relay.shown[-1] > before, "a connection with another token")
        project.wait_for_tunnels(len(ports))
        assert not project.ok("remote.tunnels", "--json").json["problem"]
        assert sorted(one["local_port"] for one in project.tunnels()) == ports
        with session(endpoint, {project.score: [PLAIN_LINE]}) as client:
            answers: list[object] = []
            asking = threading.Thread(target=lambda: answers.append(post(result["scoring_url"])))
            asking.start()
            frame = stop_of(client)
            assert value_of(client, frame, "total") == "6"
            go_on(client, frame)
            asking.join(20)
        assert answers == [{"answer": 60}]
    finally:
        project.remote("container.stop")


def test_who_is_signed_in_with_az_is_so_in_the_background_too(
    project: RemoteProject, server: AzureMLServer, tmp_path: Path
) -> None:
    """azure-identity itself, with an `az` that answers as the real one does."""
    az = tmp_path / "bin" / "az"
    az.parent.mkdir()
    az.write_text(
        f"#!{sys.executable}\nimport json, sys, time\nsys.path.insert(0, {str(CLIENT)!r})\n"
        "from azureml_server_credential import ServerCredential\n"
        "made = ServerCredential().get_token(sys.argv[sys.argv.index('--resource') + 1])\n"
        "when = time.strftime('%Y-%m-%d %H:%M:%S.000000', time.localtime(made.expires_on))\n"
        "print(json.dumps({'accessToken': made.token, 'expiresOn': when, 'expires_on': made.expires_on}))\n"
    )
    az.chmod(0o755)
    project.environ |= {"AML_AUTH": "interactive", "PATH": f"{az.parent}:{os.environ['PATH']}"}
    assert look(project)["sign-in"]["text"] == "by AML_AUTH=interactive"
    project.remote("deploy.debug")
    try:
        before = server.relay.shown[-1]
        server.relay.ended = before + 1
        server.services.drop()
        until(lambda: server.relay.shown[-1] > before, "a connection with another token")
        project.wait_for_tunnels(2)
        assert not project.ok("remote.tunnels", "--json").json["problem"]
    finally:
        project.remote("container.stop")


def test_a_task_goes_on_where_its_connection_drops(project: RemoteProject, server: AzureMLServer) -> None:
    (project.folder / "work.py").write_text(
        "import time\nfor n in range(80):\n    print('line', n, 'of 80', flush=True)\n    time.sleep(0.1)\n"
    )
    project.ok("experiment.create", "--remote", "sums")
    child = project.start("experiment.run", "--remote", "--follow", "sums", "--script", "work.py")

    def log() -> str:
        found = project.host.path(".").glob("azureml-debug/*/.azureml-debug/runs/*/azureml-logs/70_driver_log.txt")
        return "".join(path.read_text() for path in found)

    until(lambda: "line 10 " in log(), "its start")
    before = len(server.relay.shown)
    server.services.drop()
    result = project.finish(child)
    assert result.code == 0, result.err
    assert [one for one in result.out.splitlines() if one.endswith(" of 80")] == [f"line {n} of 80" for n in range(80)]
    assert "The connection to azureuser@azureml:ci-one was lost" in result.err and "Connected again" in result.out
    assert len(server.relay.shown) > before


def test_a_way_that_falls_silent_is_noticed_and_nothing_of_it_is_left(
    project: RemoteProject, server: AzureMLServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_in_here(project, monkeypatch, HTTPS_PROXY=proxy.address, NO_PROXY="elsewhere.invalid")
    monkeypatch.setattr(keepalive, "ASK_SECONDS", 0.3)
    monkeypatch.setattr(keepalive, "SILENT_SECONDS", 2.0)
    before = set(threading.enumerate())
    target = address.resolve(resolve(project.folder))
    made = Session.open(target, {})
    assert made.request("facts", folder="azureml-debug")["venv"]
    proxy.frozen.set()
    with pytest.raises(ConnectionLost):
        made.frame(60)
    made.close()
    proxy.frozen.clear()
    again = Session.open(target, {})
    again.close()

    def own() -> list[threading.Thread]:
        ends = ("(_out)", "(_in)", "(_ping)")
        return [one for one in threading.enumerate() if one not in before and one.name.endswith(ends)]

    until(lambda: not own(), "the end of the websockets' threads")


# What can be wrong


def test_no_extra_is_said(project: RemoteProject, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    (packages,) = (tmp_path / "bare" / "lib").glob("python*/site-packages")
    for entry in [one for folder in site.getsitepackages() for one in Path(folder).iterdir()]:
        if not entry.name.startswith(("websocket", "azure")) and not (packages / entry.name).exists():
            (packages / entry.name).symlink_to(entry)
    project.python = str(tmp_path / "bare" / "bin" / "python")
    said = ("websocket-client is not installed", "Install the extra: pip install")
    project.inv("pipeline.list", "--remote").says(*said)
    failed(project, "package", *said)
    both = "websocket-client and azure-identity are not installed"
    project.inv("pipeline.list", "--remote", AML_AUTH="managed-identity").says(both)
    project.python = sys.executable


def test_nobody_signed_in_is_said(project: RemoteProject, tmp_path: Path) -> None:
    # Without az.
    nobody = {"AML_AUTH": "interactive", "PATH": str(Path("/usr/bin"))}
    failed(project, "sign-in", "You are not signed in to Azure", "az login", **nobody)
    failed(project, "workspace", "does not accept the sign-in", AZUREML_DEBUG_TEST_TOKEN_SECONDS="-60")


def test_a_name_that_is_none_and_settings_of_addresses_are_said(project: RemoteProject) -> None:
    sync = "remote.sync"
    project.inv(sync, AML_REMOTE_HOST="azureml:").says("names no compute instance", "azureml:my-instance")
    project.inv(sync, AML_REMOTE_HOST="azureml:../computes").says("names no compute instance")
    project.inv(sync, AML_REMOTE_PORT="50000").says("AML_REMOTE_PORT is set", "Leave AML_REMOTE_PORT out")
    project.inv(sync, AML_REMOTE_GATEWAY="box").says("AML_REMOTE_GATEWAY is set", "Leave AML_REMOTE_GATEWAY out")
    (project.folder / "config.json").unlink()
    project.inv(sync).says("No Azure ML workspace is named", "AML_WORKSPACE")
    project.inv("remote.check").says("No Azure ML workspace is named")


def test_no_such_instance_names_those_there_are(project: RemoteProject, server: AzureMLServer) -> None:
    said = "ci-three does not exist in the workspace workspace. There are: ci-one, ci-two."
    project.inv("remote.sync", AML_REMOTE_HOST="azureml:ci-three").says(said, "Correct AML_REMOTE_HOST")
    failed(project, "instance", said, AML_REMOTE_HOST="azureml:ci-three")
    failed(project, "instance", "cpu is not a compute instance but AmlCompute", AML_REMOTE_HOST="azureml:cpu")
    failed(project, "workspace", "There is no Azure ML workspace other", AML_WORKSPACE="other")
    project.inv("remote.sync", AML_WORKSPACE="other").says("There is no Azure ML workspace other", "AML_WORKSPACE")
    server.state.computes = {name: one for name, one in server.state.computes.items() if name == "cpu"}
    project.inv("remote.sync").says("ci-one does not exist in the workspace workspace. It has none.", "Make one")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("Stopped", ["ci-one is stopped", "az ml compute start --name ci-one --resource-group group"]),
        ("Starting", ["ci-one has not started yet: Starting", "in some minutes"]),
        ("Unusable", ["ci-one cannot be used: Unusable", "https://ml.azure.com"]),
    ],
)
def test_an_instance_that_does_not_run_is_said(
    project: RemoteProject, server: AzureMLServer, state: str, said: list[str]
) -> None:
    server.state.computes["ci-one"].power = state
    project.inv("remote.sync").says(*said)
    failed(project, "instance", *said)
    # Nothing was tried that cannot work.
    assert not [one for one in server.requests if "ws-tcp" in one.path]


def test_an_instance_of_which_azure_names_no_way_is_said(project: RemoteProject, server: AzureMLServer) -> None:
    instance = server.state.computes["ci-one"]
    instance.jupyter = ""
    project.inv("remote.sync").says("Azure gives no address for the compute instance ci-one", "az ml compute restart")
    # No token goes where others can read it.
    instance.jupyter = "http://ci-one.invalid/tree/"
    project.inv("remote.sync").says("is not encrypted: http://ci-one.invalid")
    instance.jupyter = "javascript:alert(1)"
    failed(project, "instance", "Azure has sent the address of its Jupyter that is not an address", "HTTPS_PROXY")


def test_an_instance_of_somebody_else_is_said(project: RemoteProject, server: AzureMLServer) -> None:
    server.state.computes["ci-one"].owner = "grace"
    found = look(project)
    assert found["instance"]["ok"] is None and "belongs to Grace" in found["instance"]["text"]
    said = ("does not let you in (403)", "it belongs to Grace")
    assert list(found)[-1] == "websocket" and all(part in found["websocket"]["text"] for part in said)
    project.inv("remote.sync").says(*said)


def test_an_instance_without_a_key_says_what_to_do(project: RemoteProject, hosts: Hosts) -> None:
    two = {"AML_REMOTE_HOST": "azureml:ci-two", "AML_REMOTE_KEY": str(hosts.laptop.key("stranger"))}
    found = look(project, **two)
    assert found["SSH key"]["ok"] is None and "Azure has none" in found["SSH key"]["text"]
    assert found["login"]["ok"] is False and "--ssh-key-value" in found["login"]["remedy"]
    project.inv("remote.sync", **two).says("does not let azureuser in", "~/.ssh/authorized_keys")
    # A key that was put there by hand is let in all the same.
    two["AML_REMOTE_KEY"] = str(hosts.laptop.key())
    project.ok("remote.sync", **two)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, ["does not accept the sign-in (401)", "az login"]),
        (403, ["does not let you in (403)", "an instance of your own"]),
        (404, ["There is no websocket at ci-one (404)", "az ml compute restart --name ci-one"]),
        (503, ["The websocket of ci-one answers 503", "az ml compute restart --name ci-one"]),
    ],
)
def test_what_the_websocket_answers_is_said(
    project: RemoteProject, server: AzureMLServer, status: int, said: list[str]
) -> None:
    server.relay.answer = status
    refused = project.inv("remote.sync")
    refused.says(*said)
    asked = [one for one in server.requests if "ws-tcp" in one.path]
    # Once more with another token; what may pass is tried again, with growing pauses that are said.
    assert len(asked) == {401: 2, 503: 4}.get(status, 1)
    assert (f"answers {status}; again in 4 s" in refused.out) is (status == 503)
    failed(project, "websocket", *said)


def test_vs_code_over_ssh_is_refused_where_ssh_itself_knows_no_way(project: RemoteProject) -> None:
    settings = resolve(project.folder, environ=project.environ)
    with pytest.raises(UserError, match="knows no way to azureml:ci-one"):
        open_remote_container(settings, address.resolve(settings), Console(), {})


def test_a_websocket_that_closes_at_once_is_said(project: RemoteProject, server: AzureMLServer) -> None:
    server.relay.closes = True
    said = ("The websocket to azureml:ci-one opens and closes at once", "az ml compute restart")
    project.inv("remote.sync").says(*said)
    failed(project, "connection", *said)
    server.relay.closes = False
    server.faults.drop("ws-tcp")
    project.inv("remote.sync").says("Connecting to ci-one failed: 127.0.0.1 cannot be reached", "HTTPS_PROXY")


def test_a_websocket_that_never_answers_is_said_while_it_is_waited_for_and_ctrl_c_ends_it(
    project: RemoteProject, server: AzureMLServer
) -> None:
    server.relay.silent = True
    child = project.start("remote.sync")
    assert child.stdout is not None and child.stderr is not None
    lines: list[str] = []
    for line in child.stdout:
        lines.append(line)
        if "has not answered yet" in line:
            break
    assert "azureml:ci-one has not answered yet; waiting for up to 40 s (Ctrl-C gives up)" in lines[-1]
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 130
    assert "Traceback" not in child.stdout.read() + child.stderr.read()


def test_a_websocket_that_never_answers_is_given_up(
    project: RemoteProject, server: AzureMLServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_in_here(project, monkeypatch)
    target = address.resolve(resolve(project.folder)).instance
    assert target is not None
    server.relay.silent = True
    monkeypatch.setattr(instances, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(instances, "_SAY_AFTER", 0.1)
    said: list[str] = []
    with pytest.raises(
        UserError, match=r"Connecting to ci-one failed: 127\.0\.0\.1 has not answered for 1 s"
    ) as caught:
        instances.connect_to_instance(target, said.append)
    assert "HTTPS_PROXY" in caught.value.remedy
    assert said == ["azureml:ci-one has not answered yet; waiting for up to 1 s (Ctrl-C gives up)"]


@pytest.mark.parametrize(
    "told", ["https://ci.westeurope.instances.azureml.ms/tree/", "https://ci.westeurope.instances.azureml.ms"]
)
def test_the_address_of_the_websocket_is_that_of_azures_own_client(told: str) -> None:
    wanted = "wss://ci.westeurope.instances.azureml.ms/nbip/v1.0/ws-tcp/port/22"
    assert instances.websocket_address(told) == wanted
