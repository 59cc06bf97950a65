"""Training of one run: its inputs checked against each other, the loop, its files and its record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pydantic import ValidationError
from torch import Tensor

from cpt.clip.backbone import Clip, load_backbone, pretrained
from cpt.clip.device import device_name, peak_memory_mb, prepare_device
from cpt.clip.passes import KINDS
from cpt.data.classes import trained_rows
from cpt.data.images import ImageStore
from cpt.data.manifest import read_manifest
from cpt.data.split import Split, read_split
from cpt.errors import CptError, nearest
from cpt.features.clusters import read_clusters
from cpt.features.descriptions import read_descriptions
from cpt.features.images import read_image_features
from cpt.features.text import read_text_features
from cpt.files import provenance
from cpt.files.paths import HISTORY, HISTORY_LINES, PROMPTS, RUN, run_name
from cpt.files.stage_files import (
    canonical_json,
    read_json,
    read_tensors,
    sha256_file,
    sha256_text,
    write_json,
    write_parquet,
    write_tensors,
)
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import Hyperparameters, Starting, resolve
from cpt.methods.base.method import Method, TrainingSet
from cpt.seeds import torch_stream
from cpt.training.batches import Batches
from cpt.training.checkpoint import CheckpointFile
from cpt.training.graphs import CUDA_GRAPHS, recorder
from cpt.training.loop import Loop
from cpt.training.progress import Progress
from cpt.validation import one_line

SNAPSHOT = "snapshot."
"""Tensors after epoch e are named ``snapshot.<e>/<name>``."""


@dataclass(frozen=True)
class TrainInputs:
    """Everything that a training job depends on; see ``cpt train --help``.

    Attributes:
        workers: threads that decode and augment images; None for as many as ``threads``.
        tensorboard: folder for TensorBoard's event files; None for none.
        code: version of the code that the caller counts on, None for whatever there is.
    """

    method: str
    hyperparameters: dict[str, Any]
    seed: int
    backbone: Path
    manifest: Path
    split: Path
    text_features: Path
    clusters: Path | None = None
    image_features: Path | None = None
    descriptions: Path | None = None
    start: Path | None = None
    augmentation: str = "rrc_flip"
    device: str = "auto"
    precision: str = "auto"
    threads: int = 1
    workers: int | None = None
    checkpoint: Path | None = None
    checkpoint_interval: float = 60.0
    tensorboard: Path | None = None
    cuda_graphs: str = "auto"
    code: str | None = None


def train(inputs: TrainInputs, output: Path, log: Callable[[str], None] = print) -> None:
    """Train one run and write prompts.safetensors, history.parquet and, last, run.json into ``output``.

    Raises:
        CptError: impossible inputs, other code than asked for, or a loss that is not finite.
    """
    started = time.monotonic()
    kind = registry.get(inputs.method)
    split = read_split(inputs.split)
    hp = _hyperparameters(inputs, kind, split)
    code = provenance.code_version("cpt.training.train", *registry.modules(inputs.method, hp))
    if inputs.code is not None:
        provenance.require_version(inputs.code, code, f"cpt.training.train and method {inputs.method}")
    if inputs.cuda_graphs not in CUDA_GRAPHS:
        raise CptError(f"cuda_graphs: unknown {inputs.cuda_graphs!r}; {nearest(inputs.cuda_graphs, CUDA_GRAPHS)}")
    progress = _progress(inputs, output, kind, log)
    weights = pretrained(inputs.backbone)
    device, precision = prepare_device(inputs.device, inputs.precision, inputs.threads, weights)
    clip = load_backbone(inputs.backbone, device, precision)
    if read_manifest(inputs.manifest).metadata["content_hash"] != split.metadata["manifest_hash"]:
        raise CptError(f"{inputs.split}: was not made from {inputs.manifest}; give the manifest it was made from")
    training_set, text_knowledge = _training_set(inputs, kind, split, clip)
    method = kind(clip, hp, training_set.classes, torch_stream(inputs.seed, "initial prompts")).to(device)
    hashes = _input_hashes(inputs, split)
    if isinstance(hp, Starting):
        tensors, knew = _start(inputs, hp, clip, hashes, split)
        method.begin(tensors)
        text_knowledge = text_knowledge or knew
    method.prepare(training_set, _training_features(inputs, kind, split, device))
    identity = {name: getattr(inputs, name) for name in ("method", "seed", "threads")}
    identity |= {"hyperparameters": hp.model_dump(), "augmentation": kind.training_augmentation(inputs.augmentation)}
    identity |= {"precision": precision, "device": device.type, "inputs": hashes, "code": code}
    checkpoint = CheckpointFile(inputs.checkpoint, sha256_text(canonical_json(identity)), inputs.checkpoint_interval)
    record = {**identity, "backbone": clip.name, "text_knowledge": text_knowledge, "resumed": False, "views": 1}
    record["cuda_graphs"] = "off"
    record["encoded_per_step"] = dict.fromkeys(KINDS, 0.0)
    history: list[dict[str, float]] = []
    snapshots: dict[int, dict[str, Tensor]] = {}
    if kind.trains:
        record_steps = recorder(device, inputs.cuda_graphs)
        loop = Loop(method, training_set, _batches(inputs, method, split), checkpoint, log, record_steps, progress)
        history, snapshots = loop.run()
        started -= loop.seconds_before
        record |= {"resumed": loop.resumed, "views": loop.batches.views, "encoded_per_step": loop.encoded_per_step}
        record["cuda_graphs"] = loop.cuda_graphs
    _write(output, method, split, history, snapshots, record, started)
    checkpoint.remove()
    progress.end()


def _progress(inputs: TrainInputs, output: Path, kind: type[Method], log: Callable[[str], None]) -> Progress:
    """Where epochs are told while they pass: beside the checkpoint, and in a folder for each run that has epochs."""
    lines = inputs.checkpoint and inputs.checkpoint.with_suffix(HISTORY_LINES)
    events = inputs.tensorboard / run_name(output) if inputs.tensorboard and kind.trains else None
    return Progress(lines, events, log)


def _hyperparameters(inputs: TrainInputs, kind: type[Method], split: Split) -> Any:
    """The method's hyperparameters, checked; those of the run that it starts from too.

    What is not given is the method's default for the split's protocol and dataset, as in the workflow.
    """
    own, of_start = kind.hyperparameters, ""
    try:
        hp = _resolved(own, split, inputs.hyperparameters)
        if isinstance(hp, Starting):
            own, of_start = registry.get(hp.start).hyperparameters, "start_hyperparameters"
            _resolved(own, split, hp.start_hyperparameters)
    except ValidationError as error:
        raise CptError(f"--hyperparameters: {one_line(error, own, of_start)}") from None
    return hp


def _resolved(kind: type[Hyperparameters], split: Split, given: dict[str, Any]) -> Hyperparameters:
    return resolve(kind, split.metadata["protocol"], split.metadata["dataset"], given)


def _write(
    output: Path,
    method: Method,
    split: Split,
    history: list[dict[str, float]],
    snapshots: dict[int, dict[str, Tensor]],
    record: dict[str, Any],
    started: float,
) -> None:
    learned = {name: value.detach() for name, value in method.state_dict().items()}
    for epoch, tensors in snapshots.items():
        learned |= {f"{SNAPSHOT}{epoch}/{name}": value for name, value in tensors.items()}
    write_tensors(output / "prompts.safetensors", learned, PROMPTS, method=method.name)
    none = pa.table({"epoch": pa.array([], pa.int64()), "loss": pa.array([], pa.float64())})
    table = pa.Table.from_pylist(history) if history else none
    write_parquet(output / "history.parquet", table, HISTORY, method=method.name)
    device = method.clip.device
    write_json(
        output / "run.json",
        record
        | {key: split.metadata[key] for key in ("protocol", "dataset", "imbalance_ratio", "n_max", "class_order")}
        | {
            "schema": RUN,
            "status": "finished",
            "learnable_parameters": method.learnable_parameters(),
            "steps": sum(row["steps"] for row in history),
            "seconds": round(time.monotonic() - started, 3),
            "peak_memory_mb": round(peak_memory_mb(device), 1),
            "reserved_memory_mb": _reserved_memory_mb(device),
            "device_name": device_name(device),
            "deterministic": device.type == "cpu",
        },
    )


def _reserved_memory_mb(device: torch.device) -> float | None:
    """Most memory in MiB that this process held of a GPU: with what is cached and what CUDA graphs keep for replays,
    which count as allocated only while they are captured. None on a CPU.
    """
    return round(torch.cuda.max_memory_reserved(device) / 2**20, 1) if device.type == "cuda" else None


def _of_others(path: Path, other: Path) -> CptError:
    return CptError(f"{path}: its classes are not those of {other}; give that of the same dataset, or make it again")


def _training_set(inputs: TrainInputs, kind: type[Method], split: Split, clip: Clip) -> tuple[TrainingSet, dict | None]:
    """What the method may know of the training set, checked against each other; where its text knowledge is from."""
    everything, _ = read_text_features(inputs.text_features, clip.device)
    trained = trained_rows(len(everything), split.metadata["protocol"])
    classes = everything.take(trained)
    if list(classes.names) != split.classes:
        raise _of_others(inputs.text_features, inputs.split)
    clusters, descriptions, knowledge = None, None, None
    if kind.needs_clusters:
        if inputs.clusters is None:
            raise CptError(f"method {inputs.method} needs --clusters; make them with `cpt clusters`")
        found = read_clusters(inputs.clusters)
        if found.class_names != split.classes:
            raise _of_others(inputs.clusters, inputs.split)
        clusters = torch.tensor(found.labels).to(clip.device)
    if kind.needs_descriptions:
        if inputs.descriptions is None:
            raise CptError(f"method {inputs.method} needs --descriptions; make them with `cpt descriptions`")
        features, metadata = read_descriptions(inputs.descriptions, clip.device)
        if metadata["classes"] != list(everything.names):
            raise _of_others(inputs.descriptions, inputs.text_features)
        descriptions, knowledge = features[:, trained], metadata["text_knowledge"]
    counts = torch.tensor(split.counts).to(clip.device, torch.float32)
    others = [row for row in range(len(everything)) if row not in trained]
    new = everything.take(others) if kind.needs_new_classes and others else None
    if new is not None:
        knowledge = {"kind": "new_classes", "count": len(new)}
    labels = torch.tensor(split.labels)
    return TrainingSet(classes, counts, clusters, descriptions, labels, new_classes=new), knowledge


def _training_features(inputs: TrainInputs, kind: type[Method], split: Split, device: torch.device) -> Tensor | None:
    """Raw frozen features (N, D) of all training images, for a method that asks for them."""
    if not kind.needs_training_features:
        return None
    if inputs.image_features is None:
        raise CptError(f"method {inputs.method} needs --image-features; make them with `cpt image-features`")
    return _frozen_features(inputs.image_features, split).to(device)


def _start(
    inputs: TrainInputs, hp: Starting, clip: Clip, hashes: dict[str, str], split: Split
) -> tuple[dict[str, Tensor], dict | None]:
    """Learned tensors and text knowledge of the run that this one goes on from: same training set, same backbone."""
    if inputs.start is None:
        raise CptError(f"method {inputs.method} needs --start, the folder of a finished run of {hp.start}")
    record = read_json(inputs.start / "run.json", RUN)
    asked = _resolved(registry.get(hp.start).hyperparameters, split, hp.start_hyperparameters).model_dump()
    for what, found, wanted in (
        ("method", record["method"], hp.start),
        ("hyperparameters", record["hyperparameters"], asked),
        ("split", record["inputs"]["split"], hashes["split"]),
        ("backbone", record["inputs"]["backbone"], hashes["backbone"]),
    ):
        if found != wanted:
            raise CptError(f"{inputs.start}: its {what} differs from what this run starts from; train {hp.start} anew")
    tensors, _ = read_tensors(inputs.start / "prompts.safetensors", PROMPTS)
    learned = {name: value.to(clip.device) for name, value in tensors.items() if not name.startswith(SNAPSHOT)}
    return learned, record["text_knowledge"]


def _input_hashes(inputs: TrainInputs, split: Split) -> dict[str, str]:
    """Hashes of what the run depends on. The split's hash covers the manifest's, which covers the pixels."""
    named = {
        "backbone": inputs.backbone,
        "text_features": inputs.text_features,
        "clusters": inputs.clusters,
        "image_features": inputs.image_features,
        "descriptions": inputs.descriptions,
        "start": inputs.start and inputs.start / "prompts.safetensors",
    }
    hashes = {name: sha256_file(path) for name, path in named.items() if path is not None}
    return hashes | {"split": split.metadata["split_hash"], "manifest": split.metadata["manifest_hash"]}


def _batches(inputs: TrainInputs, method: Method, split: Split) -> Batches:
    """The training images, with cached frozen features where they can serve."""
    kind, clip = type(method), method.clip
    augmentation = kind.training_augmentation(inputs.augmentation)
    features, store = None, None
    needed = augmentation == "none" and (kind.uses_frozen_images or not kind.prompts_images)
    if needed and inputs.image_features is not None:
        features = _frozen_features(inputs.image_features, split)
    if features is None or kind.prompts_images:
        store = ImageStore(inputs.manifest, clip.image_size[0], resizing=clip.resizing)
    size, seed, workers = method.hp.batch_size, inputs.seed, inputs.workers or inputs.threads
    sampler = method.hp.sampler
    return Batches(clip, split, store, features, augmentation, size, seed, workers, kind.views, sampler)


def _frozen_features(path: Path, split: Split) -> Tensor:
    """Raw frozen features (N, D) of the split's images."""
    everything, rows = read_image_features(path)
    position = {int(row): i for i, row in enumerate(rows)}
    if missing := [row for row in split.rows.tolist() if row not in position]:
        raise CptError(f"{path}: lacks row {missing[0]} of the manifest; give the train part's")
    return everything[[position[int(row)] for row in split.rows]]
