"""The client of the fork server (``cpt.worker``): as light as it can be, because every small job starts with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys

HEADER = 8
"""Bytes of every length, process number and exit code on the wire."""


def call(address: str, arguments: list[str]) -> int | None:
    """Run a command in a fork of the server and return its exit code; None when no server takes it."""
    connection = socket.socket(socket.AF_UNIX)
    request = json.dumps({"argv": arguments, "cwd": os.getcwd(), "env": dict(os.environ)}).encode()
    try:
        connection.connect(address)
        connection.sendall(len(request).to_bytes(HEADER, "big"))
        socket.send_fds(connection, [b"f"], [0, 1, 2])
        connection.sendall(request)
    except OSError:
        return None
    started = receive(connection, HEADER)
    if started is None:  # the server died before it took the job
        return None
    child = int.from_bytes(started, "big")

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, forward)
    code = receive(connection, HEADER)
    if code is None:
        print("cpt: the job's process died (killed, or out of memory)", file=sys.stderr)
        return 137
    return int.from_bytes(code, "big")


def receive(connection: socket.socket, size: int) -> bytes | None:
    """Read exactly ``size`` bytes, or None when the other side is gone."""
    data = b""
    while len(data) < size:
        try:
            part = connection.recv(size - len(data))
        except (ConnectionError, InterruptedError):
            return None
        if not part:
            return None
        data += part
    return data
