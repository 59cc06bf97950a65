"""Closed forms of the geometry functions."""

import pytest
import torch

from cpt import geometry
from cpt.errors import CptError


@pytest.mark.parametrize(("classes", "dimension"), [(1, 1), (1, 3), (2, 1), (3, 2), (5, 4), (5, 64), (31, 30)])
def test_simplex_has_equal_angles(classes, dimension):
    frame = geometry.simplex_etf(classes, dimension)
    expected = torch.full((classes, classes), -1 / max(classes - 1, 1), dtype=torch.float64).fill_diagonal_(1)
    assert frame.shape == (classes, dimension)
    assert torch.allclose(geometry.cosine_matrix(frame), expected, atol=1e-12)
    assert geometry.etf_distance(frame).item() == pytest.approx(0, abs=1e-12)
    assert geometry.effective_rank(frame).item() == pytest.approx(max(classes - 1, 1))


def test_simplex_needs_dimensions():
    with pytest.raises(CptError, match="at least 4 dimensions, got 3"):
        geometry.simplex_etf(5, 3)


def test_orthonormal_classes():
    basis = torch.eye(4)
    assert geometry.mean_cosine(basis).item() == 0
    assert geometry.etf_distance(basis).item() == pytest.approx(1 / 3)
    assert geometry.effective_rank(basis).item() == pytest.approx(4)


def test_identical_classes():
    same = torch.ones(4, 8)
    assert geometry.mean_cosine(same).item() == pytest.approx(1)
    assert geometry.etf_distance(same).item() == pytest.approx(4 / 3)
    assert geometry.effective_rank(same).item() == pytest.approx(1)


def test_a_single_class_is_defined():
    one = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    assert geometry.etf_distance(one).item() == 0
    assert geometry.mean_cosine(one).item() == 0
    assert geometry.effective_rank(one).item() == pytest.approx(1)


def test_rank_of_more_classes_than_dimensions():
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    eigenvalues = torch.linalg.eigvalsh(geometry.cosine_matrix(features)).clamp_min(1e-300) / 50
    expected = torch.exp(-(eigenvalues * eigenvalues.log()).sum())
    assert geometry.effective_rank(features).item() == pytest.approx(expected.item(), rel=1e-9)


def test_measures_ignore_length_and_rotation():
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    other = features @ rotation * torch.rand(7, 1, generator=generator, dtype=torch.float64).add(0.1)
    for measure in (geometry.etf_distance, geometry.mean_cosine, geometry.effective_rank):
        assert measure(other).item() == pytest.approx(measure(features).item(), rel=1e-9)


def test_mean_cosine_is_the_mean_of_the_pairs():
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    cosines = geometry.cosine_matrix(features)
    pairs = cosines[~torch.eye(6, dtype=torch.bool)]
    assert geometry.mean_cosine(features).item() == pytest.approx(pairs.mean().item())
    assert geometry.etf_distance(features).item() == pytest.approx((pairs + 0.2).square().mean().sqrt().item())


def test_drift():
    e = torch.eye(3)
    assert geometry.drift(e, 5 * e).item() == 0
    assert geometry.drift(e, e.roll(1, 0)).item() == 1
    assert geometry.drift(e, -e).item() == 2


def test_measures_have_gradients():
    features = torch.randn(4, 6, generator=torch.Generator().manual_seed(4), requires_grad=True)
    (geometry.etf_distance(features) + geometry.effective_rank(features)).backward()
    assert torch.isfinite(features.grad).all()
