"""Text tower, forward and backward: 77 positions of every class against prefix sharing, on ViT-B/16.

Run: python -m benchmarks.text_tower [--classes 100] [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import open_clip
import torch
from torch import nn

from benchmarks import naive
from cpt.clip.export import export, towers
from cpt.clip.text import pack_prompts

PROMPTS, DEPTH = 4, 9


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    """Measure both ways in turn and print the ratio of every pair and their median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=100, help="number of ImageNet class names")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of measurements")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16-quickgelu", pretrained=None).eval().requires_grad_(False)
    text, _ = towers(*export(model))
    names = open_clip.IMAGENET_CLASSNAMES[: arguments.classes]
    tokens = open_clip.tokenize([f"a photo of a {name}." for name in names])
    slots = np.full(tuple(tokens.shape), -1)
    slots[:, 1 : 1 + PROMPTS] = np.arange(PROMPTS)
    packed = pack_prompts(tokens, slots)
    context = nn.Parameter(model.token_embedding(tokens[:1])[0, 1 : 1 + PROMPTS].clone())
    deep = {i: nn.Parameter(0.02 * torch.randn(PROMPTS, text.width)) for i in range(1, DEPTH)}
    learned = [context, *deep.values()]
    weight = torch.randn(len(names), model.text_projection.shape[1])
    gradients: dict[str, list[torch.Tensor]] = {}

    def run(kind: str) -> None:
        features = naive.text_features(model, tokens, context, deep) if kind == "naive" else text(packed, context, deep)
        gradients[kind] = list(torch.autograd.grad((features * weight).sum(), learned))

    run("ours")
    run("naive")
    pairs = zip(gradients["ours"], gradients["naive"], strict=True)
    error = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    positions = len(packed.prefix_tokens) + len(packed.tokens)
    print(f"{len(names)} classes, {positions} positions instead of {tokens.numel()}; gradients differ by {error:.1e}")
    ratios = []
    for _ in range(arguments.repeats):
        slow, fast = seconds(lambda: run("naive")), seconds(lambda: run("ours"))
        ratios.append(slow / fast)
        print(f"naive {slow:.2f} s, ours {fast:.3f} s, ratio {slow / fast:.1f}")
    print(f"text tower forward+backward: {statistics.median(ratios):.1f} times faster (median of {len(ratios)} pairs)")


if __name__ == "__main__":
    main()
