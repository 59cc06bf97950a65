"""The client of the fork server. It imports as little as possible, because every small job starts with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys

HEADER = 8
"""Bytes of every length, process id and exit code in the protocol."""

PATIENCE = 10.0
"""Seconds to wait for a server to start the job; a stopped server never does."""


def call(address: str, arguments: list[str]) -> int | None:
    """Run a command in a fork of the server and return its exit code; None if no server accepts it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        try:
            request = json.dumps(_myself(arguments)).encode()
            connection.connect(address)
            if not same_user(connection):
                return None
            connection.sendall(len(request).to_bytes(HEADER, "big"))
            socket.send_fds(connection, [b"f"], [0, 1, 2])
            connection.sendall(request)
            started = receive(connection, HEADER)
            if started is None:  # no server, or none that accepts the job
                return None
            connection.sendall(b"!")  # the job begins only now, so it never runs twice
        except OSError:
            return None
        connection.settimeout(None)
        forwarded = _forward_signals(int.from_bytes(started, "big"))
        code = receive(connection, HEADER)
    if code is None and forwarded:
        print(f"cpt: {forwarded[-1].name}: ended", file=sys.stderr)
        return 128 + forwarded[-1]
    if code is None:
        print("cpt: the job's process died (killed, or out of memory)", file=sys.stderr)
        return 137
    return int.from_bytes(code, "big")


def _forward_signals(child: int) -> list[signal.Signals]:
    """Pass signals on to the job's process; return those so far. ``nohup`` goes for the job, too."""
    forwarded: list[signal.Signals] = []

    def forward(number: int, _frame: object) -> None:
        forwarded.append(signal.Signals(number))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, forward)
    return forwarded


def _myself(arguments: list[str]) -> dict[str, object]:
    """State of this process that the job's process takes over.

    Raises:
        OSError: the working folder is gone.
    """
    umask = os.umask(0)
    os.umask(umask)
    return {
        "argv": arguments,
        "cwd": os.getcwd(),
        "env": dict(os.environ),
        "umask": umask,
        "encoding": getattr(sys.stdout, "encoding", "utf-8"),
        "installation": installation(),
    }


def installation() -> list[str]:
    """Environment and folder of this code; a server of another installation would run different code."""
    return [sys.prefix, os.path.dirname(os.path.dirname(os.path.realpath(__file__)))]


def same_user(connection: socket.socket) -> bool:
    """Whether the process at the other end is this user's. Only Linux can tell; elsewhere the folder must ensure it."""
    if sys.platform != "linux":
        return True
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", credentials)[1] == os.geteuid()


def receive(connection: socket.socket, size: int) -> bytes | None:
    """Read exactly ``size`` bytes; None if the other side is gone or does not answer in time."""
    data = b""
    while len(data) < size:
        try:
            part = connection.recv(size - len(data))
        except OSError:
            return None
        if not part:
            return None
        data += part
    return data
