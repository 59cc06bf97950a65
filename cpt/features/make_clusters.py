"""Making clusters: the trained classes of a protocol, clustered by their frozen text features."""

from __future__ import annotations

from pathlib import Path

from cpt.data.classes import trained_rows
from cpt.features.clusters import Clustering, mine, number_of_clusters, write_clusters
from cpt.features.text import read_text_features
from cpt.files.stage_files import canonical_json, sha256_text


def make_clusters(
    text_features: Path,
    protocol: str,
    algorithm: str,
    seed: int,
    output: Path,
    *,
    per: int = 16,
    fixed: int | None = None,
) -> Clustering:
    """Cluster only the classes that a protocol trains on, so that new classes stay unseen, and write the result.

    Args:
        text_features: frozen text features of the dataset.
        protocol: with ``base_to_new`` the base half is clustered, with the others all classes.
        algorithm: a name of ``cpt.features.clusters.ALGORITHMS``.
        seed: seed of the clustering.
        output: clusters.parquet to write; the centroids are written beside it.
        per: M = max(1, round(K / per)).
        fixed: a fixed number of clusters M instead.

    Raises:
        CptError: unknown protocol or algorithm, an impossible number of clusters, or an unusable file.
    """
    everything, metadata = read_text_features(text_features)
    classes = everything.take(trained_rows(len(everything), protocol))
    found = mine(classes.frozen.numpy(), algorithm, number_of_clusters(len(classes), per=per, fixed=fixed), seed)
    source = sha256_text(canonical_json([metadata["source_hash"], list(classes.names)]))
    rule = {"clusters": fixed} if fixed else {"classes_per_cluster": per}
    write_clusters(output, found, list(classes.names), algorithm=algorithm, seed=seed, source_hash=source, **rule)
    return found
