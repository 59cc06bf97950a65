"""The commands of `cpt data`, which download, check and prepare datasets, and `cpt split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpt import limits
from cpt.cli.options import CATALOG, Catalog, Dataset, ManifestFile, Output, Seed, log
from cpt.errors import CptError
from cpt.files.provenance import recorded

data = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Download and check datasets; make their manifests and image caches. See docs/datasets.md.",
)


@data.command()
def fetch(
    dataset: Dataset,
    catalog: Catalog = CATALOG,
    output: Annotated[Path | None, typer.Option(help="write the origin of the files here (JSON)")] = None,
) -> None:
    """Download and unpack missing files of a dataset. Existing files stay; an interrupted download resumes.

    Example, with an internet connection: `cpt data fetch dtd`
    """
    from cpt.data.catalog import find, load_catalog
    from cpt.data.download.prepare import prepare
    from cpt.files.stage_files import write_json

    entry = find(load_catalog(catalog), dataset)
    if entry.layout == "embedded":
        raise CptError(f"{dataset}: is drawn by cpt itself, there is nothing to fetch")
    record = prepare(entry, log)
    if output is not None:
        write_json(output, record)
    if not entry.files:
        log(f"{dataset}: there is nothing to fetch; {record['root']} is there, `cpt data check {dataset}` looks at it")
        return
    log(f"{dataset}: {len(record['files'])} of {len(record['files'])} files and folders are in {record['root']}")


@data.command()
def check(
    datasets: Annotated[list[str] | None, typer.Argument(help="datasets: names in the catalog; default: all")] = None,
    catalog: Catalog = CATALOG,
    decode: Annotated[bool, typer.Option("--decode", help="also decode and compare every image (minutes)")] = False,
    threads: Annotated[int, typer.Option(help="decoding threads", min=1, max=limits.THREADS)] = 8,
) -> None:
    """Show which datasets are complete, missing or damaged. The exit code is 1 if any of them is missing or damaged.

    Example: `cpt data check`
    """
    from rich.table import Table

    from cpt.data.catalog import find, load_catalog
    from cpt.data.check import check_dataset
    from cpt.report.terminal.console import console

    entries = load_catalog(catalog)
    chosen = [find(entries, name) for name in datasets] if datasets else list(entries.values())
    listing = Table("dataset", "state", "train", "val", "test", box=None, pad_edge=False)
    listing.add_column("folder", overflow="fold")
    states, advice = [], []
    drawn = [entry.name for entry in chosen if not entry.has_files]
    for entry in chosen:
        if not entry.has_files:
            continue
        state = check_dataset(entry, decode=decode, workers=threads)
        states.append(state.state)
        counts = [f"{state.found[part]:,}" if part in state.found else "–" for part in ("train", "val", "test")]
        listing.add_row(entry.name, state.state, *counts, entry.root)
        if state.advice:
            advice.append(f"{entry.name}: {state.advice}")
        advice += [f"{entry.name}: {line}" for line in state.notices]
    printer = console()
    if states:
        printer.print(listing)
    if advice:
        printer.print("", *advice, sep="\n", soft_wrap=True)  # no line breaks, so that lines can be copied
    if drawn:
        which = ", ".join(drawn) if datasets else f"{len(drawn)} more"
        log(f"{which}: embedded, drawn by cpt itself; there are no files to check")
    if any(state in ("missing", "damaged") for state in states):
        raise typer.Exit(1)


@data.command()
def manifest(
    dataset: Dataset,
    output: Annotated[Path, typer.Option(help="folder to write manifest.parquet into")],
    catalog: Catalog = CATALOG,
) -> None:
    """Make the manifest of a dataset, one row per image, and check it against the catalog.

    Example: `cpt data manifest flowers --output results/embedded/data/flowers`
    """
    from cpt.data.catalog import find, load_catalog
    from cpt.data.make_manifest import make_manifest
    from cpt.data.manifest import read_manifest

    with recorded(output / "manifest.parquet"):
        entry = find(load_catalog(catalog), dataset)
        made = read_manifest(make_manifest(entry, output, lambda line: log(f"{dataset}: {line}")))
    parts = {part: len(made.rows(part)) for part in ("train", "val", "test")}
    counts = ", ".join(f"{count} {part}" for part, count in parts.items() if count)
    derived = " (derived split, not comparable)" if made.metadata["derived"] else ""
    log(f"{dataset}: {len(made.class_names)} classes, {counts} images{derived}")


@data.command()
def pixels(
    manifest: Annotated[Path, typer.Option(help="manifest.parquet of a dataset whose images are files")],
    part: Annotated[str, typer.Option(help="test or val")],
    backbone: Annotated[Path, typer.Option(help="backbone.json; gives the image size")],
    output: Annotated[Path, typer.Option(help=".npy file to write")],
    threads: Annotated[
        int, typer.Option(help="decoding threads; they do not affect the pixels", min=1, max=limits.THREADS)
    ] = 1,
) -> None:
    """Make an image cache: decode, resize and crop the images of a part once, for all evaluations.

    Example, of a run of `config/paper.yaml`: `cpt data pixels --manifest results/paper/data/dtd/manifest.parquet
    --part test --backbone results/paper/backbone.json --output results/paper/data/dtd/pixels-test.npy --threads 8`
    """
    from cpt.data.images import Resizing
    from cpt.data.make_image_cache import make_pixels
    from cpt.files.stage_files import read_json

    with recorded(output):
        described = read_json(backbone, "cpt.backbone/1")
        size, resizing = described["spec"]["vision"]["image_size"][0], Resizing.of(described)
        count = make_pixels(manifest, part, size, output, threads, log, resizing)
    log(f"{count} images, {output.stat().st_size / 1e6:,.0f} MB")


def split(
    manifest: ManifestFile,
    protocol: Annotated[str, typer.Option(help="base_to_new, all_classes or few_shot")],
    ratio: Annotated[str, typer.Option(help="imbalance ratio τ in (0, 1], or natural: all training images")],
    seed: Seed,
    output: Output,
    n_max: Annotated[int, typer.Option(help="training images of the head class")] = 16,
    class_order: Annotated[str, typer.Option(help="ranking of the classes: label, random or appearance")] = "label",
) -> None:
    """Choose the long-tailed training images for all runs with this protocol, dataset, τ and seed.

    Example: `cpt split --manifest results/embedded/data/flowers/manifest.parquet --protocol base_to_new --ratio 0.06
    --seed 1 --output split.parquet`
    """
    from cpt.data.longtail import parse_ratio
    from cpt.data.manifest import read_manifest
    from cpt.data.split import make_split, write_split

    with recorded(output):
        table, metadata = make_split(
            read_manifest(manifest),
            protocol=protocol,
            imbalance_ratio=parse_ratio(ratio),
            n_max=n_max,
            seed=seed,
            class_order=class_order,
        )
        write_split(output, table, metadata)
    counts = sorted(table["count"].unique().to_pylist(), reverse=True)
    log(f"{len(table)} images of {len(metadata['classes'])} classes, {counts[0]} to {counts[-1]} per class")
