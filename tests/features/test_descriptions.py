"""Class descriptions: their file, what stands in for it, their features, and the training that uses them."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from cpt.cli.app import app
from cpt.clip import tiny
from cpt.clip.backbone import load_backbone
from cpt.clip.make_backbone import load_tokenizer
from cpt.data.catalog import load_catalog
from cpt.data.manifest import read_manifest
from cpt.errors import CptError
from cpt.features.descriptions import SCHEMA, make_descriptions, read_description_file, read_descriptions
from cpt.files.paths import PROMPTS, RUN
from cpt.files.stage_files import read_json, read_tensors, sha256_file, write_tensors
from cpt.training.train import train
from tests.helpers.experiment import train_inputs

NAMES = ["red fox", "air_plane", "moth"]
SENTENCES = {
    "moth": ["a moth is small", "it flies at night"],
    "red_fox": ["a fox is red", "it has a tail"],
    "air plane": ["an air plane", "a thing with wings"],
    "another": ["not asked for"],
}


def stored(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "knowledge.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def open_clip_features(texts: list[str]) -> torch.Tensor:
    """Unit-norm features by the unmodified open_clip model of the fixture's backbone."""
    with resources.as_file(resources.files("cpt") / "assets" / "tiny_clip") as folder:
        model, tokenizer = tiny.load(folder)
    with torch.no_grad():
        return model.encode_text(tokenizer(texts), normalize=True)


def make(results: Path, output: Path, names: list[str], **options: Any) -> tuple[torch.Tensor, dict]:
    record = results / "backbone.json"
    count = make_descriptions(load_backbone(record), load_tokenizer(record), names, output, **options)
    features, metadata = read_descriptions(output)
    assert len(features) == count
    return features, metadata


def test_a_file_is_read_in_the_order_of_the_classes(tmp_path: Path) -> None:
    found = read_description_file(stored(tmp_path, SENTENCES), NAMES)
    assert found == [SENTENCES["red_fox"], SENTENCES["air plane"], SENTENCES["moth"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file of class descriptions; correct or delete `descriptions`"),
        ("{", "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); write {class"),
        ([], "must be an object {class name: [sentence, ...]}"),
        ({}, "must be an object {class name: [sentence, ...]}"),
        ({"red fox": ["x"], "air planes": ["x"], "moth": ["x"]},
         "describes no class 'air_plane'; did you mean 'air planes'?"),
        (SENTENCES | {"moth": "a moth"}, "moth: must be a list of sentences; write {class name: [sentence, ...]}"),
        (SENTENCES | {"moth": []}, "moth: must be a list of sentences"),
        (SENTENCES | {"moth": ["a moth", " "]}, "moth: must be a list of sentences"),
        (SENTENCES | {"moth": ["a moth", 7]}, "moth: must be a list of sentences"),
        (SENTENCES | {"moth": ["a moth", "half \ud83e"]}, "moth: must be a list of sentences"),
        pytest.param("[" * 100_000, "not JSON (nested too deeply", id="deep"),
        pytest.param(f"[{'9' * 5000}]", "not JSON (Exceeds the limit", id="long"),
        (SENTENCES | {"moth": ["a moth"]}, "moth has 1 sentences, red fox has 2; give every class equally many"),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_refused_in_one_line(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "absent.json" if content is None else stored(tmp_path, content)
    with pytest.raises(CptError) as caught:
        read_description_file(path, NAMES)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "knowledge.json"
    path.write_text(json.dumps(SENTENCES), encoding="utf-8-sig")
    assert read_description_file(path, NAMES) == read_description_file(stored(tmp_path, SENTENCES), NAMES)


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CptError) as caught:
        read_description_file(tmp_path, NAMES)
    assert str(caught.value) == f"{tmp_path}: cannot be read (Is a directory); correct or delete `descriptions`"


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "knowledge.json"
    path.write_bytes(b'{"moth": ["\xff"]}')
    with pytest.raises(CptError, match=r"knowledge.json: not JSON"):
        read_description_file(path, NAMES)


def test_a_sentence_that_does_not_fit_is_refused(results: Path, tmp_path: Path) -> None:
    long = SENTENCES | {"moth": ["a moth", "a moth " * 10]}
    with pytest.raises(CptError, match=r"knowledge.json: prompt 'a moth a moth.* context has 16; shorten"):
        make(results, tmp_path / "out.safetensors", NAMES, file=stored(tmp_path, long))
    assert not (tmp_path / "out.safetensors").exists()


def test_features_of_a_file_are_those_of_open_clip(results: Path, tmp_path: Path) -> None:
    path = stored(tmp_path, SENTENCES)
    features, metadata = make(results, tmp_path / "out.safetensors", NAMES, file=path, templates=["unused {}"])
    assert features.shape == (2, 3, 64)
    for d in range(2):
        expected = open_clip_features([SENTENCES[name][d] for name in ("red_fox", "air plane", "moth")])
        assert torch.allclose(features[d], expected, atol=1e-5)
    assert metadata["classes"] == NAMES
    assert metadata["text_knowledge"] == {
        "kind": "file", "file": "knowledge.json", "sha256": sha256_file(path), "per_class": 2,
    }  # fmt: skip


def test_templates_stand_in_for_a_file(results: Path, tmp_path: Path) -> None:
    templates = ["a photo of a {}.", "the {}", "a drawing of a {}."]
    options = {"templates": templates, "templates_name": "mine"}
    features, metadata = make(results, tmp_path / "out.safetensors", ["moth", "fox"], **options)
    assert features.shape == (3, 2, 64)
    for d, template in enumerate(templates):
        expected = open_clip_features([template.replace("{}", name) for name in ("moth", "fox")])
        assert torch.allclose(features[d], expected, atol=1e-5)
    assert metadata["text_knowledge"] == {"kind": "templates", "templates": "mine", "per_class": 3}


@pytest.fixture
def catalog(results: Path, tmp_path: Path) -> Callable[[bool], Path]:
    """A catalog whose land has a file of descriptions, or has not."""

    def write(described: bool) -> Path:
        entry = {"title": "Land", "layout": "embedded"}
        if described:
            names = read_manifest(results / "data/land/manifest.parquet").class_names
            entry["descriptions"] = str(stored(tmp_path, {name: [f"the {name}", f"my {name}"] for name in names}))
        path = tmp_path / "catalog.yaml"
        path.write_text(yaml.safe_dump({"land": entry}))
        return path

    return write


@pytest.mark.parametrize("described", [True, False])
def test_the_verb_prefers_the_datasets_file(
    results: Path, tmp_path: Path, catalog: Callable[[bool], Path], described: bool
) -> None:
    path, output = catalog(described), tmp_path / "out.safetensors"
    assert (load_catalog(path)["land"].descriptions is None) != described
    words = ["descriptions", "land", "--manifest", results / "data/land/manifest.parquet", "--backbone",
             results / "backbone.json", "--output", output, "--templates", "short", "--device", "cpu",
             "--sets", '{"short": ["the {}", "a {}", "my {}"]}', "--catalog", path]  # fmt: skip
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    count = 2 if described else 3
    assert f"land: {count} descriptions per class from " in done.output
    features, metadata = read_descriptions(output)
    assert features.shape == (count, 10, 64)
    knowledge = metadata["text_knowledge"]
    assert knowledge["kind"] == ("file" if described else "templates")
    assert knowledge.get("templates") == (None if described else "short")


# Training with them


def knowledge_of(results: Path, folder: Path) -> Path:
    names = read_manifest(results / "data/land/manifest.parquet").class_names
    path = folder / "descriptions.safetensors"
    make(results, path, names, templates=["the {}", "a photo of a {}.", "a {}"], templates_name="captions")
    return path


def test_training_records_and_depends_on_its_text_knowledge(results: Path, tmp_path: Path) -> None:
    path = knowledge_of(results, tmp_path)
    train(train_inputs(results, "coprompt", descriptions=path), tmp_path / "a", print)
    record = read_json(tmp_path / "a/run.json", RUN)
    assert record["text_knowledge"] == {"kind": "templates", "templates": "captions", "per_class": 3}
    assert record["inputs"]["descriptions"] == sha256_file(path)
    tensors, metadata = read_tensors(path, SCHEMA)
    other = tmp_path / "other.safetensors"
    del metadata["schema"]
    write_tensors(other, {"features": -tensors["features"]}, SCHEMA, **metadata)
    train(train_inputs(results, "coprompt", descriptions=other), tmp_path / "b", print)
    a, b = (read_tensors(tmp_path / name / "prompts.safetensors", PROMPTS)[0] for name in "ab")
    assert not torch.equal(a["text.context"], b["text.context"])
    train(train_inputs(results, "coop"), tmp_path / "c", print)
    assert read_json(tmp_path / "c/run.json", RUN)["text_knowledge"] is None


def test_the_trained_classes_get_their_own_descriptions(results: Path, tmp_path: Path) -> None:
    """Of all ten classes' descriptions the training takes the base half's."""
    from cpt.data.split import read_split
    from cpt.methods.base import registry
    from cpt.training.train import _training_set

    path = knowledge_of(results, tmp_path)
    given = train_inputs(results, "coprompt", descriptions=path)
    clip = load_backbone(results / "backbone.json")
    training, _ = _training_set(given, registry.get("coprompt"), read_split(given.split), clip)
    texts = [f"the {name}" for name in training.classes.names]
    assert len(texts) == 5
    assert torch.allclose(training.descriptions[0], open_clip_features(texts), atol=1e-5)


def test_training_refuses_what_it_cannot_use(results: Path, tmp_path: Path) -> None:
    with pytest.raises(CptError, match="method coprompt needs --descriptions; make them with `cpt descriptions`"):
        train(train_inputs(results, "coprompt"), tmp_path / "a", print)
    path = tmp_path / "other.safetensors"
    make(results, path, ["moth", "fox"], templates=["a {}"], templates_name="x")
    with pytest.raises(CptError, match=r"other.safetensors: its classes are not those of .*; .*make it again"):
        train(train_inputs(results, "coprompt", descriptions=path), tmp_path / "a", print)
    other = results / "features/land/text-single.safetensors"
    with pytest.raises(CptError, match=f"expected a file of schema {SCHEMA}"):
        train(train_inputs(results, "coprompt", descriptions=other), tmp_path / "a", print)
