"""What a method is: its parameters, where its prompts enter, its loss, its hyperparameters.

Everything that is equal between methods (backbone, batches, optimiser, schedule, precision, evaluation) is not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.features import Classes
from cpt.methods.hyperparameters import Hyperparameters


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        images: (B, 3, H, W) normalised images; None when ``features`` are given.
        features: (B, D) raw frozen image features, for methods that do not prompt the vision tower.
        labels: (B,) labels among the trained classes.
    """

    images: Tensor | None
    features: Tensor | None
    labels: Tensor


@dataclass(frozen=True)
class Training:
    """What a method may know about its training set beyond the batches.

    Attributes:
        classes: the K trained classes.
        counts: (K,) training images per class.
        clusters: (K,) cluster of every class; None unless the method asks for clusters.
    """

    classes: Classes
    counts: Tensor
    clusters: Tensor | None


class Method(nn.Module):
    """Base of all methods. Its ``nn.Parameter``s are what is learned, saved and loaded; CLIP is not a part of it.

    Class attributes that a method sets:
        name: the module's name.
        title: the name in tables.
        summary: one line for ``cpt methods``.
        source: paper and reference repository.
        reconstruction: built from a description because no equations or code are public.
        hyperparameters: its ``Hyperparameters`` subclass.
        prompts_images: False when the vision tower stays unprompted, so that cached frozen features can serve.
        needs_clusters: the training stage gets the clusters of its classes.
        trains: False when there is nothing to learn.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    reconstruction: ClassVar[bool] = False
    hyperparameters: ClassVar[type[Hyperparameters]] = Hyperparameters
    prompts_images: ClassVar[bool] = True
    needs_clusters: ClassVar[bool] = False
    trains: ClassVar[bool] = True

    def __init__(self, clip: Clip, hp: Any, classes: Classes, generator: torch.Generator) -> None:
        """Create the parameters.

        Args:
            clip: the frozen backbone.
            hp: this method's hyperparameters.
            classes: the trained classes; initial context words are read from their tokens.
            generator: CPU stream for initial values.
        """
        super().__init__()
        self.clip, self.hp = clip, hp

    def text_features(self, classes: Classes) -> Tensor:
        """Unit-norm text features (K, D) of the given classes under the current prompts."""
        raise NotImplementedError

    def image_features(self, images: Tensor) -> Tensor:
        """Unit-norm image features (B, D) of normalised images (B, 3, H, W) under the current prompts."""
        return F.normalize(self.clip.vision(images), dim=-1)

    def losses(self, batch: Batch, training: Training) -> dict[str, Tensor]:
        """Unweighted components of the loss on one batch; scalars in float32."""
        raise NotImplementedError

    def weights(self) -> dict[str, float]:
        """Weights of the components that ``losses`` returns; 1 for those not named."""
        return {}

    def total(self, components: dict[str, Tensor]) -> Tensor:
        """Weighted sum of the components."""
        weights = self.weights()
        terms = [value * weights[k] if k in weights else value for k, value in components.items()]
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0]

    def batch_features(self, batch: Batch) -> Tensor:
        """Unit-norm image features (B, D) of a batch, from its frozen features when it has them."""
        if batch.features is not None:
            return F.normalize(batch.features, dim=-1)
        assert batch.images is not None
        return self.image_features(batch.images)

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Scaled cosine similarities (B, K)."""
        return self.clip.logit_scale * image_features @ text_features.T

    def learnable_parameters(self) -> int:
        """Number of learned values."""
        return sum(p.numel() for p in self.parameters())
