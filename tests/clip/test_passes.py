"""What a step encodes, counted; and the batches that feed it: views, further images, random streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cpt.clip.backbone import Clip, load_backbone
from cpt.clip.make_backbone import load_tokenizer
from cpt.clip.passes import KINDS, Passes
from cpt.data.images import ImageStore, normalize
from cpt.data.manifest import read_manifest
from cpt.data.split import Split, read_split
from cpt.features.descriptions import make_descriptions
from cpt.files.paths import RUN
from cpt.files.stage_files import read_json
from cpt.methods import cocoop
from cpt.methods.base.method import Batch
from cpt.training.batches import Batches, epoch_order
from cpt.training.train import train
from tests.helpers.contract import Toy
from tests.helpers.experiment import COMMON, SMALL, train_inputs

K, B, STEPS = 5, 16, 5
"""Base classes of land, images per step, steps of an epoch."""


def counts(texts: float, images: float = 0, frozen_images: float = 0, frozen_texts: float = 0) -> dict[str, float]:
    return {"texts": texts, "images": images, "frozen_images": frozen_images, "frozen_texts": frozen_texts}


@pytest.fixture(scope="module")
def descriptions(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    record, path = results / "backbone.json", tmp_path_factory.mktemp("texts") / "descriptions.safetensors"
    names = read_manifest(results / "data/land/manifest.parquet").class_names
    make_descriptions(load_backbone(record), load_tokenizer(record), names, path, templates=["the {}", "a {}"])
    return path


CACHED = {"image_features": "features/land/images-train.safetensors"}


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        ("zeroshot", {}, counts(0)),
        ("coop", {}, counts(K, frozen_images=B)),
        ("coop", CACHED, counts(K)),
        ("coop", CACHED | {"augmentation": "rrc_flip"}, counts(K, frozen_images=B)),
        ("cocoop", {}, counts(B * K, frozen_images=B)),
        ("cocoop", CACHED, counts(B * K)),
        ("ivlp", {}, counts(K, images=B)),
        ("ivlp", CACHED, counts(K, images=B)),
        ("promptsrc", {}, counts(K, images=B, frozen_images=B)),
        ("promptsrc", CACHED, counts(K, images=B)),
        ("coprompt", {}, counts(K, images=B, frozen_images=B)),
        ("coprompt", CACHED, counts(K, images=B)),
        ("coprompt", CACHED | {"augmentation": "rrc_flip"}, counts(K, images=B, frozen_images=B)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_encoded_per_step(
    results: Path, tmp_path: Path, descriptions: Path, method: str, changes: dict[str, Any], expected: dict[str, float]
) -> None:
    given = {key: results / value if key == "image_features" else value for key, value in changes.items()}
    if method == "coprompt":
        given["descriptions"] = descriptions
    inputs = train_inputs(results, method, hyperparameters={"epochs": 1}, **given)
    if method == "zeroshot":
        inputs.hyperparameters.clear()
    train(inputs, tmp_path, lambda _: None)
    record = read_json(tmp_path / "run.json", RUN)
    assert record["steps"] == (0 if method == "zeroshot" else STEPS)
    assert record["encoded_per_step"] == expected


def test_what_is_computed_again_in_the_backward_pass_is_not_counted(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cocoop, "PROMPTS", 10)
    train(train_inputs(results, "cocoop", hyperparameters={"epochs": 1}), tmp_path, lambda _: None)
    assert read_json(tmp_path / "run.json", RUN)["encoded_per_step"] == counts(B * K, frozen_images=B)


def test_dpc_encodes_its_negatives_too(results: Path, tmp_path: Path) -> None:
    """P' encodes the batch and the images of the negatives, P the batch, and once in the run the texts."""
    train(train_inputs(results, "promptsrc"), tmp_path / "one", lambda _: None)
    given = {"start": "promptsrc", "start_hyperparameters": COMMON | SMALL["promptsrc"], "batch_size": 4}
    train(train_inputs(results, "dpc", hyperparameters=given, start=tmp_path / "one"), tmp_path / "two", lambda _: None)
    record = read_json(tmp_path / "two/run.json", RUN)
    found, steps = record["encoded_per_step"], record["steps"]
    assert found["texts"] == K
    assert found["frozen_texts"] == K / steps
    assert found["frozen_images"] == 4
    assert 4 < found["images"] <= 4 + K - 1, "at most one image of every class that is not in the batch"


def test_counting_is_on_demand_and_by_use() -> None:
    toy = Toy("cocoop")
    passes, other = Passes(toy.clip), Passes(toy.clip)
    toy.step(toy.batch())
    assert not passes.counts
    with passes.counting():
        toy.step(toy.batch())
    toy.step(toy.batch())
    assert passes.per_step(1) == counts(6 * 5, frozen_images=6)
    assert passes.per_step(2)["texts"] == 15
    assert not other.counts
    with pytest.raises(ZeroDivisionError), passes.counting():
        _ = 1 // 0
    toy.step(toy.batch())
    assert passes.per_step(1)["texts"] == 30, "an error ends the counting"
    assert not toy.clip.text._forward_hooks, "the towers, which other trainings use, keep nothing of it"
    assert not toy.clip.vision._forward_hooks
    assert set(KINDS) == set(passes.per_step(1))
    assert Passes(toy.clip).per_step(0) == counts(0)


# Batches


@pytest.fixture(scope="module")
def parts(results: Path) -> tuple[Clip, Split, ImageStore]:
    split = read_split(results / "splits/base_to_new/land/r1/s1.parquet")
    return load_backbone(results / "backbone.json"), split, ImageStore(results / "data/land/manifest.parquet")


def batches(parts: tuple[Clip, Split, ImageStore], augmentation: str, views: int = 1, **changes: Any) -> Batches:
    clip, split, store = parts
    given = {"features": None, "batch_size": 16, "seed": 1, "workers": 2} | changes
    return Batches(clip, split, store, augmentation=augmentation, views=views, **given)


def expected(parts: tuple[Clip, Split, ImageStore], positions: Any, augmentation: str, view: int) -> torch.Tensor:
    """The images of training positions, read from the store by their rows of the manifest."""
    clip, split, store = parts
    rows = [split.rows[position] for position in positions]
    return normalize(store.training_pixels(rows, augmentation, 1, 2, view), clip.mean, clip.std)


@pytest.mark.parametrize(
    ("augmentation", "views"), [("rrc_flip", 1), ("rrc_flip", 2), ("rand_augment", 2), ("none", 2)]
)
def test_views_of_a_batch(parts: tuple[Clip, Split, ImageStore], augmentation: str, views: int) -> None:
    found = list(batches(parts, augmentation, views).epoch(2))
    order = epoch_order(80, 16, 1, 2)
    assert len(found) == len(order) == 5
    for batch, positions in zip(found, order, strict=True):
        assert torch.equal(batch.images, expected(parts, positions, augmentation, 0))
        assert batch.labels.tolist() == [parts[1].labels[position] for position in positions] == batch.host_labels
        assert batch.epoch == 2
        assert batch.features is None
        if views == 1 or augmentation == "none":
            assert batch.second is None
        else:
            assert torch.equal(batch.second, expected(parts, positions, augmentation, 1))
            assert not torch.equal(batch.second, batch.images)


STEP = Batch(None, None, torch.empty(0), epoch=2, step=5)


@pytest.mark.parametrize(("augmentation", "views"), [("rrc_flip", 1), ("rand_augment", 2), ("none", 1)])
def test_further_images_are_in_a_view_of_their_own(
    parts: tuple[Clip, Split, ImageStore], augmentation: str, views: int
) -> None:
    made = batches(parts, augmentation, views)
    taken = made.take([7, 3, 7], STEP)
    assert torch.equal(taken.images, expected(parts, [7, 3, 7], augmentation, views + 5))
    assert taken.labels.tolist() == [parts[1].labels[position] for position in (7, 3, 7)]
    assert taken.second is None
    for view in range(views):
        same = torch.equal(taken.images, expected(parts, [7, 3, 7], augmentation, view))
        assert same == (augmentation == "none")
    assert torch.equal(
        taken.images, batches(parts, augmentation, views, batch_size=4, workers=1).take([7, 3, 7], STEP).images
    )


def test_cached_features_follow_the_images(parts: tuple[Clip, Split, ImageStore]) -> None:
    features = torch.arange(80.0).unsqueeze(1).expand(80, 3)
    with_images = batches(parts, "none", features=features)
    clip, split, _ = parts
    alone = batches((clip, split, None), "none", features=features)  # type: ignore[arg-type]
    for made, has_images in ((with_images, True), (alone, False)):
        for batch, positions in zip(made.epoch(2), epoch_order(80, 16, 1, 2), strict=True):
            assert batch.features[:, 0].tolist() == positions.tolist()
            assert (batch.images is not None) == has_images
        taken = made.take([9, 2], STEP)
        assert taken.features[:, 0].tolist() == [9, 2]
        assert (taken.images is not None) == has_images


def drawn(batch: Batch) -> list[float]:
    return [batch.random.random() for _ in range(3)]


@pytest.mark.parametrize("augmentation", ["none", "rand_augment"])
def test_a_batch_does_not_depend_on_where_the_epoch_started(
    parts: tuple[Clip, Split, ImageStore], augmentation: str
) -> None:
    """Resumable: from step 3 on the same images, views, labels and random numbers."""
    whole, resumed = list(batches(parts, augmentation, 2).epoch(2)), list(batches(parts, augmentation, 2).epoch(2, 3))
    assert len(resumed) == 2
    for a, b in zip(whole[3:], resumed, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert drawn(a) == drawn(b)
        if augmentation != "none":
            assert torch.equal(a.second, b.second)


def test_every_step_has_random_numbers_of_its_own(parts: tuple[Clip, Split, ImageStore]) -> None:
    streams = [
        tuple(drawn(batch))
        for seed in (1, 2)
        for epoch in (0, 1)
        for batch in batches(parts, "none", seed=seed).epoch(epoch)
    ]
    assert len(set(streams)) == len(streams) == 20
    assert np.std([stream[0] for stream in streams]) > 0.1
