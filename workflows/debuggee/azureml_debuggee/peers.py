"""Whose process is at the other end of a connection from this machine: a debug port is for its owner only.

Linux tells it, by sock_diag (https://man7.org/linux/man-pages/man7/sock_diag.7.html) or, where that is
missing, by /proc/net/tcp (https://docs.kernel.org/networking/proc_net_tcp.html); other systems do not.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import Any, Optional, Tuple

#: Of a peer whose process has closed its end, or never had one here: no user's. What it has sent may be anybody's,
#: since the kernel may give a socket without a process to root.
NOBODY = -1

_TABLES = {socket.AF_INET: "/proc/net/tcp", socket.AF_INET6: "/proc/net/tcp6"}
#: Errors that say that the system has no such source, rather than that it cannot be read just now.
_NO_SOURCE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR)
#: NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, and the answer that is an error.
_FAMILY, _BY_FAMILY, _REQUEST, _ERROR = 4, 20, 1, 2
_HEAD, _QUESTION = struct.Struct("=IHHII"), struct.Struct("=BBBBI")
_ENDS, _WHERE, _ANSWER = struct.Struct("!HH16s16s"), struct.Struct("=III"), struct.Struct("=IIIII")
_TCP, _LISTENS, _TIME_WAIT = 6, 10, 6
#: Seconds that the kernel may take to answer.
_PATIENCE = 1.0

#: Whether sock_diag answers here; None before anybody has asked.
_diag_answers: Optional[bool] = None


def uid_of_peer(connection: socket.socket) -> Optional[int]:
    """The user id of the process at the other end of a TCP connection.

    Args:
        connection: A connected socket whose peer is on this machine, in the same network namespace.

    Returns:
        None where the system does not tell, or where the peer is on another machine. :data:`NOBODY` for a peer on
        a loopback address that has no process (any more).
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        peer, own = connection.getpeername()[:2], connection.getsockname()[:2]
    except OSError:
        return NOBODY  # it has gone
    try:
        found = _look_up(connection.family, peer, own)
    except OSError as error:
        # Without a descriptor left nobody is let in.
        return None if error.errno in _NO_SOURCE else NOBODY
    return NOBODY if found is None and _is_loopback(peer[0]) else found


def is_allowed(connection: socket.socket) -> bool:
    """Whether the peer of a connection to a listener on a loopback address may debug this user's programs.

    True for this process's own user and for root, and where the system does not tell whose the peer is.
    """
    uid = uid_of_peer(connection)
    return uid is None or uid == 0 or uid == os.geteuid()


def is_loopback(connection: socket.socket) -> bool:
    """Whether the peer of a connection is at a loopback address, hence on this machine; False where it has gone."""
    try:
        return _is_loopback(connection.getpeername()[0])
    except OSError:
        return False


def _is_loopback(address: str) -> bool:
    address = address[7:] if address.startswith("::ffff:") else address
    return address.startswith("127.") or address == "::1"


def _look_up(family: int, peer: Tuple[str, int], own: Tuple[str, int]) -> Optional[int]:
    """The user id of the socket that has these two ends, the peer's first; None where there is none."""
    global _diag_answers
    if _diag_answers is not False:
        try:
            found = _ask(family, peer, own)
            # Whoever finds nothing may have no such source: this end is there for certain.
            if found is None and _diag_answers is None and _ask(family, own, peer) is None:
                raise OSError(errno.ENOENT, "sock_diag answers nothing")
            _diag_answers = True
            return found
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                raise
            _diag_answers = False
    return _read_tables(family, peer, own)


def _ask(family: int, peer: Tuple[str, int], own: Tuple[str, int]) -> Optional[int]:
    """What sock_diag says: one socket is asked for, however many there are."""
    ends = _ENDS.pack(peer[1], own[1], _packed(family, peer[0]), _packed(family, own[0]))
    question = _QUESTION.pack(family, _TCP, 0, 0, 0xFFFFFFFF) + ends + _WHERE.pack(0, 0xFFFFFFFF, 0xFFFFFFFF)
    head = _HEAD.pack(_HEAD.size + len(question), _BY_FAMILY, _REQUEST, 1, 0)
    netlink: Any = getattr(socket, "AF_NETLINK", None)
    if netlink is None:
        raise OSError(errno.EPROTONOSUPPORT, "no netlink")
    with socket.socket(netlink, socket.SOCK_RAW, _FAMILY) as kernel:
        kernel.settimeout(_PATIENCE)
        kernel.sendto(head + question, (0, 0))
        answer = kernel.recv(4096)
    if len(answer) < _HEAD.size + 4:
        raise OSError(errno.EBADMSG, "no answer of sock_diag's")
    kind = _HEAD.unpack_from(answer)[1]
    if kind == _ERROR:
        code = -struct.unpack_from("=i", answer, _HEAD.size)[0]
        if code == errno.ENOENT:
            return None
        raise OSError(code, os.strerror(code))
    if kind != _BY_FAMILY or len(answer) < _HEAD.size + 4 + _ENDS.size + _WHERE.size + _ANSWER.size:
        raise OSError(errno.EBADMSG, "no answer of sock_diag's")
    state = answer[_HEAD.size + 1]
    ports = struct.unpack_from("!HH", answer, _HEAD.size + 4)
    uid, inode = _ANSWER.unpack_from(answer, _HEAD.size + 4 + _ENDS.size + _WHERE.size)[3:]
    # In place of a connection the kernel may find who listens on the peer's port.
    if state == _LISTENS or ports != (peer[1], own[1]):
        return None
    return uid if inode and state != _TIME_WAIT else NOBODY


def _packed(family: int, address: str) -> bytes:
    return socket.inet_pton(family, address.partition("%")[0]).ljust(16, b"\0")


def _read_tables(family: int, peer: Tuple[str, int], own: Tuple[str, int]) -> Optional[int]:
    """What /proc/net says, where an IPv4 peer may stand among those of IPv6."""
    wanted = {}
    for kind in _TABLES:
        ends = [(_as_kind(family, kind, address), port) for address, port in (peer, own)]
        if all(address is not None for address, _port in ends):
            wanted[kind] = " ".join("{}:{:04X}".format(_hex(address or b""), port) for address, port in ends)
    for kind, text in wanted.items():
        try:
            # Opened anew: it is another one after a change of the network namespace.
            with open(_TABLES[kind], encoding="ascii", errors="replace") as table:
                for line in table:
                    if text in line:
                        fields = line.split()
                        uid, inode, state = int(fields[7]), int(fields[9]), int(fields[3], 16)
                        return uid if inode and state != _TIME_WAIT else NOBODY
        except FileNotFoundError:
            if kind == socket.AF_INET:
                raise
    return None


def _as_kind(family: int, kind: int, address: str) -> Optional[bytes]:
    """An address in the bytes of one of the two tables; None where it cannot stand there."""
    packed = socket.inet_pton(family, address.partition("%")[0])
    mapped = b"\0" * 10 + b"\xff\xff"
    if kind == socket.AF_INET6:
        return packed if len(packed) == 16 else mapped + packed
    if len(packed) == 4:
        return packed
    return packed[12:] if packed.startswith(mapped) else None


def _hex(packed: bytes) -> str:
    """An address as /proc/net has it: words of four bytes, each read in this machine's order."""
    return "".join("{:08X}".format(word) for word in struct.unpack("={}I".format(len(packed) // 4), packed))
