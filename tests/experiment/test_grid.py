"""What a configuration resolves to, told by hand for one small experiment after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cpt.experiment import config, grid
from cpt.files.stage_files import write_json
from cpt.methods.base import registry
from cpt.methods.base.families import FAMILIES

EMBEDDED = {"layout": "embedded", "per_class": {"train": 18, "test": 6}}
FILES = {"layout": "folders", "root": "photos"}
CATALOG = {
    "land": EMBEDDED | {"title": "Land", "counterpart": "EuroSAT"},
    "flowers": EMBEDDED | {"title": "Flowers"},
    "photos": FILES | {"title": "Photos"},
    "views": FILES | {"title": "Views"},
}
TABLE = {"kind": "table", "layout": "datasets", "title": "T", "tasks": ["base_to_new"]}
TEMPLATES = {"mine": ["my {}."], "yours": ["your {}."]}


@pytest.fixture
def built(tmp_path: Path) -> Any:
    """Build a configuration of the given variants; further keys replace those of a small experiment."""
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(CATALOG))

    def build(variants: dict[str, Any], **changes: Any) -> grid.Grid:
        values = {
            "experiment": "small",
            "backbone": {"name": "tiny-clip", "architecture": "embedded"},
            "catalog": str(tmp_path / "catalog.yaml"),
            "seeds": [3, 5],
            "imbalance_ratios": [0.5],
            "templates": TEMPLATES,
            "variants": variants,
            "tasks": {"base_to_new": {"datasets": ["land"]}},
            "exhibits": {"table": TABLE | {"variants": list(variants)}},
        }
        return grid.build(config.parse(values | changes, "x.yaml"), "x.yaml")

    return build


def only(found: grid.Grid, method: str, seed: int = 3) -> Any:
    """The one run of a method and a seed."""
    (run,) = [run for run in found.runs.values() if (run.method, run.seed) == (method, seed)]
    return run


def test_later_rules_win_and_the_variant_wins_over_all(built: Any) -> None:
    rules = [
        {"set": {"epochs": 1, "batch_size": 1, "learning_rate": 0.1, "momentum": 0.1}},
        {"methods": ["ivlp"], "set": {"epochs": 2, "depth_text": 2}},
        {"methods": ["coop"], "set": {"epochs": 3}},
        {"datasets": ["flowers"], "set": {"batch_size": 7}},
        {"protocols": ["few_shot"], "set": {"learning_rate": 0.7}},
        {"set": {"depth_vision": 1}},
    ]
    tasks = {name: {"datasets": ["land", "flowers"]} for name in ("base_to_new", "few_shot")}
    found = built(
        {"a": {"method": "ivlp"}, "b": {"method": "coop", "set": {"momentum": 0.5}}},
        overrides=rules,
        tasks=tasks,
        exhibits={"t": TABLE | {"variants": ["a", "b"], "tasks": list(tasks), "seeds": [3]}},
    )
    set_to = {
        (run.method, run.protocol, run.dataset): (
            run.hyperparameters.epochs,
            run.hyperparameters.batch_size,
            run.hyperparameters.learning_rate,
            run.hyperparameters.momentum,
            getattr(run.hyperparameters, "depth_text", None),
            getattr(run.hyperparameters, "depth_vision", None),
        )
        for run in found.runs.values()
    }
    assert set_to == {
        ("ivlp", "base_to_new", "land"): (2, 1, 0.1, 0.1, 2, 1),
        ("ivlp", "base_to_new", "flowers"): (2, 7, 0.1, 0.1, 2, 1),
        ("ivlp", "few_shot", "land"): (2, 1, 0.7, 0.1, 2, 1),
        ("ivlp", "few_shot", "flowers"): (2, 7, 0.7, 0.1, 2, 1),
        ("coop", "base_to_new", "land"): (3, 1, 0.1, 0.5, None, None),
        ("coop", "base_to_new", "flowers"): (3, 7, 0.1, 0.5, None, None),
        ("coop", "few_shot", "land"): (3, 1, 0.7, 0.5, None, None),
        ("coop", "few_shot", "flowers"): (3, 7, 0.7, 0.5, None, None),
    }


@pytest.mark.parametrize("part", ["test", "val"])
def test_frozen_features_of_images(built: Any, part: str) -> None:
    """Training images where nothing is augmented, tested ones for methods that leave the vision tower alone."""
    names = ("zeroshot", "coop", "ivlp", "promptsrc", "dekg")
    variants = {name: {"method": name} for name in names}
    tasks = {"cross_dataset": {"source": "land", "targets": ["flowers"]}}
    changes = {"tasks": tasks, "exhibits": {"t": TABLE | {"variants": list(names), "tasks": ["cross_dataset"]}}}
    tested, train = [("flowers", part), ("land", part)], [("land", "train")]
    for augmentation, expected in (
        ("none", {"zeroshot": tested, "coop": train + tested, "ivlp": [], "promptsrc": train}),
        ("rrc_flip", {"zeroshot": tested, "coop": tested, "ivlp": [], "promptsrc": []}),
    ):
        found = built(variants, augmentation=augmentation, evaluate_on=part, **changes)
        got = {run.method: found.frozen_image_parts(run) for run in found.runs.values()}
        assert {name: got[name] for name in expected} == expected


def test_image_caches_are_of_files_that_a_prompted_tower_is_tested_on(built: Any) -> None:
    variants = {"coop": {"method": "coop"}, "ivlp": {"method": "ivlp"}}
    tasks = {
        "base_to_new": {"datasets": ["land", "photos"]},
        "cross_dataset": {"source": "photos", "targets": ["land", "views"]},
    }
    for row, task, expected in (
        ("coop", "base_to_new", set()),
        ("ivlp", "base_to_new", {"photos"}),
        ("ivlp", "cross_dataset", {"photos", "views"}),
    ):
        table = TABLE | {"variants": [row], "tasks": [task]}
        assert built(variants, tasks=tasks, exhibits={"t": table}).pixels == expected


def test_clusters_that_all_are_measured_within(built: Any) -> None:
    """Those of CPT as the experiment sets it, not as a row does; with the first seed; only where a table shows it."""
    variants = {
        "coop": {"method": "coop"},
        "cpt": {"method": "cpt", "set": {"classes_per_cluster": 5, "templates": "yours"}},
    }
    rules = [{"methods": ["cpt"], "set": {"classes_per_cluster": 2, "templates": "mine"}}]
    table = TABLE | {"layout": "measures", "variants": ["coop", "cpt"]}
    for measures, expected in (
        (["base", "tail"], None),
        (["base", "tail_as_head"], "clusters/base_to_new/land/spherical-per2-mine/s3.parquet"),
        (["cluster_etf_distance"], "clusters/base_to_new/land/spherical-per2-mine/s3.parquet"),
    ):
        found = built(variants, overrides=rules, exhibits={"t": table | {"measures": measures}})
        measured = {run.clusters if run else None for run in map(found.clustered, found.runs.values())}
        assert measured == {expected}
        listed = {run["measured_clusters"] for run in found.as_json()["runs"]}
        assert listed == {expected}
        own = {run["clusters"] for run in found.as_json()["runs"]} - {None}
        assert own == {f"clusters/base_to_new/land/spherical-per5-yours/s{seed}.parquet" for seed in (3, 5)}


def test_started_runs_are_tested_like_their_continuations(built: Any) -> None:
    start = {"start": "promptsrc", "start_hyperparameters": {"templates": "mine"}}
    tasks = {"cross_dataset": {"source": "land", "targets": ["flowers"]}}
    exhibits = {"t": TABLE | {"variants": ["dpc"], "tasks": ["cross_dataset"], "datasets": ["flowers"]}}
    found = built({"dpc": {"method": "dpc", "set": start}}, tasks=tasks, exhibits=exhibits)
    assert [run.method for run in found.runs.values()] == ["dpc"] * 2 + ["promptsrc"] * 2
    for seed in (3, 5):
        first, second = only(found, "promptsrc", seed), only(found, "dpc", seed)
        assert second.start.id == first.id
        assert first.targets == second.targets == {("flowers", "all")}
        assert set(found.as_json()["datasets"]) == {"land", "flowers"}, "also the one that is trained on only"
        assert first.hyperparameters.templates == second.hyperparameters.templates == "mine"
    listed = {run["run"]: run["start"] for run in found.as_json()["runs"]}
    assert {listed[only(found, "dpc", seed).id] for seed in (3, 5)} == {only(found, "promptsrc", s).id for s in (3, 5)}
    assert {listed[only(found, "promptsrc", seed).id] for seed in (3, 5)} == {None}


def seeds_and_epochs(found: grid.Grid, cells: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """(row, dataset, ratio, parameter, x, seeds) of cells, with the epochs that their runs really have."""
    return [
        (
            cell["row"],
            cell["dataset"],
            cell["ratio"],
            cell["parameter"],
            cell["x"],
            [found.runs[run].seed for run in cell["runs"]],
            {found.runs[run].hyperparameters.epochs for run in cell["runs"]},
        )
        for cell in cells
    ]


@pytest.mark.parametrize(("own", "panel", "shown", "curve"), [
    (None, None, [3, 5], [3, 5]),
    ([7], None, [7], [7]),
    (None, [8, 9], [3, 5], [8, 9]),
    ([7], [8, 9], [7], [8, 9]),
])  # fmt: skip
def test_cells_of_the_similarity_figure(
    built: Any, own: list[int] | None, panel: list[int] | None, shown: list[int], curve: list[int]
) -> None:
    figure = {
        "kind": "similarity", "title": "S", "dataset": "land", "variants": ["cpt"], "ratios": [0.25, 1.0],
        "stability": {"dataset": "flowers", "variants": ["cpt", "ivlp"], "epochs": 4},
    }  # fmt: skip
    if own:
        figure["seeds"] = own
    if panel:
        figure["stability"]["seeds"] = panel
    variants = {name: {"method": name, "label": name.upper()} for name in ("cpt", "ivlp")}
    found = built(variants, exhibits={"f": figure}, overrides=[{"set": {"epochs": 2}}])
    exhibit = found.exhibits["f"]
    assert seeds_and_epochs(found, exhibit["cells"]) == [
        ("cpt", "land", 0.25, None, None, shown, {2}),
        ("cpt", "flowers", 0.25, "epochs", 4, curve, {4}),
        ("ivlp", "flowers", 0.25, "epochs", 4, curve, {4}),
    ]
    assert [(row["id"], row["label"]) for row in exhibit["rows"]] == [("cpt", "CPT"), ("ivlp", "IVLP")]
    kept = {run.dataset: run.hyperparameters.snapshots for run in found.runs.values()}
    assert kept == {"land": False, "flowers": True}


def test_cells_of_a_sweep_and_of_the_method_figure(built: Any) -> None:
    variants = {"cpt": {"method": "cpt", "set": {"epochs": 6, "tetf_weight": 0.5}}}
    exhibits = {
        "sweep": {"kind": "sweep", "title": "S", "variant": "cpt", "sweep": {"epochs": [1, 2], "tetf_weight": [0, 0.5]},
                  "ratios": [0.25, 1.0]},
        "one": {"kind": "method", "title": "M", "variant": "cpt", "dataset": "land"},
    }  # fmt: skip
    found = built(variants, exhibits=exhibits)
    assert seeds_and_epochs(found, found.exhibits["sweep"]["cells"]) == [
        ("cpt", "land", ratio, name, x, [3, 5], {x if name == "epochs" else 6})
        for name, values in exhibits["sweep"]["sweep"].items()
        for x in values
        for ratio in (0.25, 1.0)
    ]
    assert found.exhibits["sweep"]["defaults"] == {"epochs": 6, "tetf_weight": 0.5}
    weights = {
        (cell["x"], found.runs[run].hyperparameters.tetf_weight)
        for cell in found.exhibits["sweep"]["cells"]
        if cell["parameter"] == "tetf_weight"
        for run in cell["runs"]
    }
    assert weights == {(0, 0.0), (0.5, 0.5)}
    assert seeds_and_epochs(found, found.exhibits["one"]["cells"]) == [("cpt", "land", 0.5, None, None, [3], {6})]


def test_cells_of_a_transfer(built: Any) -> None:
    """Trained on the source, tested on it too; a table of some datasets shows these only."""
    tasks = {"cross_dataset": {"source": "land", "targets": ["flowers", "photos"]}}
    table = TABLE | {"variants": ["coop"], "tasks": ["cross_dataset"], "seeds": [3]}
    for only_these, expected in (
        (None, [("land", True), ("flowers", False), ("photos", False)]),
        (["photos", "flowers"], [("flowers", False), ("photos", False)]),
        (["land"], [("land", True)]),
    ):
        shown = table | ({"datasets": only_these} if only_these else {})
        found = built({"coop": {"method": "coop"}}, tasks=tasks, exhibits={"t": shown})
        cells = found.exhibits["t"]["cells"]
        assert [(cell["dataset"], cell["source"]) for cell in cells] == expected
        (run,) = found.runs.values()
        assert (run.dataset, run.protocol) == ("land", "all_classes")
        assert run.targets == {(dataset, "all") for dataset, _ in expected}


def test_what_rows_are_called(built: Any) -> None:
    variants = {
        "npt": {"method": "npt"},
        "mine": {"method": "npt", "label": "Mine", "note": "small"},
        "cpt": {"method": "cpt", "note": "as printed"},
        "coop": {"method": "coop"},
    }
    found = built(variants)
    rows = {row["id"]: (row["label"], row["note"]) for row in found.exhibits["table"]["rows"]}
    assert rows == {
        "npt": ("NPT", "reconstruction"),
        "mine": ("Mine", "small, reconstruction"),
        "cpt": ("CPT", "as printed"),
        "coop": ("CoOp", None),
    }
    assert found.exhibits["table"]["reference"] == "cpt"
    without = {"table": TABLE | {"variants": ["npt", "coop"]}}
    assert built(variants, exhibits=without).exhibits["table"]["reference"] is None
    chosen = {"table": TABLE | {"variants": ["cpt", "coop"], "reference": "coop"}}
    assert built(variants, exhibits=chosen).exhibits["table"]["reference"] == "coop"


def test_rows_in_families(built: Any) -> None:
    methods = ("clip_lora", "gla", "zs_lp", "mma", "coop", "zeroshot")
    variants = {name: {"method": name} for name in methods}
    variants |= {"random": {"method": "coop", "control": True}}
    variants["adjusted"] = {"method": "coop", "set": {"prior": "logit_adjustment"}}
    plain = {"table": TABLE | {"variants": [*variants]}}
    rows = built(variants, exhibits=plain).exhibits["table"]["rows"]
    assert [row["id"] for row in rows] == [*variants]
    grouped = {"table": plain["table"] | {"families": True}}
    rows = built(variants, exhibits=grouped).exhibits["table"]["rows"]
    assert [row["id"] for row in rows] == ["zeroshot", "coop", "mma", "clip_lora", "zs_lp", "gla", "adjusted", "random"]
    assert [row["family"] for row in rows] == list(FAMILIES)


def test_every_method_has_a_family() -> None:
    assert {registry.get(name).family for name in registry.names()} == FAMILIES.keys() - {"long_tail"}


def test_the_file_of_the_grid(built: Any, tmp_path: Path) -> None:
    found = built({"coop": {"method": "coop"}}, class_groups={"tail": 2.0})
    content = found.as_json()
    write_json(tmp_path / "grid.json", content)
    assert (content["experiment"], content["backbone"], content["printed"]) == ("small", "tiny-clip", False)
    assert content["class_groups"] == {"head": 1.0, "medium": 1.0, "tail": 2.0}
    assert content["datasets"] == {
        "land": {"title": "Land", "counterpart": "EuroSAT", "derived_split": False, "layout": "embedded"}
    }
    (first, second) = content["runs"]
    assert (first["seed"], second["seed"]) == (3, 5)
    assert first["targets"] == [["land", "base"], ["land", "new"]]
    random = {"name": "vit", "architecture": "ViT-B-16", "pretrained": "random"}
    named = built({"coop": {"method": "coop"}}, backbone=random).as_json()["backbone"]
    assert named == "vit (random weights: the numbers mean nothing)"


def test_descriptions_are_the_datasets_own_where_it_has_some(built: Any, tmp_path: Path) -> None:
    variants = {"coprompt": {"method": "coprompt", "set": {"descriptions": "mine"}}, "coop": {"method": "coop"}}
    for name in ("land", "flowers"):
        (tmp_path / "land.json").write_text("{}")
        described = {"land": CATALOG["land"] | {"descriptions": str(tmp_path / "land.json")}}
        (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(CATALOG | described))
        found = built(variants, tasks={"base_to_new": {"datasets": [name]}})
        path = {"land": "descriptions-file", "flowers": "descriptions-templates-mine"}[name]
        assert found.descriptions(only(found, "coprompt")) == f"features/{name}/{path}.safetensors"
        assert found.descriptions(only(found, "coop")) is None


def test_a_table_without_a_title_has_that_of_its_first_task(built: Any) -> None:
    """So that a table that is given other tasks is not called after its old ones."""
    plain = {name: value for name, value in TABLE.items() if name != "title"} | {"variants": ["coop"]}
    tasks = {name: {"datasets": ["land"]} for name in ("base_to_new", "few_shot")}
    exhibits = {
        "a": plain,
        "b": plain | {"tasks": ["few_shot"], "decimals": 1, "spread": False},
        "c": plain | {"tasks": ["few_shot"], "caption": "Mine."},
        "d": TABLE | {"variants": ["coop"]},
    }
    found = built({"coop": {"method": "coop"}}, tasks=tasks, exhibits=exhibits).as_json()["exhibits"]
    headings = {name: (table["title"], table["caption"]) for name, table in found.items()}
    assert headings["a"] == ("Base-to-new generalization", "Harmonic mean of base and new accuracy.")
    assert headings["b"] == ("Few-shot learning", "Accuracy on all classes, after training on all of them.")
    assert headings["c"] == ("Few-shot learning", "Mine.")
    assert headings["d"] == ("T", "")
    shown = {name: (table["decimals"], table["spread"]) for name, table in found.items()}
    assert (shown["a"], shown["b"]) == ((2, True), (1, False))


def test_natural_is_a_ratio(built: Any) -> None:
    """Untrained runs have one of their own: groups by number of training images are those of the natural tail."""
    made = built({"coop": {"method": "coop"}, "zeroshot": {"method": "zeroshot"}}, imbalance_ratios=[0.5, "natural"])
    assert {(run.method, run.ratio) for run in made.runs.values()} == {
        ("coop", 0.5), ("coop", "natural"), ("zeroshot", 1.0), ("zeroshot", "natural")
    }  # fmt: skip
    splits = {run.split for run in made.runs.values() if run.ratio == "natural"}
    assert all("/rnatural/s" in split for split in splits)
    assert {entry["imbalance_ratio"] for entry in made.as_json()["runs"]} == {0.5, 1.0, "natural"}
