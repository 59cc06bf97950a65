"""The numbers of all runs, and their statistics. The package can be called: ``cpt.results(folder)`` gives a table."""

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


class _Results(ModuleType):
    def __call__(self, folder: str | Path) -> "pd.DataFrame":
        """Return all metrics of an experiment (``cpt.results.frame.frame``)."""
        from cpt.results.frame import frame

        return frame(folder)


sys.modules[__name__].__class__ = _Results
