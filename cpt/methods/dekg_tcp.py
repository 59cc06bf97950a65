"""DeKg on TCP: class prompts computed from the frozen text features enter a middle block of the text tower.

The CPT paper's DeKg rows agree with this variant. The class prompts are those of TCP (Yao et al., CVPR 2024).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import TrainingHyperparameters, field
from cpt.methods.base.layers import Bottleneck
from cpt.methods.base.losses import cosine_distance, dependence
from cpt.methods.base.method import Batch, Method, TrainingSet
from cpt.methods.base.prompts import TextPrompts, require_block

CONFIG = "repo cnunlp/DeKg, configs/trainers/DeKg_TCP"
CODE = "repo cnunlp/DeKg, trainers/DeKg_TCP.py"
SCRIPTS = "repo cnunlp/DeKg, scripts (ten datasets)"


class DeKgTCPHyperparameters(TrainingHyperparameters):
    """Defaults of the published configuration."""

    epochs: int = field(100, "passes over the training set", CONFIG, ge=0)
    batch_size: int = field(32, "images per step", CONFIG, ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = field("adam", "adam and adamw: betas 0.9 and 0.999", CONFIG)
    learning_rate: float = field(0.002, "peak learning rate", CONFIG, gt=0)
    templates: str = field("tcp", "template set of the frozen text features", CODE)
    context_length: int = field(4, "number of context vectors n", CONFIG, ge=1)
    block: int = field(8, "text block at whose input the class prompts replace the context", CODE, ge=1)
    reduction: int = field(4, "width of the meta-net: joint width / this", CODE, ge=1)
    guidance_weight: float = field(8.0, "weight w1 of the cosine distance to the frozen features", SCRIPTS, ge=0)
    independence_weight: float = field(6.0, "weight w2 of the dependence (HSIC) on the frozen features", SCRIPTS, ge=0)


class DeKgTCP(Method):
    """A random context in the input, class prompts before a middle block, and DeKg's two loss terms."""

    name = "dekg_tcp"
    title = "DeKg"
    summary = "class prompts from frozen text features (TCP), guided by them, with an independence term (HSIC)"
    source = f"{CODE}; TCP: Yao et al., CVPR 2024"
    hyperparameters: ClassVar = DeKgTCPHyperparameters
    prompts_images = False

    def __init__(self, clip: Clip, hp: DeKgTCPHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        require_block("block", hp.block, "text", clip.text)
        self.text = TextPrompts(clip, classes, hp.context_length, 1, generator, words=False, dataset_template=True)
        hidden = max(1, clip.embed_dim // hp.reduction)
        outputs = hp.context_length * clip.text.width
        self.meta_net = Bottleneck(clip.embed_dim, hidden, outputs, "quick_gelu", generator)

    def class_prompts(self, classes: Classes) -> Tensor:
        """Prompts (K, n, d) computed from the classes' frozen text features."""
        made = self.meta_net(classes.frozen_unit)
        return made.unflatten(1, (self.hp.context_length, -1))

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Text features (K, D) under the class prompts."""
        return self.text(classes, deep={self.hp.block: self.class_prompts(classes)})

    def weights(self) -> dict[str, float]:
        """Weights w1 and w2."""
        return {"guidance": self.hp.guidance_weight, "dependence": self.hp.independence_weight}

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """As DeKg, but the dependence uses text features before normalization, as in the published code."""
        raw = self.raw_text_features(training_set.classes)
        text, frozen = F.normalize(raw, dim=-1), training_set.classes.frozen_unit
        logits = self.logits(image, text)
        return {
            "cross_entropy": self.cross_entropy(logits, batch, training_set),
            "guidance": cosine_distance(text, frozen),
            "dependence": dependence(raw, frozen),
        }
