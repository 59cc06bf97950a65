"""Commands for the frozen backbone, and for the features and clusters computed once from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cpt import limits
from cpt.cli.options import (
    CATALOG,
    BackboneFile,
    Catalog,
    Dataset,
    Device,
    ManifestFile,
    Output,
    Precision,
    Sets,
    Threads,
    json_object,
    log,
)
from cpt.errors import CptError
from cpt.files.provenance import recorded

if TYPE_CHECKING:
    from cpt.clip.backbone import Clip


def backbone(
    output: Output,
    name: Annotated[str, typer.Option(help="display name in tables")] = "tiny-clip",
    architecture: Annotated[
        str, typer.Option(help="'embedded', a model name of open_clip, or your own .json")
    ] = "embedded",
    pretrained: Annotated[
        str, typer.Option(help="tag of open_clip, checkpoint file, 'random', or a tiny CLIP's folder")
    ] = "shipped",
    sha256: Annotated[str | None, typer.Option(help="required SHA-256 of the weights file")] = None,
) -> None:
    """Export both towers of an unmodified open_clip model and check them against it on random inputs.

    Example: `cpt backbone --output backbone.json` exports the tiny CLIP

    Example, with an internet connection: `cpt backbone --architecture ViT-B-16-quickgelu --pretrained openai --name
    vit-b-16 --output vit-b-16.json`
    """
    from cpt.clip.make_backbone import make_backbone

    with recorded(output) as record:
        parameters, difference = make_backbone(name, architecture, pretrained, output, sha256)
        record["largest_difference_to_open_clip"] = difference
    log(f"{name}: {parameters:,} parameters, largest difference to open_clip {difference:.1e}")


def pretrain(
    output: Annotated[
        Path | None,
        typer.Option(
            help="folder for weights, merges and recipe; default: work/tiny_clip/WORLD-sSEED, of the shipped CLIP "
            "(first, 0) cpt/assets/tiny_clip"
        ),
    ] = None,
    world: Annotated[str, typer.Option(help="generated world to learn from: first or second")] = "first",
    seed: Annotated[int, typer.Option(help="seed of the pretraining", min=0, max=limits.SEED)] = 0,
    threads: Threads = 1,
) -> None:
    """Pretrain a tiny CLIP of an embedded benchmark from scratch.

    A configuration uses it with `backbone: {architecture: embedded, pretrained: FOLDER}`.

    Example, which takes about 6 minutes: `cpt pretrain --world second --seed 1 --output work/tiny_clip/second-s1`
    """
    from cpt.clip.pretrain import pretrain as run_pretraining

    shipped = (world, seed) == ("first", 0)
    folder = output or Path("cpt/assets/tiny_clip" if shipped else f"work/tiny_clip/{world}-s{seed}")
    run_pretraining(folder, world=world, seed=seed, threads=threads, log=lambda line: log(f"{folder.name}: {line}"))


def text_features(
    dataset: Dataset,
    manifest: Annotated[Path, typer.Option(help="manifest.parquet of the dataset: its class names")],
    backbone: BackboneFile,
    output: Output,
    templates: Annotated[
        str, typer.Option(help="template set: single, dataset, ensemble, or one of --sets")
    ] = "single",
    sets: Sets = "{}",
    catalog: Catalog = CATALOG,
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Compute the frozen text features of a dataset's classes, and their prompt tokens.

    Example: `cpt text-features flowers --manifest results/embedded/data/flowers/manifest.parquet --backbone
    results/embedded/backbone.json --output text.safetensors`
    """
    from cpt.clip.make_backbone import load_tokenizer
    from cpt.data.catalog import find, load_catalog
    from cpt.data.manifest import read_manifest
    from cpt.features.templates import template_set
    from cpt.features.text import make_text_features

    with recorded(output):
        entry = find(load_catalog(catalog), dataset)
        chosen = template_set(templates, entry.template_for(templates), _sets(sets))
        names = read_manifest(manifest).class_names
        clip = _clip(backbone, device, "float32", threads)
        make_text_features(clip, load_tokenizer(backbone), names, chosen, entry.template, output)
    log(f"{dataset}: {len(names)} classes under {len(chosen)} template(s)")


def descriptions(
    dataset: Annotated[
        str, typer.Argument(help="dataset: a name in the catalog, which may name a file of descriptions")
    ],
    manifest: Annotated[Path, typer.Option(help="manifest.parquet of the dataset: its class names")],
    backbone: BackboneFile,
    output: Output,
    templates: Annotated[str, typer.Option(help="template set to use without such a file")] = "imagenet",
    sets: Sets = "{}",
    catalog: Catalog = CATALOG,
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Compute the frozen features of class descriptions, for methods that use text knowledge (CoPrompt).

    Example: `cpt descriptions flowers --manifest results/embedded/data/flowers/manifest.parquet --backbone
    results/embedded/backbone.json --templates single --output descriptions.safetensors`
    """
    from cpt.clip.make_backbone import load_tokenizer
    from cpt.data.catalog import find, load_catalog
    from cpt.data.manifest import read_manifest
    from cpt.features.descriptions import make_descriptions
    from cpt.features.templates import template_set

    with recorded(output):
        entry = find(load_catalog(catalog), dataset)
        count = make_descriptions(
            _clip(backbone, device, "float32", threads),
            load_tokenizer(backbone),
            read_manifest(manifest).class_names,
            output,
            file=Path(entry.descriptions) if entry.descriptions else None,
            templates=template_set(templates, entry.template_for(templates), _sets(sets)),
            templates_name=templates,
        )
    log(f"{dataset}: {count} descriptions per class from {entry.descriptions or f'the templates {templates!r}'}")


def image_features(
    manifest: ManifestFile,
    part: Annotated[str, typer.Option(help="train or test")],
    backbone: BackboneFile,
    output: Output,
    pixels: Annotated[Path | None, typer.Option(help="image cache of the part, if there is one")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 1,
) -> None:
    """Compute the frozen image features of a part, for methods that leave the vision tower unprompted.

    Example: `cpt image-features --manifest results/embedded/data/flowers/manifest.parquet --part test --backbone
    results/embedded/backbone.json --output images.safetensors`
    """
    from cpt.features.images import make_image_features

    with recorded(output):
        count = make_image_features(_clip(backbone, device, precision, threads), manifest, part, output, pixels)
    log(f"{count} images")


def clusters(
    text_features: Annotated[Path, typer.Option(help="frozen text features of the dataset")],
    protocol: Annotated[str, typer.Option(help="base_to_new: cluster the base half; others: all classes")],
    seed: Annotated[int, typer.Option(help="seed of the clustering", min=0, max=limits.SEED)],
    output: Output,
    algorithm: Annotated[str, typer.Option(help="spherical, or another one of cpt/features/clusters.py")] = "spherical",
    classes_per_cluster: Annotated[int, typer.Option(help="M = max(1, round(K / this))")] = 16,
    number: Annotated[int | None, typer.Option(help="fixed number of clusters M, instead")] = None,
) -> None:
    """Cluster the trained classes by their frozen text features.

    Example: `cpt clusters --text-features results/embedded/features/flowers/text-single.safetensors
    --protocol base_to_new --seed 1 --classes-per-cluster 4 --output clusters.parquet`
    """
    from cpt.features.make_clusters import make_clusters

    with recorded(output):
        found = make_clusters(text_features, protocol, algorithm, seed, output, per=classes_per_cluster, fixed=number)
    quality = "undefined" if found.silhouette is None else f"{found.silhouette:.3f}"
    log(f"{len(found.labels)} classes in {len(found.centroids)} clusters, cosine silhouette {quality}")


def _sets(given: str) -> dict[str, Any]:
    """The template sets of ``--sets``.

    Raises:
        CptError: it is no JSON object of lists of texts with {} in them.
    """
    example = '{"mine": ["a photo of a {}."]}'
    sets = json_object("--sets", given, example)
    for name, templates in sets.items():
        if not isinstance(templates, list) or not templates or not all(map(_is_template, templates)):
            raise CptError(f"--sets: {name}: must be a list of texts with {{}} once in each, as in '{example}'")
    return sets


def _is_template(text: object) -> bool:
    return isinstance(text, str) and text.count("{}") == 1


def _clip(backbone: Path, device: str, precision: str, threads: int) -> Clip:
    """The frozen towers on their device."""
    from cpt.clip.backbone import load_backbone, pretrained
    from cpt.clip.device import prepare_device

    place, resolved = prepare_device(device, precision, threads, pretrained(backbone))
    return load_backbone(backbone, place, resolved)
