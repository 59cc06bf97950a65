"""Making and loading backbones: the shipped one, models of open_clip with random weights, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cpt.clip.backbone import load_backbone
from cpt.clip.features import make_text_features, read_text_features, tokenize
from cpt.clip.make_backbone import load_tokenizer, make_backbone
from cpt.clip.templates import template_set
from cpt.errors import CptError
from cpt.files import read_json


def test_the_shipped_backbone(results: Path) -> None:
    record = read_json(results / "backbone.json", "cpt.backbone/1")
    assert record["largest_difference_to_open_clip"] < 1e-5
    clip = load_backbone(results / "backbone.json")
    assert clip.logit_scale == pytest.approx(60, rel=1e-4)
    assert clip.dtype == torch.float32
    assert load_backbone(results / "backbone.json", precision="bfloat16").dtype == torch.bfloat16
    assert clip.image_size == (32, 32)


def test_a_model_of_open_clip_with_random_weights(tmp_path: Path) -> None:
    make_backbone("b32", "ViT-B-32-quickgelu", "random", tmp_path / "backbone.json")
    clip = load_backbone(tmp_path / "backbone.json")
    assert (clip.text.width, clip.vision.width, len(clip.text.blocks)) == (512, 768, 12)
    tokens = load_tokenizer(tmp_path / "backbone.json")(["a photo of a cat one."])
    assert tokens[0, :10].tolist() == [49406, 320, 1125, 539, 320, 2368, 637, 269, 49407, 0]


@pytest.mark.parametrize(
    ("architecture", "pretrained", "message"),
    [
        ("ViT-B-16-quickgleu", "openai", "unknown model 'ViT-B-16-quickgleu'; did you mean 'ViT-B-16-quickgelu'"),
        ("ViT-B-16", "opanai", "unknown tag 'opanai' for ViT-B-16; did you mean 'openai'"),
        ("ViT-B-16", "nowhere.safetensors", "nowhere.safetensors: no such file"),
        ("RN50", "random", "unsupported architecture: image tower ModifiedResNet"),
    ],
)
def test_refusals(tmp_path: Path, architecture: str, pretrained: str, message: str) -> None:
    with pytest.raises(CptError, match=message):
        make_backbone("x", architecture, pretrained, tmp_path / "backbone.json")
    assert not (tmp_path / "backbone.json").exists()


def test_weights_that_are_not_the_recorded_ones(results: Path, tmp_path: Path) -> None:
    (tmp_path / "backbone.json").write_bytes((results / "backbone.json").read_bytes())
    weights = bytearray((results / "backbone.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "backbone.safetensors").write_bytes(weights)
    with pytest.raises(CptError, match=r"not the file that backbone\.json describes"):
        load_backbone(tmp_path / "backbone.json")


def test_template_sets() -> None:
    assert template_set("single", "x {}", {}) == ("a photo of a {}.",)
    assert template_set("dataset", "{} texture.", {}) == ("{} texture.",)
    assert template_set("mine", "x", {"mine": ["the {}"]}) == ("the {}",)
    ensemble = template_set("ensemble", "x", {})
    assert len(set(ensemble)) == 60
    assert all(template.count("{}") == 1 for template in ensemble)
    with pytest.raises(CptError, match="unknown template set 'ensembel'; did you mean 'ensemble'"):
        template_set("ensembel", "x", {})


def test_text_features_average_templates(results: Path, tmp_path: Path) -> None:
    clip, tokenizer = load_backbone(results / "backbone.json"), load_tokenizer(results / "backbone.json")
    for name, templates in (("a", ["a photo of a {}."]), ("b", ["the {}"]), ("both", ["a photo of a {}.", "the {}"])):
        make_text_features(
            clip, tokenizer, ["river", "beach"], templates, "a photo of a {}.", tmp_path / f"{name}.safetensors"
        )
    a, b, both = (read_text_features(tmp_path / f"{name}.safetensors")[0] for name in ("a", "b", "both"))
    assert torch.allclose(both.frozen, (a.frozen + b.frozen) / 2, atol=1e-6)
    unit = torch.nn.functional.normalize((a.directions + b.directions) / 2, dim=-1)
    assert torch.allclose(both.directions, unit, atol=1e-6)
    assert both.phrase_length == 4
    assert both.take([1]).names == ("beach",)


def test_a_prompt_that_does_not_fit_is_refused(results: Path) -> None:
    tokenizer = load_tokenizer(results / "backbone.json")
    with pytest.raises(CptError, match=r"prompt 'a photo of a .*' needs \d+ tokens, the backbone's context has 16"):
        tokenize(tokenizer, ["a photo of a red star", "a photo of a " + "very " * 20 + "red star."], 16)
