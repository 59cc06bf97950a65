"""Dropout whose masks are a hash of a key."""

from __future__ import annotations

import pytest
import torch

from cpt.methods.base.layers import MASKS, dropout


def key(value: int) -> torch.Tensor:
    return torch.tensor([value])


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.9])
def test_dropout_has_its_rate_and_keeps_the_mean(rate: float) -> None:
    x = torch.full((200, 96), 2.0)
    found = dropout(x, rate, key(2**62 + 12345), MASKS)
    assert found.shape == (MASKS, 200, 96)
    scaled = torch.tensor(2.0 / (1 - rate))
    assert ((found == 0) | torch.isclose(found, scaled)).all()
    for mask in found == 0:
        spread = (rate * (1 - rate)) ** 0.5
        for axis in (0, 1):  # no row and no column is special
            share = mask.float().mean(dim=axis)
            assert (share - rate).abs().max() <= 5 * spread / mask.shape[axis] ** 0.5
        assert abs(float(mask.float().mean()) - rate) <= 4 * spread / mask.numel() ** 0.5


def test_dropout_is_a_function_of_key_and_position() -> None:
    x = torch.randn(50, 64)
    first = dropout(x, 0.25, key(7), 3)
    torch.manual_seed(99)
    assert torch.equal(first, dropout(x, 0.25, key(7), 3))
    assert torch.equal(first[:, :20] == 0, dropout(x[:20], 0.25, key(7), 3) == 0), "whatever comes behind"
    assert torch.equal(first == 0, dropout(x.bfloat16(), 0.25, key(7), 3) == 0), "whatever the precision"
    assert torch.equal(first[:1], dropout(x, 0.25, key(7), 1)), "the first of more masks"


def test_masks_of_keys_and_copies_are_independent() -> None:
    """Two of rate 1/4 agree in 10/16 of the places; neighboring keys and neighboring rows do as well."""
    x = torch.ones(400, 64)
    masks = torch.cat([dropout(x, 0.25, key(value), MASKS) for value in (0, 1, 2, -1, 2**63 - 1)]) == 0
    deviation = 5 * (0.625 * 0.375 / x.numel()) ** 0.5
    for i, one in enumerate(masks):
        for other in masks[:i]:
            assert abs(float((one == other).float().mean()) - 0.625) < deviation
        for shift in (1, 64):
            flat = one.flatten()
            assert abs(float((flat[shift:] == flat[:-shift]).float().mean()) - 0.625) < deviation


def test_gradients_of_dropout_pass_where_values_do() -> None:
    x = torch.randn(30, 16, requires_grad=True)
    found = dropout(x, 0.5, key(3), 2)
    found.sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, 2 * (found != 0).float().sum(dim=0))
