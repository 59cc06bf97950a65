"""A finished run as it is used: its method with the learned tensors, on its backbone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cpt.clip.backbone import load_backbone
from cpt.clip.device import prepare_device
from cpt.data.classes import trained_rows
from cpt.errors import CptError
from cpt.experiment.runs import Run
from cpt.features.text import Classes, read_text_features
from cpt.files import paths
from cpt.files.paths import PROMPTS, RUN
from cpt.files.stage_files import read_json, read_tensors
from cpt.methods.base import registry
from cpt.methods.base.method import Method
from cpt.seeds import torch_stream
from cpt.training.train import SNAPSHOT

RESIZED = {
    1: "{sides}, {interpolation}; then the center",
    5: "{sides} to 24/224 more, {interpolation}; then corners and center, whose unit features are averaged",
}
"""How test images are prepared, by the number of crops."""


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


def experiment_of(run: Path) -> Path:
    """Return the folder of the experiment that a run lies in: the nearest, itself or above, that has a backbone.

    Raises:
        CptError: no folder has one.
    """
    for folder in (run.absolute(), *run.absolute().parents):
        if (folder / "backbone.json").is_file():
            return folder
    raise CptError(f"{run}: no backbone.json in any folder above; name the experiment's folder: --results, or results=")


def require_finished(run: Path) -> None:
    """Refuse a folder of no finished run.

    Raises:
        CptError: it has no run.json.
    """
    if not (run / "run.json").is_file():
        seeds = sorted(place.parent for place in run.glob("s*/run.json"))
        fix = f"did you mean {seeds[0]}?" if seeds else "`cpt runs results/<experiment>` lists the folders to give"
        raise CptError(f"{run}: no finished run (no run.json); {fix}")


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


def facts(method: Method, record: dict[str, Any]) -> dict[str, Any]:
    """What a user of a run's text features has to know beside them and the names of their classes.

    ``image_tower`` is as the function returns it; ``own_classifier`` says that the method classifies by more than
    cosines with them; the rest is how images are prepared, and whose classifier it is.
    """
    clip = method.clip
    known = ("protocol", "dataset", "imbalance_ratio", "method", "seed", "hyperparameters")
    return {
        "logit_scale": method.scale,
        "own_classifier": method.own_classifier,
        "image_tower": image_tower(Run.of(record)),
        "image_size": clip.image_size[0],
        "image_resize": RESIZED[method.test_crops].format(
            sides=clip.resizing.sides, interpolation=clip.resizing.interpolation
        ),
        "image_mean": list(clip.mean),
        "image_std": list(clip.std),
        "backbone": clip.name,
        "backbone_sha256": clip.sha256,
        "run": {"id": Run.of(record).id, **{key: record[key] for key in known}},
    }


def image_tower(run: Run) -> str:
    """Return ``frozen`` where a run's texts classify image features of the unmodified CLIP, and ``prompted`` where
    those give wrong answers: images must go through the run's own tower."""
    return "frozen" if registry.get(run.method).keeps_images(run.hyperparameters) else "prompted"


def probabilities(method: Method, features: Tensor, classes: Classes, text: Tensor | None) -> Tensor:
    """Return the softmax (N, K) of the features (N, D) of test images, in float32.

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
