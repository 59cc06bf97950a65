"""TCP: prompts made of the frozen text features enter a middle block of the text tower (Yao et al., CVPR 2024)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from cpt.clip.backbone import Clip
from cpt.features.text import Classes
from cpt.methods.base.guidance import Guided
from cpt.methods.base.hyperparameters import TrainingHyperparameters, field
from cpt.methods.base.layers import Bottleneck
from cpt.methods.base.prompts import TextPrompts, require_block

REPOSITORY = "repo htyao89/Textual-based_Class-aware_prompt_tuning"
CODE = f"{REPOSITORY}, trainers/tcp.py"
CONFIG = f"{REPOSITORY}, configs/trainers/TCP/vit_b16_ep100_ctxv1.yaml"


class ClassPromptHyperparameters(TrainingHyperparameters):
    """Defaults of the published configuration of TCP."""

    epochs: int = field(50, "passes over the training set", CONFIG, ge=0)
    batch_size: int = field(32, "images per step", CONFIG, ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = field("adam", "adam and adamw: betas 0.9 and 0.999", CONFIG)
    learning_rate: float = field(0.002, "peak learning rate", CONFIG, gt=0)
    templates: str = field("tcp", "template set of the frozen text features", CODE)
    context_length: int = field(4, "number of context vectors n", CONFIG, ge=1)
    block: int = field(8, "text block at whose input the class prompts replace the context", CODE, ge=1)
    reduction: int = field(4, "width of the meta-net: joint width / this", CODE, ge=1)
    guidance_weight: float = field(
        8.0, "weight of the cosine distance to the frozen features", f"{REPOSITORY}, scripts/base2new_train.sh", ge=0
    )

    @property
    def initial_words(self) -> bool:
        """Whether the context starts from words."""
        return False


class TCPHyperparameters(ClassPromptHyperparameters):
    """The same, with a choice of initial words."""

    words: bool = field(False, "start from 'a photo of a' (when n <= 4)", CONFIG)

    @property
    def initial_words(self) -> bool:
        """As chosen."""
        return self.words


class TCP(Guided):
    """A random context in the input, class prompts before a middle block, and guidance by the frozen text features."""

    name = "tcp"
    title = "TCP"
    summary = "class prompts from frozen text features, guided by them"
    source = f"Yao et al., CVPR 2024; {CODE}"
    hyperparameters: ClassVar[type[ClassPromptHyperparameters]] = TCPHyperparameters
    prompts_images = False

    def __init__(
        self, clip: Clip, hp: ClassPromptHyperparameters, classes: Classes, generator: torch.Generator
    ) -> None:
        super().__init__(clip, hp, classes, generator)
        require_block("block", hp.block, "text", clip.text)
        self.text = TextPrompts(
            clip, classes, hp.context_length, 1, generator, words=hp.initial_words, dataset_template=True
        )
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
