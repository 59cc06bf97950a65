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

from cpt.training.loss_scale import LossScale

if TYPE_CHECKING:
    from cpt.methods.base.hyperparameters import TrainingHyperparameters

BETAS = (0.9, 0.999)


class Optimizer:
    """The optimizer that ``hp.optimizer`` names.

    Args:
        parameters: learned tensors; those without a gradient are not updated.
        hp: optimizer, learning rate, weight decay and momentum.
        scaled: scale the loss, so that small gradients are numbers in float16 too. A step whose gradients overflow
            changes nothing but the scale.
    """

    def __init__(self, parameters: Iterable[Tensor], hp: TrainingHyperparameters, *, scaled: bool = False) -> None:
        self.parameters, self.hp = list(parameters), hp
        device = self.parameters[0].device if self.parameters else None
        self._learning_rate = hp.learning_rate
        self._rate = torch.tensor(hp.learning_rate, device=device)  # a CUDA graph reads it anew in every step
        self._averages: list[dict[str, Tensor]] = [{} for _ in self.parameters]
        self.scale = LossScale(device) if scaled else None

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        if rate != self._learning_rate:
            self._learning_rate = rate
            self._rate.fill_(rate)

    def zero_grad(self) -> None:
        """Clear the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss, which then are of the loss itself whatever the scale."""
        if self.scale is None:
            loss.backward()
            return
        (loss * self.scale.factor).backward()
        self.scale.remove([p.grad for p in self.parameters if p.grad is not None])

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient, in place."""
        learned = [(p, own) for p, own in zip(self.parameters, self._averages, strict=True) if p.grad is not None]
        parameters, averages = [p for p, _ in learned], [own for _, own in learned]
        gradients = [p.grad for p in parameters if p.grad is not None]
        common: dict[str, Any] = {"lr": self._rate, "weight_decay": self.hp.weight_decay, "maximize": False}
        common["fused"] = True  # one kernel for all parameters
        common["found_inf"] = self.scale and self.scale.overflow  # read on the device: if it is 1, nothing is updated
        if self.hp.optimizer == "sgd":
            for parameter, own in learned:
                if self.hp.momentum and not own:
                    own["momentum"] = torch.zeros_like(parameter)
            momenta = [own.get("momentum") for own in averages]
            sgd(parameters, gradients, momenta, momentum=self.hp.momentum, dampening=0, nesterov=False, **common)
        else:
            for parameter, own in learned:
                if not own:
                    zeros = torch.zeros_like(parameter)
                    own |= {"mean": zeros, "square": zeros.clone(), "steps": torch.zeros((), device=parameter.device)}
            means, squares, steps = [[own[name] for own in averages] for name in ("mean", "square", "steps")]
            update = {"adam": adam, "adamw": adamw}[self.hp.optimizer]
            settings: dict[str, Any] = {"beta1": BETAS[0], "beta2": BETAS[1], "eps": self.hp.epsilon, "amsgrad": False}
            update(parameters, gradients, means, squares, [], steps, **settings, **common)
        if self.scale is not None:
            self.scale.update()

    def tensors(self) -> list[Tensor]:
        """The averages and counts that a step changes, and the scale."""
        averages = [value for own in self._averages for value in own.values()]
        return averages + (self.scale.state if self.scale else [])

    def state_dict(self) -> dict[str, Any]:
        """State that a resumed training needs."""
        return {"averages": self._averages} | ({"scale": self.scale.state} if self.scale else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state and move its tensors to the parameters' device."""
        self._averages = [
            {name: value.to(parameter.device) for name, value in own.items()}
            for own, parameter in zip(state["averages"], self.parameters, strict=True)
        ]
        if self.scale is not None:
            for tensor, value in zip(self.scale.state, state["scale"], strict=True):
                tensor.copy_(value)
