"""Generated debug sessions that no editor would begin: what a peer may send to a gate."""

from __future__ import annotations

import copy
import json
import random
import socket
import struct
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]

#: What stands where something else belongs.
_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    3,
    2**31,
    2**70,
    1.5,
    1e308,
    "",
    "x",
    "\ud800",
    "\u0000",
    "é" * 300,
    [],
    {},
    [None],
    [[]],
    {"": None},
    {"localRoot": None},
    ["a", 1, None],
    "/nonexistent/file.py",
)
#: What a debugger may ask of a program that is attached to, and that neither ends it nor runs code in it.
_COMMANDS = (
    "threads",
    "stackTrace",
    "scopes",
    "variables",
    "evaluate",
    "setVariable",
    "setExpression",
    "continue",
    "next",
    "stepIn",
    "stepOut",
    "pause",
    "goto",
    "gotoTargets",
    "completions",
    "exceptionInfo",
    "modules",
    "source",
    "loadedSources",
    "setFunctionBreakpoints",
    "setExceptionBreakpoints",
    "setDataBreakpoints",
    "stepInTargets",
    "setDebuggerProperty",
    "setPydevdSourceMap",
    "pydevdSystemInfo",
    "pydevdAuthorize",
    "pydevdInputRequested",
    "debugpySystemInfo",
    "terminateThreads",
    "restart",
    "launch",
    "attach",
    "initialize",
    "configurationDone",
    "cancel",
    "nonsense",
    "",
)


def _session(random_: random.Random, file: str) -> list[Message]:
    """The messages of a session as an editor begins it, with some requests after it."""
    attach: Message = {
        "name": "x",
        "type": "debugpy",
        "request": "attach",
        "connect": {"host": "127.0.0.1", "port": 1},
        "pathMappings": [{"localRoot": "/here", "remoteRoot": "/there"}],
        "justMyCode": random_.choice([True, False]),
        "subProcess": False,
        "clientOS": "unix",
        "redirectOutput": True,
        "debugOptions": ["ShowReturnValue"],
        "rules": [{"path": "/x", "include": True}],
        "django": False,
        "steppingResumesAllThreads": True,
        "variablePresentation": {"all": "group"},
        "showReturnValue": True,
    }
    asked: list[tuple[str, Any]] = [
        ("initialize", {"clientID": "x", "adapterID": "debugpy", "pathFormat": "path", "linesStartAt1": True}),
        ("attach", attach),
        ("setBreakpoints", {"source": {"path": file}, "breakpoints": [{"line": 2, "condition": "True"}]}),
        ("setExceptionBreakpoints", {"filters": ["uncaught"], "exceptionOptions": []}),
        ("configurationDone", {}),
    ]
    arguments = {"threadId": 1, "frameId": 1, "variablesReference": 1, "expression": "1", "levels": 1}
    asked += [(random_.choice(_COMMANDS), dict(arguments)) for _ in range(random_.randrange(4))]
    if random_.random() < 0.5:
        asked.append(("disconnect", {"terminateDebuggee": False}))
    return [
        {"seq": number, "type": "request", "command": command, "arguments": arguments_}
        for number, (command, arguments_) in enumerate(asked, 1)
    ]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a message with each of its keys."""
    keys: Any = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])


def _spoil(random_: random.Random, message: Message) -> None:
    """Swap a type, take a field away, or add one."""
    places = list(_places(message))
    if not places:
        return
    holder, key = random_.choice(places)
    fate = random_.random()
    if fate < 0.65:
        holder[key] = copy.deepcopy(random_.choice(_VALUES))
    elif fate < 0.9:
        del holder[key]
    elif isinstance(holder, dict):
        extra = random_.choice(
            ["processId", "subProcessId", "listen", "host", "port", "noDebug", "sudo", "restart", "x"]
        )
        holder[extra] = copy.deepcopy(random_.choice(_VALUES))


def _is_harmless(message: Message) -> bool:
    """Whether the program goes on after it: to end the program is what some requests are for."""
    text = json.dumps(message)
    return '"terminate"' not in text and '"terminateDebuggee": true' not in text.replace("1", "true")


def framed(message: Message) -> bytes:
    """A message as it goes over the wire."""
    body = json.dumps(message).encode()
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def _framed(random_: random.Random, message: Message) -> bytes:
    body = json.dumps(message).encode()
    fate = random_.random()
    length: object = len(body)
    if fate < 0.03:
        length = len(body) + random_.choice([-7, -1, 1, 9])
    elif fate < 0.04:
        length = random_.choice(["x", -5, "", 99999999999])
    elif fate < 0.05:
        body = body.replace(b'"', b"'", 1)
    elif fate < 0.06:
        body = b"\xff" + body[1:]
    elif fate < 0.07:
        body = b"[" * 2000 + b"]" * 2000
        length = len(body)
    return b"Content-Length: %s\r\n\r\n" % str(length).encode() + body


def session(random_: random.Random, file: str, without: str | None = None) -> list[bytes]:
    """One spoilt session, as the pieces in which it is sent.

    Args:
        random_: Where it comes from.
        file: A file of the program's.
        without: A request that is left out.
    """
    messages = _session(random_, file)
    for _ in range(random_.choice([0, 1, 1, 1, 2, 5])):
        _spoil(random_, random_.choice(messages))
    fate = random_.random()
    if fate < 0.1:
        random_.shuffle(messages)
    elif fate < 0.2:
        messages.insert(random_.randrange(len(messages)), copy.deepcopy(random_.choice(messages)))
    elif fate < 0.3:
        del messages[random_.randrange(len(messages))]
    sent = [one for one in messages if _is_harmless(one) and not (without and without in json.dumps(one))]
    pieces = [_framed(random_, message) for message in sent]
    if random_.random() < 0.3 and pieces:
        # Cut off.
        cut = random_.randrange(len(pieces))
        del pieces[cut + 1 :]
        pieces[cut] = pieces[cut][: random_.randrange(1, len(pieces[cut]) + 1)]
    return pieces


def play(random_: random.Random, address: tuple[str, int], file: str, without: str | None = None) -> None:
    """Send one session, or two at once, and go in one of the ways in which peers go."""
    sessions = [session(random_, file, without) for _ in range(random_.choice([1, 1, 1, 2]))]
    peers = [socket.create_connection(address, 10) for _ in sessions]
    try:
        queues = [(peer, piece) for peer, pieces in zip(peers, sessions, strict=True) for piece in pieces]
        if len(peers) > 1:
            random_.shuffle(queues)
        for peer, piece in queues:
            try:
                peer.sendall(piece)
                if random_.random() < 0.5:
                    # Sometimes it waits for an answer, at times for one that never comes.
                    peer.settimeout(random_.choice([0.01, 0.05, 0.15]))
                    peer.recv(65536)
            except OSError:
                pass
    finally:
        for peer in peers:
            if random_.random() < 0.3:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
