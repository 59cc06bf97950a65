"""CLIP backbones without pretrained weights, for counting learned values and encoder passes."""

from __future__ import annotations

import math

import torch

from cpt.clip.backbone import Clip
from cpt.clip.blocks import Block
from cpt.clip.export import towers
from cpt.features.text import Classes

LAYERS, CONTEXT, VOCABULARY, PHRASE = 12, 77, 49408, 4


def vit_b16() -> Clip:
    """CLIP's ViT-B/16 on the meta device: shapes without values."""
    return _clip(widths=(512, 768), heads=(8, 12), joint=512, image=224, patch=16, device="meta")


def small_clip() -> Clip:
    """A random CLIP with as many blocks as ViT-B/16, which encodes in milliseconds."""
    return _clip(widths=(16, 24), heads=(2, 2), joint=8, image=16, patch=8, device="cpu")


def _clip(*, widths: tuple[int, int], heads: tuple[int, int], joint: int, image: int, patch: int, device: str) -> Clip:
    """A CLIP with the given widths and heads of the text and vision towers."""
    text, vision = widths
    common = {"layers": LAYERS, "activation": "quick_gelu", "eps": 1e-5}
    spec = {
        "text": common | {"heads": heads[0], "context_length": CONTEXT},
        "vision": common | {"heads": heads[1], "patch_size": [patch, patch], "image_size": [image, image]},
    }
    shapes: dict[str, tuple[int, ...]] = {
        "text.token_embedding.weight": (VOCABULARY, text),
        "text.positional_embedding": (CONTEXT, text),
        "text.text_projection": (text, joint),
        "vision.conv1.weight": (vision, 3, patch, patch),
        "vision.class_embedding": (vision,),
        "vision.positional_embedding": (1 + (image // patch) ** 2, vision),
        "vision.proj": (vision, joint),
    }
    for norm, width in (("text.ln_final", text), ("vision.ln_pre", vision), ("vision.ln_post", vision)):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for tower, width in (("text", text), ("vision", vision)):
        for i in range(LAYERS):
            for name in Block.NAMES:
                shapes[f"{tower}.transformer.resblocks.{i}.{name}"] = _block_shape(name, width)
    generator = None if device == "meta" else torch.Generator(device).manual_seed(0)
    tensors = {
        name: torch.empty(shape, device=device).normal_(std=1 / math.sqrt(shape[-1]), generator=generator)
        for name, shape in shapes.items()
    }
    black, ones = (0.0,) * 3, (1.0,) * 3
    return Clip("", *towers(tensors, spec), 100.0, joint, black, ones, (image, image), "", torch.device(device))


def placeholder_classes(clip: Clip, count: int, tokens_per_name: int = 1) -> Classes:
    """Classes with random features and prompts ``a photo of a <name>.`` of random tokens; names begin differently."""
    vocabulary = len(clip.text.token_embedding_weight)
    stream = torch.Generator().manual_seed(1)
    end = 1 + PHRASE + tokens_per_name
    tokens = torch.zeros(count, clip.text.context_length, dtype=torch.long)
    tokens[:, : 1 + PHRASE] = torch.tensor([vocabulary - 2, *range(1, 1 + PHRASE)])
    tokens[:, 1 + PHRASE : end] = torch.randint(1, vocabulary - 2, (count, tokens_per_name), generator=stream)
    tokens[:, 1 + PHRASE] = 1 + torch.arange(count) % (vocabulary - 3)
    tokens[:, end] = 1  # the full stop
    tokens[:, end + 1] = vocabulary - 1
    frozen = torch.randn(count, clip.embed_dim, generator=stream).to(clip.device)
    names = tuple(f"class {i}" for i in range(count))
    directions = torch.nn.functional.normalize(frozen, dim=-1)
    return Classes(names, tokens, PHRASE, frozen, directions, tokens, torch.full((count,), tokens_per_name))


def _block_shape(name: str, width: int) -> tuple[int, ...]:
    """Shape of a block's tensor by its name in ``Block.NAMES``."""
    layer, kind = name.rsplit("_" if "in_proj" in name else ".", 1)
    outputs = {"attn.in_proj": 3 * width, "mlp.c_fc": 4 * width}.get(layer, width)
    inputs = 4 * width if layer == "mlp.c_proj" else width
    return (outputs,) if kind == "bias" or layer.startswith("ln_") else (outputs, inputs)
