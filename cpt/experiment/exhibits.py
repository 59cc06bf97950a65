"""Tables and figures as an experiment sees them: their sections of the configuration, the cells that they ask for.

A kind of figure is a module of ``cpt.report.figures``, a layout of tables one of ``cpt.report.layouts``, a format of
tables one of ``cpt.report.formats``: a new one is a new module and nothing else. All lie in ``cpt.report``, which this
package may not import, so they are found by name. Reading a configuration imports kinds and layouts, so they import
matplotlib inside their functions.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, get_args

from pydantic import Field

from cpt.errors import CptError
from cpt.experiment.sections import Names, Ratios, Section, Seeds, Text
from cpt.files.paths import Ratio

T = TypeVar("T")
FIGURES, LAYOUTS, FORMATS = "cpt.report.figures", "cpt.report.layouts", "cpt.report.formats"
"""Packages that hold one module per kind of figure, per layout of tables, and per format of a table's files."""
RECONSTRUCTION = "reconstruction"
"""Mark of a method that was built from a description because no equations or code are public."""
CONTROL = "control"
"""Mark of a row that says what a number is worth: it is neither ranked nor tested."""


# ---- what an exhibit asks for ------------------------------------------------------------------


class Place(NamedTuple):
    """The datasets that a run is trained and tested on, and whether the tested one is the source of a transfer."""

    trained: str
    tested: str
    source: bool = False


@dataclass(frozen=True)
class Cell:
    """A variant, trained and tested once per seed: one place of a table or figure.

    Attributes:
        parameter: the hyperparameter that is ``x`` here; None where the variant is as declared.
        further: further hyperparameters, by name.
    """

    variant: str
    task: str
    place: Place
    ratio: Ratio
    seeds: Sequence[int]
    parameter: str | None = None
    x: Any = None
    further: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changes(self) -> dict[str, Any]:
        """Hyperparameters that differ from the variant's."""
        return {**({} if self.parameter is None else {self.parameter: self.x}), **self.further}


@dataclass(frozen=True)
class Experiment:
    """What an exhibit may ask of the experiment that it is in.

    Attributes:
        ratios: imbalance ratios of the exhibit, where it names none those of the experiment.
        seeds: likewise.
        places: places of a task, those of the exhibit's datasets only; refuses a task that is not declared.
        hyperparameters: of a variant where base-to-new trains on a dataset.
    """

    ratios: Sequence[Ratio]
    seeds: Sequence[int]
    places: Callable[[str], Sequence[Place]]
    hyperparameters: Callable[[str, str], Any]

    def cells(self, tasks: Sequence[str], variants: Sequence[str]) -> Iterator[Cell]:
        """Every variant with every ratio everywhere."""
        for task in tasks:
            for variant in variants:
                for ratio in self.ratios:
                    for place in self.places(task):
                        yield Cell(variant, task, place, ratio, self.seeds)


# ---- their sections of the configuration ---------------------------------------------------------


class Exhibit(Section):
    """What every table and figure declares; absent lists take the experiment's."""

    if TYPE_CHECKING:
        kind: str  # a Literal of every kind

    title: Text = Field(description="heading")
    caption: Text = Field("", description="what the reader should see")
    ratios: Ratios | None = Field(None, description="imbalance ratios τ that it shows; default: all of the experiment")
    seeds: Seeds | None = Field(None, description="seeds that it shows; default: all of the experiment")
    datasets: Names | None = Field(None, description="only these of the task's datasets")

    def headed(self) -> tuple[str, str]:
        """Title and caption."""
        return self.title, self.caption

    def named_variants(self) -> Mapping[str, Sequence[str]]:
        """Key of this section -> variants that it names; they are the rows, in this order."""
        raise NotImplementedError

    def ordered(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Its rows in the order in which they are shown."""
        return rows

    def named_datasets(self) -> Mapping[str, Sequence[str]]:
        """Key of this section -> datasets that it names."""
        return {"datasets": self.datasets or []}

    def of_tasks(self) -> list[str]:
        """Tasks that it shows."""
        return ["base_to_new"]

    def cells(self, experiment: Experiment) -> Iterator[Cell]:
        """What it shows."""
        raise NotImplementedError

    def further(self, experiment: Experiment) -> dict[str, Any]:
        """What grid.json holds of it beside what it holds of all."""
        return {}


class VariantsFigure(Exhibit):
    """A figure of several variants on base-to-new."""

    variants: Names = Field(description="what it shows, by name")

    def named_variants(self) -> Mapping[str, Sequence[str]]:
        """Its rows."""
        return {"variants": self.variants}

    def cells(self, experiment: Experiment) -> Iterator[Cell]:
        """Every variant with every ratio on every dataset."""
        return experiment.cells(self.of_tasks(), self.variants)


# ---- where kinds and layouts are found ---------------------------------------------------------


class Layout:
    """What an experiment knows of a layout of tables; the rest is ``cpt.report.layout.Layout``."""

    of_measures: ClassVar[bool] = False
    """Whether a table of this layout shows the measures that it declares."""
    of_base_to_new: ClassVar[bool] = False
    """Whether base-to-new is the only task that it can show."""


@cache
def names(package: str) -> tuple[str, ...]:
    """Return the names of all kinds of figures, layouts of tables or formats of tables."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(import_module(package).__path__)))


def modules(package: str) -> list[str]:
    """Return the modules of a package of kinds, layouts or formats, which no import names."""
    return [f"{package}.{name}" for name in names(package)]


def sources() -> list[str]:
    """Return the files of all kinds and layouts, relative to the package ``cpt``."""
    return [f"{module.removeprefix('cpt.').replace('.', '/')}.py" for module in modules(FIGURES) + modules(LAYOUTS)]


def kind(name: str) -> type[Exhibit]:
    """Return the section of a kind of figures.

    Raises:
        CptError: its module does not define it.
    """
    found = _defined(f"{FIGURES}.{name}", Exhibit)
    tag = found.model_fields.get("kind") if found else None
    if found is None or tag is None or get_args(tag.annotation) != (name,):
        raise CptError(f"cpt/report/figures/{name}.py must define exactly one Exhibit, with kind: Literal[{name!r}]")
    return found


def layout(name: str) -> type[Layout]:
    """Return a layout of tables.

    Raises:
        CptError: its module does not define it.
    """
    found = _defined(f"{LAYOUTS}.{name}", Layout)
    if found is None:
        raise CptError(f"cpt/report/layouts/{name}.py must define exactly one Layout")
    return found


def table_suffixes() -> tuple[str, ...]:
    """Return the suffixes of a table's files; the first one has the record beside it."""
    return ("csv", *(name for name in names(FORMATS) if name != "csv"))


def table_format(suffix: str) -> Callable[[Any], str]:
    """Return what writes a table's file: from a ``cpt.report.shown.Table`` to its text.

    Raises:
        CptError: its module does not define it.
    """
    write = getattr(import_module(f"{FORMATS}.{suffix}"), "write", None)
    if not callable(write):
        raise CptError(f"cpt/report/formats/{suffix}.py must define write(table) -> str")
    return write


def _defined(module: str, base: type[T]) -> type[T] | None:
    """Return the only class of a module that derives from ``base``."""
    own = [thing for thing in vars(import_module(module)).values() if isinstance(thing, type)]
    found = [thing for thing in own if issubclass(thing, base) and thing.__module__ == module]
    return found[0] if len(found) == 1 else None
