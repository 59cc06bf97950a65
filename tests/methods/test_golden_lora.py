"""CLIP-LoRA against the published code's numbers (tests/golden/README.md): changed towers, training, merged weights."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.helpers.golden_clip import Case, cases, digest
from tests.helpers.golden_run import AFTER2, AFTER5, FEATURES, Run

ORDER = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "proj": "o"}
"""Our names of the published code's matrices."""


class CLIPLoRA(Run):
    """A case names the changed matrices one by one; ours lie in two tensors for each tower."""

    method_name = "clip_lora"

    def tolerance(self, learnable, usual):
        """Adam's division amplifies small gradients."""
        return (5e-5 if self.meta["lr"] > 0.01 else 2e-5) if usual in (AFTER2, AFTER5) else usual

    def settings(self):
        meta = self.meta
        return {
            "optimizer": "adamw",
            "learning_rate": meta["lr"],
            "weight_decay": meta["weight_decay"],
            "epochs": meta["total_iters"],
            "encoder": meta["encoder"],
            "matrices": "".join(meta["params"]),
            "rank": meta["r"],
            "alpha": float(meta["alpha"]),
            "dropout": meta["dropout"],
        }

    def templates(self):
        return [self.meta["template"]]

    def place(self, learnable):
        tower, block, matrix, part = re.fullmatch(
            r"(visual\.)?transformer\.resblocks\.(\d+)\.attn\.(\w+)\.w_lora_([AB])", learnable
        ).groups()
        name = f"changes.{'vision' if tower else 'text'}.{part.lower()}"
        return name, (int(block), self.hp.matrices.index(ORDER[matrix]))

    def start(self):
        """As published, A is random and B zero; or both are given by the case's own rule."""
        given = self.meta["init_rule"].startswith("w_lora_A")
        self.meta["kept_as_initialised"] = []
        if not given:
            for name, parameter in self.method.named_parameters():
                assert bool(parameter.any()) == name.endswith(".a")
        super().start()

    def initial(self, learnable, shape):
        of_a = learnable.endswith("A")
        found = re.search(r"w_lora_B: ([\d.]+) n", self.meta["init_rule"])
        if found is None:
            return self.case[f"init/{learnable}"] if of_a else torch.zeros(shape)
        stream = torch.from_numpy(_normals(self.meta["weight_salt"] + learnable, shape))
        return (stream / shape[1] ** 0.5 if of_a else float(found[1]) * stream).float()

    def compare_tokens(self):
        self.case.assert_tensor("tokens", self.classes.template_tokens, 0)

    def intermediates(self):
        """The same features from merged weights, which the published code tests with."""
        merged, images = self.method.merged(), self.case.images(0)
        image = F.normalize(merged.vision(images), dim=-1)
        text = F.normalize(merged.text(merged.text.pack(self.classes.template_tokens)), dim=-1)
        assert (self.method.image_features(images) - image).abs().max() < FEATURES
        assert (self.method.text_features(self.classes) - text).abs().max() < FEATURES
        tower = merged.text if self.hp.encoder == "text" else merged.vision
        last = tower.blocks[-1].attn_in_proj_weight
        return {
            "eval/image_features": image,
            "eval/text_features": text,
            "eval/logits": self.method.logits(image, text),
            "merged/last_block_q_weight": last[: len(last) // 3],
        }


def _normals(name, shape):
    return np.random.Generator(np.random.PCG64(digest(name))).standard_normal(shape)


@pytest.mark.parametrize("name", cases("lora_"))
def test_clip_lora(name: str) -> None:
    run = CLIPLoRA(Case(name))
    run.case.deviations["scalars.merged_minus_unmerged_features_max_abs"] = 0.0  # ``intermediates`` bounds ours
    run.compare()
