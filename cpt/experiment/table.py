"""Tables as an experiment sees them; the kinds of figures are modules of ``cpt.report.figures``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cpt.errors import nearest
from cpt.experiment.exhibits import LAYOUTS, Cell, Exhibit, Experiment, layout, names
from cpt.experiment.sections import Names, Task, Text, known_measures
from cpt.methods.base.families import FAMILIES
from cpt.metrics.reported import MEASURES
from cpt.validation import once

if TYPE_CHECKING:
    Layout = str
else:
    Layout = Literal[names(LAYOUTS)]
TITLES = {
    "base_to_new": ("Base-to-new generalization", "Harmonic mean of base and new accuracy."),
    "cross_dataset": (
        "Cross-dataset generalization", "Accuracy on every dataset after training on all classes of the source."
    ),
    "domain_generalization": (
        "Domain generalization", "Accuracy on the shifts of the source after training on all of its classes."
    ),
    "few_shot": ("Few-shot learning", "Accuracy on all classes, after training on all of them."),
}  # fmt: skip
"""Task -> title and caption of a table that has none of its own."""
OF_MEASURES = " or ".join(name for name in names(LAYOUTS) if layout(name).of_measures)


class Table(Exhibit):
    """Rows are variants."""

    kind: Literal["table"]
    title: Text = Field("", description="default: title and caption of the first task")
    layout: Layout = Field(description="what stands in rows and columns")
    tasks: Annotated[list[Task], Field(min_length=1), AfterValidator(once)] = Field(
        description="what is trained and tested"
    )
    variants: Names = Field(description="its rows, by name")
    measures: Annotated[list[str], AfterValidator(once), AfterValidator(known_measures(MEASURES))] = Field(
        [], description=f"columns of the layout {OF_MEASURES}: " + ", ".join(MEASURES)
    )
    reference: str | None = Field(
        None, description="row that averages over datasets are tested against; default: cpt, where it is one"
    )
    families: bool = Field(False, description="rows in groups by kind of method: prompts, adapters, probes and so on")
    decimals: int = Field(2, ge=0, le=4, description="digits after the point of percentages; other measures: one more")
    spread: bool = Field(True, description="show ± one sample standard deviation over seeds")

    @model_validator(mode="after")
    def _measures_fit(self) -> Self:
        if layout(self.layout).of_measures != bool(self.measures):
            raise ValueError(f"measures are for the layout {OF_MEASURES!r}, which needs them")
        of_all = bool(self.measures) and self.tasks == ["few_shot"]
        if layout(self.layout).of_base_to_new and self.tasks != ["base_to_new"] and not of_all:
            other = " or few_shot" if self.measures else ""
            raise ValueError(f"the layout {self.layout!r} is of the task base_to_new{other}; set tasks: [base_to_new]")
        halves = [name for name in self.measures if MEASURES[name].of("few_shot").subset != "all"]
        if of_all and halves:
            raise ValueError(f"measures: {halves[0]!r} is of new classes, which few_shot has not; delete it")
        if self.reference is not None and self.reference not in self.variants:
            raise ValueError(f"reference {self.reference!r} is no row; {nearest(self.reference, self.variants)}")
        return self

    def headed(self) -> tuple[str, str]:
        """Title and caption: its own, or those of its first task."""
        title, caption = TITLES[self.tasks[0]]
        return (self.title, self.caption) if self.title else (title, self.caption or caption)

    def named_variants(self) -> Mapping[str, Sequence[str]]:
        """Its rows."""
        return {"variants": self.variants}

    def ordered(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Its rows, by family if it shows them."""
        order = list(FAMILIES)
        return sorted(rows, key=lambda row: order.index(row["family"])) if self.families else rows

    def of_tasks(self) -> list[str]:
        """Its tasks."""
        return list(self.tasks)

    def cells(self, experiment: Experiment) -> Iterator[Cell]:
        """Every variant with every ratio everywhere."""
        return experiment.cells(self.tasks, self.variants)

    def further(self, experiment: Experiment) -> dict[str, Any]:
        """Layout, measures, the row that others are tested against, and how numbers are shown."""
        reference = self.reference or ("cpt" if "cpt" in self.variants else None)
        shown = {"decimals": self.decimals, "spread": self.spread, "families": self.families}
        return {"layout": self.layout, "measures": self.measures, "reference": reference, **shown}
