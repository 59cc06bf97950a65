"""Figures of the default experiment, drawn from its kept numbers when the site is built."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cpt.files.stage_files import write_json
from cpt.report.drawing.make import make_figure
from docs.kept import KEPT, kept

EXPERIMENT = "embedded"
KINDS = ("sweep", "violin")
"""Kinds of figures that need nothing but runs.parquet; the other files are not kept."""
HEAD = """# Figures

Figures of the default experiment that need accuracies only, drawn from its stored numbers
([embedded.md](embedded.md#the-default-experiment)) when this site was built. `make run` makes them all, each as SVG,
PDF, PNG and CSV with its caption; [files.md](files.md#figures) says what they hold. The page of an experiment has them
in one file with its tables:

![The page of the default experiment](report.png)

"""


def pages() -> dict[str, str | bytes]:
    """Return path below docs/ -> content: the figures, and the page that shows them."""
    results, found, text = kept(EXPERIMENT), {}, HEAD
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_json(folder / "grid.json", results.grid)
        for figure, exhibit in results.grid["exhibits"].items():
            if exhibit["kind"] in KINDS:
                make_figure(folder / "grid.json", KEPT / f"{EXPERIMENT}.parquet", figure, folder)
                found[f"figures/{figure}.svg"] = (folder / f"{figure}.svg").read_bytes()
                caption = (folder / f"{figure}.txt").read_text(encoding="utf-8").strip()
                text += f"## {exhibit['title']}\n\n![{exhibit['title']}](figures/{figure}.svg)\n\n{caption}\n\n"
    return {"figures.md": text, **found}
