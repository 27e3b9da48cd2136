"""Does a step's command on a node of Azure ML: the script that the service starts.

    python azureml_debug/node.py inputs.data /mnt/…/data outputs.model /mnt/…/model

With SDK v1 the service starts scripts, and a step's command is a text for bash. It lies beside this file in step.json,
with ``@azureml_debug:NAME@`` where a path goes that only the node knows; the paths are this script's
arguments, in pairs.

    exec python azureml_debug/node.py "$0" 3<<'END'
    the command
    END

With SDK v2 the service itself runs the command, this one, in which it has filled in inputs and outputs everywhere: so
the step's own is a here-document, which bash hands on byte for byte. It comes on a descriptor of its own, for the
standard streams are the command's. The argument is the name under which the service's own shell runs: it stands in
front of what a shell says. How it is debugged is in the variable AZUREML_DEBUG_STEP: what lies beside this
file is the same for every step and run, and is sent once.

Standard library only, for every Python from 3.6 on.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Dict, List, Optional  # noqa: F401 - in comments, for Python 3.6

TYPE_CHECKING = False  # As good as typing's, without importing that.

#: How a step of SDK v2 is debugged, as JSON; and the descriptor on which its command comes.
STEP, COMMAND = "AZUREML_DEBUG_STEP", 3
FOLDER = os.path.dirname(os.path.abspath(__file__))
#: Seconds between two looks at what the step's debuggee has announced, and at whether the command has ended.
LOOK_SECONDS = 0.2
#: Seconds that tags which are still to be set have after the command's end.
LAST_SECONDS = 5.0
#: A path that a shell takes as one word without quotes.
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+=:@%,-")


def main():
    # type: () -> int
    """Do the step; its exit code."""
    told = os.environ.pop(STEP, None)
    if told is not None:
        return _given(json.loads(told))
    with open(os.path.join(FOLDER, "step.json"), "rb") as file:
        step = json.loads(file.read().decode("utf-8"))
    debug = step.get("debug")
    # Sent as one file, and needed as a folder.
    debuggee = _unpacked() if debug is not None else FOLDER
    places = {"debuggee": debuggee}
    places.update(_places(sys.argv[1:], step["files"]))
    environ = dict(os.environ)
    for name, path in places.items():
        kind, dot, rest = name.partition(".")
        if dot:
            environ["AZURE_ML_{}_{}".format(kind[:-1].upper(), rest)] = path
            if kind == "inputs":
                environ["AZUREML_DATAREFERENCE_" + rest] = path
    for name, value in step["variables"].items():
        environ[name] = _filled(value, places)
    command = [_shell(), "-c", _filled(step["command"], places)]
    if debug is None:
        sys.stdout.flush()
        os.execve(command[0], command, environ)  # noqa: S606 - the shell is the program
    return _debugged([os.fsencode(word) for word in command], environ, debug, debuggee)


def _given(debug):
    # type: (Dict[str, Any]) -> int
    """Do the command that comes on a descriptor; its exit code."""
    try:
        with os.fdopen(COMMAND, "rb") as file:
            command = file.read()
    except (IOError, OSError) as error:
        said = "azureml_debug: the step's command has not come ({}): it was not started by bash\n"
        sys.stderr.write(said.format(error))
        return 1
    # The here-document's last line feed is not the command's.
    command = command[:-1] if command.endswith(b"\n") else command
    debuggee = _unpacked()
    command = command.replace(b"@azureml_debug:debuggee@", os.fsencode(debuggee))
    name = sys.argv[1] if len(sys.argv) > 1 else _shell()
    return _debugged([os.fsencode(name), b"-c", command], dict(os.environ), debug, debuggee)


def _shell():
    # type: () -> str
    return shutil.which("bash") or "/bin/sh"


def _places(arguments, files):
    # type: (List[str], Dict[str, str]) -> Dict[str, str]
    """Where data lies, by ``inputs.NAME`` and ``outputs.NAME``; folders of outputs are made."""
    found = {}
    for name, path in zip(arguments[::2], arguments[1::2]):
        path = os.path.abspath(path)
        if name.startswith("outputs.") and not os.path.isdir(path):
            # A PipelineData is a place in a datastore, where nothing is yet.
            os.makedirs(path)
        path = _plain(path)
        inner = files.get(name)
        found[name] = os.path.join(path, inner) if inner and os.path.isdir(path) else path
    return found


def _plain(path):
    # type: (str) -> str
    """The path itself where a shell takes it as one word, else a link to it."""
    if set(path) <= PLAIN:
        return path
    link = os.path.join(tempfile.mkdtemp(prefix="azureml-debug-"), "data")
    os.symlink(path, link)
    return link


def _filled(text, places):
    # type: (str, Dict[str, str]) -> str
    for name, path in places.items():
        text = text.replace("@azureml_debug:{}@".format(name), path)
    return text


def _unpacked():
    # type: () -> str
    folder = tempfile.mkdtemp(prefix="azureml-debug-")
    shutil.unpack_archive(os.path.join(FOLDER, "debuggee.zip"), folder)
    return folder


def _debugged(command, environ, debug, debuggee):
    # type: (List[bytes], Dict[str, str], Dict[str, Any], str) -> int
    """Run the command such that a debugger can be let into its script; its exit code."""
    announced = os.path.join(tempfile.mkdtemp(prefix="azureml-debug-"), "events.jsonl")
    address = address_towards(debug.get("client"))
    inject = os.path.join(debuggee, "inject")
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [inject, environ.get("PYTHONPATH")]))
    environ.update(
        AZUREML_DEBUGGEE_CODE=os.getcwd(),
        AZUREML_DEBUGGEE_HOST=address,
        AZUREML_DEBUGGEE_ADDRESS=address,
        AZUREML_DEBUGGEE_EVENTS=announced,
        AZUREML_DEBUGGEE_DEBUGPY=os.path.join(debuggee, "debugpy"),
        PYTHONUNBUFFERED="1",
        # Scripts may be reached by links; breakpoints belong to the files behind them.
        PYDEVD_RESOLVE_SYMLINKS="1",
    )
    environ.update(debug["variables"])
    if "AZUREML_DEBUGGEE_STORY" in environ:
        # What the service keeps of a step, also of one that fails.
        # https://learn.microsoft.com/azure/machine-learning/how-to-save-write-experiment-files
        environ["AZUREML_DEBUGGEE_SNAPSHOTS"] = os.path.join(os.getcwd(), "logs")
        if not os.path.isdir(environ["AZUREML_DEBUGGEE_SNAPSHOTS"]):
            os.mkdir(environ["AZUREML_DEBUGGEE_SNAPSHOTS"])
    # What a log of this run tells the developer's side, should no tag reach it.
    sys.stdout.write("azureml_debug: source root {}\n".format(os.getcwd()))
    sys.path.insert(0, debuggee)
    from azureml_debuggee.host_keys import announce_host_keys  # type: ignore[import-not-found]
    from azureml_debuggee.network_port import NetworkPorts  # type: ignore[import-not-found]
    from azureml_debuggee.ranks import node_of  # type: ignore[import-not-found]
    from azureml_debuggee.tags import Tags  # type: ignore[import-not-found]

    node = node_of(environ)
    if node is not None:
        sys.stdout.write("azureml_debug: node {}\n".format(node))
    sys.stdout.flush()
    tags = Tags(os.getcwd(), node=node)
    tags.start()
    ports = None
    if debug.get("relay"):
        announce_host_keys(tags, node or 0)
        if debug["relay"] == "auto":
            ports = NetworkPorts(tags, address_towards(debug.get("client")))
    child = subprocess.Popen(command, executable=_shell(), env=environ)

    def forward(number, frame):
        # type: (int, Any) -> None
        child.send_signal(number)

    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), forward)
    watcher = threading.Thread(target=_watch, args=(announced, child, tags, ports))
    watcher.daemon = True
    watcher.start()
    while child.poll() is None:
        # Short waits: a signal's handler runs between them.
        time.sleep(LOOK_SECONDS / 4)
    watcher.join(LOOK_SECONDS + 1)
    tags.finish(LAST_SECONDS)
    if ports is not None:
        ports.close()
    code = child.returncode
    if code < 0:
        _end_by(-code)
    return code if code >= 0 else 128 - code


def _end_by(number):
    # type: (int) -> None
    """End by a signal, as the command has ended: whoever started this sees what it would see without it."""
    import resource

    sys.stdout.flush()
    # What there is to see of it is the command's own.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    # The first process of a container outlives it, and then says it by its exit code.
    os.kill(os.getpid(), number)


def _watch(announced, child, tags, ports):
    # type: (str, subprocess.Popen[bytes], Any, Any) -> None
    """Tell the tags what is announced, until the command has ended."""
    read = 0
    while True:
        ended = child.poll() is not None
        try:
            with open(announced, "rb") as file:
                file.seek(read)
                data = file.read()
        except (IOError, OSError):
            data = b""
        whole = data[: data.rfind(b"\n") + 1]
        read += len(whole)
        for line in whole.splitlines():
            try:
                event = json.loads(line.decode("utf-8"))
            except ValueError:
                continue
            tags.add_event(event)
            if ports is not None:
                ports.add_event(event)
        if ended:
            return
        time.sleep(LOOK_SECONDS)


def address_towards(client):
    # type: (Optional[str]) -> str
    """This node's address on the way to a client; nothing is sent. As the published scripts do, with UDP."""
    for target in (client, "8.8.8.8"):
        if not target:
            continue
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            probe.connect((target, 80))
            return str(probe.getsockname()[0])
        except (OSError, socket.error):
            continue
        finally:
            probe.close()
    try:
        return socket.gethostbyname(socket.gethostname())
    except (OSError, socket.error):
        return "127.0.0.1"


if __name__ == "__main__":
    sys.exit(main())
