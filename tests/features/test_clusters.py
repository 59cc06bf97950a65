"""Cluster mining: planted clusters, invariances, brute force, and the files."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.metrics import adjusted_rand_score, silhouette_score

from cpt.errors import CptError
from cpt.features import clusters
from cpt.features.clusters import ALGORITHMS, mine, number_of_clusters, read_clusters, write_clusters
from cpt.features.make_clusters import make_clusters
from cpt.files.paths import TEXT_FEATURES
from cpt.files.stage_files import write_tensors
from cpt.seeds import stream_seed

NAMES = sorted(ALGORITHMS)


def planted(groups, each, dimension=16, spread=0.15, seed=0):
    """Features around random directions, lengths near 10, classes shuffled; and their groups."""
    generator = np.random.default_rng(seed)
    directions = generator.standard_normal((groups, dimension))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    truth = generator.permutation(np.repeat(np.arange(groups), each))
    noise = generator.standard_normal((len(truth), dimension)) * spread / dimension**0.5
    return 10 * (directions[truth] + noise), truth


def random_features(classes, dimension=6, seed=0):
    return np.random.default_rng(seed).standard_normal((classes, dimension))


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(500, 31), (1000, 62), (199, 12), (98, 6), (51, 3), (50, 3), (24, 2), (19, 1), (5, 1), (1, 1)],
)
def test_sixteen_classes_per_cluster(classes, expected):
    assert number_of_clusters(classes) == expected


@pytest.mark.parametrize(("per", "expected"), [(4, 125), (8, 62), (16, 31), (32, 16), (64, 8)])
def test_the_sweep_of_cluster_sizes(per, expected):
    assert number_of_clusters(500, per=per) == expected


def test_a_fixed_number_is_at_most_the_classes():
    assert (number_of_clusters(500, fixed=16), number_of_clusters(5, fixed=16)) == (16, 5)
    with pytest.raises(CptError, match="clusters: 0 is below 1"):
        number_of_clusters(5, fixed=0)
    with pytest.raises(CptError, match="clusters: -3 is below 1"):
        number_of_clusters(5, per=-3)


@pytest.mark.parametrize("algorithm", NAMES)
def test_planted_clusters_are_found(algorithm):
    features, truth = planted(5, 12)
    found = mine(features, algorithm, 5, seed=1)
    assert adjusted_rand_score(truth, found.labels) == 1
    assert found.silhouette > 0.5
    assert found.centroids.shape == (5, 16)
    if algorithm != "euclidean":
        assert np.allclose(np.linalg.norm(found.centroids, axis=1), 1)


@pytest.mark.parametrize("algorithm", NAMES)
def test_mining_is_deterministic_and_numbers_by_first_appearance(algorithm):
    features = random_features(40)
    one, other = (mine(features, algorithm, 7, seed=3) for _ in range(2))
    assert one.labels.tolist() == other.labels.tolist()
    assert (one.objective, one.silhouette, one.width) == (other.objective, other.silhouette, other.width)
    assert list(dict.fromkeys(one.labels.tolist())) == list(range(7))
    assert (one.width is not None) == (algorithm == "spectral")


@pytest.mark.parametrize("algorithm", ["spherical", "spectral", "kmedoids"])
def test_the_length_of_a_feature_does_not_matter(algorithm):
    features = random_features(30)
    lengths = np.random.default_rng(5).uniform(0.1, 50, (30, 1))
    assert (
        mine(features * lengths, algorithm, 4, seed=1).labels.tolist()
        == mine(features, algorithm, 4, seed=1).labels.tolist()
    )


@pytest.mark.parametrize("algorithm", NAMES)
def test_no_cluster_is_empty_even_among_copies(algorithm):
    features = np.repeat(random_features(3), 4, axis=0)
    found = mine(features, algorithm, 5, seed=1)
    assert sorted(set(found.labels.tolist())) == list(range(5))
    assert np.isfinite(found.centroids).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 25), st.data(), st.integers(0, 100))
def test_spherical_always_fills_its_clusters(classes, data, seed):
    wanted = data.draw(st.integers(1, classes))
    found = mine(random_features(classes, 3, seed), "spherical", wanted, seed)
    assert set(found.labels.tolist()) == set(range(wanted))
    assert found.objective >= 0


@pytest.mark.parametrize("algorithm", NAMES)
def test_one_cluster_and_one_per_class(algorithm):
    features = random_features(6)
    whole, single = (mine(features, algorithm, count, seed=1) for count in (1, 6))
    assert whole.labels.tolist() == [0] * 6
    assert single.labels.tolist() == list(range(6))
    assert single.objective == pytest.approx(0, abs=1e-12)
    assert whole.silhouette is None
    assert single.silhouette is None
    assert mine(features[:1], algorithm, 1, seed=1).labels.tolist() == [0]


def best_partition(features, count, cost):
    """The smallest total cost over all partitions into ``count`` clusters."""
    labellings = (
        np.array(labels)
        for labels in itertools.product(range(count), repeat=len(features))
        if list(dict.fromkeys(labels)) == list(range(count))
    )
    return min(sum(cost(features[labels == m]) for m in range(count)) for labels in labellings)


@pytest.mark.parametrize("seed", range(4))
def test_spherical_finds_a_fixed_point_close_to_the_best_partition_of_a_few_classes(seed):
    unit = random_features(8, 3, seed)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    best = best_partition(unit, 3, lambda members: len(members) - np.linalg.norm(members.sum(axis=0)))
    found = mine(unit, "spherical", 3, seed=0)
    assert best - 1e-12 <= found.objective <= best * 1.05
    assert (unit @ found.centroids.T).argmax(axis=1).tolist() == found.labels.tolist()
    for m in range(3):
        total = unit[found.labels == m].sum(axis=0)
        assert np.allclose(found.centroids[m], total / np.linalg.norm(total))


@pytest.mark.parametrize("seed", range(6))
def test_kmedoids_finds_the_best_medoids_of_a_few_classes(seed):
    unit = random_features(10, 3, seed)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    dissimilarity = 1 - unit @ unit.T
    best = min(dissimilarity[list(m)].min(axis=0).sum() for m in itertools.combinations(range(10), 3))
    found = mine(unit, "kmedoids", 3, seed=0)
    # a local search: no single swap improves, which on these ten classes is the optimum or close to it
    assert best - 1e-12 <= found.objective <= best * 1.1
    medoids = [int((found.centroids[m] @ unit.T).argmax()) for m in range(3)]
    for m, point in itertools.product(range(3), range(10)):
        swapped = [*medoids[:m], point, *medoids[m + 1 :]]
        assert dissimilarity[swapped].min(axis=0).sum() >= found.objective - 1e-9


def test_starts_are_spread_over_the_classes():
    """k-means++ with a few candidates finds 25 groups of four, which random starts miss."""
    features, truth = planted(25, 4)
    assert all(adjusted_rand_score(truth, mine(features, "spherical", 25, seed).labels) == 1 for seed in range(3))


def test_spherical_goes_on_until_nothing_moves():
    features = random_features(120, 8)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = mine(features, "spherical", 8, seed=0)
    assert (unit @ found.centroids.T).argmax(axis=1).tolist() == found.labels.tolist()


@pytest.mark.parametrize("algorithm", ["spherical", "euclidean", "spectral"])
def test_the_seed_decides_where_classes_have_no_groups(algorithm):
    features = random_features(40)
    assert len({tuple(mine(features, algorithm, 7, seed).labels) for seed in range(4)}) > 1


def sklearns(seed):
    return stream_seed(seed, "clusters") % 2**32


@pytest.mark.parametrize("seed", [1, 2])
def test_euclidean_is_the_kmeans_of_scikit_learn_on_raw_features(seed):
    features = random_features(40) * np.random.default_rng(5).uniform(0.5, 5, (40, 1))
    theirs = KMeans(7, n_init=10, random_state=sklearns(seed)).fit(features)
    found = mine(features, "euclidean", 7, seed)
    assert found.labels.tolist() == clusters.by_first_appearance(theirs.labels_).tolist()
    assert found.objective == pytest.approx(theirs.inertia_)


@pytest.mark.parametrize(
    ("groups", "each", "dimension", "spread", "width"),
    [(3, 6, 16, 0.15, 0.1), (3, 8, 3, 3.0, 0.3), (4, 6, 8, 2.0, 1.0), (4, 6, 8, 1.0, 3.0)],
)
def test_spectral_takes_the_width_of_the_best_silhouette(groups, each, dimension, spread, width):
    """exp((cos - 1)/σ) with σ of 0.1, 0.3, 1 and 3 mean distances of two classes; of equal ones the narrowest."""
    features, _ = planted(groups, each, dimension, spread, seed=2 if width == 0.3 else 1)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    mean = np.mean([1 - unit[i] @ unit[j] for i, j in itertools.combinations(range(len(unit)), 2)])
    best = (-np.inf, 0.0, None)
    for sigma in (0.1, 0.3, 1.0, 3.0):
        affinity = np.exp((unit @ unit.T - 1) / (sigma * mean))
        model = SpectralClustering(groups, affinity="precomputed", n_init=10, random_state=sklearns(1))
        labels = model.fit_predict(affinity)
        silhouette = silhouette_score(unit, labels, metric="cosine")
        if silhouette > best[0] + 1e-9:
            best = (silhouette, sigma, labels)
    found = mine(features, "spectral", groups, seed=1)
    assert found.width == best[1] == width
    assert found.silhouette == pytest.approx(best[0])
    assert adjusted_rand_score(found.labels, best[2]) == 1


def test_an_empty_cluster_gets_the_most_outlying_class():
    """Of copies that fewer clusters would hold the longest are set apart; on the sphere the farthest from its mean."""
    short, long = [1.0, 0.0, 0.0], [0.0, 3.0, 0.0]
    assert mine([short] * 3 + [long] * 3, "euclidean", 3, seed=1).labels.tolist() == [0, 0, 0, 1, 2, 2]
    assert mine([long] * 3 + [short] * 3, "euclidean", 3, seed=1).labels.tolist() == [0, 1, 1, 2, 2, 2]
    angles = np.radians([-60, -5, 5, 70])
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels, _ = clusters._lloyd(unit, np.array([[1.0, 0], [-1, 0]]))  # no class is near the second
    assert labels.tolist() == [0, 0, 0, 1]


def test_kmedoids_does_not_depend_on_the_seed():
    features = random_features(30)
    assert mine(features, "kmedoids", 4, 1).labels.tolist() == mine(features, "kmedoids", 4, 2).labels.tolist()


def test_objectives_are_what_they_say():
    features = random_features(30)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for algorithm in NAMES:
        found = mine(features, algorithm, 4, seed=1)
        own = found.centroids[found.labels]
        expected = np.square(features - own).sum() if algorithm == "euclidean" else (1 - (unit * own).sum(axis=1)).sum()
        assert found.objective == pytest.approx(expected)


def test_opposite_members_leave_a_finite_centroid():
    features = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert np.allclose(mine(features, "spherical", 1, seed=0).centroids, [[1, 0]])


def test_silhouette_is_that_of_scikit_learn():
    unit, truth = planted(4, 6, spread=1.0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    labels = clusters.by_first_appearance(np.append(truth[:-1], 4))  # with one class alone
    assert clusters.cosine_silhouette(unit, labels) == pytest.approx(silhouette_score(unit, labels, metric="cosine"))
    assert clusters.cosine_silhouette(np.ones((4, 1)), np.array([0, 0, 1, 1])) == 0


@pytest.mark.parametrize(
    ("features", "algorithm", "count", "message"),
    [
        (np.eye(3), "kmeans", 2, "algorithm: unknown 'kmeans'"),
        (np.eye(3), "spherical", 4, "clusters: 4 clusters of 3 classes; give 1 to 3"),
        (np.eye(3), "spherical", 0, "clusters: 0 clusters"),
        (np.zeros((3, 2)), "spherical", 2, "features: some are zero, infinite or NaN"),
        (np.full((3, 2), np.nan), "euclidean", 2, "features: some are zero, infinite or NaN"),
    ],
)
def test_impossible_requests(features, algorithm, count, message):
    with pytest.raises(CptError, match=message):
        mine(features, algorithm, count, seed=1)


def test_written_clusters_are_read_back(tmp_path):
    found = mine(random_features(9), "spherical", 3, seed=2)
    names = [f"class {i}" for i in range(9)]
    path = tmp_path / "spherical-per4" / "s2.parquet"
    write_clusters(path, found, names, algorithm="spherical", seed=2, classes_per_cluster=4, source_hash="abc")
    back = read_clusters(path)
    assert back.labels.tolist() == found.labels.tolist()
    assert back.class_names == names
    assert np.allclose(back.centroids, found.centroids, atol=1e-7)
    assert back.metadata["silhouette"] == found.silhouette
    assert back.metadata["objective"] == found.objective
    assert (back.metadata["classes_per_cluster"], back.metadata["source_hash"]) == (4, "abc")
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(CptError, match=r"s2.safetensors: not found"):
        read_clusters(path)


def test_undefined_silhouette_is_null(tmp_path):
    path = tmp_path / "s1.parquet"
    write_clusters(path, mine(np.eye(2), "kmedoids", 1, seed=1), ["a", "b"], algorithm="kmedoids", seed=1)
    assert read_clusters(path).metadata["silhouette"] is None


@pytest.mark.parametrize("algorithm", NAMES)
@pytest.mark.parametrize("protocol", ["base_to_new", "all_classes"])
def test_mined_are_the_raw_features_of_the_trained_classes(tmp_path, protocol, algorithm):
    """Not the new classes', not the directions; by the seed and number that are asked for, which the file tells."""
    features = random_features(41) * np.random.default_rng(5).uniform(0.5, 5, (41, 1))
    names = [f"class {i}" for i in range(41)]
    tensors = {"features": features, "directions": random_features(41, seed=9), "name_lengths": np.ones(41)}
    tensors |= {name: np.zeros((41, 4)) for name in ("tokens", "dataset_tokens", "template_tokens")}
    text, output = tmp_path / "text.safetensors", tmp_path / "s3.parquet"
    tensors = {name: torch.tensor(value) for name, value in tensors.items()}
    write_tensors(text, tensors, TEXT_FEATURES, classes=names, phrase_length=4, source_hash="x")
    trained = features[:21] if protocol == "base_to_new" else features
    for rule, count in (({"per": 7}, {21: 3, 41: 6}[len(trained)]), ({"fixed": 5}, 5)):
        make_clusters(text, protocol, algorithm, 3, output, **rule)
        found = read_clusters(output)
        assert found.labels.tolist() == mine(trained, algorithm, count, seed=3).labels.tolist()
        assert found.class_names == names[: len(trained)]
        told = {key: found.metadata.get(key) for key in ("algorithm", "seed", "classes_per_cluster", "clusters")}
        assert told == {
            "algorithm": algorithm,
            "seed": 3,
            "classes_per_cluster": rule.get("per"),
            "clusters": rule.get("fixed"),
        }
