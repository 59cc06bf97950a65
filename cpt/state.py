"""The state of an unfinished training: enough to go on and give the same bytes.

It lies outside declared outputs, because Snakemake deletes those of an interrupted job. It is keyed by everything
that the run depends on, so that a changed configuration never resumes an old state. Random streams need no place in
it: every stream is a function of (seed, name, epoch).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from cpt.files import atomic


class StateFile:
    """Saved state of one run.

    Args:
        path: where it lies; None disables saving.
        key: hash of all that the run depends on.
        interval: seconds between saves.
    """

    def __init__(self, path: Path | None, key: str, interval: float) -> None:
        self.path, self.key, self.interval = path, key, interval
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the saved values, or None when there are none for this key.

        A file that cannot be read (cut off, or of another version of the run) costs the saved work, never the run.
        """
        if self.path is None or not self.path.is_file():
            return None
        try:
            values = torch.load(self.path, weights_only=True)
        except Exception:  # torch raises many kinds for a damaged file; starting over is right for all
            return None
        return values if isinstance(values, dict) and values.get("key") == self.key else None

    def due(self) -> bool:
        """Whether the interval has passed since the last save."""
        return self.path is not None and time.monotonic() - self._saved >= self.interval

    def save(self, **values: Any) -> None:
        """Write tensors, numbers and lists of them."""
        assert self.path is not None
        with atomic(self.path) as temporary, open(temporary, "wb") as file:  # torch refuses some names, not files
            torch.save({"key": self.key, **values}, file)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Delete the file, and what a save that was killed has left beside it: the run is finished."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            for unfinished in self.path.parent.glob(f".{self.path.stem}-*{self.path.suffix}"):
                unfinished.unlink(missing_ok=True)
