"""The learning-rate schedule of the CoOp lineage, and when class weights begin to act.

Its settings are fields of ``TrainingHyperparameters``; which of the two schedules a method has is part of the method.
``cpt.training.loop`` asks before every step. Pretraining has its own.
"""

from __future__ import annotations

import math

from cpt.methods.base.hyperparameters import TrainingHyperparameters


def learning_rate(hp: TrainingHyperparameters, epoch: int, step: int = 0, steps: int = 1) -> float:
    """Return the learning rate of step ``step`` of ``steps`` in an epoch (both 0-based).

    Constant during warm-up, then ``lr (1 + cos(pi (e - W) / E)) / 2`` with W warm-up epochs and E epochs in all. The
    cosine starts at its full value after the warm-up and does not reach its end (repo KaiyangZhou/Dassl.pytorch,
    dassl/optim/lr_scheduler.py, warm-up with recount).

    With ``schedule = "step"``: ``end + (lr - end) (1 + cos(pi t / T)) / 2`` for step t of all T steps, without warm-up
    (torch's CosineAnnealingLR, stepped after every update).
    """
    if hp.schedule == "step":
        end, done = hp.final_learning_rate, (epoch * steps + step) / (hp.epochs * steps)
        return end + (hp.learning_rate - end) * (1 + math.cos(math.pi * done)) / 2
    if epoch < hp.warmup_epochs:
        return hp.warmup_learning_rate
    return hp.learning_rate * (1 + math.cos(math.pi * (epoch - hp.warmup_epochs) / hp.epochs)) / 2


def reweighted(hp: TrainingHyperparameters, epoch: int) -> bool:
    """Return whether class weights act in an epoch (0-based): from ``reweight_after`` of the epochs on, in the last at
    the latest."""
    return epoch >= math.floor(hp.reweight_after * hp.epochs + 1e-9)  # 0.58 · 50 is a little less than 29
