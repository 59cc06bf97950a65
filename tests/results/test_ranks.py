"""Ranks against a computation of their own, by enumeration of all sign flips."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from cpt.results.comparison import Place
from cpt.results.ranks import Rank, ranks

DATASETS = 9
LEVEL = 0.05


def numbers(values: np.ndarray, seeds: tuple[int, ...] = (1, 2)) -> dict[Place, float]:
    """A method's (datasets, seeds) accuracies."""
    return {
        Place("few_shot", "accuracy", 0.06, f"d{i}", seed): float(values[i, j])
        for i in range(len(values))
        for j, seed in enumerate(seeds)
    }


def expected(methods: list[np.ndarray], level: float) -> list[tuple[int, int]]:
    """How many are better, and worse, by exact tests and Holm's method written out."""
    means, pairs = [values.mean(axis=1) for values in methods], list(combinations(range(len(methods)), 2))
    p_values = []
    for i, j in pairs:
        change = means[j] - means[i]
        flips = [abs(np.mean(change * signs)) for signs in product((1, -1), repeat=len(change))]
        p_values.append(np.mean([flip >= abs(change.mean()) - 1e-12 for flip in flips]))
    told, running = {}, 0.0
    for step, index in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, p_values[index] * (len(pairs) - step))
        told[pairs[index]] = running < level
    better, worse = [0] * len(methods), [0] * len(methods)
    for (i, j), differs in told.items():
        if differs:
            high, low = (j, i) if means[j].mean() > means[i].mean() else (i, j)
            better[low] += 1
            worse[high] += 1
    return list(zip(better, worse, strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_ranks_are_those_of_an_independent_computation(seed: int) -> None:
    random = np.random.default_rng(seed)
    base = random.normal(70, 10, (DATASETS, 1))
    methods = [base + shift + random.normal(0, 1.2, (DATASETS, 2)) for shift in (0.0, 0.3, 2.0, 4.0)]
    found = ranks([numbers(values) for values in methods], [False] * 4, LEVEL)
    counts = expected(methods, 0.05)
    assert [(rank.first - 1, 4 - rank.last) for rank in found] == counts
    assert [(rank.behind, rank.ahead) for rank in found] == counts
    assert any(better for better, _ in counts), "something is told"


def test_few_datasets_tell_nothing() -> None:
    methods = [numbers(np.full((4, 2), float(mean))) for mean in (10, 50, 90)]
    assert ranks(methods, [False] * 3, LEVEL) == [Rank(1, 3, 0, 0)] * 3


def test_more_knowledge_takes_no_place_from_less() -> None:
    values = [np.full((DATASETS, 2), float(mean)) for mean in (50, 60, 70)]
    found = ranks([numbers(each) for each in values], [False, False, True], LEVEL)
    assert found[2] == Rank(1, 1, 2, 0), "it is ahead of both"
    assert found[1] == Rank(1, 1, 1, 1), "the first of those that know less"
    assert found[0] == Rank(2, 2, 0, 2)


def test_one_run_of_an_untrained_method_is_paired_with_every_seed() -> None:
    one = numbers(np.full((DATASETS, 1), 10.0), seeds=(0,))
    found = ranks([one, numbers(np.full((DATASETS, 2), 20.0))], [False, False], LEVEL)
    assert [rank.first for rank in found] == [2, 1]


def test_rows_without_a_seed_in_common_are_not_told_apart() -> None:
    one, other = (numbers(np.full((DATASETS, 1), mean), (seed,)) for mean, seed in ((10.0, 1), (90.0, 2)))
    assert ranks([one, other], [False, False], LEVEL) == [Rank(1, 2, 0, 0)] * 2


def test_one_row_is_first() -> None:
    assert ranks([numbers(np.ones((3, 2)))], [False], LEVEL) == [Rank(1, 1, 0, 0)]
    assert ranks([], [], LEVEL) == []
