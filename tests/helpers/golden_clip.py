"""The tiny CLIP of the golden cases, rebuilt from the rule of tests/golden/README.md, and access to the cases."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import torch
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.device import prepare_device
from cpt.clip.export import export, towers
from cpt.features.templates import learnable_template
from cpt.features.text import Classes

GOLDEN = Path(__file__).parents[1] / "golden"
PHRASE = "a photo of a"
DEVICE = torch.device(os.environ.get("CPT_GOLDEN_DEVICE", "cpu"))
"""Where the golden cases are computed: a CPU, or ``cuda`` for ``make gpu-check``."""
SLACK = 1 if DEVICE.type == "cpu" else 10
"""Factor of the tolerances: a GPU adds float32 in other orders than the CPU that made the cases."""


def digest(text: str) -> int:
    """Seed that belongs to a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def normals(seed: int, shape: Sequence[int]) -> torch.Tensor:
    """Standard normal values."""
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32))


def rule(name: str, shape: tuple[int, ...], salt: str = "") -> torch.Tensor:
    """Value of a tensor by its name (section 2 of the golden README)."""
    if name == "logit_scale":
        return torch.tensor(math.log(1 / 0.07))
    n = np.random.Generator(np.random.PCG64(digest(salt + name))).standard_normal(shape)
    parts = name.split(".")
    last, parent = parts[-1], parts[-2] if len(parts) > 1 else ""
    if last == "weight" and parent.startswith("ln_"):
        n = 1 + 0.1 * n
    elif last in ("bias", "in_proj_bias") or name == "token_embedding.weight":
        n = 0.02 * n
    elif name == "positional_embedding":
        n = 0.01 * n
    elif name in ("visual.class_embedding", "visual.positional_embedding"):
        n = 0.2 * n
    elif name in ("visual.proj", "text_projection"):
        n = n / math.sqrt(shape[0])
    elif last in ("weight", "in_proj_weight") and len(shape) >= 2:
        n = n / math.sqrt(math.prod(shape[1:]))
    else:
        n = 0.02 * n
    return torch.tensor(n.astype(np.float32))


@cache
def model(salt: str = "") -> open_clip.CLIP:
    """The open_clip model of the golden cases."""
    clip = open_clip.CLIP(
        embed_dim=64,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": 192, "layers": 4, "head_width": 64},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 4},
        quick_gelu=True,
    )
    clip.load_state_dict({n: rule(n, tuple(t.shape), salt) for n, t in clip.state_dict().items()})
    return clip.eval().requires_grad_(False)


def clip_of(source: torch.nn.Module, name: str = "golden", image_size: tuple[int, int] = (32, 32)) -> Clip:
    """Our towers around an open_clip model."""
    tensors, spec = export(source)
    text, vision = towers(tensors, spec)
    ones = (1.0, 1.0, 1.0)
    return Clip(
        name,
        text,
        vision,
        spec["logit_scale"],
        spec["embed_dim"],
        (0.0,) * 3,
        ones,
        image_size,
        "",
        torch.device("cpu"),
    )


@cache
def golden_clip(salt: str = "") -> Clip:
    """Our towers around the golden model."""
    if DEVICE.type != "cpu":
        prepare_device(DEVICE.type, "float32", 1)  # without TF32
    made = clip_of(model(salt))
    return replace(made, text=made.text.to(DEVICE), vision=made.vision.to(DEVICE), device=DEVICE)


def classes_of(
    clip: Clip,
    names: list[str],
    templates: list[str],
    tokenizer=open_clip.tokenize,
    dataset_template: str = f"{PHRASE} {{}}.",
) -> Classes:
    """Classes with frozen features, the way the text-features stage makes them."""
    names = [n.replace("_", " ") for n in names]
    raw, directions = 0, 0
    with torch.no_grad():
        for template in templates:
            tokens = tokenizer([template.replace("{}", n) for n in names])
            features = clip.text(clip.text.pack(tokens))
            raw, directions = raw + features, directions + F.normalize(features, dim=-1)
    tokens = tokenizer([f"{PHRASE} {n}." for n in names])
    phrase = int(tokenizer([PHRASE]).argmax()) - 1
    prompt = learnable_template(dataset_template)
    return Classes(
        tuple(names),
        tokens,
        phrase,
        raw / len(templates),
        F.normalize(directions, dim=-1),
        tokenizer([prompt.replace("{}", n) for n in names]),
        tokenizer(names).argmax(dim=1) - 1,
        tokenizer([templates[0].replace("{}", n) for n in names]),
    )


def cases(prefix: str) -> list[str]:
    """Names of the cases that begin so and hold a method's run."""
    return [name for path in sorted(GOLDEN.glob(f"{prefix}*.npz")) if "labels" in Case(name := path.stem).meta]


class Case:
    """One golden file: its arrays, its metadata, its batches.

    Attributes:
        deviations: compared arrays and scalars, each with its deviation as a share of the tolerance.
    """

    def __init__(self, name: str) -> None:
        self.arrays = np.load(GOLDEN / f"{name}.npz")
        self.meta = json.loads(str(self.arrays["meta"]))
        self.deviations: dict[str, float] = {}

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key])

    def __contains__(self, key: str) -> bool:
        return key in self.arrays or f"{key}@norm" in self.arrays

    def images(self, step: int) -> torch.Tensor:
        """Images (B, 3, H, W) of a step."""
        shape, seed = self.meta["image_shape"], self.meta["image_seed"]
        return normals(seed + step, shape).to(DEVICE)

    def labels(self, step: int) -> torch.Tensor:
        """Labels (B,) of a step."""
        count = len(self.meta["classnames"])
        return torch.tensor([(label + step) % count for label in self.meta["labels"]]).to(DEVICE)

    def assert_tensor(self, key: str, ours: torch.Tensor, tolerance: float, *, relative: bool = False) -> None:
        """Compare with an array, or with its projections where the tensor was too large to store.

        Args:
            relative: the tolerance is a share of the tensor's largest entry.
        """
        ours = ours.detach().cpu()
        stored = key in self.arrays
        limit = tolerance * float((self[key] if stored else ours).abs().max()) if relative else tolerance
        if stored:
            self._assert_near(key, ours, self[key], limit)
            return
        flat = ours.flatten()
        r = np.random.Generator(np.random.PCG64(digest("projection"))).standard_normal(len(flat)) / len(flat) ** 0.5
        norm = float(self[f"{key}@norm"])
        self._assert_near(f"{key}@norm", flat.norm(), self[f"{key}@norm"], 1e-4 * norm)
        self._assert_near(f"{key}@proj", flat.double() @ torch.from_numpy(r), self[f"{key}@proj"], 1e-4 * norm)
        self._assert_near(f"{key}@first64", flat[:64], self[f"{key}@first64"], limit)

    def assert_scalar(self, name: str, ours: torch.Tensor, tolerance: float) -> None:
        """Compare with a scalar of the metadata."""
        expected = torch.tensor(self.meta["scalars"][name], dtype=torch.float64)
        self._assert_near(f"scalars.{name}", ours.detach().cpu(), expected, tolerance)

    def assert_equal(self, name: str, ours: object) -> None:
        """Compare with a value of the scalars that has to be the same."""
        assert ours == self.meta["scalars"][name], name
        self.deviations[f"scalars.{name}"] = 0.0

    def _assert_near(self, key: str, ours: torch.Tensor, expected: torch.Tensor, limit: float) -> None:
        assert ours.shape == expected.shape, key
        limit = limit * SLACK
        deviation = float((ours.double() - expected.double()).abs().max())
        assert deviation <= limit, f"{key}: off by {deviation:.3g}, tolerance {limit:.3g}"
        self.deviations[key] = deviation / limit if limit else 0.0

    def assert_complete(self, scalars_without_number: set[str]) -> None:
        """Every array and scalar of the file has been compared."""
        assert set(self.arrays.files) - {"meta"} <= set(self.deviations)
        scalars = {f"scalars.{name}" for name in self.meta["scalars"].keys() - scalars_without_number}
        assert scalars <= set(self.deviations)
