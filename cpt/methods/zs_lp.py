"""ZS-LP: a linear probe that starts from the class texts (Silva-Rodríguez et al., CVPR 2024).

Logits are ``s cos(f, w_c)`` for a frozen image feature f. The rows w_c start as the raw text features t_c and are
learned without any constraint. A class that was not trained is scored by its text feature.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from cpt.clip.backbone import Clip
from cpt.features.text import Classes
from cpt.methods.base.class_rows import CLAP_CODE, ProbeHyperparameters, RowClassifier


class ZSLP(RowClassifier):
    """Cross-entropy of a cosine classifier of frozen image features that starts as the class texts."""

    name = "zs_lp"
    title = "ZS-LP"
    summary = "linear probe of frozen image features that starts as the class texts"
    source = f"Silva-Rodríguez et al., CVPR 2024; {CLAP_CODE}"
    family = "probes"
    hyperparameters: ClassVar = ProbeHyperparameters

    def __init__(self, clip: Clip, hp: ProbeHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.rows = nn.Parameter(classes.frozen.clone())

    def class_rows(self) -> Tensor:
        """The learned rows (K, D)."""
        return self.rows
