"""Finds the user of the process at the other end of a local connection: only its owner may use a debug port.

Linux has the information, in sock_diag (https://man7.org/linux/man-pages/man7/sock_diag.7.html) or, where that is
missing, in /proc/net/tcp (https://docs.kernel.org/networking/proc_net_tcp.html); other systems do not.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import Any, Optional, Tuple

#: The user id of a peer whose process has closed its end, or never had one here. Any user may have sent its data,
#: since the kernel may report root for a socket without a process.
NOBODY = -1

_TABLES = {socket.AF_INET: "/proc/net/tcp", socket.AF_INET6: "/proc/net/tcp6"}
#: Errors that mean that the system has no such source, rather than that it cannot be read just now.
_NO_SOURCE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR)
#: NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, and the answer that is an error.
_FAMILY, _BY_FAMILY, _REQUEST, _ERROR = 4, 20, 1, 2
_HEAD, _QUESTION = struct.Struct("=IHHII"), struct.Struct("=BBBBI")
_ENDS, _WHERE, _ANSWER = struct.Struct("!HH16s16s"), struct.Struct("=III"), struct.Struct("=IIIII")
_TCP, _LISTENS, _TIME_WAIT = 6, 10, 6
#: Seconds that the kernel may take to answer.
_ANSWER_SECONDS = 1.0

#: Whether sock_diag answers here; None before the first query.
_diag_answers: Optional[bool] = None


def uid_of_peer(connection: socket.socket) -> Optional[int]:
    """The user id of the process at the other end of a TCP connection.

    Args:
        connection: A connected socket whose peer is on this machine, in the same network namespace.

    Returns:
        None if the system does not tell, or if the peer is on another machine. :data:`NOBODY` for a peer on
        a loopback address that has no process (any more).
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        peer, own = connection.getpeername()[:2], connection.getsockname()[:2]
    except OSError:
        return NOBODY  # It has closed.
    try:
        found = _look_up(connection.family, peer, own)
    except OSError as error:
        # If no descriptor is left, no peer is admitted.
        return None if error.errno in _NO_SOURCE else NOBODY
    return NOBODY if found is None and _is_loopback(peer[0]) else found


def is_allowed(connection: socket.socket) -> bool:
    """Whether the peer of a connection to a listener on a loopback address may debug this user's programs.

    True for this process's own user and for root, and if the system does not tell the peer's user.
    """
    uid = uid_of_peer(connection)
    return uid is None or uid == 0 or uid == os.geteuid()


def is_loopback(connection: socket.socket) -> bool:
    """Whether the peer of a connection is at a loopback address, hence on this machine; False if it has closed."""
    try:
        return _is_loopback(connection.getpeername()[0])
    except OSError:
        return False


def _is_loopback(address: str) -> bool:
    address = address[7:] if address.startswith("::ffff:") else address
    return address.startswith("127.") or address == "::1"


def _look_up(family: int, peer: Tuple[str, int], own: Tuple[str, int]) -> Optional[int]:
    """The user id of the socket with these two ends, the peer's first; None if there is no such socket."""
    global _diag_answers
    if _diag_answers is not False:
        try:
            found = _query_sock_diag(family, peer, own)
            # An empty result may mean that sock_diag does not work here: our own end certainly exists.
            if found is None and _diag_answers is None and _query_sock_diag(family, own, peer) is None:
                raise OSError(errno.ENOENT, "sock_diag answers nothing")
            _diag_answers = True
            return found
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                raise
            _diag_answers = False
    return _read_tables(family, peer, own)


def _query_sock_diag(family: int, peer: Tuple[str, int], own: Tuple[str, int]) -> Optional[int]:
    """Query sock_diag for one socket, which takes the same time however many there are."""
    ends = _ENDS.pack(peer[1], own[1], _packed(family, peer[0]), _packed(family, own[0]))
    question = _QUESTION.pack(family, _TCP, 0, 0, 0xFFFFFFFF) + ends + _WHERE.pack(0, 0xFFFFFFFF, 0xFFFFFFFF)
    head = _HEAD.pack(_HEAD.size + len(question), _BY_FAMILY, _REQUEST, 1, 0)
    netlink: Any = getattr(socket, "AF_NETLINK", None)
    if netlink is None:
        raise OSError(errno.EPROTONOSUPPORT, "no netlink")
    with socket.socket(netlink, socket.SOCK_RAW, _FAMILY) as kernel:
        kernel.settimeout(_ANSWER_SECONDS)
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
    # Instead of a connection the kernel may return the listener on the peer's port.
    if state == _LISTENS or ports != (peer[1], own[1]):
        return None
    return uid if inode and state != _TIME_WAIT else NOBODY


def _packed(family: int, address: str) -> bytes:
    return socket.inet_pton(family, address.partition("%")[0]).ljust(16, b"\0")


def _read_tables(family: int, peer: Tuple[str, int], own: Tuple[str, int]) -> Optional[int]:
    """Look in /proc/net, where an IPv4 peer may be listed in the table of IPv6."""
    wanted = {}
    for kind in _TABLES:
        ends = [(_as_kind(family, kind, address), port) for address, port in (peer, own)]
        if all(address is not None for address, _port in ends):
            wanted[kind] = " ".join("{}:{:04X}".format(_hex(address or b""), port) for address, port in ends)
    for kind, text in wanted.items():
        try:
            # Opened every time, since it is another file after a change of the network namespace.
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
    """An address in the bytes of one of the two tables; None if the table cannot contain it."""
    packed = socket.inet_pton(family, address.partition("%")[0])
    mapped = b"\0" * 10 + b"\xff\xff"
    if kind == socket.AF_INET6:
        return packed if len(packed) == 16 else mapped + packed
    if len(packed) == 4:
        return packed
    return packed[12:] if packed.startswith(mapped) else None


def _hex(packed: bytes) -> str:
    """An address as /proc/net shows it: words of four bytes, each in this machine's byte order."""
    return "".join("{:08X}".format(word) for word in struct.unpack("={}I".format(len(packed) // 4), packed))
