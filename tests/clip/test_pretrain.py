"""Pretraining of the tiny CLIP, and the shipped result of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import cpt
from cpt.clip import pretrain as recipe
from cpt.clip import tiny
from cpt.data.world import KEYS, benchmark, captions
from cpt.errors import CptError
from cpt.files.stage_files import sha256_file

ASSETS = Path(cpt.__file__).parent / "assets" / "tiny_clip"


@pytest.fixture(scope="module")
def shipped():
    return tiny.load(ASSETS)


@pytest.fixture(scope="module")
def written():
    return json.loads((ASSETS / "recipe.json").read_text())


def run(tokenizer, steps=20):
    web = captions.web(400, seed=0)
    texts = [pair.caption for pair in web]
    lines = []
    images = captions.render_web(web)
    model, halfway, losses = recipe.train(images, texts, tokenizer, seed=5, steps=steps, log=lines.append)
    return model, halfway, losses, lines


@pytest.mark.no_cover
def test_twenty_steps_lower_the_loss_and_are_identical_when_run_twice(shipped):
    model, halfway, losses, lines = run(shipped[1])
    again, halfway_again, losses_again, _ = run(shipped[1])
    assert np.mean(losses[-5:]) < losses[0] - 0.5
    assert losses == losses_again
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
        assert torch.equal(halfway[name], halfway_again[name]), name
    assert not torch.equal(halfway["visual.proj"], model.state_dict()["visual.proj"])
    assert model.logit_scale.exp().item() == pytest.approx(60)
    assert "step 20/20" in lines[-1]


def test_text_features_equal_those_of_open_clip(shipped):
    model, tokenizer = shipped
    tokens = tokenizer(["a photo of a red star.", "two hearts in a row", "a"])
    with torch.inference_mode():
        assert torch.allclose(tiny.encode_text(model, tokens), model.encode_text(tokens, normalize=True), atol=1e-6)


def test_the_shipped_files_are_those_of_the_recipe(written):
    assert {name: sha256_file(ASSETS / name) for name in written["sha256"]} == written["sha256"]
    assert set(written["sha256"]) | {"recipe.json"} == {path.name for path in ASSETS.iterdir()}
    assert set(written["zero_shot"]["percent"]) == set(KEYS)
    assert sum(p.numel() for p in tiny.load(ASSETS)[0].parameters()) == written["parameters"]


@pytest.mark.no_cover
def test_the_shipped_weights_reproduce_their_zero_shot_table(written):
    keys = ("shapes", "land", "world_a")
    table = tiny.measure(ASSETS, keys, written["zero_shot"]["test_images_per_class"])
    for key in keys:
        assert table[key] == pytest.approx(written["zero_shot"]["percent"][key], abs=1.5), key


@pytest.mark.no_cover
def test_the_half_trained_model_misclassifies_most_of_world_a():
    model, tokenizer = tiny.load(ASSETS, "halfway.safetensors")
    images, labels = benchmark.render("world_a", "test", 20)
    assert tiny.zero_shot(model, tokenizer, images, labels, benchmark.class_names("world_a"))["all"] < 15


def test_pretraining_writes_all_files_and_a_recipe_that_names_them(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "TEST_IMAGES", 1)
    monkeypatch.setattr(recipe, "CANDIDATES", 3)
    threads = torch.get_num_threads()
    lines = []
    recipe.pretrain(tmp_path, seed=1, pairs=150, steps=3, log=lines.append)
    torch.set_num_threads(threads)
    found = json.loads((tmp_path / "recipe.json").read_text())
    assert {path.name for path in tmp_path.iterdir()} == {*recipe.FILES, "recipe.json"}
    assert found["sha256"] == {name: sha256_file(tmp_path / name) for name in recipe.FILES}
    assert (found["seed"], found["steps"], len(found["loss"]["values"])) == (1, 3, 1)
    assert found["sha256"]["merges.txt.gz"] == sha256_file(ASSETS / "merges.txt.gz")
    assert found["sha256"]["config.json"] == sha256_file(ASSETS / "config.json")
    assert lines[-1].startswith("done")


def test_too_little_to_train_on_is_said():
    with pytest.raises(CptError, match="at least 128 pairs and 2 steps, not 100 and 20"):
        recipe.pretrain(Path("never"), pairs=100, steps=20, log=print)
