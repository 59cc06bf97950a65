"""A trained run for other programs: its classifier as arrays, or the whole of it as ONNX."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.weights import SUFFIXES
from cpt.errors import CptError
from cpt.evaluation.trained import facts
from cpt.files.atomic import atomic
from cpt.files.stage_files import write_tensors

if TYPE_CHECKING:
    from cpt.methods.base.method import Method

SCHEMA = "cpt.export/1"
EXTRA = "install them with `pip install onnx onnxscript`"


def export(path: Path, method: Method, record: dict[str, Any], names: Sequence[str], text: Tensor) -> None:
    """Write the classifier of some classes, in the format that the path's suffix names.

    ``.npz`` and ``.safetensors`` hold ``text`` (K, D) float32 of unit norm, ``class_names``, and what
    ``cpt.evaluation.trained.facts`` says. ``.onnx`` takes ``pixels`` (B, H, W, 3) uint8, resized and cropped as the
    facts say, and gives unit-norm ``features`` (B, D) and ``probabilities`` (B, K).

    Args:
        path: file to write.
        method: with the learned tensors.
        record: run.json.
        names: K class names.
        text: (K, D) their unit-norm text features, float32 on the CPU.

    Raises:
        CptError: another suffix, a method that classifies otherwise, or the packages of ONNX are missing.
    """
    require_suffix(path)
    if method.own_classifier or method.test_crops > 1:
        raise CptError(f"{path}: {method.name} classifies by more than a matrix of text features; use `cpt classify`")
    WRITERS[path.suffix](path, method, text, {"class_names": list(names), **facts(method, record)})


def require_suffix(path: Path) -> None:
    """Refuse a file whose suffix names no format.

    Raises:
        CptError: it does not; names those that do.
    """
    if path.suffix not in WRITERS:
        state = "; prompts are no weights of CLIP, so there is no state to load into it" * (path.suffix in SUFFIXES)
        raise CptError(f"{path}: cannot export to {path.suffix or 'no suffix'}{state}; use {', '.join(WRITERS)}")


def _npz(path: Path, method: Method, text: Tensor, described: dict[str, Any]) -> None:
    plain = {name: value for name, value in described.items() if name != "run"} | {"run": json.dumps(described["run"])}
    with atomic(path) as temporary:
        np.savez(temporary, allow_pickle=False, text=text.numpy(), **{k: np.asarray(v) for k, v in plain.items()})


def _safetensors(path: Path, method: Method, text: Tensor, described: dict[str, Any]) -> None:
    write_tensors(path, {"text": text}, SCHEMA, **described)


class _Classifier(nn.Module):
    """Pixels to features and probabilities."""

    mean: Tensor
    std: Tensor
    text: Tensor

    def __init__(self, method: Method, text: Tensor) -> None:
        super().__init__()
        merged = method.merged()
        self.vision, self.method = (merged or method.clip).vision, None if merged else method
        self.scale = method.scale
        for name, values in (("mean", method.clip.mean), ("std", method.clip.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.register_buffer("text", text)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        images = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        if self.method is None:
            features = F.normalize(self.vision(images), dim=-1)
        else:
            features = self.method.image_features(images).float()
        return features, (self.scale * features @ self.text.T).softmax(dim=1)


def _onnx(path: Path, method: Method, text: Tensor, described: dict[str, Any]) -> None:
    try:
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError:
        raise CptError(f"{path}: ONNX needs the packages onnx and onnxscript; {EXTRA}") from None
    clip = method.clip
    if clip.dtype != torch.float32 or clip.device.type != "cpu":
        raise CptError(f"{path}: ONNX is of float32 on a CPU; load the run with device='cpu', precision='float32'")
    classifier = _Classifier(method, text).eval()
    example = torch.zeros((2, *clip.image_size, 3), dtype=torch.uint8)
    silenced = logging.root.manager.disable
    logging.disable(logging.WARNING)  # of operators that no library here offers
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                classifier,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["pixels"],
                output_names=["features", "probabilities"],
                verbose=False,
            )
    finally:
        logging.disable(silenced)
    assert program is not None
    program.model.metadata_props["cpt"] = json.dumps({"schema": SCHEMA, **described}, ensure_ascii=False)
    with atomic(path) as temporary:
        program.save(temporary)


WRITERS: dict[str, Callable[[Path, Method, Tensor, dict[str, Any]], None]] = {
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".onnx": _onnx,
}
"""How each format is written, by suffix."""
