"""CLIP backbones without pretrained weights and training sets without images, for counting, timing and refusing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cpt.clip.backbone import Clip
from cpt.clip.blocks import Block
from cpt.clip.export import towers
from cpt.features.text import Classes
from cpt.methods.base.method import Batch, Method, TrainingSet

LAYERS, CONTEXT, VOCABULARY, PHRASE = 12, 77, 49408, 4


def vit_b16() -> Clip:
    """CLIP's ViT-B/16 on the meta device: shapes without values."""
    return _clip(widths=(512, 768), heads=(8, 12), joint=512, image=224, patch=16, device="meta")


def small_clip() -> Clip:
    """A random CLIP with as many blocks as ViT-B/16, which encodes in milliseconds."""
    return _clip(widths=(16, 24), heads=(2, 2), joint=8, image=16, patch=8, device="cpu")


def as_described(model: Mapping[str, Any]) -> Clip | None:
    """A CLIP of an architecture on the meta device; None where it is not two plain ViTs.

    Args:
        model: its configuration, as open_clip has it.
    """
    text, vision = model["text_cfg"], model["vision_cfg"]
    keys = ("width", "layers")
    sizes = [model["embed_dim"], vision.get("image_size"), vision.get("patch_size"), text.get("heads")]
    if not all(isinstance(size, int) for size in [*sizes, *(part.get(key) for part in (text, vision) for key in keys)]):
        return None
    joint, image, patch, heads = sizes
    return _clip(
        widths=(text["width"], vision["width"]),
        heads=(heads, vision["width"] // vision.get("head_width", 64)),
        layers=(text["layers"], vision["layers"]),
        context=text.get("context_length", CONTEXT),
        joint=joint,
        image=image,
        patch=patch,
        device="meta",
    )


def _clip(
    *,
    widths: tuple[int, int],
    heads: tuple[int, int],
    joint: int,
    image: int,
    patch: int,
    device: str,
    layers: tuple[int, int] = (LAYERS, LAYERS),
    context: int = CONTEXT,
) -> Clip:
    """A CLIP with the given widths, heads and numbers of blocks of the text and vision towers."""
    text, vision = widths
    common = {"activation": "quick_gelu", "eps": 1e-5}
    spec = {
        "text": common | {"layers": layers[0], "heads": heads[0], "context_length": context},
        "vision": common
        | {"layers": layers[1], "heads": heads[1], "patch_size": [patch, patch], "image_size": [image, image]},
    }
    shapes: dict[str, tuple[int, ...]] = {
        "text.token_embedding.weight": (VOCABULARY, text),
        "text.positional_embedding": (context, text),
        "text.text_projection": (text, joint),
        "vision.conv1.weight": (vision, 3, patch, patch),
        "vision.class_embedding": (vision,),
        "vision.positional_embedding": (1 + (image // patch) ** 2, vision),
        "vision.proj": (vision, joint),
    }
    for norm, width in (("text.ln_final", text), ("vision.ln_pre", vision), ("vision.ln_post", vision)):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for tower, width, count in (("text", text, layers[0]), ("vision", vision, layers[1])):
        for i in range(count):
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
    return Classes(names, tokens, PHRASE, frozen, directions, tokens, torch.full((count,), tokens_per_name), tokens)


def placeholder_training_set(
    kind: type[Method], classes: Classes, labels: Tensor, take: Callable[[Sequence[int], Batch], Batch] | None = None
) -> TrainingSet:
    """A training set with what a method asks for: clusters of four, random descriptions, new classes.

    Args:
        classes: the trained classes; their features lie on the device.
        labels: (N,) of the images, on the CPU; every class has one.
    """
    count, device = len(classes), classes.frozen.device
    stream = torch.Generator().manual_seed(3)
    described = torch.randn(3, count, classes.frozen.shape[1], generator=stream)
    return TrainingSet(
        classes,
        torch.bincount(labels, minlength=count).float().to(device),
        clusters=(torch.arange(count) // 4).to(device) if kind.needs_clusters else None,
        descriptions=torch.nn.functional.normalize(described, dim=-1).to(device) if kind.needs_descriptions else None,
        labels=labels,
        take=take,
        new_classes=classes.take(range(max(1, count // 2))) if kind.needs_new_classes else None,
    )


def prepare(method: Method, training_set: TrainingSet) -> None:
    """``Method.prepare`` with random features where it asks for them."""
    assert training_set.labels is not None
    stream, device = torch.Generator().manual_seed(4), method.clip.device
    shape = len(training_set.labels), method.clip.embed_dim
    features = torch.randn(shape, generator=stream).to(device) if method.needs_training_features else None
    method.prepare(training_set, features)


def _block_shape(name: str, width: int) -> tuple[int, ...]:
    """Shape of a block's tensor by its name in ``Block.NAMES``."""
    layer, kind = name.rsplit("_" if "in_proj" in name else ".", 1)
    outputs = {"attn.in_proj": 3 * width, "mlp.c_fc": 4 * width}.get(layer, width)
    inputs = 4 * width if layer == "mlp.c_proj" else width
    return (outputs,) if kind == "bias" or layer.startswith("ln_") else (outputs, inputs)
