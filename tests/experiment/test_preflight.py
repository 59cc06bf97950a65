"""What the first jobs would refuse is refused before there are any."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from PIL import Image

from cpt.cli.app import app
from cpt.errors import CptError
from cpt.experiment import config, grid, preflight, resolved
from cpt.experiment.stages import Stages
from cpt.methods.base import registry
from tests.helpers.experiment import SMALL

LONG = "a photo of a {}, which is a bird with many colors."


def stages(**changes: Any) -> Stages:
    values = {"extends": "config/config.yaml", "experiment": "mine", "only": ["table2"], **changes}
    made = config.parse(values, "my.yaml")
    return Stages(made, resolved.of(grid.build(made, "my.yaml")))


def refused(**changes: Any) -> list[str]:
    with pytest.raises(CptError) as caught:
        preflight.check(stages(**changes), "my.yaml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("architecture", "pretrained", "message"),
    [
        ("ViT-B-17", "openai", "architecture: unknown model 'ViT-B-17'; did you mean 'ViT-B-16'?"),
        ("ViT-B-16", "opnai", "pretrained: unknown tag 'opnai' for ViT-B-16; did you mean 'openai'?"),
        ("ViT-B-16", "openai", "trained with QuickGELU, ViT-B-16 has GELU; use ViT-B-16-quickgelu"),
        ("ViT-B-16-quickgelu", "no.safetensors", "pretrained: no.safetensors: no such file; give one that is"),
        ("coca_ViT-B-32", "random", "unsupported architecture: a captioning decoder (CoCa) (supported: two towers)"),
    ],
)  # fmt: skip
def test_backbones(architecture: str, pretrained: str, message: str) -> None:
    (line,) = refused(backbone={"name": "a", "architecture": architecture, "pretrained": pretrained})
    assert line.startswith("my.yaml: backbone")
    assert message in line
    preflight.check(stages(backbone={"name": "a", "architecture": "ViT-B-16-quickgelu", "pretrained": "openai"}), "")


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("cpt", {"depth_text": 4}, "prompt depth 4 exceeds the text tower's 3 blocks; set depth_text to at most 3"),
        ("ivlp", {"depth_vision": 5}, "prompt depth 5 exceeds the vision tower's 4 blocks; set depth_vision to at"),
        ("maple", {"depth": 4}, "prompt depth 4 exceeds the text tower's 3 blocks; set depth to at most 3"),
        ("coprompt", {"depth": 4}, "prompt depth 4 exceeds the text tower's 3 blocks; set depth to at most 3"),
        ("promptsrc", {"depth_text": 9}, "prompt depth 9 exceeds the text tower's 3 blocks; set depth_text to"),
        ("npt", {"depth": 4}, "prompt depth 4 exceeds the text tower's 3 blocks; set depth to at most 3"),
        ("tcp", {"block": 8}, "block 8: the text tower has the blocks 0 to 2; lower it"),
        ("mma", {"last_block": 3}, "last_block 3: the text tower has the blocks 0 to 2; lower it"),
    ],
)  # fmt: skip
def test_blocks_that_the_towers_lack(method: str, given: dict[str, Any], message: str) -> None:
    fitting = SMALL.get(method, {})
    rows = {
        "variants": {"row": {"method": method, "set": fitting | given}},
        "exhibits": {"table2": {"variants": ["row"]}},
    }
    (line,) = refused(**rows)
    assert line.startswith(f"my.yaml: {method}: {message}")


def test_every_method_that_fits_is_taken() -> None:
    chosen = {name: {"method": name, "set": SMALL.get(name, {})} for name in registry.names() if name in SMALL}
    preflight.check(stages(variants=chosen, exhibits={"table2": {"variants": list(chosen)}}), "my.yaml")


@pytest.mark.parametrize(
    ("architecture", "tower"), [("RN50-quickgelu", "ModifiedResNet"), ("convnext_base", "ConvNeXt of timm")]
)
def test_methods_that_the_image_tower_does_not_take(architecture: str, tower: str) -> None:
    """A line for each; IVLP without visual prompts, and methods that leave images as they are, are taken."""
    backbone = {"name": "a", "architecture": architecture, "pretrained": "random"}
    lines = refused(backbone=backbone)
    assert {line.split(":")[1] for line in lines} >= {" method cpt", " method ivlp"}
    assert not any(f"method {name}:" in line for line in lines for name in ("coop", "cocoop", "zeroshot", "tcp"))
    assert all(f"image tower's blocks, and {tower} has none that take them; leave" in line for line in lines)
    tower_needs = registry.get("ivlp").tower_needs
    assert tower_needs(registry.get("ivlp").hyperparameters(depth_vision=0)) == "nothing"


def photos(folder: Path, **counts: tuple[int, int]) -> dict[str, Any]:
    """A dataset of image files, (training, test) images of every class, as an entry of a catalog."""
    for name, of in counts.items():
        for part, count in zip(("train", "test"), of, strict=True):
            for i in range(count):
                path = folder / part / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (32, 32)).save(path)
    return {"title": "Birds", "layout": "folders", "root": str(folder)}


@pytest.mark.parametrize(
    ("counts", "template", "messages"),
    [
        ({"a": (2, 1), "b": (2, 1)}, "a photo of a {}.", []),
        ({"a": (2, 1)}, "a photo of a {}.", ["birds: has one class, and base_to_new needs two"]),
        ({"a": (2, 1), "b": (2, 0)}, "a photo of a {}.", ["birds: no new class has a test image"]),
        ({"a": (0, 1), "b": (2, 1)}, "a photo of a {}.", ["birds: class 'a' has no training image"]),
        ({"a": (2, 1), "b": (2, 1)}, LONG, ["birds: prompt 'a photo of a a, which"]),
        ({"a": (2, 1), "b": (2, 0)}, LONG, ["birds: no new", "birds: prompt"]),
    ],
)  # fmt: skip
def test_own_images(tmp_path: Path, counts: dict[str, tuple[int, int]], template: str, messages: list[str]) -> None:
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(yaml.safe_dump({"birds": photos(tmp_path / "birds", **counts) | {"template": template}}))
    mine = {"catalog": str(catalog), "tasks": {"base_to_new": {"datasets": ["birds"]}}}
    if not messages:
        preflight.check(stages(**mine), "my.yaml")
        return
    for line, start in zip(refused(**mine), messages, strict=True):
        assert line.startswith(start)


def test_images_that_are_not_there_yet_are_no_problem(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(yaml.safe_dump({"birds": photos(tmp_path / "birds")}))
    preflight.check(stages(catalog=str(catalog), tasks={"base_to_new": {"datasets": ["birds"]}}), "my.yaml")


def test_the_second_look_needs_no_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stages()
    preflight.check(made, "my.yaml", tmp_path)
    monkeypatch.setattr("cpt.clip.make_backbone.check", None)
    preflight.check(made, "my.yaml", tmp_path)
    with pytest.raises(TypeError):
        preflight.check(stages(templates={"single": ["the {}"]}), "my.yaml", tmp_path)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "has_cuda", lambda: False)
    preflight.require_device("auto", "my.yaml")
    with pytest.raises(CptError, match=r"^my.yaml: device: cuda asked for, but this machine has no GPU; set device: "):
        preflight.require_device("cuda", "my.yaml")


def test_torch_and_the_driver_agree() -> None:
    import torch

    assert preflight.has_cuda() == torch.cuda.is_available()


def test_tensorboard_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused where something trains, before any job."""
    made, untrained = stages(), stages(exhibits={"table2": {"variants": ["zeroshot"]}})
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    preflight.require_tensorboard(made)
    monkeypatch.setenv("CPT_TENSORBOARD", "events")
    preflight.require_tensorboard(untrained)
    message = "^CPT_TENSORBOARD: the package tensorboard is not installed; run `pip install tensorboard`$"
    with pytest.raises(CptError, match=message):
        preflight.require_tensorboard(made)
    with pytest.raises(CptError, match=message):
        app(["plan", "config/config.yaml"], standalone_mode=False)
    module = ModuleType("tensorboard")
    module.__spec__ = ModuleSpec("tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard", module)
    preflight.require_tensorboard(made)


def test_methods_that_train_have_epochs() -> None:
    """By which the workflow tells them without importing torch."""
    for name in registry.names():
        assert registry.get(name).trains == ("epochs" in registry.get(name).hyperparameters.model_fields)
