"""Runs a step's command on a node of Azure ML: this is the script that the service starts.

    python azureml_debug/node.py inputs.data /mnt/…/data outputs.model /mnt/…/model

With SDK v1 the service starts scripts, and a step's command is a command line for bash. The command is in step.json
beside this file, with ``@azureml_debug:NAME@`` in place of each path that only the node knows. The paths are this
script's arguments, as pairs of name and path.

    exec python azureml_debug/node.py "$0" 3<<'END'
    the command
    END

With SDK v2 the service runs the command above, in which it has filled in all inputs and outputs. The step's own
command is a here-document, because bash passes that on byte for byte. It arrives on a descriptor of its own, since the
standard streams belong to the command. The argument is the name of the service's shell, which prefixes a shell's error
messages. The debug settings are in the variable AZUREML_DEBUG_STEP: the files beside this one are the same for every
step and run, and are sent once.

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
from typing import Any, Dict, List, Optional, Tuple  # noqa: F401 - in comments, for Python 3.6

TYPE_CHECKING = False  # As good as typing's, without importing that.

#: The variable with the debug settings of a step of SDK v2, as JSON; and the descriptor that its command arrives on.
STEP, COMMAND = "AZUREML_DEBUG_STEP", 3
FOLDER = os.path.dirname(os.path.abspath(__file__))
#: Seconds between two checks for new events of the step's debuggee, and for the command's end.
POLL_SECONDS = 0.2
#: Seconds that remaining tags may take to be set after the command has ended.
FINISH_SECONDS = 5.0
#: A path that a shell takes as one word without quotes.
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+=:@%,-")


def main():
    # type: () -> int
    """Run the step and return its exit code."""
    settings = os.environ.pop(STEP, None)
    if settings is not None:
        return _run_received_command(json.loads(settings))
    with open(os.path.join(FOLDER, "step.json"), "rb") as file:
        step = json.loads(file.read().decode("utf-8"))
    debug = step.get("debug")
    # It is sent as one file and needed as a folder.
    debuggee = _unpack_debuggee() if debug is not None else FOLDER
    places = {"debuggee": debuggee}
    places.update(_data_paths(sys.argv[1:], step["files"]))
    environ = dict(os.environ)
    for name, path in places.items():
        kind, dot, rest = name.partition(".")
        if dot:
            environ["AZURE_ML_{}_{}".format(kind[:-1].upper(), rest)] = path
            if kind == "inputs":
                environ["AZUREML_DATAREFERENCE_" + rest] = path
    for name, value in step["variables"].items():
        environ[name] = _fill_in(value, places)
    command = [_find_shell(), "-c", _fill_in(step["command"], places)]
    if debug is None:
        sys.stdout.flush()
        os.execve(command[0], command, environ)  # noqa: S606 - the shell is the program
    return _run_debugged([os.fsencode(word) for word in command], environ, debug, debuggee)


def _run_received_command(debug):
    # type: (Dict[str, Any]) -> int
    """Run the command that arrives on a descriptor, and return its exit code."""
    try:
        with os.fdopen(COMMAND, "rb") as file:
            command = file.read()
    except (IOError, OSError) as error:
        message = "azureml_debug: the step's command was not received ({}): bash did not start it\n"
        sys.stderr.write(message.format(error))
        return 1
    # The here-document's last line feed is not part of the command.
    command = command[:-1] if command.endswith(b"\n") else command
    debuggee = _unpack_debuggee()
    command = command.replace(b"@azureml_debug:debuggee@", os.fsencode(debuggee))
    name = sys.argv[1] if len(sys.argv) > 1 else _find_shell()
    return _run_debugged([os.fsencode(name), b"-c", command], dict(os.environ), debug, debuggee)


def _find_shell():
    # type: () -> str
    return shutil.which("bash") or "/bin/sh"


def _data_paths(arguments, files):
    # type: (List[str], Dict[str, str]) -> Dict[str, str]
    """The paths of the data by ``inputs.NAME`` and ``outputs.NAME``; folders of outputs are created."""
    found = {}
    for name, path in zip(arguments[::2], arguments[1::2]):
        path = os.path.abspath(path)
        if name.startswith("outputs.") and not os.path.isdir(path):
            # A PipelineData is a location in a datastore where nothing exists yet.
            os.makedirs(path)
        path = _as_shell_word(path)
        inner = files.get(name)
        found[name] = os.path.join(path, inner) if inner and os.path.isdir(path) else path
    return found


def _as_shell_word(path):
    # type: (str) -> str
    """The path itself if a shell takes it as one word, else a link to it."""
    if set(path) <= PLAIN:
        return path
    link = os.path.join(tempfile.mkdtemp(prefix="azureml-debug-"), "data")
    os.symlink(path, link)
    return link


def _fill_in(text, places):
    # type: (str, Dict[str, str]) -> str
    for name, path in places.items():
        text = text.replace("@azureml_debug:{}@".format(name), path)
    return text


def _unpack_debuggee():
    # type: () -> str
    folder = tempfile.mkdtemp(prefix="azureml-debug-")
    shutil.unpack_archive(os.path.join(FOLDER, "debuggee.zip"), folder)
    return folder


def _run_debugged(command, environ, debug, debuggee):
    # type: (List[bytes], Dict[str, str], Dict[str, Any], str) -> int
    """Run the command so that a debugger can attach to its script, and return its exit code."""
    announced = os.path.join(tempfile.mkdtemp(prefix="azureml-debug-"), "events.jsonl")
    _add_debug_variables(environ, debug, debuggee, announced)
    # The developer's side reads this from the run's log if no tag reaches it.
    sys.stdout.write("azureml_debug: source root {}\n".format(os.getcwd()))
    sys.path.insert(0, debuggee)
    tags, ports = _start_tags(environ, debug)
    child = subprocess.Popen(command, executable=_find_shell(), env=environ)

    def forward(number, frame):
        # type: (int, Any) -> None
        child.send_signal(number)

    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), forward)
    watcher = threading.Thread(target=_forward_events, args=(announced, child, tags, ports))
    watcher.daemon = True
    watcher.start()
    while child.poll() is None:
        # Short waits, since a signal's handler runs between them.
        time.sleep(POLL_SECONDS / 4)
    watcher.join(POLL_SECONDS + 1)
    tags.finish(FINISH_SECONDS)
    if ports is not None:
        ports.close()
    code = child.returncode
    if code < 0:
        _end_by_signal(-code)
    return code if code >= 0 else 128 - code


def _add_debug_variables(environ, debug, debuggee, announced):
    # type: (Dict[str, str], Dict[str, Any], str, str) -> None
    """Add the variables by which the command's Python processes load the debuggee."""
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
        # Scripts may be reached through links; breakpoints belong to the files behind them.
        PYDEVD_RESOLVE_SYMLINKS="1",
    )
    environ.update(debug["variables"])
    if "AZUREML_DEBUGGEE_STORY" in environ:
        # The service keeps this folder, also of a step that fails.
        # https://learn.microsoft.com/azure/machine-learning/how-to-save-write-experiment-files
        environ["AZUREML_DEBUGGEE_SNAPSHOTS"] = os.path.join(os.getcwd(), "logs")
        # Several ranks of a node start at the same time.
        os.makedirs(environ["AZUREML_DEBUGGEE_SNAPSHOTS"], exist_ok=True)


def _start_tags(environ, debug):
    # type: (Dict[str, str], Dict[str, Any]) -> Tuple[Any, Any]
    """Start to set the run's tags; also returns what opens ports on the network, or None if that is not wanted."""
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
    return tags, ports


def _end_by_signal(number):
    # type: (int) -> None
    """End by the signal that ended the command, so that the caller sees the same as without this script."""
    import resource

    sys.stdout.flush()
    # The command has left its own core dump, if any.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    # The first process of a container survives the signal; its exit code then tells the signal.
    os.kill(os.getpid(), number)


def _forward_events(announced, child, tags, ports):
    # type: (str, subprocess.Popen[bytes], Any, Any) -> None
    """Pass announced events on to tags and ports until the command has ended."""
    read = 0
    while True:
        ended = child.poll() is not None
        try:
            with open(announced, "rb") as file:
                file.seek(read)
                data = file.read()
        except (IOError, OSError):
            data = b""
        complete = data[: data.rfind(b"\n") + 1]
        read += len(complete)
        for line in complete.splitlines():
            try:
                event = json.loads(line.decode("utf-8"))
            except ValueError:
                continue
            tags.add_event(event)
            if ports is not None:
                ports.add_event(event)
        if ended:
            return
        time.sleep(POLL_SECONDS)


def address_towards(client):
    # type: (Optional[str]) -> str
    """This node's address on the route to a client, found with UDP as the published scripts do; nothing is sent."""
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
