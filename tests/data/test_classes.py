"""Base and new halves, re-indexing, and head, medium and tail."""

import json
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpt.data.classes import GROUPS, head_medium_tail, parse_groups, reindex, shot_groups, subset_labels
from cpt.errors import CptError

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "data_subsample_classes.npz")
LABELS = st.lists(st.integers(0, 60), min_size=1, max_size=80)


@pytest.mark.parametrize("subset", ["base", "new"])
@pytest.mark.parametrize("classes", json.loads(str(GOLDEN["meta"]))["Ks"])
def test_halves_agree_with_the_published_code(classes, subset):
    kept = subset_labels(np.arange(classes), subset)
    assert kept.tolist() == GOLDEN[f"K{classes}_{subset}/original_label_from_classname"].tolist()
    assert reindex(kept, kept).tolist() == GOLDEN[f"K{classes}_{subset}/new_label"].tolist()


@pytest.mark.parametrize("subset", ["base", "new"])
def test_halves_with_gaps_agree_with_the_published_code(subset):
    labels = np.array([0, 2, 3, 5, 6, 7, 8] * 2)
    kept = subset_labels(labels, subset)
    new_labels = reindex(labels, kept)
    assert labels[new_labels >= 0].tolist() == GOLDEN[f"gaps_{subset}/original_label_from_classname"].tolist()
    assert new_labels[new_labels >= 0].tolist() == GOLDEN[f"gaps_{subset}/new_label"].tolist()


@pytest.mark.parametrize(
    ("classes", "base"), [(1000, 500), (100, 50), (37, 19), (196, 98), (102, 51), (397, 199), (47, 24), (10, 5)]
)
def test_base_sizes_of_the_real_datasets(classes, base):
    assert len(subset_labels(np.arange(classes), "base")) == base


@given(LABELS)
def test_halves_partition_the_classes_in_order(labels):
    base, new, everything = (subset_labels(labels, subset) for subset in ("base", "new", "all"))
    assert np.concatenate([base, new]).tolist() == everything.tolist() == sorted(set(labels))
    assert len(base) - len(new) in (0, 1)


@given(LABELS, st.sets(st.integers(0, 60)))
def test_reindex_finds_exactly_the_kept_labels(labels, kept):
    ascending = np.array(sorted(kept), dtype=np.int64)
    expected = [sorted(kept).index(label) if label in kept else -1 for label in labels]
    assert reindex(labels, ascending).tolist() == expected


def test_unknown_subset_names_the_nearest():
    with pytest.raises(CptError, match="did you mean 'base'"):
        subset_labels([0, 1], "bas")


@pytest.mark.parametrize(
    ("classes", "sizes"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (19, (7, 6, 6)), (500, (167, 167, 166))]
)
def test_thirds(classes, sizes):
    groups = head_medium_tail(np.arange(classes))
    assert tuple((groups == name).sum() for name in ("head", "medium", "tail")) == sizes


def test_thirds_follow_the_rank_and_not_the_label():
    assert head_medium_tail([5, 0, 3, 1, 2, 4]).tolist() == ["tail", "head", "medium", "head", "medium", "tail"]


@given(st.integers(1, 700))
def test_thirds_are_those_of_array_split(classes):
    sizes = [len(part) for part in np.array_split(np.arange(classes), 3)]
    assert head_medium_tail(np.arange(classes)).tolist() == np.repeat(GROUPS, sizes).tolist()


@given(st.integers(1, 1000), st.lists(st.floats(0.01, 100), min_size=3, max_size=3))
def test_other_parts_are_as_long_as_asked(classes, shares):
    groups = head_medium_tail(np.arange(classes), shares).tolist()
    assert groups == sorted(groups, key=GROUPS.index)
    for group, share in zip(GROUPS, shares, strict=True):
        assert abs(groups.count(group) - classes * share / sum(shares)) < 1 + 1e-6


@pytest.mark.parametrize(
    ("classes", "shares", "sizes"),
    [
        (11, (1, 3, 1), (2, 7, 2)),  # 2.2, 6.6, 2.2
        (9, (1, 3, 1), (2, 5, 2)),  # 1.8, 5.4, 1.8
        (10, (1, 2, 4), (1, 3, 6)),  # 1.43, 2.86, 5.71
        (7, (2, 1, 1), (3, 2, 2)),  # 3.5, 1.75, 1.75
        (5, (1, 1, 2), (1, 1, 3)),  # 1.25, 1.25, 2.5
        (6, (1, 1, 2), (2, 1, 3)),  # 1.5, 1.5, 3: the earlier of equal rests
    ],
)
def test_classes_over_go_to_the_largest_rests(classes, shares, sizes):
    groups = head_medium_tail(np.arange(classes), shares).tolist()
    assert tuple(groups.count(group) for group in GROUPS) == sizes


@given(st.integers(1, 300), st.lists(st.integers(1, 9), min_size=3, max_size=3))
def test_no_other_cut_is_nearer_to_the_shares(classes, shares):
    """What the largest rests give is the cut with the least sum of squared differences (Hamilton's method)."""
    groups = head_medium_tail(np.arange(classes), shares).tolist()
    exact = [Fraction(classes * share, sum(shares)) for share in shares]

    def distance(sizes):
        return sum((size - part) ** 2 for size, part in zip(sizes, exact, strict=True))

    near = [range(int(part), int(part) + 2) for part in exact]
    cuts = [sizes for sizes in product(*near) if sum(sizes) == classes]
    assert distance([groups.count(group) for group in GROUPS]) == min(map(distance, cuts))


def test_a_fifth_of_ten_classes():
    groups = head_medium_tail(np.arange(10), [1, 3, 1]).tolist()
    assert groups == ["head"] * 2 + ["medium"] * 6 + ["tail"] * 2


def test_parts_as_text():
    assert parse_groups("20:60:20") == {"head": 20, "medium": 60, "tail": 20}


@pytest.mark.parametrize("text", ["", "1:1", "1:1:1:1", "1:0:1", "1:-1:1", "a:b:c", "nan:1:1", "inf:1:1"])
def test_other_texts_are_refused(text):
    with pytest.raises(CptError, match="three positive numbers, for example 1:1:1"):
        parse_groups(text)


def test_groups_by_number_of_images():
    assert shot_groups([1, 19, 20, 100, 101, 5000]).tolist() == ["few", "few", "medium", "medium", "many", "many"]
