"""Statistics for few seeds and few datasets: intervals, paired tests, aggregates over tasks.

What is random takes a ``generator`` and draws ``resamples`` times: equal generators give equal numbers. Intervals
cover by ``level``. Accuracies are in percent or fractions alike: nothing here depends on the unit.

Who uses it: ``cpt.results.comparison`` (``cpt compare``), ``cpt.report.tables.significance`` (daggers and ``p_holm`` of
tables, told by ``layouts.datasets``), ``cpt.report.printed.ledger``, and ``docs/kept.py`` for the documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from cpt.metrics.predictions import harmonic_means

Floats = NDArray[np.float64]
RESAMPLES = 10_000


class Interval(NamedTuple):
    """An estimate with the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float


# One number per seed


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of (n,) values, taken as normal, with Student's t interval; bounds are NaN for fewer than two values.

    Raises:
        ValueError: no values.
    """
    x = _array(values)
    mean = float(x.mean())
    if len(x) < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half)


# Two methods, image by image


def paired_bootstrap(
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Difference second - first of two methods on the same images, with a percentile interval.

    Images are drawn anew within each subset, the same ones for both methods. With one subset the compared number is
    its accuracy, with two the harmonic mean of their accuracies. The interval tells of the choice of test images,
    not of seeds.

    Args:
        first: one subset, or base and new: (n,) each, whether an image was right, or the share of seeds.
        second: the same of the other method.

    Raises:
        ValueError: subsets or images differ in number, or there are more than two subsets.
    """
    pairs = [(_array(a), _array(b)) for a, b in zip(first, second, strict=True)]
    drawn = []
    for a, b in pairs:
        if len(a) != len(b):
            raise ValueError(f"{len(a)} and {len(b)} values; give pairs")
        outcomes, first_seen, counts = np.unique(np.stack([a, b]), axis=1, return_index=True, return_counts=True)
        order = np.argsort(first_seen)  # so that the methods may change places
        outcomes, shares = outcomes[:, order], counts[order] / len(a)
        times = generator.multinomial(len(a), shares, size=resamples)
        drawn.append((times @ outcomes.T / len(a)).T)
    observed = _accuracy_or_harmonic(np.array([[a.mean(), b.mean()] for a, b in pairs])[..., None])[:, 0]
    low, high = _percentiles(np.diff(_accuracy_or_harmonic(np.stack(drawn)), axis=0)[0], level)
    return Interval(float(observed[1] - observed[0]), low, high)


# Two methods, dataset by dataset


def sign_flip_test(differences: ArrayLike, generator: np.random.Generator, resamples: int = RESAMPLES) -> float:
    """Two-sided p of a mean difference of zero, by flipping the signs of the datasets' differences (n,).

    Exact (all 2^n flips) where that is no more than ``resamples``. It assumes that each difference is symmetric about
    zero when the methods are equal.
    """
    x = _array(differences)
    if len(x) < 2 or not x.any():
        return 1.0
    test = stats.permutation_test(
        (x,), np.mean, permutation_type="samples", vectorized=True, n_resamples=resamples, rng=generator
    )
    return float(test.pvalue)


def holm(p_values: ArrayLike) -> Floats:
    """Holm's adjusted p values (m,), in the order given: the chance of any false claim stays below the level."""
    p = _array(p_values)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    result = np.empty_like(p)
    result[order] = adjusted
    return result


# Many runs: seeds by datasets (Agarwal et al., NeurIPS 2021)


def interquartile_mean(
    scores: ArrayLike, generator: np.random.Generator, level: float = 0.95, resamples: int = RESAMPLES
) -> Interval:
    """Mean of the middle half of all scores (seeds, datasets), with a bootstrap interval stratified by dataset.

    The interval is wider than the percentiles, as few seeds need it (``_expanded``); bounds are NaN for one seed.
    """
    x = _array(scores, dimensions=2)

    def middle(values: Floats) -> Floats:
        return np.asarray(stats.trim_mean(values.reshape(len(values), -1), 0.25, axis=1))

    drawn = middle(_seeds_drawn(x, generator, resamples))
    return Interval(float(middle(x[None])[0]), *_percentiles(drawn, _expanded(level, x)))


def probability_of_improvement(
    first: ArrayLike,
    second: ArrayLike,
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Chance that a run of the second method beats one of the first on a dataset, averaged over datasets; ties half.

    Both are (seeds, datasets); the number of seeds may differ. Seeds are drawn anew in each dataset; the interval is
    as that of ``interquartile_mean``, by the method with fewer seeds.

    Raises:
        ValueError: the numbers of datasets differ.
    """
    a, b = (_array(scores, dimensions=2) for scores in (first, second))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{a.shape[1]} and {b.shape[1]} datasets; give the same ones")

    def chance(a: Floats, b: Floats) -> Floats:
        pairs = b[:, :, None, :] - a[:, None, :, :]
        return np.asarray(((np.sign(pairs) + 1) / 2).mean(axis=(1, 2, 3)))

    drawn = chance(_seeds_drawn(a, generator, resamples), _seeds_drawn(b, generator, resamples))
    fewer = a if len(a) <= len(b) else b
    return Interval(float(chance(a[None], b[None])[0]), *_percentiles(drawn, _expanded(level, fewer)))


def _seeds_drawn(scores: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    """Draw seeds anew within each dataset: (resamples, seeds, datasets)."""
    seeds, datasets = scores.shape
    rows = generator.integers(seeds, size=(resamples, seeds, datasets))
    return scores[rows, np.arange(datasets)]


def _accuracy_or_harmonic(accuracies: Floats) -> Floats:
    """Accuracy of the only subset, or the harmonic mean of both: accuracies are (subsets, ...)."""
    if len(accuracies) == 1:
        return np.asarray(accuracies[0])
    base, new = accuracies
    return harmonic_means(base, new)


def _expanded(level: float, scores: Floats) -> float:
    """Coverage of percentiles that makes up for few seeds; NaN for one seed.

    Drawing n seeds anew gives (n-1)/n of their variance, and n-1 degrees of freedom per dataset call for Student's t
    in place of the normal quantile. Source: Hesterberg, "What teachers should know about the bootstrap", The American
    Statistician 69, 2015: the expanded percentile interval.
    """
    seeds, datasets = scores.shape
    if seeds < 2:
        return float("nan")
    quantile = stats.t.ppf((1 + level) / 2, datasets * (seeds - 1)) * np.sqrt(seeds / (seeds - 1))
    return float(2 * stats.norm.cdf(quantile) - 1)


def _percentiles(values: Floats, level: float) -> tuple[float, float]:
    if np.isnan(level):
        return level, level
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _array(values: ArrayLike, dimensions: int = 1) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != dimensions or not x.size:
        expected = "a list of numbers" if dimensions == 1 else "(seeds, datasets)"
        raise ValueError(f"expected {expected}, got shape {x.shape}")
    return x
