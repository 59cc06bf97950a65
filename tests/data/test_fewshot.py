"""Few-shot sampling against the published code's lists, and its properties."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpt.data.fewshot import by_class, sample_shots

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "data_fewshot.npz")
META = json.loads(str(GOLDEN["meta"]))
LABELS = st.lists(st.integers(0, 8), min_size=1, max_size=60)


def round_robin(sizes):
    """Items (class, r) in the order of the golden lists: every class once per round while it has items left."""
    order = META["class_order_within_round"]
    return np.array([(c, r) for r in range(max(sizes)) for c in order if r < sizes[c]])


TRAIN = round_robin(META["train_class_sizes"])


@pytest.mark.parametrize("seed", META["seeds"])
@pytest.mark.parametrize("shots", META["shots"])
def test_draws_agree_with_the_published_code(seed, shots):
    drawn = sample_shots(TRAIN[:, 0], shots, seed)
    assert np.array_equal(TRAIN[drawn], GOLDEN[f"seed{seed}_shots{shots}/train"])


@given(LABELS)
def test_by_class_is_a_partition_in_order_of_first_appearance(labels):
    classes = by_class(labels)
    assert list(classes) == list(dict.fromkeys(labels))
    assert all([i for i, x in enumerate(labels) if x == label] == p.tolist() for label, p in classes.items())


@given(LABELS, st.integers(1, 10), st.integers(0, 5))
def test_every_class_gives_what_it_has_up_to_the_shots(labels, shots, seed):
    drawn = sample_shots(labels, shots, seed)
    values = np.array(labels)
    assert len(set(drawn.tolist())) == len(drawn)
    for label in set(labels):
        assert (values[drawn] == label).sum() == min(shots, (values == label).sum())


def test_a_small_class_uses_no_randomness():
    with_small = sample_shots([0] * 3 + [1] * 20, 5, seed=4)
    assert with_small[:3].tolist() == [0, 1, 2]
    assert (with_small[3:] - 3).tolist() == sample_shots([1] * 20, 5, seed=4).tolist()
