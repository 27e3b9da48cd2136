"""The agent's main loop. The agent is sent over the SSH channel and ends when the channel closes.

It answers one request after the other on standard input and output, in frames (one byte of kind, four of length).
A task that it has started outlives the agent and the connection: the task's output is kept in a file, from which a
later agent continues. Standard library only; Python 3.10 or later.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from typing import Any

from . import machine
from .environment import make_environment, remove_old_programs
from .facts import collect_facts, file_digest, nearest_existing_folder, send_files
from .folder import STATE, Folder, VersionMismatch, open_folder, receive_files
from .following import follow
from .machine import boot_id, cache_folder, describe_error, make_folder, replace_connection
from .task import Task, remove_old_tasks
from .watching import watch
from .wire import Failure, Wire, bad_request, checked_name, checked_number

GREETING = b"\0azureml-debug agent\n"


class Agent:
    """Answers the requests of one connection."""

    def __init__(self) -> None:
        self._wire = Wire()
        self._folder: Folder | None = None

    def serve(self) -> None:
        """Answer until the connection ends."""
        wire = self._wire
        wire.send_raw(GREETING)
        wire.send(
            python=list(sys.version_info[:3]), executable=sys.executable, home=os.path.expanduser("~"),
            node=platform.node(), time=time.time(), system=f"{platform.system()} {platform.machine()}",
        )  # fmt: skip
        while True:
            request: dict[str, Any] | None = {}
            try:
                request = wire.next_message()
                if request is None:
                    return
                if "do" not in request:
                    # A keepalive, or a message for a task that has just ended.
                    continue
                action = getattr(self, f"do_{request['do']}", None)
                if action is None:
                    raise bad_request("a request that it does not know")
                answer = action(request)
            except Failure as failure:
                wire.send(failure=list(failure.args))
                if "delete" in (request or {}):
                    # The rest of the files may be on their way. Closing the connection stops the sender.
                    return
            except VersionMismatch as mismatch:
                wire.send(mismatch=str(mismatch))
            except EOFError:
                return
            except BrokenPipeError:
                return
            except OSError as error:
                wire.send(failure=list(describe_error(error).args))
                if "delete" in (request or {}):
                    return
            except Exception:
                # A bug here or in the sender. It is reported to the other side, where the user reads it.
                import traceback

                wire.send(details=traceback.format_exc().splitlines()[-15:])
                wire.send(failure=list(bad_request("a request that it cannot do").args))
                if "delete" in (request or {}):
                    return
            else:
                wire.send(done=True, **(answer or {}))

    def do_open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open the project's folder, and lock it until the files have been received."""
        folder = self._folder = open_folder(request)
        folder.lock(self._wire)
        known = {"root": folder.root, "sync": folder.state["sync"], "named": folder.state.get("named", [])}
        if folder.state["sync"] == request.get("sync"):
            return {**known, "drifted": folder.find_changed()}
        return {**known, "files": folder.files, "drifted": folder.find_changed()}

    def do_program(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open the folder of the program's own files."""
        root = os.path.join(cache_folder(), "program", checked_name(request.get("key")))
        make_folder(root)
        os.utime(root)
        remove_old_programs(os.path.dirname(root))
        folder = Folder(os.path.realpath(root), os.path.join(root + ".files", "files.json"))
        if request.get("files"):
            folder.lock(self._wire)
            try:
                receive_files(self._wire, folder, request)
            finally:
                folder.unlock()
            return {"root": folder.root, "there": True}
        return {"root": folder.root, "there": bool(folder.files) and not folder.find_changed()}

    def do_files(self, request: dict[str, Any]) -> dict[str, Any]:
        """Receive files into the project's folder."""
        assert self._folder is not None
        return receive_files(self._wire, self._folder, request)

    def do_close(self, request: dict[str, Any]) -> None:
        """Unlock the project's folder, so that other commands can send files."""
        assert self._folder is not None
        self._folder.unlock()

    def do_environment(self, request: dict[str, Any]) -> dict[str, Any]:
        """Create the program's environment, unless it exists."""
        return {"python": make_environment(self._wire, request["key"], request["requirements"], request["code"])}

    def do_task(self, request: dict[str, Any]) -> None:
        """Run a task to its end."""
        tasks = os.path.join(request["root"], STATE, "remote", "tasks")
        make_folder(tasks)
        remove_old_tasks(tasks)
        task = Task(os.path.join(tasks, checked_name(request.get("task"))))
        task.start(request)
        self._wire.send(started=task.folder, boot=boot_id())
        follow(self._wire, task, 0)

    def do_resume(self, request: dict[str, Any]) -> None:
        """Continue following a task whose connection was lost."""
        folder = os.path.join(request["root"], STATE, "remote", "tasks", checked_name(request.get("task")))
        if not os.path.isdir(folder):
            raise Failure("The task that was running there is not known there any more.", "Run it again.")
        follow(self._wire, Task(folder), checked_number(request.get("offset")))

    def do_watch(self, request: dict[str, Any]) -> None:
        """Watch runs and services until the connection ends."""
        replace_connection(request["keeper"])
        watch(self._wire, request)

    def do_facts(self, request: dict[str, Any]) -> dict[str, Any]:
        """Describe this machine."""
        return collect_facts(request["folder"])

    def do_get(self, request: dict[str, Any]) -> None:
        """Send files."""
        send_files(self._wire, request["paths"])

    def do_digests(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the digests of the files below a folder that match a pattern."""
        import glob

        found = glob.glob(os.path.join(glob.escape(request["root"]), request["pattern"]))
        digests = {os.path.relpath(path, request["root"]): file_digest(path) for path in sorted(found)}
        return {"digests": {path: value for path, value in digests.items() if value}}

    def do_try(self, request: dict[str, Any]) -> None:
        """Check that files can be written: write and delete one in the project's place and one in the cache."""
        import tempfile

        for folder in (request["folder"], cache_folder()):
            place = nearest_existing_folder(folder)
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
        pythons: The Pythons that were found here and cannot be used, and why, as the shell script has found them.
    """
    machine.UNUSABLE_PYTHONS = pythons
    Agent().serve()
    # Exit at once: an orderly end would wait for the reader thread.
    os._exit(0)
