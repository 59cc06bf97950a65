"""The optimisers and the learning-rate schedule of the CoOp lineage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cpt.methods.hyperparameters import Trained

if TYPE_CHECKING:
    import torch

    from cpt.methods.base import Method


def learning_rate(hp: Trained, epoch: int) -> float:
    """Return the learning rate of an epoch (0-based).

    Constant during warm-up; then ``lr (1 + cos(pi (e - W) / E)) / 2`` with W warm-up epochs of E in all: the cosine
    starts at its full value after the warm-up and does not reach its end (repo KaiyangZhou/Dassl.pytorch,
    dassl/optim/lr_scheduler.py, warm-up with recount).
    """
    if epoch < hp.warmup_epochs:
        return hp.warmup_learning_rate
    return hp.learning_rate * (1 + math.cos(math.pi * (epoch - hp.warmup_epochs) / hp.epochs)) / 2


def make_optimiser(method: Method, hp: Trained) -> torch.optim.Optimizer:
    """The optimiser that the hyperparameters name, over everything that the method learns.

    Settings beyond the hyperparameters are those of repo KaiyangZhou/Dassl.pytorch, dassl/optim/optimizer.py.
    """
    import torch

    common: dict[str, Any] = {"lr": hp.learning_rate, "weight_decay": hp.weight_decay}
    if hp.optimiser == "sgd":
        return torch.optim.SGD(method.parameters(), momentum=hp.momentum, **common)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[hp.optimiser](method.parameters(), **common)
