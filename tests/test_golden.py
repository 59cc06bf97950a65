"""Our numbers against those of the methods' published code (tests/golden/README.md)."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cpt.methods.base import Batch, Training
from cpt.methods.hyperparameters import Trained
from cpt.methods.registry import get
from cpt.schedule import learning_rate
from tests.golden_clip import GOLDEN, Case, classes_of, golden_clip, rule

FEATURES, LOGITS, LOSS, GRADIENT, AFTER2, AFTER5, AFTER5_LOGITS = 5e-6, 5e-5, 1e-5, 1e-4, 2e-6, 5e-6, 2e-4


def coop(case: Case, clip):
    meta = case.meta
    hp = get("coop").hyperparameters(
        epochs=12,
        learning_rate=0.0025,
        context_length=meta["n_ctx"],
        words=bool(meta.get("ctx_init")),
        class_position=meta.get("class_token_position", "end"),
        per_class=bool(meta.get("csc")),
    )
    return hp, {"prompt_learner.ctx": "text.context"}


def ivlp(case: Case, clip):
    meta = case.meta
    hp = get("ivlp").hyperparameters(
        epochs=12,
        text_prompts=meta["n_ctx_text"],
        visual_prompts=max(meta["n_ctx_vision"], 1),
        depth_text=meta["depth_text"],
        depth_vision=meta["depth_vision"] if meta["n_ctx_vision"] else 0,
        words=bool(meta.get("ctx_init")),
    )
    text = "text_encoder.transformer.resblocks.{}.VPT_shallow"
    vision = "image_encoder.transformer.resblocks.{}.VPT_shallow"
    names = {"prompt_learner.ctx": "text.context", "image_encoder.VPT": "visual.prompts.0"}
    names |= {text.format(i): f"text.deep.{i - 1}" for i in range(1, meta["depth_text"])}
    names |= {vision.format(i): f"visual.prompts.{i}" for i in range(1, meta["depth_vision"])}
    return hp, names


def cases(prefix: str) -> list[str]:
    return sorted(path.stem for path in GOLDEN.glob(f"{prefix}_*.npz"))


@pytest.mark.parametrize("name", cases("zeroshot"))
def test_zeroshot(name: str) -> None:
    case = Case(name)
    clip = golden_clip(case.meta["weight_salt"])
    templates = case.meta.get("templates") or [case.meta["template"]]
    classes = classes_of(clip, case.meta["classnames"], templates)
    method = get("zeroshot")(clip, get("zeroshot").hyperparameters(), classes, torch.Generator())
    images, _ = case.batch(0)
    text, image = method.text_features(classes), method.image_features(images)
    case.assert_tensor("eval/text_features", text, FEATURES)
    case.assert_tensor("eval/image_features", image, FEATURES)
    case.assert_tensor("eval/logits", method.logits(image, text), LOGITS)


@pytest.mark.parametrize(("name", "kind"), [*((n, coop) for n in cases("coop")), *((n, ivlp) for n in cases("ivlp"))])
def test_method(name: str, kind) -> None:
    case = Case(name)
    clip = golden_clip(case.meta["weight_salt"])
    classes = classes_of(clip, case.meta["classnames"], ["a photo of a {}."])
    hp, names = kind(case, clip)
    method = get(kind.__name__)(clip, hp, classes, torch.Generator().manual_seed(0))
    parameters = dict(method.named_parameters())
    learnables = case.meta["learnables"]
    assert {names[n] for n in learnables} == set(parameters)
    for learnable, shape in learnables.items():
        parameter = parameters[names[learnable]]
        if learnable not in case.meta["kept_as_initialised"]:
            parameter.data.copy_(rule(learnable, tuple(shape), case.meta["weight_salt"]))
        case.assert_tensor(f"init/{learnable}", parameter, 0)

    training = Training(classes, torch.ones(len(classes)), None)

    def evaluate() -> dict[str, torch.Tensor]:
        images, _ = case.batch(0)
        text, image = method.text_features(classes), method.image_features(images)
        return {"text_features": text, "image_features": image, "logits": method.logits(image, text)}

    for key, value in evaluate().items():
        case.assert_tensor(f"eval/{key}", value, LOGITS if key == "logits" else FEATURES)

    optimiser = torch.optim.SGD(
        method.parameters(), lr=hp.learning_rate, momentum=hp.momentum, weight_decay=hp.weight_decay
    )
    for step in range(5):
        images, labels = case.batch(step)
        loss = method.total(method.losses(Batch(images, None, labels), training))
        assert abs(loss.item() - float(case["traj/loss"][step])) <= (LOSS if step == 0 else 1e-4)
        optimiser.param_groups[0]["lr"] = learning_rate(hp, step)
        assert learning_rate(hp, step) == pytest.approx(case.meta["scalars"]["traj_lr"][step], abs=1e-12)
        optimiser.zero_grad()
        loss.backward()
        for learnable in learnables:
            if step == 0:
                gradient = parameters[names[learnable]].grad
                case.assert_tensor(f"grad/{learnable}", gradient, GRADIENT, relative=True)
        optimiser.step()
        for learnable in learnables:
            if step in (1, 4):
                tolerance = AFTER2 if step == 1 else AFTER5
                case.assert_tensor(f"after{step + 1}/{learnable}", parameters[names[learnable]], tolerance)
    case.assert_tensor("after5/eval_logits", evaluate()["logits"], AFTER5_LOGITS)


def test_learning_rates() -> None:
    sequences = Case("lr_sequences").meta["scalars"]
    for name, expected in sequences.items():
        epochs, rate, warmup = name.split("_")
        hp = Trained(
            epochs=int(epochs.removeprefix("epochs")),
            learning_rate=float(rate.removeprefix("lr")),
            warmup_epochs=int(warmup.removeprefix("warmup")),
        )
        ours = [learning_rate(hp, epoch) for epoch in range(len(expected))]
        assert ours == pytest.approx(expected, abs=1e-12)


def test_context_starts_as_the_phrase() -> None:
    clip = golden_clip()
    classes = classes_of(clip, ["tench"], ["a photo of a {}."])
    method = get("coop")(clip, get("coop").hyperparameters(), classes, torch.Generator())
    assert torch.equal(method.text.context.data, clip.text.embed(classes.tokens[0, 1:5]))
    assert torch.allclose(method.text_features(classes), F.normalize(classes.frozen, dim=-1), atol=1e-6)
