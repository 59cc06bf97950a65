"""Signals that ask a training to stop: it saves its state after the current step and can be resumed.

Ctrl-C sends SIGINT, a lost terminal SIGHUP, schedulers and shutdowns SIGTERM; SLURM can send SIGUSR1 before a time
limit or a preemption. The handler only records the signal; the training checks ``received`` where stopping is safe.
"""

from __future__ import annotations

import signal

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: a temporary failure; the same command resumes."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)

_received: signal.Signals | None = None


class StoppedError(Exception):
    """Training stopped by a signal. The message is one line: the signal, the position, and whether the work is kept."""


def watch() -> None:
    """Record the signals from now on instead of terminating. Call it once per process, in the main thread.

    SIGHUP stays ignored under ``nohup``. SIGINT is recorded also where a script's shell ignores it for a process in the
    background: who sends it to this process means it.
    """
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _note)


def received() -> signal.Signals | None:
    """Return the last signal since ``watch`` that asked this process to stop; None if there was none."""
    return _received


def _note(number: int, _frame: object) -> None:
    global _received
    _received = signal.Signals(number)
