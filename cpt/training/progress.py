"""The epochs of a training while it runs, to be read by people and programs: JSON lines, and TensorBoard's event files.

Neither changes a result, nor is one: the finished run's epochs are in history.parquet.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cpt.errors import CptError
from cpt.files.atomic import atomic, remove_orphans

Row = Mapping[str, float]


class Progress:
    """Where the rows of finished epochs go while a run trains.

    Args:
        lines: file with a JSON object a line, beside the checkpoint; None for none. It is deleted when the run is done.
        events: folder for TensorBoard's event files, which stay; None for none.
        log: is told, once, if the lines cannot be written; training goes on.

    Raises:
        CptError: events are asked for, and the package tensorboard is absent.
    """

    def __init__(self, lines: Path | None, events: Path | None, log: Callable[[str], None] = print) -> None:
        self.lines, self.events, self.log = lines, events, log
        self._writer = None if events is None else _event_writer()
        self._open: Any = None

    def begin(self, rows: Sequence[Row]) -> None:
        """Write the rows that a training resumes with, instead of what an interrupted one has left."""
        if self.lines is not None:
            try:
                with atomic(self.lines) as temporary:
                    temporary.write_text("".join(map(_line, rows)), encoding="utf-8")
            except CptError as error:
                self._give_up(error)
        if self._writer is not None:
            self._open = self._writer(str(self.events), purge_step=len(rows) + 1)

    def add(self, row: Row) -> None:
        """Append the row of a finished epoch, as a whole line."""
        if self.lines is not None:
            try:
                with open(self.lines, "a", encoding="utf-8") as file:
                    file.write(_line(row))
            except OSError as error:
                self._give_up(f"{self.lines}: cannot be written ({error.strerror})")
        if self._open is not None:
            for name in row.keys() - {"epoch", "steps"}:
                self._open.add_scalar(name, row[name], int(row["epoch"]))
            self._open.flush()

    def end(self) -> None:
        """The run is done, and history.parquet holds the rows."""
        if self.lines is not None:
            with contextlib.suppress(OSError):
                self.lines.unlink()
            remove_orphans(self.lines)
        if self._open is not None:
            self._open.close()

    def _give_up(self, problem: object) -> None:
        self.log(f"the history of epochs is not written while training: {problem}")
        self.lines = None


def _line(row: Row) -> str:
    """A row as JSON, which has no NaN."""
    return json.dumps({name: value if math.isfinite(value) else None for name, value in row.items()}) + "\n"


def _event_writer() -> Callable[..., Any]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise CptError("--tensorboard: tensorboard is not installed; run `pip install tensorboard`") from None
    return SummaryWriter
