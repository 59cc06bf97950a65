"""Candle: prototypes of all classes, fused with the images by one attention (Shi et al., KDD 2024).

Both towers stay frozen. Every class has a text prototype, its raw text feature, and a visual one: the mean raw feature
of its training images or, for a new class, a learned *virtual prototype* that starts as its text feature. With images X
(B, D), visual prototypes V and text prototypes T (K, D), one attention works on the sequence

    Z = [X P_i; V P_i; T P_t],  N = LayerNorm(Z),  Z' = r MHA(N, N, N) + N = [X'; V'; T']

of B + 2K vectors. The classifier adds the cosines of X' with T' and with V'. In training the prototypes are examples of
their classes too, and the logits get the log of the classes' shares of images, each count plus one.

New classes are those whose names it is told in training. Any other class, of another dataset say, is scored by its
text-initialized row: it joins the sequence with its text feature as both of its prototypes.

The published attention has a dropout of 0.1 in training, which is left out here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.device import upload
from cpt.errors import CptError
from cpt.features.text import Classes
from cpt.methods.base.class_rows import own_rows
from cpt.methods.base.hyperparameters import TrainingHyperparameters, field
from cpt.methods.base.layers import linear
from cpt.methods.base.losses import positions, prior_adjusted
from cpt.methods.base.method import Batch, Method, TrainingSet
from cpt.metrics.geometry import ClassMeans

CODE = "repo shijxcs/Candle, trainers/candle.py"
SCRIPT = "repo shijxcs/Candle, run_example.sh"
PAPER = "Shi et al., KDD 2024"

ONE = 2.0**-10
"""Further coordinate of an image feature before it is normalized, by which its length can be found again; so small that
no cosine changes."""


class CandleHyperparameters(TrainingHyperparameters):
    """Defaults of the published example, for all protocols."""

    epochs: int = field(50, "passes over the training set", SCRIPT, ge=0)
    batch_size: int = field(128, "images per step", "repo shijxcs/Candle, configs/trainers/Candle", ge=1)
    learning_rate: float = field(3e-4, "peak learning rate", SCRIPT, gt=0)
    prior: Literal["none"] = field("none", "has no effect: compensating is its own", CODE)
    loss: Literal["cross_entropy"] = field("cross_entropy", "has three cross-entropies of its own", CODE)
    reweight: Literal["none"] = field("none", "has no effect: compensating is its own", CODE)
    sampler: Literal["random"] = field("random", "compensating makes up for class frequencies", CODE)
    templates: str = field("dataset", "template set of the text prototypes", CODE)
    compensating: bool = field(
        True, "add the log shares of the classes, counts plus one, to the logits in training", PAPER
    )
    prototype_scale: float = field(
        1.0, "factor of the cosines with visual prototypes", f"{SCRIPT} (train.py: 0.5)", gt=0
    )
    heads: int = field(8, "heads of the attention", CODE, ge=1)
    shared_storage: bool = field(
        True, "text prototypes of new classes are the virtual ones and move with them, as published", CODE
    )
    batch_attention: bool = field(
        True, "all attend to the images too, as published; else to the prototypes alone", CODE
    )
    chunk: int = field(100, "test images in one sequence, in the order of their rows", f"{CODE}: test batches", ge=1)


class Fusion(nn.Module):
    """One attention over a sequence, without dropout; the residual comes from its normalized input."""

    def __init__(self, width: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.ratio = nn.Parameter(torch.tensor([0.1]))
        self.norm = nn.LayerNorm(width)
        bound = math.sqrt(6 / (width + 3 * width))  # Xavier's, as in torch's MultiheadAttention
        self.in_weight = nn.Parameter(torch.empty(3 * width, width).uniform_(-bound, bound, generator=generator))
        self.in_bias = nn.Parameter(torch.zeros(3 * width))
        self.out = linear(width, width, generator)
        nn.init.zeros_(self.out.bias)

    def forward(self, sequence: Tensor, skipped: int = 0) -> Tensor:
        """Fuse a sequence (S, D); nothing attends to its first ``skipped`` vectors."""
        normed = self.norm(sequence)
        parts = F.linear(normed, self.in_weight, self.in_bias).chunk(3, dim=1)
        q, k, v = (part.unflatten(1, (self.heads, -1)).transpose(0, 1).unsqueeze(0) for part in parts)
        attended = F.scaled_dot_product_attention(q, k[:, :, skipped:], v[:, :, skipped:])  # (1, h, S, D/h)
        return self.ratio * self.out(attended.squeeze(0).transpose(0, 1).flatten(1)) + normed


class Candle(Method):
    """Cross-entropies of images and prototypes with text and visual prototypes, before and after a fusion of all."""

    name = "candle"
    title = "Candle"
    summary = "virtual prototypes of new classes, fused with images and text prototypes by attention"
    source = f"{PAPER}; {CODE}"
    family = "adapters"
    hyperparameters: ClassVar = CandleHyperparameters
    prompts_images = False
    own_classifier = True
    depends_on_batch = True
    needs_training_features = True
    needs_new_classes = True
    sized_by_training = ("virtual", "new_text", "new_names")

    prototypes: Tensor
    text: Tensor
    new_text: Tensor
    new_names: Tensor

    def __init__(self, clip: Clip, hp: CandleHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        width = clip.embed_dim
        if width % hp.heads:
            fitting = max(heads for heads in range(1, hp.heads) if width % heads == 0)
            raise CptError(f"heads {hp.heads}: does not divide the joint width {width}; lower it to {fitting}")
        self.image_projection = nn.Parameter(torch.eye(width))
        self.text_projection = nn.Parameter(torch.eye(width))
        self.fusion = Fusion(width, hp.heads, generator)
        self.virtual = nn.Parameter(torch.zeros(0, width))
        self.register_buffer("prototypes", torch.zeros_like(classes.frozen))
        self.register_buffer("text", classes.frozen.clone())
        self.register_buffer("new_text", torch.zeros(0, width))
        self.register_buffer("new_names", torch.zeros(0, dtype=torch.uint8))
        self._names = classes.names
        self._new: tuple[str, ...] = ()
        self._counts = torch.zeros(0)

    @property
    def feature_width(self) -> int:
        """Width of its image and text features: the joint width, and the coordinate ``ONE``."""
        return self.clip.embed_dim + 1

    def prepare(self, training_set: TrainingSet, features: Tensor | None) -> None:
        """Make the visual prototypes: means of features (N, D), and for the new classes their text features."""
        assert features is not None
        assert training_set.labels is not None
        means, device = ClassMeans(len(self.text), features.shape[1], features.device), features.device
        means.add(features, training_set.labels.to(device))
        self.prototypes = means.means().float()
        new = training_set.new_classes
        frozen = self.text[:0] if new is None else new.frozen.float()
        self.virtual, self.new_text = nn.Parameter(frozen.clone()), frozen.clone()
        self._new = () if new is None else new.names
        self.new_names = torch.tensor(list("\0".join(self._new).encode()), dtype=torch.uint8, device=device)
        self._counts = torch.cat([training_set.counts, training_set.counts.new_zeros(len(frozen))])

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load learned tensors, and which classes were new."""
        text = bytes(state_dict["new_names"].tolist()).decode()
        self._new = tuple(text.split("\0")) if text else ()
        return super().load_state_dict(state_dict, strict, assign)

    def from_frozen(self, features: Tensor) -> Tensor:
        """Projected image features (B, D), with the further coordinate ``ONE``: (B, D + 1)."""
        return F.pad(features @ self.image_projection, (0, 1), value=ONE)

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Projected text prototypes (K, D) of the given classes, with a further coordinate of zero: (K, D + 1)."""
        _, text, rows = self.known(classes)
        return F.pad(text.index_select(0, rows), (0, 1))

    def reference(self, classes: Classes) -> Tensor:
        """Raw features (K, D + 1) of the classes under the first projection, the identity."""
        return F.pad(classes.frozen, (0, 1))

    def projected(self) -> tuple[Tensor, Tensor]:
        """Visual and text prototypes (K, D) of trained and new classes, behind their projections."""
        new_text = self.virtual.detach() if self.hp.shared_storage else self.new_text
        visual, text = torch.cat([self.prototypes, self.virtual]), torch.cat([self.text, new_text])
        return visual @ self.image_projection, text @ self.text_projection

    def known(self, classes: Classes) -> tuple[Tensor, Tensor, Tensor]:
        """Projected prototypes (K', D) of trained, new and those of the given classes that are neither; their rows."""
        visual, text = self.projected()
        rows = own_rows((*self._names, *self._new), classes.names)
        others = [k for k, row in enumerate(rows) if row is None]
        if others:
            given = classes.frozen[upload(np.array(others), classes.frozen.device)]
            visual = torch.cat([visual, given @ self.image_projection])
            text = torch.cat([text, given @ self.text_projection])
        first = len(self._names) + len(self._new)
        chosen = [first + others.index(k) if row is None else row for k, row in enumerate(rows)]
        return visual, text, upload(np.array(chosen), visual.device)

    def fuse(self, images: Tensor, visual: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fuse projected images (B, D) and prototypes (K, D): X', V', T'."""
        sequence = torch.cat([images, visual, text])
        fused = self.fusion(sequence, 0 if self.hp.batch_attention else len(images))
        first, second, third = fused.split([len(images), len(visual), len(text)])
        return first, second, third

    def cosines(self, queries: Tensor, prototypes: Tensor) -> Tensor:
        """Scaled cosines (Q, K) of (Q, D) and (K, D)."""
        return self.logits(F.normalize(queries, dim=1), F.normalize(prototypes, dim=1))

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """Three cross-entropies, each a mean over the images of the batch and all visual prototypes."""
        images, (visual, text) = _without_one(image), self.projected()
        first, second, third = self.fuse(images, visual, text)
        fused = torch.cat([first, second])
        targets = torch.cat([batch.labels, positions(len(visual), visual.device)])
        found = {
            "projected": self.cosines(torch.cat([images, visual]), text),
            "fused_text": self.cosines(fused, third),
            "fused_visual": self.hp.prototype_scale * self.cosines(fused, second),
        }
        if self.hp.compensating:
            found = {name: prior_adjusted(logits, self._counts, "compensating") for name, logits in found.items()}
        return {name: F.cross_entropy(logits, targets) for name, logits in found.items()}

    def class_logits(self, image_features: Tensor, classes: Classes) -> Tensor:
        """Logits (N, K) of features (N, D + 1), fused with all prototypes ``chunk`` images at a time."""
        visual, text, rows = self.known(classes)
        found = []
        for images in _without_one(image_features).split(self.hp.chunk):
            first, second, third = self.fuse(images, visual, text)
            found.append(self.cosines(first, third) + self.hp.prototype_scale * self.cosines(first, second))
        return torch.cat(found).index_select(1, rows)


def _without_one(features: Tensor) -> Tensor:
    """Features (B, D) as they were before the coordinate ``ONE`` and their normalization (B, D + 1)."""
    return features[:, :-1] * (ONE / features[:, -1:])
