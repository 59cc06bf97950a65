"""Losses against closed forms and a naive reading of the equations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cpt.methods.base.losses import anchor, class_consistency, cluster_separation, in_batch_contrast
from tests.helpers.simplex import simplex_etf


def one_cluster(k: int) -> torch.Tensor:
    return torch.zeros(k, dtype=torch.long)


def printed(unit: torch.Tensor, clusters: torch.Tensor) -> float:
    """Eq. 9 word for word, over the clusters that have pairs."""
    values = []
    for m in clusters.unique():
        p = unit[clusters == m]
        k = len(p)
        if k >= 2:
            c = p @ p.T
            target = (torch.ones(k, k) - torch.eye(k)) / (k - 1)
            values.append(float((c + target).square().sum()))
    return sum(values) / len(values) if values else 0.0


@pytest.mark.parametrize("k", [2, 3, 7])
def test_separation_closed_forms(k: int) -> None:
    orthonormal = torch.eye(k, 16)
    identical = torch.eye(1, 16).expand(k, -1)
    etf = simplex_etf(k, 16).float()
    assert float(cluster_separation(orthonormal, one_cluster(k), "sum")) == pytest.approx(k / (k - 1))
    assert float(cluster_separation(etf, one_cluster(k), "sum")) == pytest.approx(0, abs=1e-4)
    assert float(cluster_separation(identical, one_cluster(k), "sum")) == pytest.approx(k**3 / (k - 1))
    assert float(cluster_separation(etf, one_cluster(k), "pairs")) == pytest.approx(0, abs=1e-5)


def test_two_classes() -> None:
    e = torch.eye(1, 4)
    assert float(cluster_separation(torch.cat([e, -e]), one_cluster(2), "sum")) == pytest.approx(0)
    assert float(cluster_separation(torch.cat([e, e]), one_cluster(2), "sum")) == pytest.approx(8)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 100))
def test_separation_is_the_printed_equation(assignment: list[int], seed: int) -> None:
    clusters = torch.tensor(assignment)
    unit = F.normalize(torch.randn(len(clusters), 8, generator=torch.Generator().manual_seed(seed)), dim=-1)
    ours = float(cluster_separation(unit, clusters, "sum"))
    sizes = [assignment.count(m) for m in set(assignment) if assignment.count(m) >= 2]
    diagonal = sum(sizes) / max(len(sizes), 1)  # the printed norm counts the ones of the diagonal too
    assert ours + diagonal == pytest.approx(printed(unit, clusters), abs=1e-4)
    if sizes and len(set(sizes)) == 1:
        k = sizes[0]
        assert float(cluster_separation(unit, clusters, "pairs")) == pytest.approx(ours / (k * (k - 1)), abs=1e-5)
        assert float(cluster_separation(unit, clusters, "entries")) == pytest.approx(ours / k**2, abs=1e-5)


def test_separation_ignores_order_and_rotation() -> None:
    unit = F.normalize(torch.randn(9, 8), dim=-1)
    clusters = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 1])
    value = cluster_separation(unit, clusters, "sum")
    order = torch.randperm(9)
    assert torch.allclose(cluster_separation(unit[order], clusters[order], "sum"), value, atol=1e-5)
    rotation = torch.linalg.qr(torch.randn(8, 8)).Q
    assert torch.allclose(cluster_separation(unit @ rotation, clusters, "sum"), value, atol=1e-5)
    assert float(anchor(unit @ rotation, unit)) > 0.1


def test_clusters_weighted_by_size() -> None:
    unit = torch.cat([torch.eye(2, 8), torch.eye(1, 8).expand(3, -1)])
    clusters = torch.tensor([0, 0, 1, 1, 1])
    small = float(cluster_separation(unit[:2], clusters[:2], "pairs"))
    large = float(cluster_separation(unit[2:], clusters[2:], "pairs"))
    with_alone = torch.cat([unit, torch.eye(2, 8)]), torch.tensor([0, 0, 1, 1, 1, 2, 3])
    for features, assigned in ((unit, clusters), with_alone):  # classes alone in their cluster have no weight
        assert float(cluster_separation(features, assigned, "pairs")) == pytest.approx((small + large) / 2)
        by_size = float(cluster_separation(features, assigned, "pairs", by_size=True))
        assert by_size == pytest.approx((2 * small + 3 * large) / 5)


def test_consistency_closed_forms() -> None:
    e = torch.eye(4)
    label = torch.tensor([0])
    for image, expected in ((e[:1], 0), (e[1:2], 2), (-e[:1], 4)):
        assert float(class_consistency(image, e, label)) == pytest.approx(expected)


def test_consistency_readings() -> None:
    text, image = torch.eye(4), torch.eye(4)[[0, 1, 1, 1]]
    labels = torch.tensor([0, 0, 1, 2])  # distances 0, 2, 0, 2
    assert float(class_consistency(image, text, labels, "present")) == pytest.approx((1 + 0 + 2) / 3)
    counts = torch.tensor([8.0, 4.0, 2.0, 2.0])
    weights = [16 / (4 * 8), 16 / (4 * 8), 16 / (4 * 4), 16 / (4 * 2)]
    expected = sum(w * d for w, d in zip(weights, (0, 2, 0, 2), strict=True)) / 4
    assert float(class_consistency(image, text, labels, "importance", counts=counts)) == pytest.approx(expected)


def test_importance_weights_estimate_equation_10() -> None:
    """Averaged over all batches of one image, the importance reading is Eq. 10 on the whole training set."""
    generator = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(3, 5, generator=generator), dim=-1)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    image = F.normalize(torch.randn(6, 5, generator=generator), dim=-1)
    counts = torch.tensor([3.0, 2.0, 1.0])
    equation = class_consistency(image, text, labels, "present")  # every class is present
    batches = [class_consistency(image[[i]], text, labels[[i]], "importance", counts=counts) for i in range(6)]
    assert torch.allclose(torch.stack(batches).mean(), equation)


def test_consistency_can_leave_the_text_alone() -> None:
    text = torch.eye(3, requires_grad=True)
    image = torch.eye(3)[[1]].requires_grad_()
    class_consistency(image, text, torch.tensor([0]), detach_text=True).backward()
    assert text.grad is None
    assert image.grad is not None


def test_anchor_closed_form() -> None:
    e = torch.eye(2)
    assert float(anchor(e[:1], e[1:])) == 2
    assert float(anchor(e[:1], e[1:], "mean")) == 1


def test_contrast_as_printed() -> None:
    generator = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(5, 6, generator=generator), dim=-1)
    image = F.normalize(torch.randn(3, 6, generator=generator), dim=-1)
    labels, scale = torch.tensor([4, 0, 2]), 10.0
    expected = 0.0
    for i in range(3):
        scores = [math.exp(scale * float(text[labels[i]] @ image[j])) for j in range(3)]
        expected -= math.log(scores[i] / sum(scores))
    assert float(in_batch_contrast(image, text, labels, scale)) == pytest.approx(expected, rel=1e-5)
