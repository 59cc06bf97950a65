"""DPC on CoOp against the published code's numbers (tests/golden/README.md): negatives, training, mixtures."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random
from typing import ClassVar

import pytest
import torch

from cpt.methods import dpc
from cpt.methods.base.losses import pairwise_contrast
from cpt.methods.base.method import Batch
from cpt.methods.base.registry import get
from tests.helpers.golden_clip import Case, cases, digest, normals
from tests.helpers.golden_run import FEATURES, LOGITS, Run

CONTEXT = "text.context"


class DPC(Run):
    """Stage 2; the pictures of negatives are made from their paths."""

    method_name = "dpc"
    components: ClassVar = {"loss": "contrast"}

    def __init__(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(case)
        self.tuned = case["fixed/pretuned_ctx"].to(self.clip.device)
        self.method.begin({CONTEXT: self.tuned})
        self.pictures: list[str] = []
        self.sampled: list[dict] = []
        monkeypatch.setattr(dpc, "pairwise_contrast", self.contrast)

    def settings(self):
        meta = self.meta
        return {
            "start": "coop",
            "start_hyperparameters": {"context_length": meta["n_ctx"], "words": bool(meta.get("ctx_init"))},
            "base_weight": meta["stack_weight"],
            "candidates": meta["topk"],
            "parameters": "shared" if meta["sple_init"] else "mixed",
        }

    def prompted(self):
        return self.method.parallel

    def training_set(self):
        labels = torch.arange(len(self.classes)).repeat_interleave(self.meta["pictures_per_class"])
        return replace(super().training_set(), labels=labels, take=self.take)

    def take(self, positions, epoch):
        per_class = self.meta["pictures_per_class"]
        self.pictures = [self.meta["picture_library"] % divmod(position, per_class) for position in positions]
        shape = self.meta["image_shape"][1:]
        images = torch.stack([normals(digest(f"image:{path}"), shape) for path in self.pictures])
        return Batch(images.to(self.clip.device), None, torch.tensor(positions) // per_class)

    def batch(self, step):
        return replace(super().batch(step), random=Random(1000 + step))

    def contrast(self, image, text, scale):
        """The loss, after a look at the pairs that it gets."""
        with torch.no_grad():
            labels = (text @ self.method.text_features(self.classes).T).argmax(dim=1)
        self.pairs = image, text, labels
        self.sampled.append({"labels": labels.tolist(), "n": len(labels), "pictures_in_order": self.pictures})
        self.pictures = []
        return pairwise_contrast(image, text, scale)

    def evaluated(self):
        return super().evaluated() | {"decoupled_ctx": self.method.prompts()[CONTEXT]}

    def intermediates(self):
        self.method.train()
        self.method.step(self.method.draw(self.batch(0), self.training), self.training)
        image, text, labels = self.pairs
        logits = self.method.logits(image, text)
        stage1 = get("coop")(self.clip, self.method.parallel.hp, self.classes, torch.Generator()).to(self.clip.device)
        stage1.load_state_dict({CONTEXT: self.tuned})
        mixing = self.other(self.method.prompts()[CONTEXT], parameters="parallel")
        return {
            "fixed/pretuned_ctx": self.tuned,
            "train/image_features": image,
            "train/text_features": text,
            "train/expanded_labels": labels,
            "train/logits": logits,
            "train/logits_per_img": logits,
            "train/logits_per_text": logits.T,
            "train/sampler_text_features": stage1.text_features(self.classes),
            "train/sampler_image_features": stage1.image_features(self.case.images(0)),
            "eval/logits_mixed_ctx": self.logits(mixing),
        }

    def after_steps(self):
        """The published loader's mixtures of the trained context."""
        self.case.assert_equal("sampler_per_step", self.sampled[-5:])
        for name in {key.rpartition("/")[0] for key in self.case.arrays if key.startswith("load/")}:
            subset, new_weight = re.fullmatch(r"load/(base|new)_wnew(.*)", name).groups()
            loaded = self.other(self.case["after5/prompt_learner.ctx"], new_weight=float(new_weight))
            loaded.target(trained=subset == "base")
            used, share = loaded.prompts()[CONTEXT], self.hp.base_weight
            mixed = used if self.meta["sple_init"] else share * used + (1 - share) * self.tuned
            self.case.assert_tensor(f"{name}/ctx_used", used, FEATURES)
            self.case.assert_tensor(f"{name}/ctx", mixed, FEATURES)
            self.case.assert_tensor(f"{name}/logits", self.logits(loaded), LOGITS)

    def other(self, context, **changes):
        """The same method with other hyperparameters, its context given, for evaluation."""
        method = get("dpc")(self.clip, self.hp.model_copy(update=changes), self.classes, torch.Generator())
        method = method.to(self.clip.device)
        method.begin({CONTEXT: self.tuned})
        method.load_state_dict({f"parallel.{CONTEXT}": context}, strict=False)
        return method.eval()

    def logits(self, method):
        return method.class_logits(method.image_features(self.case.images(0)), self.classes)


@pytest.mark.parametrize("name", cases("dpc_"))
def test_dpc(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    DPC(Case(name), monkeypatch).compare()
