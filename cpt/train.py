"""Training of one run: the loop that all methods share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pydantic import ValidationError
from torch import Tensor

from cpt import device as machine
from cpt import geometry, provenance
from cpt.batches import Batches
from cpt.clip.backbone import Clip, load_backbone
from cpt.clip.features import read_image_features, read_text_features
from cpt.clusters import read_clusters
from cpt.data.classes import trained_rows
from cpt.data.images import ImageStore
from cpt.data.manifest import read_manifest
from cpt.data.split import Split, read_split
from cpt.errors import CptError
from cpt.files import canonical_json, sha256_file, sha256_text, write_json, write_parquet, write_tensors
from cpt.methods import registry
from cpt.methods.base import Method, Training
from cpt.paths import HISTORY, PROMPTS, RUN
from cpt.schedule import learning_rate
from cpt.seeds import torch_stream
from cpt.state import StateFile
from cpt.validation import one_line

SNAPSHOT = "snapshot.{}/"


@dataclass(frozen=True)
class TrainInputs:
    """Everything that a training job depends on; see ``cpt train --help``."""

    method: str
    hyperparameters: dict[str, Any]
    seed: int
    backbone: Path
    manifest: Path
    split: Path
    text_features: Path
    clusters: Path | None = None
    image_features: Path | None = None
    augmentation: str = "rrc_flip"
    device: str = "auto"
    precision: str = "auto"
    threads: int = 1
    state: Path | None = None
    state_interval: float = 60.0
    code: str | None = None


def train(inputs: TrainInputs, output: Path, progress: Callable[[str], None] = print) -> None:
    """Train one run and write prompts.safetensors, history.parquet and, last, run.json into ``output``.

    Raises:
        CptError: impossible inputs, or a loss that is not finite.
    """
    started = time.monotonic()
    kind = registry.get(inputs.method)
    try:
        hp = kind.hyperparameters(**inputs.hyperparameters)
    except ValidationError as error:
        raise CptError(f"--hyperparameters: {one_line(error, kind.hyperparameters)}") from None
    device, precision = machine.prepare(inputs.device, inputs.precision, inputs.threads)
    clip = load_backbone(inputs.backbone, device, precision)
    split = read_split(inputs.split)
    training = _training(inputs, kind, split, clip)
    method = kind(clip, hp, training.classes, torch_stream(inputs.seed, "initial prompts")).to(device)
    if read_manifest(inputs.manifest).metadata["content_hash"] != split.metadata["manifest_hash"]:
        raise CptError(f"{inputs.split}: was not made from {inputs.manifest}; give the manifest it was made from")
    hashes = _input_hashes(inputs, split)
    identity = {
        "method": inputs.method,
        "hyperparameters": hp.model_dump(),
        "seed": inputs.seed,
        "augmentation": inputs.augmentation,
        "precision": precision,
        "threads": inputs.threads,
        "device": device.type,
        "inputs": hashes,
        "code": inputs.code or provenance.code_version("cpt.train", f"cpt.methods.{inputs.method}"),
    }
    loop = _Loop(inputs, method, training, split, canonical_json(identity), progress)
    history, snapshots = loop.run() if kind.trains else ([], {})

    learned = {name: value.detach() for name, value in method.state_dict().items()}
    for epoch, tensors in snapshots.items():
        learned |= {SNAPSHOT.format(epoch) + name: value for name, value in tensors.items()}
    write_tensors(output / "prompts.safetensors", learned, PROMPTS, method=inputs.method)
    write_parquet(output / "history.parquet", _table(history), HISTORY, method=inputs.method)
    meta = split.metadata
    write_json(
        output / "run.json",
        {
            "schema": RUN,
            "status": "finished",
            **identity,
            **{key: meta[key] for key in ("protocol", "dataset", "imbalance_ratio", "n_max", "class_order")},
            "backbone": clip.name,
            "learnable_parameters": method.learnable_parameters(),
            "steps": sum(row["steps"] for row in history),
            "seconds": round(loop.seconds_before + time.monotonic() - started, 3),
            "resumed": loop.resumed,
            "peak_memory_mb": round(machine.peak_memory_mb(device), 1),
            "device_name": machine.describe(device),
            "deterministic": device.type == "cpu",
            "versions": provenance.versions(),
            **provenance.commit(),
            "command": sys.argv,
        },
    )
    loop.state.remove()


def _training(inputs: TrainInputs, kind: type[Method], split: Split, clip: Clip) -> Training:
    """Classes, counts and clusters of the training set, checked against each other."""
    everything, _ = read_text_features(inputs.text_features, clip.device)
    trained = trained_rows(len(everything), split.metadata["protocol"])
    classes = everything.take(trained)
    if list(classes.names) != split.classes:
        raise CptError(f"{inputs.text_features}: its classes are not those of {inputs.split}; make it again")
    clusters = None
    if kind.needs_clusters:
        if inputs.clusters is None:
            raise CptError(f"method {inputs.method} needs --clusters; make them with `cpt clusters`")
        found = read_clusters(inputs.clusters)
        if found.class_names != split.classes:
            raise CptError(f"{inputs.clusters}: its classes are not those of {inputs.split}; make it again")
        clusters = torch.tensor(found.labels).to(clip.device)
    return Training(classes, torch.tensor(split.counts).to(clip.device, torch.float32), clusters)


def _input_hashes(inputs: TrainInputs, split: Split) -> dict[str, str]:
    """Hashes of what the run depends on. The split's hash covers the manifest's, which covers the pixels."""
    named = {"backbone": inputs.backbone, "text_features": inputs.text_features, "clusters": inputs.clusters}
    named["image_features"] = inputs.image_features
    hashes = {name: sha256_file(path) for name, path in named.items() if path is not None}
    return hashes | {"split": split.metadata["split_hash"], "manifest": split.metadata["manifest_hash"]}


class _Loop:
    """Epochs and steps of one run, resumable after any step."""

    def __init__(
        self,
        inputs: TrainInputs,
        method: Method,
        training: Training,
        split: Split,
        identity: str,
        progress: Callable[[str], None],
    ) -> None:
        self.inputs, self.method, self.training, self.split = inputs, method, training, split
        self.hp, self.progress = method.hp, progress
        self.state = StateFile(inputs.state, sha256_text(identity), inputs.state_interval)
        self.seconds_before, self.resumed = 0.0, False
        self._started = time.monotonic()

    def run(self) -> tuple[list[dict[str, float]], dict[int, dict[str, Tensor]]]:
        """Train; return the history's rows and the snapshots by epoch (1-based)."""
        hp, method = self.hp, self.method
        batches = self._batches()
        optimiser = torch.optim.SGD(
            method.parameters(), lr=hp.learning_rate, momentum=hp.momentum, weight_decay=hp.weight_decay
        )
        history: list[dict[str, float]] = []
        snapshots: dict[int, dict[str, Tensor]] = {}
        epoch, step, sums = 0, 0, {}
        saved = self.state.load()
        if saved is not None:
            method.load_state_dict(saved["parameters"])
            optimiser.load_state_dict(saved["optimiser"])
            history, snapshots, sums = saved["history"], saved["snapshots"], saved["sums"]
            epoch, step, self.seconds_before, self.resumed = saved["epoch"], saved["step"], saved["seconds"], True
            self.progress(f"resuming at epoch {epoch + 1}, step {step}")
        total = batches.steps()
        self.progress(
            f"{method.title}: {len(self.split.rows)} images of {len(self.training.classes)} classes, "
            f"{hp.epochs} epochs of {total} steps, {method.learnable_parameters():,} learned values, "
            f"{self.method.clip.device}"
        )
        for epoch in range(epoch, hp.epochs):  # noqa: B020 - the first epoch may be a resumed one
            rate = learning_rate(hp, epoch)
            for group in optimiser.param_groups:
                group["lr"] = rate
            for batch in batches.epoch(epoch, step):
                self._step(optimiser, batch, sums)
                step += 1
                if self.state.due() and step < total:
                    self._save(optimiser, epoch, step, history, snapshots, sums)
            history.append(self._epoch_row(epoch, step, rate, sums))
            if hp.snapshots:
                snapshots[epoch + 1] = {k: v.detach().clone() for k, v in method.state_dict().items()}
            step, sums = 0, {}
            if self.state.due() and epoch + 1 < hp.epochs:
                self._save(optimiser, epoch + 1, 0, history, snapshots, sums)
        return history, snapshots

    def _batches(self) -> Batches:
        inputs, clip = self.inputs, self.method.clip
        features, store = None, None
        if inputs.image_features is not None and not self.method.prompts_images and inputs.augmentation == "none":
            everything, rows = read_image_features(inputs.image_features)
            position = {int(row): i for i, row in enumerate(rows)}
            if missing := [row for row in self.split.rows.tolist() if row not in position]:
                raise CptError(
                    f"{inputs.image_features}: lacks row {missing[0]} of the manifest; give the train part's"
                )
            features = everything[[position[int(row)] for row in self.split.rows]]
        else:
            store = ImageStore(inputs.manifest, clip.image_size[0])
        return Batches(
            clip, self.split, store, features, inputs.augmentation, self.hp.batch_size, inputs.seed, inputs.threads
        )

    def _step(self, optimiser: torch.optim.Optimizer, batch: Any, sums: dict[str, Tensor]) -> None:
        components = self.method.losses(batch, self.training)
        loss = self.method.total(components)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [p.grad for p in self.method.parameters() if p.grad is not None]
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        optimiser.step()
        measured = {"loss": loss, "gradient_norm": norm}
        measured |= {f"loss_{name}": value for name, value in components.items()}
        for name, value in measured.items():  # sums stay on the device: no synchronisation per step
            sums[name] = sums.get(name, 0) + value.detach().double()

    @torch.no_grad()
    def _epoch_row(self, epoch: int, steps: int, rate: float, sums: dict[str, Tensor]) -> dict[str, float]:
        text = self.method.text_features(self.training.classes)
        row = {"epoch": epoch + 1, "steps": steps, "learning_rate": rate}
        row |= {name: float(value) / steps for name, value in sums.items()}
        if not torch.isfinite(torch.tensor(row["loss"])):
            raise CptError(
                f"{self.inputs.method}: the loss of epoch {epoch + 1} is {row['loss']}; lower learning_rate "
                "or a loss weight"
            )
        if not bool(text.isfinite().all()):
            raise CptError(
                f"{self.inputs.method}: text features are not finite after epoch {epoch + 1}; lower learning_rate"
            )
        row |= {
            "etf_distance": float(geometry.etf_distance(text)),
            "mean_cosine": float(geometry.mean_cosine(text)),
            "effective_rank": float(geometry.effective_rank(text)),
            "drift": float(geometry.drift(text, self.training.classes.frozen)),
        }
        row["seconds"] = self.seconds_before + time.monotonic() - self._started
        self.progress(
            f"epoch {epoch + 1}/{self.hp.epochs}  lr {rate:.3g}  loss {row['loss']:.4f}  {row['seconds']:.1f} s"
        )
        return row

    def _save(
        self, optimiser: torch.optim.Optimizer, epoch: int, step: int, history: list, snapshots: dict, sums: dict
    ) -> None:
        self.state.save(
            parameters=self.method.state_dict(),
            optimiser=optimiser.state_dict(),
            epoch=epoch,
            step=step,
            history=history,
            snapshots=snapshots,
            sums=sums,
            seconds=self.seconds_before + time.monotonic() - self._started,
        )


def _table(history: list[dict[str, float]]) -> pa.Table:
    if not history:
        return pa.table({"epoch": pa.array([], pa.int64()), "loss": pa.array([], pa.float64())})
    return pa.Table.from_pylist(history)
