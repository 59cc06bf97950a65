"""What a GPU would refuse, shown on a CPU: a step whose tensors are not all on the device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.check import Check
from benchmarks.gpu.numerics import computed
from benchmarks.loops import TRAINED
from cpt.methods.base import losses
from tests.helpers import golden_clip
from tests.helpers.pretended_gpu import GPU, pretended_gpu
from tests.methods import test_golden, test_golden_dpc

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _constants_of_their_own() -> Iterator[None]:
    """Constants by device are made anew: the pretended GPU's are not the next one's."""
    yield
    for cache in (losses.positions, losses._zeros):
        cache.cache_clear()


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_is_the_same_on_a_device(name: str, tmp_path: Path) -> None:
    """The host's draw too, which has all labels, scores and pictures where they are needed; then an epoch's end."""
    check = Check(CPU, True, tmp_path / "rows.json")
    wanted = computed(check, name, CPU, torch.float32)
    losses.positions.cache_clear()
    with pretended_gpu():
        found = computed(check, name, GPU, torch.float32, wanted)
        assert (found.loss, found.gradient.tolist()) == (wanted.loss, wanted.gradient.tolist())
        assert found.batch.labels.device == GPU
        steps = check.steps(name, check.clip(torch.bfloat16, GPU, small=True), 24)
        steps.loop.step(steps.batch(0))
        assert steps.loop._epoch_row(0, 1)["loss"] > 0
        assert all(parameter.device == GPU for parameter in steps.loop.method.parameters())


@pytest.mark.parametrize("name", ["coop_ctx4_csc", "promptsrc_d2_nv2_nt4", "dpc_coop_w02_noinit"])
def test_a_golden_case_can_be_computed_on_a_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = golden_clip.Case(name)
    golden_clip.model(case.meta["weight_salt"])
    golden_clip.golden_clip.cache_clear()
    losses.positions.cache_clear()
    monkeypatch.setattr(golden_clip, "DEVICE", GPU)
    monkeypatch.setattr(golden_clip, "prepare_device", lambda *_: None)
    with pretended_gpu():
        if name.startswith("dpc"):
            run = test_golden_dpc.DPC(case, monkeypatch)
        else:
            run = next(kind for prefix, kind in test_golden.KINDS.items() if name.startswith(prefix))(case)
        assert next(run.method.parameters()).device == GPU
        run.compare()
    golden_clip.golden_clip.cache_clear()


def test_a_tensor_on_the_cpu_is_found() -> None:
    with pretended_gpu():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert (there * 2).device == there.device == GPU
        assert here.to(GPU).device == GPU
        assert (there.cpu() + here).device == CPU
        with pytest.raises(RuntimeError, match=r"mul: a tensor of shape \(3,\) is on the CPU"):
            there * here
        with pytest.raises(TypeError, match="numpy cannot read the GPU"):
            there.numpy()
    assert (torch.ones(3) + 1).device == CPU
