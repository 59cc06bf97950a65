"""Metrics of a run of a few images, worked out by hand; classes have unequal numbers of images.

Base classes a, b, c have 5, 3, 2 test images and 4, 1, 9 training images: c is the head, a medium, b the tail; b and c
share a cluster. New classes x, y have 6 and 2 test images.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from cpt.data.split import write_split
from cpt.evaluation.score import score
from cpt.features.clusters import mine, write_clusters
from cpt.files.paths import CLASSIFIER, COUNTS, METRICS, PREDICTIONS, RUN, Ratio
from cpt.files.stage_files import read_parquet, write_json, write_parquet, write_tensors
from cpt.metrics import geometry
from cpt.metrics.geometry import normalize
from cpt.metrics.reported import MEASURES
from tests.helpers.simplex import simplex_etf

LABELS = {"base": [0] * 5 + [1] * 3 + [2] * 2, "new": [0] * 6 + [1] * 2, "all": [0, 1, 2, 3]}
PREDICTED = {"base": [0, 0, 0, 0, 2, 1, 0, 2, 2, 2], "new": [0, 0, 0, 1, 1, 1, 1, 1], "all": [3, 1, 2, 3]}
SURE, UNSURE, MISSED = 0.9, 0.65, 0.2
"""Probability of the first label where it is right and where it is wrong, and of the true label where it is wrong."""


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


TEXT = {
    "d/base": normalize(torch.randn(3, 6, dtype=torch.float64, generator=stream(1))),
    "d/new": normalize(torch.randn(2, 6, dtype=torch.float64, generator=stream(2))),
    "e/all": normalize(torch.randn(4, 6, dtype=torch.float64, generator=stream(3))),
}
NAMES = {name: [f"{name} {i}" for i in range(len(text))] for name, text in TEXT.items()}
MEANS = {name: 0.8 * normalize(text + 0.3 * text.roll(1, 1)) for name, text in TEXT.items()}


def rows(target: str, subset: str, epoch: int | None, predicted: list[int]) -> list[dict[str, Any]]:
    found = []
    for row, (label, first) in enumerate(zip(LABELS[subset], predicted, strict=True)):
        right = label == first
        found.append(
            {"target": target, "subset": subset, "epoch": epoch, "row": row, "label": label}
            | {"top_labels": [first], "top_scores": [SURE if right else UNSURE]}
            | {"true_score": SURE if right else MISSED}
        )
    return found


def run(
    folder: Path, given: list[dict[str, Any]], tensors: dict[str, torch.Tensor], ratio: Ratio = "natural"
) -> tuple[dict, list[dict]]:
    """Score it; return (target, subset, epoch, metric) -> value, and the rows of counts.parquet."""
    counts, ranks = [40, 1, 900], [1, 2, 0]
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    columns = {"row": list(range(941)), "label": labels, "original_label": labels}
    columns |= {"rank": [ranks[label] for label in labels], "count": [counts[label] for label in labels]}
    known = {"classes": ["a", "b", "c"], "new_classes": ["x", "y"], "imbalance_ratio": ratio}
    write_split(folder / "split.parquet", pa.table(columns), known)
    clusters = mine([[1.0, 0], [0, 1], [0.1, 1]], "kmedoids", 2, seed=1)
    assert clusters.labels.tolist() == [0, 1, 1]
    write_clusters(folder / "clusters.parquet", clusters, ["a", "b", "c"], algorithm="kmedoids", seed=1)
    write_json(folder / "run.json", {"schema": RUN, "dataset": "d", "method": "coop", "steps": 1})
    kinds = {"epoch": pa.int64(), "top_scores": pa.list_(pa.float32()), "true_score": pa.float32()}
    table = pa.Table.from_pylist(given)
    for name, kind in kinds.items():
        table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
    write_parquet(folder / "predictions.parquet", table, PREDICTIONS)
    write_tensors(folder / "classifier.safetensors", tensors, CLASSIFIER, classes=NAMES)
    score(folder, folder / "split.parquet", folder / "clusters.parquet")
    metrics = read_parquet(folder / "metrics.parquet", METRICS)[0].to_pylist()
    assert len({(m["target"], m["subset"], m["epoch"], m["metric"]) for m in metrics}) == len(metrics)
    found = {(m["target"], m["subset"], m["epoch"], m["metric"]): m for m in metrics}
    return found, read_parquet(folder / "counts.parquet", COUNTS)[0].to_pylist()


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list[dict]]:
    """The final epoch of all targets; after epoch 1 half of the base images were right and all new ones."""
    given = [row for subset in ("base", "new") for row in rows("d", subset, None, PREDICTED[subset])]
    given += rows("e", "all", None, PREDICTED["all"])
    given += rows("d", "base", 1, [0] * 10) + rows("d", "new", 1, LABELS["new"])
    tensors = TEXT | {f"{name}/images": means.float() for name, means in MEANS.items()}
    return run(tmp_path_factory.mktemp("run"), given, tensors)


BASE, NEW = 100 * 7 / 10, 100 * 5 / 8
EXPECTED = {
    "H": 2 * BASE * NEW / (BASE + NEW),
    "base": BASE,
    "new": NEW,
    "macro_base": 100 * (4 / 5 + 1 / 3 + 1) / 3,
    "macro_new": 100 * (3 / 6 + 1) / 2,
    "many_shot": 100.0,
    "medium_shot": 80.0,
    "few_shot": 100 / 3,
    "head": 100.0,
    "medium": 80.0,
    "tail": 100 / 3,
    "tail_as_head": 100 / 3,  # one of b's three images was taken for c
    "head_as_tail": 0.0,
    "ece_base": 100 * (7 * (1 - SURE) + 3 * UNSURE) / 10,
    "ece_new": 100 * (5 * (1 - SURE) + 3 * UNSURE) / 8,
}


@pytest.mark.parametrize("name", MEASURES)
def test_measures_by_hand(scored: tuple[dict, list[dict]], name: str) -> None:
    """What a table shows under a title; those of the geometry on base classes, by their test images."""
    if name in EXPECTED:
        value = EXPECTED[name]
    else:
        own = torch.tensor([5, 3, 2]), torch.tensor([0, 1, 1])
        value = geometry.collapse_measures(TEXT["d/base"], MEANS["d/base"], *own)[name]
    measure = MEASURES[name]
    found = scored[0]["d", measure.subset, None, measure.metric]
    assert found["value"] == pytest.approx(value, rel=1e-5)
    assert found["unit"] == measure.unit
    assert found["images"] == {"base": 10, "new": 8, "base+new": 18}[measure.subset]


def test_log_loss_is_that_of_the_true_class(scored: tuple[dict, list[dict]]) -> None:
    expected = -(7 * math.log(SURE) + 3 * math.log(MISSED)) / 10
    assert scored[0]["d", "base", None, "log_loss"]["value"] == pytest.approx(expected, rel=1e-6)


def test_every_epoch_has_its_own_harmonic_mean(scored: tuple[dict, list[dict]]) -> None:
    metrics, _ = scored
    assert metrics["d", "base", 1, "accuracy"]["value"] == 50
    assert metrics["d", "new", 1, "accuracy"]["value"] == 100
    assert metrics["d", "base+new", 1, "harmonic_mean"]["value"] == pytest.approx(200 / 3)


def test_a_class_that_is_never_predicted_counts_in_the_macro_accuracy(scored: tuple[dict, list[dict]]) -> None:
    assert scored[0]["e", "all", None, "macro_accuracy"]["value"] == 75


def test_only_trained_classes_have_groups_clusters_and_training_images(scored: tuple[dict, list[dict]]) -> None:
    """Neither new classes nor those of another dataset, whatever their labels."""
    metrics, counts = scored
    of_trained = {name for _, subset, epoch, name in metrics if (subset, epoch) == ("base", None)}
    for target, subset in (("d", "new"), ("e", "all")):
        found = {name for *where, _, name in metrics if where == [target, subset]}
        groups = {f"{group}_accuracy" for group in ("head", "medium", "tail")} | {"tail_as_head", "head_as_tail"}
        assert of_trained - found >= groups | {"cluster_etf_distance"}
        assert not found - of_trained
        others = [row for row in counts if (row["target"], row["subset"]) == (target, subset)]
        assert others
        assert {row["train_images"] for row in others} == {row["group"] for row in others} == {None}


def test_groups_by_number_of_images_are_of_a_natural_tail_only(tmp_path: Path) -> None:
    given = [row for subset in ("base", "new") for row in rows("d", subset, None, PREDICTED[subset])]
    tensors = TEXT | {f"{name}/images": means.float() for name, means in MEANS.items()}
    metrics, _ = run(tmp_path, given, tensors, 0.06)
    found = {name for *_, name in metrics}
    assert "head_accuracy" in found
    assert not {f"{group}_shot_accuracy" for group in ("many", "medium", "few")} & found


def test_counts_by_hand(scored: tuple[dict, list[dict]]) -> None:
    base = [row for row in scored[1] if row["subset"] == "base"]
    assert all(row["target"] == "d" for row in base)
    classes = {row["index"]: row for row in base if row["by"] == "class"}
    expected = {  # images, right, mean probability of the first label, training images, group
        0: (5, 4, (4 * SURE + UNSURE) / 5, 40, "medium"),
        1: (3, 1, (SURE + 2 * UNSURE) / 3, 1, "tail"),
        2: (2, 2, SURE, 900, "head"),
    }
    for label, (images, correct, confidence, training, group) in expected.items():
        row = classes.pop(label)
        assert (row["images"], row["correct"], row["train_images"], row["group"]) == (images, correct, training, group)
        assert row["confidence"] == pytest.approx(confidence, rel=1e-6)
        assert row["class_name"] == NAMES["d/base"][label]
    assert not classes
    assert {row["class_name"] for row in base if row["by"] == "confidence"} == {None}
    bins = {row["index"]: (row["images"], row["correct"]) for row in base if row["by"] == "confidence"}
    assert bins == {9: (3, 0), 13: (7, 7)}  # 0.65 and 0.9 in fifteenths


def test_better_is_the_way_to_perfection(scored: tuple[dict, list[dict]], tmp_path: Path) -> None:
    """A run without a mistake, its texts a simplex frame and its images on them: no measure may call it worse."""
    perfect = [row for subset in ("base", "new") for row in rows("d", subset, None, LABELS[subset])]
    perfect = [row | {"top_scores": [1.0], "true_score": 1.0} for row in perfect]
    frames = {"d/base": simplex_etf(3, 6), "d/new": simplex_etf(2, 6)}
    found, _ = run(tmp_path, perfect, frames | {f"{name}/images": frame.float() for name, frame in frames.items()})
    for name, measure in MEASURES.items():
        before, after = (of["d", measure.subset, None, measure.metric]["value"] for of in (scored[0], found))
        if name in ("head", "many_shot", "head_as_tail"):
            assert before == after, "was perfect"
        elif name not in (
            "effective_rank",
            "cluster_etf_distance",
        ):  # no direction; clusters are simplices of their own
            assert measure.better == ("higher" if after > before else "lower"), name
    assert MEASURES["effective_rank"].better is None
    directions = {name: MEASURES[name].better for name in ("head", "head_as_tail", "cluster_etf_distance")}
    assert directions == {"head": "higher", "head_as_tail": "lower", "cluster_etf_distance": "lower"}
