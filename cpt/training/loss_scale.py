"""Scaling of losses, so that small gradients are numbers in float16 too."""

from __future__ import annotations

import torch
from torch import Tensor


class LossScale:
    """The factor of the loss: halved after a step whose gradients overflow, doubled after 2,000 that do not.

    These are the numbers of ``torch.amp.GradScaler``, whose operators it calls. That class asks the device after every
    step whether gradients overflowed; here the update rules read it where it is, so that nothing waits.

    Attributes:
        factor: begins at 2^16.
        good_steps: int32, steps without an overflow since the last change.
        overflow: 1 where a gradient of this step is not finite.
    """

    START, GROWTH, BACKOFF, INTERVAL = 2.0**16, 2.0, 0.5, 2000

    def __init__(self, device: torch.device | None) -> None:
        self.factor = torch.full((), self.START, device=device)
        self.good_steps = torch.zeros((), dtype=torch.int32, device=device)
        self.overflow = torch.zeros((), device=device)

    @property
    def state(self) -> list[Tensor]:
        """What lasts from step to step."""
        return [self.factor, self.good_steps]

    @torch.no_grad()
    def remove(self, gradients: list[Tensor]) -> None:
        """Divide gradients by the factor, in place, and note whether they are finite."""
        self.overflow.zero_()
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, self.overflow, self.factor.reciprocal())

    @torch.no_grad()
    def update(self) -> None:
        """Choose the factor of the next step."""
        torch._amp_update_scale_(self.factor, self.good_steps, self.overflow, self.GROWTH, self.BACKOFF, self.INTERVAL)
