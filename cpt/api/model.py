"""A trained run that classifies images: ``cpt.load``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from cpt.api import hub
from cpt.api.images import OneImage, Pixels, listed, named
from cpt.errors import CptError
from cpt.evaluation.trained import Trained, experiment_of, image_tower, probabilities, read_trained, require_finished
from cpt.experiment.runs import Run
from cpt.features.images import encode
from cpt.features.text import Classes, encode_classes

if TYPE_CHECKING:
    import pandas as pd


class Model:
    """A finished run. ``cpt.load`` and ``cpt.fit`` return it.

    Attributes:
        record: what ``run.json`` says of the training: method, hyperparameters, dataset, seed, precision and more.
        class_names: the trained classes in label order; without other names, these are what an image can be.
        image_tower: ``frozen``, or ``prompted`` where features of the frozen CLIP do not fit the text features.
        logit_scale: factor of the cosine similarities before the softmax.
        method: the method with its learned tensors (``cpt.methods``).
        backbone: backbone.json that it was trained on.
    """

    def __init__(self, trained: Trained, backbone: Path) -> None:
        self._trained, self.backbone = trained, backbone
        self.method = trained.method
        self.record: dict[str, Any] = trained.record
        self.class_names: tuple[str, ...] = trained.classes.names
        self.image_tower: str = image_tower(Run.of(trained.record))
        self.logit_scale: float = self.method.scale

    def __repr__(self) -> str:
        run = self.record
        return f"<cpt.Model {run['method']} of {run['dataset']}, {len(self.class_names)} classes, seed {run['seed']}>"

    def predict(
        self,
        images: OneImage | Iterable[OneImage],
        classes: Sequence[str] | None = None,
        *,
        top: int = 5,
        errors: str = "raise",
    ) -> pd.DataFrame:
        """Classify images.

        Args:
            images: a file, a folder (its images and those below it), an (H, W, 3) array of uint8, an image of Pillow,
                or several of them.
            classes: names of other classes than the trained ones; they need no images.
            top: how many of the likeliest classes each image gets.
            errors: ``raise`` for the first image that cannot be read; ``skip`` leaves such images out and lists them
                in ``attrs["errors"]`` as (path, reason).

        Returns:
            One row per image and rank: ``path`` (or position), ``rank`` from 1, ``label``, ``name``, ``probability``.

        Raises:
            CptError: an image cannot be read, or a class name is too long for the backbone.
        """
        import pandas as pd

        if errors not in ("raise", "skip"):
            raise CptError(f"errors: {errors!r} is unknown; use raise or skip")
        given = listed(images)
        chosen, trained = self._classes(classes)
        rows: dict[str, list[Any]] = {name: [] for name in ("path", "rank", "label", "name", "probability")}
        paths, pixels = named(given), self._pixels(given)
        done = 0
        with torch.inference_mode():
            text = self._text(chosen, trained)
            for features in self._batches(pixels, len(given)):
                found = probabilities(self.method, features, chosen, text).topk(min(top, len(chosen)), dim=1)
                for place, (values, labels) in enumerate(zip(*(part.tolist() for part in found), strict=True), done):
                    if place not in pixels.faults:
                        rows["path"] += [paths[place]] * len(labels)
                        rows["rank"] += range(1, len(labels) + 1)
                        rows["label"] += labels
                        rows["name"] += [chosen.names[label] for label in labels]
                        rows["probability"] += values
                done += len(features)
        if pixels.faults and errors == "raise":
            raise CptError(pixels.faults[min(pixels.faults)])
        table = pd.DataFrame(rows)
        table.attrs["errors"] = [(paths[place], pixels.faults[place]) for place in sorted(pixels.faults)]
        return table

    def encode_images(self, images: OneImage | Iterable[OneImage]) -> NDArray[np.float32]:
        """Return unit-norm image features (N, D) under the learned prompts; ``images`` as for ``predict``.

        Where a method classifies several crops of an image, they are the mean of the crops' unit features.

        Raises:
            CptError: an image cannot be read.
        """
        given = listed(images)
        pixels = self._pixels(given)
        with torch.inference_mode():
            features = [part.float().cpu().numpy() for part in self._batches(pixels, len(given))]
        if pixels.faults:
            raise CptError(pixels.faults[min(pixels.faults)])
        return np.concatenate(features) if features else np.empty((0, self.method.feature_width), np.float32)

    def encode_texts(self, classes: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Return unit-norm text features (K, D) of classes under the learned prompts, of the trained ones by default.

        ``logit_scale * encode_images(images) @ encode_texts().T`` are the logits of ``predict``, unless
        ``method.own_classifier`` says that the method classifies otherwise.

        Raises:
            CptError: the method's texts depend on the image (CoCoOp), or a name is too long for the backbone.
        """
        chosen, trained = self._classes(classes)
        with torch.inference_mode():
            text = self._text(chosen, trained)
        if text is None:
            raise CptError(f"{self.record['method']}: its text features depend on the image; use predict")
        return text.float().cpu().numpy()

    def export(self, path: str | Path, classes: Sequence[str] | None = None) -> None:
        """Write the classifier for other programs: ``.npz``, ``.safetensors`` or ``.onnx`` (``cpt.api.export``)."""
        from cpt.api.export import export

        names = self.class_names if classes is None else classes
        export(Path(path), self.method, self.record, names, torch.from_numpy(self.encode_texts(classes)))

    def words(self, top: int = 3) -> pd.DataFrame:
        """Return the words nearest to each learned context vector (``cpt.api.words``)."""
        from cpt.api.words import words

        return words(self.method, self.backbone, self.class_names, top)

    # ---- inside ------------------------------------------------------------------------------------

    def _classes(self, names: Sequence[str] | None) -> tuple[Classes, bool]:
        """The classes of some names, and whether they are the trained ones."""
        if names is None or tuple(names) == self.class_names:
            return self._trained.classes, True
        if isinstance(names, str) or not names:
            raise CptError(f"classes: {names!r} is no list of names; write ['cat', 'dog']")
        from cpt.clip.make_backbone import load_tokenizer

        clip = self.method.clip
        made = encode_classes(clip, load_tokenizer(self.backbone), list(names), *self._trained.templates)
        return made.to(clip.device), False

    def _text(self, classes: Classes, trained: bool) -> torch.Tensor | None:
        """(K, D) text features; None where they depend on the image."""
        self.method.target(trained=trained)
        return None if self.method.image_conditioned else self.method.text_features(classes)

    def _pixels(self, images: Sequence[OneImage]) -> Pixels:
        return Pixels(images, self.method.clip.image_size[0], self.method.clip.resizing)

    def _batches(self, pixels: Pixels, count: int) -> Iterator[torch.Tensor]:
        """Features (B, D) by which the images are classified, by batch."""
        if count:
            method = self.method
            yield from encode(method.clip, pixels, np.arange(count), method.test_features, method.test_crops)


def load(
    run: str | Path,
    *,
    results: str | Path | None = None,
    device: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
) -> Model:
    """Load a finished run, ready to classify images.

    Args:
        run: folder of the run, ``results/<experiment>/runs/…/s1``, or of an experiment of one run, as ``cpt.fit``
            makes, or ``hub:owner/name`` for one on a hub, which is fetched into the hub's cache.
        results: folder of the experiment, with the backbone; by default the nearest from ``run`` upward that has one.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
        precision: of the frozen towers; by default that of the training.
        threads: of torch on a CPU; as many as it already uses by default.

    Raises:
        CptError: this is no finished run, or a file that it needs is missing.
    """
    name = str(run)
    folder = hub.cached(name.removeprefix(hub.PREFIX)) if name.startswith(hub.PREFIX) else Path(run)
    if not (folder / "run.json").is_file() and len(only := list(folder.glob("runs/**/run.json"))) == 1:
        folder = only[0].parent
    require_finished(folder)
    root = experiment_of(folder) if results is None else Path(results)
    trained = read_trained(folder, root, device, threads or torch.get_num_threads(), precision)
    return Model(trained, root / "backbone.json")
