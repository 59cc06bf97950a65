"""The long tail: golden counts, worked examples, and nesting across τ."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpt.data.longtail import CLASS_ORDERS, class_ranks, long_tail, tail_counts
from cpt.errors import CptError

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "data_longtail.npz")
META = json.loads(str(GOLDEN["meta"]))
RATIOS = st.floats(0.005, 1.0)
LABELS = st.lists(st.integers(0, 8), min_size=1, max_size=80)


def round_robin(sizes):
    return np.array([c for r in range(max(sizes)) for c, size in enumerate(sizes) if r < size])


@pytest.mark.parametrize("ratio", META["ratios"])
@pytest.mark.parametrize("classes", META["Ks"])
def test_counts_agree_with_the_published_code(classes, ratio):
    kept = long_tail(round_robin([16] * classes), 16, ratio, seed=1, order="appearance")
    assert np.array_equal(kept.counts, GOLDEN[f"K{classes}_ratio{ratio}/counts"])


@pytest.mark.parametrize("ratio", META["ratios"])
def test_counts_of_uneven_classes_agree_with_the_published_code(ratio):
    sizes = META["uneven_class_sizes"]
    kept = long_tail(round_robin(sizes), max(sizes), ratio, seed=1, order="appearance")
    assert np.array_equal(kept.counts, GOLDEN[f"uneven_ratio{ratio}/counts"])


@pytest.mark.parametrize(
    ("ratio", "counts"),
    [
        (1, [16] * 10),
        (0.25, [16, 13, 11, 10, 8, 7, 6, 5, 4, 4]),
        (0.06, [16, 11, 8, 6, 4, 3, 2, 1, 1, 1]),
    ],
)
def test_ten_classes(ratio, counts):
    assert tail_counts(10, 16, ratio).tolist() == counts


@pytest.mark.parametrize(
    ("ratio", "classes_per_count"),
    [
        (0.25, [1, 23, 25, 26, 29, 31, 35, 38, 42, 48, 56, 65, 81]),
        (0.06, [1, 11, 12, 13, 15, 15, 17, 19, 20, 24, 27, 33, 39, 51, 72, 131]),
    ],
)
def test_five_hundred_classes(ratio, classes_per_count):
    assert np.bincount(tail_counts(500, 16, ratio))[::-1][: len(classes_per_count)].tolist() == classes_per_count


@pytest.mark.parametrize(
    ("classes", "totals"),
    [
        (1000, (16000, 8170, 4886)),
        (500, (8000, 4087, 2443)),
        (199, (3184, 1631, 976)),
        (98, (1568, 803, 481)),
        (51, (816, 418, 253)),
        (50, (800, 412, 252)),
        (24, (384, 199, 121)),
        (19, (304, 157, 97)),
        (5, (80, 44, 28)),
    ],
)
def test_training_set_sizes_of_the_real_datasets(classes, totals):
    assert tuple(tail_counts(classes, 16, ratio).sum() for ratio in (1, 0.25, 0.06)) == totals


def test_a_single_class_has_n_max():
    assert tail_counts(1, 16, 0.06).tolist() == [16]


@given(st.integers(1, 60), st.integers(1, 40), RATIOS)
def test_counts_fall_from_n_max_and_never_below_one(classes, n_max, ratio):
    counts = tail_counts(classes, n_max, ratio)
    assert counts[0] == n_max
    assert (np.diff(counts) <= 0).all()
    assert counts.min() >= 1
    assert max(classes, n_max) <= counts.sum() <= classes * n_max
    assert (counts <= tail_counts(classes, n_max, 1)).all()


@given(LABELS, st.integers(1, 20), RATIOS, RATIOS, st.integers(0, 3), st.sampled_from(CLASS_ORDERS))
def test_a_smaller_ratio_keeps_a_part_of_a_larger_one(labels, n_max, one, other, seed, order):
    few, many = (long_tail(labels, n_max, ratio, seed, order) for ratio in sorted((one, other)))
    assert set(few.kept.tolist()) <= set(many.kept.tolist())
    assert few.ranks.tolist() == many.ranks.tolist()


@given(LABELS, st.integers(1, 20), RATIOS, st.integers(0, 3), st.sampled_from(CLASS_ORDERS))
def test_counts_and_ranks_describe_what_is_kept(labels, n_max, ratio, seed, order):
    tail = long_tail(labels, n_max, ratio, seed, order)
    classes, available = np.unique(labels, return_counts=True)
    assert sorted(tail.ranks.tolist()) == list(range(len(classes)))
    assert tail.counts.tolist() == np.minimum(tail_counts(len(classes), n_max, ratio)[tail.ranks], available).tolist()
    kept_classes, kept_counts = np.unique(np.array(labels)[tail.kept], return_counts=True)
    assert kept_classes.tolist() == classes.tolist()
    assert kept_counts.tolist() == tail.counts.tolist()


@given(LABELS, st.integers(0, 5))
def test_label_order_does_not_depend_on_list_order_or_seed(labels, seed):
    assert class_ranks(labels, "label", seed).tolist() == class_ranks(labels[::-1], "label", 0).tolist()


@given(st.permutations(list(range(6))))
def test_equal_classes_rank_by_first_appearance(order):
    ranks = class_ranks(order * 3, "appearance", seed=0)
    assert [order[rank] for rank in ranks] == list(range(6))


def test_random_order_depends_on_the_seed_only():
    labels = np.repeat(np.arange(20), 3)
    assert class_ranks(labels, "random", 1).tolist() == class_ranks(labels[::-1], "random", 1).tolist()
    assert class_ranks(labels, "random", 1).tolist() != class_ranks(labels, "random", 2).tolist()


def test_the_kept_images_of_a_class_do_not_depend_on_the_class_order():
    labels = np.repeat(np.arange(6), 16)
    by_label, by_chance = (long_tail(labels, 16, 0.06, 1, order) for order in ("label", "random"))
    for label in range(6):
        one, other = (set(tail.kept[labels[tail.kept] == label].tolist()) for tail in (by_label, by_chance))
        assert one <= other or other <= one


def test_every_class_has_a_draw_of_its_own():
    """Classes of equal size keep other places: a shared stream would keep the same ones of every class."""
    labels = np.repeat(np.arange(8), 16)
    kept = long_tail(labels, 8, 1.0, seed=1).kept.reshape(8, 8) % 16
    assert len({tuple(places) for places in kept.tolist()}) == 8
    alone = long_tail(labels[labels == 3], 8, 1.0, seed=1).kept
    assert alone.tolist() == kept[3].tolist(), "which depends on the label, not on the other classes"


@pytest.mark.parametrize("ratio", [0, -0.1, 1.5, float("nan")])
def test_impossible_ratio(ratio):
    with pytest.raises(CptError, match="imbalance_ratio"):
        tail_counts(3, 16, ratio)


def test_impossible_n_max_and_order():
    with pytest.raises(CptError, match="n_max: 0"):
        tail_counts(3, 0, 1)
    with pytest.raises(CptError, match="did you mean 'label'"):
        class_ranks([0, 1], "labl", 1)
