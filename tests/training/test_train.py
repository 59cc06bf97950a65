"""Training, prediction, scoring and aggregation on real files of a small experiment."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from cpt.clip.backbone import load_backbone
from cpt.data.images import ImageStore
from cpt.data.manifest import read_manifest
from cpt.data.split import make_split, read_split, write_split
from cpt.errors import CptError
from cpt.evaluation.predict import predict
from cpt.evaluation.score import score
from cpt.features.text import read_text_features
from cpt.files.stage_files import read_json, read_parquet, read_tensors, write_json, write_parquet, write_tensors
from cpt.methods.base.method import Batch
from cpt.metrics import predictions as m
from cpt.metrics.reported import CURVES
from cpt.results.aggregate import aggregate
from cpt.training.batches import Batches, epoch_order
from cpt.training.checkpoint import CheckpointFile
from cpt.training.train import TrainInputs, train
from tests.helpers.experiment import train_inputs

SMALL = {"epochs": 3, "batch_size": 16, "templates": "single"}
DEEP = SMALL | {"depth_text": 2, "depth_vision": 2}


def inputs(results: Path, method: str, protocol: str = "base_to_new", ratio: str = "r1", **changes: Any) -> TrainInputs:
    hyperparameters = (SMALL if method in ("coop", "zeroshot") else DEEP) | changes.pop("hyperparameters", {})
    if method == "zeroshot":
        hyperparameters = {"templates": "single"}
    values = {
        "method": method,
        "hyperparameters": hyperparameters,
        "seed": 1,
        "backbone": results / "backbone.json",
        "manifest": results / "data/land/manifest.parquet",
        "split": results / f"splits/{protocol}/land/{ratio}/s1.parquet",
        "text_features": results / "features/land/text-single.safetensors",
        "clusters": results / f"clusters/{protocol}/land/spherical-per2-single/s1.parquet" if method == "cpt" else None,
        "augmentation": "none",
        "device": "cpu",
        "checkpoint_interval": 0.0,
    }
    return TrainInputs(**(values | changes))


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("prompts.safetensors",)}


def history(folder: Path) -> pd.DataFrame:
    return (
        read_parquet(folder / "history.parquet", "cpt.history/2")[0]
        .to_pandas()
        .drop(columns="seconds", errors="ignore")
    )


@pytest.mark.parametrize("method", ["zeroshot", "coop", "ivlp", "cpt"])
@pytest.mark.parametrize("protocol", ["base_to_new", "all_classes"])
def test_from_split_to_runs(results: Path, tmp_path: Path, method: str, protocol: str) -> None:
    """Every stage after the split, twice: same bytes, right shapes, sensible numbers."""
    run = f"{protocol}/land/r1/{method}-0/s1"
    outputs = []
    lines: list[str] = []
    for attempt in range(2):
        root = tmp_path / str(attempt)
        root.mkdir()
        for name in ("backbone.json", "backbone.safetensors", "data", "features", "splits", "clusters"):
            (root / name).symlink_to(results / name)
        folder = root / "runs" / run
        train(inputs(results, method, protocol), folder, lines.append)
        subsets = ("base", "new") if protocol == "base_to_new" else ("all",)
        predict(folder, root, [("land", subset) for subset in subsets], device="cpu", log=lines.append)
        score(folder, results / f"splits/{protocol}/land/r1/s1.parquet", inputs(results, "cpt", protocol).clusters)
        identity = {"run": run, "protocol": protocol, "dataset": "land", "imbalance_ratio": 1.0, "method": method}
        grid = {"schema": "cpt.grid/5", "experiment": "x", "backbone": "tiny-clip", "datasets": {}}
        write_json(root / "grid.json", grid | {"runs": [identity | {"key": f"{method}-0", "seed": 1}]})
        aggregate(root / "grid.json")
        names = ("prompts.safetensors", "predictions.parquet", "classifier.safetensors", "metrics.parquet")
        outputs.append([(folder / name).read_bytes() for name in names] + [(root / "runs.parquet").read_bytes()])
    assert outputs[0] == outputs[1]
    runs, _ = read_parquet(root / "runs.parquet", "cpt.runs/2")
    table = runs.to_pandas()
    assert set(table["subset"]) == ({"base", "new", "base+new"} if protocol == "base_to_new" else {"all"})
    accuracy = table.set_index(["subset", "metric"])["value"]
    if protocol == "base_to_new":
        base, new = accuracy["base", "accuracy"], accuracy["new", "accuracy"]
        assert accuracy["base+new", "harmonic_mean"] == pytest.approx(2 * base * new / (base + new))
        assert base > 30  # chance is 20
    predictions, _ = read_parquet(folder / "predictions.parquet", "cpt.predictions/2")
    frame = predictions.to_pandas()
    first = frame.groupby("subset").apply(lambda part: 100 * (part["top_labels"].str[0] == part["label"]).mean())
    for subset in subsets:
        assert accuracy[subset, "accuracy"] == pytest.approx(first[subset])
    classifier, _ = read_tensors(folder / "classifier.safetensors", "cpt.classifier/3")
    assert classifier[f"land/{subsets[0]}"].shape == (5 if protocol == "base_to_new" else 10, 64)
    _has_measures(accuracy[subsets[0]], frame[frame["subset"] == subsets[0]], classifier, subsets[0])
    record = read_json(folder / "run.json", "cpt.run/3")
    assert record["status"] == "finished"
    assert record["inputs"]["split"]
    costs, _ = read_parquet(root / "costs.parquet", "cpt.costs/2")
    assert costs["steps"].to_pylist() == [record["steps"]]
    if method != "zeroshot":
        assert len(history(folder)) == 3
        told = next(line for line in lines if line.startswith("epoch 3/3"))
        loss, *terms = re.split(r" = | \+ ", told.partition("  loss ")[2].partition("  ")[0])
        if method == "cpt":  # the log says what the loss is the sum of
            parts = [term.split() for term in terms]  # [weight, "×",] value, name
            total = sum(float(part[-2]) * (float(part[0]) if len(part) == 4 else 1) for part in parts)
            assert total == pytest.approx(float(loss), abs=1e-3)
            assert [f"loss_{part[-1]}" for part in parts] == [c for c in history(folder) if c.startswith("loss_")]
        else:
            assert not terms


def _has_measures(
    found: pd.Series, predictions: pd.DataFrame, classifier: dict[str, torch.Tensor], subset: str
) -> None:
    """Those of the trained classes, against the formulas on what ``cpt predict`` wrote."""
    text, means = classifier[f"land/{subset}"].double(), classifier[f"land/{subset}/images"].double()
    cosines = text @ text.T
    pairs = cosines[~torch.eye(len(text), dtype=torch.bool)]
    target = -1 / (len(text) - 1)
    assert found["etf_distance"] == pytest.approx((pairs - target).square().mean().sqrt().item(), rel=1e-5)
    assert found["collapse_degree"] == pytest.approx((pairs - target).abs().mean().item(), rel=1e-5)
    directions = means / means.norm(dim=1, keepdim=True)
    assert found["alignment"] == pytest.approx((directions * text).sum(dim=1).mean().item(), rel=1e-5)
    assert found["modality_mismatch"] == pytest.approx((directions - text).norm(dim=1).mean().item(), rel=1e-5)
    assert 1 <= found["effective_rank"] <= len(text)
    assert found["within_class_variability"] > 0
    assert found["cluster_etf_distance"] > 0
    assert predictions["label"].nunique() == len(means)
    assert (means.norm(dim=1) < 1).all()
    assert 0 <= found["tail_as_head"] <= 100


def test_confusion_by_hand() -> None:
    groups = np.array(["head", "head", "medium", "tail", "tail", "tail"])
    clusters = np.array([0, 1, 0, 0, 1, 2])
    labels = np.array([3, 3, 3, 3, 4, 4, 5, 5, 0, 0, 2])
    predicted = np.array([0, 1, 2, 3, 1, 4, 0, 5, 3, 4, 3])
    # of the tail's images those of class 5 have no head class in their cluster; taken for it: one of 3, one of 4
    assert m.confusion(labels, predicted, groups, clusters, "tail", "head") == pytest.approx(100 * 2 / 6)
    # of the head's images, both of class 0: 3 is of its cluster, 4 is not
    assert m.confusion(labels, predicted, groups, clusters, "head", "tail") == 50
    assert m.confusion(labels, predicted, groups, np.arange(6), "tail", "head") is None


def test_scoring_takes_other_groups_and_records_them(results: Path, tmp_path: Path) -> None:
    for name in ("backbone.json", "backbone.safetensors", "data", "features"):
        (tmp_path / name).symlink_to(results / name)
    folder, split = tmp_path / "runs/x", results / "splits/base_to_new/land/r1/s1.parquet"
    train(inputs(results, "zeroshot"), folder, print)
    predict(folder, tmp_path, [("land", "base")], device="cpu")
    score(folder, split, class_groups={"head": 1.0, "medium": 1.0, "tail": 3.0})
    counts, metadata = read_parquet(folder / "counts.parquet", "cpt.counts/2")
    classes = counts.to_pandas().query("by == 'class'")
    assert classes["group"].tolist() == ["head", "medium", "tail", "tail", "tail"]
    assert metadata["class_groups"] == {"head": 1.0, "medium": 1.0, "tail": 3.0}
    metrics, metadata = read_parquet(folder / "metrics.parquet", "cpt.metrics/2")
    assert metadata["class_groups"] == {"head": 1.0, "medium": 1.0, "tail": 3.0}
    assert "cluster_etf_distance" not in metrics["metric"].to_pylist(), "no clusters were given"
    tail = classes.query("group == 'tail'")
    by_metric = dict(zip(metrics["metric"].to_pylist(), metrics["value"].to_pylist(), strict=True))
    assert by_metric["tail_accuracy"] == pytest.approx(100 * tail["correct"].sum() / tail["images"].sum())


@pytest.mark.parametrize("order", ["label", "random"])
@pytest.mark.parametrize("method", ["zeroshot", "coop"])
def test_an_untrained_run_has_no_tail_where_every_seed_has_another(
    results: Path, tmp_path: Path, method: str, order: str
) -> None:
    for name in ("backbone.json", "backbone.safetensors", "data", "features"):
        (tmp_path / name).symlink_to(results / name)
    folder, split = tmp_path / "runs/x", tmp_path / "s0.parquet"
    options = {"imbalance_ratio": 1.0, "n_max": 16, "seed": 0, "class_order": order}
    manifest = read_manifest(results / "data/land/manifest.parquet")
    write_split(split, *make_split(manifest, protocol="base_to_new", **options))
    train(inputs(results, method, split=split), folder, print)
    predict(folder, tmp_path, [("land", "base")], device="cpu")
    score(folder, split, inputs(results, "cpt").clusters)
    metrics = set(read_parquet(folder / "metrics.parquet", "cpt.metrics/2")[0]["metric"].to_pylist())
    groups = set(read_parquet(folder / "counts.parquet", "cpt.counts/2")[0].to_pandas()["group"].dropna())
    grouped = {"head_accuracy", "medium_accuracy", "tail_accuracy", "head_as_tail", "tail_as_head"}
    without = (method, order) == ("zeroshot", "random")
    assert (not metrics & grouped) == (not groups) == without
    assert {"accuracy", "macro_accuracy", "calibration_error", "cluster_etf_distance"} <= metrics


def test_what_is_not_given_is_the_default_of_the_protocol(results: Path, tmp_path: Path) -> None:
    given = inputs(results, "coop", "all_classes")
    train(replace(given, method="maple", hyperparameters={"epochs": 0}), tmp_path, print)
    found = read_json(tmp_path / "run.json", "cpt.run/3")["hyperparameters"]
    assert (found["epochs"], found["depth"], found["learning_rate"]) == (0, 3, 0.0026)


def test_scoring_refuses_clusters_of_other_classes(results: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"schema": "cpt.run/3", "dataset": "land", "method": "coop", "steps": 1})
    write_parquet(tmp_path / "predictions.parquet", pa.table({"x": [1]}), "cpt.predictions/2")
    write_tensors(tmp_path / "classifier.safetensors", {"x": torch.zeros(1)}, "cpt.classifier/3")
    others = inputs(results, "cpt", "all_classes").clusters
    with pytest.raises(CptError, match="not of the classes that the split trains; give clusters of the same dataset"):
        score(tmp_path, results / "splits/base_to_new/land/r1/s1.parquet", others)


def test_cached_features_train_like_images(results: Path, tmp_path: Path) -> None:
    train(inputs(results, "coop"), tmp_path / "images", print)
    train(
        inputs(results, "coop", image_features=results / "features/land/images-train.safetensors"), tmp_path / "cached"
    )
    a, b = (read_tensors(tmp_path / name / "prompts.safetensors", "cpt.prompts/1")[0] for name in ("images", "cached"))
    assert torch.allclose(a["text.context"], b["text.context"], atol=1e-6)


def test_images_keep_their_labels_and_features_in_any_order(results: Path, tmp_path: Path) -> None:
    """A split and a file of features whose rows are shuffled: cached features still train like the images."""
    stream, given = np.random.default_rng(0), inputs(results, "coop")
    table, metadata = read_parquet(given.split, "cpt.split/1")
    metadata.pop("schema")
    split, features = tmp_path / "split.parquet", tmp_path / "features.safetensors"
    write_parquet(split, table.take(stream.permutation(len(table))), "cpt.split/1", **metadata)
    tensors, _ = read_tensors(results / "features/land/images-train.safetensors", "cpt.image-features/1")
    order = torch.tensor(stream.permutation(len(tensors["rows"])))
    write_tensors(features, {name: value[order] for name, value in tensors.items()}, "cpt.image-features/1")
    train(inputs(results, "coop", split=split), tmp_path / "images", print)
    train(inputs(results, "coop", split=split, image_features=features), tmp_path / "cached", print)
    a, b = (read_tensors(tmp_path / name / "prompts.safetensors", "cpt.prompts/1")[0] for name in ("images", "cached"))
    assert torch.allclose(a["text.context"], b["text.context"], atol=1e-6)


def test_a_method_is_given_its_own_training_set(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts, clusters, labels and frozen features of the base classes in their order, and the batches' labels."""
    from cpt.methods.cpt import CPT

    seen: list[tuple[Any, Any]] = []
    original = CPT.losses

    def losses(self, image: torch.Tensor, batch: Any, training_set: Any) -> dict[str, torch.Tensor]:
        seen.append((batch, training_set))
        return original(self, image, batch, training_set)

    monkeypatch.setattr(CPT, "losses", losses)
    given = inputs(results, "cpt", ratio="r0.25", hyperparameters={"epochs": 1})
    train(given, tmp_path, print)
    split = read_parquet(given.split, "cpt.split/1")[0].to_pandas()
    clusters = read_parquet(given.clusters, "cpt.clusters/1")[0].to_pandas()
    text = read_tensors(given.text_features, "cpt.text-features/4")[0]["features"]
    training = seen[0][1]
    assert training.counts.tolist() == [16, 11, 8, 5, 4] == np.bincount(split["label"]).tolist()
    assert training.clusters.tolist() == clusters["cluster"].tolist()
    assert training.labels.tolist() == split["label"].tolist()
    assert torch.equal(training.classes.frozen, text[:5])
    assert list(training.classes.names) == clusters["class_name"].tolist()
    expected = [split["label"][batch].tolist() for batch in epoch_order(len(split), 16, 1, 0)]
    assert [batch.labels.tolist() for batch, _ in seen] == expected


def test_history_describes_the_epochs(results: Path, tmp_path: Path) -> None:
    train(inputs(results, "cpt"), tmp_path, print)
    frame = history(tmp_path)
    assert frame["epoch"].tolist() == [1, 2, 3]
    assert frame["learning_rate"].tolist()[:2] == [1e-5, 0.0025]
    weighted = frame["loss_cross_entropy"] + 0.25 * frame["loss_separation"] + 0.15 * frame["loss_consistency"]
    assert np.allclose(frame["loss"], weighted + 0.10 * frame["loss_anchor"], atol=1e-5)
    assert {"gradient_norm", *CURVES} <= set(frame.columns)
    assert (frame[list(CURVES)] > -1).all(axis=None)
    assert frame["alignment"].between(-1, 1).all()
    train(inputs(results, "ivlp"), tmp_path / "ivlp", print)
    assert set(CURVES) - set(history(tmp_path / "ivlp").columns) == {"cluster_etf_distance"}, "it has no clusters"


def test_snapshots_are_evaluated(results: Path, tmp_path: Path) -> None:
    for name in ("backbone.json", "backbone.safetensors", "data", "features"):
        (tmp_path / name).symlink_to(results / name)
    folder = tmp_path / "runs/x"
    train(inputs(results, "ivlp", hyperparameters={"snapshots": True}), folder, print)
    predict(folder, tmp_path, [("land", "base"), ("land", "new")], device="cpu")
    score(folder, results / "splits/base_to_new/land/r1/s1.parquet")
    metrics = read_parquet(folder / "metrics.parquet", "cpt.metrics/2")[0].to_pandas()
    curve = metrics[(metrics["metric"] == "harmonic_mean") & metrics["epoch"].notna()]
    assert curve["epoch"].tolist() == [1, 2, 3]
    final = metrics[(metrics["metric"] == "harmonic_mean") & metrics["epoch"].isna()]["value"].item()
    assert curve["value"].tolist()[-1] == final


def test_validation_part(results: Path, tmp_path: Path) -> None:
    for name in ("backbone.json", "backbone.safetensors", "data", "features"):
        (tmp_path / name).symlink_to(results / name)
    folder = tmp_path / "runs/x"
    train(inputs(results, "zeroshot"), folder, print)
    predict(folder, tmp_path, [("land", "all")], part="val", device="cpu")
    predictions, _ = read_parquet(folder / "predictions.parquet", "cpt.predictions/2")
    assert len(predictions) == 10 * 3
    with pytest.raises(CptError, match="no images in part 'weird'; known: test, train, val"):
        predict(folder, tmp_path, [("land", "all")], part="weird", device="cpu")


class InterruptedHereError(Exception):
    pass


LONG_TAILED = {"sampler": "class_balanced", "loss": "ldam"}
DEFERRED = {"reweight": "class_balanced", "reweight_after": 0.5}


@pytest.mark.parametrize(("stop_after", "more"), [(1, {}), (4, {}), (5, {}), (7, {}), (7, LONG_TAILED), (6, DEFERRED)])
def test_an_interrupted_training_gives_the_same_bytes(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int, more: dict[str, Any]
) -> None:
    train(inputs(results, "cpt", hyperparameters=more), tmp_path / "whole", print)

    from cpt.training.loop import Loop

    original, count = Loop._step, 0

    def step(self, *arguments: Any) -> None:
        nonlocal count
        if count == stop_after:
            raise InterruptedHereError
        count += 1
        original(self, *arguments)

    resumable = inputs(results, "cpt", hyperparameters=more, checkpoint=tmp_path / "work/run.checkpoint")
    monkeypatch.setattr(Loop, "_step", step)
    with pytest.raises(InterruptedHereError):
        train(resumable, tmp_path / "resumed", print)
    assert not (tmp_path / "resumed/run.json").exists()
    assert (tmp_path / "work/run.checkpoint").exists()
    (tmp_path / "work/.run-0123abc_.checkpoint").touch()  # of a save that was killed
    monkeypatch.setattr(Loop, "_step", original)
    lines: list[str] = []
    train(resumable, tmp_path / "resumed", lines.append)
    assert any("resuming" in line for line in lines)
    assert not list((tmp_path / "work").iterdir())
    assert files(tmp_path / "whole") == files(tmp_path / "resumed")
    assert history(tmp_path / "whole").equals(history(tmp_path / "resumed"))
    assert read_json(tmp_path / "resumed/run.json", "cpt.run/3")["resumed"]


KILLED = """
import os, signal, sys
from cpt.cli.app import run
from cpt.training.loop import Loop

step, taken = Loop._step, 0

def dying(self, *arguments):
    global taken
    step(self, *arguments)
    taken += 1
    if taken == 8:
        os.kill(os.getpid(), signal.SIGKILL)

Loop._step = dying
run()
"""


def test_a_killed_training_gives_the_same_bytes(results: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of a step, then the same command again."""
    given = inputs(results, "ivlp")
    words = ["train", "--method", "ivlp", "--seed", "1"]
    words += ["--hyperparameters", json.dumps(given.hyperparameters), "--augmentation", "none"]
    for option in ("backbone", "manifest", "split", "text_features"):
        words += [f"--{option.replace('_', '-')}", str(getattr(given, option))]
    words += ["--device", "cpu", "--checkpoint-interval", "0"]
    state = tmp_path / "run.checkpoint"
    words += ["--checkpoint", str(state), "--output", str(tmp_path / "killed")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], stdout=subprocess.DEVNULL)
    assert killed.returncode == -signal.SIGKILL
    assert state.exists()
    assert not (tmp_path / "killed/run.json").exists()
    again = subprocess.run([sys.executable, "-m", "cpt", *words], capture_output=True, text=True, check=True)
    assert "resuming at epoch" in again.stdout
    train(given, tmp_path / "whole", print)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    "changes",
    [
        {"ratio": "r0.25"},
        {"seed": 2},
        {"augmentation": "rrc_flip"},
        {"code": "other"},
        {"threads": 2},
        {"hyperparameters": {"learning_rate": 0.001}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_changed_configuration_never_resumes(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    from cpt.training.loop import Loop

    state = tmp_path / "run.checkpoint"
    original = Loop._epoch_row

    def stop(self, epoch: int, *arguments: Any) -> dict:
        if epoch == 1:
            raise InterruptedHereError
        return original(self, epoch, *arguments)

    monkeypatch.setattr(Loop, "_epoch_row", stop)
    with pytest.raises(InterruptedHereError):
        train(inputs(results, "ivlp", checkpoint=state), tmp_path / "a", print)
    monkeypatch.undo()
    if "code" in changes:  # as computed; asked for, other code would be refused
        other = changes["code"]
        monkeypatch.setattr("cpt.files.provenance.code_version", lambda *_: other)
        changes = {}
    lines: list[str] = []
    train(inputs(results, "ivlp", checkpoint=state, **changes), tmp_path / "b", lines.append)
    assert f"{state}: of another configuration, split, input or code; training starts over" in lines
    assert not any("resuming" in line for line in lines)


def test_a_damaged_state_costs_only_the_saved_work(results: Path, tmp_path: Path) -> None:
    """Whatever byte changes, whatever end is missing: training starts over and says so."""
    state = tmp_path / "run.checkpoint"
    CheckpointFile(state, "key", 0).save(parameters={"a": torch.arange(5.0)}, epoch=3)
    kept, lines = state.read_bytes(), []
    assert CheckpointFile(state, "key", 0).load()["epoch"] == 3
    for offset in range(len(kept)):
        content = bytearray(kept)
        content[offset] ^= 1 << offset % 8
        state.write_bytes(content)
        assert CheckpointFile(state, "key", 0).load(lines.append) is None
    for length in (0, 31, 32, len(kept) // 2, len(kept) - 1):
        state.write_bytes(kept[:length])
        assert CheckpointFile(state, "key", 0).load(lines.append) is None
    assert set(lines) == {f"{state}: damaged; training starts over"}
    given = inputs(results, "ivlp", checkpoint=state, hyperparameters={"epochs": 1})
    train(given, tmp_path / "a", lines.append)
    assert lines.count(f"{state}: damaged; training starts over") == len(kept) + 6
    assert not any("resuming" in line for line in lines)
    assert not state.exists()


def test_a_diverging_loss_is_reported(results: Path, tmp_path: Path) -> None:
    wild = {"learning_rate": 1e30, "warmup_epochs": 0}
    with pytest.raises(CptError, match="lower learning_rate"):
        train(inputs(results, "ivlp", hyperparameters=wild), tmp_path, print)
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("cpt", {"clusters": None}, "needs --clusters"),
        ("ivlp", {"hyperparameters": {"epoch": 3}}, "--hyperparameters: epoch: unknown key; did you mean 'epochs'"),
        ("ivlp", {"split": Path("nowhere.parquet")}, "nowhere.parquet: not found"),
        ("ivlp", {"device": "cuda"}, "torch sees no GPU"),
        ("ivpl", {}, "did you mean 'ivlp'"),
    ],
)
def test_impossible_inputs(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, changes: dict, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CptError, match=message):
        train(inputs(results, method, **changes), tmp_path, print)


def test_clusters_of_other_classes_are_refused(results: Path, tmp_path: Path) -> None:
    wrong = results / "clusters/all_classes/land/spherical-per2-single/s1.parquet"
    with pytest.raises(CptError, match="its classes are not those of"):
        train(inputs(results, "cpt", clusters=wrong), tmp_path, print)


def test_inputs_that_do_not_belong_together_are_refused(results: Path, tmp_path: Path) -> None:
    from cpt.data.entry import Entry
    from cpt.data.make_manifest import make_manifest

    entry = Entry(name="other", key="flowers", title="x", layout="embedded", per_class={"train": 2, "test": 1})
    other = make_manifest(entry, tmp_path / "other")
    with pytest.raises(CptError, match="was not made from"):
        train(inputs(results, "ivlp", manifest=other), tmp_path, print)
    wrong_part = results / "features/land/images-test.safetensors"
    with pytest.raises(CptError, match="give the train part's"):
        train(inputs(results, "coop", image_features=wrong_part), tmp_path, print)
    for option in ({"device": "gpu"}, {"precision": "fp16"}):
        with pytest.raises(CptError, match="unknown"):
            train(inputs(results, "ivlp", **option), tmp_path, print)


def test_a_context_per_class_stays_with_its_classes(results: Path, tmp_path: Path) -> None:
    for name in ("backbone.json", "backbone.safetensors", "data", "features"):
        (tmp_path / name).symlink_to(results / name)
    folder = tmp_path / "runs/x"
    train(inputs(results, "coop", hyperparameters={"per_class": True}), folder, print)
    predict(folder, tmp_path, [("land", "base")], device="cpu")
    with pytest.raises(CptError, match="cannot be used for other classes"):
        predict(folder, tmp_path, [("land", "new")], device="cpu")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains(results: Path, tmp_path: Path, precision: str) -> None:
    train(inputs(results, "ivlp", precision=precision, hyperparameters={"epochs": 2}), tmp_path, print)
    assert read_json(tmp_path / "run.json", "cpt.run/3")["precision"] == precision
    assert read_tensors(tmp_path / "prompts.safetensors", "cpt.prompts/1")[0]["text.context"].dtype == torch.float32


def test_augmented_batches_do_not_depend_on_workers_or_position(results: Path) -> None:
    clip = load_backbone(results / "backbone.json")
    split = read_split(results / "splits/base_to_new/land/r1/s1.parquet")
    store = ImageStore(results / "data/land/manifest.parquet")

    def images(workers: int, first: int) -> list[torch.Tensor]:
        batches = Batches(clip, split, store, None, "rrc_flip", 16, 1, workers)
        return [batch.images for batch in batches.epoch(2, first)]

    one, many, resumed = images(1, 0), images(3, 0), images(2, 2)
    assert len(one) == 5
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one[2:], resumed, strict=True))


def test_further_images_are_augmented_by_all_threads_in_their_order(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = load_backbone(results / "backbone.json")
    split = read_split(results / "splits/base_to_new/land/r1/s1.parquet")
    store, together = ImageStore(results / "data/land/manifest.parquet"), threading.Barrier(3)
    augmented, positions = store.training_pixels, [7, 3, 3, 60, 11]
    batch = Batch(None, None, torch.tensor([0]), epoch=2, step=5, random=Random(0))

    def taken(workers: int) -> torch.Tensor:
        found = Batches(clip, split, store, None, "rrc_flip", 4, 1, workers).take(positions, batch)
        assert found.labels.tolist() == [split.labels[position] for position in positions]
        return found.images

    def at_once(*words: Any, **more: Any) -> np.ndarray:
        together.wait(60)
        return augmented(*words, **more)

    alone = taken(1)
    monkeypatch.setattr(store, "training_pixels", at_once)
    assert torch.equal(alone, taken(3))


def test_threads_that_augment_are_nothing_that_a_run_depends_on(results: Path, tmp_path: Path) -> None:
    for name, workers in (("one", None), ("three", 3)):
        train(inputs(results, "ivlp", augmentation="rrc_flip", workers=workers), tmp_path / name, print)
    one, three = (tmp_path / name / "prompts.safetensors" for name in ("one", "three"))
    assert one.read_bytes() == three.read_bytes()
    first, second = (read_json(tmp_path / name / "run.json", "cpt.run/3") for name in ("one", "three"))
    measured = {"seconds", "peak_memory_mb"}
    assert {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)} <= measured


def test_an_image_that_comes_again_is_augmented_anew(results: Path) -> None:
    """The views of one epoch under the class-balanced sampler, from any step on and with any number of threads."""
    clip = load_backbone(results / "backbone.json")
    split = read_split(results / "splits/base_to_new/land/r1/s1.parquet")
    kept = [0, *range(16, 80)]  # one image of class 0
    few = replace(split, rows=split.rows[kept], labels=split.labels[kept])
    store = ImageStore(results / "data/land/manifest.parquet")

    def batches(workers: int, first: int = 0, sampler: str = "class_balanced") -> list[Batch]:
        return list(Batches(clip, few, store, None, "rrc_flip", 16, 1, workers, 1, sampler).epoch(2, first))

    found = batches(1)
    assert len(found) == len(batches(1, sampler="random")) == 4
    assert sorted(Counter(y for batch in found for y in batch.host_labels).values()) == [12, 13, 13, 13, 13]
    images = torch.cat([batch.images[batch.labels == 0] for batch in found])
    assert len(images) in (12, 13)
    assert len(images.unique(dim=0)) == len(images)
    for other in (batches(3), batches(2, first=2)):
        assert all(torch.equal(a.images, b.images) for a, b in zip(found[-len(other) :], other, strict=True))


def test_epoch_order() -> None:
    order = epoch_order(50, 16, 1, 0)
    assert [len(batch) for batch in order] == [16, 16, 16]
    assert len(np.unique(np.concatenate(order))) == 48
    assert [len(batch) for batch in epoch_order(7, 16, 1, 0)] == [7]
    assert not np.array_equal(np.concatenate(order), np.concatenate(epoch_order(50, 16, 1, 1)))


def test_aggregation_refuses_another_run(results: Path, tmp_path: Path) -> None:
    """Whatever of its identity differs from what the grid says of the folder."""
    run = "base_to_new/land/r1/zeroshot-0/s1"
    train(inputs(results, "zeroshot"), tmp_path / "runs" / run, print)
    own = {"protocol": "base_to_new", "dataset": "land", "imbalance_ratio": 1.0, "method": "zeroshot", "seed": 1}
    others = {"protocol": "few_shot", "dataset": "flowers", "imbalance_ratio": 0.5, "method": "coop", "seed": 2}

    def message(**identity: Any) -> str:
        asked = {"run": run, "key": "zeroshot-0", **own, **identity}
        grid = {"schema": "cpt.grid/5", "experiment": "x", "backbone": "b", "datasets": {}, "runs": [asked]}
        write_json(tmp_path / "grid.json", grid)
        with pytest.raises(CptError) as refused:
            aggregate(tmp_path / "grid.json")
        return str(refused.value)

    assert own.keys() == others.keys()
    for field, value in others.items():
        assert "run.json: describes another run" in message(**{field: value}), field
    assert "metrics.parquet" in message(), "its own run is taken, and is not yet scored"


def test_metrics_by_hand() -> None:
    labels, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    assert m.accuracy(labels, predicted) == 75
    assert m.macro_accuracy(labels, predicted) == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert m.group_accuracy(labels, predicted, np.array([1])) == 100
    assert m.group_accuracy(labels, predicted, np.array([7])) is None
    assert m.harmonic_mean(60, 30) == 40
    assert m.harmonic_mean(0, 0) == 0
    assert m.harmonic_means(np.array([60.0, 0]), np.array([30.0, 0])).tolist() == [40, 0]
    assert m.log_loss(np.array([0.5, 0.25])) == pytest.approx((np.log(2) + np.log(4)) / 2)
    assert m.log_loss(np.array([0.0])) == pytest.approx(-np.log(1e-12))
    confidence, correct = np.array([0.95, 0.95, 0.55, 0.55, 1.0]), np.array([1, 0, 1, 1, 1])
    # bins of width 1/15: the last holds 0.95, 0.95 and 1.0, of which two of three are correct
    by_hand = 100 * (3 * abs((0.95 + 0.95 + 1.0) / 3 - 2 / 3) + 2 * abs(0.55 - 1.0)) / 5
    assert m.calibration_error(confidence, correct) == pytest.approx(by_hand)


def test_names_of_new_classes_are_recorded_as_knowledge(results: Path, tmp_path: Path) -> None:
    """A method that asks for them gets a virtual prototype for each of land's new classes."""
    features = results / "features/land/images-train.safetensors"
    train(train_inputs(results, "candle", image_features=features), tmp_path / "run", print)
    record = read_json(tmp_path / "run/run.json", "cpt.run/3")
    assert record["text_knowledge"] == {"kind": "new_classes", "count": 5}
    tensors, _ = read_tensors(tmp_path / "run/prompts.safetensors", "cpt.prompts/1")
    assert tensors["virtual"].shape[0] == 5
    names = bytes(tensors["new_names"].tolist()).decode().split("\0")
    everything, _ = read_text_features(results / "features/land/text-single.safetensors")
    assert names == list(everything.names[-5:])
