"""LIFT and MMA against the published codes' numbers (tests/golden/README.md), and LIFT's closed forms."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cpt.data.images import crop_places, five_crops, scaled
from cpt.methods import mma
from cpt.methods.base.describe import published
from cpt.methods.lift import adapter_width
from cpt.training.schedule import learning_rate
from tests.helpers.golden_clip import DEVICE, Case, cases, normals
from tests.helpers.golden_run import RATE, Run


class Adapters(Run):
    """Methods whose prompts are plain words."""

    def compare_tokens(self):
        self.case.assert_tensor("tokens", self.classes.tokens, 0)


class LIFT(Adapters):
    method_name = "lift"
    names: ClassVar = {
        r"head\.weight": "head",
        r"tuner\.adaptformer_list\.(\d+)\.ln\.": r"adapters.\1.norm.",
        r"tuner\.adaptformer_list\.(\d+)\.(down|up)_proj\.": r"adapters.\1.\2.",
        r"tuner\.adaptformer_list\.(\d+)\.scale": r"adapters.\1.scale",
    }
    from_texts: ClassVar = {"head.weight"}
    unnormalized: ClassVar = {"eval/features", "eval/features_frozen", "train/features"} | {
        f"train/adaptformer_output_{block}" for block in range(4)
    }

    def settings(self):
        meta = self.meta
        return {
            "adapter_width": meta["adapter_dim"],
            "blocks": None if meta["partial"] is None else meta["blocks"],
            "scale": float(meta["scale"]),
            "warmup_epochs": 1,
            "test_crops": 5,
        }

    def training_set(self):
        assert {adapter.down.out_features for adapter in self.method.adapters.values()} == {self.meta["bottleneck"]}
        assert list(self.method.adapters) == [str(block) for block in self.meta["blocks"]]
        counts = torch.tensor(self.meta["counts"], dtype=torch.float32)
        return replace(super().training_set(), counts=counts.to(self.clip.device))

    def evaluated(self):
        images = self.case.images(0)
        return {
            "features": self.method.raw_image_features(images),
            "features_frozen": self.clip.vision(images, tokens=0)[:, 0],
            "logits": self.logits(self.method.image_features(images)),
        }

    def logits(self, features: Tensor) -> Tensor:
        return self.method.class_logits(features, self.classes)

    def intermediates(self):
        large = normals(self.meta["image_seed"] + 700, (2, 3, 40, 40)).to(DEVICE)
        cut = [large[:, :, top : top + 32, left : left + 32] for top, left in crop_places(40, 40, 32)]
        crops = torch.stack(cut, dim=1)
        alone = self.logits(self.method.image_features(crops.flatten(0, 1))).unflatten(0, (2, 5))
        seen: dict[str, Tensor] = {}
        hooks = [
            adapter.register_forward_hook(
                lambda _, __, found, block=block: seen.update({f"train/adaptformer_output_{block}": found[:, 0]})
            )
            for block, adapter in self.method.adapters.items()
        ]
        self.method.image_features(self.case.images(0))
        for hook in hooks:
            hook.remove()
        return seen | {
            "fixed/head_text_init": self.method.reference(self.classes),
            "eval/tte_crops_logits": alone,
            "eval/tte_logits": self.logits(self.method.test_features(crops)),
        }


class MMA(Adapters):
    method_name = "mma"
    names: ClassVar = {
        r"adapter_learner\.text_adapter\.(\d+)\.(down|up)(?:\.0)?\.": lambda f: f"text.{int(f[1]) - 1}.{f[2]}.",
        r"adapter_learner\.visual_adapter\.(\d+)\.(down|up)(?:\.0)?\.": lambda f: f"visual.{int(f[1]) - 1}.{f[2]}.",
        r"adapter_learner\.shared_adapter\.(\d+)\.0\.": lambda f: f"shared.{int(f[1]) - 1}.",
    }
    unnormalized: ClassVar = {"eval/text_features_raw", "eval/image_features_raw"}

    def __init__(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(case)
        self.monkeypatch = monkeypatch

    def settings(self):
        meta = self.meta
        return {
            "adapter_width": meta["adapter_dim"],
            "adapter_scale": meta["adapter_scale"],
            "first_block": meta["adapter_start"] - 1,
            "last_block": meta["adapter_end"] - 1,
            "warmup_epochs": 1,
        }

    def evaluated(self):
        images = self.case.images(0)
        text, image = self.method.raw_text_features(self.classes), self.method.raw_image_features(images)
        return super().evaluated() | {
            "text_features_raw": text,
            "image_features_raw": image,
            "text_features_frozen": F.normalize(self.classes.frozen, dim=-1),
            "image_features_frozen": self.method.frozen_image_features(images),
        }

    def intermediates(self):
        """What comes out of Down and of Up at the first token of the first adapted block."""
        found = {}
        for name, adapters, encode in (
            ("text", self.method.text, lambda: self.method.raw_text_features(self.classes)),
            ("visual", self.method.visual, lambda: self.method.raw_image_features(self.case.images(0))),
        ):
            downs, ups = self.watched(adapters, encode)
            rows = len(self.classes) if name == "text" else len(self.meta["labels"])  # texts share their first token
            for layer, values in (("down", downs), ("up", ups)):
                key = f"train/{name}_{layer}_output_first_token_block{self.meta['adapter_start']}"
                found[key] = values[0][:, 0].expand(rows, -1)
        return found

    def watched(self, adapters, encode) -> tuple[list[Tensor], list[Tensor]]:
        downs: list[Tensor] = []
        ups: list[Tensor] = []
        plain = mma.scaled

        def scaled_(x: Tensor, factor: float, gradient_factor: float) -> Tensor:
            if factor != 1:
                ups.append(x)
            return plain(x, factor, gradient_factor)

        with self.monkeypatch.context() as patch:
            patch.setattr(mma, "scaled", scaled_)
            for adapter in adapters.values():
                shared = adapter.shared
                patch.setattr(adapter, "shared", lambda hidden, shared=shared: downs.append(hidden) or shared(hidden))
            encode()
        return downs, ups


@pytest.mark.parametrize("name", cases("lift_k"))
def test_lift(name: str) -> None:
    LIFT(Case(name)).compare()


@pytest.mark.parametrize("name", cases("mma_"))
def test_mma(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MMA(Case(name), monkeypatch).compare()


# LIFT's closed forms


@pytest.fixture(scope="module")
def rules() -> Case:
    return Case("lift_rules")


def test_width_of_the_adapters(rules: Case) -> None:
    rows = rules["adapter_dim"].tolist()
    assert [adapter_width(classes, blocks) for classes, blocks, *_ in rows] == [width for *_, width, _ in rows]
    for classes in range(1, 2000):
        for blocks in (1, 4, 12, 24):
            assert adapter_width(classes, blocks) == 2 ** max(0, int(np.log2(classes / (2 * blocks))))


def boxes(height: int, width: int, shorter: int) -> list[list[int]]:
    """Top, left, bottom, right of the crops of 224 in an image whose shorter side is resized."""
    places = crop_places(*scaled(height, width, shorter), 224)
    return [[top, left, top + 224, left + 224] for top, left in places]


def test_sizes_and_places_of_crops(rules: Case) -> None:
    for index, (height, width) in enumerate(rules["image_sizes"].tolist()):
        *sizes, top, left = rules["resized"][index].tolist()
        assert [side for shorter in (248, 256, 224) for side in scaled(height, width, shorter)] == sizes
        assert crop_places(*scaled(height, width, 224), 224)[4] == (top, left)
        assert boxes(height, width, 248) == rules["tte_boxes"][index].tolist()
        assert boxes(height, width, 256)[4] == rules["test_boxes"][index].tolist()


def test_five_crops_are_those_of_the_enlarged_image(rules: Case) -> None:
    for index, (height, width) in enumerate(rules["image_sizes"].tolist()):
        image = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        resized = rules["resized"][index].tolist()
        large = Image.fromarray(image).resize((resized[1], resized[0]), Image.Resampling.BICUBIC)
        wanted = [
            np.asarray(large.crop((left, top, right, bottom)))
            for top, left, bottom, right in rules["tte_boxes"][index].tolist()
        ]
        assert np.array_equal(five_crops(image, 224), np.stack(wanted))


def test_learning_rates(rules: Case) -> None:
    for name, rates in rules.meta["lr_sequences"].items():
        epochs, peak = (float(part) for part in name.removeprefix("epochs").split("_lr"))
        hp = published("lift", "base_to_new").model_copy(update={"epochs": int(epochs), "learning_rate": peak})
        assert [learning_rate(hp, epoch) for epoch in range(hp.epochs)] == pytest.approx(rates, rel=RATE)
