"""Tip-Adapter-F: Tip-Adapter whose keys are learned (Zhang et al., ECCV 2022).

The keys (N, D) start as the unit features of the training images and are learned with a cross-entropy; they are not
normalized again. The last epoch is used; the published code keeps the epoch with the best accuracy on the test images.
A class that was not trained keeps its zero-shot logit.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from cpt.methods.base.hyperparameters import TrainingHyperparameters, field
from cpt.methods.tip_adapter import CODE, CONFIGS, TipAdapter, TipAdapterHyperparameters


class TipAdapterFHyperparameters(TrainingHyperparameters, TipAdapterHyperparameters):
    """Tip-Adapter's and the optimization: AdamW with a cosine of steps."""

    dataset_defaults: ClassVar[dict] = TipAdapterHyperparameters.dataset_defaults | {
        "eurosat": {"alpha": 2.0, "epochs": 100}
    }
    schedule: ClassVar[Literal["epoch", "step"]] = "step"
    epsilon: ClassVar[float] = 1e-4

    templates: str = field("dataset", "template set of the class features", f"{CODE}, utils.py")
    epochs: int = field(20, "passes over the training set", f"{CONFIGS}/imagenet.yaml", ge=0)
    batch_size: int = field(256, "images per step", f"{CODE}, main.py", ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = field(
        "adamw", "adam and adamw: betas 0.9 and 0.999, epsilon 1e-4", f"{CODE}, main.py"
    )
    learning_rate: float = field(0.001, "peak learning rate", f"{CONFIGS}/imagenet.yaml", gt=0)
    weight_decay: float = field(0.01, "decay of the keys", "torch's default for AdamW, as published", ge=0)


class TipAdapterF(TipAdapter):
    """Cross-entropy of the zero-shot classifier plus similarities to learned keys."""

    name = "tip_adapter_f"
    title = "Tip-Adapter-F"
    summary = "Tip-Adapter with learned keys"
    hyperparameters: ClassVar = TipAdapterFHyperparameters
    trains = True

    def hold(self, keys: Tensor) -> None:
        """Make ``keys`` a parameter of the module."""
        self.keys = nn.Parameter(keys)
