"""Pretrains the tiny CLIP of an embedded configuration on the web of a generated world, from nothing to its files.

The recipe is CLIP's, except that the logit scale is held at 60: learned, it stays near 13 in so short a training.
That of the published CLIP is 100, and the size of the cross-entropy in prompt tuning depends on it.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch.nn.functional import cross_entropy

from cpt.clip import bpe, tiny
from cpt.clip.tiny import IMAGE_MEAN, IMAGE_STD, MERGES, RECIPE, SCHEMA, TEMPLATE, TEST_IMAGES, encode_text, normalize
from cpt.data.world import SHIFTS, WORLDS, captions
from cpt.data.world.benchmark import CANDIDATES
from cpt.data.world.declared import World
from cpt.errors import CptError, nearest
from cpt.files.stage_files import atomic, sha256_file, write_json, write_tensors

Log = Callable[[str], None]
LOGIT_SCALE = 60.0
BATCH = 128
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.1
WARM_UP = 100
MAX_ROLL = 2
LOG_EVERY = 300


def train(
    images: np.ndarray, captions: list[str], tokenizer: SimpleTokenizer, *, seed: int, steps: int, log: Log
) -> tuple[CLIP, dict[str, torch.Tensor], list[float]]:
    """Trains a tiny CLIP with the symmetric contrastive loss.

    Args:
        images: uint8 (N, 32, 32, 3), N at least 128.
        captions: N texts.

    Returns:
        the model in evaluation mode, its state half-way, and the loss of every step.
    """
    unique, which = np.unique(captions, return_inverse=True)
    tokens = tokenizer(unique.tolist())
    model = _untrained(tokenizer.vocab_size, seed)
    optimizer = torch.optim.AdamW(_groups(model), lr=LEARNING_RATE, betas=(0.9, 0.98), eps=1e-6)
    rng = np.random.default_rng(seed)
    order = np.empty(0, int)
    losses: list[float] = []
    halfway: dict[str, torch.Tensor] = {}
    started = time.monotonic()
    for step in range(steps):
        if len(order) < BATCH:
            order = np.concatenate([order, rng.permutation(len(images))])
        batch, order = order[:BATCH], order[BATCH:]
        used, columns = np.unique(which[batch], return_inverse=True)
        shift = rng.integers(-MAX_ROLL, MAX_ROLL + 1, 2).tolist()
        loss = _loss(model, normalize(images[batch]).roll(shift, (2, 3)), tokens[used], columns)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * _schedule(step, steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step + 1 == steps // 2:
            halfway = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if (step + 1) % 50 == 0 or step + 1 == steps:
            spent = time.monotonic() - started
            rest = spent / (step + 1) * (steps - step - 1)
            log(f"step {step + 1}/{steps}  loss {mean(losses[-50:]):.3f}  {spent:.0f} s, {rest:.0f} s to go")
    return model.eval(), halfway, losses


def _untrained(vocab_size: int, seed: int) -> CLIP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIP(**tiny.configuration(vocab_size))
    model.logit_scale.data.fill_(math.log(LOGIT_SCALE))
    model.logit_scale.requires_grad_(False)
    return model


def _loss(model: CLIP, images: torch.Tensor, tokens: torch.Tensor, columns: np.ndarray) -> torch.Tensor:
    """Symmetric contrastive loss of images (B, 3, 32, 32) with the texts of ``tokens[columns]``."""
    seen = model.encode_image(images, normalize=True)
    logits = model.logit_scale.exp() * seen @ encode_text(model, tokens)[columns].T
    target = torch.arange(len(images))
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def _groups(model: CLIP) -> list[dict[str, Any]]:
    """Weight decay on matrices only, not on embeddings, gains and biases."""
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": decay} for decay in (WEIGHT_DECAY, 0.0)]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[parameter.ndim < 2 or "embedding" in name]["params"].append(parameter)
    return groups


def _schedule(step: int, steps: int) -> float:
    warm_up = min(WARM_UP, steps // 2)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def pretrain(
    output: Path,
    *,
    world: str = "first",
    seed: int = 0,
    pairs: int = 60_000,
    steps: int = 1800,
    threads: int = 1,
    log: Log,
) -> None:
    """Makes the web of a world, trains the tiny CLIP on it and measures it.

    Writes model.safetensors and halfway.safetensors (float16), config.json, merges.txt.gz, the images that the
    half-trained model chooses (world_a.json), if the world has such a dataset, and, last, recipe.json with all that led
    to them and their hashes. Each file appears whole or not at all.

    Args:
        output: folder, made if missing.
        world: a key of ``cpt.data.world.WORLDS``.
        seed: of the web, the initial weights and the batches.
        pairs: images with captions, at least 128.
        steps: optimizer steps, at least 2.
        threads: torch's threads; the result depends on them in the last digits.
        log: receives one line at a time.

    Raises:
        CptError: unknown world, fewer pairs than a batch, or fewer than two steps.
    """
    if world not in WORLDS:
        raise CptError(f"no generated world {world!r}; {nearest(world, WORLDS)}")
    if pairs < BATCH or steps < 2:
        raise CptError(f"pretraining needs at least {BATCH} pairs and 2 steps, not {pairs} and {steps}")
    torch.set_num_threads(threads)
    started = time.monotonic()
    seconds: dict[str, float] = {}

    def lap(what: str) -> None:
        seconds[what] = round(time.monotonic() - started - sum(seconds.values()), 1)

    chosen = WORLDS[world]
    tokenizer = _write_tokenizer(output, chosen)
    log(f"rendering {pairs} captioned images")
    web = captions.web(chosen, pairs, seed)
    images = captions.render_web(web)
    lap("render")
    log(f"rendered in {seconds['render']:.0f} s; training")
    model, halfway, losses = train(images, [pair.caption for pair in web], tokenizer, seed=seed, steps=steps, log=log)
    lap("train")
    _write_weights(output, chosen, model, halfway, log)
    log("measuring zero-shot accuracy")
    table = tiny.measure(output, chosen.datasets, TEST_IMAGES)
    lap("measure")
    recipe = {"schema": SCHEMA, "world": world, "seed": seed, "pairs": pairs, "steps": steps, "batch": BATCH}
    recipe |= {"threads": threads}
    recipe |= _recipe(model, losses, table) | {"seconds": seconds, "versions": _versions()}
    recipe["sha256"] = {name: sha256_file(output / name) for name in files(chosen)}
    write_json(output / RECIPE, recipe)
    log(f"done in {sum(seconds.values()):.0f} s")


def files(world: World) -> list[str]:
    """Names of what ``pretrain`` writes, without the recipe."""
    chosen = [tiny.adversarial_file(world.adversarial)] if world.adversarial else []
    return ["model.safetensors", "halfway.safetensors", "config.json", MERGES, *chosen]


def _write_tokenizer(output: Path, world: World) -> SimpleTokenizer:
    """Write merges.txt.gz and config.json; return the tokenizer."""
    with atomic(output / MERGES) as temporary:
        temporary.write_bytes(bpe.merges_file(bpe.learn_merges(captions.phrases(world))))
    tokenizer = tiny.tokenizer(output / MERGES)
    image = {"image_mean": list(IMAGE_MEAN), "image_std": list(IMAGE_STD)}
    write_json(output / "config.json", tiny.configuration(tokenizer.vocab_size) | image)
    return tokenizer


def _recipe(model: CLIP, losses: list[float], table: dict[str, dict[str, float]]) -> dict[str, Any]:
    """What was trained how, and what came out."""
    own = [accuracies for key, accuracies in table.items() if key not in SHIFTS]
    means = [round(mean(losses[at : at + LOG_EVERY]), 4) for at in range(0, len(losses), LOG_EVERY)]
    return {
        "logit_scale": LOGIT_SCALE,
        "optimizer": {"name": "AdamW", "lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "warm_up": WARM_UP},
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": {"mean_over_steps": LOG_EVERY, "values": means},
        "zero_shot": {
            "template": TEMPLATE,
            "test_images_per_class": TEST_IMAGES,
            "percent": table,
            "mean_of_data_sets": {part: round(mean(row[part] for row in own), 2) for part in ("all", "base", "new")},
        },
    }


def _write_weights(output: Path, world: World, model: CLIP, halfway: Mapping[str, torch.Tensor], log: Log) -> None:
    """Write both states, and the images that the half-trained one chooses, if any."""
    for name, state in (("model", model.state_dict()), ("halfway", halfway)):
        # float16, except the logit scale, whose rounding would show in reports
        half = {key: tensor if key == "logit_scale" else tensor.half() for key, tensor in state.items()}
        write_tensors(output / f"{name}.safetensors", half, SCHEMA)
    if key := world.adversarial:
        log(f"choosing the images of {key}")
        kept = tiny.rank_adversarial(*tiny.load(output, "halfway.safetensors"), key, CANDIDATES)
        write_json(output / tiny.adversarial_file(key), {"candidates": CANDIDATES, "kept": kept})


def _versions() -> dict[str, str]:
    packages = ("torch", "open_clip_torch", "numpy", "pillow", "scikit-learn", "matplotlib")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
