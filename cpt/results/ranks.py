"""Places of several methods on the same datasets, as far as paired tests tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from cpt.errors import CptError
from cpt.results import stats
from cpt.results.comparison import Numbers, compare


class Rank(NamedTuple):
    """The places that a method may have: from ``first``, behind all that are told to be better, to ``last``.

    Attributes:
        ahead, behind: methods that it is told to be better and worse than.
    """

    first: int
    last: int
    ahead: int
    behind: int


def ranks(methods: Sequence[Numbers], more: Sequence[bool], level: float) -> list[Rank]:
    """Return the rank of every method; two that no test tells apart may have the same places.

    Every pair is tested by flipping the signs of the datasets' differences (``cpt.results.comparison.compare``), and
    p is corrected over all pairs by Holm's method. There are no places in between: of two methods the better one is
    ahead where the corrected p is below ``level``, else neither is.

    Args:
        methods: the numbers of one task, metric and ratio, on the same datasets.
        more: whether a method uses knowledge that others lack. It has its place among all, but takes none from them.
        level: chance of any false claim.
    """
    pairs = list(combinations(range(len(methods)), 2))
    differences, p_values = [], []
    for one, other in pairs:
        try:
            line = compare(methods[one], methods[other])[0][0]
        except CptError:  # no seed in common
            differences.append(0.0)
            p_values.append(1.0)
        else:
            differences.append(line.difference.estimate)
            p_values.append(line.p)
    better: list[set[int]] = [set() for _ in methods]
    worse: list[set[int]] = [set() for _ in methods]
    for (one, other), difference, p in zip(pairs, differences, stats.holm(p_values) if pairs else (), strict=True):
        if p < level:
            high, low = (other, one) if difference > 0 else (one, other)
            better[low].add(high)
            worse[high].add(low)
    found = []
    for i, knows_more in enumerate(more):
        peers = {j for j, other in enumerate(more) if knows_more or not other}
        above, below = better[i] & peers, worse[i] & peers
        found.append(Rank(1 + len(above), len(peers) - len(below), len(worse[i]), len(better[i])))
    return found
