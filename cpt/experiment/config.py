"""The configuration: typed, checked before any job exists, with the JSON schema generated from it.

``workflow/schemas/config.schema.json`` is written by ``cpt schema``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from cpt import limits
from cpt.errors import CptError, close
from cpt.experiment import exhibits
from cpt.experiment.exhibits import Exhibit
from cpt.experiment.sections import FilePath, Label, Name, Names, Protocol, Ratios, Section, Seeds, Share
from cpt.experiment.table import Table
from cpt.files import handwritten
from cpt.files.handwritten import expanded
from cpt.validation import one_line, problems_of

PRINTED_BACKBONE = ("ViT-B-16-quickgelu", "openai")
"""Architecture and weights that the paper's tables are of."""
NEEDS = {"exhibits": "kind", "variants": "method"}
"""What every entry of a section has."""

if TYPE_CHECKING:
    AnyExhibit = Exhibit
else:
    _FIGURES = [exhibits.kind(name) for name in exhibits.names(exhibits.FIGURES)]
    AnyExhibit = Annotated[reduce(or_, _FIGURES, Table), Field(discriminator="kind")]


def _one_slot(templates: list[str]) -> list[str]:
    if any(template.count("{}") != 1 for template in templates):
        raise ValueError("every template must contain {} exactly once, where the class name goes")
    return templates


class Backbone(Section):
    """The frozen CLIP."""

    name: Name = Field(description="what tables call it")
    architecture: FilePath = Field(
        description="'embedded', a model name of open_clip such as ViT-B-16-quickgelu, or the .json file of one's own"
    )
    pretrained: FilePath = Field(
        "shipped",
        min_length=1,
        description="'shipped' (the weights of 'embedded'), tag of open_clip's registry, path of a checkpoint "
        "(.safetensors best), or 'random'",
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="checksum that the weights' file must have; default: not compared"
    )


class Override(Section):
    """Hyperparameters that this experiment sets differently from the methods' own defaults.

    A rule applies where all of its conditions hold; later rules win. A method that lacks a hyperparameter of a rule
    without ``methods`` skips it.
    """

    methods: list[str] | None = Field(None, description="only for these methods")
    protocols: list[Protocol] | None = Field(None, description="only for these protocols")
    datasets: list[str] | None = Field(None, description="only when trained on these datasets")
    set: dict[str, Any] = Field(description="hyperparameter: value")


class Variant(Section):
    """A method with hyperparameters of its own: a row of a table, a curve of a figure."""

    method: str = Field(description="module of cpt/methods")
    label: Label | None = Field(None, description="name in tables; default: the method's title")
    note: Label | None = Field(None, description="mark after the label, for example 'as printed'")
    set: dict[str, Any] = Field({}, description="hyperparameter: value")


class ClassGroups(Section):
    """Sizes of the head, the middle and the tail of the class ranking, relative to each other."""

    head: Share = 1.0
    medium: Share = 1.0
    tail: Share = 1.0


class BaseToNew(Section):
    """Train on the base half of each dataset, test on both halves."""

    datasets: Names


class Transfer(Section):
    """Train on all classes of one source, test on other datasets with all their classes."""

    source: str
    targets: Names


class Tasks(Section):
    """What is trained on what and tested on what. Cross-dataset and domain generalization share their runs."""

    base_to_new: BaseToNew | None = None
    cross_dataset: Transfer | None = None
    domain_generalization: Transfer | None = None
    few_shot: BaseToNew | None = Field(None, description="train on all classes, test on all classes")


class Config(Section):
    """One experiment."""

    extends: str | None = Field(None, description="a configuration file that this one is put on top of")
    experiment: Name = Field(description="its results go to results/<experiment>")
    printed: bool = Field(
        False, description="the paper's printed numbers can be compared with this experiment; needs its backbone"
    )
    backbone: Backbone
    catalog: FilePath = Field("config/datasets.yaml", description="file of dataset entries")
    evaluate_on: Literal["test", "val"] = Field("test", description="part of the datasets that runs are judged by")
    seeds: Seeds
    imbalance_ratios: Ratios
    n_max: int = Field(16, ge=1, description="images of the head class")
    class_order: Literal["label", "random", "appearance"] = Field(
        "label", description="which trained class is the head: ascending label, or a permutation by seed"
    )
    class_groups: ClassGroups = Field(
        ClassGroups(), description="head, medium and tail of the class ranking; default: thirds"
    )
    augmentation: Literal["none", "rrc_flip"] = Field("rrc_flip", description="random resized crop and flip, or none")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="of the frozen towers; auto: float32 on a CPU, on a GPU float16 for OpenAI's weights and bfloat16 "
        "for others",
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(
        1, ge=1, le=limits.THREADS, description="CPU threads of a job; the last bits of results depend on it"
    )
    cuda_graphs: Literal["auto", "off"] = Field(
        "auto", description="on a GPU, capture the training step as a CUDA graph; off: launch every operator by itself"
    )
    checkpoint_interval: float = Field(60, ge=0, description="seconds between saved training states")
    fork_server: bool = Field(True, description="import the libraries once and fork a process per local job")
    runs_per_job: int = Field(
        1,
        ge=1,
        description="seeds of a run that one job handles, for clusters (docs/slurm.md); set it before the first run",
    )
    templates: dict[Name, Annotated[list[str], AfterValidator(_one_slot)]] = Field(
        {}, description="template sets beside single, dataset and ensemble"
    )
    overrides: list[Override] = Field([], description="hyperparameters of this experiment, in order")
    variants: dict[Name, Variant] = Field(min_length=1)
    tasks: Tasks
    exhibits: dict[Name, AnyExhibit] = Field(min_length=1)

    @model_validator(mode="after")
    def _printed_fits(self) -> Self:
        backbone = self.backbone
        if self.printed and (backbone.architecture, backbone.pretrained) != PRINTED_BACKBONE:
            raise ValueError(
                f"printed: true is for the paper's backbone, {' '.join(PRINTED_BACKBONE)}; set printed: false"
            )
        if self.printed and self.evaluate_on != "test":
            raise ValueError("printed: true is for numbers on test images; set printed: false")
        return self


def parse(values: Any, source: str, notify: Callable[[str], None] = lambda _: None) -> Config:
    """Check a loaded configuration.

    Args:
        values: the mapping that the file holds.
        source: the file or files it came from, for messages.
        notify: gets a line for anything valid that may be unintended.

    Raises:
        CptError: one line naming file, field, value and fix.
    """
    merged = _extended(values, source, notify)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise CptError(
            f"{source}: {_misnamed(error, merged) or one_line(error, Config)}{_alone(error, values)}"
        ) from None


def load(paths: Sequence[Path], notify: Callable[[str], None] = lambda _: None) -> Config:
    """Load and merge configuration files the way Snakemake does: mappings merge, lists are replaced, later wins.

    Args:
        paths: the files.
        notify: as in ``parse``.

    Raises:
        CptError: a file is missing, neither YAML nor JSON, or the configuration is invalid.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        values = _read(path)
        _tell_of_lost_rules(merged, values, str(path), "the files before it", notify)
        _merge(merged, values, nulls=True)
    return parse(merged, " + ".join(str(path) for path in paths), notify)


def schema() -> str:
    """Return the JSON schema of the configuration as text."""
    return json.dumps(Config.model_json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        values = handwritten.load(path)
    except FileNotFoundError:
        raise CptError(f"{path}: no such configuration file{handwritten.instead(path)}") from None
    except ValueError as error:
        raise CptError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise CptError(f"{path}: must be a mapping; start from config/config.yaml")
    return values


def _misnamed(error: ValidationError, values: dict[str, Any]) -> str | None:
    """What is wrong if the first problem is an entry that changes one of another name; None if it is not."""
    problem = problems_of(error)[0]
    match problem["type"], problem["loc"]:
        case ("union_tag_not_found", ("exhibits", str(name))) | ("missing", ("variants", str(name), "method")):
            part = str(problem["loc"][0])
            found = close(name, [other for other in values[part] if other != name])
            if found:
                return (
                    f"{part}.{name}: there is none to change; did you mean {found!r}? A new one needs its {NEEDS[part]}"
                )
    return None


def _alone(error: ValidationError, values: Any) -> str:
    """The fix of a configuration that should stand on top of another one."""
    problem = problems_of(error)[0]
    forgot = problem["type"] == "missing" and len(problem["loc"]) == 1 and "extends" not in values
    return ", or what it changes: `extends: config/config.yaml`" if forgot else ""


def _extended(values: Any, source: str, notify: Callable[[str], None], seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Put a configuration on top of the file that its key ``extends`` names."""
    if not isinstance(values, dict):
        raise CptError(f"{source}: must be a mapping; start from config/config.yaml")
    own = {key: value for key, value in values.items() if key != "extends"}
    merged: dict[str, Any] = {}
    if values.get("extends") is not None:
        path = _parent(values["extends"], source)
        if str(path) in seen:
            raise CptError(f"{source}: extends: {path} extends itself; name another file")
        merged = copy.deepcopy(_extended(_read(path), str(path), notify, (*seen, str(path))))
        _tell_of_lost_rules(merged, own, source, str(path), notify)
    _merge(merged, own)
    return merged


def _parent(written: Any, source: str) -> Path:
    if not isinstance(written, str):
        raise CptError(f"{source}: extends: {written!r}: must be the path of a configuration file")
    try:
        return Path(expanded(written))
    except ValueError as error:
        raise CptError(f"{source}: extends: {written!r}: {error}") from None


def _tell_of_lost_rules(
    below: dict[str, Any], on_top: dict[str, Any], source: str, other: str, notify: Callable[[str], None]
) -> None:
    """Tell of overrides that are no longer there, because a list replaces the one that it is put on top of."""
    rules, own = below.get("overrides"), on_top.get("overrides")
    if not isinstance(rules, list) or not isinstance(own, list):
        return
    if lost := sum(rule not in own for rule in rules):
        notify(
            f"{source}: overrides replace those of {other}: {lost} of its {len(rules)} rules no longer hold; a list "
            "replaces a list (docs/adding.md), so copy the rules to keep"
        )


def _merge(target: dict[str, Any], values: dict[str, Any], *, nulls: bool = False) -> None:
    """Put ``values`` on top of ``target``; a null takes an entry away, or with ``nulls`` stays to do so later."""
    for key, value in values.items():
        if value is None and not nulls:
            target.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            _merge(target[key], value, nulls=nulls)
        else:
            target[key] = value
