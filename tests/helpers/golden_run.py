"""A method of ours along a golden case: start, evaluation, gradients, five steps, evaluation again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from cpt.features.templates import PROMPT_TEMPLATE
from cpt.methods.base.method import Batch, Method, TrainingSet
from cpt.methods.base.prompts import TextPrompts
from cpt.methods.base.registry import get
from cpt.training.optimizers import Optimizer
from cpt.training.schedule import learning_rate
from tests.helpers.golden_clip import Case, classes_of, golden_clip, rule

FEATURES, LOGITS, LOSS, GRADIENT, AFTER2, AFTER5, AFTER5_LOGITS = 5e-6, 5e-5, 1e-5, 1e-4, 2e-6, 5e-6, 2e-4
UNNORMALIZED = 1e-5
RATE = 1e-12

NAMES = {
    r"prompt_learner\.ctx": "text.context",
    r"prompt_learner\.meta_net\.linear1\.": "meta_net.first.",
    r"prompt_learner\.meta_net\.linear2\.": "meta_net.second.",
    r"prompt_learner\.proj\.": "projection.",
    r"prompt_learner\.compound_prompts_text\.": "text.deep.",
    r"prompt_learner\.compound_prompt_projections\.": "deep_projections.",
    r"(adapter_\w+)\.fc\.0\.": r"\1.first.",
    r"(adapter_\w+)\.fc\.2\.": r"\1.second.",
    r"image_encoder\.VPT": "visual.prompts.0",
    r"image_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow": r"visual.prompts.\1",
    r"text_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow": lambda found: f"text.deep.{int(found[1]) - 1}",
}
"""Learnables of the published code as ours are named."""

OF_THE_RERUN = {"rerun_identical", "aliased"}
"""Scalars that say how the file was made."""


class Part:
    """One of the published code's learnables in a tensor of ours that holds several, as far as a run needs it."""

    def __init__(self, whole: torch.nn.Parameter, index: tuple[int, ...]) -> None:
        self.whole, self.index = whole, index

    @property
    def data(self) -> Tensor:
        """The value."""
        return self.whole.data[self.index]

    @property
    def grad(self) -> Tensor | None:
        """Its gradient."""
        return None if self.whole.grad is None else self.whole.grad[self.index]

    @property
    def shape(self) -> torch.Size:
        """Of the published tensor."""
        return self.data.shape

    def detach(self) -> Tensor:
        """The value without its history."""
        return self.data

    def numel(self) -> int:
        """Number of values."""
        return self.data.numel()


class Run:
    """What all golden cases of trained methods share; a subclass adds what is its method's own.

    Class attributes:
        method_name: our name of the method.
        components: scalars of the case by the component of our loss.
        names: patterns of the names of the published code's learnables, and what they are here.
        unnormalized: arrays of features that are not unit vectors.
        from_texts: learnables that start from features.
        loss: tolerance of losses.
    """

    method_name: ClassVar[str]
    names: ClassVar[dict[str, Any]] = NAMES
    unnormalized: ClassVar[set[str]] = set()
    from_texts: ClassVar[set[str]] = set()
    loss: ClassVar[float] = LOSS
    components: ClassVar[dict[str, str]] = {"cross_entropy": "cross_entropy"}

    def __init__(self, case: Case) -> None:
        meta = case.meta
        self.case, self.meta, self.clip = case, meta, golden_clip(meta["weight_salt"])
        frozen, prompt = self.templates(), self.prompt_template()
        self.classes = classes_of(self.clip, meta["classnames"], frozen, dataset_template=prompt)
        self.hp = get(self.method_name).hyperparameters(
            **{"optimizer": "sgd", "learning_rate": 0.0025, "epochs": meta.get("max_epoch", 12)} | self.settings()
        )
        made = get(self.method_name)(self.clip, self.hp, self.classes, torch.Generator().manual_seed(0))
        self.method: Any = made.to(self.clip.device)
        self.training = self.training_set()

    # what differs between methods

    def settings(self) -> dict[str, Any]:
        """Hyperparameters of the case."""
        raise NotImplementedError

    def templates(self) -> Sequence[str]:
        """Templates of the frozen text features."""
        return [PROMPT_TEMPLATE]

    def prompt_template(self) -> str:
        """Template whose end the learnable prompts may take."""
        return PROMPT_TEMPLATE

    def prompted(self) -> Method:
        """The method that holds the prompts."""
        return self.method

    def training_set(self) -> TrainingSet:
        """What the method may know of the training set."""
        return TrainingSet(self.classes, torch.ones(len(self.classes), device=self.clip.device))

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        return Batch(self.case.images(step), None, self.case.labels(step))

    def evaluated(self) -> dict[str, Tensor]:
        """What stands under ``eval/``, and under ``train/`` by the same names."""
        text, image = self.method.text_features(self.classes), self.method.image_features(self.case.images(0))
        return {"text_features": text, "image_features": image, "logits": self.method.logits(image, text)}

    def intermediates(self) -> dict[str, Tensor]:
        """Further arrays of the start, by their full names."""
        return {}

    def scalars(self, components: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars of the first step beyond loss and ``components``."""
        return {}

    def tolerance(self, learnable: str, usual: float) -> float:
        """Of the values of a learnable."""
        return usual

    def before_step(self, step: int) -> None:
        """Called before every step."""

    def after_steps(self) -> None:
        """Called after the last step."""

    # what is equal

    def place(self, learnable: str) -> tuple[str, tuple[int, ...]]:
        """Our name of a learnable, and where it stands in ours, if that holds several."""
        name = learnable
        for pattern, replacement in self.names.items():
            name = re.sub(f"^{pattern}", replacement, name)
        return name, ()

    def initial(self, learnable: str, shape: tuple[int, ...]) -> Tensor:
        """The value of a learnable at the start, where the method itself does not give it."""
        return rule(learnable, shape, self.meta["weight_salt"])

    def parameters(self) -> Iterator[tuple[str, torch.nn.Parameter | Part]]:
        """Our parameters by the names that the published code gives them; all of ours, all of theirs."""
        ours = dict(self.prompted().named_parameters())
        places = {learnable: self.place(learnable) for learnable in self.meta["learnables"]}
        named = {key: Part(ours[name], index) if index else ours[name] for key, (name, index) in places.items()}
        assert len(set(places.values())) == len(places)
        assert {name for name, _ in places.values()} == ours.keys()
        assert sum(part.numel() for part in named.values()) == sum(p.numel() for p in self.method.parameters())
        yield from named.items()

    def start(self) -> None:
        """Give the learnables their values, except those that the method itself initializes."""
        for learnable, parameter in self.parameters():
            if learnable not in self.meta["kept_as_initialised"]:
                parameter.data.copy_(self.initial(learnable, tuple(parameter.shape)))
            usual = FEATURES if learnable in self.from_texts else 0
            if f"init/{learnable}" in self.case:
                self.case.assert_tensor(f"init/{learnable}", parameter, self.tolerance(learnable, usual))

    def compare_tokens(self) -> None:
        """The prompts without their context vectors hold the tokens of the published code's prompts."""
        text: TextPrompts = self.prompted().text
        ids, slots = (torch.tensor(x) for x in text.layout(self.classes, self.clip.text.context_length))
        frozen, theirs = ids[slots < 0].view(len(ids), -1), self.case["tokens"]
        ours = torch.cat([frozen[:, :1], theirs[:, 1 : 1 + text.count], frozen[:, 1:]], dim=1)
        self.case.assert_tensor("tokens", ours, 0)
        if "name_lens" in self.case:
            self.case.assert_tensor("name_lens", self.classes.name_lengths, 0)

    def compare_start(self) -> None:
        """Features, logits and intermediates at the start."""
        with torch.no_grad():
            found = {}
            for part in ("eval", "train"):
                self.method.train(part == "train")
                found |= {f"{part}/{key}": value for key, value in self.evaluated().items()}
            for key, value in (found | self.intermediates()).items():
                if key in self.case:
                    other = UNNORMALIZED if key in self.unnormalized else FEATURES
                    self.case.assert_tensor(key, value, LOGITS if "logits" in key else other)

    def train(self) -> None:
        """Five steps: losses, rates, first gradients, learnables after two and five."""
        case, method, hp = self.case, self.method, self.hp
        optimizer = Optimizer(method.parameters(), hp)
        losses = []
        for step in range(5):
            method.train()
            self.before_step(step)
            components = method.step(method.draw(self.batch(step), self.training), self.training).losses
            loss = method.total(components)
            losses.append(loss.detach())
            optimizer.learning_rate = learning_rate(hp, step)
            optimizer.zero_grad()
            loss.backward()
            if step == 0:
                self._compare_scalars(loss, components)
                for learnable, parameter in self.parameters():
                    assert parameter.grad is not None
                    if f"grad/{learnable}" in case:
                        case.assert_tensor(f"grad/{learnable}", parameter.grad, GRADIENT, relative=True)
                    else:
                        assert not parameter.grad.any(), f"{learnable}: gradients that are zero are not stored"
            optimizer.step()
            method.step_end()
            method.epoch_end(step + 1)
            if step == 1:
                for learnable, parameter in self.parameters():
                    case.assert_tensor(f"after2/{learnable}", parameter, self.tolerance(learnable, AFTER2))
        if hp.epochs == 5:
            method.finish()
        for learnable, parameter in self.parameters():
            case.assert_tensor(f"after5/{learnable}", parameter, self.tolerance(learnable, AFTER5))
        case.assert_tensor("traj/loss", torch.stack(losses), self.loss)
        case.assert_scalar("traj_loss", torch.stack(losses), self.loss)
        if "traj_lr" in self.meta["scalars"]:
            rates = torch.tensor([learning_rate(hp, step) for step in range(5)], dtype=torch.float64)
            case.assert_scalar("traj_lr", rates, RATE)

    def compare_end(self) -> None:
        """Logits after the steps."""
        self.method.eval()
        with torch.no_grad():
            self.case.assert_tensor("after5/eval_logits", self.evaluated()["logits"], AFTER5_LOGITS)
            self.after_steps()

    def _compare_scalars(self, loss: Tensor, components: dict[str, Tensor]) -> None:
        found = {"loss": loss} | {name: components[ours] for name, ours in self.components.items()}
        for name, value in (found | self.scalars(components)).items():
            if name in self.meta["scalars"]:
                self.case.assert_scalar(name, value, self.loss)

    def compare(self) -> None:
        """Everything."""
        self.start()
        self.compare_tokens()
        self.compare_start()
        self.train()
        self.compare_end()
        self.case.assert_complete(OF_THE_RERUN)
