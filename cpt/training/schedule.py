"""The learning-rate schedule of the CoOp lineage.

Its settings are fields of ``TrainingHyperparameters``, and so would be the choice of another schedule; a new field
changes the key of every run. ``cpt.training.loop`` calls it once per epoch. Pretraining has its own.
"""

from __future__ import annotations

import math

from cpt.methods.base.hyperparameters import TrainingHyperparameters


def learning_rate(hp: TrainingHyperparameters, epoch: int) -> float:
    """Return the learning rate of an epoch (0-based).

    Constant during warm-up, then ``lr (1 + cos(pi (e - W) / E)) / 2`` with W warm-up epochs and E epochs in all. The
    cosine starts at its full value after the warm-up and does not reach its end (repo KaiyangZhou/Dassl.pytorch,
    dassl/optim/lr_scheduler.py, warm-up with recount).
    """
    if epoch < hp.warmup_epochs:
        return hp.warmup_learning_rate
    return hp.learning_rate * (1 + math.cos(math.pi * (epoch - hp.warmup_epochs) / hp.epochs)) / 2
