"""Our numbers against those of the methods' published code (tests/golden/README.md)."""

from __future__ import annotations

import copy
from dataclasses import replace
from random import Random
from typing import ClassVar

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F

from cpt.features.templates import PROMPT_PHRASE
from cpt.methods.base.layers import gaussian_weights
from cpt.methods.base.method import Batch
from cpt.methods.base.registry import get
from tests.helpers.golden_clip import GOLDEN, Case, cases, classes_of, golden_clip
from tests.helpers.golden_run import FEATURES, LOGITS, Run


class CoOp(Run):
    method_name = "coop"

    def settings(self):
        meta = self.meta
        return {
            "context_length": meta["learnables"]["prompt_learner.ctx"][-2],
            "words": bool(meta.get("ctx_init")),
            "class_position": meta.get("class_token_position", "end"),
            "per_class": bool(meta.get("csc")),
        }


class CoCoOp(Run):
    method_name = "cocoop"

    def settings(self):
        return {
            "context_length": self.meta["learnables"]["prompt_learner.ctx"][0],
            "words": bool(self.meta.get("ctx_init")),
            "reduction": self.clip.embed_dim // self.meta["learnables"]["prompt_learner.meta_net.linear1.bias"][0],
        }

    def evaluated(self):
        method, image = self.method, self.method.image_features(self.case.images(0))
        shifts = method.meta_net(image)
        return {
            "image_features": image,
            "logits": method.class_logits(image, self.classes),
            "meta_net_output": shifts,
            "ctx_shifted": method.text.context + shifts.unsqueeze(1),
            "text_features_per_image": F.normalize(method.text(self.classes, shift=shifts), dim=-1),
        }


class IVLP(Run):
    method_name = "ivlp"

    def settings(self):
        meta = self.meta
        return {
            "text_prompts": meta["n_ctx_text"],
            "visual_prompts": max(meta["n_ctx_vision"], 1),
            "depth_text": meta["depth_text"],
            "depth_vision": meta["depth_vision"] if meta["n_ctx_vision"] else 0,
            "words": bool(meta.get("ctx_init")),
        }


class MaPLe(Run):
    method_name = "maple"

    def settings(self):
        return {
            "prompts": self.meta["n_ctx"],
            "depth": self.meta["depth"],
            "words": bool(self.meta.get("ctx_init")),
        }

    def intermediates(self):
        first, *deep = self.method.visual_prompts()
        return {"train/shared_ctx": first} | ({"train/deep_compound_prompts_vision": torch.stack(deep)} if deep else {})


class PromptSRC(IVLP):
    method_name = "promptsrc"
    components: ClassVar = {"cross_entropy": "cross_entropy", "loss_ce": "cross_entropy", "L_SCL_logits": "prediction"}

    def settings(self):
        return super().settings() | {
            "text_weight": self.meta["text_loss_weight"],
            "image_weight": self.meta["image_loss_weight"],
            "average_mean": self.meta["gpa_mean"],
            "average_std": self.meta["gpa_std"],
        }

    def templates(self):
        return self.meta["templates"]

    def intermediates(self):
        frozen_text = F.normalize(self.classes.frozen, dim=-1)
        frozen_image = self.method.frozen_features(self.batch(0))
        return {
            "train/fixed_embeddings": frozen_text,
            "train/zero_shot_features": frozen_image,
            "train/zero_shot_logits": self.method.logits(frozen_image, frozen_text),
        }

    def scalars(self, components):
        weighted = {name: components[name] * weight for name, weight in self.method.weights().items()}
        return {
            "loss_scl_text": weighted["text"],
            "loss_scl_image": weighted["image"],
            "L_SCL": torch.stack(list(weighted.values())).sum(),
            "gauss": gaussian_weights(self.hp.epochs, self.hp.average_mean, self.hp.average_std),
        }


class CoPrompt(MaPLe):
    method_name = "coprompt"

    def settings(self):
        meta = self.meta
        return super().settings() | {
            "consistency_weight": meta["lambda_"],
            "text_adapter": meta["text_adapter_m"],
            "image_adapter": meta["image_adapter_m"],
            "reduction": self.clip.embed_dim // meta["learnables"]["adapter_text.fc.0.weight"][0],
            "distance": meta["distill"],
        }

    def training_set(self):
        names, texts = self.meta["classnames"], self.meta["descriptions"]
        features = torch.stack([classes_of(self.clip, names, [text]).directions for text in texts])
        return replace(super().training_set(), descriptions=features)

    def batch(self, step):
        images, second = self.case.images(step), self.case.images(500 + step)
        return Batch(images, None, self.case.labels(step), second, random=Random(1000 + step))

    def intermediates(self):
        method, descriptions = self.method, self.training.descriptions
        plain = super(type(method), method)  # MaPLe
        raw = {
            "text": plain.raw_text_features(self.classes),
            "image": plain.raw_image_features(self.case.images(0)),
        }
        alone = {part: copy.copy(getattr(method, f"adapter_{part}")) for part in raw}
        for adapter in alone.values():
            adapter.ratio = 1
        return (
            super().intermediates()
            | {f"eval/{part}_features_before_adapter": value for part, value in raw.items()}
            | {f"eval/adapter_{part}_output": alone[part](value) for part, value in raw.items()}
            | {
                "fixed/description_features": descriptions,
                "train/pre_trained_text_features": descriptions[self.chosen(0)],
                "train/pre_trained_image_features": method.frozen_features(self.batch(0)),
            }
        )

    def scalars(self, components):
        self.case.assert_equal("description_index_per_step", [self.chosen(step) for step in range(5)])
        text, image = components["consistency_text"], components["consistency_image"]
        return {
            "loss_distill_text": text,
            "loss_distill_image": image,
            "loss_distill": text + image,
        }

    def chosen(self, step):
        return Random(1000 + step).randint(0, len(self.meta["descriptions"]) - 1)


class KgCoOp(CoOp):
    method_name = "kgcoop"
    components: ClassVar = {"cross_entropy": "cross_entropy", "score_kg": "guidance"}

    def settings(self):
        return super().settings() | {"guidance_weight": self.meta["weight_kg"]}

    def templates(self):
        return [self.meta["template"]]

    def intermediates(self):
        return {"train/text_features_old": F.normalize(self.classes.frozen, dim=-1)}


class DeKg(KgCoOp):
    method_name = "dekg"
    components: ClassVar = KgCoOp.components | {"score_kd": "dependence"}

    def settings(self):
        return super().settings() | {"independence_weight": self.meta["weight_kd"]}


class TCP(Run):
    method_name = "tcp"
    components = KgCoOp.components

    def settings(self):
        learnables = self.meta["learnables"]
        return {
            "context_length": learnables["prompt_learner.ctx"][0],
            "words": self.meta["ctx_init"],
            "block": self.meta["inject_before_block"],
            "reduction": self.clip.embed_dim // learnables["prompt_learner.meta_net.linear1.bias"][0],
            "guidance_weight": self.meta["weight_kg"],
        }

    def templates(self):
        return [self.meta["template_frozen"]]

    def prompt_template(self):
        before, after = self.meta["template_prompt"].split("{}")
        return " ".join([PROMPT_PHRASE, *before.split()[4:], "{}"]) + after  # the context replaces four words

    def evaluated(self):
        raw = self.method.raw_text_features(self.classes)
        return super().evaluated() | ({"text_features": raw} if self.method.training else {})

    def intermediates(self):
        return {
            "train/text_features_old": F.normalize(self.classes.frozen, dim=-1),
            "train/text_features_norm": self.method.text_features(self.classes),
            "train/class_prompt": self.method.class_prompts(self.classes),
        }


class DeKgTCP(TCP):
    method_name = "dekg_tcp"
    components = DeKg.components

    def settings(self):
        given = super().settings() | {"independence_weight": self.meta["weight_kd"]}
        return {name: value for name, value in given.items() if name != "words"}

    def evaluated(self):
        return super().evaluated() | {"text_features": self.method.raw_text_features(self.classes)}


KINDS = {
    "coop_": CoOp,
    "cocoop_": CoCoOp,
    "ivlp_": IVLP,
    "maple_": MaPLe,
    "promptsrc_": PromptSRC,
    "coprompt_": CoPrompt,
    "kgcoop_": KgCoOp,
    "dekg_": DeKg,
    "tcp_": TCP,
    "dekgtcp_": DeKgTCP,
}
"""Cases of trained methods by the beginning of their name."""

ELSEWHERE = {
    "data_fewshot": "data/test_fewshot.py",
    "data_longtail": "data/test_longtail.py",
    "data_subsample_classes": "data/test_classes.py",
    "promptsrc_gauss": "methods/test_golden_losses.py",
    "longtail_losses": "methods/test_golden_losses.py",
    "lr_sequences": "methods/test_golden_losses.py",
    "lift_losses": "methods/test_golden_losses.py",
    "lift_rules": "methods/test_golden_adapters.py",
    "gla_k5": "methods/test_golden_gla.py",
    "gla_k7_few": "methods/test_golden_gla.py",
    "gla_k10_longtail": "methods/test_golden_gla.py",
    "candle_k5_n4": "methods/test_golden_candle.py",
    "candle_k7_n3_separate": "methods/test_golden_candle.py",
    "candle_k4_n6_random": "methods/test_golden_candle.py",
}
"""Cases that other files test."""

FEATURES_ALONE = ("lp_", "sstext_", "tip_")
"""Beginnings of the names of cases without a tower, which methods/test_golden_features.py tests."""

LEFT_OUT = {"promptlt_pool"}
"""PromptLT is none of our methods."""


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for prefix, kind in KINDS.items() for name in cases(prefix)])
def test_method(name: str, kind: type[Run]) -> None:
    kind(Case(name)).compare()


@pytest.mark.parametrize("name", cases("zeroshot_"))
def test_zeroshot(name: str) -> None:
    case = Case(name)
    clip = golden_clip(case.meta["weight_salt"])
    templates = case.meta.get("templates") or [case.meta["template"]]
    classes = classes_of(clip, case.meta["classnames"], templates)
    method = get("zeroshot")(clip, get("zeroshot").hyperparameters(), classes, torch.Generator())
    text, image = method.text_features(classes), method.image_features(case.images(0))
    case.assert_tensor("eval/text_features", text, FEATURES)
    case.assert_tensor("eval/image_features", image, FEATURES)
    case.assert_tensor("eval/logits", method.logits(image, text), LOGITS)


@pytest.mark.parametrize("position", ["middle", "front"])
@pytest.mark.parametrize("name", ["Jr.", "C++", "tench", "Boeing 737-300"])
def test_a_name_has_as_many_tokens_as_alone(name: str, position: str) -> None:
    """The published code counts a name's tokens without the full stop, which ``Jr.`` takes in."""
    clip, kind = golden_clip(), get("coop")
    classes = classes_of(clip, [name], ["a photo of a {}."])
    hp = kind.hyperparameters(context_length=5, class_position=position)
    ids, slots = kind(clip, hp, classes, torch.Generator()).text.layout(classes, 77)
    alone = len(open_clip.get_tokenizer("ViT-B-16").encode(name))
    first, *rest = open_clip.tokenize([f"X X X X X {name}."])[0].tolist()
    context, half = [-1] * 5, 2 if position == "middle" else 0
    expected = [first, *context[:half], *rest[5 : 5 + alone], *context[half:], *rest[5 + alone :]]
    assert np.where(slots[0] < 0, ids[0], -1).tolist() == expected


def test_context_starts_as_the_phrase() -> None:
    clip = golden_clip()
    classes = classes_of(clip, ["tench"], ["a photo of a {}."])
    method = get("coop")(clip, get("coop").hyperparameters(), classes, torch.Generator())
    assert torch.equal(method.text.context.data, clip.text.embed(classes.tokens[0, 1:5]))
    assert torch.allclose(method.text_features(classes), F.normalize(classes.frozen, dim=-1), atol=1e-6)


def test_every_case_is_tested() -> None:
    prefixes = ("zeroshot_", "dpc_", "lift_", "mma_", "mmrl_", "lora_", *KINDS)
    tested = {name for prefix in prefixes for name in cases(prefix)}
    assert all(name in (GOLDEN.parent / file).read_text() for name, file in ELSEWHERE.items())
    found = {path.stem for path in GOLDEN.glob("*.npz") if not path.stem.startswith(FEATURES_ALONE)}
    assert found - tested - ELSEWHERE.keys() == LEFT_OUT
