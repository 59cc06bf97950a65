"""KgCoOp: CoOp whose text features stay close in direction to the frozen ones (Yao et al., CVPR 2023)."""

from __future__ import annotations

from typing import ClassVar

from cpt.methods.base.guidance import Guided
from cpt.methods.base.hyperparameters import field
from cpt.methods.coop import CoOp, CoOpHyperparameters

CODE = "repo htyao89/KgCoOp, trainers/kgcoop.py"
CONFIG = "repo htyao89/Textual-based_Class-aware_prompt_tuning, configs/trainers/KgCoOp/vit_b16_ep100_ctxv1_b128.yaml"


class KgCoOpHyperparameters(CoOpHyperparameters):
    """CoOp's hyperparameters and the weight of the guidance."""

    protocol_defaults: ClassVar[dict] = {}
    dataset_defaults: ClassVar[dict] = {}

    epochs: int = field(100, "passes over the training set", CONFIG, ge=0)
    batch_size: int = field(128, "images per step", CONFIG, ge=1)
    templates: str = field("texture", "template set of the frozen text features", CODE)
    guidance_weight: float = field(
        8.0, "weight of the cosine distance to the frozen features", "Yao et al., CVPR 2023", ge=0
    )


class KgCoOp(Guided, CoOp):
    """Cross-entropy, and guidance by the frozen text features."""

    name = "kgcoop"
    title = "KgCoOp"
    summary = "CoOp guided by frozen text features"
    source = f"Yao et al., CVPR 2023; {CODE}"
    hyperparameters: ClassVar = KgCoOpHyperparameters
