"""Table 2b: base, new and H of every dataset, the ratios side by side, as papers on base-to-new print them."""

from __future__ import annotations

from collections.abc import Collection

from cpt.report.layout import Layout, LongForm
from cpt.report.shown import Block, Column
from cpt.report.words import AVERAGE, ratio_title
from cpt.results.cells import averaged_datasets, datasets_of

METRICS = ("base", "new", "H")


class BaseNew(Layout):
    """Methods by base, new and H, a block per dataset, on base-to-new."""

    of_base_to_new = True
    ranked_in = "the column and dataset"

    def columns(self) -> list[Column]:
        """Return three per ratio."""
        return [Column(metric, ratio_title(ratio)) for ratio in self.exhibit["ratios"] for metric in METRICS]

    def blocks(self, numbers: LongForm, differs: Collection[tuple[float, str]]) -> list[Block]:
        """Return one for the average and one per dataset."""
        task = self.exhibit["tasks"][0]
        datasets = datasets_of(self.exhibit, task)
        titles = {AVERAGE: f"Average over {len(datasets)} datasets"} if len(datasets) > 1 else {}
        titles |= {dataset: self.results.dataset_title(dataset) for dataset in datasets}
        places = [(ratio, metric) for ratio in self.exhibit["ratios"] for metric in METRICS]
        return [
            Block(title, self.lines([self.column(numbers, ratio, dataset, metric) for ratio, metric in places]))
            for dataset, title in titles.items()
        ]

    def average_note(self, task: str) -> str:
        """Return what an average is over."""
        count = len(averaged_datasets(self.exhibit, task))
        return f"Average: mean over {count} datasets; that of H is the mean of their H." if count > 1 else ""
