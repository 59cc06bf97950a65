"""The configuration: typed, checked before any job exists, with the JSON schema generated from it.

``workflow/schemas/config.schema.json`` is written by ``cpt schema``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr, ValidationError, model_validator

from cpt import limits
from cpt.errors import CptError, close
from cpt.experiment import exhibits, fitting, merging
from cpt.experiment.exhibits import Exhibit
from cpt.experiment.sections import FilePath, Label, Name, Names, Protocol, Ratio, Ratios, Section, Seeds, Share
from cpt.experiment.table import Table
from cpt.validation import checksum, lines_of, problems_of

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
        description="of 'embedded', 'shipped' or the folder that `cpt pretrain` wrote; else a tag of open_clip's "
        "registry, the path of a checkpoint (.safetensors best), or 'random'",
    )
    sha256: (
        Annotated[str, AfterValidator(checksum(64)), Field(json_schema_extra={"pattern": "^[0-9a-f]{64}$"})] | None
    ) = Field(None, description="checksum that the weights' file must have; default: not compared")


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
    control: bool = Field(
        False,
        description="the row says what a number is worth: it is neither ranked nor tested; methods may be controls",
    )
    imbalance_ratio: Ratio | None = Field(
        None, description="trained at this ratio in every cell, whatever the cell's; natural: on all training images"
    )
    set: dict[str, Any] = Field({}, description="hyperparameter: value")


class ClassGroups(Section):
    """Sizes of the head, the middle and the tail of the class ranking, relative to each other."""

    head: Share = Field(default=1.0, description="classes with most training images")
    medium: Share = Field(default=1.0, description="classes between")
    tail: Share = Field(default=1.0, description="classes with fewest training images")


class BaseToNew(Section):
    """Train on the base half of each dataset, test on both halves."""

    datasets: Names = Field(description="each is trained and tested on by itself")


class Transfer(Section):
    """Train on all classes of one source, test on other datasets with all their classes."""

    source: str = Field(description="dataset to train on")
    targets: Names = Field(description="datasets to test on")


class Tasks(Section):
    """What is trained on what and tested on what. Cross-dataset and domain generalization share their runs."""

    base_to_new: BaseToNew | None = None
    cross_dataset: Transfer | None = None
    domain_generalization: Transfer | None = None
    few_shot: BaseToNew | None = Field(None, description="train on all classes, test on all classes")


class Config(Section):
    """One experiment."""

    extends: str | None = Field(None, description="a configuration file that this one is put on top of")
    inherit_overrides: bool = Field(
        True, description="false: drop the overrides of the files below instead of adding this file's to them"
    )
    only: Names | None = Field(None, description="make only these exhibits, and train only what they show")
    experiment: Name = Field(description="its results go to results/<experiment>")
    printed: bool = Field(
        False, description="the paper's printed numbers can be compared with this experiment; needs its backbone"
    )
    backbone: Backbone
    catalog: FilePath = Field("config/datasets.yaml", description="file of dataset entries")
    evaluate_on: Literal["test", "val"] = Field("test", description="part of the datasets that runs are judged by")
    seeds: Seeds = Field(description="one run each: draw of training images, initial prompts, order")
    imbalance_ratios: Ratios
    n_max: int = Field(16, ge=1, description="images of the head class")
    class_order: Literal["label", "random", "appearance"] = Field(
        "label", description="which trained class is the head: ascending label, or a permutation by seed"
    )
    class_groups: ClassGroups = Field(
        ClassGroups(), description="head, medium and tail of the class ranking; default: thirds"
    )
    augmentation: Literal["none", "rrc_flip"] = Field("rrc_flip", description="random resized crop and flip, or none")
    precision: Literal["auto", "float32", "bfloat16", "float16", "float16_scaled"] = Field(
        "auto",
        description="of the frozen towers; float16_scaled: float16, losses scaled; auto: float32 on a CPU, on a GPU "
        "float16 for OpenAI's weights, for others bfloat16 or, where the card lacks it, float16_scaled",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto: CUDA's GPU if there is one; mps: Apple's, in float32"
    )
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
    variants: dict[Name, Variant] = Field(min_length=1, description="rows that exhibits may show")
    tasks: Tasks
    exhibits: dict[Name, AnyExhibit] = Field(min_length=1, description="tables and figures, each of a kind")
    _rules_below: int = PrivateAttr(0)

    def place_of_rule(self, index: int) -> str:
        """Where a rule of ``overrides`` stands in its file, for messages."""
        own = index - self._rules_below
        return f"overrides.{own}" if own >= 0 else f"overrides.{index} of the files below"

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
    """Check a loaded configuration, and leave out what it inherits and no longer fits.

    Args:
        values: the mapping that the file holds.
        source: the file or files it came from, for messages.
        notify: gets a line for anything valid that may be unintended.

    Raises:
        CptError: a line for each problem, naming file, field, value and fix.
    """
    return _parsed(values, values, source, notify)


def load(paths: Sequence[Path], notify: Callable[[str], None] = lambda _: None) -> Config:
    """Load configuration files, put later ones on top of earlier ones (docs/adding.md has the rules), and check them.

    Args:
        paths: the files.
        notify: as in ``parse``.

    Raises:
        CptError: a file is missing, neither YAML nor JSON, or as in ``parse``.
    """
    values, own = merging.together(paths, notify)
    return _parsed(values, own, " + ".join(str(path) for path in paths), notify)


def schema() -> str:
    """Return the JSON schema of the configuration as text."""
    return json.dumps(Config.model_json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _parsed(values: Any, own: Any, source: str, notify: Callable[[str], None]) -> Config:
    """Check a configuration whose topmost file holds ``own``."""
    merged = merging.extended(values, source, notify)
    checked = _checked(merged, own, source, alone="extends" not in values)
    try:
        left, notices = fitting.fitted(merged, own, checked.exhibits, checked.catalog)
    except CptError as error:
        raise CptError(f"{source}: {error}") from None
    for notice in notices:
        notify(f"{source}: {notice}")
    return _checked(left, own, source) if left != merged else checked


def _checked(values: dict[str, Any], own: dict[str, Any], source: str, *, alone: bool = False) -> Config:
    """Turn merged values into a configuration; ``alone`` says that no other file is below the topmost one."""
    rules, mine = values.get("overrides"), own.get("overrides")
    below = len(rules) - len(mine or []) if isinstance(rules, list) and isinstance(mine, list | None) else 0
    try:
        made = Config.model_validate(values)
    except ValidationError as error:
        missing = [str(p["loc"][0]) for p in problems_of(error) if p["type"] == "missing" and len(p["loc"]) == 1]
        lines = [
            _misnamed(place, values) or line
            for place, line in lines_of(error, Config, lambda place: _in_file(place, below))
        ]
        if alone and len(missing) > 1:  # not forgotten one by one
            lines = [line for line in lines if line.split(":")[0] not in missing]
            lines.append(f"{', '.join(missing)}: missing; add `extends: config/config.yaml` to change that experiment")
        raise CptError("\n".join(f"{source}: {line}" for line in dict.fromkeys(lines))) from None
    made._rules_below = below
    return made


def _in_file(place: tuple[Any, ...], below: int) -> tuple[Any, ...]:
    """A place in the merged values as one in the topmost file, whose rules come after so many others."""
    if place[:1] == ("overrides",) and len(place) > 1 and isinstance(place[1], int) and place[1] >= below:
        return (place[0], place[1] - below, *place[2:])
    return place


def _misnamed(place: tuple[Any, ...], values: dict[str, Any]) -> str | None:
    """What is wrong with an entry that has not what every one has, if it seems to change one of another name."""
    if len(place) < 2 or place[0] not in NEEDS:
        return None
    part, name = str(place[0]), str(place[1])
    entry = values[part].get(name)
    if not isinstance(entry, dict) or NEEDS[part] in entry:
        return None
    found = close(name, [other for other in values[part] if other != name])
    if not found:
        return None
    return f"{part}.{name}: there is none to change; did you mean {found!r}? A new one needs its {NEEDS[part]}"
