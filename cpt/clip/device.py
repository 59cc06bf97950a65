"""Device, precision, threads, determinism and peak memory of a job."""

from __future__ import annotations

import resource
import sys

import numpy as np
import torch

from cpt.errors import CptError, nearest
from cpt.files import provenance

DEVICES = ("auto", "cpu", "cuda", "mps")
SCALED = "float16_scaled"
"""float16 whose losses are scaled in training (``cpt.training.loss_scale``)."""
PRECISIONS = ("auto", "float32", "bfloat16", "float16", SCALED)
AMPERE = (8, 0)
"""Compute capability from which a card computes in bfloat16; older ones only pretend to."""


def automatic_precision(capability: tuple[int, int] | None, pretrained: str) -> str:
    """Return the precision of the frozen towers that ``auto`` stands for (docs/backbones.md has the reasons).

    Args:
        capability: compute capability of the GPU; None: a CPU.
        pretrained: as backbone.json says. ``openai`` are the weights that OpenAI's own code and the reference codes
            run in float16. Others may hold activations that float16 has no numbers for.
    """
    if capability is None:
        return "float32"
    if pretrained == "openai":
        return "float16"
    return "bfloat16" if capability >= AMPERE else SCALED


def prepare_device(device: str, precision: str, threads: int, pretrained: str = "") -> tuple[torch.device, str]:
    """Set threads and determinism; resolve ``auto``.

    On the CPU the same job gives the same bits with the same number of threads. On a GPU, operations without a
    deterministic version warn.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or, for Apple's GPUs, ``mps``, which ``auto`` never chooses.
        precision: of the frozen towers, or ``auto``.
        threads: of the CPU.
        pretrained: see ``automatic_precision``.

    Returns:
        The device and the precision of the frozen towers, any but ``auto``.

    Raises:
        CptError: unknown device or precision, a device that is not available, or half precision on ``mps``.
    """
    for option, value, known in (("device", device, DEVICES), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise CptError(f"{option}: unknown {value!r}; {nearest(value, known)}")
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms imports torch's compiler: seconds
    # otherwise torch writes every output twice, first with NaN
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if cuda and not torch.cuda.is_available():
        raise CptError("device: cuda asked for, but torch sees no GPU; use device: cpu or auto")
    if device == "mps":
        if not torch.backends.mps.is_available():
            raise CptError("device: mps asked for, but torch sees no Apple GPU; use device: cpu or auto")
        if precision not in ("auto", "float32"):
            raise CptError(f"precision: {precision} on device: mps; use precision: float32")
    if precision == "auto":
        precision = automatic_precision(torch.cuda.get_device_capability() if cuda else None, pretrained)
    place = torch.device("cuda" if cuda else "mps" if device == "mps" else "cpu")
    provenance.computing_on(device_name(place))
    return place, precision


class Staging:
    """Memory from which batches of one shape are uploaded, again and again.

    For a GPU it is pinned, so that copies are asynchronous.

    Args:
        shape: of the largest batch, uint8.
        device: where the batches go.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        cuda = device.type == "cuda"
        self._memory, self._device = torch.empty(shape, dtype=torch.uint8, pin_memory=cuda), device
        self._copied = torch.cuda.Event(blocking=True) if cuda else None
        self.array = self._memory.numpy()

    def wait(self) -> None:
        """Wait until the last upload is done: before that, nothing may be written into ``array``."""
        if self._copied is not None:
            self._copied.synchronize()

    def upload(self, count: int) -> torch.Tensor:
        """Return the first images of ``array`` on the device. On a CPU they are the same memory."""
        batch = self._memory[:count].to(self._device, non_blocking=True)
        if self._copied is not None:
            self._copied.record()
        return batch


def upload(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return an array as a tensor on a device; copies to a GPU are asynchronous."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: allocated on the GPU (``mps``: what is allocated now), or resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def device_name(device: torch.device) -> str:
    """Name of the device for records."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
