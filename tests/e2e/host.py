"""A remote host of the tests: a namespace with a network, processes, a user, a home and files of its own."""

from __future__ import annotations

import contextlib
import grp
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from host_tools import REMOTE_PATH, UID, USER, empty, end, namespaces_of, run_program
from projects import ROOT
from sshd import Sshd
from wheelhouse import PYTHON

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
        self._has_served = False
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
        self._namespaces = namespaces_of(self.pid)

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
                if process.pid != self.pid and namespaces_of(process.pid) == self._namespaces:
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
            end(child)
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
        empty(self.folder / "home", keep=[".cache"])
        empty(self.folder / "programs")
        empty(self.folder / "tmp")
        self._write_pip_settings()
        if self._has_served:
            self._share_environments()

    def begin_to_serve(self) -> None:
        """Have what the program makes on hosts; nobody works on one whose SSH server has never been started."""
        if not self._has_served:
            self._has_served = True
            self._share_environments()

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
            end(child)
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

    def _share_environments(self) -> None:
        """Take the environments that hosts with the same home and the same packages have built, and leave this one's.

        By hard links: what is built is not written to afterwards, only replaced. A host on loopback has a home of its
        own, which environments name. It takes the program's, of which only `bin/python` is started, and leaves none.
        """
        kept = self._wheels.parents[1] / "host-environments" / self._wheels.name
        own = self.folder / "home" / ".cache" / "azureml-debug"
        shared = {"program": "*/ready", "environments": "*/azureml-debug.json"}
        if self.on_loopback:
            del shared["environments"]
        for folder, whole in shared.items():
            ways = ((kept / folder, own / folder), (own / folder, kept / folder))
            for source, target in ways[:1] if self.on_loopback else ways:
                for built in sorted(path.parent for path in source.glob(whole)):
                    if not (target / built.name).exists():
                        self._link(built, target)

    def _link(self, built: Path, target: Path) -> None:
        """Have a folder in another as well, made whole or not at all: other hosts do the same meanwhile."""
        for folder in reversed([target, *target.parents]):
            if not folder.exists():
                folder.mkdir(0o700, exist_ok=True)
                os.chown(folder, UID, UID)
        with tempfile.TemporaryDirectory(dir=target, prefix=".") as work:
            run_program("cp", "--archive", "--link", str(built), work)
            with contextlib.suppress(OSError):
                os.rename(Path(work, built.name), target / built.name)

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
