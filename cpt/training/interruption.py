"""Signals that ask a training to stop: it saves its state after the current step and is continued another time.

SIGTERM is what schedulers and a shutdown send, SIGUSR1 what SLURM can send before a time limit or a preemption. The
handler only notes the signal; who can stop looks at ``received`` where stopping is safe.
"""

from __future__ import annotations

import signal

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command resumes."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_received: signal.Signals | None = None


class StoppedError(Exception):
    """Stopped because a signal asked for it; the message is one line: which, where, and whether the work is kept."""


def watch() -> None:
    """From now on note the signals instead of dying of them. Call it in the main thread, once per process."""
    for number in SIGNALS:
        signal.signal(number, _note)


def received() -> signal.Signals | None:
    """Return the last signal that asked this process to stop, None if there was none since ``watch``."""
    return _received


def _note(number: int, _frame: object) -> None:
    global _received
    _received = signal.Signals(number)
