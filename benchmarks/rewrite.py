"""Compare a training step of this checkout with that of another one: gradients, and CPU seconds of the text path.

python -m benchmarks.rewrite BEFORE --out docs/results/rewrite.json

BEFORE is a checkout of an earlier commit (`git worktree add BEFORE COMMIT`). Both compute CPT's step of ViT-B/16 with
the same random weights, prompts and images, each in processes of its own, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent.parent
CLASSES = (24, 100, 500)
REPEATS = 5


def main() -> None:
    """Run both checkouts and write what differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rewrite", description=__doc__)
    parser.add_argument("before", type=Path, help="checkout of an earlier commit")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    given = parser.parse_args()
    trees = {"before": given.before.resolve(), "now": HERE}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, f"{name}.pt") for name in trees}
        for name, tree in trees.items():
            _child(tree, "step", str(files[name]))
        steps = {name: torch.load(path, weights_only=True) for name, path in files.items()}
    found: dict[str, Any] = {
        "before": _commit(trees["before"]),
        "now": _commit(HERE),
        "gradients": max(_difference(steps, name) for name in steps["now"] if name not in ("loss", "text")),
        "loss": _difference(steps, "loss"),
        "text": _difference(steps, "text"),
        "seconds": {},
    }
    for count in CLASSES:
        times: dict[str, list[float]] = {name: [] for name in trees}
        for _ in range(REPEATS if count < CLASSES[-1] else 3):
            for name, tree in trees.items():
                times[name].append(float(_child(tree, "seconds", str(count))))
        least = {name: min(values) for name, values in times.items()}
        found["seconds"][str(count)] = least | {"ratio": least["now"] / least["before"]}
        print(f"K={count}: {least['now']:.3f} s, before {least['before']:.3f} s", flush=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n")


def _difference(steps: dict[str, Any], name: str) -> float:
    """Largest difference of a tensor, relative to its largest value."""
    now, before = steps["now"][name], steps["before"][name]
    return float((now - before).abs().max() / before.abs().max())


def _child(tree: Path, *words: str) -> str:
    """What a process says that computes with the code of a checkout."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-P", str(Path(__file__).resolve()), *words]
    done = subprocess.run(command, env=environment, cwd=tree, check=True, capture_output=True, text=True)
    return done.stdout


def _commit(tree: Path) -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tree, check=True, capture_output=True, text=True)
    return done.stdout.strip()


# ---- in the child: names that both checkouts have ------------------------------------------------


def _method(count: int) -> tuple[Any, Any]:
    from cpt.methods.base import registry, sizes
    from cpt.methods.base.method import TrainingSet
    from cpt.seeds import torch_stream

    torch.set_num_threads(1)
    torch.manual_seed(0)
    clip = sizes._clip(widths=(512, 768), heads=(8, 12), joint=512, image=224, patch=16, device="cpu")
    kind = registry.get("cpt")
    classes = sizes.placeholder_classes(clip, count, 2)
    method = kind(clip, kind.hyperparameters(), classes, torch_stream(1, "initial prompts"))
    return method, TrainingSet(classes, torch.ones(count), clusters=torch.arange(count) // 8)


def _step(path: str) -> None:
    from cpt.methods.base.method import Batch

    method, training_set = _method(CLASSES[0])
    images = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    loss = method.total(method.step(Batch(images, None, torch.tensor([0, 5, 5, 20])), training_set).losses)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in method.named_parameters()}
    text = method.text_features(training_set.classes).detach()
    torch.save({"loss": loss.detach(), "text": text, **gradients}, path)


def _seconds(count: str) -> None:
    method, training_set = _method(int(count))
    least = float("inf")
    for _ in range(3):
        started = time.process_time()
        method.raw_text_features(training_set.classes).square().sum().backward()
        least = min(least, time.process_time() - started)
        method.zero_grad()
    print(least)


if __name__ == "__main__":
    if sys.argv[1:2] == ["step"]:
        _step(sys.argv[2])
    elif sys.argv[1:2] == ["seconds"]:
        _seconds(sys.argv[2])
    else:
        main()
