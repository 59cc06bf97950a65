"""`cpt plan`: its jobs are Snakemake's, its steps those of real runs, its costs measured or stated, as it says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from cpt.cli.experiment import plan
from cpt.costs import gpu_model, measured_costs, stated_costs, step_costs
from cpt.costs.gpu_model import CARDS, Gpu
from cpt.costs.known import Known, known, steps_per_epoch, training_images
from cpt.costs.plan import Plan
from cpt.data import world
from cpt.data.entry import Entry
from cpt.data.fewshot import by_class
from cpt.data.manifest import Manifest
from cpt.data.split import make_split
from cpt.errors import CptError
from cpt.evaluation.predict import predict
from cpt.experiment import config, resolved
from cpt.experiment import grid as grids
from cpt.experiment.grid import Grid
from cpt.experiment.stages import Stages
from cpt.files import paths
from cpt.files.paths import CLASSIFIER, RUN
from cpt.files.stage_files import read_json, read_tensors, write_json
from cpt.methods.base import describe, registry
from cpt.report.terminal.plan import hours, render, size
from cpt.training.graphs import recorder
from cpt.training.train import train
from tests.helpers.experiment import COMMON, SMALL, linked, train_inputs
from tests.workflow.test_workflow import CATALOG, EVERY_METHOD, configuration, planned, project
from tests.workflow.test_workflow import SMALL as SMALL_CONFIG

TABLE = {"kind": "table", "layout": "datasets", "title": "t", "tasks": ["base_to_new"]}
LAND = {"title": "Land", "layout": "embedded", "per_class": {"train": 18, "val": 3, "test": 6}}


@pytest.fixture
def folder(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's configurations, where the test runs."""
    shutil.copytree(root / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, catalog: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A small configuration: land's base classes, one table; keys that are given replace its own."""
    values: dict[str, Any] = {
        "experiment": "small",
        "backbone": {"name": "tiny-clip", "architecture": "embedded"},
        "catalog": "catalog.yaml",
        "seeds": [1],
        "imbalance_ratios": [1.0],
        "augmentation": "none",
        "device": "cpu",
        "precision": "float32",
        "variants": {"coop": {"method": "coop", "set": {"epochs": 2, "batch_size": 16}}},
        "tasks": {"base_to_new": {"datasets": ["land"]}},
        "exhibits": {"table2": TABLE | {"variants": list(changes.get("variants", {"coop": 0}))}},
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog or {"land": LAND}))
    (folder / "small.yaml").write_text(yaml.safe_dump(values | changes))
    return folder / "small.yaml"


def built(path: Path) -> Grid:
    return grids.build(config.load([path]), str(path))


def planning(path: Path, device: str = "auto", precision: str = "auto") -> Plan:
    return Plan(built(path), device, precision)


def invoked(*words: Any) -> str:
    app = typer.Typer()
    app.command()(plan)
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


# Jobs


def jobs_of(path: Path) -> dict[str, list[str]]:
    grid = built(path)
    return Stages(grid.config, resolved.of(grid)).jobs


def compared(folder: Path, name: str) -> dict[str, int]:
    """The plan's jobs, which must be those of a dry run in a folder without results."""
    counts = {rule: len(outputs) for rule, outputs in jobs_of(Path(name)).items()}
    assert counts == planned(folder, "--configfile", name)
    return counts


@pytest.fixture
def clone(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = project(tmp_path / "clone", root)
    monkeypatch.chdir(folder)
    return folder


def test_jobs_are_those_of_snakemake(clone: Path) -> None:
    counts = compared(clone, "config/config.yaml")
    assert counts["train"] > 100
    assert "fetch" not in counts


def test_jobs_that_are_easily_forgotten_are_those_of_snakemake(clone: Path) -> None:
    """Clusters that only measures need, with texts that no run uses; a source that no table shows; gated data."""
    gated = {"title": "Gated", "layout": "folders", "root": "data/gated", "gated": "ask for it"}
    (clone / "catalog.yaml").write_text(yaml.safe_dump(CATALOG | {"gated": gated}))
    values = {
        "experiment": "forgotten",
        "backbone": {"name": "tiny-clip", "architecture": "embedded"},
        "catalog": "catalog.yaml",
        "seeds": [1, 2],
        "imbalance_ratios": [0.25],
        "templates": {"mine": ["a {}"]},
        "overrides": [{"methods": ["cpt"], "set": {"templates": "mine"}}],
        "variants": {"coop": {"method": "coop"}, "ivlp": {"method": "ivlp", "set": SMALL["ivlp"]}},
        "tasks": {
            "base_to_new": {"datasets": ["land"]},
            "cross_dataset": {"source": "small_flowers", "targets": ["gated"]},
        },
        "exhibits": {
            "table1": TABLE | {"variants": ["coop", "ivlp"], "layout": "measures", "measures": ["tail_as_head"]},
            "table2": TABLE | {"variants": ["coop"], "tasks": ["cross_dataset"], "datasets": ["gated"]},
        },
    }
    (clone / "forgotten.yaml").write_text(yaml.safe_dump(values))
    counts = compared(clone, "forgotten.yaml")
    assert counts["text_features"] == 5, "land and flowers: single and mine; gated: single"
    assert (counts["clusters"], counts["fetch"], counts["image_features"]) == (2, 1, 2)


def test_jobs_for_several_seeds_are_those_of_snakemake(clone: Path) -> None:
    """Of three seeds two share a job and one is alone; a job is there when all of its seeds are."""
    changes = {"runs_per_job": 2, "seeds": [1, 2, 3], "augmentation": "rrc_flip"}
    (clone / "catalog.yaml").write_text(yaml.safe_dump({"land": LAND}))
    variants = {name: {"method": name} for name in ("zeroshot", "coop")}
    path = write(clone, variants=variants, **changes).relative_to(clone)
    counts = compared(clone, str(path))
    for rule in ("train", "predict", "score"):
        assert (counts[rule], counts[f"{rule}_seeds_1_2"]) == (2, 1), "zero-shot CLIP and the third seed; two seeds"
    runs = [run for run in built(path).runs.values() if run.method == "coop" and run.seed in (1, 2)]
    for run, there in zip(runs, (0, 1), strict=True):
        output = clone / "results/small/runs" / run.id / "run.json"
        output.parent.mkdir(parents=True)
        output.touch()
        assert planning(path).numbers()["jobs"]["train_seeds_1_2"] == {"total": 1, "there": there}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config/paper.yaml", "config/pilot.yaml", "config/embedded_full.yaml"])
def test_jobs_of_larger_experiments_are_those_of_snakemake(clone: Path, name: str) -> None:
    compared(clone, name)


@pytest.mark.slow
def test_jobs_over_image_files_are_those_of_snakemake(clone: Path) -> None:
    """Files with and without a fetch, cached frozen features and encoded images, validation, every method."""
    files = {"title": "Files", "layout": "folders", "root": "data/files"}
    source = {"provides": {"b.txt": []}, "sources": [{"url": "https://example.org/b.txt"}]}
    catalog = {"land": LAND, "a": files, "b": files | {"root": "data/b", "files": [source]}}
    (clone / "files.yaml").write_text(yaml.safe_dump(catalog))
    tasks = {"base_to_new": {"datasets": ["land", "a"]}, "cross_dataset": {"source": "a", "targets": ["b"]}}
    few = {"variants": ["row_coop", "row_zeroshot"], "ratios": None, "tasks": ["cross_dataset"]}
    for augmentation in ("none", "rrc_flip"):
        changes = SMALL_CONFIG["exhibits"] | dict.fromkeys(
            ["table1", *(f"table{i}" for i in range(4, 8)), *(f"figure{i}" for i in range(1, 9))]
        )
        changes |= {"table3": few}
        configuration(
            clone,
            "files_small.yaml",
            catalog="files.yaml",
            tasks=tasks | {"domain_generalization": None, "few_shot": None},
            exhibits=changes,
            augmentation=augmentation,
            evaluate_on="val",
        )
        counts = compared(clone, "files_small.yaml")
        assert counts["fetch"] == 1
        assert counts["pixels"] == 1, "a, by methods that encode images; features of b are made from its files"
        assert ("descriptions" in counts) == ("row_coprompt" in EVERY_METHOD)


def test_what_is_there_is_counted(folder: Path) -> None:
    path = write(folder, seeds=[1, 2])
    found = jobs_of(path)
    assert len(found["train"]) == len(found["split"]) == 2
    for output in (found["train"][0], found["split"][0], found["split"][1], found["backbone"][0]):
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).touch()
    numbers = planning(path).numbers()
    there = {rule: count["there"] for rule, count in numbers["jobs"].items() if count["there"]}
    assert there == {"train": 1, "split": 2, "backbone": 1}
    assert numbers["jobs"]["train"]["total"] == 2
    assert numbers["exhibits"][0]["finished"] == 1
    for rule, outputs in found.items():
        for output in outputs if rule not in ("all", "data") else []:
            Path(output).parent.mkdir(parents=True, exist_ok=True)
            Path(output).touch()
    assert planning(path).numbers()["jobs"]["all"]["there"] == 0, "the manifest is still to be made"


# Steps


@pytest.mark.parametrize(
    ("method", "ratio", "own"),
    [
        ("coop", 1.0, {}),
        ("coop", 0.25, {"batch_size": 7, "epochs": 3}),
        ("ivlp", 0.25, {"batch_size": 128}),
        ("zeroshot", 1.0, {}),
    ],
)
def test_steps_are_those_of_a_real_run(
    results: Path, folder: Path, tmp_path: Path, method: str, ratio: float, own: dict[str, Any]
) -> None:
    given = {} if method == "zeroshot" else COMMON | SMALL.get(method, {}) | own
    path = write(folder, variants={"row": {"method": method, "set": given}}, imbalance_ratios=[ratio])
    made = planning(path)
    (run,) = made.grid.runs.values()
    inputs = train_inputs(results, method, f"r{run.ratio:g}")
    inputs.hyperparameters.clear()
    inputs.hyperparameters.update(given)
    train(inputs, tmp_path / "run", lambda _: None)
    assert made.steps(run) == read_json(tmp_path / "run/run.json", RUN)["steps"]


def test_steps_of_a_continued_run_are_its_own(results: Path, folder: Path, tmp_path: Path) -> None:
    start = COMMON | SMALL["promptsrc"]
    given = COMMON | {"start": "promptsrc", "start_hyperparameters": start, "epochs": 3}
    given.pop("templates")
    made = planning(write(folder, variants={"dpc": {"method": "dpc", "set": given}}))
    by_method = {run.method: run for run in made.grid.runs.values()}
    train(train_inputs(results, "promptsrc"), tmp_path / "one", lambda _: None)
    inputs = train_inputs(results, "dpc", hyperparameters=given, start=tmp_path / "one")
    train(inputs, tmp_path / "two", lambda _: None)
    for name, method in (("one", "promptsrc"), ("two", "dpc")):
        assert made.steps(by_method[method]) == read_json(tmp_path / name / "run.json", RUN)["steps"], method
    (row,) = made.numbers()["exhibits"]
    assert row["runs"] == row["new"] == 2, "the started run is one that the table needs"
    assert row["steps"] == made.numbers()["total"]["steps"] == 2 * 5 + 3 * 5


def test_the_catalog_and_the_manifest_say_the_same(results: Path) -> None:
    entry = Entry(name="land", **LAND)
    told, read = known(entry, results / "nowhere"), known(entry, results / "data/land/manifest.parquet")
    assert told == read
    assert told.images == {"train": 180, "val": 30, "test": 60}


def test_a_shift_has_the_images_that_are_drawn(results: Path) -> None:
    entry = Entry(name="world_v2", title="W", layout="embedded", shift_of="world", per_class={"train": 5, "test": 2})
    told = known(entry, results / "nowhere")
    _, labels = world.render("world_v2", "test", 2)
    assert (told.classes, told.images, told.pool) == (len(set(labels.tolist())), {"test": len(labels)}, None)


@pytest.mark.parametrize("order", ["label", "random", "appearance"])
@pytest.mark.parametrize("protocol", ["base_to_new", "all_classes"])
@pytest.mark.parametrize("ratio", [1.0, 0.06])
def test_training_images_of_uneven_classes(folder: Path, order: str, protocol: str, ratio: float) -> None:
    sizes = [3, 40, 1, 16, 9, 2, 30]
    label = np.random.default_rng(0).permutation(np.repeat(np.arange(7), sizes))
    names = [f"class {i}" for i in range(7)]
    every = np.append(label, np.arange(7))  # and a test image of each class
    images = np.array(["x"] * len(every), dtype=object)
    metadata = {"dataset": "d", "content_hash": "h"}
    part = np.array(["train"] * len(label) + ["test"] * 7)
    manifest = Manifest(images, np.full(len(every), -1), every, part, names, metadata)
    chosen = config.load([write(folder, class_order=order, n_max=12)])
    pool = [(label, len(positions)) for label, positions in by_class(label).items()]
    for seed in (1, 2, 3):
        options = {"imbalance_ratio": ratio, "n_max": 12, "seed": seed, "class_order": order}
        table, _ = make_split(manifest, protocol=protocol, **options)
        assert training_images(chosen, Known(7, {}, pool), protocol, ratio, seed) == len(table)
    most = training_images(chosen, Known(7, {}), protocol, ratio, 1)
    assert most is not None
    assert most >= len(table)


def test_batches_of_an_epoch() -> None:
    assert [steps_per_epoch(images, 16) for images in (1, 15, 16, 31, 32)] == [1, 1, 1, 1, 2]


def test_an_unknown_number_of_classes_is_said(folder: Path) -> None:
    catalog = {"land": LAND, "mine": {"title": "Mine", "layout": "folders", "root": "data/mine"}}
    tasks = {"base_to_new": {"datasets": ["land", "mine"]}}
    made = planning(write(folder, catalog, tasks=tasks))
    numbers = made.numbers()
    assert numbers["total"]["unknown_steps"] == 1
    assert any("mine: the number of classes is unknown" in note for note in numbers["notes"])
    assert re.search(r"all runs +2 +0 +2 +2 +≥ 10", printed(numbers))


# Costs


@pytest.fixture
def every_method(folder: Path) -> Path:
    """All methods on the tiny CLIP, at 5 and 10 classes."""
    default = yaml.safe_load(Path("config/config.yaml").read_text())
    tasks = {"base_to_new": {"datasets": ["land"]}, "few_shot": {"datasets": ["land"]}}
    return write(
        folder,
        variants=EVERY_METHOD,
        templates=default["templates"],
        overrides=[*default["overrides"], {"set": {"epochs": 2}}],
        tasks=tasks,
        exhibits={"table2": TABLE | {"variants": list(EVERY_METHOD), "tasks": ["base_to_new", "few_shot"]}},
    )


def test_measuring_every_method(every_method: Path) -> None:
    made, lines = planning(every_method), []
    assert made.numbers()["costs"]["basis"] == "none"
    made.time_here(lines.append)
    trained = [name for name in registry.names() if registry.get(name).trains]
    for name in trained:
        said = [line for line in lines if line.startswith((f"{name}, ", f"{name} on "))]
        assert [re.search(r", (\d+) classes: [\d.]+ ms per step", line)[1] for line in said] == ["5", "10"], name  # type: ignore[index]
    costs = measured_costs.read_measured(made.grid, made.costs_path, "auto", "auto")
    assert costs is not None
    assert {key.method for key in costs.groups} == set(registry.names())
    for key, cost in costs.groups.items():
        kind = registry.get(key.method)
        assert len(cost.step) == (2 if kind.trains else 0)
        assert all(seconds > 0 for _, seconds in cost.step)
        assert (cost.image[0][1] > 0) == (kind.prompts_images or kind.image_conditioned), key
        assert len(cost.image) == (2 if kind.image_conditioned else 1)
    numbers = planning(every_method).numbers()
    assert numbers["costs"]["basis"] == "measured"
    assert "cpu with 1 thread" in numbers["costs"]["text"]
    assert numbers["total"]["train_seconds"] > 0
    assert numbers["total"]["unknown_seconds"] == 0
    assert "not modeled" not in printed(numbers)


def test_measured_steps_augment(folder: Path) -> None:
    """Two views, a view of negatives, an augmentation of the method's own, frozen features that are not cached."""
    default = yaml.safe_load(Path("config/config.yaml").read_text())
    names = ("coop", "coprompt", "dpc", "lamp_abstract")
    made = planning(
        write(
            folder,
            augmentation="rrc_flip",
            variants={name: {"method": name} for name in names},
            templates=default["templates"],
            overrides=[*default["overrides"], {"set": {"epochs": 2, "batch_size": 4}}],
        )
    )
    made.time_here(lambda _: None)
    record = read_json(made.costs_path, measured_costs.SCHEMA)
    assert {item["method"] for item in record["groups"]} == {*names, "promptsrc"}
    assert all(seconds > 0 for item in record["groups"] for _, seconds in item["step"])


@pytest.fixture
def measured(folder: Path) -> Callable[..., Path]:
    """A configuration with a file of costs: 2 s a step of CoOp at 5 classes, 10 images/s frozen."""
    path = write(folder)

    def make(**changes: Any) -> Path:
        record = {
            "schema": measured_costs.SCHEMA,
            "architecture": "embedded",
            "augmentation": "none",
            "device": "cpu",
            "device_name": "cpu",
            "precision": "float32",
            "asked_precision": "auto",
            "threads": 1,
            "cuda_graphs": "auto",
            "frozen_image": 0.1,
            "groups": [
                {"method": "coop", "start": "", "batch_size": 16, "step": [[5, 2.0]], "image": [[5, 0.0]],
                 "peak_memory_mb": None},
            ],
        }  # fmt: skip
        write_json(folder / "work/small/step-costs.json", record | changes)
        return path

    return make


def test_hours_are_steps_times_measured_seconds(measured: Callable[..., Path], folder: Path) -> None:
    path = measured()
    numbers = planning(path).numbers()
    assert numbers["total"]["steps"] == 10
    assert numbers["total"]["train_seconds"] == numbers["total"]["left_seconds"] == 20
    assert numbers["total"]["test_seconds"] == 0, "CoOp reads frozen features"
    assert numbers["frozen_image_seconds"] == pytest.approx(0.1 * (180 + 60)), "training and test images, once"
    (run,) = planning(path).grid.runs
    record = folder / "results/small/runs" / run / "run.json"
    record.parent.mkdir(parents=True)
    record.touch()
    finished = planning(path).numbers()["total"]
    assert (finished["train_seconds"], finished["left_seconds"], finished["finished"]) == (20, 0, 1)


def test_seconds_of_evaluation(measured: Callable[..., Path], folder: Path) -> None:
    """Every test image once, with snapshots once more for every epoch; texts per image at the half's classes."""
    groups = [
        {"method": "ivlp", "start": "", "batch_size": 16, "step": [[5, 0.0]], "image": [[5, 0.5]],
         "peak_memory_mb": 2048.0},
        {"method": "cocoop", "start": "", "batch_size": 16, "step": [[5, 0.0]], "image": [[5, 1.0], [10, 2.0]],
         "peak_memory_mb": 1024.0},
    ]  # fmt: skip
    measured(groups=groups)
    common = {"batch_size": 16, "epochs": 2}
    for own, protocol, seconds in (
        ({"method": "ivlp", "set": common}, "base_to_new", 60 * 0.5),
        ({"method": "ivlp", "set": common | {"snapshots": True}}, "base_to_new", 3 * 60 * 0.5),
        ({"method": "cocoop", "set": common}, "base_to_new", 60 * 1.0),
        ({"method": "cocoop", "set": common}, "few_shot", 60 * 2.0),
    ):
        table = TABLE | {"variants": ["row"], "tasks": [protocol]}
        path = write(
            folder, variants={"row": own}, tasks={protocol: {"datasets": ["land"]}}, exhibits={"table2": table}
        )
        numbers = planning(path).numbers()
        assert numbers["total"]["test_seconds"] == pytest.approx(seconds), own
        assert "GPU at most" in printed(numbers)


def test_what_is_left_is_told_stage_by_stage(measured: Callable[..., Path], folder: Path) -> None:
    """A run that is trained has yet to be tested; a later table shows it too without asking for it anew."""
    group = {"method": "ivlp", "start": "", "batch_size": 16, "step": [[5, 2.0]], "image": [[5, 0.5]]}
    measured(groups=[group | {"peak_memory_mb": None}])
    ivlp = {"method": "ivlp", "set": {"batch_size": 16, "epochs": 2}}
    tables = {name: TABLE | {"variants": ["ivlp"]} for name in ("table1", "table2")}
    path = write(folder, variants={"ivlp": ivlp}, exhibits=tables)
    (run,) = built(path).runs
    done = folder / "results/small/runs" / run
    done.mkdir(parents=True)
    for file, left in ((None, 20 + 30), ("run.json", 30), ("predictions.parquet", 0)):
        if file:
            (done / file).touch()
        numbers = planning(path).numbers()
        first, second = numbers["exhibits"]
        assert (numbers["disk"]["runs_bytes"] > 0) == (left > 0)
        assert (first["train_seconds"], first["test_seconds"], first["left_seconds"]) == (20, 30, left)
        assert (second["new"], second["left_seconds"]) == (0, 0)
        assert first["finished"] == second["finished"] == (file is not None)


@pytest.mark.parametrize(
    ("changes", "device", "precision", "fits"),
    [
        ({}, "auto", "auto", True),
        ({}, "cpu", "float32", True),
        ({}, "cuda", "auto", False),
        ({}, "auto", "bfloat16", False),
        ({"architecture": "ViT-B-16"}, "auto", "auto", False),
        ({"augmentation": "rrc_flip"}, "auto", "auto", False),
        ({"threads": 2}, "auto", "auto", False),
        ({"asked_precision": "float32"}, "auto", "auto", False),
    ],
)
def test_costs_of_another_machine_are_not_used(
    measured: Callable[..., Path], changes: dict[str, Any], device: str, precision: str, fits: bool
) -> None:
    numbers = planning(measured(**changes), device, precision).numbers()
    assert numbers["costs"]["basis"] == ("measured" if fits else "none")


@pytest.mark.parametrize(
    ("changes", "fits"),
    [({}, True), ({"cuda_graphs": "off"}, False), ({"cuda_graphs": None}, False), ({"threads": 2}, True)],
)
def test_costs_of_graphs_are_not_those_of_eager_steps(
    measured: Callable[..., Path], changes: dict[str, Any], fits: bool
) -> None:
    """On a GPU; there threads do not count."""
    path = measured(device="cuda", device_name="Some GPU", precision="bfloat16", **changes)
    numbers = planning(path, "auto", "auto").numbers()
    assert numbers["costs"]["basis"] == ("measured" if fits else "none")


@pytest.mark.parametrize("method", ["coop", "dpc"])
def test_a_measured_step_is_a_replayed_one(folder: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """With a stand-in for the recorder; of DPC's batches of many shapes, steps that capture do not count."""
    made = []

    def record(step: Callable[[], None]) -> Callable[[], None]:
        made.append("captured")
        return lambda: (made.append("replayed"), step())[1]

    monkeypatch.setattr(measured_costs, "recorder", lambda device, cuda_graphs: record)
    default = yaml.safe_load(Path("config/config.yaml").read_text())
    path = write(
        folder,
        variants={method: {"method": method}},
        templates=default["templates"],
        overrides=[*default["overrides"], {"set": {"epochs": 2, "batch_size": 4}}],
    )
    lines: list[str] = []
    planning(path).time_here(lines.append)
    assert not any("without CUDA graphs" in line for line in lines)
    groups = 1 + (method == "dpc")
    assert made.count("captured") >= groups
    assert made.count("replayed") >= made.count("captured") + groups * measured_costs.TIMED


def test_graphs_that_are_given_up_are_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(step: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("cannot be captured")

    monkeypatch.setattr(measured_costs, "recorder", lambda device, cuda_graphs: record)
    lines: list[str] = []
    planning(write(folder)).time_here(lines.append)
    assert "training without CUDA graphs: cannot be captured" in lines
    assert any("ms per step" in line for line in lines), "the steps that training would do"


@pytest.mark.parametrize(("device", "setting"), [("cpu", "auto"), ("cuda", "off")])
def test_steps_are_recorded_only_where_training_does(device: str, setting: str) -> None:
    assert recorder(torch.device(device), setting) is None


def test_a_group_that_was_not_measured_is_said(measured: Callable[..., Path]) -> None:
    other = {"method": "ivlp", "start": "", "batch_size": 16, "step": [[5, 1.0]], "image": [[5, 1.0]],
             "peak_memory_mb": None}  # fmt: skip
    numbers = planning(measured(groups=[other])).numbers()
    assert numbers["total"]["unknown_seconds"] == 1
    assert any("coop, 16 images a step: not measured" in note for note in numbers["notes"])
    assert "≥ 0.00" in printed(numbers)


def test_a_group_is_judged_by_what_most_of_its_runs_are(folder: Path) -> None:
    """The learning rate that has more seeds; the smallest and the largest number of classes."""
    rates = {"one": 0.001, "two": 0.002}
    variants = {name: {"method": "coop", "set": {"learning_rate": rate}} for name, rate in rates.items()}
    tables = {
        "table1": TABLE | {"variants": ["one"], "seeds": [1]},
        "table2": TABLE | {"variants": ["two"], "seeds": [1, 2]},
    }
    for most in ("two", "one"):
        made = planning(write(folder, variants=variants, exhibits=tables))
        ((key, members),) = step_costs.typical(made.grid.runs, made.classes, 2).items()
        assert key == ("coop", "", 32)
        assert [(count, run.hyperparameters.learning_rate) for count, run in members] == [(5, rates[most])]
        tables["table1"], tables["table2"] = tables["table1"] | {"seeds": [1, 2, 3]}, tables["table2"] | {"seeds": [1]}
    names = ["shapes", "land", "flowers", "textures"]
    catalog = {name: LAND | {"title": name} for name in names}
    made = planning(write(folder, catalog, tasks={"base_to_new": {"datasets": names}}))
    numbers = sorted(set(made.classes.values()))
    for count, expected in ((1, numbers[:1]), (2, [numbers[0], numbers[-1]])):
        ((_, members),) = step_costs.typical(made.grid.runs, made.classes, count).items()
        assert [k for k, _ in members] == expected


def test_interpolation() -> None:
    points = [(10, 1.0), (20, 2.0), (40, 8.0)]
    found = [step_costs.linear(points, x) for x in (10, 15, 20, 30, 40, 60, 5)]
    assert found == pytest.approx([1, 1.5, 2, 5, 8, 14, 0.5])
    assert step_costs.linear([], 3) == 0
    assert step_costs.linear([(5, 2.0)], 100) == 2
    assert step_costs.linear([(10, 1.0), (20, 3.0)], 0) == 0, "no negative time"


# The stated model


@pytest.fixture
def stated(folder: Path) -> Plan:
    names = ("zeroshot", "coop", "ivlp", "promptsrc", "lamp", "lamp_abstract", "cocoop")
    return planning(
        write(
            folder,
            variants={name: {"method": name} for name in names},
            backbone={"name": "vit-b-16", "architecture": "ViT-B-16-quickgelu", "pretrained": "openai"},
            augmentation="rrc_flip",
            seeds=[1, 2],
        )
    )


def test_the_stated_model(stated: Plan) -> None:
    """A group's steps are those of what its method encodes; where augmenting takes longer, a step waits for it."""
    costs = stated_costs.stated(stated.grid, stated.classes, "auto")
    assert costs.basis == "stated"
    gpu, sizes = Gpu(CARDS["h100"]), stated_costs.shape(stated.grid)
    assert sizes == (512, 224, 16, (512, 12), (768, 12))
    text = gpu_model.texts(5, 1, 512, 12)
    images = {grad: {n: gpu_model.images(n, 201, 768, 12, backward=grad) for n in (1, 4, 32)} for grad in (True, False)}
    passes = {
        "coop": [text, images[False][32]],
        "ivlp": [text, images[True][4]],
        "promptsrc": [text, images[True][4], images[False][4]],
        "lamp": [text, images[True][4]],
        "lamp_abstract": [gpu_model.texts(5, 1, 512, 12, per_class=True), images[True][4], images[False][4]],
        "cocoop": [text, images[False][1]],
    }
    by_method = {run.method: run for run in stated.grid.runs.values()}
    for method, expected in passes.items():
        seconds = gpu.step(gpu_model.OPERATORS[method], expected, graphs=True)
        assert costs.busy(by_method[method], 5) == pytest.approx(seconds), method
        augmented = 1.2e-3 * by_method[method].hyperparameters.batch_size
        assert costs.step(by_method[method], 5) == pytest.approx(max(seconds, augmented)), method
    evaluated = gpu.eager(gpu_model.images(256, 201, 768, 12, backward=False)) / 256
    assert costs.frozen_image == evaluated
    for method, expected in {
        "zeroshot": 0,
        "coop": 0,
        "ivlp": evaluated,
        "lamp": evaluated,
        "lamp_abstract": 2 * evaluated,
    }.items():
        assert costs.image(by_method[method], 5) == pytest.approx(expected), method
    assert costs.image(by_method["cocoop"], 5) == pytest.approx(
        gpu.eager(gpu_model.texts(5, 204, 512, 12, backward=False)) / 204
    )
    numbers = stated.numbers()
    assert numbers["total"]["unknown_seconds"] == 0
    seconds = sum((stated.steps(run) or 0) * (costs.step(run, 5) or 0) for run in stated.grid.runs.values())
    assert numbers["total"]["train_seconds"] == pytest.approx(seconds)
    text_of = printed(numbers)
    assert "A model, not a measurement" in text_of
    assert "about 0." in text_of, "GPU memory"


def test_the_stated_model_follows_its_settings(folder: Path) -> None:
    """Steps without graphs, on another card, in float32, with more threads to augment."""
    backbone = {"name": "vit-b-16", "architecture": "ViT-B-16-quickgelu", "pretrained": "openai"}
    common = {"backbone": backbone, "augmentation": "rrc_flip", "device": "auto", "precision": "auto"}

    def step(method: str = "ivlp", precision: str = "auto", card: str = "h100", **changes: Any) -> float:
        made = planning(write(folder, variants={method: {"method": method}}, **common | changes))
        (run,) = made.grid.runs.values()
        found = stated_costs.stated(made.grid, made.classes, "auto", precision, card).step(run, 5)
        assert found is not None
        return found

    plain = step(threads=4)
    assert step(threads=4, cuda_graphs="off") == pytest.approx((744 + 10) * gpu_model.HOST)
    assert step(threads=4, card="a100") > plain
    assert step(threads=4, precision="float32") > plain
    assert step("coop", threads=1) == pytest.approx(32 * 1.2e-3)
    assert step("coop", threads=4) == pytest.approx(32 * 1.2e-3 / 4)
    assert step("coop", threads=16) > 32 * 1.2e-3 / 16, "then the GPU takes longer"
    with pytest.raises(CptError, match=r"card: unknown 'h10'.*h100"):
        Plan(built(folder / "small.yaml"), "auto", "auto", "h10")


def test_hours_of_all_stages_by_hand(stated: Plan) -> None:
    """Every run is trained and tested; the schedule takes the longer of the GPU's time and the jobs'."""
    numbers = stated.numbers()
    stages = {stage["name"].split(":")[-1].strip(): stage for stage in numbers["stages"]}
    total = numbers["total"]
    assert stages["steps, augmented images"]["alone_seconds"] == pytest.approx(total["train_seconds"])
    trained = [run for run in stated.grid.runs.values() if run.method != "zeroshot"]
    views = sum((stated.steps(run) or 0) * run.hyperparameters.batch_size for run in trained)
    assert stages["steps, augmented images"]["core_seconds"] == pytest.approx(1.2e-3 * views)
    assert stages["images decoded"]["core_seconds"] == 0, "the dataset is drawn"
    runs = len(stated.grid.runs)
    assert stages["starts of trainings and predictions"]["alone_seconds"] == 2 * runs * 4
    epochs = sum(run.hyperparameters.epochs for run in trained)
    assert stages["measures after epochs"]["alone_seconds"] == pytest.approx(epochs * (5e-3 + 5 * 5e-5))
    assert stages["evaluation"]["alone_seconds"] == pytest.approx(total["test_seconds"] + runs * 60 * 1e-5)
    gpu, alone = (sum(stage[key] for stage in numbers["stages"]) for key in ("gpu_seconds", "alone_seconds"))
    assert [(row["cards"], row["runs"]) for row in numbers["schedule"]] == [(1, 1), (1, 3)]
    reports = stages["tables, figures, page"]["alone_seconds"]
    assert [row["seconds"] for row in numbers["schedule"]] == pytest.approx(
        [alone, max(gpu / 0.9, (alone - reports) / 3) + reports]
    )
    stated.cards = 4
    four = {(row["cards"], row["runs"]): row["seconds"] for row in stated.numbers()["schedule"]}
    assert four[4, 1] == pytest.approx((alone - reports) / 4 + reports)
    assert sorted(four.values()) == [four[4, 3], *sorted((four[4, 1], four[1, 3])), four[1, 1]]
    text = printed(stated.numbers())
    assert re.search(r"4 GPUs, 3 runs at a time on each: [\d.<]+ ?[\d.]* h ", text)
    assert "--resources gpu=3" in text


def test_decoding_is_counted_for_image_files(folder: Path) -> None:
    """Every training image once for a run; test images once for all."""
    backbone = {"name": "vit-b-16", "architecture": "ViT-B-16-quickgelu", "pretrained": "openai"}
    expected = {"classes": 20, "names_sha256": "0", "images": {"train": 400, "test": 100}}
    mine = {"title": "M", "layout": "split_json", "root": "data/m", "split": "s.json", "expected": expected}
    variants = {"ivlp": {"method": "ivlp", "set": {"epochs": 2}}}
    path = write(folder, {"mine": mine}, tasks={"base_to_new": {"datasets": ["mine"]}}, variants=variants,
                 backbone=backbone, augmentation="rrc_flip", device="auto", precision="auto")  # fmt: skip
    stages = {stage["name"]: stage for stage in planning(path).numbers()["stages"]}
    assert stages["training: images decoded"]["core_seconds"] == pytest.approx(160 * 1.7e-3), "10 classes of 16"
    assert stages["image caches"]["core_seconds"] == pytest.approx(100 * 4.3e-3)


def test_how_many_runs_fit_a_gpu(measured: Callable[..., Path]) -> None:
    """Tensors as measured and 0.5 GB beside them; at least one; three are told of where three fit."""
    group = {"method": "coop", "start": "", "batch_size": 16, "step": [[5, 2.0]], "image": [[5, 0.0]]}
    on_gpu = {"device": "cuda", "device_name": "Some GPU", "cuda_graphs": "auto", "precision": "bfloat16"}
    for peak, memory, fit, told in ((1024.0, 8e9, 5, [1, 3]), (2048.0, 5.5e9, 2, [1, 2]), (9000.0, 8e9, 1, [1])):
        path = measured(**on_gpu, device_memory=memory, groups=[group | {"peak_memory_mb": peak}])
        path.write_text(path.read_text().replace("device: cpu", "device: auto").replace("float32", "auto"))
        numbers = planning(path).numbers()
        assert numbers["costs"]["basis"] == "measured"
        assert numbers["memory"]["runs_that_fit"] == fit
        assert [row["runs"] for row in numbers["schedule"]] == told
        assert f"{fit} fit" in printed(numbers)


def test_nothing_is_stated_for_a_cpu(stated: Plan) -> None:
    """The model is of a GPU; what a CPU takes has to be measured, and the plan says how."""
    stated.device = "cpu"
    numbers = stated.numbers()
    assert numbers["costs"]["basis"] == "none"
    assert "not stated for a CPU" in printed(numbers)
    assert "the same `cpt plan` with --measure" in numbers["costs"]["text"]
    assert "train h" not in printed(numbers)
    assert "H100" not in printed(numbers)
    assert not numbers["stages"]
    for device in ("auto", "cuda"):
        stated.device = device
        assert "modeled for one NVIDIA H100" in printed(stated.numbers())


def test_cached_frozen_features_are_not_encoded_again(folder: Path) -> None:
    backbone = {"name": "vit-b-16", "architecture": "ViT-B-16-quickgelu", "pretrained": "openai"}
    made = planning(write(folder, backbone=backbone))
    costs = stated_costs.stated(made.grid, made.classes, "auto")
    (run,) = made.grid.runs.values()
    frozen = gpu_model.images(32, 201, 768, 12, backward=False).kernels
    text = gpu_model.texts(5, 1, 512, 12)
    expected = Gpu(CARDS["h100"]).step(gpu_model.OPERATORS["coop"] - frozen, [text], graphs=True)
    assert costs.step(run, 5) == costs.busy(run, 5) == pytest.approx(expected)


def test_what_a_step_encodes_follows_classes_and_batch() -> None:
    hp = describe.published("promptsrc", "base_to_new")
    for count, batch in ((40, 4), (7, 4), (7, 32)):
        found = describe.encoded("promptsrc", hp, count, batch)
        assert (found["texts"], found["images"], found["frozen_images"]) == (count, batch, batch)


# Sums, disk and text


def printed(numbers: dict[str, Any], width: int = 100) -> str:
    from rich.console import Console

    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(numbers), highlight=False)
    return console.export_text()


def test_new_runs_add_up(folder: Path) -> None:
    numbers = planning(Path("config/config.yaml")).numbers()
    rows = numbers["exhibits"]
    assert [row["name"] for row in rows] == list(built(Path("config/config.yaml")).exhibits)
    for key in ("new", "steps"):
        assert sum(row[key] for row in rows) == numbers["total"][key]
    assert numbers["total"]["runs"] == numbers["jobs"]["train"]["total"] > rows[0]["runs"] == rows[0]["new"]


def test_a_finished_experiment_has_nothing_to_do() -> None:
    """Of two exhibits the second has no run of its own: that is not work to do."""
    numbers = planning(Path("config/config.yaml")).numbers()
    rows = [row | {"finished": row["runs"]} for row in numbers["exhibits"] if row["name"] in ("table1", "figure2")]
    total = numbers["total"] | {"finished": numbers["total"]["runs"]}
    lines = [line.split() for line in printed(numbers | {"exhibits": rows, "total": total}).splitlines()]
    assert ["exhibit", "runs", "trained", "to", "do", "counted", "steps"] in lines
    runs = f"{total['runs']:,}"
    assert ["all", "runs", runs, runs, "0", f"{total['new']:,}", f"{total['steps']:,}"] in lines
    assert ["figure2", "1", "1", "0", "0", "0"] in lines


def test_the_paper_s_grid_fits_80_columns(stated: Plan) -> None:
    """With its largest numbers: nothing is cut."""
    numbers = stated.numbers()
    total = {"name": "all runs", "runs": 1_781, "finished": 1_000, "new": 1_781, "steps": 19_188_821,
             "train_seconds": 5e5, "test_seconds": 5e4, "left_seconds": 5e5, "unknown_steps": 0,
             "unknown_seconds": 0}  # fmt: skip
    lines = printed(numbers | {"exhibits": [total], "total": total}, 80).splitlines()
    assert "…" not in "".join(lines)
    assert max(map(len, lines)) <= 80
    counts = ["1,781", "1,000", "781", "1,781", "19,188,821"]
    assert ["all", "runs", *counts, "138.9", "13.9", "138.9"] in map(str.split, lines)


def test_json_holds_what_is_printed(measured: Callable[..., Path], folder: Path) -> None:
    text = invoked(measured(), "--json", "plan.json", "--device", "cpu", "--precision", "auto")
    numbers = json.loads((folder / "plan.json").read_text())
    total = numbers["total"]
    cells = [hours(total[key]) for key in ("train_seconds", "test_seconds", "left_seconds")]
    left = total["runs"] - total["finished"]
    counts = [total["runs"], total["finished"], left, total["new"], total["steps"]]
    row = ["all", "runs", *map(str, counts), *cells]
    assert row in [line.split() for line in text.splitlines()]
    jobs_total = str(sum(count["total"] for count in numbers["jobs"].values()))
    assert re.search(rf"total +{jobs_total} +0", text)
    assert f"{size(numbers['disk']['needed_bytes'])} to come" in text
    assert text.splitlines()[0] == "small: tiny-clip, embedded; costs: measured on cpu with 1 thread(s), float32"
    assert max(map(len, text.splitlines())) <= 100


def test_measuring_from_the_command_line(folder: Path) -> None:
    path = write(folder)
    text = invoked(path, "--measure")
    assert re.search(r"coop, 16 images a step, 5 classes: [\d.]+ ms per step", text)
    assert "costs: measured on cpu" in text
    before = (folder / "work/small/step-costs.json").read_bytes()
    assert "costs: measured on cpu" in invoked(path)
    assert (folder / "work/small/step-costs.json").read_bytes() == before


def test_disk(folder: Path) -> None:
    source = "https://example.org/"
    files = [
        {"provides": {"images": ["images"]}, "sources": [{"url": f"{source}a", "bytes": 5_000}, {"url": f"{source}b"}]},
        {"provides": {"split.json": []}, "sources": [{"url": f"{source}s", "bytes": 70}]},
        {"provides": {"labels.txt": []}, "sources": [{"url": f"{source}l"}]},
        {"provides": {"derived.mat": []}, "sources": [{"url": f"{source}m", "bytes": 9}], "derived_split_only": True},
    ]
    expected = {"classes": 20, "names_sha256": "0", "images": {"train": 400, "test": 100}}
    mine = {"title": "Mine", "layout": "split_json", "root": "data/mine", "split": "split.json", "files": files}
    path = write(
        folder,
        {"mine": mine | {"expected": expected}},
        tasks={"base_to_new": {"datasets": ["mine"]}},
        variants={"ivlp": {"method": "ivlp", "set": {"depth_text": 2, "depth_vision": 2, "epochs": 2}}},
    )
    disk = planning(path).numbers()["disk"]
    assert (disk["downloads_bytes"], disk["downloads_files"], disk["downloads_of_unknown_size"]) == (5_070, 3, 1)
    assert disk["pixels_bytes"] == 100 * 32 * 32 * 3
    learned = describe.stored_values("ivlp", next(iter(built(path).runs.values())).hyperparameters)
    assert disk["runs_bytes"] == 4 * learned + 100 * 56 + 2 * 20 * 64 * 4, "predictions, text and image features"
    assert disk["needed_bytes"] == 5_070 + disk["pixels_bytes"] + disk["runs_bytes"]
    (folder / "data/mine").mkdir(parents=True)
    (folder / "data/mine/split.json").touch()
    pixels = folder / "results/small" / paths.pixels("mine", "test")
    pixels.parent.mkdir(parents=True)
    pixels.touch()
    numbers = planning(path).numbers()
    assert (numbers["disk"]["downloads_bytes"], numbers["disk"]["pixels_bytes"]) == (5_000, 0)
    assert "at least 5 kB (2 files, 1 of unknown size)" in printed(numbers)


@pytest.mark.parametrize(("method", "snapshots"), [("coop", False), ("coop", True), ("cocoop", False)])
def test_the_disk_holds_what_a_classifier_holds(
    results: Path, folder: Path, tmp_path: Path, method: str, snapshots: bool
) -> None:
    """Text features where no image changes them, and mean image features: as many values as a real run wrote."""
    given = COMMON | SMALL.get(method, {}) | {"snapshots": snapshots}
    (tmp_path / "x").mkdir()
    run = linked(results, tmp_path / "x") / "run"
    train(train_inputs(results, method, hyperparameters={"snapshots": snapshots}), run, lambda _: None)
    predict(run, tmp_path / "x", [("land", "base"), ("land", "new")], device="cpu", log=lambda _: None)
    held, _ = read_tensors(run / "classifier.safetensors", CLASSIFIER)
    path = write(folder, variants={"row": {"method": method, "set": given}})
    learned = describe.stored_values(method, next(iter(built(path).runs.values())).hyperparameters)
    passes = 1 + COMMON["epochs"] * snapshots
    disk = planning(path).numbers()["disk"]
    assert disk["runs_bytes"] - passes * (4 * learned + 56 * 60) == 4 * sum(tensor.numel() for tensor in held.values())
    assert disk["features_bytes"] == (180 + 60) * 64 * 4, "frozen features of training and test images"


def test_the_fullest_disk_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"provides": {"x": []}, "sources": [{"url": "https://example.org/x"}]}
    mine = {"title": "M", "layout": "folders", "root": str(folder / "mine/photos"), "files": [source]}
    path = write(folder, {"mine": mine}, tasks={"base_to_new": {"datasets": ["mine"]}})
    (folder / "mine").mkdir()
    for here, there in ((10**9, 5), (7, 10**9)):
        free = {folder: here, folder / "mine": there}
        monkeypatch.setattr(
            "shutil.disk_usage", lambda place, free=free: SimpleNamespace(free=free[Path(place).absolute()])
        )
        assert planning(path).numbers()["disk"]["free_bytes"] == min(here, there)


def test_classes_that_the_catalog_names_are_counted(results: Path) -> None:
    given = {"name": "a", "title": "A", "root": "a", "layout": "split_json", "split": "s.json"}
    for names in (["ant", "bee", "cow"], {"n1": "ant", "n2": "bee", "n3": "cow"}):
        assert known(Entry(**given, class_names=names), results / "nowhere").classes == 3
    assert known(Entry(**given), results / "nowhere").classes is None


def test_gated_data_are_named(folder: Path) -> None:
    expected = {"classes": 20, "names_sha256": "0", "images": {"train": 400, "test": 100}}
    mine = {
        "title": "M",
        "layout": "imagenet",
        "root": "data/m",
        "images": "i",
        "class_names": {"n1": "a", "n2": "b"},
        "gated": "x",
    }
    path = write(folder, {"mine": mine | {"expected": expected}}, tasks={"base_to_new": {"datasets": ["mine"]}})
    notes = " ".join(planning(path).numbers()["notes"])
    assert "mine: is not there and cpt cannot fetch it" in notes
    assert "classes with fewer than 16 images" in notes
    (folder / "data/m/i").mkdir(parents=True)
    assert "mine: is not there" not in " ".join(planning(path).numbers()["notes"])


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"variants": {"x": {"method": "coopp"}}}, {}, "unknown method 'coopp'"),
        ({"seeds": []}, {}, "seeds"),
        ({}, {"device": "gpu"}, "device: unknown 'gpu'"),
        ({}, {"precision": "half"}, "precision: unknown 'half'"),
        ({"backbone": {"name": "x", "architecture": "ViT-B-17"}}, {}, "no model 'ViT-B-17'"),
        ({"backbone": {"name": "x", "architecture": "nowhere.json"}}, {}, "nowhere.json: cannot be read"),
        ({"backbone": {"name": "x", "architecture": "deep.json"}}, {}, "deep.json: cannot be read"),
    ],
)
def test_bad_input_is_one_line(folder: Path, changes: dict[str, Any], options: dict[str, str], message: str) -> None:
    (folder / "deep.json").write_text("[" * 100_000)
    with pytest.raises(CptError) as caught:
        planning(write(folder, **changes), **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_for_people() -> None:
    assert [size(count) for count in (0, 999, 1_500, 2.5e6, 34.9e9, 1.25e12)] == [
        "0 B", "999 B", "2 kB", "2 MB", "34.9 GB", "1.25 TB",
    ]  # fmt: skip
    assert [hours(h * 3600) for h in (0, 0.001, 0.5, 9.994, 12.34, 12345.6)] == [
        "0", "< 0.01", "0.50", "9.99", "12.3", "12,345.6",
    ]  # fmt: skip
    assert hours(3600, less=True) == "≥ 1.00"
