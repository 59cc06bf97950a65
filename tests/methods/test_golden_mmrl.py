"""MMRL against the published code's numbers (tests/golden/README.md): inserted tokens, mixture, training."""

from __future__ import annotations

import re
from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

from tests.helpers.golden_clip import Case, cases, classes_of
from tests.helpers.golden_run import AFTER5_LOGITS, LOGITS, Run


class MMRL(Run):
    """Blocks are counted from 1 in the cases."""

    method_name = "mmrl"
    components: ClassVar = {
        "cross_entropy": "cross_entropy",
        "cross_entropy_rep": "cross_entropy_representation",
        "image_regulariser": "image",
        "text_regulariser": "text",
    }
    names: ClassVar = {
        r"representation_learner\.compound_rep_tokens$": "tokens",
        r"image_encoder\.proj_rep": "projection",
    }
    unnormalized: ClassVar = {"train/image_features_raw", "train/image_features_rep_raw", "train/text_features_raw"}
    loss = 5e-5

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.new = classes_of(self.clip, self.meta["classnames_new"], self.templates())

    def settings(self):
        meta = self.meta
        return {
            "optimizer": meta["optimiser"],  # codespell:ignore optimiser
            "learning_rate": meta["lr"],
            "tokens": meta["n_rep_tokens"],
            "dimension": meta["rep_dim"],
            "first_block": meta["rep_layers"][0] - 1,
            "last_block": meta["rep_layers"][-1] - 1,
            "class_share": meta["alpha"],
            "consistency_weight": meta["reg_weight"],
        }

    def templates(self):
        return [self.meta["template"]]

    def place(self, learnable):
        found = re.fullmatch(r".*_r2([tv])proj\.(\d+)\.(weight|bias)", learnable)
        if found is None:
            return super().place(learnable)
        return f"{'to_text' if found[1] == 't' else 'to_vision'}.{found[3]}", (int(found[2]),)

    def compare_tokens(self):
        self.case.assert_tensor("tokens", self.classes.template_tokens, 0)
        self.case.assert_tensor("tokens_new", self.new.template_tokens, 0)

    def evaluated(self):
        method, images = self.method, self.case.images(0)
        text, mixed = F.normalize(method.class_texts(self.classes), dim=-1), method.image_features(images)
        first, second = (F.normalize(half, dim=-1) for half in mixed.chunk(2, dim=-1))
        return {
            "text_features": text,
            "image_features": first,
            "logits": method.logits(first, text),
            "logits_rep": method.logits(second, text),
            "logits_fusion": method.class_logits(mixed, self.classes),
        } | ({} if method.training else self.of_new())

    def of_new(self):
        """What new classes are scored by."""
        self.method.target(trained=False)
        text, image = self.method.text_features(self.new), self.method.image_features(self.case.images(0))
        self.method.target(trained=True)
        return {"logits_new": self.method.logits(image, text), "text_features_new": text}

    def intermediates(self):
        method, vision = self.method, self.clip.vision
        deep = method._deep(method.to_vision)
        tokens = vision(self.case.images(0), deep=deep, tokens=self.hp.tokens)
        return {
            "fixed/text_features_zero_shot": self.classes.frozen_unit,
            "train/image_features_zero_shot": method.frozen_features(self.batch(0)),
            "train/image_features_raw": vision.project(tokens[:, 0]),
            "train/image_features_rep_raw": tokens[:, 1:].mean(dim=1) @ method.projection,
            "train/text_features_raw": method.class_texts(self.classes),
            "train/rep_tokens_text": torch.stack(list(method._deep(method.to_text).values())),
            "train/rep_tokens_visual": torch.stack(list(deep.values())),
        }

    def after_steps(self):
        found = self.evaluated()
        for name in ("logits_fusion", "logits_new"):
            self.case.assert_tensor(f"after5/eval_{name}", found[name], AFTER5_LOGITS)


@pytest.mark.parametrize("name", cases("mmrl_"))
def test_mmrl(name: str) -> None:
    MMRL(Case(name)).compare()


def test_the_class_token_alone_scores_new_classes() -> None:
    """The same logits for trained classes as if they were new ones are those of the class token."""
    run = MMRL(Case("mmrl_l2to4_n5"))
    run.start()
    run.method.eval()
    with torch.no_grad():
        run.method.target(trained=False)
        found = run.method.class_logits(run.method.image_features(run.case.images(0)), run.classes)
    run.case.assert_tensor("eval/logits", found, LOGITS)
