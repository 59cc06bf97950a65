"""The tiny CLIP of the golden cases, rebuilt from the rule of tests/golden/README.md, and access to the cases."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import torch
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.export import export, towers
from cpt.clip.features import Classes
from cpt.clip.text import pack_prompts

GOLDEN = Path(__file__).parent / "golden"
PHRASE = "a photo of a"


def rule(name: str, shape: tuple[int, ...], salt: str = "") -> torch.Tensor:
    """Value of a tensor by its name (section 2 of the golden README)."""
    if name == "logit_scale":
        return torch.tensor(math.log(1 / 0.07))
    key = int.from_bytes(hashlib.sha256((salt + name).encode()).digest()[:8], "little")
    n = np.random.Generator(np.random.PCG64(key)).standard_normal(shape)
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
    return clip_of(model(salt))


def classes_of(clip: Clip, names: list[str], templates: list[str], tokenizer=open_clip.tokenize) -> Classes:
    """Classes with frozen features, the way the text-features stage makes them."""
    names = [n.replace("_", " ") for n in names]
    raw, directions = 0, 0
    with torch.no_grad():
        for template in templates:
            tokens = tokenizer([template.replace("{}", n) for n in names])
            features = clip.text(pack_prompts(tokens, np.full(tuple(tokens.shape), -1)))
            raw, directions = raw + features, directions + F.normalize(features, dim=-1)
    tokens = tokenizer([f"{PHRASE} {n}." for n in names])
    phrase = int(tokenizer([PHRASE]).argmax()) - 1
    return Classes(tuple(names), tokens, phrase, raw / len(templates), F.normalize(directions, dim=-1))


class Case:
    """One golden file: its arrays, its metadata, its batches."""

    def __init__(self, name: str) -> None:
        self.arrays = np.load(GOLDEN / f"{name}.npz")
        self.meta = json.loads(str(self.arrays["meta"]))

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key])

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 3, 32, 32) and labels (B,) of a step."""
        shape, seed = self.meta["image_shape"], self.meta["image_seed"]
        images = np.random.Generator(np.random.PCG64(seed + step)).standard_normal(shape).astype(np.float32)
        labels = [(label + step) % len(self.meta["classnames"]) for label in self.meta["labels"]]
        return torch.from_numpy(images), torch.tensor(labels)

    def assert_tensor(self, key: str, ours: torch.Tensor, tolerance: float, relative: bool = False) -> None:
        """Compare with an array, or with its projections where the tensor was too large to store."""
        ours = ours.detach().float()
        if key in self.arrays:
            expected = self[key]
            limit = tolerance * float(expected.abs().max()) if relative else tolerance
            assert ours.shape == expected.shape, key
            assert float((ours - expected).abs().max()) <= limit, key
            return
        flat = ours.flatten()
        digest = int.from_bytes(hashlib.sha256(b"projection").digest()[:8], "little")
        r = np.random.Generator(np.random.PCG64(digest)).standard_normal(flat.numel()) / math.sqrt(flat.numel())
        norm = float(self[f"{key}@norm"])
        assert abs(float(flat.norm()) - norm) <= 1e-4 * norm, key
        assert abs(float(flat.double() @ torch.from_numpy(r)) - float(self[f"{key}@proj"])) <= 1e-4 * norm, key
        first = self[f"{key}@first64"]
        limit = tolerance * float(first.abs().max()) if relative else tolerance
        assert float((flat[:64] - first).abs().max()) <= limit, key
