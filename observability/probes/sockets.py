"""Listening sockets and what waits at them, asked of the kernel from outside the server.

The kernel answers over netlink for all sockets of the network namespace at once (sock_diag(7)), whoever owns them:
TCP and Unix sockets alike, with the limit of the backlog. Where that is refused, /proc/net/tcp tells of TCP without the
limit. Of the sockets found, those are the server's whose inode is among the master's descriptors.
"""

import os
import re
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from observability.probes.process import content

NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP, linux/netlink.h
_DONE, _ERROR = 3, 2
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_LISTEN = 10  # TCP_LISTEN, net/tcp_states.h; Unix sockets use the same number
# struct inet_diag_req_v2, linux/inet_diag.h: family, protocol, extensions, padding, states, and a socket's id, unused
_INET_REQUEST = struct.Struct("=BBBxI48x")
# struct inet_diag_msg: family, state, timer, retransmits, source port, destination port, source, destination,
# interface, cookie, expires, rqueue, wqueue, uid, inode. Of a listener, rqueue is what waits and wqueue the limit.
_INET_MESSAGE = struct.Struct("=BBBB2s2s16s16sI8sIIIII")
_SKMEMINFO = 7  # INET_DIAG_SKMEMINFO: u32 each, linux/sock_diag.h
_DROPS_AT = 8  # SK_MEMINFO_DROPS; of a listener, connections that were dropped (tcp_listendrop, net/tcp.h)
# struct unix_diag_req, linux/unix_diag.h: family, protocol, padding, states, inode, what to show, cookie
_UNIX_REQUEST = struct.Struct("=BBHIII8x")
_UNIX_MESSAGE = struct.Struct("=BBBBI8s")  # struct unix_diag_msg: family, type, state, padding, inode, cookie
_SHOW_NAME, _SHOW_RQLEN = 0x1, 0x10
_UNIX_NAME, _UNIX_RQLEN = 0, 4
_QUEUE = struct.Struct("=II")  # struct unix_diag_rqlen: of a listener, what waits, and the limit
_TIMEOUT_SECONDS = 1.0
_SOCKET = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True)
class Listener:
    """One listening socket.

    Args:
        address: as gunicorn has it: HOST:PORT, [HOST]:PORT, or unix:PATH.
        kind: tcp, tcp6, or unix.
        backlog: connections that wait to be accepted.
        limit: how many may.
        drops: connections that were dropped here.
    """

    inode: int
    address: str
    kind: str
    backlog: int
    limit: int | None = None
    drops: int | None = None


def listeners(inodes: Collection[int]) -> list[Listener]:
    """Return the listening sockets with these inodes."""
    return [each for each in _all() if each.inode in inodes] if inodes else []


def inodes_of(pid: int) -> set[int]:
    """Return the inodes of a process's sockets; empty where they may not be seen."""
    try:
        found = {inode_of(pid, each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return set()
    return {inode for inode in found if inode is not None}


def inode_of(pid: int, fd: int | str) -> int | None:
    """Return the inode of a process's descriptor where it is a socket."""
    try:
        match = _SOCKET.fullmatch(str(Path(f"/proc/{pid}/fd/{fd}").readlink()))
    except OSError:
        return None
    return int(match[1]) if match else None


def overflows() -> int | None:
    """Return how often a full backlog refused a connection, in the whole network namespace."""
    try:
        lines = content("/proc/net/netstat").splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            if names.startswith(b"TcpExt:"):
                return int(dict(zip(names.split(), values.split(), strict=True))[b"ListenOverflows"])
    except (OSError, ValueError, KeyError):
        pass
    return None


def _all() -> Iterator[Listener]:
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
            netlink.settimeout(_TIMEOUT_SECONDS)
            found = [*_inet(netlink, socket.AF_INET), *_inet(netlink, socket.AF_INET6), *_unix(netlink)]
    except (OSError, struct.error):
        found = [*_proc("tcp"), *_proc("tcp6")]
    yield from found


def _dump(netlink: socket.socket, request: bytes) -> Iterator[bytes]:
    """Ask for a dump, and yield the body of each message.

    Raises:
        OSError: the kernel refuses, or does not answer.
    """
    netlink.send(_HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + request)
    while True:
        data = netlink.recv(256 * 1024)
        at = 0
        while at < len(data):
            length, kind, *_ = _HEADER.unpack_from(data, at)
            if kind == _DONE:
                return
            if kind == _ERROR or length < _HEADER.size:
                raise OSError("sock_diag refused")
            yield data[at + _HEADER.size : at + length]
            at += -(-length // 4) * 4


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = data[at + _ATTRIBUTE.size : at + length]
        at += -(-length // 4) * 4
    return found


def _inet(netlink: socket.socket, family: int) -> Iterator[Listener]:
    wanted = 1 << (_SKMEMINFO - 1)
    for body in _dump(netlink, _INET_REQUEST.pack(family, socket.IPPROTO_TCP, wanted, 1 << _LISTEN)):
        message = _INET_MESSAGE.unpack_from(body)
        memory = _attributes(body[_INET_MESSAGE.size :]).get(_SKMEMINFO, b"")
        drops = struct.unpack_from("=I", memory, _DROPS_AT * 4)[0] if len(memory) >= (_DROPS_AT + 1) * 4 else None
        host = socket.inet_ntop(family, message[6][: 4 if family == socket.AF_INET else 16])
        address = _address(host, int.from_bytes(message[4], "big"))
        yield Listener(message[14], address, _kind(family), backlog=message[11], limit=message[12], drops=drops)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _kind(family: int) -> str:
    return "tcp6" if family == socket.AF_INET6 else "tcp"


def _unix(netlink: socket.socket) -> Iterator[Listener]:
    request = _UNIX_REQUEST.pack(socket.AF_UNIX, 0, 0, 1 << _LISTEN, 0, _SHOW_NAME | _SHOW_RQLEN)
    for body in _dump(netlink, request):
        inode = _UNIX_MESSAGE.unpack_from(body)[4]
        found = _attributes(body[_UNIX_MESSAGE.size :])
        path = os.fsdecode(found.get(_UNIX_NAME, b"").rstrip(b"\0").replace(b"\0", b"@", 1))
        queue = found.get(_UNIX_RQLEN, b"")
        if len(queue) == _QUEUE.size:
            yield Listener(inode, f"unix:{path}", "unix", *_QUEUE.unpack(queue))


def _proc(table: str) -> Iterator[Listener]:
    """Read a table of /proc/net: each host is written as 32-bit words in the machine's byte order (proc(5))."""
    try:
        lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    except OSError:
        return
    for fields in map(str.split, lines):
        if fields[3] == f"{_LISTEN:02X}":
            words, _, port = fields[1].partition(":")
            raw = b"".join(int(words[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(words), 8))
            host = socket.inet_ntop(socket.AF_INET6 if table == "tcp6" else socket.AF_INET, raw)
            waiting = int(fields[4].partition(":")[2], 16)
            yield Listener(int(fields[9]), _address(host, int(port, 16)), table, waiting)
