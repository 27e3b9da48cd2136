"""Hosts for the tests of `--remote`: a laptop, an instance that it reaches, a node that only the instance reaches.

The laptop is this machine. The others are namespaces with a network, processes, a user, a home and most of a file
system of their own, and a real OpenSSH server:

    laptop --- 10.83.n.0/26 --- instance --- 10.83.n.64/26 --- node

All of it lives in processes that end when the tests' own process does, however that ends, and goes with them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from host import Host
from host_tools import PORT, SSHD, end, run_program
from laptop import Laptop
from wheelhouse import PYTHON, make_wheelhouse

#: Of the machine, not of a cache: networks are, too.
_LOCKS = Path("/run/azureml-debug-test-hosts")


def what_is_missing() -> str | None:
    """Why there can be no hosts here."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.getuid() != 0:
        return "making namespaces needs root"
    for program in ("ip", "unshare", "nsenter", "setpriv", "ssh", "ssh-keygen", SSHD, PYTHON):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    tried = subprocess.run(
        ["unshare", "--mount", "--uts", "--net", "--pid", "--fork", "--mount-proc", "true"],
        stderr=subprocess.PIPE,
        text=True,
    )
    if tried.returncode != 0:
        return f"namespaces cannot be made: {tried.stderr.strip()}"
    if subprocess.run([PYTHON, "-c", "import ensurepip"], stderr=subprocess.DEVNULL).returncode != 0:
        return f"{PYTHON} has no venv"
    return None


class Hosts:
    """The laptop, the instance and the node, and what is between them.

    Args:
        cache: Where their files lie, and the wheels, which are kept.
    """

    def __init__(self, cache: Path) -> None:
        folder = cache / "hosts"
        folder.mkdir(parents=True, exist_ok=True)
        self._wheels = make_wheelhouse(cache)
        self.number, self._claim = _claim(folder)
        self.folder = folder / str(self.number)
        self.folder.mkdir()
        self.folder.chmod(0o755)
        self._network = f"10.83.{self.number}"
        self._link = f"adt{self.number}"
        self._slow = f"ads{self.number}"
        self._relay: subprocess.Popen[str] | None = None
        #: Packets that the last slow link has `carried` and `lost`.
        self.relay_counts: dict[str, int] = {}
        self._loopback: Host | None = None
        self._laptops: list[Laptop] = []
        self._hosts: list[Host] = []
        self._close = contextlib.ExitStack()
        self._close.callback(self._clean)
        with contextlib.ExitStack() as failed:
            failed.callback(self.close)
            self.laptop = Laptop(self.folder / "laptop", f"{self._network}.1")
            self.instance = self._host("instance", f"{self._network}.2", PORT)
            self.node = self._host("node", f"{self._network}.66", PORT)
            self._connect()
            self._welcome(self.instance, self.node)
            self.instance.sshd.start()
            failed.pop_all()

    @property
    def loopback(self) -> Host:
        """A second instance, in this machine's own network and with its Docker engine."""
        if self._loopback is None:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            self._loopback = self._host("loopback", "127.0.0.1", port, on_loopback=True)
            self._welcome(self._loopback)
            self._loopback.sshd.start()
        return self._loopback

    def second_laptop(self) -> Laptop:
        """Somebody else's laptop: another home and other keys, which the hosts let in for the rest of the test."""
        laptop = Laptop(self.folder / f"laptop-{len(self._laptops) + 2}", self.laptop.address)
        self._laptops.append(laptop)
        hosts = [self.instance, self.node, *([self._loopback] if self._loopback else [])]
        laptop.knows_first(*hosts)
        for host in hosts:
            host.sshd.authorize(
                *[one.public_key(key) for one in (self.laptop, *self._laptops) for key in ("plain", "locked")]
            )
        return laptop

    def link_down(self) -> None:
        """Cut the link between laptop and instance: packets vanish, and nobody is told."""
        for device in ("eth0", *(["slow0"] if self._relay else [])):
            self.instance.run(["ip", "link", "set", device, "down"], root=True)

    def link_up(self) -> None:
        """Have it back."""
        self.instance.run(["ip", "link", "set", "eth0", "up"], root=True)
        if self._relay:
            self.instance.run(["ip", "link", "set", "slow0", "up"], root=True)
            self._route_slowly()

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """The instance gets packets and answers none, as behind a firewall that drops."""
        # A rule rather than a route: a slow link has routes of its own.
        self.instance.run(["ip", "rule", "add", "priority", "10", "blackhole"], root=True)
        try:
            yield
        finally:
            self._end_silence()

    @contextlib.contextmanager
    def slow(self, delay_ms: float = 100, loss: float = 0.05, seed: int = 1) -> Iterator[None]:
        """Every packet between laptop and instance takes so long, each way, or is lost; connections that exist too."""
        script = Path(__file__).with_name("slow_link.py")
        arguments = [self._slow, str(self.instance.pid), "slow0", str(delay_ms), str(loss), str(seed)]
        self._relay = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert self._relay.stdout is not None
            assert self._relay.stdout.readline() == "ready\n", "the relay did not start"
            run_program("ip", "link", "set", self._slow, "up")
            self.instance.run(["ip", "link", "set", "slow0", "up"], root=True)
            self._route_slowly()
            yield
        finally:
            self._end_relay()

    def restore(self) -> None:
        """Take back what a test has changed."""
        self._end_relay()
        self._end_silence()
        self.link_up()
        for laptop in self._laptops:
            laptop.restore()
            shutil.rmtree(laptop.home)
            shutil.rmtree(laptop.home.with_name(f"{laptop.home.name}-keys"))
        self._laptops.clear()
        self.laptop.restore()
        self.instance.restore(sshd=True)
        self.node.restore(sshd=False)
        if self._loopback is not None:
            self._loopback.restore(sshd=True)

    def close(self) -> None:
        """Take everything away."""
        for host in self._hosts:
            host.let_go()
        self._close.close()

    def _host(self, name: str, address: str, port: int, on_loopback: bool = False) -> Host:
        names = {"instance": f"{self._network}.2", "node": f"{self._network}.66"}
        host = Host(self.folder / name, name, address, port, self._wheels, names, on_loopback)
        self._hosts.append(host)
        self._close.callback(host.close)
        return host

    def _welcome(self, *hosts: Host) -> None:
        for host in hosts:
            host.sshd.authorize_first(*[self.laptop.public_key(key) for key in ("plain", "locked")])
        self.laptop.knows_first(*hosts)

    def _connect(self) -> None:
        net, instance, node = self._network, self.instance, self.node
        run_program(
            "ip",
            "-batch",
            "-",
            input=f"""\
link add {self._link} type veth peer name eth0 netns {instance.pid}
link set {self._link} addrgenmode none
address add {net}.1/26 dev {self._link}
link set {self._link} up
route add unreachable {net}.0/24 metric 4096
""",
        )
        run_program(
            "nsenter",
            "--target",
            str(instance.pid),
            "--net",
            "ip",
            "-batch",
            "-",
            input=f"""\
link set lo up
link set eth0 addrgenmode none
address add {net}.2/26 dev eth0
link set eth0 up
link add eth1 type veth peer name eth0 netns {node.pid}
link set eth1 addrgenmode none
address add {net}.65/26 dev eth1
link set eth1 up
""",
        )
        run_program(
            "nsenter",
            "--target",
            str(node.pid),
            "--net",
            "ip",
            "-batch",
            "-",
            input=f"""\
link set lo up
link set eth0 addrgenmode none
address add {net}.66/26 dev eth0
link set eth0 up
""",
        )
        # Nobody passes on what is for somebody else.
        for host in (instance, node):
            host.run(["sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"], root=True)

    def _end_silence(self) -> None:
        self.instance.run(["ip", "rule", "del", "priority", "10"], root=True, check=False)

    def _end_relay(self) -> None:
        relay, self._relay = self._relay, None
        if relay is not None:
            assert relay.stdin is not None and relay.stdout is not None
            relay.stdin.close()
            carried, lost = relay.stdout.read().split() or (0, 0)
            self.relay_counts = {"carried": int(carried), "lost": int(lost)}
            end(relay)

    def _route_slowly(self) -> None:
        here, there = self.laptop.address, self.instance.address
        run_program("ip", "route", "replace", f"{there}/32", "dev", self._slow, "src", here)
        self.instance.run(["ip", "route", "replace", f"{here}/32", "dev", "slow0", "src", there], root=True)

    def _clean(self) -> None:
        self.laptop.restore()
        for laptop in self._laptops:
            laptop.restore()
        _forget_network(self.number)
        shutil.rmtree(self.folder)
        os.close(self._claim)


def _forget_network(number: int) -> None:
    """Take away what a run has left on this machine; a killed one leaves the route only."""
    for device in (f"adt{number}", f"ads{number}"):
        if Path(f"/sys/class/net/{device}").exists():
            run_program("ip", "link", "del", device, check=False)
    run_program("ip", "route", "del", "unreachable", f"10.83.{number}.0/24", check=False)


def _claim(folder: Path) -> tuple[int, int]:
    """A number that no other run has, for addresses and names, and what holds it; others' leftovers are taken away."""
    _LOCKS.mkdir(exist_ok=True)
    for lock in _LOCKS.glob("*.lock"):
        held = _hold(lock)
        if held is not None:
            _forget_network(int(lock.stem))
            shutil.rmtree(folder / lock.stem, ignore_errors=True)
            os.close(held)
    for number in range(200):
        held = _hold(_LOCKS / f"{number}.lock")
        if held is not None:
            shutil.rmtree(folder / str(number), ignore_errors=True)
            # What of a killed run has not ended yet may be using its folder still.
            left = (folder / str(number)).exists()
            if not left and not run_program("ip", "-4", "route", "show", "root", f"10.83.{number}.0/24"):
                return number, held
            os.close(held)
    raise AssertionError("no network is free")


def _hold(lock: Path) -> int | None:
    """Hold a lock for as long as this process lives, unless another does."""
    held = os.open(lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    return held
