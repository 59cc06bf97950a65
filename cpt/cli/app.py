"""The command line: one verb per stage. Heavy libraries are imported inside the verbs that need them."""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cpt import __version__, limits
from cpt.cli.audit import audit, ledger
from cpt.cli.compare import compare, status
from cpt.cli.data import data, notice, say
from cpt.cli.many import add_many
from cpt.cli.plan import plan
from cpt.cli.verify import verify
from cpt.errors import CptError
from cpt.files.hashes import parse_json
from cpt.files.provenance import recorded, require_code
from cpt.training import interruption

app = typer.Typer(
    name="cpt",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Long-tailed prompt tuning of CLIP, stage by stage. Each verb reads and writes the files of docs/files.md; "
    "`snakemake --cores 1 --resources gpu=1` calls them in order. Every verb's --help shows an example on the files "
    "that the default run writes.",
)  # fmt: skip

app.add_typer(data, name="data")
app.command()(plan)
app.command()(verify)
app.command()(status)
app.command()(compare)
app.command()(audit)
app.command()(ledger)
add_many(app)

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

Results = Annotated[Path, typer.Option(help="folder of the experiment", metavar="results/<experiment>")]
BackboneFile = Annotated[Path, typer.Option(help="backbone.json that `cpt backbone` wrote")]
Output = Annotated[Path, typer.Option(help="file to write")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Precision = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")]
Threads = Annotated[int, typer.Option(help="CPU threads", min=1, max=limits.THREADS)]
ConfigFiles = Annotated[list[Path], typer.Argument(help="configuration files; later ones win", metavar="CONFIG...")]


@functools.cache
def command() -> Callable[..., Any]:
    """The command line, built once: typer takes as long for it as a small job computes."""
    return typer.main.get_command(app)


def run() -> int:
    """Run the command line on sys.argv; return the exit code. Problems that users can mend are one line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # what a terminal or a log cannot show is no reason to fail
    try:
        code = command()(prog_name="cpt", standalone_mode=False)
    except CptError as error:
        print(f"cpt: error: {error}", file=sys.stderr)
        return 1
    except interruption.StoppedError as stopped:
        print(f"cpt: {stopped}", file=sys.stderr)
        return interruption.EXIT_CODE
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of the command line itself
            if message := error.format_message():  # none where the help itself was printed
                print(f"cpt: error: {message}; see `cpt --help`", file=sys.stderr)
            return 2
        raise
    return code if isinstance(code, int) else 0


@app.callback(invoke_without_command=True)
def _before_every_verb(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
    code: Annotated[str | None, typer.Option(hidden=True, help="refuse to work with code of another stamp")] = None,
) -> None:
    _one_thread()
    if version:
        print(__version__)
        raise typer.Exit
    if code is not None:
        require_code(code)


def _one_thread() -> None:
    """Let every library compute with one thread, so that bits depend on neither the machine nor who starts the verb.

    ``--threads`` gives torch more. Libraries read their variables when they are loaded, later than this or in a fork
    server, which comes by here too.
    """
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@app.command()
def grid(configs: ConfigFiles, output: Output) -> None:
    """Resolve a configuration into runs, tables and figures.

    Example: `cpt grid config/config.yaml --output results/embedded/grid.json`
    """
    from cpt.experiment import config
    from cpt.experiment import grid as grids
    from cpt.files.stage_files import write_json

    source = " + ".join(str(path) for path in configs)
    resolved = grids.build(config.load(configs, notice), source)
    with recorded(output) as record:
        write_json(output, resolved.as_json())
        record["configuration"] = [str(path) for path in configs]
    say(f"{len(resolved.runs)} runs for {', '.join(resolved.exhibits)}")


@app.command()
def backbone(
    output: Output,
    name: Annotated[str, typer.Option(help="what tables call it")] = "tiny-clip",
    architecture: Annotated[
        str, typer.Option(help="'embedded', a model name of open_clip, or a .json of one's own")
    ] = "embedded",
    pretrained: Annotated[str, typer.Option(help="tag of open_clip, a checkpoint file, or 'random'")] = "shipped",
    sha256: Annotated[str | None, typer.Option(help="checksum that the file of the weights must have")] = None,
) -> None:
    """Export the towers of an unmodified open_clip model and prove that they compute the same.

    Example: `cpt backbone --architecture ViT-B-16-quickgelu --pretrained openai --name vit-b-16 --output backbone.json`
    """
    from cpt.clip.make_backbone import make_backbone

    with recorded(output) as record:
        parameters, difference = make_backbone(name, architecture, pretrained, output, sha256)
        record["largest_difference_to_open_clip"] = difference
    say(f"{name}: {parameters:,} parameters, largest difference to open_clip {difference:.1e}")


@app.command()
def split(
    manifest: Annotated[Path, typer.Option(help="manifest.parquet of the dataset")],
    protocol: Annotated[str, typer.Option(help="base_to_new, all_classes or few_shot")],
    ratio: Annotated[float, typer.Option(help="imbalance ratio τ in (0, 1]")],
    seed: Annotated[int, typer.Option(help="the run's seed", min=0, max=limits.SEED)],
    output: Output,
    n_max: Annotated[int, typer.Option(help="images of the head class")] = 16,
    class_order: Annotated[str, typer.Option(help="label, random or appearance: which class is the head")] = "label",
) -> None:
    """Choose the long-tailed training images of the runs that share protocol, dataset, τ and seed.

    Example: `cpt split --manifest results/embedded/data/flowers/manifest.parquet --protocol base_to_new --ratio 0.06
    --seed 1 --output split.parquet`
    """
    from cpt.data.manifest import read_manifest
    from cpt.data.split import make_split, write_split

    with recorded(output):
        table, metadata = make_split(
            read_manifest(manifest),
            protocol=protocol,
            imbalance_ratio=ratio,
            n_max=n_max,
            seed=seed,
            class_order=class_order,
        )
        write_split(output, table, metadata)
    counts = sorted(table["count"].unique().to_pylist(), reverse=True)
    say(f"{len(table)} images of {len(metadata['classes'])} classes, {counts[0]} to {counts[-1]} per class")


@app.command("text-features")
def text_features(
    dataset: Annotated[str, typer.Argument(help="entry of the catalog")],
    manifest: Annotated[Path, typer.Option(help="manifest.parquet of the dataset: its class names")],
    backbone: BackboneFile,
    output: Output,
    templates: Annotated[str, typer.Option(help="single, dataset, ensemble, or a set of --sets")] = "single",
    sets: Annotated[str, typer.Option(help="further template sets as JSON: {name: [template, ...]}")] = "{}",
    catalog: Annotated[Path, typer.Option(help="file of dataset entries")] = Path("config/datasets.yaml"),
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Compute the frozen text features of a dataset's classes, and their prompt tokens.

    Example: `cpt text-features flowers --manifest results/embedded/data/flowers/manifest.parquet --backbone
    results/embedded/backbone.json --output text.safetensors`
    """
    from cpt.clip import device as machine
    from cpt.clip.backbone import load_backbone
    from cpt.clip.make_backbone import load_tokenizer
    from cpt.data.catalog import find, load_catalog
    from cpt.data.manifest import read_manifest
    from cpt.features.templates import template_set
    from cpt.features.text import make_text_features

    entry = find(load_catalog(catalog), dataset)
    own = entry.template
    chosen = template_set(templates, entry.template_for(templates), _json_object("--sets", sets))
    with recorded(output):
        names = read_manifest(manifest).class_names
        place, _ = machine.prepare(device, "float32", threads)
        make_text_features(load_backbone(backbone, place), load_tokenizer(backbone), names, chosen, own, output)
    say(f"{dataset}: {len(names)} classes under {len(chosen)} template(s)")


@app.command()
def descriptions(
    dataset: Annotated[str, typer.Argument(help="entry of the catalog; its file of descriptions, if it names one")],
    manifest: Annotated[Path, typer.Option(help="manifest.parquet of the dataset: its class names")],
    backbone: BackboneFile,
    output: Output,
    templates: Annotated[str, typer.Option(help="template set that stands in where there is no file")] = "imagenet",
    sets: Annotated[str, typer.Option(help="further template sets as JSON: {name: [template, ...]}")] = "{}",
    catalog: Annotated[Path, typer.Option(help="file of dataset entries")] = Path("config/datasets.yaml"),
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Compute the frozen features of class descriptions, for methods that use text knowledge (CoPrompt).

    Example: `cpt descriptions flowers --manifest results/embedded/data/flowers/manifest.parquet --backbone
    results/embedded/backbone.json --templates single --output descriptions.safetensors`
    """
    from cpt.clip import device as machine
    from cpt.clip.backbone import load_backbone
    from cpt.clip.make_backbone import load_tokenizer
    from cpt.data.catalog import find, load_catalog
    from cpt.data.manifest import read_manifest
    from cpt.features.descriptions import make_descriptions
    from cpt.features.templates import template_set

    entry = find(load_catalog(catalog), dataset)
    with recorded(output):
        place, _ = machine.prepare(device, "float32", threads)
        count = make_descriptions(
            load_backbone(backbone, place),
            load_tokenizer(backbone),
            read_manifest(manifest).class_names,
            output,
            file=Path(entry.descriptions) if entry.descriptions else None,
            templates=template_set(templates, entry.template_for(templates), _json_object("--sets", sets)),
            templates_name=templates,
        )
    say(f"{dataset}: {count} descriptions per class from {entry.descriptions or f'the templates {templates!r}'}")


@app.command("image-features")
def image_features(
    manifest: Annotated[Path, typer.Option(help="manifest.parquet of the dataset")],
    part: Annotated[str, typer.Option(help="train or test")],
    backbone: BackboneFile,
    output: Output,
    pixels: Annotated[Path | None, typer.Option(help="image cache of the part, if there is one")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 1,
) -> None:
    """Compute frozen image features once, for methods that leave the vision tower as it is.

    Example: `cpt image-features --manifest results/embedded/data/flowers/manifest.parquet --part test --backbone
    results/embedded/backbone.json --output images.safetensors`
    """
    from cpt.clip import device as machine
    from cpt.clip.backbone import load_backbone
    from cpt.features.images import make_image_features

    with recorded(output):
        place, resolved = machine.prepare(device, precision, threads)
        count = make_image_features(load_backbone(backbone, place, resolved), manifest, part, output, pixels)
    say(f"{count} images")


@app.command()
def clusters(
    text_features: Annotated[Path, typer.Option(help="frozen text features of the dataset")],
    protocol: Annotated[str, typer.Option(help="base_to_new clusters the base half, the others all classes")],
    seed: Annotated[int, typer.Option(help="seed of the clustering", min=0, max=limits.SEED)],
    output: Output,
    algorithm: Annotated[str, typer.Option(help="spherical, euclidean, spectral or kmedoids")] = "spherical",
    classes_per_cluster: Annotated[int, typer.Option(help="M = max(1, round(K / this))")] = 16,
    number: Annotated[int | None, typer.Option(help="a fixed number of clusters M instead")] = None,
) -> None:
    """Cluster the trained classes by their frozen text features.

    Example: `cpt clusters --text-features results/embedded/features/flowers/text-single.safetensors
    --protocol base_to_new --seed 1 --classes-per-cluster 4 --output clusters.parquet`
    """
    from cpt.features.mining import make_clusters

    with recorded(output):
        found = make_clusters(text_features, protocol, algorithm, seed, output, per=classes_per_cluster, fixed=number)
    quality = "undefined" if found.silhouette is None else f"{found.silhouette:.3f}"
    say(f"{len(found.labels)} classes in {len(found.centroids)} clusters, cosine silhouette {quality}")


@app.command()
def train(
    method: Annotated[str, typer.Option(help="module of cpt/methods; see `cpt methods`")],
    seed: Annotated[int, typer.Option(help="the run's seed", min=0, max=limits.SEED)],
    backbone: BackboneFile,
    manifest: Annotated[Path, typer.Option(help="manifest.parquet of the dataset")],
    split: Annotated[Path, typer.Option(help="split of the run")],
    text_features: Annotated[Path, typer.Option(help="frozen text features of the dataset")],
    output: Annotated[Path, typer.Option(help="folder for prompts.safetensors, history.parquet and run.json")],
    hyperparameters: Annotated[str, typer.Option(help="JSON; what is absent takes the method's default")] = "{}",
    clusters: Annotated[Path | None, typer.Option(help="clusters, for methods that need them")] = None,
    image_features: Annotated[Path | None, typer.Option(help="frozen features of the training images")] = None,
    descriptions: Annotated[Path | None, typer.Option(help="features of class descriptions, if needed")] = None,
    start: Annotated[Path | None, typer.Option(help="folder of the finished run to start from, if needed")] = None,
    augmentation: Annotated[str, typer.Option(help="none or rrc_flip")] = "rrc_flip",
    checkpoint: Annotated[Path | None, typer.Option(help="file for the checkpoint of an unfinished training")] = None,
    checkpoint_interval: Annotated[float, typer.Option(help="seconds between checkpoints")] = 60.0,
    code: Annotated[str | None, typer.Option(help="refuse to train with code of another version than this")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 1,
) -> None:
    """Train one run: dataset × τ × method × seed. An interrupted run resumes from --checkpoint.

    SIGTERM and SIGUSR1 save the checkpoint after the current step and end with exit code 75: the same command resumes.

    Example: `cpt train --method coop --seed 1 --backbone results/embedded/backbone.json
    --manifest results/embedded/data/flowers/manifest.parquet
    --split results/embedded/splits/base_to_new/flowers/r1/s1.parquet
    --text-features results/embedded/features/flowers/text-single.safetensors
    --hyperparameters '{"epochs": 5}' --augmentation none --output my-run`
    """
    interruption.watch()  # before the imports, which take seconds
    from cpt.training.train import TrainInputs
    from cpt.training.train import train as run_training

    inputs = TrainInputs(
        method=method,
        hyperparameters=_json_object("--hyperparameters", hyperparameters),
        seed=seed,
        backbone=backbone,
        manifest=manifest,
        split=split,
        text_features=text_features,
        clusters=clusters,
        image_features=image_features,
        descriptions=descriptions,
        start=start,
        augmentation=augmentation,
        device=device,
        precision=precision,
        threads=threads,
        checkpoint=checkpoint,
        checkpoint_interval=checkpoint_interval,
        code=code,
    )
    with recorded(output / "run.json"):
        run_training(inputs, output, say)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="folder of a finished run")],
    results: Results,
    target: Annotated[list[str], typer.Option(help="dataset/subset with subset base, new or all; repeatable")],
    part: Annotated[str, typer.Option(help="test or val")] = "test",
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Classify the test images of the targets with a finished run.

    Example: `cpt predict my-run --results results/embedded --target flowers/base --target flowers/new`
    """
    from cpt.evaluation.predict import predict as run_prediction

    pairs = []
    for item in target:
        dataset, slash, subset = item.partition("/")
        if not slash:
            raise CptError(f"--target {item}: write dataset/subset, for example flowers/base")
        pairs.append((dataset, subset))
    with recorded(run / "predictions.parquet"):
        run_prediction(run, results, pairs, part=part, device=device, threads=threads, progress=say)


@app.command()
def score(
    run: Annotated[Path, typer.Argument(help="folder with run.json and predictions.parquet")],
    split: Annotated[Path, typer.Option(help="split of the run: its class ranking")],
    clusters: Annotated[
        Path | None, typer.Option(help="clusters of the trained classes; without, nothing within clusters is measured")
    ] = None,
    class_groups: Annotated[
        str, typer.Option(help="sizes of the head, the middle and the tail of the ranking, relative to each other")
    ] = "1:1:1",
) -> None:
    """Turn predictions into metrics. No model is needed.

    Example: `cpt score my-run --split results/embedded/splits/base_to_new/flowers/r1/s1.parquet`
    """
    from cpt.data.classes import parse_groups
    from cpt.evaluation.score import score as run_scoring

    groups = parse_groups(class_groups)
    with recorded(run / "metrics.parquet"):
        run_scoring(run, split, clusters, groups)


@app.command()
def aggregate(grid: Annotated[Path, typer.Option(help="grid.json of the experiment")]) -> None:
    """Gather all runs: metrics, costs, counts by class and confidence, and curves over epochs, a file each.

    Example: `cpt aggregate --grid results/embedded/grid.json`
    """
    from cpt.results.aggregate import aggregate as gather

    with recorded(grid.parent / "runs.parquet"):
        gather(grid)


@app.command()
def table(
    name: Annotated[str, typer.Argument(help="name of the table, for example table2")],
    results: Results,
) -> None:
    """Write a table as CSV (long form), Markdown, LaTeX and HTML.

    Example: `cpt table table2 --results results/embedded`
    """
    from cpt.report.tables import make_table

    with recorded(results / "tables" / f"{name}.csv"):
        make_table(results / "grid.json", results / "runs.parquet", name, results / "tables")


@app.command()
def figure(
    name: Annotated[str, typer.Argument(help="name of the figure, for example figure3")],
    results: Results,
) -> None:
    """Draw a figure as SVG, PDF and PNG, with its data as CSV.

    Example: `cpt figure figure3 --results results/embedded`
    """
    from cpt.report.figures.make import make_figure

    with recorded(results / "figures" / f"{name}.svg"):
        make_figure(results / "grid.json", results / "runs.parquet", name, results / "figures")


@app.command()
def page(results: Results) -> None:
    """Write the page that shows all tables and figures: one HTML file that opens offline.

    Example: `cpt page --results results/embedded`
    """
    from cpt.report.page.make import make_page

    output = results / "report" / "index.html"
    with recorded(output):
        make_page(results / "grid.json", results / "runs.parquet", results / "tables", results / "figures", output)
    say(f"open {output}")


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="a method: list its hyperparameters")] = None,
    sheet: Annotated[Path | None, typer.Option(help="write everything about all methods as Markdown")] = None,
) -> None:
    """List the methods: what each does, how many values it learns on ViT-B/16, its source.

    Example: `cpt methods cpt` lists the hyperparameters of CPT with the source of every default.
    """
    from rich.table import Table

    from cpt.files.stage_files import write_text
    from cpt.methods.base import describe, registry
    from cpt.report.page.sheet import markdown
    from cpt.report.terminal.console import console

    if sheet is not None:
        write_text(sheet, markdown())
        say(f"wrote {sheet}")
    elif name is not None:
        facts = describe.facts(registry.check(name))
        say(f"{facts['title']}: {facts['summary']}\nsource: {facts['source']}\n")
        listing = Table("hyperparameter", "default", "meaning", "source of the default", box=None)
        for field, about in facts["hyperparameters"].items():
            listing.add_row(field, str(about["default"]), about["description"], about["source"])
        console().print(listing)
    else:
        listing = Table("name", "title", "what it does", "learns", "source", box=None)
        for known in registry.names():
            facts = describe.facts(known)
            mark = " (reconstruction)" if facts["reconstruction"] else ""
            learned = f"{describe.learned_values(known, 'base_to_new'):,}"
            listing.add_row(known, facts["title"] + mark, facts["summary"], learned, facts["source"])
        console().print(listing)


@app.command()
def schema(output: Output = Path("workflow/schemas/config.schema.json")) -> None:
    """Write the JSON schema of the configuration, generated from its types."""
    from cpt.experiment import config
    from cpt.files.stage_files import write_text

    write_text(output, config.schema())


@app.command()
def pretrain(
    output: Annotated[Path, typer.Option(help="folder for weights, merges and recipe")] = Path("cpt/assets/tiny_clip"),
    seed: Annotated[int, typer.Option(help="seed of the pretraining", min=0, max=limits.SEED)] = 0,
    threads: Threads = 1,
) -> None:
    """Rebuild the tiny CLIP of the embedded benchmark from nothing (minutes)."""
    from cpt.clip.pretrain import pretrain as run_pretraining

    run_pretraining(output, seed=seed, threads=threads, progress=say)


def _json_object(option: str, text: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise CptError(f"{option}: not JSON ({error}); write it like '{{\"epochs\": 5}}'") from None
    if not isinstance(value, dict):
        raise CptError(f"{option}: must be a JSON object like '{{\"epochs\": 5}}'")
    return value
