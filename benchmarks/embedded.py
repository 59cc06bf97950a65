"""Line ``embedded``: a training step of the tiny CLIP, where launching operators costs more than computing them."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

from benchmarks import experiment
from benchmarks.counters import Cost, cost
from benchmarks.rows import Row
from benchmarks.timing import Pairs, Settings
from cpt.files.paths import HISTORY
from cpt.files.stage_files import read_parquet
from cpt.training.train import TrainInputs, train

IMAGES, BATCH, EPOCHS = 16, 16, 3


def lines(settings: Settings) -> list[Row]:
    """A step with 16 images; and one with 32, which is what training two seeds as one batch could win at most."""
    results = experiment.prepare(settings.folder / "embedded", "embedded", experiment.land_entry(IMAGES), IMAGES)
    given = experiment.inputs(results, "land", 2, 1)
    folders = (results / f"runs/{number}" for number in itertools.count())

    def step(batch: int) -> float:
        """Seconds of a step after the first epoch, which warms up."""
        rows = _history(_with(given, batch, EPOCHS), next(folders))
        return (rows[-1]["seconds"] - rows[0]["seconds"]) / ((EPOCHS - 1) * rows[0]["steps"])

    pairs = Pairs([], [])
    for _ in range(settings.repeats):
        pairs.naive.append(2 * step(BATCH))
        pairs.ours.append(step(2 * BATCH))
        settings.log(
            f"  two steps with {BATCH} images {pairs.naive[-1]:.3g} s, one with {2 * BATCH} {pairs.ours[-1]:.3g} s"
        )
    single = {"ours": pairs.row()["naive"] / 2, "repeats": settings.repeats}
    counted = _cost(given, next(folders), next(folders))
    return [
        Row("embedded", "training step, 16 images", "s", **single, **counted._asdict()),
        Row("embedded", "one step with 32 images / two with 16", "s", **pairs.row()),
    ]


def _with(given: TrainInputs, batch: int, epochs: int) -> TrainInputs:
    return dataclasses.replace(
        given, hyperparameters={**given.hyperparameters, "batch_size": batch, "epochs": epochs, "depth_vision": 3}
    )


def _history(inputs: TrainInputs, run: Path) -> list[dict[str, float]]:
    train(inputs, run, lambda _: None)
    return read_parquet(run / "history.parquet", HISTORY)[0].to_pylist()


def _cost(given: TrainInputs, one: Path, two: Path) -> Cost:
    """Operations and bytes of a step: those of an epoch by its steps, with the text features at its end."""
    history: list[dict[str, float]] = []
    first = cost(lambda: _history(_with(given, BATCH, 1), one))
    both = cost(lambda: history.extend(_history(_with(given, BATCH, 2), two)))
    return (both + first.times(-1)).times(1 / history[0]["steps"])
