"""The base class of methods: learned parameters, prompts, loss and hyperparameters.

Everything that methods have in common (backbone, batches, optimizer, schedule, precision, evaluation) is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.inside import Needs
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import Hyperparameters
from cpt.methods.base.imbalance import class_weights, focal, lade, less_margins
from cpt.methods.base.losses import prior_adjusted


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        images: (B, 3, H, W) normalized images; None when ``features`` are given.
        features: (B, D) raw frozen image features, if cached.
        labels: (B,) labels among the trained classes.
        second: (B, 3, H, W) another augmentation of the same images, for methods with two views.
        drawn: what ``Method.draw`` chose.
        host_labels: the labels on the host, so that none has to be read back; None where they are not known.
        epoch: number of the epoch, from 0.
        step: number of the step in its epoch, from 0.
        reweighted: class weights act, if the loss has any.
        random: random stream of this step.
    """

    images: Tensor | None
    features: Tensor | None
    labels: Tensor
    second: Tensor | None = None
    drawn: Tensor | None = None
    host_labels: list[int] | None = None
    epoch: int = 0
    step: int = 0
    reweighted: bool = True
    random: Random = field(default_factory=lambda: Random(0))


@dataclass(frozen=True)
class TrainingSet:
    """What a method may use of its training set beyond the batches.

    Attributes:
        classes: the K trained classes.
        counts: (K,) training images per class.
        clusters: (K,) cluster of every class; None unless the method needs clusters.
        descriptions: (D, K, dim) unit-norm frozen features of D descriptions per class; None unless needed.
        labels: (N,) labels of all training images.
        take: returns further training images by their positions 0..N-1, in views that depend on the batch's step.
        new_classes: the dataset's other classes, their names and frozen features; None unless the method needs them,
            and where there are none.
    """

    classes: Classes
    counts: Tensor
    clusters: Tensor | None = None
    descriptions: Tensor | None = None
    labels: Tensor | None = None
    take: Callable[[Sequence[int], Batch], Batch] | None = None
    new_classes: Classes | None = None


class Step(NamedTuple):
    """Results of a training step before its backward pass.

    Attributes:
        losses: unweighted components of the loss, scalars in float32.
        image: (B, D) unit-norm image features under the current prompts, detached.
        labels: (B,) their labels.
    """

    losses: dict[str, Tensor]
    image: Tensor
    labels: Tensor


class Method(nn.Module):
    """Base class of all methods. Its ``nn.Parameter``s are learned, saved and loaded; CLIP is not part of it.

    Class attributes that a method sets:
        name: name of its module.
        title: display name in tables.
        summary: one line for ``cpt methods``.
        source: paper and reference repository.
        family: what kind of method it is, one of ``cpt.methods.base.families``.
        reconstruction: built from a description, because neither equations nor code are public.
        control: says what a number is worth; its rows are neither ranked nor tested.
        hyperparameters: its ``Hyperparameters`` subclass.
        prompts_images: False if the vision tower stays unprompted, so that cached frozen features can be used.
        reads_class_token: it makes prompts from the class tokens at a block's input.
        uses_frozen_images: its loss uses frozen image features; cached ones are used if nothing is augmented.
        own_classifier: ``class_logits`` is its classifier, which is more than cosines with its text features.
        image_conditioned: its classifier encodes all texts anew for every image.
        depends_on_batch: how it classifies an image may depend on the images that are classified with it.
        depends_on_target: features of trained and of other classes differ; ``target`` is called before each test.
        augmentation: its own training transform, used if the experiment augments at all; None: the experiment's.
        views: augmented views of every training image, 1 or 2.
        needs_clusters: needs clusters of the trained classes.
        needs_descriptions: needs features of class descriptions.
        needs_training_features: ``prepare`` gets the frozen features of all training images.
        needs_new_classes: is told the names of the dataset's new classes while it trains.
        sized_by_training: names of tensors whose shape the training set decides; ``prepare`` sets them.
        trains: False if there is nothing to learn.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    family: ClassVar[str] = "prompts"
    reconstruction: ClassVar[bool] = False
    control: ClassVar[bool] = False
    hyperparameters: ClassVar[type[Hyperparameters]] = Hyperparameters
    prompts_images: ClassVar[bool] = True
    reads_class_token: ClassVar[bool] = False
    uses_frozen_images: ClassVar[bool] = False
    own_classifier: ClassVar[bool] = False
    image_conditioned: ClassVar[bool] = False
    depends_on_batch: ClassVar[bool] = False
    depends_on_target: ClassVar[bool] = False
    augmentation: ClassVar[str | None] = None
    views: ClassVar[int] = 1
    needs_clusters: ClassVar[bool] = False
    needs_descriptions: ClassVar[bool] = False
    needs_training_features: ClassVar[bool] = False
    needs_new_classes: ClassVar[bool] = False
    sized_by_training: ClassVar[tuple[str, ...]] = ()
    trains: ClassVar[bool] = True

    def __init__(self, clip: Clip, hp: Any, classes: Classes, generator: torch.Generator) -> None:
        """Create the parameters.

        Args:
            clip: the frozen backbone.
            hp: this method's hyperparameters.
            classes: the trained classes; their tokens give the initial context words.
            generator: random stream on the CPU for initial values.

        Raises:
            CptError: the image tower lacks what the method changes.
        """
        super().__init__()
        clip.vision.inside.require(self.name, self.tower_needs(hp))
        self.clip, self.hp = clip, hp

    @property
    def feature_width(self) -> int:
        """Width D of its image and text features."""
        return self.clip.embed_dim

    @property
    def scale(self) -> float:
        """Factor of cosines in its logits."""
        return self.clip.logit_scale

    @property
    def test_crops(self) -> int:
        """Crops of every test image, 1 (its center) or 5 (its corners too), if its hyperparameters say so."""
        crops: int = getattr(self.hp, "test_crops", 1)
        return crops

    @classmethod
    def keeps_images(cls, hp: Any) -> bool:
        """Whether its image features are those of the unmodified CLIP; ``hp`` are its hyperparameters."""
        return not cls.prompts_images and cls.from_frozen is Method.from_frozen

    @classmethod
    def tower_needs(cls, hp: Any) -> Needs:
        """What it needs inside the image tower; ``hp`` are its hyperparameters."""
        if not cls.prompts_images or cls.keeps_images(hp):
            return "nothing"
        return "class token" if cls.reads_class_token else "blocks"

    @classmethod
    def training_augmentation(cls, chosen: str) -> str:
        """Return the experiment's augmentation, or the method's own where the experiment augments at all."""
        return chosen if chosen == "none" else cls.augmentation or chosen

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Text features (K, D) of the given classes under the current prompts, not normalized."""
        raise NotImplementedError

    def raw_image_features(self, images: Tensor) -> Tensor:
        """Image features (B, D) of normalized images (B, 3, H, W) under the current prompts, not normalized."""
        return self.from_frozen(self.clip.vision(images))

    def from_frozen(self, features: Tensor) -> Tensor:
        """Image features (B, D) of raw frozen ones (B, D), where the vision tower stays unprompted; not normalized."""
        return features

    def text_features(self, classes: Classes) -> Tensor:
        """Unit-norm text features (K, D) of the given classes under the current prompts."""
        return F.normalize(self.raw_text_features(classes), dim=-1)

    def image_features(self, images: Tensor) -> Tensor:
        """Unit-norm image features (B, D) of normalized images (B, 3, H, W) under the current prompts."""
        return F.normalize(self.raw_image_features(images), dim=-1)

    def test_features(self, images: Tensor) -> Tensor:
        """Features (B, D) by which test images (B, 3, H, W), or crops of each (B, C, 3, H, W), are classified.

        Those of crops are the mean of their unit features, whose logits are the mean of the crops' logits.
        """
        if images.dim() == 4:
            return self.image_features(images)
        return self.image_features(images.flatten(0, 1)).unflatten(0, images.shape[:2]).mean(dim=1)

    def step(self, batch: Batch, training_set: TrainingSet) -> Step:
        """Compute the losses of one batch, without reading a value of the device."""
        image = self.batch_features(batch)
        return Step(self.losses(image, batch, training_set), image.detach(), batch.labels)

    def draw(self, batch: Batch, training_set: TrainingSet) -> Batch:
        """Return the batch with what the host decides of a step: further images, random choices as tensors.

        Called before ``step``, which is for the device alone: a CUDA graph repeats it.
        """
        return batch

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """Unweighted components of the loss on one batch, scalars in float32; by default only the cross-entropy.

        Args:
            image: (B, D) unit-norm features of the batch's images (``batch_features``).
        """
        logits = self.class_logits(image, training_set.classes)
        return {"cross_entropy": self.cross_entropy(logits, batch, training_set)}

    def weights(self) -> dict[str, float]:
        """Weights of the components that ``losses`` returns; 1 for those not named."""
        return {}

    def total(self, components: dict[str, Tensor]) -> Tensor:
        """Weighted sum of the components."""
        weights = self.weights()
        terms = [value * weights[k] if k in weights else value for k, value in components.items()]
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0]

    def batch_features(self, batch: Batch) -> Tensor:
        """Unit-norm image features (B, D) of a batch under the current prompts."""
        if not self.prompts_images:
            return F.normalize(self.from_frozen(self.raw_frozen_features(batch)), dim=-1)
        assert batch.images is not None
        return self.image_features(batch.images)

    @torch.no_grad()
    def raw_frozen_features(self, batch: Batch) -> Tensor:
        """Frozen image features (B, D) of a batch, of its second view if it has one, not normalized."""
        if batch.features is not None:
            return batch.features
        images = batch.images if batch.second is None else batch.second
        assert images is not None
        return self.clip.vision(images)

    @torch.no_grad()
    def frozen_features(self, batch: Batch) -> Tensor:
        """Unit-norm frozen image features (B, D) of a batch, of its second view if it has one."""
        return F.normalize(self.raw_frozen_features(batch), dim=-1)

    @torch.no_grad()
    def frozen_image_features(self, images: Tensor) -> Tensor:
        """Unit-norm features (B, D) of normalized images (B, 3, H, W) without prompts."""
        return F.normalize(self.clip.vision(images), dim=-1)

    def cross_entropy(self, logits: Tensor, batch: Batch, training_set: TrainingSet) -> Tensor:
        """Cross-entropy of logits (B, K), mean over the batch, or what the hyperparameters put in its place."""
        hp, labels, counts = self.hp, batch.labels, training_set.counts
        if hp.prior != "none":
            logits = prior_adjusted(logits, counts, hp.prior, hp.prior_strength)
        if hp.loss == "lade":
            return lade(logits, labels, counts, hp.lade_weight, hp.lade_regularization)
        if hp.loss == "ldam":
            logits = less_margins(logits, labels, counts, hp.ldam_margin, self.scale)
        weights = None
        if hp.reweight != "none" and batch.reweighted:
            strength = hp.class_balanced_beta if hp.reweight == "class_balanced" else hp.generalized_exponent
            weights = class_weights(counts, hp.reweight, strength)
        if hp.loss == "focal":
            return focal(logits, labels, hp.focal_gamma, weights)
        return F.cross_entropy(logits, labels, weights)

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Scaled cosine similarities (B, K)."""
        return self.scale * image_features @ text_features.T

    def class_logits(self, image_features: Tensor, classes: Classes) -> Tensor:
        """Logits (B, K) of unit-norm image features (B, D)."""
        return self.logits(image_features, self.text_features(classes))

    def merged(self) -> Clip | None:
        """The backbone with all that was learned added to its weights; None where that is not what is learned."""
        return None

    def reference(self, classes: Classes) -> Tensor:
        """Raw features (K, D) that the text features are compared with in the history: what they are untrained."""
        return classes.frozen

    def target(self, *, trained: bool) -> None:
        """Called before features for a test target are computed; ``trained``: its classes and dataset were trained."""

    def begin(self, start: dict[str, Tensor]) -> None:
        """Called once before training with the learned tensors of the run that ``hp.start`` names."""

    def prepare(self, training_set: TrainingSet, features: Tensor | None) -> None:
        """Called once before training, also of a method that does not train, and before its parameters are counted.

        Args:
            training_set: what the method may use.
            features: (N, D) raw frozen features of all training images under the test transform, on the backbone's
                device; None unless ``needs_training_features``.
        """

    def step_end(self) -> None:
        """Called after every step of the optimizer."""

    def epoch_end(self, epoch: int) -> None:
        """Called after every epoch, numbered from 1."""

    def finish(self) -> None:
        """Called once after the last epoch."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load learned tensors; those in ``sized_by_training`` get the shape that they were saved with."""
        for name in self.sized_by_training:
            held = self.get_parameter(name) if name in dict(self.named_parameters()) else self.get_buffer(name)
            held.data = torch.empty_like(state_dict[name], device=held.device)
        return super().load_state_dict(state_dict, strict, assign)

    def training_state(self) -> dict[str, Tensor]:
        """State besides the learned tensors that an interrupted training needs to resume."""
        return {}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Restore what ``training_state`` returned."""

    def learnable_parameters(self) -> int:
        """Number of learned values."""
        return sum(p.numel() for p in self.parameters())
