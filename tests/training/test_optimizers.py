"""The optimizers: torch's own classes, one operator after the other, are the oracle."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from cpt.methods.base.hyperparameters import TrainingHyperparameters
from cpt.training.loss_scale import LossScale
from cpt.training.optimizers import Optimizer

ORACLES = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
STEPS = 5


def parameters() -> list[torch.nn.Parameter]:
    stream = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=stream)) for shape in ((4, 8), (3,), (2, 2))]


def take_gradients(learned: list[torch.nn.Parameter], step: int) -> None:
    """The second parameter has no gradient in some steps, the third never."""
    stream = torch.Generator().manual_seed(step)
    for number, parameter in enumerate(learned):
        gradient = torch.randn(parameter.shape, generator=stream)
        parameter.grad = None if number == 2 or (number == 1 and step % 2 == 0) else gradient


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", ORACLES)
def test_equals_torch_also_after_an_interruption(name: str, momentum: float) -> None:
    hp = TrainingHyperparameters(optimizer=name, learning_rate=0.1, momentum=momentum, weight_decay=0.01)
    ours, theirs = parameters(), parameters()
    common = {"lr": hp.learning_rate, "weight_decay": hp.weight_decay}
    oracle = ORACLES[name](theirs, **common, **({"momentum": momentum} if name == "sgd" else {}))
    optimizer = Optimizer(ours, hp)
    for step in range(STEPS):
        if step == 2:
            saved = optimizer.state_dict()
            optimizer = Optimizer(ours, hp)
            optimizer.load_state_dict(saved)
        optimizer.learning_rate = oracle.param_groups[0]["lr"] = 0.1 / (step + 1)
        take_gradients(ours, step)
        take_gradients(theirs, step)
        optimizer.step()
        oracle.step()
        for mine, its in zip(ours, theirs, strict=True):
            assert torch.allclose(mine, its, rtol=1e-6, atol=1e-7)  # ours is fused: another order of additions
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in ours)


@pytest.mark.parametrize("name", ORACLES)
def test_equals_torchs_fused_form_bit_by_bit(name: str) -> None:
    """Where every parameter has a gradient; torch's own fused SGD cannot do without."""
    hp = TrainingHyperparameters(optimizer=name, learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    ours, theirs = parameters()[:1], parameters()[:1]
    settings = {"weight_decay": hp.weight_decay, "fused": True, **({"momentum": 0.9} if name == "sgd" else {})}
    optimizer, oracle = Optimizer(ours, hp), ORACLES[name](theirs, lr=torch.tensor(0.1), **settings)
    for step in range(STEPS):
        optimizer.learning_rate = 0.1 / (step + 1)
        oracle.param_groups[0]["lr"] = torch.tensor(0.1 / (step + 1))
        take_gradients(ours, step)
        take_gradients(theirs, step)
        optimizer.step()
        oracle.step()
        assert torch.equal(ours[0], theirs[0])


@pytest.mark.parametrize("name", ORACLES)
def test_scaled_losses_equal_torchs_scaler(name: str) -> None:
    """Also where gradients overflow, and over an interruption."""
    hp = TrainingHyperparameters(optimizer=name, learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    ours, theirs = parameters()[:2], parameters()[:2]
    settings = {"weight_decay": hp.weight_decay, "fused": True, **({"momentum": 0.9} if name == "sgd" else {})}
    optimizer, oracle = Optimizer(ours, hp, scaled=True), ORACLES[name](theirs, lr=0.1, **settings)
    scaler = torch.amp.GradScaler("cpu", growth_interval=LossScale.INTERVAL)
    assert optimizer.scale is not None
    optimizer.scale.good_steps.fill_(LossScale.INTERVAL - 2)
    scaler._lazy_init_scale_growth_tracker(torch.device("cpu"))
    scaler._growth_tracker.fill_(LossScale.INTERVAL - 2)
    factors = []
    for step in range(8):
        if step == 5:
            saved = optimizer.state_dict()
            optimizer = Optimizer(ours, hp, scaled=True)
            optimizer.load_state_dict(saved)
            assert optimizer.scale is not None
        for learned, by in ((ours, optimizer), (theirs, oracle)):
            by.zero_grad()
            large = 1e36 if step in (1, 4) else 1.0
            loss = sum(large * (p * torch.linspace(-1, step, p.numel()).reshape(p.shape)).sum() for p in learned)
            assert isinstance(loss, torch.Tensor)
            if by is optimizer:
                optimizer.backward(loss)
                optimizer.step()
            else:
                scaler.scale(loss).backward()
                scaler.step(oracle)
                scaler.update()
        factors.append(float(optimizer.scale.factor))
        assert factors[-1] == scaler.get_scale()
        for mine, its in zip(ours, theirs, strict=True):
            assert torch.equal(mine, its)
            assert mine.isfinite().all()
    assert factors == [2.0**16] + [2.0**15] * 3 + [2.0**14] * 4


@pytest.mark.parametrize("name", ORACLES)
def test_a_first_step_that_overflows_leaves_no_trace(name: str) -> None:
    hp = TrainingHyperparameters(optimizer=name, learning_rate=0.1, momentum=0.9)
    found = []
    for factors in ((1e36, 1.0), (1.0,)):
        learned = parameters()[:1]
        optimizer = Optimizer(learned, hp, scaled=True)
        for factor in factors:
            optimizer.zero_grad()
            optimizer.backward(factor * learned[0].square().sum())
            optimizer.step()
        found.append(learned[0])
    assert torch.equal(*found)


def test_the_scale_grows() -> None:
    scale = LossScale(None)
    for _ in range(LossScale.INTERVAL):
        scale.remove([torch.ones(2)])
        scale.update()
    assert float(scale.factor) == 2.0**17


def test_a_step_does_not_import_torchs_compiler() -> None:
    code = (
        "import sys, torch; from cpt.methods.base.hyperparameters import TrainingHyperparameters\n"
        "from cpt.training.optimizers import Optimizer\n"
        "for name in sys.argv[1:]:\n"
        "    p = torch.nn.Parameter(torch.ones(2)); o = Optimizer([p], TrainingHyperparameters(optimizer=name))\n"
        "    o.zero_grad(); p.sum().backward(); o.step(); print(name, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *ORACLES], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name} False" for name in ORACLES]
