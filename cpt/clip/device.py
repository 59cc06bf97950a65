"""Device, precision, threads, determinism and peak memory of a job."""

from __future__ import annotations

import resource
import sys

import numpy as np
import torch

from cpt.errors import CptError, nearest
from cpt.files import provenance

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def prepare_device(device: str, precision: str, threads: int) -> tuple[torch.device, str]:
    """Set threads and determinism; resolve ``auto``.

    On the CPU the same job gives the same bits with the same number of threads. On a GPU, operations without a
    deterministic version warn.

    Returns:
        The device and the precision of the frozen towers (``float32``, ``bfloat16`` or ``float16``).

    Raises:
        CptError: unknown device or precision, or CUDA is requested but not available.
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
    if precision == "auto":
        precision = "bfloat16" if cuda and torch.cuda.is_bf16_supported() else "float32"
    place = torch.device("cuda" if cuda else "cpu")
    provenance.computing_on(device_name(place))
    return place, precision


def upload(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return an array as a tensor on a device; copies to a GPU are asynchronous."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: allocated on the GPU, or resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def device_name(device: torch.device) -> str:
    """Name of the device for records."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
