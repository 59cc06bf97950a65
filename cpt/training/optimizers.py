"""SGD, Adam and AdamW with torch's update functions, but without torch's optimizer classes.

Creating an instance of these classes imports torch's compiler, although nothing is compiled. This import takes as long
as a short job trains. The settings are those of repo KaiyangZhou/Dassl.pytorch, dassl/optim/optimizer.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

if TYPE_CHECKING:
    from cpt.methods.base.hyperparameters import TrainingHyperparameters

BETAS, EPSILON = (0.9, 0.999), 1e-8


class Optimizer:
    """The optimizer that ``hp.optimizer`` names.

    Args:
        parameters: learned tensors; those without a gradient are not updated.
        hp: optimizer, learning rate, weight decay and momentum.

    Attributes:
        learning_rate: learning rate of the next step.
    """

    def __init__(self, parameters: Iterable[Tensor], hp: TrainingHyperparameters) -> None:
        self.parameters, self.hp = list(parameters), hp
        self.learning_rate = hp.learning_rate
        self._averages: list[dict[str, Tensor]] = [{} for _ in self.parameters]

    def zero_grad(self) -> None:
        """Clear the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient, in place."""
        learned = [(p, own) for p, own in zip(self.parameters, self._averages, strict=True) if p.grad is not None]
        parameters, averages = [p for p, _ in learned], [own for _, own in learned]
        gradients = [p.grad for p in parameters if p.grad is not None]
        common: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.hp.weight_decay, "maximize": False}
        if self.hp.optimizer == "sgd":
            momenta = [own.get("momentum") for own in averages]  # filled in by the first step
            sgd(parameters, gradients, momenta, momentum=self.hp.momentum, dampening=0, nesterov=False, **common)
            for own, momentum in zip(averages, momenta, strict=True):
                own |= {} if momentum is None else {"momentum": momentum}
            return
        for parameter, own in learned:
            if not own:  # the count is on the CPU, because every step reads it
                zeros = torch.zeros_like(parameter)
                own |= {"mean": zeros, "square": zeros.clone(), "steps": torch.zeros((), device="cpu")}
        means, squares, steps = [[own[name] for own in averages] for name in ("mean", "square", "steps")]
        update = {"adam": adam, "adamw": adamw}[self.hp.optimizer]
        settings: dict[str, Any] = {"beta1": BETAS[0], "beta2": BETAS[1], "eps": EPSILON, "amsgrad": False}
        update(parameters, gradients, means, squares, [], steps, **settings, **common)

    def state_dict(self) -> dict[str, Any]:
        """State that a resumed training needs."""
        return {"averages": self._averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state and move its tensors to the parameters' device."""
        self._averages = [
            {name: value if name == "steps" else value.to(parameter.device) for name, value in own.items()}
            for own, parameter in zip(state["averages"], self.parameters, strict=True)
        ]
