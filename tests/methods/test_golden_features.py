"""Classifiers of frozen features against the published codes' numbers (tests/golden/README.md, section 12)."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.features.text import Classes
from cpt.methods.base.method import Batch, TrainingSet
from cpt.methods.base.registry import get
from cpt.methods.ss_text import solve
from cpt.training.optimizers import Optimizer
from cpt.training.schedule import learning_rate
from tests.helpers.golden_clip import DEVICE, GOLDEN, Case, digest, golden_clip, normals
from tests.helpers.golden_run import LOGITS, LOSS, OF_THE_RERUN, Run

MULTIPLIERS = 1e-6
WRONG_LABELS = "lp_crossmodal_views3_a"
"""The published code gives wrong labels to the texts of more than one template; only its logits can be compared."""


def named(prefix: str) -> list[str]:
    """Cases by the beginning of their name."""
    return sorted(path.stem for path in GOLDEN.glob(f"{prefix}*.npz"))


def classes_with(text: Tensor, directions: Tensor | None = None) -> Classes:
    """Classes of which only the frozen features (K, D) are known."""
    text, count = text.to(DEVICE), len(text)
    unit = F.normalize(text, dim=-1) if directions is None else directions.to(DEVICE)
    tokens, lengths = torch.zeros(count, 77, dtype=torch.long), torch.ones(count, dtype=torch.long)
    return Classes(tuple(f"class {k}" for k in range(count)), tokens, 4, text, unit, tokens, lengths, tokens)


class OnFeatures(Run):
    """A method that sees features instead of images."""

    inputs: ClassVar = ("features", "labels", "test_features")

    def __init__(self, case: Case) -> None:
        self.case, self.meta = case, case.meta
        self.classes = self.given_classes()
        width = self.classes.frozen.shape[1]
        self.clip = replace(golden_clip(), embed_dim=width, logit_scale=self.meta["logit_scale_multiplier"])
        self.features, self.labels = case["features"].to(DEVICE), case["labels"].long().to(DEVICE)
        self.test = F.normalize(case["test_features"].to(DEVICE), dim=-1)
        self.training = self.training_set()
        for key in self.inputs:
            case.deviations[key] = 0.0

    def given_classes(self) -> Classes:
        return classes_with(self.case["text"])

    def training_set(self):
        counts = torch.tensor(self.meta["counts"], dtype=torch.float32, device=DEVICE)
        return TrainingSet(self.classes, counts, labels=self.case["labels"].long())

    def made(self, name: str, **settings: Any) -> Any:
        """A method with settings, prepared."""
        hp = get(name).hyperparameters(**settings)
        method = get(name)(self.clip, hp, self.classes, torch.Generator().manual_seed(0)).to(DEVICE)
        method.prepare(self.training, self.prepared() if method.needs_training_features else None)
        return method

    def prepared(self) -> Tensor:
        """The training features that ``prepare`` gets."""
        return self.features

    def compare_tokens(self):
        """There are none."""


class Draws:
    """A random stream that chooses given texts, or no text (-1)."""

    def __init__(self, texts: list[int]) -> None:
        self.texts = list(texts)

    def random(self) -> float:
        return 0.0 if self.texts[0] >= 0 else float(bool(self.texts.pop(0)))

    def randrange(self, _: int) -> int:
        return self.texts.pop(0)


METHODS = {
    "ZS-LP": "zs_lp",
    "CLAP": "clap",
    "TaskRes": "taskres",
    "CLIP-Adapter": "clip_adapter",
    "CrossModal": "cross_modal",
}
CONSTRAINTS: dict[str, dict[str, str]] = {
    "none": {},
    "l2": {},
    "cosine": {"constraint": "cosine"},
    "l2_adaptative": {"multipliers": "adaptive"},
    "l2_corrected": {"multipliers": "corrected"},
    "l2_constant": {"multipliers": "constant"},
    "l2_balanced": {"multipliers": "balanced"},
}
NAMES = {"adapter.mlp.0.weight": "adapter.first.weight", "adapter.mlp.2.weight": "adapter.second.weight"}


class Probe(OnFeatures):
    """The methods of CLAP's code."""

    components: ClassVar = {"cross_entropy": "cross_entropy", "penalty": "constraint"}
    inputs = (*OnFeatures.inputs, "text", "rows_per_step")

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        meta = self.meta
        own = CONSTRAINTS[meta["constraint"]]
        self.method = self.made(METHODS[meta["method"]], learning_rate=meta["lr"], epochs=meta["max_epoch"], **own)
        self.hp = self.method.hp
        views = case["text_views"] if "text_views" in case else case["text"].unsqueeze(1)
        self.texts = views.transpose(0, 1).flatten(0, 1).to(DEVICE)
        self.after_epoch: list[tuple[Tensor, Tensor]] = []
        if "constraint" not in self.method.step(self.batch(0), self.training).losses:
            self.components = {"cross_entropy": "cross_entropy"}

    def rows(self, step: int) -> Tensor:
        return self.case["rows_per_step"][step].long()

    def batch(self, step):
        rows, count = self.rows(step), len(self.features)
        is_text = rows >= count
        features = self.features[torch.where(is_text, 0, rows)]
        texts = torch.where(is_text, (rows - count) % len(self.classes), -1)
        labels = self.labels[torch.where(is_text, 0, rows)]
        drawn = texts.to(DEVICE)
        return Batch(None, features, labels, drawn=drawn, random=Draws(texts.tolist()))

    def examples(self) -> Tensor:
        """Unit features of the first batch, images and texts."""
        raw = torch.cat([self.features, self.texts])[self.rows(0)]
        return F.normalize(self.method.from_frozen(raw), dim=-1)

    def parameters(self):
        ours = dict(self.method.named_parameters())
        (only,) = ours if len(ours) == 1 else (None,)
        assert len(ours) == len(self.meta["learnables"])
        for name in self.meta["learnables"]:
            yield name, ours[only or NAMES[name]]

    def evaluated(self):
        return {"logits": self.method.class_logits(F.normalize(self.method.from_frozen(self.test)), self.classes)}

    def compare_start(self):
        case, method = self.case, self.method
        with torch.no_grad():
            case.assert_tensor("train/logits", method.class_logits(self.examples(), self.classes), LOGITS)
            image = F.normalize(method.from_frozen(case["test_features"].to(DEVICE)), dim=-1)
            case.assert_tensor("eval/logits", method.class_logits(image, self.classes), LOGITS)
        if case.meta["method"] == "CLAP":
            case.assert_tensor("lambda", method.multipliers, MULTIPLIERS)
            self.compare_moved()

    def compare_moved(self):
        """Penalty and gradient away from the texts."""
        case, (parameter,) = self.case, self.method.parameters()
        kept = parameter.detach().clone()
        parameter.data += 0.3 * normals(digest("lp:moved"), parameter.shape).to(DEVICE)
        losses = self.method.step(self.batch(0), self.training).losses
        total = self.method.total(losses)
        total.backward()
        case.assert_tensor("moved/logits", self.method.class_logits(self.examples(), self.classes), LOGITS)
        case.assert_tensor("moved/grad", parameter.grad, 1e-4, relative=True)
        case.assert_scalar("moved_loss", total, LOSS)
        case.assert_scalar("moved_penalty", losses["constraint"], LOSS)
        parameter.data, parameter.grad = kept, None

    def before_step(self, step):
        if step:
            self.note()

    def note(self):
        if "lambda_after_epoch" in self.case:
            self.after_epoch.append((self.method.multipliers.clone(), self.method.growth.clone()))

    def compare_end(self):
        self.method.eval()
        image = F.normalize(self.method.from_frozen(self.case["test_features"].to(DEVICE)), dim=-1)
        with torch.no_grad():
            self.case.assert_tensor("after5/eval_logits", self.method.class_logits(image, self.classes), LOGITS)
        self.note()
        for key, found in zip(("lambda", "rho"), zip(*self.after_epoch, strict=True), strict=False):
            self.case.assert_tensor(f"{key}_after_epoch", torch.stack(found), MULTIPLIERS)

    def compare(self):
        mixed = [self.batch(step) for step in range(5)]
        labels = torch.stack([torch.where(b.drawn >= 0, b.drawn, b.labels) for b in mixed])
        if self.case.meta["name"] == WRONG_LABELS:
            self.start()
            self.compare_start()
            return
        self.case.assert_tensor("row_labels_per_step", labels, 0)
        super().compare()


@pytest.mark.parametrize("name", named("lp_"))
def test_probes(name: str) -> None:
    Probe(Case(name)).compare()


RULES = {"uniform": "uniform", "shots": "shots", "perf": "zero_shot", "fixed": "fixed"}
SS_TEXT: dict[str, tuple[str, bool]] = {
    name + suffix: (rule, bool(suffix)) for (name, rule), suffix in product(RULES.items(), ("", "_repel"))
} | {"SStext": ("uniform", False), "SStext+": ("shots", True)}
PROBABILITIES = 5e-6


@pytest.mark.parametrize("name", named("sstext_"))
def test_ss_text(name: str) -> None:
    """The published encoders give unit features; the cases of others are of the formula alone."""
    case = Case(name)
    run = OnFeatures(case)
    train = F.normalize(run.features, dim=-1)
    largest = max(float(case[f"w/{variant}"].abs().max()) for variant in SS_TEXT)
    method = run.made("ss_text")
    method.rows.copy_(case["text"])
    case.assert_tensor("logits/zero_shot", method.class_logits(run.test, run.classes), LOGITS)
    for variant, (rule, repel) in SS_TEXT.items():
        method = run.made("ss_text", text_weight=rule, repel=repel)
        if not case.meta["unit_norm_inputs"]:
            text, scale = run.classes.frozen, method.scale
            method.rows.copy_(solve(text, run.features, run.labels, scale, rule, repel=repel))
        case.assert_tensor(f"w/{variant}", method.raw_text_features(run.classes), 2e-6 * largest)
        case.assert_tensor(f"logits/{variant}", method.class_logits(run.test, run.classes), LOGITS)
        if f"train_probabilities/{variant}" in case:
            found = method.class_logits(train, run.classes).softmax(dim=1)
            case.assert_tensor(f"train_probabilities/{variant}", found, PROBABILITIES)
    case.deviations |= dict.fromkeys(["text", *(key for key in ("w/SS", "logits/SS") if key in case)], 0.0)  # no method
    case.assert_complete(OF_THE_RERUN)


class Tip(OnFeatures):
    """Tip-Adapter, its search on validation images, and Tip-Adapter-F."""

    inputs = (*OnFeatures.inputs, "text_views", "augmented_features", "val_features", "val_labels", "rows_per_step")

    def given_classes(self) -> Classes:
        views = self.case["text_views"]
        return classes_with(views.mean(dim=1), F.normalize(F.normalize(views, dim=-1).mean(dim=1), dim=-1))

    def prepared(self) -> Tensor:
        return self.case["augmented_features"].mean(dim=0).to(DEVICE)

    def compare(self) -> None:
        case, meta = self.case, self.meta
        method = self.made("tip_adapter", alpha=float(meta["alpha"]), beta=float(meta["beta"]))
        zero_shot = self.made("zeroshot")
        val, labels = F.normalize(case["val_features"].to(DEVICE), dim=-1), case["val_labels"].to(DEVICE)
        case.assert_tensor("clip_weights", method.text_features(self.classes).T, 1e-6)
        case.assert_tensor("cache_keys", method.keys.T, 1e-6)
        case.assert_tensor("cache_values", method.values(self.classes), 0)
        for part, image in (("val", val), ("test", self.test)):
            case.assert_tensor(f"{part}/zero_shot_logits", zero_shot.class_logits(image, self.classes), 1e-4)
        case.assert_tensor("val/tip_logits", method.class_logits(val, self.classes), 1e-4)
        found = self.searched(val, labels)
        case.assert_scalar("best_beta", torch.tensor(found.hp.beta, dtype=torch.float64), 1e-12)
        case.assert_scalar("best_alpha", torch.tensor(found.hp.alpha, dtype=torch.float64), 1e-12)
        case.assert_tensor("test/tip_logits_searched", found.class_logits(self.test, self.classes), 1e-4)
        self.compare_training()
        case.assert_complete(OF_THE_RERUN)

    def searched(self, val: Tensor, labels: Tensor) -> Any:
        """The method with the first of the best pairs on the validation images."""
        best, found = -1, SimpleNamespace()
        scales, steps = self.meta["search_scale"], self.meta["search_step"]
        grids = [
            [0.1 + i * (scale - 0.1) / step for i in range(step)] for scale, step in zip(scales, steps, strict=True)
        ]
        for beta, alpha in product(*grids):
            method = self.made("tip_adapter", alpha=alpha, beta=beta)
            right = int((method.class_logits(val, self.classes).argmax(dim=1) == labels).sum())
            if right > best:
                best, found = right, method
        return found

    def compare_training(self) -> None:
        case, meta = self.case, self.meta
        steps = meta["steps_total"] // meta["train_epoch"]
        given = {"alpha": float(meta["alpha"]), "beta": float(meta["beta"]), "epochs": meta["train_epoch"]}
        method = self.made("tip_adapter_f", **given)
        case.assert_tensor("init/adapter.weight", method.keys, 1e-6)
        optimizer, losses, rates = Optimizer(method.parameters(), method.hp), [], []
        for step in range(meta["steps_total"]):
            rows = case["rows_per_step"][step].long()
            batch = Batch(None, self.features[rows[rows >= 0]], self.labels[rows[rows >= 0]])
            if step == 0:
                logits = method.class_logits(method.batch_features(batch), self.classes)
                case.assert_tensor("train/logits", logits, 1e-4)
            loss = method.total(method.step(batch, self.training).losses)
            optimizer.zero_grad()
            loss.backward()
            if step == 0:
                case.assert_scalar("loss", loss, LOSS + 2e-6 * loss.item())
                case.assert_tensor("grad/adapter.weight", method.keys.grad, 1e-4, relative=True)
            optimizer.learning_rate = learning_rate(method.hp, *divmod(step, steps), steps)
            rates.append(optimizer.learning_rate)
            losses.append(loss.detach())
            optimizer.step()
            if step + 1 in (2, 5, 12):
                case.assert_tensor(f"after{step + 1}/adapter.weight", method.keys, 2e-5)
            if step == 4:
                found = method.class_logits(self.test, self.classes)
                case.assert_tensor("after5/eval_logits", found, 2e-4)
        first = torch.stack(losses[:5])
        limit = LOSS + 2e-6 * max(losses).item()
        case.assert_tensor("traj/loss", first, limit)
        case.assert_scalar("traj_loss", torch.stack(losses), limit)
        if "traj_lr" in meta["scalars"]:
            case.assert_scalar("traj_lr", torch.tensor(rates, dtype=torch.float64), 1e-12)
        final = method.class_logits(self.test, self.classes)
        case.assert_tensor("final/test_logits_init_hyperparameters", final, 3e-4)


@pytest.mark.parametrize("name", named("tip_"))
def test_tip_adapter(name: str) -> None:
    Tip(Case(name)).compare()
