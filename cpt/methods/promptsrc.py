"""PromptSRC: IVLP's prompts regularized by frozen CLIP, averaged over the epochs (Khattak et al., ICCV 2023)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cpt.clip.backbone import Clip
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import field
from cpt.methods.base.layers import WeightedAverage, gaussian_weights
from cpt.methods.base.losses import anchor, distillation
from cpt.methods.base.method import Batch, TrainingSet
from cpt.methods.ivlp import IVLP, IVLPHyperparameters

CODE = "repo muzairkhattak/PromptSRC, trainers/promptsrc.py"
CONFIG = "repo muzairkhattak/PromptSRC, configs/trainers/PromptSRC/vit_b16_c2_ep20_batch4_4+4ctx.yaml"


class PromptSRCHyperparameters(IVLPHyperparameters):
    """IVLP's prompts, the weights of the self-consistency terms, and the average over the epochs."""

    protocol_defaults: ClassVar[dict] = {
        "all_classes": {"depth_text": 3, "depth_vision": 3, "average_mean": 6, "average_std": 10},
        "few_shot": {"epochs": 50, "average_mean": 30, "average_std": 30},
    }
    dataset_defaults: ClassVar[dict] = {
        f"few_shot/{dataset}": {"average_mean": 45, "average_std": 5}
        for dataset in ("stanford_cars", "oxford_flowers", "fgvc_aircraft", "dtd", "eurosat")
    }

    epochs: int = field(20, "passes over the training set (50 for few_shot)", CONFIG, ge=0)
    batch_size: int = field(4, "images per step", CONFIG, ge=1)
    learning_rate: float = field(0.0025, "peak learning rate", CONFIG, gt=0)
    text_prompts: int = field(4, "context vectors per prompted text block", CONFIG, ge=1)
    visual_prompts: int = field(4, "prompt tokens per prompted vision block", CONFIG, ge=1)
    depth_text: int = field(9, "prompted text blocks (3 for all_classes)", CONFIG, ge=1)
    depth_vision: int = field(9, "prompted vision blocks (3 for all_classes)", CONFIG, ge=0)
    words: bool = field(True, "start the shallow text prompts from 'a photo of a' (when n <= 4)", CONFIG)
    templates: str = field("ensemble", "template set of the frozen text features", CODE)
    text_weight: float = field(25, "weight of the mean L1 distance to the frozen text features", CONFIG, ge=0)
    image_weight: float = field(10, "weight of the mean L1 distance to the frozen image features", CONFIG, ge=0)
    logits_weight: float = field(1, "weight of the divergence from the frozen prediction", CODE, ge=0)
    average_mean: float = field(15, "epoch of the largest weight (6 for all_classes, 30 for few_shot)", CONFIG)
    average_std: float = field(1, "width of the weights in epochs (10 for all_classes, 30 for few_shot)", CONFIG, gt=0)


class PromptSRC(IVLP):
    """Cross-entropy, consistency with frozen features and predictions, and a Gaussian average of the prompts."""

    name = "promptsrc"
    title = "PromptSRC"
    summary = "IVLP held near frozen CLIP by three consistency terms, prompts averaged over epochs"
    source = f"Khattak et al., ICCV 2023; {CODE}"
    hyperparameters: ClassVar = PromptSRCHyperparameters
    uses_frozen_images = True

    def __init__(self, clip: Clip, hp: PromptSRCHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self._average = WeightedAverage()

    def weights(self) -> dict[str, float]:
        """Weights of the three consistency terms."""
        hp = self.hp
        return {"text": hp.text_weight, "image": hp.image_weight, "prediction": hp.logits_weight}

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """Cross-entropy and the three consistency terms."""
        text = self.text_features(training_set.classes)
        frozen_text = training_set.classes.frozen_unit
        frozen_image = self.frozen_features(batch)
        logits = self.logits(image, text)
        return {
            "cross_entropy": self.cross_entropy(logits, batch, training_set),
            "text": anchor(text, frozen_text, "mean"),
            "image": anchor(image, frozen_image, "mean"),
            "prediction": distillation(logits, self.logits(frozen_image, frozen_text)),
        }

    def epoch_end(self, epoch: int) -> None:
        """Add the epoch's prompts to the average; the published code averages the frozen weights as well."""
        weight = gaussian_weights(self.hp.epochs, self.hp.average_mean, self.hp.average_std)[epoch - 1]
        self._average.add(self.named_parameters(), float(weight))

    @torch.no_grad()
    def finish(self) -> None:
        """Replace the last prompts by the average."""
        for name, average in self._average.sums.items():
            self.get_parameter(name).copy_(average)

    def training_state(self) -> dict[str, Tensor]:
        """The weighted sums so far."""
        return dict(self._average.sums)

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Restore the weighted sums."""
        self._average.sums = {name: value.to(self.clip.device) for name, value in state.items()}
