"""Check and measure training and prediction on a GPU: ``python -m benchmarks.gpu --out gpu.json``.

It needs torch and the package's few other libraries, no data and no weights. Every row is in the file as soon as it is
measured; a part that fails leaves a row that says why, and the others go on. Parts:

machine      versions, matrix products, the price of a launch
numerics     losses and gradients of every method against the CPU in float32
waits        a step may not wait for the device
attention    one class alone or groups behind a mask, by kernel
steps        every method's step: eager, as a CUDA graph, and IVLP as the reference codes compute it
evaluation   images a second through the prompted vision tower
processes    several trainings at once, without and with NVIDIA's multi-process service
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.loops import TRAINED, Steps
from benchmarks.problem import make_problem
from benchmarks.steps import NaiveStep
from cpt.clip.backbone import Clip
from cpt.clip.device import prepare_device, upload
from cpt.data.images import normalize
from cpt.features.text import Classes
from cpt.files.provenance import commit
from cpt.files.stage_files import write_text
from cpt.methods.base.sizes import placeholder_classes, small_clip
from cpt.training.graphs import CudaRecorder

BATCH = 4
CLASSES = (24, 100, 500, 1000)
AT_EVERY_SIZE = ("ivlp", "cpt", "promptsrc", "dekg_tcp", "lamp")
"""Methods that are measured at every number of classes; the others at the smallest."""
SECONDS = 6.0
"""How long each of several processes trains."""
KERNELS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")
LINEAR = ((820, 768, 2304), (820, 768, 3072), (820, 3072, 768), (505, 512, 2048), (2505, 512, 2048), (5005, 512, 2048))
"""Rows, inputs and outputs of the towers' linear layers: 4 images, and 100, 500 and 1000 classes."""
ATTENTION = {
    "1000 classes of 17": ((1000, 8, 17), False),
    "41 groups of 128": ((41, 8, 128), True),
    "4 images of 205": ((4, 12, 205), False),
}
"""Problems, heads and positions; whether behind a mask."""


@dataclass
class Check:
    """Where rows go, and what is measured on.

    Attributes:
        device: ``cuda``, or ``cpu`` to check that the parts work.
        quick: small sizes.
        out: JSON file of all rows.
    """

    device: torch.device
    quick: bool
    out: Path

    def __post_init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device.type == "cuda"

    def row(self, part: str, what: str, **values: Any) -> None:
        """Print a row and write all rows so far."""
        self.rows.append({"part": part, "what": what, **values})
        print(json.dumps(self.rows[-1]), flush=True)
        write_text(self.out, json.dumps(self.rows, indent=1) + "\n")

    @contextmanager
    def tried(self, part: str, what: str, **values: Any) -> Iterator[None]:
        """A block whose failure is a row."""
        try:
            yield
        except Exception as error:  # the other rows are worth having
            traceback.print_exc()
            self.row(part, what, **values, error=str(error).splitlines()[0][:200] if str(error) else repr(error))

    def wait(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], Any], repeats: int = 20, warm_up: int = 5) -> float:
        """Median seconds of a call, by the device's own clock where it has one."""
        repeats, warm_up = (repeats, warm_up) if self.cuda else (2, 1)
        for _ in range(warm_up):
            call()
        self.wait()
        found = []
        for _ in range(repeats):
            if self.cuda:
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                call()
                end.record()
                end.synchronize()
                found.append(begin.elapsed_time(end) / 1000)
            else:
                began = time.perf_counter()
                call()
                found.append(time.perf_counter() - began)
        return statistics.median(found)

    def clip(self, dtype: torch.dtype, device: torch.device | None = None, *, small: bool = False) -> Clip:
        """Towers of random weights: ViT-B/16, or with ``small`` or ``--quick`` the small CLIP of twelve blocks."""
        place = device or self.device
        if not (small or self.quick):
            return make_problem(quick=False, device=str(place), dtype=dtype).clip
        made = small_clip()
        return replace(made, text=made.text.to(place, dtype), vision=made.vision.to(place, dtype), device=place)

    def steps(self, name: str, clip: Clip, count: int, *, graph: bool = False, size: int = BATCH) -> Steps:
        """A method's loop; ``graph``: its steps are captured."""
        record = CudaRecorder() if graph else None
        return Steps(name, clip, on(clip, count), size, record, lambda line: print(line, flush=True))


def on(clip: Clip, count: int) -> Classes:
    """Classes of random names and features for a CLIP, two tokens a name."""
    return placeholder_classes(clip, count, 2)


def machine(check: Check) -> None:
    """Versions, matrix products, and the price of a launch."""
    versions: dict[str, Any] = {"torch": torch.__version__, "python": sys.version.split()[0], **commit()}
    if check.cuda:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
        versions |= {"gpu": torch.cuda.get_device_name(), "driver": driver, "cuda": torch.version.cuda}
    check.row("machine", "versions", **versions)
    side = 256 if check.quick else 8192
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        square = torch.randn(side, side, device=check.device, dtype=dtype)
        took = check.seconds(lambda: square @ square, 10)  # noqa: B023 - called at once
        check.row("machine", f"matrix product {dtype}", tflops=2 * side**3 / took / 1e12)
    for rows, inputs, outputs in LINEAR[: 1 if check.quick else None]:
        x, weight = (torch.randn(n, inputs, device=check.device, dtype=torch.bfloat16) for n in (rows, outputs))
        took = check.seconds(lambda: F.linear(x, weight))  # noqa: B023
        check.row("machine", f"linear {rows} x {inputs} x {outputs}", us=1e6 * took)
    tiny = torch.zeros(64, device=check.device)

    def thousand() -> None:
        for _ in range(1000):
            tiny.add_(1)

    check.row("machine", "launch, eager", us=1e3 * check.seconds(thousand, 10))
    if check.cuda:
        replay = CudaRecorder()(thousand)
        check.row("machine", "launch, in a graph", us=1e3 * check.seconds(replay))


def numerics(check: Check) -> None:
    """Losses and gradients on the device against the CPU in float32: the same weights, images and choices."""
    cpu = torch.device("cpu")
    places = [(check.device, torch.float32), (check.device, torch.bfloat16), (check.device, torch.float16)]
    for name in _methods(check):
        loss, gradient = _one_gradient(check, name, cpu, torch.float32)
        for device, dtype in places:
            with check.tried("numerics", name, dtype=str(dtype)):
                ours, own = _one_gradient(check, name, device, dtype)
                error = float((own - gradient).norm() / gradient.norm())
                check.row("numerics", name, dtype=str(dtype), loss=abs(ours / loss - 1), gradient=error)


def _methods(check: Check) -> list[str]:
    return ["coop", "cpt", "dpc"] if check.quick else TRAINED


def _one_gradient(check: Check, name: str, device: torch.device, dtype: torch.dtype) -> tuple[float, Tensor]:
    steps = check.steps(name, check.clip(dtype, device, small=True), 24)
    method = steps.loop.method
    loss = method.total(method.step(steps.draw(steps.batch(0)), steps.loop.training_set).losses)
    loss.backward()
    gradients = [p.grad.flatten().float().cpu() for p in method.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(gradients)


def waits(check: Check) -> None:
    """The device's part of a step, with every synchronization an error. What the host decides before is not in it."""
    if not check.cuda:
        return
    clip = check.clip(torch.bfloat16, small=True)
    for name in TRAINED:
        with check.tried("waits", name):
            steps = check.steps(name, clip, 24)
            for number in range(2):
                steps.loop.step(steps.batch(number))
            drawn = steps.draw(steps.batch(2))
            check.wait()
            torch.cuda.set_sync_debug_mode("error")
            try:
                steps.loop._step(drawn)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            check.row("waits", name, waits=0)


def attention(check: Check) -> None:
    """Forward and backward of the attention: a class alone, or groups behind a mask."""
    for what, ((count, heads, length), masked) in ATTENTION.items():
        count = 2 if check.quick else count
        qkv = torch.randn(count, length, 3, heads, 64, device=check.device, dtype=torch.bfloat16, requires_grad=True)
        later = torch.full((length, length), -torch.inf, device=check.device, dtype=torch.bfloat16).triu(1)
        mask = later.expand(count, 1, -1, -1) if masked else None

        def both(qkv: Tensor = qkv, mask: Tensor | None = mask) -> None:
            q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask).sum().backward()

        check.row("attention", what, kernel="chosen", us=1e6 * check.seconds(both, 10))
        for kernel in KERNELS if check.cuda else ():
            if masked and kernel == "FLASH_ATTENTION":  # takes no mask
                continue
            with check.tried("attention", what, kernel=kernel), sdpa_kernel(getattr(SDPBackend, kernel)):
                check.row("attention", what, kernel=kernel, us=1e6 * check.seconds(both, 10))


def steps(check: Check) -> None:
    """Every method's step: eager, as a graph, and IVLP as the reference codes compute it."""
    sizes = CLASSES[:1] if check.quick else CLASSES
    for count in sizes:
        clip = check.clip(torch.bfloat16)
        for name in _methods(check) if count == sizes[0] else AT_EVERY_SIZE:
            for how in ("eager", "graph") if check.cuda else ("eager",):
                with check.tried("steps", name, classes=count, how=how):
                    _one_step(check, clip, name, count, how)
        with check.tried("steps", "ivlp", classes=count, how="naive"):
            _naive_step(check, count)


def _one_step(check: Check, clip: Clip, name: str, count: int, how: str) -> None:
    _forget(check)
    made = check.steps(name, clip, count, graph=how == "graph")
    batch = made.batch(0)  # DPC draws anew in every step
    took = check.seconds(lambda: made.loop.step(batch), 30, 8)
    values: dict[str, Any] = {"ms": 1e3 * took}
    if check.cuda:
        values["memory_mb"] = torch.cuda.max_memory_reserved() / 2**20  # a graph's memory stays reserved
    if check.cuda and how == "eager":
        activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities) as profile:
            made.loop.step(batch)
            check.wait()
        kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        values |= {"kernels": len(kernels), "device_ms": sum(e.time_range.elapsed_us() for e in kernels) / 1000}
    if how == "graph":
        values["graphs"] = made.loop.cuda_graphs
    check.row("steps", name, classes=count, how=how, **values)


def _naive_step(check: Check, count: int) -> None:
    _forget(check)
    dtype = torch.bfloat16 if check.cuda else torch.float32
    problem = make_problem(quick=check.quick, device=str(check.device), dtype=dtype)
    classes = problem.classes(count)
    made = NaiveStep(problem, problem.method(classes), classes, problem.batches(classes, 100, 4), count, parts=False)
    took = check.seconds(made, 20)
    memory = {"memory_mb": torch.cuda.max_memory_reserved() / 2**20} if check.cuda else {}
    check.row("steps", "ivlp", classes=count, how="naive", ms=1e3 * took, **memory)


def _forget(check: Check) -> None:
    gc.collect()
    if check.cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@torch.no_grad()
def evaluation(check: Check) -> None:
    """Images a second through the prompted vision tower, from pixels on the device and on the host."""
    clip = check.clip(torch.bfloat16)
    method = check.steps("ivlp", clip, 24).loop.method.eval()
    height, width = clip.image_size
    for size in (64, 256, 1024) if check.cuda else (8,):
        pixels = np.random.default_rng(0).integers(0, 256, (size, height, width, 3), dtype=np.uint8)
        images = normalize(upload(pixels, check.device), clip.mean, clip.std)

        def from_host(pixels: np.ndarray = pixels) -> Tensor:
            return method.image_features(normalize(upload(pixels, check.device), clip.mean, clip.std))

        tower = check.seconds(lambda: method.image_features(images), 10)  # noqa: B023
        check.row("evaluation", f"{size} a batch", tower=size / tower, from_host=size / check.seconds(from_host, 10))


def processes(check: Check) -> None:
    """CPT trained by several processes at once, without and with the multi-process service (a process of ours)."""
    for count in (24,) if check.quick else (24, 500):
        for service in (False, True) if check.cuda and shutil.which("nvidia-cuda-mps-control") else (False,):
            environment = dict(os.environ)
            if service:
                folder = str(check.out.resolve().parent / "mps")
                environment |= {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
                os.makedirs(folder, exist_ok=True)
            with check.tried("processes", "multi-process service" if service else "alone", classes=count):
                if service:
                    subprocess.run(["nvidia-cuda-mps-control", "-d"], env=environment, check=True)
                try:
                    _at_once(check, count, environment, service=service)
                finally:
                    if service:
                        quit_it = ["nvidia-cuda-mps-control"]
                        subprocess.run(quit_it, input="quit\n", text=True, env=environment, check=False)


def _at_once(check: Check, count: int, environment: dict[str, str], *, service: bool) -> None:
    words = [sys.executable, "-m", "benchmarks.gpu", "--device", check.device.type, "--train", str(count)]
    words += ["--quick"] if check.quick else []
    for number in (1, 2) if check.quick else (1, 2, 3, 4):
        children = [subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(number)]
        found = [json.loads(child.communicate()[0].splitlines()[-1]) for child in children]
        rate = sum(each["steps"] / each["seconds"] for each in found)
        check.row("processes", f"{number} at once", classes=count, service=service, steps_per_second=rate)


def train(check: Check, count: int) -> None:
    """Train CPT for some seconds and print how many steps it made: one of several processes."""
    made = check.steps("cpt", check.clip(torch.bfloat16), count, graph=check.cuda)
    batch = made.batch(0)
    for _ in range(10 if check.cuda else 1):
        made.loop.step(batch)
    check.wait()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < (SECONDS if check.cuda else 0.5):
        made.loop.step(batch)
        done += 1
        if done % 20 == 0:
            check.wait()
    check.wait()
    print(json.dumps({"steps": done, "seconds": time.perf_counter() - began}))


PARTS = (machine, numerics, waits, attention, steps, evaluation, processes)


def main(words: list[str] | None = None) -> int:
    """Measure all parts; return 1 if a row says that something failed."""
    names = [part.__name__ for part in PARTS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/gpu.json"), help="file of the rows")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: check that the parts work")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work?")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="PART", help="these parts")
    parser.add_argument("--train", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    device, _ = prepare_device(given.device, "float32", 2)
    check = Check(device, given.quick, given.out)
    if given.train:
        train(check, given.train)
        return 0
    for part in PARTS:
        if part.__name__ in given.only:
            began = time.monotonic()
            with check.tried(part.__name__, "failed"):
                part(check)
            check.row(part.__name__, "seconds", seconds=round(time.monotonic() - began, 1))
    return int(any("error" in row for row in check.rows))


if __name__ == "__main__":
    sys.exit(main())
