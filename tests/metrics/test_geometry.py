"""Closed forms of the geometry functions."""

import pytest
import torch

from cpt.metrics import geometry
from tests.helpers.simplex import simplex_etf


@pytest.mark.parametrize(("classes", "dimension"), [(1, 1), (1, 3), (2, 1), (3, 2), (5, 4), (5, 64), (31, 30)])
def test_simplex_has_equal_angles(classes, dimension):
    frame = simplex_etf(classes, dimension)
    expected = torch.full((classes, classes), -1 / max(classes - 1, 1), dtype=torch.float64).fill_diagonal_(1)
    assert frame.shape == (classes, dimension)
    assert torch.allclose(geometry.cosine_matrix(frame), expected, atol=1e-12)
    assert geometry.etf_distance(frame).item() == pytest.approx(0, abs=1e-12)
    assert geometry.effective_rank(frame).item() == pytest.approx(max(classes - 1, 1))


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


def test_clusters_of_simplices_have_no_distance_and_clusters_by_hand():
    frames = [simplex_etf(size, 4) for size in (3, 1, 2)]
    clusters = torch.tensor([0, 0, 0, 1, 2, 2])
    features = torch.block_diag(*frames)
    assert geometry.cluster_etf_distance(features, clusters).item() == pytest.approx(0, abs=1e-12)
    assert geometry.etf_distance(features).item() > 0.1
    assert geometry.cluster_etf_distance(features, torch.arange(6)).item() == 0
    cosines, gaps = geometry.cosine_matrix(random := torch.randn(6, 5, dtype=torch.float64, generator=seeded(3))), []
    for i in range(6):
        for j in range(6):
            if i != j and clusters[i] == clusters[j]:
                gaps.append((cosines[i, j].item() + 1 / ((clusters == clusters[i]).sum().item() - 1)) ** 2)
    expected = (sum(gaps) / len(gaps)) ** 0.5
    assert geometry.cluster_etf_distance(random, clusters).item() == pytest.approx(expected)
    one = torch.zeros(6, dtype=torch.int64)
    assert geometry.cluster_etf_distance(random, one).item() == pytest.approx(geometry.etf_distance(random).item())


def test_npts_degrees_by_hand():
    text = torch.tensor([[1.0, 0], [0, 1], [0, -2]])
    cosines = (0.0, 0.0, -1.0)  # of the three pairs; -1/(K-1) is -1/2
    assert geometry.collapse_degree(text).item() == pytest.approx(sum(abs(c + 0.5) for c in cosines) / 3)
    assert geometry.collapse_degree(simplex_etf(5, 4)).item() == pytest.approx(0, abs=1e-12)
    assert geometry.collapse_degree(text[:1]).item() == 0
    means = torch.tensor([[0.5, 0], [0.5, 0], [0, 0.1]])  # along their text, across it, against it
    assert geometry.modality_mismatch(means, text).item() == pytest.approx((0 + 2**0.5 + 2) / 3)
    assert geometry.alignment(means, text).item() == pytest.approx((1 + 0 - 1) / 3)


def test_within_class_variability_is_the_ratio_of_the_traces():
    labels = torch.tensor([0] * 4 + [1] * 2 + [2] * 7 + [3])
    centers = 3 * torch.randn(4, 6, dtype=torch.float64, generator=seeded(4))
    features = geometry.normalize(centers[labels] + torch.randn(14, 6, dtype=torch.float64, generator=seeded(5)))
    groups = [features[labels == k] for k in range(4)]
    means = torch.stack([group.mean(dim=0) for group in groups])
    within = sum(group.T.cov().trace() for group in groups[:3]) / 3  # with n - 1; class 3 has no spread
    noise = within * (1 / 4 + 1 / 2 + 1 / 7 + 1) / 4 * 3 / 4  # what the spread within adds to that of the means
    between = (means - means.mean(dim=0)).square().sum() / 4 - noise
    found = geometry.within_class_variability(means, torch.bincount(labels))
    assert found.item() == pytest.approx((within / between).item())


def test_variability_of_few_images_is_unbiased():
    """Means of few images lie further apart than the classes do; drawn often enough, the estimate has no such bias."""
    many, few = [], []
    for seed in range(300):
        centers = torch.randn(6, 20, dtype=torch.float64, generator=seeded(seed))
        for size, found in ((3, few), (200, many)):
            spread = torch.randn(6, size, 20, dtype=torch.float64, generator=seeded(1000 + seed))
            means = geometry.normalize(centers.unsqueeze(1) + spread).mean(dim=1)
            found.append(geometry.within_class_variability(means, torch.full((6,), size)).item())
    assert sum(few) / 300 == pytest.approx(sum(many) / 300, rel=0.1)


def test_collapsed_images_have_no_variability_and_too_few_none_that_is_known():
    points = simplex_etf(4, 6)
    assert geometry.within_class_variability(points, torch.full((4,), 5)).item() == pytest.approx(0, abs=1e-12)
    for means, counts in (
        (points / 2, torch.ones(4)),
        (points[:1] / 2, torch.tensor([3])),
        (points[[0, 0]] / 2, torch.tensor([3, 3])),
    ):
        assert geometry.within_class_variability(means, counts).isnan()


def test_measures_that_mean_nothing_are_nan():
    text, means = simplex_etf(3, 4), simplex_etf(3, 4) * 0.9
    found = geometry.collapse_measures(text, means, torch.tensor([4, 4, 4]), torch.tensor([0, 0, 1]))
    assert all(value == value for value in found.values())
    assert found["alignment"] == pytest.approx(1)
    alone = geometry.collapse_measures(text, means, torch.tensor([4, 4, 4]), torch.tensor([0, 1, 2]))
    assert {name for name, value in alone.items() if value != value} == {"cluster_etf_distance"}
    single = geometry.collapse_measures(text[:1], means[:1], torch.tensor([4]), torch.tensor([0]))
    defined = {name for name, value in single.items() if value == value}
    assert defined == {"effective_rank", "alignment", "modality_mismatch"}
    assert set(geometry.collapse_measures(None, means, torch.tensor([4, 4, 4]))) == {"within_class_variability"}


def test_classes_without_images_do_not_count():
    text, means = torch.eye(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64) * 0.9
    means[1] = 0
    found = geometry.collapse_measures(text, means, torch.tensor([4, 0, 4]))
    assert found["alignment"] == pytest.approx(1)
    assert found["modality_mismatch"] == pytest.approx(0)
    assert found["etf_distance"] == pytest.approx(0.5), "texts of all classes"
    few = geometry.collapse_measures(text, means, torch.tensor([2, 0, 5]))["within_class_variability"]
    spread = ((1 - 0.81) * 2 + (1 - 0.81) * 5 / 4) / 2  # of n unit vectors: (1 - |mean|²) n / (n - 1)
    between = 2 * 0.45**2 - spread * (1 / 2 + 1 / 5) / 2 * 1 / 2
    assert few == pytest.approx(spread / between)


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)
