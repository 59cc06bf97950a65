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

from cpt.clip import hf_encoder, timm_vit
from cpt.clip.encoder import EncoderTower, PostNormEncoderTower
from cpt.clip.inside import Inside
from cpt.clip.padded import POOLS, PaddedTextTower
from cpt.clip.text import TextTower
from cpt.clip.vision import VisionTower
from cpt.clip.whole import WholeTower, build
from cpt.errors import CptError

TOLERANCE = 1e-4  # on unit-norm features in float32
CONTEXT_LENGTH = 77
"""Tokens that a text may have where a model configuration does not say it (open_clip's default)."""


def export(
    model: Any, config: Mapping[str, Any] | None = None, marks: dict[str, int] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the frozen tensors and the description of both towers of an open_clip model.

    Image towers that are open_clip's ``VisionTransformer``, or one of timm whose parts ours has
    (``cpt.clip.timm_vit``), take prompts; all others are taken as they are (``cpt.clip.whole``). Text towers must be
    open_clip's ``TextTransformer`` (``CLIP`` and ``CustomTextCLIP``), or an encoder of transformers
    (``cpt.clip.hf_encoder``).

    Args:
        config: the model's configuration, from which a tower that is taken as it is can be built again, and the number
            of positions of an encoder of transformers.
        marks: of a tokenizer of transformers (``cpt.clip.foreign``).

    Returns:
        Tensors by open_clip's names behind ``text.`` and ``vision.``, and a specification that JSON can hold.

    Raises:
        CptError: the weights are damaged, or the architecture has a part that our towers lack; names the part.
    """
    require_model(model)
    scale, bias = model.logit_scale.detach().exp().item(), getattr(model, "logit_bias", None)
    if not 0 < scale < inf:
        raise CptError(f"backbone: the weights' logit scale is {scale}, not a positive number; get them again")
    text, vision = _text(getattr(model, "text", model), marks, config), _vision(model.visual, config)
    spec: dict[str, Any] = {"logit_scale": scale, "embed_dim": _embed_dim(model)}
    if bias is not None:
        spec["logit_bias"] = bias.item()  # for the record: neither a softmax nor a maximum over classes sees it
    spec |= {"text": text[1], "vision": vision[1]}
    tensors = {f"text.{name}": value for name, value in text[0].items()}
    tensors |= {f"vision.{name}": value for name, value in vision[0].items()}
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise CptError(f"backbone: the weights hold values that are no finite numbers ({name}); get them again")
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}, spec


Exported = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors and specification of a tower."""


def _text(text: Any, marks: dict[str, int] | None, config: Mapping[str, Any] | None) -> Exported:
    """Of a text tower; one that is not causal or not read at its end token is computed whole (``cpt.clip.padded``)."""
    if hf_encoder.is_encoder(text):
        assert config is not None
        assert marks is not None
        return hf_encoder.export(text, int(config["text_cfg"].get("context_length", CONTEXT_LENGTH)), marks)
    spec = _describe(text.transformer) | {"context_length": int(text.positional_embedding.shape[0])}
    pool, causal = text_pool(text), getattr(text, "attn_mask", None) is not None
    if not causal or pool not in ("argmax", "eos") or marks is not None:
        spec |= {"causal": causal, "pool": pool}
    if marks is not None:
        _require_pool(pool)
        own = getattr(text, "text_eos_id", getattr(text, "eos_id", None))
        found = f"text pooling at token {own} with a tokenizer that ends texts with {marks['end']}"
        _require(pool != "eos" or own == marks["end"], found, f"text_cfg.eos_id {marks['end']}")
        spec |= {"context_length": spec["context_length"] + ("start" not in marks), "marks": marks}
    wanted = ("transformer.", "token_embedding.", "ln_final.", "positional_embedding")
    tensors = {name: value for name, value in text.state_dict().items() if name.startswith(wanted)}
    projection = text.text_projection
    if isinstance(projection, nn.Linear):
        tensors["text_projection"] = projection.weight.T
        if projection.bias is not None:
            tensors["text_projection_bias"] = projection.bias
    elif projection is not None:
        tensors["text_projection"] = projection
    return tensors, spec


def _require_pool(pool: Any) -> None:
    found = f"text pooling {pool!r} with a tokenizer of transformers"
    _require(pool in ("eos", "last", "first"), found, "'eos', 'last' or 'first'")


def _vision(visual: Any, config: Mapping[str, Any] | None) -> Exported:
    """Of an image tower."""
    if (spec := timm_vit.described(visual)) is not None:
        return timm_vit.tensors(visual), spec
    if not _is_vit(visual):
        assert config is not None
        whole = {key: config[key] for key in ("embed_dim", "vision_cfg", "quick_gelu") if key in config}
        kept = {"image_size": _image_size(visual), "width": config["embed_dim"], "whole": whole}
        return visual.state_dict(), {"name": tower_name(visual)} | kept
    sizes = {"patch_size": list(visual.patch_size), "image_size": list(visual.image_size)}
    spec = _describe(visual.transformer) | sizes
    if visual.pool_type != "tok":
        spec |= {"pool": "mean", "norm_last": visual.final_ln_after_pool}
    return visual.state_dict(), spec


def _is_vit(visual: Any) -> bool:
    """Whether an image tower is open_clip's own vision transformer."""
    from open_clip.transformer import VisionTransformer

    return isinstance(visual, VisionTransformer)


def _image_size(visual: Any) -> list[int]:
    size = visual.image_size
    return [size, size] if isinstance(size, int) else list(size)


def tower_name(visual: Any) -> str:
    """What messages call an image tower of open_clip: its class, or that of timm's tower in it."""
    trunk = getattr(visual, "trunk", None)
    return type(visual).__name__ if trunk is None else f"{type(trunk).__name__} of timm"


def inside(config: Mapping[str, Any]) -> Inside:
    """What the image tower of a model configuration offers to methods that change it, seen without its weights."""
    with torch.device("meta"):
        visual = build(config)
    if _is_vit(visual):
        return Inside(tower_name(visual))
    spec = timm_vit.described(visual)
    if spec is None:
        return Inside(tower_name(visual), blocks=False, class_token=False)
    return Inside(spec["name"], class_token=visual.trunk.cls_token is not None)


def _embed_dim(model: Any) -> int:
    """Width D of the features."""
    text = getattr(model, "text", model)
    if hf_encoder.is_encoder(text):
        return int(text.output_dim)
    projection = text.text_projection
    if projection is None:
        return int(text.transformer.width)
    return int(projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1])


def text_pool(text: Any) -> Any:
    """Where open_clip's text tower reads its feature."""
    return getattr(text, "text_pool_type", getattr(text, "pool_type", None))


def require_config(config: Mapping[str, Any]) -> None:
    """Refuse a model configuration of open_clip with parts that our towers lack, as far as it shows them.

    Raises:
        CptError: names the part.
    """
    text = config["text_cfg"]
    _require("multimodal_cfg" not in config, "a captioning decoder (CoCa)", "two towers")
    if text.get("hf_model_name"):
        found = "a text tower of transformers without a tokenizer of it"
        _require(bool(text.get("hf_tokenizer_name")), found, "text_cfg.hf_tokenizer_name beside hf_model_name")
        hf_encoder.require_config(text, config["embed_dim"])
    elif text.get("hf_tokenizer_name"):
        _require_pool(text.get("pool_type", "argmax"))


def require_model(model: Any) -> None:
    """Refuse an open_clip model that has parts which our towers lack.

    Raises:
        CptError: names the part.
    """
    text = getattr(model, "text", model)
    visual = model.visual
    if _is_vit(visual):
        _require(visual.attn_pool is None, "attention pooling", "'tok' or 'avg'")
        _require(visual.pool_type in ("tok", "avg"), f"image pooling {visual.pool_type!r}", "'tok' or 'avg'")
        _describe(visual.transformer)
    if not hf_encoder.is_encoder(text):
        _require(hasattr(text, "transformer") and hasattr(text, "token_embedding"), "text tower", "TextTransformer")
        _require(getattr(text, "cls_emb", None) is None, "text class embedding", "end-token pooling")
        _require(text_pool(text) in POOLS, f"text pooling {text_pool(text)!r}", ", ".join(map(repr, POOLS)))
        _describe(text.transformer)
    size = tuple(_image_size(visual))
    _require(len(set(size)) == 1, f"images of {' x '.join(map(str, size))} pixels", "square ones")


def towers(tensors: dict[str, Tensor], spec: dict[str, Any]) -> tuple[TextTower, VisionTower]:
    """Build both towers from exported tensors."""
    halves = {
        half: {name.removeprefix(f"{half}."): t for name, t in tensors.items() if name.startswith(f"{half}.")}
        for half in ("text", "vision")
    }
    padded = PaddedTextTower if "causal" in spec["text"] else TextTower
    text = {"before": EncoderTower, "behind": PostNormEncoderTower}.get(spec["text"].get("norms"), padded)
    vision = WholeTower if "whole" in spec["vision"] else VisionTower
    return text(halves["text"], spec["text"]), vision(halves["vision"], spec["vision"])


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
    marks = spec["text"].get("marks", {})
    end = None if marks else getattr(getattr(model, "text", model), "text_eos_id", None)
    for row, stop in zip(tokens, (2, length // 3, length // 2, length - 1, length - 1), strict=True):
        row[:stop] = torch.randint(1, vocabulary - 2, (stop,), generator=generator)
        for mark in marks.values():  # which our towers know by their places alone
            row[:stop][row[:stop] == mark] = vocabulary - 2
        row[stop] = vocabulary - 1
        if end is not None:
            row[row == end] = 1
            row[stop] = end
    packed = text.pack(tokens)
    theirs = model.encode_text(getattr(packed, "ids", tokens), normalize=True)
    pairs = (
        (model.encode_image(images, normalize=True), nn.functional.normalize(vision(images), dim=-1)),
        (theirs, nn.functional.normalize(text(packed), dim=-1)),
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
