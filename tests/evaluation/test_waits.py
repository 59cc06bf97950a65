"""Nothing between the first image and the results waits for a GPU, shown on tensors that have no values.

On the device "meta" there are shapes only: whoever reads a value, or needs one to know a shape, gets an error.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cpt.clip.backbone import Clip, load_backbone
from cpt.clip.device import Staging
from cpt.data.images import ImageStore
from cpt.data.manifest import read_manifest
from cpt.evaluation import predict
from cpt.features import images
from cpt.features.images import encode, make_image_features
from cpt.files import paths
from cpt.methods.base import registry
from cpt.seeds import torch_stream
from tests.helpers.experiment import COMMON, SMALL, linked

META = torch.device("meta")
METHODS = registry.names()


@pytest.fixture(scope="module")
def root(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment without frozen image features, so that every method sends images through the tower."""
    return linked(results, tmp_path_factory.mktemp("waits"), features=False)


@pytest.fixture
def clip(root: Path, monkeypatch: pytest.MonkeyPatch) -> Clip:
    """The tiny CLIP without values, whose batches are small."""
    monkeypatch.setattr(images, "batch_size", lambda _: 7)
    return load_backbone(root / "backbone.json", META)


@torch.no_grad()
def predicted(name: str, clip: Clip, root: Path) -> tuple[list[tuple[Tensor, ...]], dict[str, Tensor]]:
    """What a prediction of land's base and new classes computes before a value is read."""
    kind = registry.get(name)
    given = {"templates": "single"} | (COMMON | SMALL.get(name, {}) if kind.trains else {})
    hp = kind.hyperparameters(**given | ({"start_hyperparameters": SMALL["promptsrc"]} if name == "dpc" else {}))
    base, new = (predict._target(root, "land", "land", subset, "test", "single", clip) for subset in ("base", "new"))
    method = kind(clip, hp, base.classes, torch_stream(0, "unused")).to(META).eval()
    found: list[tuple[Tensor, ...]] = []
    learned: dict[str, Tensor] = {}
    for targets in predict._groups(method, [base, new]):
        method.target(trained=targets[0].trained)
        best, features = predict._dataset(method, root, targets, "test")
        found, learned = found + best, learned | features
    return found, learned


@pytest.mark.parametrize("name", METHODS)
def test_a_prediction_reads_no_value_before_its_end(name: str, clip: Clip, root: Path) -> None:
    found, learned = predicted(name, clip, root)
    assert [tuple(tensor.shape) for tensor in found[0]] == [(30, 5), (30, 5), (30,)]
    assert all(tensor.device == META for best in found for tensor in best)
    assert all(tensor.device == META for tensor in learned.values())


WAITING: dict[str, Callable[[Tensor], Any]] = {
    "a value": lambda x: x.mean().item(),
    "a truth": lambda x: bool((x > 0).all()),
    "a copy": lambda x: x.cpu(),
    "a boolean index": lambda x: x[x > 0],
    "a count": lambda x: torch.bincount(x.flatten().long()),
}


@pytest.mark.parametrize("what", WAITING)
def test_a_tower_that_waits_is_found(what: str, clip: Clip, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = type(clip.vision).forward

    def waiting(tower: Any, *arguments: Any, **named: Any) -> Tensor:
        found = plain(tower, *arguments, **named)
        WAITING[what](found)
        return found

    monkeypatch.setattr(type(clip.vision), "forward", waiting)
    with pytest.raises((RuntimeError, NotImplementedError)):
        predicted("ivlp", clip, root)


def test_frozen_features_are_read_once(clip: Clip, root: Path, tmp_path: Path) -> None:
    """They are gathered on the device; their values are read when all 60 images have passed."""
    encoded: list[int] = []
    clip.vision.register_forward_hook(lambda _, __, features: encoded.append(len(features)))
    with pytest.raises(NotImplementedError, match="no data"):
        make_image_features(clip, root / paths.manifest("land"), "test", tmp_path / "features.safetensors")
    assert encoded == [7] * 8 + [4]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 20])
def test_memory_is_filled_again_only_after_its_copy(count: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that end as late as a GPU's may, when someone waits for them, take every image once and in order."""
    done: list[Tensor] = []

    class Late(Staging):
        pending: tuple[Tensor, Tensor] | None = None

        def wait(self) -> None:
            if self.pending is not None:
                copy, source = self.pending
                copy.copy_(source)
                self.pending = None

        def upload(self, count: int) -> Tensor:
            assert self.pending is None, "uploaded twice without a wait"
            source = super().upload(count)
            self.pending = torch.empty_like(source), source
            done.append(self.pending[0])
            memories.add(self)
            return self.pending[0]

    memories: set[Late] = set()
    monkeypatch.setattr(images, "Staging", Late)
    monkeypatch.setattr(images, "batch_size", lambda _: 3)
    clip = load_backbone(root / "backbone.json")
    store = ImageStore(root / paths.manifest("land"), clip.image_size[0])
    rows = read_manifest(root / paths.manifest("land")).rows("test")[:count]
    shapes = [batch.shape[0] for batch in encode(clip, store, rows, lambda batch: batch)]
    assert sum(shapes) == count
    assert len(memories) <= 2
    for memory in memories:
        memory.wait()
    assert np.array_equal(torch.cat(done).numpy(), store.pixels(rows))
