"""Options that several verbs share, and how verbs report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cpt import limits
from cpt.errors import CptError
from cpt.files.hashes import parse_json

Results = Annotated[Path, typer.Option(help="folder of the experiment", metavar="results/<experiment>")]
BackboneFile = Annotated[Path, typer.Option(help="backbone.json that `cpt backbone` wrote")]
ManifestFile = Annotated[Path, typer.Option(help="manifest.parquet of the dataset")]
Output = Annotated[Path, typer.Option(help="file to write")]
Dataset = Annotated[str, typer.Argument(help="entry of the catalog")]
Catalog = Annotated[Path, typer.Option(help="file of dataset entries")]
Sets = Annotated[str, typer.Option(help="further template sets as JSON: {name: [template, ...]}")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Precision = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")]
Seed = Annotated[int, typer.Option(help="the run's seed", min=0, max=limits.SEED)]
Threads = Annotated[int, typer.Option(help="CPU threads", min=1, max=limits.THREADS)]
ConfigFiles = Annotated[list[Path], typer.Argument(help="configuration files; later ones win", metavar="CONFIG...")]

CATALOG = Path("config/datasets.yaml")


def log(line: str) -> None:
    """Print a progress line at once, also into a log file."""
    print(line, flush=True)


def notice(line: str) -> None:
    """Print what is no mistake but may not be meant, beside the results."""
    print(f"cpt: notice: {line}", file=sys.stderr, flush=True)


def json_object(option: str, text: str) -> dict[str, Any]:
    """Read an option's JSON object.

    Raises:
        CptError: it is none.
    """
    try:
        value = parse_json(text)
    except ValueError as error:
        raise CptError(f"{option}: not JSON ({error}); write it like '{{\"epochs\": 5}}'") from None
    if not isinstance(value, dict):
        raise CptError(f"{option}: must be a JSON object like '{{\"epochs\": 5}}'")
    return value
