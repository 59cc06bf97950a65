"""The checkpoint of an unfinished training, with everything that a resumed training needs to give the same bytes.

``cpt.training.loop`` fills it (``_checkpoint``) and takes it back (``_resume``); ``cpt.training.train`` makes its key;
``cpt.training.interruption`` hears the signals.

It is not a declared output, because Snakemake deletes the outputs of an interrupted job. Its key is a hash of
everything that the run depends on, so a changed configuration never resumes an old state. It starts with the SHA-256 of
the rest, so a damaged one is never resumed either. It holds no random streams, because every stream is a function of
(seed, name, epoch).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpt.errors import CptError
from cpt.files.atomic import atomic, remove_orphans
from cpt.files.hashes import read_bytes
from cpt.training import interruption

_DIGEST = hashlib.sha256().digest_size


@dataclass
class Checkpoint:
    """Everything that a training needs to resume, as plain values and tensors.

    Attributes:
        parameters, method, optimizer: learned tensors, and further state of the method and of the optimizer.
        passes: numbers of texts and images encoded so far.
        epoch, step: of the next step, from 0.
        history: rows of the finished epochs.
        snapshots: learned tensors after each epoch, where they are kept.
        sums: sums over the steps of the epoch so far.
        class_means: sums and counts of the epoch's image features.
        seconds: training time so far.
    """

    parameters: dict[str, Tensor]
    method: dict[str, Tensor]
    optimizer: dict[str, Any]
    passes: dict[str, int]
    epoch: int
    step: int
    history: list[dict[str, float]]
    snapshots: dict[int, dict[str, Tensor]]
    sums: dict[str, Tensor]
    class_means: dict[str, Tensor]
    seconds: float


class CheckpointFile:
    """The checkpoint file of one run.

    Args:
        path: the file; None disables saving.
        key: hash of everything that the run depends on.
        interval: seconds between saves.
    """

    def __init__(self, path: Path | None, key: str, interval: float) -> None:
        self.path, self.key, self.interval = path, key, interval
        self._saved = time.monotonic()

    def load(self, log: Callable[[str], None] = print) -> dict[str, Any] | None:
        """Return the saved values, or None if there are none for this key.

        If the file is damaged or of another version of the run, the saved work is lost and training starts over.

        Raises:
            CptError: something else than a file is there.
        """
        if self.path is None or not self.path.exists():
            return None
        if not self.path.is_file():
            raise CptError(f"{self.path}: is no regular file; give the path of a file")
        try:
            content = read_bytes(self.path)
        except OSError as error:
            log(f"{self.path}: cannot be read ({error.strerror}); training starts over")
            return None
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            log(f"{self.path}: damaged; training starts over")
            return None
        values = torch.load(io.BytesIO(content[_DIGEST:]), weights_only=True)
        if values.pop("key") != self.key:
            log(f"{self.path}: of another configuration, split, input or code; training starts over")
            return None
        return values

    def due(self) -> bool:
        """Whether the interval has passed since the last save, or a signal has asked to stop."""
        passed = time.monotonic() - self._saved >= self.interval
        return self.path is not None and (passed or interruption.received() is not None)

    def save(self, **values: Any) -> None:
        """Write tensors, numbers and lists of them.

        Raises:
            CptError: the file cannot be written.
        """
        assert self.path is not None
        buffer = io.BytesIO()
        torch.save({"key": self.key, **values}, buffer)
        # a view that an error left open would crash Python 3.12 at its end
        with buffer.getbuffer() as content, atomic(self.path) as temporary, open(temporary, "wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Delete the file of a finished run, and any temporary file that a killed save has left."""
        if self.path is not None:
            with contextlib.suppress(OSError):  # it could not be written either
                self.path.unlink()
            remove_orphans(self.path)
