"""The hosts that the tests of `--remote` use are what they say they are."""

from __future__ import annotations

import contextlib
import socket

from hosts import REMOTE_PATH, Hosts, listeners
from projects import until

HELLO = "import http.server, sys; http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), {}).serve_forever()".format(
    "http.server.SimpleHTTPRequestHandler"
)


def reaches(address: str, port: int, seconds: float = 5) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), seconds):
        return True
    return False


def test_the_instance_is_another_machine(hosts: Hosts) -> None:
    said = hosts.laptop.ssh(
        hosts.instance,
        "whoami; hostname; pwd; command -v python3; echo $PATH; ls -A /tmp /root; ls /proc | grep -c ^[0-9]",
    ).stdout.splitlines()
    assert said[:5] == ["azureuser", "instance", "/home/azureuser", "/usr/bin/python3", REMOTE_PATH]
    assert said[5:-1] == ["/root:", "", "/tmp:"]
    assert int(said[-1]) < 15, "it sees the processes of this machine"
    assert hosts.instance.sshd.connections() == 1


def test_only_the_instance_reaches_the_node(hosts: Hosts) -> None:
    node = hosts.node
    node.popen(["python3", "-c", HELLO, node.address, "8000"])
    until(lambda: (node.address, 8000) in listeners(node), "a server on the node")
    assert (node.address, 8000) not in listeners(hosts.instance) | listeners(hosts.laptop)
    look = "import urllib.request; print(urllib.request.urlopen('http://node:8000', timeout=5).status)"
    assert hosts.instance.run(["python3", "-c", look]).stdout == "200\n"
    assert not reaches(node.address, 8000)
