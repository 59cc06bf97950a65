"""Candle against its published code's numbers (tests/golden/README.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import open_clip
import pytest
import torch
from torch import Tensor

from cpt.methods.base.losses import prior_adjusted
from cpt.methods.base.method import TrainingSet
from cpt.methods.base.registry import get
from tests.helpers.golden_clip import Case, classes_of, golden_clip, normals
from tests.helpers.golden_run import LOGITS, Run

RAW = 1e-5
"""Of features that are not normalized, and of what starts as such."""

HEAD = "proto_manager.head."
NAMES = {
    "proj_image": "image_projection",
    "proj_text": "text_projection",
    "virtual_prototypes": "virtual",
    "fusion.ratio": "fusion.ratio",
    "fusion.norm.weight": "fusion.norm.weight",
    "fusion.norm.bias": "fusion.norm.bias",
    "fusion.attn.in_proj_weight": "fusion.in_weight",
    "fusion.attn.in_proj_bias": "fusion.in_bias",
    "fusion.attn.out_proj.weight": "fusion.out.weight",
    "fusion.attn.out_proj.bias": "fusion.out.bias",
}


class Candle(Run):
    method_name = "candle"
    components: ClassVar = {"loss1": "projected", "loss2": "fused_text", "loss3": "fused_visual"}

    def __init__(self, case: Case) -> None:
        meta = case.meta
        meta["classnames"] = meta["classnames_base"]  # of which the labels are
        self.case, self.meta, self.clip = case, meta, golden_clip(meta["weight_salt"])
        everything = classes_of(self.clip, meta["classnames_base"] + meta["classnames_new"], [meta["template"]])
        first = len(meta["classnames_base"])
        self.every, self.classes = everything, everything.take(range(first))
        self.new = everything.take(range(first, len(everything)))
        kind = get("candle")
        self.hp = kind.hyperparameters(learning_rate=meta["lr"], epochs=12, **self.settings())
        made = kind(self.clip, self.hp, self.classes, torch.Generator().manual_seed(0))
        self.method: Any = made.to(self.clip.device)
        self.training = self.training_set()
        images = normals(meta["prototype_image_seed"], (sum(meta["counts"]), 3, 32, 32)).to(self.clip.device)
        with torch.no_grad():
            self.method.prepare(self.training, self.clip.vision(images))

    def settings(self) -> dict[str, Any]:
        return {"prototype_scale": self.meta["scale"], "shared_storage": self.meta["text_and_virtual_share_storage"]}

    def training_set(self) -> TrainingSet:
        counts = torch.tensor(self.meta["counts"])
        labels = torch.arange(len(counts)).repeat_interleave(counts)
        return TrainingSet(self.classes, counts.float().to(self.clip.device), labels=labels, new_classes=self.new)

    def parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        ours = dict(self.method.named_parameters())
        assert ours.keys() == set(NAMES.values())
        assert self.meta["learnables"].keys() == {HEAD + name for name in NAMES}
        for name, own in NAMES.items():
            yield HEAD + name, ours[own]

    def compare_tokens(self) -> None:
        template, names = self.meta["template"], [name.replace("_", " ") for name in self.every.names]
        self.case.assert_tensor("tokens", open_clip.tokenize([template.replace("{}", n) for n in names]), 0)

    def parts(self, *, training: bool) -> dict[str, Tensor]:
        """The three logits, and what they are computed from."""
        method = self.method
        raw = self.clip.vision(self.case.images(0))
        images, (visual, text) = raw @ method.image_projection, method.projected()
        fused = method.fuse(images, visual, text)
        queries, own = (torch.cat([images, visual]), torch.cat(fused[:2])) if training else (images, fused[0])
        return {
            "l1": method.cosines(queries, text),
            "l2": method.cosines(own, fused[2]),
            "l3": self.hp.prototype_scale * method.cosines(own, fused[1]),
            "sequence": torch.cat([images, visual, text]),
            "fused": torch.cat(fused),
        }

    def evaluated(self) -> dict[str, Tensor]:
        method, shown = self.method, self.case.images(0)
        features = method.image_features(shown)
        alone = [method.class_logits(feature, self.every) for feature in features.split(1)]
        return {"logits": method.class_logits(features, self.every), "logits_single": torch.cat(alone)}

    def compare_start(self) -> None:
        method, case = self.method, self.case
        with torch.no_grad():
            for part in ("eval", "train"):
                for name, value in self.parts(training=part == "train").items():
                    if f"{part}/{name}" in case:
                        case.assert_tensor(f"{part}/{name}", value, RAW if name in ("sequence", "fused") else LOGITS)
            for name, value in self.evaluated().items():
                case.assert_tensor(f"eval/{name}", value, LOGITS)
            raw = self.clip.vision(case.images(0))
        case.assert_tensor("eval/image_features", raw, RAW)
        case.assert_tensor("fixed/text_features", torch.cat([method.text, method.new_text]), RAW)
        case.assert_tensor("fixed/visual_prototypes", method.prototypes, RAW)
        prior = prior_adjusted(torch.zeros(1, len(self.every)).to(self.clip.device), method._counts, "compensating")
        case.assert_tensor("fixed/log_prior", prior[0], 1e-6)
        targets = torch.cat([case.labels(0), torch.arange(len(self.every), device=self.clip.device)])
        case.assert_tensor("train/targets", targets, 0)

    def tolerance(self, learnable: str, usual: float) -> float:
        return RAW if learnable.endswith("virtual_prototypes") else usual

    def before_step(self, step: int) -> None:
        if step == 2:
            self.compare_text(step)

    def compare_text(self, step: int) -> None:
        """Text prototypes after so many steps: those of new classes move where they share their storage."""
        method = self.method
        new = method.virtual if self.hp.shared_storage else method.new_text
        self.case.assert_tensor(f"after{step}/text_features", torch.cat([method.text, new]), RAW)

    def compare_end(self) -> None:
        self.method.eval()
        self.compare_text(5)
        with torch.no_grad():
            found = self.evaluated()
        self.case.assert_tensor("after5/eval_logits", found["logits"], 2e-4)
        self.case.assert_tensor("after5/eval_logits_single", found["logits_single"], 2e-4)


@pytest.mark.parametrize("name", ["candle_k5_n4", "candle_k7_n3_separate", "candle_k4_n6_random"])
def test_method(name: str) -> None:
    Candle(Case(name)).compare()
