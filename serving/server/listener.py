"""The listening socket, which all workers share: bound once, and closed so that nobody who was let in is lost."""

from __future__ import annotations

import ctypes
import socket
import struct
from pathlib import Path

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER, which Python's socket module does not name
# classic BPF on the TCP header: drop what asks for a connection (SYN without ACK), take everything else
_NO_SYN = (
    (0x30, 0, 0, 13),  # the byte of flags
    (0x54, 0, 0, 0x12),  # SYN and ACK of it
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # take
)


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address; connections are accepted once it listens.

    Raises OSError when the address is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"{place(host, port)}: no such address: {error}") from None
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise OSError(f"{place(host, port)}: cannot listen here: {error.strerror}") from None
    return bound


def bind_private(path: Path) -> socket.socket:
    """A socket that listens in a folder that only this user can enter; OSError where the path is too long for one."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
    except OSError as error:
        bound.close()
        raise OSError(f"{path}: cannot listen here: {error}; a shorter TMPDIR may help") from None
    bound.listen(128)
    return bound


def listen(bound: socket.socket, backlog: int) -> None:
    """Let connections come; OSError when another has listened here since the socket was bound."""
    try:
        bound.listen(backlog)
    except OSError as error:
        host, port, *_ = bound.getsockname()
        raise OSError(f"{place(host, port)}: cannot listen here: {error.strerror}") from None


def place(host: str, port: int) -> str:
    """A host and a port as addresses have them.

    >>> place("::1", 8000)
    '[::1]:8000'
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def refuse_new(listening: socket.socket) -> bool:
    """Let no new connection begin; those that have begun are completed and can be accepted. False where it cannot be.

    Closing a socket resets the connections that wait to be accepted. Without new ones they can all be accepted first.
    """
    program = b"".join(struct.pack("=HBBI", *line) for line in _NO_SYN)
    held = ctypes.create_string_buffer(program, len(program))
    try:
        listening.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), ctypes.addressof(held)))
    except OSError:
        return False
    return True
