"""Typed hyperparameters; every field has a description and the source of its default."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

DASSL = "repo KaiyangZhou/Dassl.pytorch, dassl/config/defaults.py"
PLKR = "repo BoyangGuo1789/PLKR, configs/trainers/PLKR (the CPT authors' earlier code)"
LIFT_LOSSES = "repo shijxcs/LIFT, utils/losses.py"
LADE = "Hong et al., CVPR 2021"

NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "prior_strength": ("prior", ("logit_adjustment", "compensating")),
    "focal_gamma": ("loss", ("focal",)),
    "ldam_margin": ("loss", ("ldam",)),
    "lade_weight": ("loss", ("lade",)),
    "lade_regularization": ("loss", ("lade",)),
    "class_balanced_beta": ("reweight", ("class_balanced",)),
    "generalized_exponent": ("reweight", ("generalized",)),
    "reweight_after": ("reweight", ("class_balanced", "generalized")),
}
"""Hyperparameters that have an effect only with some values of another one."""
PLAIN = {"prior": "none", "loss": "cross_entropy", "reweight": "none", "sampler": "random"}
"""What the choices for long tails are without any."""


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

    added: ClassVar[tuple[str, ...]] = ()
    """Fields that came after the first results: written only where they differ from their default, so that a run that
    does not use them keeps its key. Their defaults never change, and are the same everywhere."""

    templates: str = field(
        "single", "template set of the frozen text features", "repo KaiyangZhou/CoOp, trainers/coop.py"
    )

    @field_validator("*")
    @classmethod
    def _one_zero(cls, value: Any) -> Any:
        return 0.0 if isinstance(value, float) and value == 0 else value  # -0.0 would count as a different run

    @model_serializer(mode="wrap")
    def _without_added_defaults(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields, values = type(self).model_fields, plain(self)
        return {k: v for k, v in values.items() if k not in self.added or v != fields[k].default}


class TrainingHyperparameters(Hyperparameters):
    """Hyperparameters of every trained method: the optimization."""

    schedule: ClassVar[Literal["epoch", "step"]] = "epoch"
    """When the learning rate changes: after every epoch, or after every step of a cosine without warm-up."""
    final_learning_rate: ClassVar[float] = 0.0
    """Where a cosine of steps ends."""
    epsilon: ClassVar[float] = 1e-8
    """Of Adam and AdamW."""
    added: ClassVar[tuple[str, ...]] = (
        *("loss", "focal_gamma", "ldam_margin", "lade_weight", "lade_regularization"),
        *("reweight", "class_balanced_beta", "generalized_exponent", "reweight_after", "sampler"),
    )

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
    loss: Literal["cross_entropy", "focal", "ldam", "lade"] = field(
        "cross_entropy", "what stands in for the cross-entropy", "switch; every paper here: cross_entropy"
    )
    focal_gamma: float = field(2.0, "power of 1 - p in the focal loss", "Lin et al., ICCV 2017", ge=0)
    ldam_margin: float = field(
        0.5, "margin of the rarest class, in cosine (ldam)", f"Cao et al., NeurIPS 2019; {LIFT_LOSSES}", ge=0
    )
    lade_weight: float = field(
        0.1, "weight of LADE's estimate beside the adjusted cross-entropy", f"{LADE}; {LIFT_LOSSES}", ge=0
    )
    lade_regularization: float = field(
        0.1, "factor of the squared term in LADE's estimate", f"{LADE}; {LIFT_LOSSES}", ge=0
    )
    reweight: Literal["none", "class_balanced", "generalized"] = field(
        "none",
        "weigh classes in the mean over a batch: by their effective number of images, or by a power of their share",
        "switch; every paper here: none",
    )
    class_balanced_beta: float = field(
        0.9999, "beta of the effective number of images", f"Cui et al., CVPR 2019; {LIFT_LOSSES}", ge=0, lt=1
    )
    generalized_exponent: float = field(
        1.0, "weights are the class's share to the power of minus this", f"Zhang et al., CVPR 2021; {LIFT_LOSSES}", gt=0
    )
    reweight_after: float = field(
        0.0, "share of the epochs before the class weights act", "switch; Cao et al., NeurIPS 2019: 0.8", ge=0, lt=1
    )
    sampler: Literal["random", "class_balanced"] = field(
        "random",
        "images of an epoch: each once, or as many of each class (in as many steps)",
        "switch; repo facebookresearch/classifier-balancing, data/ClassAwareSampler.py: class_balanced",
    )
    snapshots: bool = field(
        False, "keep the learned tensors after every epoch and evaluate them (stability over epochs)", "switch"
    )

    @property
    def balances(self) -> bool:
        """Whether the training makes up for class frequencies, so that its logits belong to classes of equal size."""
        plain = all(getattr(self, name) == PLAIN[name] for name in ("prior", "reweight", "sampler"))
        return self.loss == "lade" or not plain

    @field_validator(*NEEDS)
    @classmethod
    def _has_an_effect(cls, value: float, info: ValidationInfo) -> float:
        assert info.field_name is not None
        name, needed = NEEDS[info.field_name]
        chosen = info.data.get(name, needed[0])
        if chosen not in needed and value != cls.model_fields[info.field_name].default:
            offered = needed[0] in get_args(cls.model_fields[name].annotation)
            fix = f"use {name}: {needed[0]}" if offered else "delete it"
            raise ValueError(f"has no effect with {name}: {chosen}; {fix}")
        return value

    @field_validator("loss", "reweight", "sampler")
    @classmethod
    def _corrects_once(cls, value: str, info: ValidationInfo) -> str:
        """Refuse what would make up for class frequencies twice, and weights that cancel."""
        assert info.field_name is not None
        if value == PLAIN[info.field_name]:
            return value
        for name, plain in PLAIN.items():
            other = plain if name == info.field_name else info.data.get(name, plain)
            if other != plain and (name != "loss" or other == "lade"):
                raise ValueError(f"does not go together with {name}: {other}; set {name}: {plain}")
        if info.field_name == "reweight" and info.data.get("batch_size") == 1:
            raise ValueError("has no effect with batch_size: 1, as one weight alone cancels; set batch_size: 4")
        return value


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
