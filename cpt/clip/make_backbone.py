"""Making the backbone of an experiment from an unmodified open_clip model, and the tokenizer that belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpt.clip import tiny
from cpt.clip.backbone import SCHEMA
from cpt.clip.export import export, verify
from cpt.errors import CptError, nearest
from cpt.files import read_json, sha256_file, write_json, write_tensors

EMBEDDED = "embedded"


def make_backbone(name: str, architecture: str, pretrained: str, output: Path) -> None:
    """Write ``output`` (backbone.json) and the towers' tensors beside it.

    Args:
        name: what tables call the backbone.
        architecture: ``embedded`` for the tiny CLIP that ships with the package, or a model name of open_clip.
        pretrained: a tag of open_clip's registry, the path of a checkpoint (safetensors), or ``random``.

    Raises:
        CptError: unknown name or tag, weights out of reach, or an architecture that the towers do not support.
    """
    if architecture == EMBEDDED:
        with _assets() as folder:
            model, _ = tiny.load(folder)
        preprocessing = {"mean": tiny.IMAGE_MEAN, "std": tiny.IMAGE_STD}
    else:
        model, preprocessing = _open_clip(architecture, pretrained)
    model = model.float().eval()
    tensors, spec = export(model)
    difference = verify(model, tensors, spec)
    weights = output.with_suffix(".safetensors")
    write_tensors(weights, tensors, "cpt.towers/1")
    write_json(
        output,
        {
            "schema": SCHEMA,
            "name": name,
            "architecture": architecture,
            "pretrained": pretrained,
            "weights": weights.name,
            "sha256": sha256_file(weights),
            "spec": spec,
            "image_mean": list(preprocessing["mean"]),
            "image_std": list(preprocessing["std"]),
            "parameters": sum(p.numel() for p in model.parameters()),
            "largest_difference_to_open_clip": difference,
        },
    )


def load_tokenizer(path: Path) -> Callable[..., Tensor]:
    """Return open_clip's tokenizer of a backbone: (texts, context_length) -> token ids (texts, context length)."""
    record = read_json(path, SCHEMA)
    if record["architecture"] == EMBEDDED:
        with _assets() as folder:
            return tiny.load(folder)[1]
    import open_clip

    return open_clip.get_tokenizer(record["architecture"])


def _assets() -> Any:
    return resources.as_file(resources.files("cpt") / "assets" / "tiny_clip")


def _open_clip(architecture: str, pretrained: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    import open_clip

    if architecture not in open_clip.list_models():
        raise CptError(
            f"backbone.architecture: unknown model {architecture!r}; {nearest(architecture, open_clip.list_models())}"
        )
    local = Path(pretrained)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if pretrained == "random":
        torch.manual_seed(0)
        model = open_clip.create_model(architecture, pretrained=None, precision="fp32")
    elif local.suffix == ".safetensors" or pretrained in tags:
        if local.suffix == ".safetensors" and not local.is_file():
            raise CptError(f"backbone.pretrained: {pretrained}: no such file")
        try:
            model = open_clip.create_model(architecture, pretrained=pretrained, precision="fp32")
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CptError(
                f"backbone.pretrained: cannot load {pretrained!r} for {architecture}: {reason}; "
                "on a machine without internet, give the path of a .safetensors file"
            ) from None
        registered = open_clip.pretrained.get_pretrained_cfg(architecture, pretrained) or {}
        quick = type(model.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
        if registered.get("quick_gelu") and not quick:
            raise CptError(
                f"backbone.architecture: the weights {pretrained!r} were trained with QuickGELU; "
                f"use {architecture}-quickgelu"
            )
    else:
        known = [*tags, "random", "<file>.safetensors"]
        raise CptError(
            f"backbone.pretrained: unknown tag {pretrained!r} for {architecture}; {nearest(pretrained, known)}"
        )
    preprocess = open_clip.get_model_preprocess_cfg(model)
    resizing = (preprocess.get("resize_mode", "shortest"), preprocess.get("interpolation", "bicubic"))
    if resizing != ("shortest", "bicubic"):
        raise CptError(f"backbone: {architecture} resizes by {', '.join(resizing)}; supported is shortest, bicubic")
    return model, {"mean": preprocess["mean"], "std": preprocess["std"]}
