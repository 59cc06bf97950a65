"""Typed hyperparameters; every field has a description and the source of its default."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

DASSL = "repo KaiyangZhou/Dassl.pytorch, dassl/config/defaults.py"
PLKR = "repo BoyangGuo1789/PLKR, configs/trainers/PLKR (the CPT authors' earlier code)"


def field(default: Any, description: str, source: str, **limits: Any) -> Any:
    """Declare a hyperparameter: default, meaning, source of the default, and limits."""
    return Field(default, description=description, json_schema_extra={"source": source}, **limits)


class Hyperparameters(BaseModel):
    """Hyperparameters of every method. Methods subclass this, or ``TrainingHyperparameters``, and add fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True, strict=True)

    protocol_defaults: ClassVar[dict[str, dict[str, Any]]] = {}
    """Defaults that differ by protocol: ``{"all_classes": {"epochs": 8}}``."""

    dataset_defaults: ClassVar[dict[str, dict[str, Any]]] = {}
    """Defaults that differ by training dataset; the key ``few_shot/dtd`` is for one protocol only."""

    templates: str = field(
        "single", "template set of the frozen text features", "repo KaiyangZhou/CoOp, trainers/coop.py"
    )

    @field_validator("*")
    @classmethod
    def _one_zero(cls, value: Any) -> Any:
        return 0.0 if isinstance(value, float) and value == 0 else value  # -0.0 would count as a different run


class TrainingHyperparameters(Hyperparameters):
    """Hyperparameters of every trained method: the optimization."""

    schedule: ClassVar[Literal["epoch", "step"]] = "epoch"
    """When the learning rate changes: after every epoch, or after every step of a cosine without warm-up."""
    final_learning_rate: ClassVar[float] = 0.0
    """Where a cosine of steps ends."""
    epsilon: ClassVar[float] = 1e-8
    """Of Adam and AdamW."""

    epochs: int = field(12, "passes over the training set", "CPT, supplement 6.1 (base-to-new)", ge=0)
    batch_size: int = field(4, "images per step", "CPT, supplement 6.1", ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = field("sgd", "adam and adamw: betas 0.9 and 0.999", DASSL)
    learning_rate: float = field(0.0025, "peak learning rate", "CPT, supplement 6.1", gt=0)
    momentum: float = field(0.9, "momentum of SGD, no Nesterov", DASSL, ge=0, lt=1)
    weight_decay: float = field(5e-4, "L2 on all learned values, coupled (adamw: decoupled)", DASSL, ge=0)
    warmup_epochs: int = field(1, "epochs at the constant warm-up rate", DASSL, ge=0)
    warmup_learning_rate: float = field(1e-5, "learning rate of the warm-up", DASSL, gt=0)
    prior: Literal["none", "logit_adjustment", "balanced_softmax", "compensating"] = field(
        "none", "add the class frequencies to the logits of the cross-entropy", "switch; every paper here: none"
    )
    prior_strength: float = field(
        1.0, "factor of the log prior (logit_adjustment, compensating)", "Menon et al., ICLR 2021", gt=0
    )
    snapshots: bool = field(
        False, "keep the learned tensors after every epoch and evaluate them (stability over epochs)", "switch"
    )

    @field_validator("prior_strength")
    @classmethod
    def _strength_has_an_effect(cls, strength: float, info: ValidationInfo) -> float:
        prior = info.data.get("prior", "none")
        if strength != 1 and prior in ("none", "balanced_softmax"):
            raise ValueError(f"has no effect with prior: {prior}; use prior: logit_adjustment")
        return strength


class Starting(Hyperparameters):
    """Hyperparameters of a method that starts from a finished run of another one on the same training set."""

    start: str = field("promptsrc", "method of the run to start from", "ours", min_length=1)
    start_hyperparameters: dict[str, Any] = field(
        {}, "its hyperparameters; the experiment's own fill in what is absent", "the started method's"
    )


class Continued(TrainingHyperparameters, Starting):
    """Hyperparameters of a method that goes on training where a finished run of another one ended."""


def layers(
    protocol_defaults: dict[str, dict[str, Any]],
    dataset_defaults: dict[str, dict[str, Any]],
    protocol: str,
    dataset: str,
) -> list[dict[str, Any]]:
    """Return a method's defaults for a protocol and a training dataset; later ones override earlier ones."""
    keys = (dataset, f"{protocol}/{dataset}")
    return [protocol_defaults.get(protocol, {}), *(dataset_defaults.get(key, {}) for key in keys)]


def resolve(kind: type[Hyperparameters], protocol: str, dataset: str, *overrides: dict[str, Any]) -> Hyperparameters:
    """Return the hyperparameters of one run: the method's defaults, those by protocol and by dataset, the overrides.

    Raises:
        pydantic.ValidationError: an override is unknown or invalid.
    """
    values: dict[str, Any] = {}
    own = layers(kind.protocol_defaults, kind.dataset_defaults, protocol, dataset)
    for layer in (*own, *overrides):
        values |= layer
    return kind(**values)
