"""Statistics: closed forms, naive enumeration, and simulated data of known truth."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm, t

from cpt.results import stats


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def covered(intervals: list[stats.Interval], truth: float) -> float:
    return float(np.mean([i.low <= truth <= i.high for i in intervals]))


def test_t_interval_of_three_seeds_in_closed_form() -> None:
    found = stats.t_interval([1.0, 2.0, 3.0])
    assert found == pytest.approx((2.0, 2 - 4.302652729911275 / 3**0.5, 2 + 4.302652729911275 / 3**0.5))
    narrower = stats.t_interval([1.0, 2.0, 3.0], level=0.9)
    assert narrower == pytest.approx((2.0, 2 - 2.919985580353726 / 3**0.5, 2 + 2.919985580353726 / 3**0.5))


@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.no_cover
def test_t_interval_covers(seeds: int) -> None:
    draws = generator().normal(70, 1.5, size=(4000, seeds))
    assert covered([stats.t_interval(x) for x in draws], 70) == pytest.approx(0.95, abs=0.02)


def test_one_seed_has_no_interval() -> None:
    found = stats.t_interval([5.0])
    assert found.estimate == 5
    assert np.isnan(found.low)
    assert np.isnan(found.high)
    with pytest.raises(ValueError, match="list of numbers"):
        stats.t_interval([])


@pytest.mark.no_cover
def test_paired_bootstrap_covers_the_difference_of_accuracies() -> None:
    truth, source, intervals = 0.05, generator(1), []
    for seed in range(1000):
        first = source.random(300) < 0.6
        second = np.where(source.random(300) < 0.7, first, source.random(300) < 0.6 + truth / 0.3)
        intervals.append(stats.paired_bootstrap([first], [second], generator(seed), resamples=1000))
    assert covered(intervals, truth) == pytest.approx(0.95, abs=0.02)


@pytest.mark.no_cover
def test_paired_bootstrap_covers_the_difference_of_harmonic_means() -> None:
    source, intervals = generator(2), []
    rates = {"first": (0.6, 0.7), "second": (0.7, 0.6)}  # base and new: equal harmonic means
    for seed in range(1000):
        a, b = [[source.random(200) < rate for rate in rates[name]] for name in ("first", "second")]
        intervals.append(stats.paired_bootstrap(a, b, generator(seed), resamples=1000))
    assert covered(intervals, 0.0) == pytest.approx(0.95, abs=0.02)


def test_paired_bootstrap_uses_the_pairing() -> None:
    right = generator().random(500) < 0.5
    better = right.copy()
    better[np.flatnonzero(~right)[:5]] = True
    paired = stats.paired_bootstrap([right], [better], generator())
    assert paired.estimate == pytest.approx(0.01)
    assert paired.high - paired.low < 0.02  # unpaired: about 0.12
    with pytest.raises(ValueError, match="pairs"):
        stats.paired_bootstrap([right], [better[1:]], generator())


def test_sign_flips_are_all_tried() -> None:
    differences = np.array([0.9, -0.1, 0.4, 0.7, 0.2])
    flips = np.array(list(product((1, -1), repeat=5)))
    means = (flips * differences).mean(axis=1)
    expected = np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12)
    assert stats.sign_flip_test(differences, generator()) == pytest.approx(expected)
    assert stats.sign_flip_test([0.0, 0.0], generator()) == 1


def test_as_many_sign_flips_are_drawn_as_told() -> None:
    p = stats.sign_flip_test(np.linspace(-1, 2, 12), generator(), resamples=99)
    assert 100 * p == pytest.approx(round(100 * p)), "one flip of a hundred is the one seen"


@pytest.mark.parametrize(("datasets", "resamples"), [(8, 256), (20, 500)], ids=["exact", "drawn"])
@pytest.mark.no_cover
def test_sign_flip_has_its_nominal_size(datasets: int, resamples: int) -> None:
    draws = generator().normal(0, 1, size=(500, datasets)) * np.linspace(0.5, 3, datasets)
    rejected = np.mean(
        [stats.sign_flip_test(x, generator(i), resamples=resamples) <= 0.05 for i, x in enumerate(draws)]
    )
    assert rejected == pytest.approx(0.05, abs=0.025)


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_claims_what_stepping_down_claims(p: list[float]) -> None:
    adjusted = stats.holm(p)
    level, claimed = 0.05, set()
    for step, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[index] * (len(p) - step) > level:
            break
        claimed.add(index)
    assert {i for i, value in enumerate(adjusted) if value <= level} == claimed


def test_interquartile_mean_leaves_out_both_ends() -> None:
    scores = np.array([[0.0, 1, 2, 3], [4, 5, 6, 100]])
    assert stats.interquartile_mean(scores, generator(), resamples=10).estimate == pytest.approx((2 + 3 + 4 + 5) / 4)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.no_cover
def test_interquartile_mean_covers(seeds: int) -> None:
    source, offsets, intervals = generator(3), np.linspace(-1, 1, 8), []
    for seed in range(600):
        scores = source.normal(70, 2, size=(seeds, 8)) + offsets
        intervals.append(stats.interquartile_mean(scores, generator(seed), resamples=1000))
    assert covered(intervals, 70) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.no_cover
def test_probability_of_improvement_covers(seeds: int) -> None:
    source, intervals = generator(4), []
    for seed in range(600):
        first, second = (source.normal(mean, 2, size=(seeds, 8)) for mean in (70, 71))
        intervals.append(stats.probability_of_improvement(first, second, generator(seed), resamples=500))
    assert covered(intervals, float(norm.cdf(1 / 8**0.5))) == pytest.approx(0.95, abs=0.02)


def test_one_seed_has_no_interval_over_seeds() -> None:
    for found in (
        stats.interquartile_mean([[1.0, 2.0, 4.0]], generator()),
        stats.probability_of_improvement([[1.0, 2.0]], [[2.0, 1.0], [3.0, 3.0]], generator()),
    ):
        assert np.isfinite(found.estimate)
        assert np.isnan([found.low, found.high]).all()


def test_probability_of_improvement_counts_pairs() -> None:
    first, second = np.array([[1.0, 5], [2, 6]]), np.array([[2.0, 4], [3, 7]])
    wins = [(1 + 0.5 + 1 + 1) / 4, (0 + 0 + 1 + 1) / 4]
    found = stats.probability_of_improvement(first, second, generator(), resamples=50)
    assert found.estimate == pytest.approx(np.mean(wins))
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    with pytest.raises(ValueError, match="datasets"):
        stats.probability_of_improvement(first, second[:, :1], generator())


# ---- intervals over seeds: every way to draw seeds anew, listed ---------------------------------

RANDOM = np.random.default_rng(8).normal(60, 5, size=(4, 3))
DRAWS, SLACK = 200_000, 0.0015
"""Draws of the bootstrap, and how far the share of draws below a value can be off with so many."""


def tail(level: float, seeds: int, datasets: int) -> float:
    """Share of draws below the interval, by Hesterberg's expanded percentiles: Student's t of the residual's degrees of
    freedom in place of the normal, and the variance that drawing n seeds anew loses."""
    quantile = t.ppf((1 + level) / 2, seeds * datasets - datasets) / (1 - 1 / seeds) ** 0.5
    return float(norm.sf(quantile))


def drawn_anew(scores: np.ndarray) -> list[np.ndarray]:
    """For every dataset, all (seeds ^ seeds, seeds) draws of its seeds."""
    picks = np.array(list(product(range(len(scores)), repeat=len(scores))))
    return [column[picks] for column in scores.T]


def encloses(found: stats.Interval, outcomes: np.ndarray, below: float) -> None:
    """Both bounds leave the share ``below`` of equally likely outcomes outside, as exactly as the draws can tell."""
    for bound, side in ((found.low, below), (found.high, 1 - below)):
        low, high = np.quantile(outcomes, [max(0.0, side - SLACK), min(1.0, side + SLACK)])
        assert low - 1e-9 <= bound <= high + 1e-9


@pytest.mark.parametrize(("seeds", "datasets", "level"), [(3, 2, 0.8), (3, 2, 0.5), (4, 2, 0.8), (2, 3, 0.5)])
def test_interval_of_an_interquartile_mean_by_listing_all_draws(seeds: int, datasets: int, level: float) -> None:
    scores = RANDOM[:seeds, :datasets]
    each = list(product(*drawn_anew(scores)))
    values = np.sort(np.array(each).reshape(len(each), -1), axis=1)
    cut = values.shape[1] // 4
    outcomes = values[:, cut : values.shape[1] - cut].mean(axis=1)
    found = stats.interquartile_mean(scores, generator(), level=level, resamples=DRAWS)
    encloses(found, outcomes, tail(level, seeds, datasets))


@pytest.mark.parametrize("level", [0.5, 0.8])
@pytest.mark.parametrize("turned", [False, True], ids=["fewer seeds first", "fewer seeds second"])
def test_interval_of_an_improvement_is_that_of_the_method_with_fewer_seeds(turned: bool, level: float) -> None:
    few, many = RANDOM[:3, :1], RANDOM[:4, 1:2] + 1.5
    first, second = (many, few) if turned else (few, many)

    def chances(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        """Of every pair of draws of a dataset: share of the pairs of seeds in which the second wins, ties half."""
        pairs = two[None, :, None, :] - one[:, None, :, None]
        return ((pairs > 0).mean(axis=(2, 3)) + (pairs == 0).mean(axis=(2, 3)) / 2).ravel()

    outcomes = chances(*drawn_anew(first), *drawn_anew(second))
    found = stats.probability_of_improvement(first, second, generator(), level=level, resamples=DRAWS)
    encloses(found, outcomes, tail(level, len(few), 1))


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_interval_of_a_paired_bootstrap_by_the_distribution_of_all_draws(level: float) -> None:
    first, second = np.array([0] * 12 + [1] * 18), np.array([1] * 9 + [0] * 6 + [1] * 15)
    shares = np.array([((second - first) == step).mean() for step in (-1, 0, 1)])
    chances = np.ones(1)
    for _ in first:  # one image more
        chances = np.convolve(chances, shares)
    differences, below = np.arange(-30, 31) / 30, np.cumsum(chances)
    found = stats.paired_bootstrap([first], [second], generator(), level=level, resamples=DRAWS)
    assert found.estimate == pytest.approx(6 / 30)
    for bound, side in ((found.low, (1 - level) / 2), (found.high, (1 + level) / 2)):
        low, high = differences[np.searchsorted(below, [side - SLACK, side + SLACK])]
        assert low - 1e-9 <= bound <= high + 1e-9


SCORES = arrays(np.int64, st.tuples(st.integers(2, 5), st.just(3)), elements=st.integers(0, 100))


@settings(max_examples=40)
@given(SCORES, st.integers(-50, 50), st.randoms())
def test_an_interquartile_mean_moves_with_its_scores(scores: np.ndarray, shift: int, random: Any) -> None:
    found = stats.interquartile_mean(scores, generator(), resamples=50)
    assert scores.min() - 1e-9 <= found.low <= found.high <= scores.max() + 1e-9
    assert stats.interquartile_mean(scores + shift, generator(), resamples=50) == pytest.approx(np.array(found) + shift)
    shuffled = random.sample(scores.tolist(), len(scores))
    assert stats.interquartile_mean(shuffled, generator(), resamples=1).estimate == pytest.approx(found.estimate)


@settings(max_examples=40)
@given(SCORES, SCORES, st.integers(-50, 50))
def test_improvement_and_its_opposite_are_certain_together(first: np.ndarray, second: np.ndarray, shift: int) -> None:
    found = stats.probability_of_improvement(first, second, generator(), resamples=50)
    assert 0 <= found.low <= found.high <= 1
    assert found == stats.probability_of_improvement(first + shift, second + shift, generator(), resamples=50)
    opposite = stats.probability_of_improvement(second, first, generator(), resamples=1)
    assert found.estimate + opposite.estimate == pytest.approx(1)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20), st.randoms())
def test_a_paired_bootstrap_is_antisymmetric(right: list[tuple[bool, bool]], random: Any) -> None:
    first, second = np.array(right).T
    found = stats.paired_bootstrap([first], [second], generator(), resamples=50)
    assert -1 <= found.low <= found.high <= 1
    back = stats.paired_bootstrap([second], [first], generator(), resamples=50)
    assert (back.estimate, back.low, back.high) == pytest.approx((-found.estimate, -found.high, -found.low))
    assert stats.paired_bootstrap([first], [first], generator(), resamples=10) == (0, 0, 0)
    first, second = np.array(random.sample(right, len(right))).T
    assert stats.paired_bootstrap([first], [second], generator(), resamples=1).estimate == pytest.approx(found.estimate)


def test_equal_generators_give_equal_numbers() -> None:
    scores, right = generator().normal(size=(3, 5)), [generator().random(50) < 0.5]
    for seed in (0, 1):
        again = [
            (
                stats.interquartile_mean(scores, generator(seed), resamples=100),
                stats.probability_of_improvement(scores, scores + 1e-3, generator(seed), resamples=100),
                stats.paired_bootstrap(right, [~right[0]], generator(seed), resamples=100),
                stats.sign_flip_test(np.arange(30.0) - 10, generator(seed), resamples=100),
            )
            for _ in range(2)
        ]
        assert again[0] == again[1]
