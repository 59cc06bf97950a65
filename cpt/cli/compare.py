"""The commands ``cpt compare`` and ``cpt across``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cpt.cli.options import log
from cpt.errors import CptError

if TYPE_CHECKING:
    from cpt.results.comparison import Side


def compare(
    first: Annotated[str, typer.Argument(help="row of a table (cpt, ivlp, ...), or folder of results")],
    second: Annotated[str, typer.Argument(help="second row or folder")],
    results: Annotated[
        Path | None, typer.Option(help="folder of results with both rows; default: results/embedded")
    ] = None,
    row: Annotated[str, typer.Option(help="row to compare between two folders")] = "cpt",
    dataset: Annotated[
        list[str] | None, typer.Option(help="dataset that counts, several times for several; default: all")
    ] = None,
    images: Annotated[bool, typer.Option("--images", help="also compare image by image on every dataset")] = False,
    format: Annotated[
        Literal["table", "md", "csv", "json"], typer.Option(help="of the output; csv and json are unrounded")
    ] = "table",
) -> None:
    """Compare two methods of an experiment, or one method in two experiments, paired by dataset and seed.

    Differences are the second (B) minus the first (A) in percentage points, over the seeds that both have on all
    datasets. Intervals are over datasets. p is from flipping the signs of the datasets' differences, corrected over all
    rows by Holm's method. Below are, over all runs, interquartile means (of the middle half of the runs) and the
    probability that a run of B beats a run of A on a dataset, with bootstrap intervals over seeds. Two rows of one
    method are told apart by the hyperparameters in which they differ.

    Example: `cpt compare ivlp cpt --format md`

    Example, with an experiment `mine` of your own: `cpt compare results/embedded results/mine --row cpt`
    """
    from cpt.report.terminal import comparison as texts
    from cpt.results import comparison

    found = comparison.compare_sides(*_sides(first, second, results, row), images=images, datasets=dataset or ())
    _tell(texts, found, format)


def across(
    results: Annotated[list[Path], typer.Argument(help="folders of results, one per backbone")],
    reference: Annotated[str, typer.Option(help="row that is subtracted from every other")] = "cpt",
    format: Annotated[
        Literal["table", "md", "csv", "json"], typer.Option(help="of the output; csv and json are unrounded")
    ] = "table",
) -> None:
    """Compare all rows with one of them over several backbones: finished experiments that have the same rows.

    Experiments on the same datasets are the models of one world. Each model on each dataset counts by its mean over
    seeds, and these are averaged over the models of a world first. Intervals and p (flipping the signs of the datasets'
    differences, Holm's correction over the rows) are over the datasets of all worlds: they tell of the choice of
    datasets, not of models and worlds. Beside them stand the smallest and the largest difference of a model.

    Example, with the experiments of `make worlds`: `cpt across results/worlds_* --reference cpt --format md`
    """
    from cpt.report.terminal import across as texts
    from cpt.results.cells import read_results
    from cpt.results.over_models import across as compared

    for folder in results:
        _require_results(folder)
    found = compared([read_results(folder / "grid.json", folder / "runs.parquet") for folder in results], reference)
    _tell(texts, found, format)


def _tell(texts: Any, found: Any, format: str) -> None:
    """Print a comparison in the format that is asked for; ``texts`` is the module that writes such ones."""
    from cpt.report.terminal.console import console

    if format != "table":
        log(texts.FORMATS[format](found))
        return
    printer = console(texts.WIDTH)
    printer.print(*texts.legend(found), sep="\n", soft_wrap=True)
    for table in texts.terminal(found):
        printer.print(table)
    printer.print("", *texts.notes(found), sep="\n")


def _sides(first: str, second: str, results: Path | None, row: str) -> tuple[Side, Side]:
    """The results and the row of both sides.

    Raises:
        CptError: a folder has no results, or one is a folder and the other a row.
    """
    from cpt.results.cells import read_results

    folders = [word for word in (first, second) if _is_folder(word)] if results is None else []
    for folder in folders:
        _require_results(Path(folder))
    if len(folders) == 1:
        raise CptError(f"{folders[0]}: a folder; give two folders (and --row), or two rows (and --results)")
    of_rows = results or Path("results/embedded")
    places = [(Path(folder), row) for folder in folders] or [(of_rows, first), (of_rows, second)]
    one, other = ((read_results(place / "grid.json", place / "runs.parquet"), name) for place, name in places)
    return one, other


def _require_results(folder: Path) -> None:
    """Refuse a folder without results."""
    if not (folder / "runs.parquet").is_file():
        raise CptError(f"{folder}: no results (runs.parquet) there; give results/<experiment> of a finished one")


def _is_folder(word: str) -> bool:
    """Whether a word is meant as a folder; a row can be called like one: the package's own folder is `cpt`."""
    return Path(word, "runs.parquet").is_file() or ("/" in word and Path(word).parent.is_dir())
