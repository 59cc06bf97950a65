"""Options and output that commands share."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
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
Dataset = Annotated[str, typer.Argument(help="dataset: a name in the catalog")]
Catalog = Annotated[Path, typer.Option(help="catalog file with the dataset entries")]
Sets = Annotated[str, typer.Option(help="additional template sets as JSON: {name: [template, ...]}")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps")]
Precision = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16 or float16_scaled")]
Seed = Annotated[int, typer.Option(help="the run's seed", min=0, max=limits.SEED)]
Workers = Annotated[
    int | None,
    typer.Option(
        help="threads that decode and augment images, which changes no result; as many as --threads if not given",
        min=1,
        max=limits.THREADS,
    ),
]
Threads = Annotated[int, typer.Option(help="CPU threads", min=1, max=limits.THREADS)]
ConfigFiles = Annotated[
    list[Path], typer.Argument(help="configuration files; later ones override earlier ones", metavar="CONFIG...")
]

CATALOG = Path("config/datasets.yaml")
SLOW = 2.0
"""Seconds after which a command says what it is doing."""


def log(line: str) -> None:
    """Print a progress line and flush it, so that log files are current."""
    print(line, flush=True)


def notice(line: str) -> None:
    """Print a notice to stderr: not an error, but possibly not intended."""
    print(f"cpt: notice: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def slow(after: float = SLOW) -> Iterator[Callable[[str], None]]:
    """Yield a function that is told what a command does; what lasts is printed to stderr.

    Args:
        after: seconds in which nothing is printed.
    """
    doing, late = [""], threading.Event()

    def say(line: str) -> None:
        doing[0] = line
        if late.is_set():
            print(f"cpt: {line} ...", file=sys.stderr, flush=True)

    def begin() -> None:
        late.set()
        say(doing[0])

    timer = threading.Timer(after, begin)
    timer.daemon = True
    timer.start()
    try:
        yield say
    finally:
        timer.cancel()


def json_object(option: str, text: str, example: str) -> dict[str, Any]:
    """Parse the JSON object given to an option, of which ``example`` is one.

    Raises:
        CptError: the text is not a JSON object.
    """
    try:
        value = parse_json(text)
    except ValueError as error:
        raise CptError(f"{option}: not JSON ({error}); write it like '{example}'") from None
    if not isinstance(value, dict):
        raise CptError(f"{option}: must be a JSON object like '{example}'")
    return value
