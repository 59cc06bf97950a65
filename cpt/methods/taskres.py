"""TaskRes: a learned residual beside the class texts (Yu et al., CVPR 2023), as the code of CLAP trains it.

A trained class has the row ``w_c = t_c + 0.5 R_c``: its raw text feature t_c, which stays, and a residual R_c, which
starts at zero and is all that is learned. A class that was not trained is scored by its text feature: R_c = 0.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from cpt.clip.backbone import Clip
from cpt.features.text import Classes
from cpt.methods.base.class_rows import CLAP_CODE, ProbeHyperparameters, RowClassifier
from cpt.methods.base.hyperparameters import field


class TaskResHyperparameters(ProbeHyperparameters):
    """Those of the linear probes and the factor of the residual."""

    residual_scale: float = field(0.5, "factor of the residual", CLAP_CODE, gt=0)


class TaskRes(RowClassifier):
    """Cross-entropy of frozen image features against the class texts with a learned residual."""

    name = "taskres"
    title = "TaskRes"
    summary = "a learned residual beside the frozen class texts"
    source = f"Yu et al., CVPR 2023; {CLAP_CODE}"
    family = "probes"
    hyperparameters: ClassVar = TaskResHyperparameters

    def __init__(self, clip: Clip, hp: TaskResHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.residual = nn.Parameter(torch.zeros_like(classes.frozen))

    def class_rows(self) -> Tensor:
        """Text features with their residuals (K, D)."""
        return self.trained.frozen + self.hp.residual_scale * self.residual
