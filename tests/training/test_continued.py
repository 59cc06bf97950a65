"""Runs that start from finished ones: the grid, the checks of ``cpt train``, two stages and their predictions."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from cpt.errors import CptError
from cpt.evaluation.predict import predict
from cpt.experiment import config, grid
from cpt.files.paths import CLASSIFIER, PREDICTIONS, PROMPTS, RUN
from cpt.files.stage_files import read_json, read_parquet, read_tensors, sha256_file
from cpt.methods.base import registry
from cpt.training.loop import Loop
from cpt.training.train import train
from tests.helpers.contract import InterruptedHereError
from tests.helpers.experiment import COMMON, SMALL, linked, train_inputs

BASE: dict[str, Any] = config.load([Path("config/config.yaml")]).model_dump(mode="json", exclude_unset=True)
TARGETS = [("land", "base"), ("land", "new")]


# The grid


def build(variants: dict[str, Any], task: str = "base_to_new", overrides: list[Any] | None = None) -> grid.Grid:
    """One table over some variants, with these overrides alone."""
    values = copy.deepcopy(BASE)
    values |= {"variants": variants, "overrides": overrides or [{"set": {"templates": "single"}}]}
    table = {"kind": "table", "title": "x", "caption": "x", "layout": "by_ratio", "variants": list(variants)}
    table |= {"layout": BASE["exhibits"]["table2"]["layout"]}
    values["exhibits"] = {"table2": table | {"tasks": [task], "ratios": [1.0], "seeds": [1, 4]}}
    return grid.build(config.parse(values, "my.yaml"), "my.yaml")


def test_the_run_to_start_from_is_registered_with_the_same_targets() -> None:
    resolved = build({"dpc": {"method": "dpc"}})
    continued = [run for run in resolved.runs.values() if run.method == "dpc"]
    assert len(continued) == 2 * len(BASE["tasks"]["base_to_new"]["datasets"])
    for run in continued:
        start = resolved.runs[run.start.id]
        assert (start.method, start.protocol, start.dataset) == ("promptsrc", "base_to_new", run.dataset)
        assert (start.ratio, start.seed, start.split) == (run.ratio, run.seed, run.split)
        assert start.targets == run.targets == {(run.dataset, "base"), (run.dataset, "new")}
        assert run.modules == ("cpt.methods.dpc", "cpt.methods.promptsrc")
    assert len(resolved.runs) == 2 * len(continued)
    rows = {row["run"]: row["start"] for row in resolved.as_json()["runs"]}
    assert all(rows[run.id] == run.start.id for run in continued)
    assert all(rows[run.start.id] is None for run in continued)


def test_a_start_run_that_a_variant_has_too_trains_once() -> None:
    both = build({"dpc": {"method": "dpc"}, "promptsrc": {"method": "promptsrc"}})
    assert both.runs.keys() == build({"dpc": {"method": "dpc"}}).runs.keys()
    other = build({"dpc": {"method": "dpc"}, "promptsrc": {"method": "promptsrc", "set": {"epochs": 3}}})
    assert len(other.runs) == len(both.runs) * 3 / 2


@pytest.mark.parametrize("start", ["coop", "promptsrc", "maple", "coprompt"])
def test_the_start_run_resolves_like_a_variant_of_its_own(start: str) -> None:
    """Its defaults by protocol and the experiment's overrides hold for it; templates are those it was trained with."""
    overrides = [
        {"set": {"batch_size": 8}},
        {"methods": [start], "set": {"epochs": 7, "templates": "dataset"}},
        {"methods": ["dpc"], "set": {"epochs": 5}},
    ]
    own = {"learning_rate": 0.5}
    variants = {
        "dpc": {"method": "dpc", "set": {"start": start, "start_hyperparameters": own}},
        "alone": {"method": start, "set": own},
    }
    resolved = build(variants, "cross_dataset", overrides)
    alone = {run.id for run in resolved.runs.values() if run.method == start}
    continued = [run for run in resolved.runs.values() if run.method == "dpc"]
    assert {run.start.id for run in continued} == alone
    for run in continued:
        assert (run.hyperparameters.epochs, run.hyperparameters.templates) == (5, "dataset")
        began = run.start.hyperparameters
        assert (began.epochs, began.batch_size, began.learning_rate) == (7, 8, 0.5)
        if "depth_text" in type(began).model_fields:
            assert began.depth_text == 3  # of all_classes
        assert run.start.hyperparameters.model_dump() == run.hyperparameters.start_hyperparameters
        assert type(run.hyperparameters)(**run.hyperparameters.model_dump()) == run.hyperparameters


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": "promptsrcs"}, "set.start: no method to start from: 'promptsrcs'; did you mean 'promptsrc'"),
        ({"start": "zeroshot"}, "variants.dpc.set.start: no method to start from: 'zeroshot'; known: clap"),
        ({"start": "cocoop"}, "variants.dpc.set.start: no method to start from: 'cocoop'; did you mean 'coop'"),
        ({"start": "dpc"}, "variants.dpc.set.start: no method to start from: 'dpc'"),
        ({"start": ""}, "variants.dpc.set.start: no method to start from: ''; known: clap"),
        ({"start_hyperparameters": {"epoch": 3}},
         "variants.dpc.set.start_hyperparameters.epoch: unknown key; did you mean 'epochs'?"),
        ({"start_hyperparameters": {"epochs": -3}}, "variants.dpc.set.start_hyperparameters.epochs: -3: "),
        ({"start_hyperparameters": {"templates": "singel"}}, "unknown set 'singel'; did you mean 'single'?"),
        ({"start": "coprompt", "start_hyperparameters": {"descriptions": "imagenett"}},
         "variants.dpc.set: descriptions: unknown set 'imagenett'; did you mean 'imagenet'?"),
        ({"strat": "coop"}, "variants.dpc.set.strat: unknown key; did you mean 'start'?"),
        ({"base_weight": 0}, "variants.dpc.set.base_weight: 0: "),
    ],
)  # fmt: skip
def test_starts_that_cannot_be_are_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(CptError) as caught:
        build({"dpc": {"method": "dpc", "set": given}})
    assert str(caught.value).startswith("my.yaml: variants.dpc")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_grid_lets_through_dpc_can_start_from() -> None:
    for name in registry.names():
        if registry.continuable(name):
            build({"dpc": {"method": "dpc", "set": {"start": name}}})


# Training


@pytest.fixture(scope="module")
def stage_one(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of PromptSRC."""
    folder = tmp_path_factory.mktemp("stage1") / "runs/one"
    train(train_inputs(results, "promptsrc"), folder, lambda _: None)
    return folder


def continued(results: Path, start: Path, **changes: Any) -> Any:
    given = {"start": "promptsrc", "start_hyperparameters": COMMON | SMALL["promptsrc"]}
    given |= changes.pop("hyperparameters", {})
    return train_inputs(results, "dpc", hyperparameters=given, start=start, **changes)


@pytest.fixture(scope="module")
def stage_two(results: Path, stage_one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of DPC that started from it."""
    folder = tmp_path_factory.mktemp("stage2") / "runs/two"
    train(continued(results, stage_one), folder, lambda _: None)
    return folder


def test_the_second_stage_keeps_the_first_and_learns_beside_it(stage_one: Path, stage_two: Path) -> None:
    first, _ = read_tensors(stage_one / "prompts.safetensors", PROMPTS)
    second, _ = read_tensors(stage_two / "prompts.safetensors", PROMPTS)
    assert len(second) == 2 * len(first)
    for name, value in first.items():
        assert torch.equal(second["tuned_" + name.replace(".", "__")], value), name
        assert not torch.equal(second[f"parallel.{name}"], value), name
    record, began = (read_json(stage / "run.json", RUN) for stage in (stage_two, stage_one))
    assert record["inputs"]["start"] == sha256_file(stage_one / "prompts.safetensors")
    assert record["hyperparameters"]["start_hyperparameters"]["depth_text"] == 2
    assert record["learnable_parameters"] == began["learnable_parameters"] == sum(v.numel() for v in first.values())
    assert record["code"] != began["code"]


def scores(folder: Path) -> pd.DataFrame:
    table = read_parquet(folder / "predictions.parquet", PREDICTIONS)[0].to_pandas()
    return table.set_index(["subset", "row"]).sort_index()


def predicted(run: Path, root: Path) -> pd.DataFrame:
    predict(run, root, TARGETS, device="cpu", log=lambda _: None)
    return scores(run)


def test_new_classes_are_predicted_by_the_first_stage_alone(
    results: Path, tmp_path: Path, stage_one: Path, stage_two: Path
) -> None:
    """With a share of 0 for new classes every bit is stage 1's; on trained classes the mixture differs."""
    root = linked(results, tmp_path)
    first, second = predicted(stage_one, root), predicted(stage_two, root)
    assert first.loc["new"]["true_score"].tolist() == second.loc["new"]["true_score"].tolist()
    for column in ("top_labels", "top_scores"):
        pairs = zip(first.loc["new"][column], second.loc["new"][column], strict=True)
        assert all(a.tolist() == b.tolist() for a, b in pairs)
    a, b = first.loc["base"]["true_score"], second.loc["base"]["true_score"]
    assert (a - b).abs().max() > 1e-5
    classifiers = [read_tensors(run / "classifier.safetensors", CLASSIFIER)[0] for run in (stage_one, stage_two)]
    assert torch.equal(classifiers[0]["land/new"], classifiers[1]["land/new"])
    assert not torch.equal(classifiers[0]["land/base"], classifiers[1]["land/base"])


def test_trained_classes_are_predicted_by_the_mixture(
    results: Path, tmp_path: Path, stage_one: Path, stage_two: Path
) -> None:
    """0.2 P' + 0.8 P, put into a run of PromptSRC, predicts the same."""
    from cpt.files.stage_files import write_tensors

    root = linked(results, tmp_path)
    mixed = tmp_path / "runs/mixed"
    first, _ = read_tensors(stage_one / "prompts.safetensors", PROMPTS)
    second, _ = read_tensors(stage_two / "prompts.safetensors", PROMPTS)
    tensors = {name: 0.2 * second[f"parallel.{name}"] + 0.8 * value for name, value in first.items()}
    write_tensors(mixed / "prompts.safetensors", tensors, PROMPTS, method="promptsrc")
    (mixed / "run.json").write_bytes((stage_one / "run.json").read_bytes())
    found, expected = predicted(stage_two, root).loc["base"], predicted(mixed, root).loc["base"]
    assert (found["true_score"] - expected["true_score"]).abs().max() < 1e-5
    assert (found["top_labels"].str[0] == expected["top_labels"].str[0]).all()


def test_other_datasets_count_as_new(results: Path, tmp_path: Path, stage_two: Path) -> None:
    """A run of another dataset finds no class of land trained: ``base`` of land is then P's alone, too."""
    from cpt.clip.backbone import load_backbone
    from cpt.evaluation.predict import _target

    root, clip = linked(results, tmp_path), load_backbone(results / "backbone.json")
    for source, subset, expected in (
        ("land", "base", True), ("land", "all", True), ("land", "new", False), ("sea", "base", False),
        ("sea", "all", False),
    ):  # fmt: skip
        assert _target(root, source, "land", subset, "test", "single", clip).trained == expected


def test_an_interrupted_second_stage_gives_the_same_bytes(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage_one: Path, stage_two: Path
) -> None:
    original, count = Loop._step, 0

    def step(self: Loop, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == 8:
            raise InterruptedHereError
        original(self, *arguments)

    given = continued(results, stage_one, checkpoint=tmp_path / "run.checkpoint")
    monkeypatch.setattr(Loop, "_step", step)
    with pytest.raises(InterruptedHereError):
        train(given, tmp_path / "resumed", lambda _: None)
    monkeypatch.undo()
    lines: list[str] = []
    train(given, tmp_path / "resumed", lines.append)
    assert any("resuming at epoch 2, step 2" in line for line in lines)
    name = "prompts.safetensors"
    assert (tmp_path / "resumed" / name).read_bytes() == (stage_two / name).read_bytes()
    records = [read_json(folder / "run.json", RUN) for folder in (tmp_path / "resumed", stage_two)]
    encoded = [record["encoded_per_step"] for record in records]
    assert all(encoded[0][kind] == encoded[1][kind] for kind in ("texts", "images", "frozen_images"))


def refusal(given: Any, output: Path) -> str:
    with pytest.raises(CptError) as caught:
        train(given, output, lambda _: None)
    assert not (output / "run.json").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_start_run_that_does_not_belong_is_refused(results: Path, tmp_path: Path, stage_one: Path) -> None:
    out = tmp_path / "out"
    message = refusal(replace(continued(results, stage_one), start=None), out)
    assert message == "method dpc needs --start, the folder of a finished run of promptsrc"
    assert refusal(continued(results, tmp_path), out).startswith(f"{tmp_path}/prompts.safetensors: not found; run the")
    (tmp_path / "prompts.safetensors").write_bytes((stage_one / "prompts.safetensors").read_bytes())
    assert refusal(continued(results, tmp_path), out).startswith(
        f"{tmp_path}/run.json: not found; give the folder of a finished run"
    )
    ending = " differs from what this run starts from; train promptsrc anew"
    other_split = continued(results, stage_one, ratio="r0.25")
    assert refusal(other_split, out) == f"{stage_one}: its split{ending}"
    for changed in ({"epochs": 3}, {"text_weight": 24}):
        asked = {"start_hyperparameters": COMMON | SMALL["promptsrc"] | changed}
        assert refusal(continued(results, stage_one, hyperparameters=asked), out).endswith(
            f"its hyperparameters{ending}"
        )
    as_coop = continued(results, stage_one, hyperparameters={"start": "coop", "start_hyperparameters": COMMON})
    assert refusal(as_coop, out) == f"{stage_one}: its method differs from what this run starts from; train coop anew"


def test_a_start_run_on_another_backbone_is_refused(results: Path, tmp_path: Path, stage_one: Path) -> None:
    import json

    start = tmp_path / "start"
    start.mkdir()
    record = read_json(stage_one / "run.json", RUN)
    record["inputs"]["backbone"] = "0" * 64
    (start / "run.json").write_text(json.dumps(record))
    (start / "prompts.safetensors").write_bytes((stage_one / "prompts.safetensors").read_bytes())
    assert "its backbone differs" in refusal(continued(results, start), tmp_path / "out")


def test_a_continuation_of_coop_leaves_the_vision_tower_alone(results: Path, tmp_path: Path) -> None:
    """On CoOp there are text prompts only; two stages train and new classes keep stage 1's prediction."""
    root = linked(results, tmp_path)
    one, two = tmp_path / "runs/one", tmp_path / "runs/two"
    train(train_inputs(results, "coop"), one, lambda _: None)
    given = {"start": "coop", "start_hyperparameters": COMMON}
    train(train_inputs(results, "dpc", hyperparameters=given, start=one), two, lambda _: None)
    tensors, _ = read_tensors(two / "prompts.safetensors", PROMPTS)
    assert tensors.keys() == {"parallel.text.context", "tuned_text__context"}
    first, second = predicted(one, root).loc["new"], predicted(two, root).loc["new"]
    assert (first["true_score"] - second["true_score"]).abs().max() < 1e-5  # stage 1 read cached image features
    assert (predicted(one, linked(results, make(tmp_path / "plain"), features=False)).loc["new"]["true_score"]
            == second["true_score"]).all()  # fmt: skip


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


# Prediction of a classifier that depends on the image


def test_cocoop_predicts_every_image_by_texts_of_its_own(results: Path, tmp_path: Path) -> None:
    from cpt.clip.backbone import load_backbone
    from cpt.features.images import read_image_features
    from cpt.features.text import read_text_features

    run = tmp_path / "runs/cocoop"
    train(train_inputs(results, "cocoop", hyperparameters={"learning_rate": 0.02, "epochs": 3}), run, lambda _: None)
    table = predicted(run, linked(results, tmp_path))
    plain = predicted(run, linked(results, make(tmp_path / "plain"), features=False))
    assert (table["true_score"] - plain["true_score"]).abs().max() < 1e-4, "cached features or images"

    clip = load_backbone(results / "backbone.json")
    classes, _ = read_text_features(results / "features/land/text-single.safetensors")
    features, rows = read_image_features(results / "features/land/images-test.safetensors")
    tensors, _ = read_tensors(run / "prompts.safetensors", PROMPTS)
    kind = registry.get("cocoop")
    method = kind(clip, kind.hyperparameters(reduction=2), classes, torch.Generator().manual_seed(0))
    method.load_state_dict(tensors)
    texts_differ = []
    for subset, chosen in (("base", range(5)), ("new", range(5, 10))):
        own = classes.take(chosen)
        for row, line in list(table.loc[subset].iterrows())[::7]:
            x = torch.nn.functional.normalize(features[rows == row].float(), dim=-1)
            with torch.no_grad():
                text = torch.nn.functional.normalize(method.text(own, shift=method.meta_net(x)), dim=-1)[0]
                probabilities = (clip.logit_scale * x @ text.T).softmax(dim=1)[0]
            assert line["true_score"] == pytest.approx(float(probabilities[line["label"]]), abs=1e-4)
            assert line["top_labels"].tolist() == probabilities.topk(5).indices.tolist()
            texts_differ.append(text)
    assert (texts_differ[0] - texts_differ[1]).abs().max() > 1e-3, "texts depend on the image"
    kept = read_tensors(run / "classifier.safetensors", CLASSIFIER)[0]
    assert set(kept) == {"land/base/images", "land/new/images"}, "there is no classifier to keep"
