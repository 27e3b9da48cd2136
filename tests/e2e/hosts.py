"""Hosts for the tests of `--remote`: a laptop, an instance that it reaches, a node that only the instance reaches.

The laptop is this machine. The others are namespaces with a network, processes, a user, a home and most of a file
system of their own, and a real OpenSSH server:

    laptop --- 10.83.n.0/26 --- instance --- 10.83.n.64/26 --- node

All of it lives in processes that end when the tests' own process does, however that ends, and goes with them.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import grp
import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
from projects import ROOT, until
from wheelhouse import PYTHON, make_wheelhouse

#: As on an Azure ML compute instance.
USER, UID, PORT = "azureuser", 1000, 50000
#: What is on a remote host's PATH; its first folder is private to the host and holds `Host.programs`.
REMOTE_PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
#: What opens the key `locked`.
PASSPHRASE = "correct horse"
_SSHD = "/usr/sbin/sshd"
_SETUP = """\
set -e
tmpfs() { mount -t tmpfs -o "mode=$1" tmpfs "$2"; }
python=$1 keeper=$2 folder=$3 name=$4 home=$5 wheels=$6 private=$7 docker=$8
shift 8
hostname "$name"
tmpfs 755 /home
if [ "$private" = yes ]; then
    mkdir -p "$home" /home/wheels
    mount --bind "$folder/home" "$home"
    mount --bind "$wheels" /home/wheels
    mount -o remount,bind,ro /home/wheels
fi
for file in passwd group shadow hosts; do mount --bind "$folder/etc/$file" "/etc/$file"; done
[ ! -e /etc/pip.conf ] || mount --bind /dev/null /etc/pip.conf
mount --bind "$folder/etc/ssh" /etc/ssh
mount --bind "$folder/programs" /usr/local/sbin
mkdir /home/run
if [ -S "$docker" ]; then touch /home/run/docker.sock; mount --bind "$docker" /home/run/docker.sock; fi
tmpfs 755 /run
if [ -S /home/run/docker.sock ]; then touch /run/docker.sock; mount --bind /home/run/docker.sock /run/docker.sock; fi
mkdir -m 755 /run/sshd
tmpfs 1777 /dev/shm
for cover in "$@"; do [ ! -d "$cover" ] || tmpfs 755 "$cover"; done
[ "$private" != yes ] || mount --bind "$folder/tmp" /tmp
exec "$python" -I -S -c "$keeper" "$private"
"""
# A host's first process: takes in processes whose parents ended; ends when its input does, and all others with it.
_KEEPER = """\
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
sys.stdin.buffer.read()
own = os.stat("/proc/self/ns/mnt").st_ino
again = sys.argv[1] == "no"
while again:
    again = False
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and int(name) != os.getpid() and os.stat(f"/proc/{name}/ns/mnt").st_ino == own:
                os.kill(int(name), signal.SIGKILL)
                again = True
        except OSError:
            pass
"""
_AS_LAPTOP = 'mount --bind "$0" /etc/passwd && exec "$@"'


def what_is_missing() -> str | None:
    """Why there can be no hosts here."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.getuid() != 0:
        return "making namespaces needs root"
    for program in ("ip", "unshare", "nsenter", "setpriv", "ssh", "ssh-keygen", _SSHD, PYTHON):
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


def _run(*command: str, input: str | None = None, check: bool = True) -> str:
    """Run one of the system's programs."""
    done = subprocess.run(command, input=input, capture_output=True, text=True)
    assert done.returncode == 0 or not check, (command, done.stderr)
    return done.stdout


def _end(child: subprocess.Popen[str]) -> None:
    """End a program, however it takes it, and close what led to it."""
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()
    if child.poll() is None:
        child.kill()
        child.wait(20)
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def _empty(folder: Path, keep: Sequence[str] = ()) -> None:
    """Take away all that is in a folder."""
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> None:
    for old in (path, Path(f"{path}.pub")):
        old.unlink(missing_ok=True)
    _run("ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-a", "1", "-C", path.name, "-f", str(path))


class Host:
    """A remote host.

    Args:
        folder: Where the host's own files lie on this machine.
        name: Its name.
        address: Where its SSH server listens.
        port: At which port.
        wheels: What pip finds there.
        names: Names that it can resolve, with their addresses.
        on_loopback: In this machine's own network, with its processes and its Docker engine. Home is where it lies
            then, since the engine mounts folders by the names that this machine knows them by.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        address: str,
        port: int,
        wheels: Path,
        names: Mapping[str, str],
        on_loopback: bool = False,
    ) -> None:
        self.folder, self.name, self.address, self.port = folder, name, address, port
        self.on_loopback = on_loopback
        self.user = USER
        self.home = str(folder / "home") if on_loopback else f"/home/{USER}"
        self._wheels = wheels
        self._children: list[subprocess.Popen[str]] = []
        self._disks: list[str] = []
        for part in ("home", "programs", "tmp", "etc/ssh"):
            (folder / part).mkdir(parents=True)
        for path in (folder, folder / "home", folder / "programs"):
            path.chmod(0o755)
        (folder / "tmp").chmod(0o1777)
        os.chown(folder / "home", UID, UID)
        self._write_etc(names)
        self._write_pip_settings()
        self.sshd = Sshd(self)
        self._holder, self.pid = self._start(Path("/run/docker.sock") if on_loopback else None)
        self._namespaces = _namespaces(self.pid)

    @property
    def programs(self) -> Path:
        """What lies here is found first on the host's PATH: stand-ins for programs, emptied after each test."""
        return self.folder / "programs"

    def path(self, *parts: str) -> Path:
        """Where a file of the host lies for the tests: relative to its home, or anywhere in it when absolute."""
        inside = Path(self.home, *parts)
        if inside.is_relative_to(self.home) and not any(
            inside == Path(disk) or Path(disk) in inside.parents for disk in self._disks
        ):
            return self.folder / "home" / inside.relative_to(self.home)
        return Path(f"/proc/{self.pid}/root", *inside.parts[1:])

    def put(self, path: str, content: str | bytes, mode: int = 0o644) -> Path:
        """Write a file that belongs to the host's user; folders are made."""
        target = self.path(path)
        for folder in reversed([parent for parent in target.parents if not parent.exists()]):
            folder.mkdir()
            os.chown(folder, UID, UID)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)
        os.chown(target, UID, UID)
        return target

    def put_program(self, name: str, text: str) -> None:
        """Put a program first on the host's PATH, for the rest of the test."""
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)

    def command(
        self, arguments: Sequence[str], env: Mapping[str, str] | None = None, root: bool = False, cwd: str | None = None
    ) -> list[str]:
        """What to type on this machine to run a program on the host."""
        own = [] if self.on_loopback else ["--net", "--pid"]
        who = [] if root else [f"--reuid={UID}", f"--regid={UID}", "--init-groups"]
        # With processes of its own the program is a child of nsenter's, and goes with it.
        end = [] if self.on_loopback else ["--pdeathsig=KILL"]
        user, home = ("root", "/root") if root else (self.user, self.home)
        base = {"PATH": REMOTE_PATH, "HOME": home, "USER": user, "LOGNAME": user, "SHELL": "/bin/bash"}
        variables = [f"{name}={value}" for name, value in {**base, **(env or {})}.items()]
        set_up = ["setpriv", *who, *end] if who or end else []
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--uts", *own, "--"]
        return [*enter, *set_up, "env", "-i", "-C", cwd or home, *variables, *arguments]

    def popen(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        root: bool = False,
        cwd: str | None = None,
        **how: Any,
    ) -> subprocess.Popen[str]:
        """Start a program on the host; it ends with the test at the latest, and by `kill()` before.

        Its `pid` is this machine's; other signals than KILL are better sent with `run(["pkill", …])`.
        """
        streams: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **how,
        }
        child: subprocess.Popen[str] = subprocess.Popen(
            self.command(arguments, env, root, cwd), text=True, start_new_session=True, **streams
        )
        self._children.append(child)
        return child

    def run(
        self,
        arguments: Sequence[str],
        *,
        input: str | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        root: bool = False,
        cwd: str | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the host, as its user in its home."""
        done = subprocess.run(
            self.command(arguments, env, root, cwd),
            **({"stdin": subprocess.DEVNULL} if input is None else {"input": input}),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0 or not check, done
        return done

    def processes(self) -> list[psutil.Process]:
        """The processes of the host, but for the one that keeps it up; their ids are this machine's."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if process.pid != self.pid and _namespaces(process.pid) == self._namespaces:
                    found.append(process)
        return found

    def command_lines(self) -> list[str]:
        """How those processes were started; without those that end meanwhile."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                found.append(" ".join(process.cmdline()))
        return found

    def small_disk(self, path: str, megabytes: int) -> Path:
        """Make a folder one on a disk of its own of so many megabytes, for the rest of the test."""
        inside = str(Path(self.home, path))
        self.run(["mkdir", "-p", inside])
        options = f"size={megabytes}m,mode=755,uid={UID},gid={UID}"
        self.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", inside], root=True)
        self._disks.append(inside)
        return self.path(inside)

    def address_of(self, device: str = "eth0") -> str:
        """The host's address on one of its links."""
        return self.run(["ip", "-br", "-4", "address", "show", device]).stdout.split()[2].split("/")[0]

    def restore(self, sshd: bool) -> None:
        """Take back what a test has changed."""
        for child in self._children:
            _end(child)
        self._children.clear()
        self.sshd.restore(up=sshd)
        listener = self.sshd.pid
        for process in self.processes():
            if process.pid != listener:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        for disk in reversed(self._disks):
            self.run(["umount", "--lazy", disk], root=True)
        self._disks.clear()
        _empty(self.folder / "home", keep=[".cache"])
        _empty(self.folder / "programs")
        _empty(self.folder / "tmp")
        self._write_pip_settings()

    def forget_cache(self) -> None:
        """Take away what programs have kept there for later: the next is a first use again."""
        shutil.rmtree(self.folder / "home" / ".cache", ignore_errors=True)

    def let_go(self) -> None:
        """Have all that runs there ended, without waiting for it."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()

    def close(self) -> None:
        """End all that runs there, and with it the host."""
        for child in self._children:
            _end(child)
        self.sshd.stop()
        self.let_go()
        assert self._holder.stdout is not None
        self._holder.wait(20)
        self._holder.stdout.close()

    def _start(self, docker: Path | None) -> tuple[subprocess.Popen[str], int]:
        own = [] if self.on_loopback else ["--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
        # Nothing of the laptop's is to be found there by accident: the Python with the tests, the program itself.
        covered = ["/root", str(ROOT), *([sys.prefix] if sys.prefix != sys.base_prefix else [])]
        private = "no" if self.on_loopback else "yes"
        keeper = [PYTHON, _KEEPER, str(self.folder), self.name, self.home, str(self._wheels), private]
        holder = subprocess.Popen(
            ["unshare", "--mount", "--uts", *own, "--", "sh", "-c", _SETUP, "sh", *keeper, str(docker or ""), *covered],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={"PATH": REMOTE_PATH},
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n", "the host did not start; its errors are above"
        return holder, holder.pid if self.on_loopback else psutil.Process(holder.pid).children()[0].pid

    def _write_etc(self, names: Mapping[str, str]) -> None:
        etc = self.folder / "etc"
        system = [
            line
            for line in Path("/etc/passwd").read_text().splitlines()
            if int(line.split(":")[2]) < 1000 or line.startswith("nobody:")
        ]
        accounts = [*system, f"{USER}:x:{UID}:{UID}::{self.home}:/bin/bash"]
        (etc / "passwd").write_text("".join(f"{line}\n" for line in accounts))
        groups = [
            f"{group.gr_name}:x:{group.gr_gid}:{USER if group.gr_name == 'docker' and self.on_loopback else ''}\n"
            for group in grp.getgrall()
            if group.gr_gid not in (UID,)
        ]
        (etc / "group").write_text("".join([*groups, f"{USER}:x:{UID}:\n"]))
        # `*`: no password opens it, but it is not locked either.
        (etc / "shadow").write_text("".join(f"{line.split(':')[0]}:*:19000:0:99999:7:::\n" for line in accounts))
        (etc / "shadow").chmod(0o640)
        entries = {"127.0.0.1": "localhost", "::1": "localhost", **{at: name for name, at in names.items()}}
        (etc / "hosts").write_text("".join(f"{at} {name}\n" for at, name in entries.items()))

    def _write_pip_settings(self) -> None:
        found = str(self._wheels) if self.on_loopback else "/home/wheels"
        folder = self.folder / "home" / ".config" / "pip"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pip.conf").write_text(
            f"[global]\nno-index = true\nfind-links = {found}\ndisable-pip-version-check = true\n"
        )
        for path in (folder, folder.parent, folder / "pip.conf"):
            os.chown(path, UID, UID)


class Sshd:
    """A host's OpenSSH server.

    Args:
        host: The host.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._folder = host.folder / "etc" / "ssh"
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None
        self._authorized: list[str] = []
        self.log_path = host.folder / "sshd.log"
        self.log_path.touch()
        self.configure()
        self._make_host_keys()
        self._first = {path.name: path.read_bytes() for path in self._folder.glob("ssh_host_*")}

    @property
    def running(self) -> bool:
        """It has not been stopped, and it has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The listening process's id on this machine."""
        if self._process is None or self._process.poll() is not None:
            return None
        if self._host.on_loopback:
            return self._process.pid
        return psutil.Process(self._process.pid).children()[0].pid

    @property
    def host_key(self) -> str:
        """The public host key that clients are to know: kind and key."""
        return " ".join((self._folder / "ssh_host_ed25519_key.pub").read_text().split()[:2])

    @property
    def fingerprint(self) -> str:
        """That key's fingerprint as ssh shows it."""
        digest = hashlib.sha256(base64.b64decode(self.host_key.split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def configure(self, *more: str) -> None:
        """Write its configuration, with more lines that take precedence; it holds from the next start."""
        lines = [
            *more,
            f"Port {self._host.port}",
            f"ListenAddress {self._host.address}",
            *[f"HostKey /etc/ssh/ssh_host_{kind}_key" for kind in ("ed25519", "ecdsa")],
            "AuthorizedKeysFile /etc/ssh/authorized_keys",
            "PidFile none",
            "UsePAM no",
            "UseDNS no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin no",
            "AllowTcpForwarding yes",
            "LogLevel VERBOSE",
            "MaxStartups 100:30:200",
            "PrintMotd no",
            "AcceptEnv LANG LC_*",
            f"SetEnv PATH={REMOTE_PATH}",
            "Subsystem sftp internal-sftp",
        ]
        (self._folder / "sshd_config").write_text("".join(f"{line}\n" for line in lines))

    def start(self) -> None:
        """Start it, and wait until it listens."""
        assert not self.running, "it runs already"
        self._close()
        self._log = self.log_path.open("ab")
        self._process = subprocess.Popen(
            self._host.command([_SSHD, "-D", "-e", "-f", "/etc/ssh/sshd_config"], root=True),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        wanted = (self._host.address, self._host.port)
        until(lambda: not self.running or wanted in listeners(self._host), "sshd listening", 10)
        assert self.running, self.log()

    def stop(self) -> None:
        """Kill it and the processes of its connections; what they started is left to itself, as it would be."""
        self._kill()
        self._close()
        # Again and again: somebody may just have connected.
        until(lambda: not self._kill(), "the end of sshd", 10)

    def _kill(self) -> int:
        """Kill its processes; how many there were."""
        found = self._processes()
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return len(found)

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def drop_connections(self) -> None:
        """Kill the processes of its connections; it goes on listening."""
        listener = self.pid
        for process in self._processes():
            if process.pid != listener:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        until(lambda: [process.pid for process in self._processes()] == [listener], "the end of connections", 10)

    def new_host_key(self) -> None:
        """Have other host keys, as a machine that was made anew has."""
        self._make_host_keys()
        if self.running:
            self.restart()

    def have_host_key(self, kind: str) -> str:
        """Have a host key of this kind alone; the public one, as it stands in known_hosts."""
        path = self._folder / f"ssh_host_{kind}_key"
        if not path.exists():
            _make_key(path, kind)
        self.configure()
        config = self._folder / "sshd_config"
        lines = [line for line in config.read_text().splitlines() if not line.startswith("HostKey ")]
        config.write_text("\n".join([*lines, f"HostKey /etc/ssh/{path.name}", ""]))
        self.restart()
        return " ".join(path.with_suffix(".pub").read_text().split()[:2])

    def authorize(self, *public_keys: str) -> None:
        """Let these keys in, and no other; none: nobody. It holds at once."""
        (self._folder / "authorized_keys").write_text("".join(f"{key}\n" for key in public_keys))

    def authorize_first(self, *public_keys: str) -> None:
        """Let these keys in, also after the test that runs."""
        self._authorized += public_keys
        self.authorize(*self._authorized)

    def log(self) -> str:
        """What it has logged in this test."""
        return self.log_path.read_text(errors="replace")

    def connections(self) -> int:
        """How many logins it has accepted in this test."""
        return self.log().count("Accepted publickey for ")

    def restore(self, up: bool) -> None:
        """Take back what a test has changed."""
        config = (self._folder / "sshd_config").read_text()
        self.configure()
        changed = config != (self._folder / "sshd_config").read_text()
        for name, content in self._first.items():
            if (self._folder / name).read_bytes() != content:
                (self._folder / name).write_bytes(content)
                changed = True
        self.authorize(*self._authorized)
        if up and (changed or not self.running):
            self.restart()
        elif up:
            self.drop_connections()
        else:
            self.stop()
        os.truncate(self.log_path, 0)

    def _make_host_keys(self) -> None:
        for kind in ("ed25519", "ecdsa"):
            _make_key(self._folder / f"ssh_host_{kind}_key", kind)

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in self._host.processes():
            with contextlib.suppress(psutil.Error):
                if process.name().startswith("sshd"):
                    found.append(process)
        return found

    def _close(self) -> None:
        if self._process is not None:
            _end(self._process)
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None


@dataclass
class Laptop:
    """This machine, with a home of its own: what a person has there.

    Attributes:
        home: The home folder, for `HOME` as well as for programs that ask who the user is, such as ssh.
        address: The laptop's address where the instance sees it.
        pid: A process in its network.
    """

    home: Path
    address: str
    pid: int = field(default_factory=os.getpid)

    def __post_init__(self) -> None:
        self._keys = self.home.with_name(f"{self.home.name}-keys")
        self._keys.mkdir()
        for name, passphrase in {"plain": "", "locked": PASSPHRASE, "stranger": ""}.items():
            _make_key(self._keys / name, passphrase=passphrase)
        self._passwd = self._keys / "passwd"
        entries = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
        for entry in entries:
            if int(entry[2]) == os.getuid():
                entry[5] = str(self.home)
        self._passwd.write_text("".join(":".join(entry) + "\n" for entry in entries))
        self.known: dict[tuple[str, int], str] = {}
        self.home.mkdir()
        self.restore()

    @property
    def known_hosts(self) -> Path:
        """The host keys that the person has accepted."""
        return self.home / ".ssh" / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """The person's ssh configuration; not there at first."""
        return self.home / ".ssh" / "config"

    @property
    def prefix(self) -> tuple[str, ...]:
        """Typed before a command: makes `home` the home also for who looks it up in /etc/passwd."""
        return ("unshare", "--mount", "--", "sh", "-c", _AS_LAPTOP, str(self._passwd))

    def key(self, name: str = "plain") -> Path:
        """A private key: `plain`; `locked`, with PASSPHRASE; `stranger`, which nobody lets in."""
        return self.home / "keys" / name

    def public_key(self, name: str = "plain") -> str:
        """The public half of a key, as a line for authorized_keys."""
        return (self._keys / f"{name}.pub").read_text().strip()

    def knows(self, *hosts: Host) -> None:
        """Accept the hosts' keys, those that they have now, and no others."""
        self.known_hosts.write_text("".join(f"[{host.address}]:{host.port} {host.sshd.host_key}\n" for host in hosts))

    def knows_first(self, *hosts: Host) -> None:
        """Accept the hosts' keys, also after the test that runs."""
        for host in hosts:
            self.known[host.address, host.port] = host.sshd.host_key
        self.restore()

    def environment(self, host: Host, gateway: Host | None = None, key: str | None = "plain") -> dict[str, str]:
        """What `inv` needs in its environment to work on a host; caches stay where they are."""
        environ = {
            "HOME": str(self.home),
            "SSH_AUTH_SOCK": "",
            "AML_REMOTE_HOST": host.address,
            "AML_REMOTE_PORT": str(host.port),
            "AML_REMOTE_USER": host.user,
        }
        if key is not None:
            environ["AML_REMOTE_KEY"] = str(self.key(key))
        if gateway is not None:
            environ["AML_REMOTE_GATEWAY"] = f"{gateway.user}@{gateway.address}:{gateway.port}"
        # What the person has set for pip holds, though the home is another.
        for settings in (Path.home() / ".config" / "pip" / "pip.conf", Path.home() / ".pip" / "pip.conf"):
            if "PIP_CONFIG_FILE" not in os.environ and settings.exists():
                environ["PIP_CONFIG_FILE"] = str(settings)
        return environ

    def ssh(
        self, host: Host, *arguments: str, gateway: Host | None = None, key: str = "plain", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host with the system's ssh."""
        options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=30", "-i", str(self.key(key)), "-p", str(host.port)]
        if gateway is not None:
            jump = (
                f"ssh -o BatchMode=yes -i {self.key(key)} -p {gateway.port} -W %h:%p {gateway.user}@{gateway.address}"
            )
            options += ["-o", f"ProxyCommand={jump}"]
        done = subprocess.run(
            [*self.prefix, "ssh", *options, f"{host.user}@{host.address}", *arguments],
            env={**os.environ, **self.environment(host)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0 or not check, done
        return done

    @contextlib.contextmanager
    def agent(self, key: str = "plain") -> Iterator[dict[str, str]]:
        """An ssh-agent that holds a key without a passphrase; gives what to add to the environment."""
        path = self.home / "agent"
        agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL, start_new_session=True, text=True
        )
        try:
            until(path.exists, "the agent", 10)
            environ = {"SSH_AUTH_SOCK": str(path)}
            subprocess.run(["ssh-add", "-q", str(self.key(key))], check=True, env={**os.environ, **environ})
            yield environ
        finally:
            _end(agent)

    def restore(self) -> None:
        """Take back what a test has changed, and end what it left running."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("HOME") == str(self.home):
                    process.kill()
        _empty(self.home)
        (self.home / ".ssh").mkdir(mode=0o700)
        (self.home / "keys").mkdir(mode=0o700)
        for path in self._keys.iterdir():
            if path != self._passwd:
                shutil.copy(path, self.home / "keys")
        self.known_hosts.write_text("".join(f"[{at}]:{port} {key}\n" for (at, port), key in self.known.items()))


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
            _run("ip", "link", "set", self._slow, "up")
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
        _run(
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
        _run(
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
        _run(
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
            _end(relay)

    def _route_slowly(self) -> None:
        here, there = self.laptop.address, self.instance.address
        _run("ip", "route", "replace", f"{there}/32", "dev", self._slow, "src", here)
        self.instance.run(["ip", "route", "replace", f"{here}/32", "dev", "slow0", "src", there], root=True)

    def _clean(self) -> None:
        self.laptop.restore()
        for laptop in self._laptops:
            laptop.restore()
        _forget_network(self.number)
        shutil.rmtree(self.folder)
        os.close(self._claim)


def listeners(host: Host | Laptop) -> set[tuple[str, int]]:
    """Every address and port on which somebody listens in a host's network."""
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{host.pid}/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            if state == "0A":
                raw, port = local.split(":")
                # Words of four bytes, each in the machine's own order.
                packed = b"".join(int(raw[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(raw), 8))
                found.add((socket.inet_ntop(family, packed), int(port, 16)))
    return found


def _namespaces(pid: int) -> tuple[int, int]:
    """What tells a host's processes from others, also from those on this machine that lead there."""
    return os.stat(f"/proc/{pid}/ns/mnt").st_ino, os.stat(f"/proc/{pid}/ns/pid").st_ino


def _forget_network(number: int) -> None:
    """Take away what a run has left on this machine; a killed one leaves the route only."""
    for device in (f"adt{number}", f"ads{number}"):
        if Path(f"/sys/class/net/{device}").exists():
            _run("ip", "link", "del", device, check=False)
    _run("ip", "route", "del", "unreachable", f"10.83.{number}.0/24", check=False)


def _claim(folder: Path) -> tuple[int, int]:
    """A number that no other run has, for addresses and names, and what holds it; others' leftovers are taken away."""
    for lock in folder.glob("*.lock"):
        held = _hold(lock)
        if held is not None:
            _forget_network(int(lock.stem))
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            os.close(held)
    for number in range(200):
        held = _hold(folder / f"{number}.lock")
        if held is not None:
            if not _run("ip", "-4", "route", "show", "root", f"10.83.{number}.0/24"):
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
