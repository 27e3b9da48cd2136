"""The side that runs on the other machine: sent over the SSH channel, and gone when it closes.

It answers one request after the other on standard input and output, in frames (one byte of kind, four of length).
A task that it has started outlives it and the connection: what the task says is kept in a file, from which a later
agent goes on. Standard library only; Python 3.10 or later.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from typing import Any

from . import machine
from .environment import forget_programs, make_environment
from .facts import digest, facts, nearest, send_files
from .folder import STATE, Folder, Mismatch, open_folder, receive
from .following import follow
from .machine import boot, cache, explained, own_folder, replace_connection
from .task import Task, tidy
from .watching import watch
from .wire import Failure, Wire, not_understood, one_part, whole

GREETING = b"\0azureml-debug agent\n"


class Agent:
    """Answers the requests of one connection."""

    def __init__(self) -> None:
        self._wire = Wire()
        self._folder: Folder | None = None

    def serve(self) -> None:
        """Answer until the connection ends."""
        wire = self._wire
        wire.raw(GREETING)
        wire.say(
            python=list(sys.version_info[:3]), executable=sys.executable, home=os.path.expanduser("~"),
            node=platform.node(), time=time.time(), system=f"{platform.system()} {platform.machine()}",
        )  # fmt: skip
        while True:
            request: dict[str, Any] | None = {}
            try:
                request = wire.message()
                if request is None:
                    return
                if "do" not in request:
                    # A sign of life, or a word for a task that has just ended.
                    continue
                action = getattr(self, f"do_{request['do']}", None)
                if action is None:
                    raise not_understood("a request that it does not know")
                answer = action(request)
            except Failure as failure:
                wire.say(failure=list(failure.args))
                if "delete" in (request or {}):
                    # The rest of the files may be under way: whoever sends them is to stop.
                    return
            except Mismatch as mismatch:
                wire.say(mismatch=str(mismatch))
            except EOFError:
                return
            except BrokenPipeError:
                return
            except OSError as error:
                wire.say(failure=list(explained(error).args))
                if "delete" in (request or {}):
                    return
            except Exception:
                # A bug, here or in who has asked: told there, where a person reads it.
                import traceback

                wire.say(details=traceback.format_exc().splitlines()[-15:])
                wire.say(failure=list(not_understood("a request that it cannot do").args))
                if "delete" in (request or {}):
                    return
            else:
                wire.say(done=True, **(answer or {}))

    def do_open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open the project's folder and keep others out until the files are there."""
        folder = self._folder = open_folder(request)
        folder.lock(self._wire)
        known = {"root": folder.root, "sync": folder.state["sync"], "named": folder.state.get("named", [])}
        if folder.state["sync"] == request.get("sync"):
            return {**known, "drifted": folder.drifted()}
        return {**known, "files": folder.files, "drifted": folder.drifted()}

    def do_program(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open the folder of the program's own files."""
        root = os.path.join(cache(), "program", one_part(request.get("key")))
        own_folder(root)
        os.utime(root)
        forget_programs(os.path.dirname(root))
        folder = Folder(os.path.realpath(root), os.path.join(root + ".files", "files.json"))
        if request.get("files"):
            folder.lock(self._wire)
            try:
                receive(self._wire, folder, request)
            finally:
                folder.unlock()
            return {"root": folder.root, "there": True}
        return {"root": folder.root, "there": bool(folder.files) and not folder.drifted()}

    def do_files(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take files into the project's folder."""
        assert self._folder is not None
        return receive(self._wire, self._folder, request)

    def do_close(self, request: dict[str, Any]) -> None:
        """Let other commands send files."""
        assert self._folder is not None
        self._folder.unlock()

    def do_environment(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have the program's environment made."""
        return {"python": make_environment(self._wire, request["key"], request["requirements"], request["code"])}

    def do_task(self, request: dict[str, Any]) -> None:
        """Run a task to its end."""
        tasks = os.path.join(request["root"], STATE, "remote", "tasks")
        own_folder(tasks)
        tidy(tasks)
        task = Task(os.path.join(tasks, one_part(request.get("task"))))
        task.start(request)
        self._wire.say(started=task.folder, boot=boot())
        follow(self._wire, task, 0)

    def do_resume(self, request: dict[str, Any]) -> None:
        """Go on with a task that a connection was lost from."""
        folder = os.path.join(request["root"], STATE, "remote", "tasks", one_part(request.get("task")))
        if not os.path.isdir(folder):
            raise Failure("The task that was running there is not known there any more.", "Run it again.")
        follow(self._wire, Task(folder), whole(request.get("offset")))

    def do_watch(self, request: dict[str, Any]) -> None:
        """Watch runs and services until the connection ends."""
        replace_connection(request["keeper"])
        watch(self._wire, request)

    def do_facts(self, request: dict[str, Any]) -> dict[str, Any]:
        """Tell of this machine."""
        return facts(request["folder"])

    def do_get(self, request: dict[str, Any]) -> None:
        """Send files."""
        send_files(self._wire, request["paths"])

    def do_digests(self, request: dict[str, Any]) -> dict[str, Any]:
        """Digests of the files that match a pattern below a folder."""
        import glob

        found = glob.glob(os.path.join(glob.escape(request["root"]), request["pattern"]))
        digests = {os.path.relpath(path, request["root"]): digest(path) for path in sorted(found)}
        return {"digests": {path: value for path, value in digests.items() if value}}

    def do_try(self, request: dict[str, Any]) -> None:
        """Write a small file where the project goes, and where environments go, and take it away."""
        import tempfile

        for folder in (request["folder"], cache()):
            place = nearest(folder)
            try:
                with tempfile.NamedTemporaryFile(dir=place) as file:
                    file.write(b"\0" * 65536)
                    file.flush()
            except OSError as error:
                error.filename = place
                raise


def main(pythons: str) -> None:
    """Serve one connection.

    Args:
        pythons: The Pythons that were found here and will not do, and why; as the shell that has started this one says.
    """
    machine.PYTHONS = pythons
    Agent().serve()
    # At once: the thread that reads would be in the way of an orderly end.
    os._exit(0)
