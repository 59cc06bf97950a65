"""What is still to come of an experiment in hours: stage by stage, and with several runs at once on several GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cpt.costs import host_model

TOGETHER = 3
"""Runs at once on a GPU that the hours are also told for, if they fit."""
REPORTS = "tables, figures, page"


class Stage(NamedTuple):
    """Seconds of a kind of work: a GPU computes, CPU cores compute, and all of it with one job at a time."""

    name: str
    gpu_seconds: float
    core_seconds: float
    alone_seconds: float


@dataclass
class ToCome:
    """What is still to come.

    Attributes:
        trainings, predictions, exhibits: numbers of jobs; an exhibit is a table, a figure or a page.
        train, busy: seconds of all steps, and those of them in which the GPU is busy.
        augment, decode, measure: core seconds of training images and of the measures after epochs.
        test, images: seconds of all test images, and their number.
        frozen: seconds of frozen image features.
        cached: images of the image caches.
    """

    trainings: int = 0
    predictions: int = 0
    exhibits: int = 0
    train: float = 0.0
    busy: float = 0.0
    augment: float = 0.0
    decode: float = 0.0
    measure: float = 0.0
    test: float = 0.0
    images: int = 0
    frozen: float = 0.0
    cached: int = 0

    def stages(self, threads: int, *, on_gpu: bool) -> list[Stage]:
        """Seconds by stage; jobs have so many threads."""
        starts = (host_model.START if on_gpu else host_model.START_CPU) * (self.trainings + self.predictions)
        rows, caches = host_model.PREDICTION * self.images, host_model.CACHE * self.cached
        scores = host_model.SCORE * self.predictions + host_model.SCORE_IMAGE * self.images
        reports = host_model.REPORT * self.exhibits + host_model.REPORT_RUN * self.predictions
        return [
            Stage("training: steps, augmented images", on_gpu * self.busy, self.augment, self.train),
            Stage("training: images decoded", 0, self.decode, self.decode / threads),
            Stage("training: measures after epochs", 0, self.measure, self.measure),
            Stage("starts of trainings and predictions", 0, starts, starts),
            Stage("evaluation", on_gpu * self.test, rows, self.test + rows),
            Stage("frozen image features", on_gpu * self.frozen, 0, self.frozen),
            Stage("image caches", 0, caches, caches / threads),
            Stage("scores, beside a GPU's jobs", 0, scores, 0 if on_gpu else scores),
            Stage(REPORTS, 0, reports, reports),
        ]


def schedule(stages: Sequence[Stage], cards: int, most: int) -> Iterator[dict[str, float]]:
    """Yield the seconds of all stages, with one run at a time on a GPU and with several.

    Runs that share a GPU take its time in turn and hide what each does without it. So they need the longer of the GPU's
    own time and of their shares of all jobs' time. Reports come last.

    Args:
        cards: number of GPUs, beside one.
        most: runs that fit a GPU.
    """
    gpu, alone = (sum(getattr(stage, name) for stage in stages) for name in ("gpu_seconds", "alone_seconds"))
    last = sum(stage.alone_seconds for stage in stages if stage.name == REPORTS)
    for runs in sorted({1, min(TOGETHER, most)}):
        share = host_model.SHARING if runs > 1 else 1.0
        for number in sorted({1, cards}):
            seconds = last + max(gpu / share / number, (alone - last) / (runs * number))
            yield {"cards": number, "runs": runs, "seconds": seconds}
