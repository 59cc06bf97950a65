"""Export both towers of an unmodified open_clip model and check them against it.

``export`` reads the weights of a model; ``verify`` compares the exported towers with the model on random inputs. The
backbone stage does both, so that a model which our towers do not support is refused before any training.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from cpt.clip.text import TextTower
from cpt.clip.vision import VisionTower
from cpt.errors import CptError

TOLERANCE = 1e-4  # on unit-norm features in float32


def export(model: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the frozen tensors and the description of both towers of an open_clip model.

    Supported are models whose image tower is open_clip's ``VisionTransformer`` with class-token pooling and whose
    text tower is open_clip's causal ``TextTransformer`` pooled at the end token (``CLIP`` and ``CustomTextCLIP``).

    Returns:
        Tensors by open_clip's names behind ``text.`` and ``vision.``, and a specification that JSON can hold.

    Raises:
        CptError: the weights are damaged, or the architecture has a part that our towers lack; names the part.
    """
    require_model(model)
    text, visual = getattr(model, "text", model), model.visual
    scale = model.logit_scale.detach().exp().item()
    if not 0 < scale < inf:
        raise CptError(f"backbone: the weights' logit scale is {scale}, not a positive number; get them again")
    spec: dict[str, Any] = {
        "logit_scale": scale,
        "embed_dim": int(visual.output_dim),
        "text": _describe(text.transformer) | {"context_length": int(text.positional_embedding.shape[0])},
        "vision": _describe(visual.transformer)
        | {"patch_size": list(visual.patch_size), "image_size": list(visual.image_size)},
    }
    wanted = ("transformer.", "token_embedding.", "ln_final.", "positional_embedding")
    tensors = {f"text.{name}": value for name, value in text.state_dict().items() if name.startswith(wanted)}
    projection = text.text_projection
    if isinstance(projection, nn.Linear):
        tensors["text.text_projection"] = projection.weight.T
        if projection.bias is not None:
            tensors["text.text_projection_bias"] = projection.bias
    elif projection is not None:
        tensors["text.text_projection"] = projection
    tensors |= {f"vision.{name}": value for name, value in visual.state_dict().items()}
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise CptError(f"backbone: the weights hold values that are no finite numbers ({name}); get them again")
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}, spec


def require_config(config: Mapping[str, Any]) -> None:
    """Refuse a model configuration of open_clip with parts that open_clip builds only with other libraries.

    Raises:
        CptError: names the part.
    """
    vision, text = config["vision_cfg"], config["text_cfg"]
    _require("multimodal_cfg" not in config, "a captioning decoder (CoCa)", "two towers")
    timm, resnet = vision.get("timm_model_name"), isinstance(vision.get("layers"), list)
    _require(not timm, f"image tower {timm} of timm", "VisionTransformer")
    _require(not resnet, "image tower ModifiedResNet", "VisionTransformer")
    for part, key in (("text tower", "hf_model_name"), ("tokenizer", "hf_tokenizer_name")):
        _require(not text.get(key), f"{part} {text.get(key)} of transformers", "CLIP's own")


def require_model(model: Any) -> None:
    """Refuse an open_clip model that has parts which our towers lack.

    Raises:
        CptError: names the part.
    """
    from open_clip.transformer import VisionTransformer

    text = getattr(model, "text", model)
    visual = model.visual
    _require(isinstance(visual, VisionTransformer), f"image tower {type(visual).__name__}", "VisionTransformer")
    _require(visual.attn_pool is None and visual.pool_type == "tok", "attention or average pooling", "'tok'")
    _require(hasattr(text, "transformer") and hasattr(text, "token_embedding"), "text tower", "TextTransformer")
    _require(getattr(text, "attn_mask", None) is not None, "text attention without causal mask", "causal mask")
    _require(getattr(text, "cls_emb", None) is None, "text class embedding", "end-token pooling")
    pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
    _require(pool in ("argmax", "eos"), f"text pooling {pool!r}", "'argmax' or 'eos'")
    _require(getattr(model, "logit_bias", None) is None, "a logit bias (sigmoid loss)", "softmax CLIP")
    size = tuple(visual.image_size)
    _require(len(set(size)) == 1, f"images of {' x '.join(map(str, size))} pixels", "square ones")
    for transformer in (text.transformer, visual.transformer):
        _describe(transformer)


def towers(tensors: dict[str, Tensor], spec: dict[str, Any]) -> tuple[TextTower, VisionTower]:
    """Build both towers from exported tensors."""
    halves = {
        half: {name.removeprefix(f"{half}."): t for name, t in tensors.items() if name.startswith(f"{half}.")}
        for half in ("text", "vision")
    }
    return TextTower(halves["text"], spec["text"]), VisionTower(halves["vision"], spec["vision"])


@torch.no_grad()
def verify(model: Any, tensors: dict[str, Tensor], spec: dict[str, Any]) -> float:
    """Return the largest difference of unit-norm features between the model and its exported towers.

    Inputs are random images (4) and random token rows of different lengths (5), in float32.

    Raises:
        CptError: they differ by more than 1e-4, or the model's own have no direction: its weights are damaged.
    """
    text, vision = towers(tensors, spec)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, *spec["vision"]["image_size"], generator=generator)
    length, vocabulary = spec["text"]["context_length"], tensors["text.token_embedding.weight"].shape[0]
    tokens = torch.zeros(5, length, dtype=torch.long)
    end = getattr(getattr(model, "text", model), "text_eos_id", None)
    for row, stop in zip(tokens, (2, length // 3, length // 2, length - 1, length - 1), strict=True):
        row[:stop] = torch.randint(1, vocabulary - 2, (stop,), generator=generator)
        row[stop] = vocabulary - 1
        if end is not None:
            row[row == end] = 1
            row[stop] = end
    pairs = (
        (model.encode_image(images, normalize=True), nn.functional.normalize(vision(images), dim=-1)),
        (model.encode_text(tokens, normalize=True), nn.functional.normalize(text(text.pack(tokens)), dim=-1)),
    )
    for half, (theirs, _) in zip(("image", "text"), pairs, strict=True):
        if not ((theirs.norm(dim=-1) - 1).abs() < TOLERANCE).all():  # NaN; or zero if the raw norm is infinite
            raise CptError(f"backbone: the weights give {half} features without a direction; get them again")
    difference = float(torch.stack([(theirs - ours).abs().max() for theirs, ours in pairs]).max())  # NaN if any is
    if not difference <= TOLERANCE:
        raise CptError(
            f"backbone: features of the exported towers differ by {difference:.2g} from open_clip's; "
            "this architecture is not supported, choose another"
        )
    return difference


def _describe(transformer: Any) -> dict[str, Any]:
    """Depth, heads, width, activation and epsilon of a transformer; refuse any but plain residual blocks."""
    from open_clip.transformer import QuickGELU, ResidualAttentionBlock

    block = transformer.resblocks[0]
    kinds = {type(b) for b in transformer.resblocks}
    names = ", ".join(k.__name__ for k in kinds)
    _require(kinds == {ResidualAttentionBlock}, f"blocks {names}", "plain residual blocks")
    activation = block.mlp.gelu
    if isinstance(activation, QuickGELU):
        kind = "quick_gelu"
    else:
        _require(isinstance(activation, nn.GELU), f"activation {type(activation).__name__}", "GELU or QuickGELU")
        kind = "gelu_tanh" if activation.approximate == "tanh" else "gelu"
    return {
        "layers": len(transformer.resblocks),
        "heads": int(block.attn.num_heads),
        "width": int(block.attn.embed_dim),
        "activation": kind,
        "eps": float(block.ln_1.eps),
    }


def _require(condition: bool, found: str, supported: str) -> None:
    if not condition:
        raise CptError(f"backbone: unsupported architecture: {found} (supported: {supported})")
