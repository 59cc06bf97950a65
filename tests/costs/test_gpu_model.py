"""The model of a GPU: small cases worked out by hand, what may not depend on what, and tables that code must equal."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.loops import TRAINED, Steps
from benchmarks.operators import KEPT, counted
from cpt.clip.packing import PackedPrompts
from cpt.costs import gpu_model
from cpt.costs.gpu_model import BEGIN, BEGIN_TILES, CARDS, FLOOR, HOST, OPERATORS, Card, Gpu, Pass, images, texts
from cpt.costs.stated_costs import Shape, encoded, step_seconds
from cpt.methods.base import describe, registry
from cpt.methods.base.sizes import placeholder_classes, small_clip

VIT_B16 = Shape(512, 224, 16, (512, 12), (768, 12))
ROUND = Gpu(Card("round", 100, 100e12, 50e12, 1e12, 10e9))
"""A card of round numbers: a multiprocessor has 1 TFLOP/s at its peak."""
H100 = Gpu(CARDS["h100"])


def seconds(method: str, classes: int, gpu: Gpu = H100, *, graphs: bool = True, cached: bool = False) -> float:
    hp = describe.published(method, "base_to_new")
    work = encoded(method, hp, classes, hp.batch_size, VIT_B16)  # type: ignore[attr-defined]
    return step_seconds(gpu, method, work, graphs=graphs, cached=cached)


# Tables


def test_operators_are_those_that_were_counted() -> None:
    assert json.loads(KEPT.read_text())["bfloat16"] == OPERATORS


@pytest.mark.parametrize("method", ["ivlp", "coop"])
def test_kernels_of_the_blocks_are_most_of_the_operators(method: str) -> None:
    """Two towers of twelve blocks. What is left of the count is for prompts, losses and the update."""
    image = images(4, 201, 768, 12, backward=method == "ivlp")
    blocks = texts(24, 1, 512, 12).kernels + image.kernels
    assert 0.85 * counted(method).total < blocks <= counted(method).total


def test_methods_with_a_prefix_per_class(monkeypatch: pytest.MonkeyPatch) -> None:
    clip, found, plain = small_clip(), set(), PackedPrompts.apart
    for name in TRAINED:
        steps = Steps(name, clip, placeholder_classes(clip, 24), 4)
        batch = steps.draw(steps.batch(0))
        monkeypatch.setattr(PackedPrompts, "apart", lambda prompts, name=name: (found.add(name), plain(prompts))[1])
        steps.loop._step(batch)
    assert found == set(gpu_model.PER_CLASS)


# By hand


def test_a_matrix_product_by_hand() -> None:
    """One tile of 128 x 128 on each of 100 multiprocessors, then one more than there are."""
    reached = 0.75 * 1e12 * 0.9
    tile = 2 * 128 * 128 * 96 / reached  # too short a sum to be divided
    fast = replace(ROUND, card=ROUND.card._replace(bandwidth=1e15))
    assert fast.linear(1280, 96, 1280) == pytest.approx(BEGIN_TILES + tile)
    large = 2 * 256 * 128 * 96 / (0.75 * 1e12)  # 6 x 10 of them
    assert fast.linear(1281, 96, 1280) == pytest.approx(BEGIN_TILES + large)


def test_a_matrix_product_is_no_faster_than_memory() -> None:
    """Few rows against a large weight: its bytes, once."""
    moved = 2 * (1 * 4096 + 4096 * 16384 + 1 * 16384) / 0.75e12
    assert replace(ROUND, card=ROUND.card._replace(half=1e20)).linear(1, 4096, 16384) == pytest.approx(
        BEGIN_TILES + moved, rel=0.02
    )


def test_element_wise_kernels_by_hand() -> None:
    assert ROUND.moved(10, 3) == 3 * FLOOR
    assert ROUND.moved(3e9, 3) == pytest.approx(3 * (BEGIN + 2e9 / 0.75e12))
    assert replace(ROUND, value=4).moved(3e9, 3) == pytest.approx(3 * (BEGIN + 4e9 / 0.75e12))


@pytest.mark.parametrize("count", [24, 25, 26, 500])
def test_groups_are_those_of_the_text_tower(count: int) -> None:
    """Of prompts that begin with five shared positions and have names of three tokens."""
    clip = small_clip()
    packed = clip.text.pack(placeholder_classes(clip, count, 3).tokens)
    shared, apart = texts(count, 1, 512, 12), texts(count, 1, 512, 12, per_class=True)
    assert (shared.problems, shared.positions) == packed.groups.shape
    assert (apart.problems, apart.positions) == packed.apart()[0].shape
    assert (shared.rows, apart.rows) == (5 + 5 * count, 10 * count)
    assert shared.rows == len(packed.frozen)
    assert shared.ends == len(packed)
    assert texts(count, 3, 512, 12).rows == 3 * shared.rows


def test_a_step_by_hand() -> None:
    """One block without a gradient: what is not in it takes the floor, what the host launches may take longer."""
    tokens = images(1, 128, 64, 1, backward=False)
    assert tokens.kernels == 11
    device = ROUND.tower(tokens) + (20 - 11 + gpu_model.BATCH_OPERATORS) * FLOOR
    host = gpu_model.BATCH_OPERATORS * HOST
    assert ROUND.step(20, [tokens], graphs=True) == pytest.approx(max(device, host))
    assert ROUND.step(20, [tokens], graphs=False) == pytest.approx(host + 20 * HOST)
    drawn = ROUND.step(20, [tokens], graphs=True, drawn=[tokens]) - ROUND.step(20, [tokens], graphs=True)
    assert drawn == pytest.approx(max(ROUND.tower(tokens), 11 * HOST))


def test_memory_by_hand() -> None:
    step, test = images(2, 100, 64, 3), images(50, 100, 64, 3, backward=False)
    weights = 49408 * 64 + 2 * 12 * 3 * 64**2
    assert ROUND.memory([(64, 3), (64, 3)], [step], []) == 2 * (weights + 11 * 3 * 200 * 64)
    assert ROUND.memory([(64, 3), (64, 3)], [step], [test]) == 2 * (weights + 10 * 5000 * 64)


def test_a_large_pass_reaches_the_floating_point_operations() -> None:
    """Between the peak's time and four times it."""
    tokens = images(256, 197, 768, 12, backward=False)
    flops = 256 * 197 * 12 * (24 * 768**2 + 4 * 197 * 768)
    assert flops / 256 == pytest.approx(2 * 17.5e9, rel=0.02), "ViT-B/16: 17.5 GMAC an image"
    assert flops / 989e12 < H100.tower(tokens) < 4 * flops / 989e12


# Directions


@pytest.mark.parametrize("method", TRAINED)
def test_what_makes_a_step_longer(method: str) -> None:
    found = [seconds(method, classes) for classes in (24, 100, 500, 1000)]
    assert found == sorted(found)
    assert seconds(method, 24, graphs=False) >= found[0]
    assert seconds(method, 1000, replace(H100, value=4)) > found[-1]
    assert seconds(method, 1000, Gpu(CARDS["a100"])) > found[-1]
    assert seconds(method, 1000, Gpu(CARDS["h200"])) <= found[-1]


def test_cached_features_save_the_frozen_tower() -> None:
    assert seconds("coop", 24, cached=True) < 0.6 * seconds("coop", 24)
    assert seconds("ivlp", 24, cached=True) == seconds("ivlp", 24)
    gone = images(4, 201, 768, 12, backward=False)
    eager = seconds("promptsrc", 24, graphs=False) - seconds("promptsrc", 24, graphs=False, cached=True)
    assert eager == pytest.approx(gone.kernels * HOST)


def test_a_method_of_ones_own_has_a_cost() -> None:
    tokens = [texts(24, 1, 512, 12)]
    blocks = tokens[0].kernels
    assert gpu_model.operators("mine", tokens) == blocks + gpu_model.OTHER_OPERATORS
    assert gpu_model.operators("coop", tokens) == OPERATORS["coop"]
    deeper: list[Pass] = [tokens[0]._replace(layers=24)]
    assert gpu_model.operators("coop", deeper) == OPERATORS["coop"] + blocks


def test_every_trained_method_is_counted() -> None:
    assert set(OPERATORS) == {name for name in registry.names() if registry.get(name).trains}
