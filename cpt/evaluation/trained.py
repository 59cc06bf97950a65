"""A finished run as it is used: its method with the learned tensors, on its backbone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cpt.clip.backbone import load_backbone
from cpt.clip.device import prepare_device
from cpt.data.classes import trained_rows
from cpt.features.text import Classes, read_text_features
from cpt.files import paths
from cpt.files.paths import PROMPTS, RUN
from cpt.files.stage_files import read_json, read_tensors
from cpt.methods.base import registry
from cpt.methods.base.method import Method
from cpt.seeds import torch_stream
from cpt.training.train import SNAPSHOT


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        record: run.json.
        method: with the learned tensors of the finished run, on its device.
        classes: the trained classes.
        templates: prompt templates of its frozen text features, and the dataset's own template.
        states: learned tensors after each epoch that was kept, by epoch, and last those of the finished run, with None.
    """

    record: dict[str, Any]
    method: Method
    classes: Classes
    templates: tuple[list[str], str]
    states: list[tuple[int | None, dict[str, Tensor]]]


def read_trained(
    run: Path, results: Path, device: str = "auto", threads: int = 1, precision: str | None = None
) -> Trained:
    """Load a finished run.

    Args:
        run: its folder.
        results: folder of the experiment, with the backbone and the text features.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: of a CPU.
        precision: of the frozen towers; None for that of the training.

    Raises:
        CptError: the run is not finished, or an input is missing or damaged.
    """
    record = read_json(run / "run.json", RUN)
    place, chosen = prepare_device(device, precision or record["precision"], threads)
    clip = load_backbone(results / "backbone.json", place, chosen)
    kind = registry.get(record["method"])
    hp = kind.hyperparameters(**record["hyperparameters"])
    tensors, _ = read_tensors(run / "prompts.safetensors", PROMPTS)
    everything, metadata = read_text_features(results / paths.text_features(record["dataset"], hp.templates), place)
    classes = everything.take(trained_rows(len(everything), record["protocol"]))
    method = kind(clip, hp, classes, torch_stream(0, "unused")).to(place).eval()
    states = _states(tensors)
    method.load_state_dict(states[-1][1])
    return Trained(record, method, classes, (metadata["templates"], metadata["dataset_template"]), states)


def probabilities(method: Method, features: Tensor, classes: Classes, text: Tensor | None) -> Tensor:
    """Return the softmax (N, K) of unit-norm image features (N, D), in float32.

    Args:
        text: (K, D) text features of the classes; None where they depend on the image, which is where the method has a
            classifier of its own.
    """
    if text is None or method.own_classifier:
        logits = method.class_logits(features.float(), classes)
    else:
        logits = method.logits(features.float(), text.float())
    return logits.softmax(dim=1)


def _states(tensors: dict[str, Tensor]) -> list[tuple[int | None, dict[str, Tensor]]]:
    final: dict[str, Tensor] = {}
    snapshots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(SNAPSHOT):
            epoch, _, name = name.removeprefix(SNAPSHOT).partition("/")
            snapshots.setdefault(int(epoch), {})[name] = value
        else:
            final[name] = value
    return [*sorted(snapshots.items()), (None, final)]
