"""Commands that use a finished run: on images, in other programs, and to look at what it learned."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cpt import limits
from cpt.cli.options import Device, log, notice
from cpt.errors import CptError, nearest

if TYPE_CHECKING:
    import pandas as pd

Run = Annotated[Path, typer.Argument(help="folder of a finished run, `results/<experiment>/runs/…/s<seed>`")]
Experiment = Annotated[
    Path | None, typer.Option("--results", help="folder of the experiment, if the run does not lie in it")
]
Names = Annotated[Path | None, typer.Option(help="text file with one class name per line, instead of the trained ones")]
Cpus = Annotated[int | None, typer.Option(help="CPU threads; by default all cores", min=1, max=limits.THREADS)]


def runs(
    folder: Annotated[Path, typer.Argument(help="folder of the experiment", metavar="[results/<experiment>]")] = Path(
        "results/embedded"
    ),
    method: Annotated[str | None, typer.Option(help="only runs of this method")] = None,
    dataset: Annotated[str | None, typer.Option(help="only runs trained on this dataset")] = None,
    row: Annotated[str | None, typer.Option(help="only runs of this row of a table, by its label")] = None,
    format: Annotated[Literal["table", "csv", "jsonl"], typer.Option(help="of the output")] = "table",
) -> None:
    """List the finished runs of an experiment with their folders, which the commands below take.

    H (the harmonic mean) or accuracy is that on the dataset that a run is trained on.

    Example: `cpt runs --method cpt --dataset flowers`
    """
    from cpt.results.frame import finished_runs

    found = finished_runs(folder)
    for column, asked in (("method", method), ("dataset", dataset), ("rows", row)):
        names = [text.split("; ") for text in found[column]]
        if asked is not None:
            known = sorted({name for several in names for name in several})
            if asked not in known:
                raise CptError(f"{folder}: no finished run of {column.rstrip('s')} {asked!r}; {nearest(asked, known)}")
            found = found[[asked in several for several in names]]
    if format == "table":  # folders say the rest
        found = found[["folder", "rows", "metric", "value"]].assign(value=found["value"].map("{:.2f}".format))
    _write(found, format)


def classify(
    run: Run,
    images: Annotated[list[str], typer.Argument(help="image files and folders; - reads their names from stdin")],
    classes: Names = None,
    top: Annotated[int, typer.Option(help="likeliest classes per image", min=1)] = 5,
    format: Annotated[Literal["table", "csv", "jsonl"], typer.Option(help="of the output")] = "table",
    results: Experiment = None,
    device: Device = "auto",
    threads: Cpus = None,
) -> None:
    """Classify images with a finished run.

    Images that cannot be read are reported on stderr, the others are classified, and the exit code is 1.

    Example: `cpt classify results/embedded/runs/base_to_new/flowers/r1/cpt-*/s1 docs/report.png --top 3`
    (or photos and folders of your own)
    """
    from cpt.api.model import load

    model = load(run, results=results, device=device, threads=threads or _cores())
    given = [line for name in images for line in (sys.stdin.read().splitlines() if name == "-" else [name]) if line]
    if not given:
        raise CptError("-: stdin names no image; write a path per line, for example with find")
    table = model.predict(given, _names(classes), top=top, errors="skip")
    _write(table, format)
    for _, reason in table.attrs["errors"]:
        print(f"cpt: {reason}", file=sys.stderr)
    if table.attrs["errors"]:
        raise typer.Exit(1)


def export(
    run: Run,
    output: Annotated[Path, typer.Option(help="file to write; .npz, .safetensors or .onnx says the format")],
    classes: Names = None,
    results: Experiment = None,
) -> None:
    """Write the classifier of a finished run for other programs.

    `.npz` and `.safetensors` hold the text features of the classes, their names, the scale, and how images are
    normalized. `.onnx` holds the image tower too, and gives probabilities from pixels (docs/use.md).

    Example: `cpt export results/embedded/runs/base_to_new/flowers/r1/cpt-*/s1 --output flowers.onnx`
    """
    from cpt.api.export import require_suffix
    from cpt.api.model import load

    require_suffix(output)
    model = load(run, results=results, device="cpu", precision="float32", threads=_cores())
    model.export(output, _names(classes))
    if model.image_tower == "prompted" and output.suffix != ".onnx":
        notice(
            f"the method {model.record['method']} prompts or changes the image tower: features of the frozen CLIP do "
            "not fit these texts; "
            "take images through cpt.load(…).encode_images, or export to .onnx"
        )
    log(f"wrote {output}")


def words(
    run: Run,
    top: Annotated[int, typer.Option(help="words per vector", min=1)] = 3,
    results: Experiment = None,
) -> None:
    """List the vocabulary's words nearest to each learned context vector.

    Example: `cpt words results/embedded/runs/base_to_new/flowers/r1/coop-*/s1`
    """
    from cpt.api.model import load

    _show(load(run, results=results, device="cpu", precision="float32").words(top).drop(columns="rank"))


def push(
    run: Run,
    repo: Annotated[str, typer.Option(help="repository on the hub; it is made if there is none", metavar="OWNER/NAME")],
    public: Annotated[bool, typer.Option("--public", help="let everyone read it; otherwise it is private")] = False,
    license: Annotated[
        str, typer.Option(help="of the learned prompts, as the hub calls it: mit, cc-by-4.0")
    ] = "unknown",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show the model card and the files")] = False,
    results: Experiment = None,
) -> None:
    """Send a finished run to a hub, with a model card.

    Private unless you say `--public`. Sent are the learned prompts, the names and text features of the classes, and
    the metrics: no images, no predictions, no weights of CLIP. Needs a token: `hf auth login`, or HF_TOKEN.

    Example: `cpt push results/embedded/runs/base_to_new/flowers/r1/cpt-*/s1 --repo me/flowers --dry-run`
    """
    from cpt.api import hub

    made = hub.contents(run, repo, results=results, license=license)
    if dry_run:
        sizes = {name: facts["bytes"] for name, facts in made.described["files"].items()}
        log(f"{made.card}\n{repo} ({'public' if public else 'private'}) would get {hub.CARD}, {hub.LIST} and")
        log("\n".join(f"{size:>12,} bytes  {name}" for name, size in sizes.items()))
    else:
        log(f"wrote {hub.push(made, repo, public=public)}")


def pull(
    repo: Annotated[
        str, typer.Argument(help="repository on the hub; @revision after it fetches an older one", metavar="OWNER/NAME")
    ],
    output: Annotated[Path | None, typer.Option(help="folder to make; default: NAME")] = None,
    backbone: Annotated[
        Path | None, typer.Option(help="backbone.json of the run, where it cannot be made from a public source")
    ] = None,
) -> None:
    """Fetch a run from a hub into a folder that `cpt classify`, `cpt export` and `cpt.load` take.

    Every file is compared with its hash, and none can hold code. The backbone is made from its own source, which may
    be a download.

    Example, with an internet connection: `cpt pull me/flowers --output flowers`
    """
    from cpt.api import hub

    folder = output or Path(repo.partition("@")[0].rpartition("/")[2])
    commit = hub.pull(repo.removeprefix(hub.PREFIX), folder, backbone=backbone, log=log)
    log(f"wrote {folder} (commit {commit[:12]}); next: cpt classify {folder} photo.jpg")


def _names(path: Path | None) -> list[str] | None:
    """Class names of a text file."""
    if path is None:
        return None
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CptError(f"--classes {path}: cannot be read ({error}); give a text file with a name per line") from None
    if not names:
        raise CptError(f"--classes {path}: holds no name; write one per line")
    return names


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write(table: pd.DataFrame, format: str) -> None:
    """Print a table in the format that is asked for."""
    if format == "csv":
        print(table.to_csv(index=False), end="")
    elif format == "jsonl":
        for row in table.astype(object).where(table.notna(), None).to_dict("records"):
            print(json.dumps(row, ensure_ascii=False))
    else:
        _show(table)


def _show(table: pd.DataFrame) -> None:
    """Print a table in aligned columns, unless it has no rows; paths are not cut."""
    if table.empty:
        return
    empty = [name for name in table.columns if (table[name] == "").all()]
    print(table.drop(columns=empty).to_string(index=False, float_format=lambda value: f"{value:.4f}"))
