"""Pretraining of the tiny CLIP, and the shipped result of it."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import cpt
from cpt.clip import pretrain as recipe
from cpt.clip import tiny
from cpt.clip.make_backbone import load_tokenizer, make_backbone
from cpt.data.world import WORLDS, benchmark, captions
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
    web = captions.web(WORLDS["first"], 400, seed=0)
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
    assert set(written["zero_shot"]["percent"]) == set(WORLDS["first"].datasets)
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


@pytest.mark.parametrize("world", WORLDS)
def test_pretraining_writes_all_files_and_a_recipe_that_names_them(world, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "TEST_IMAGES", 1)
    monkeypatch.setattr(recipe, "CANDIDATES", 3)
    threads = torch.get_num_threads()
    lines = []
    recipe.pretrain(tmp_path, world=world, seed=1, pairs=150, steps=3, log=lines.append)
    torch.set_num_threads(threads)
    found = json.loads((tmp_path / "recipe.json").read_text())
    assert {path.name for path in tmp_path.iterdir()} == {*recipe.files(WORLDS[world]), "recipe.json"}
    assert found["sha256"] == {name: sha256_file(tmp_path / name) for name in recipe.files(WORLDS[world])}
    assert (found["world"], found["seed"], found["steps"], len(found["loss"]["values"])) == (world, 1, 3, 1)
    assert set(found["zero_shot"]["percent"]) == set(WORLDS[world].datasets)
    for name, read in (("merges.txt.gz", gzip.open), ("config.json", open)):  # whatever the seed
        ours, shipped = (read(folder / name, "rb").read() for folder in (tmp_path, ASSETS))
        assert (ours == shipped) == (world == "first")  # unpacked: versions of Python pack into different bytes
    assert (tmp_path / "world_a.json").is_file() == (world == "first")
    assert tiny.rebuilt(tmp_path) == found
    assert lines[-1].startswith("done")


def test_too_little_to_train_on_is_said():
    with pytest.raises(CptError, match="at least 128 pairs and 2 steps, not 100 and 20"):
        recipe.pretrain(Path("never"), pairs=100, steps=20, log=print)


def test_an_unknown_world_is_said():
    with pytest.raises(CptError, match=r"no generated world 'third'; .*first, second"):
        recipe.pretrain(Path("never"), world="third", log=print)


def test_a_folder_without_a_tiny_clip_or_with_another_file_is_refused(tmp_path):
    folder = tmp_path / "second-s2"
    with pytest.raises(
        CptError, match=r"holds no tiny CLIP.*`cpt pretrain --world second --seed 2 --output .*second-s2`"
    ):
        tiny.rebuilt(folder)
    shutil.copytree(ASSETS, folder)
    assert tiny.rebuilt(folder)["seed"] == 0
    (folder / "merges.txt.gz").write_bytes(b"other")
    with pytest.raises(CptError, match=r"merges\.txt\.gz: missing, or not that of recipe\.json; make it"):
        tiny.rebuilt(folder)
    (folder / "recipe.json").write_text("{")
    with pytest.raises(CptError, match=r"recipe\.json: cannot be read; make it with"):
        tiny.rebuilt(folder)


def test_a_rebuilt_tiny_clip_is_a_backbone_whose_record_holds_its_tokenizer(tmp_path):
    """A copy of the shipped one gives the same towers, and tokens even where the copy is gone."""
    copied = tmp_path / "tiny"
    shutil.copytree(ASSETS, copied)
    shipped, rebuilt = tmp_path / "shipped.json", tmp_path / "rebuilt.json"
    make_backbone("tiny", "embedded", "shipped", shipped)
    make_backbone("tiny", "embedded", str(copied), rebuilt)
    assert rebuilt.with_suffix(".safetensors").read_bytes() == shipped.with_suffix(".safetensors").read_bytes()
    assert json.loads(rebuilt.read_text())["source"]["seed"] == 0
    assert "source" not in json.loads(shipped.read_text()), "whose bytes are part of every run's identity"
    shutil.rmtree(copied)
    texts = ["a photo of a red star.", "two hearts in a row", "unknown words"]
    assert torch.equal(load_tokenizer(rebuilt)(texts), load_tokenizer(shipped)(texts))
