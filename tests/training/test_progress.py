"""The epochs of a training while it runs: a file of JSON lines, and TensorBoard's events."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cpt.errors import CptError
from cpt.files.paths import HISTORY
from cpt.files.stage_files import read_parquet
from cpt.training import interruption
from cpt.training.interruption import StoppedError
from cpt.training.progress import Progress
from cpt.training.train import train
from tests.helpers.experiment import train_inputs

ROWS = [{"epoch": epoch, "steps": 2, "loss": 1.0 / epoch, "seconds": float(epoch)} for epoch in (1, 2, 3)]


def read(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def test_lines_are_appended_and_deleted_at_the_end(tmp_path: Path) -> None:
    lines = tmp_path / "work/s1.history.jsonl"
    progress = Progress(lines, None)
    progress.begin([])
    assert read(lines) == []
    for count, row in enumerate(ROWS, 1):
        progress.add(row)
        assert read(lines) == ROWS[:count]
    progress.end()
    assert list(lines.parent.iterdir()) == []


@pytest.mark.parametrize("left", ["", '{"epoch": 1}\n{"epoch": 2}\n{"epo', '{"epoch": 1}\n' * 7])
def test_what_an_interrupted_training_left_is_replaced(tmp_path: Path, left: str) -> None:
    lines = tmp_path / "s1.history.jsonl"
    lines.write_text(left)
    progress = Progress(lines, None)
    progress.begin(ROWS[:1])
    progress.add(ROWS[1])
    assert read(lines) == ROWS[:2]


def test_values_that_json_lacks_are_null(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "lines", None)
    progress.begin([{"epoch": 1, "alignment": float("nan")}])
    assert read(tmp_path / "lines") == [{"epoch": 1, "alignment": None}]


def test_training_goes_on_where_the_lines_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "lines").mkdir()
    told: list[str] = []
    progress = Progress(tmp_path / "lines", None, told.append)
    progress.begin([])
    for row in ROWS:
        progress.add(row)
    progress.end()
    (line,) = told
    assert line.startswith(f"the history of epochs is not written while training: {tmp_path / 'lines'}: is no regular")


def test_an_interrupted_training_has_every_epoch_once(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after saving and killed after more epochs than it saved; the result has the same rows as the lines."""
    lines, seen = tmp_path / "work/s1.history.jsonl", []
    options = {"hyperparameters": {"epochs": 6}, "checkpoint": tmp_path / "work/s1.checkpoint"}
    inputs = train_inputs(results, "coop", checkpoint_interval=1e9, **options)

    def after(count: int, what: Any) -> Any:
        def log(line: str) -> None:
            if line.startswith("epoch "):
                seen.append(line)
                if len(seen) == count:
                    what()

        return log

    with monkeypatch.context() as patch:
        stop = after(2, lambda: patch.setattr(interruption, "received", lambda: signal.SIGINT))
        with pytest.raises(StoppedError):
            train(inputs, tmp_path / "run", stop)
    rows = read(lines)
    assert [row["epoch"] for row in rows] == [1, 2]

    def die() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        train(inputs, tmp_path / "run", after(5, die))
    assert [row["epoch"] for row in read(lines)] == [1, 2, 3, 4]
    last = []

    def read_before_the_end(line: str) -> None:
        if line.startswith("epoch 6/"):
            last.extend(read(lines))

    train(inputs, tmp_path / "run", read_before_the_end)
    assert [row["epoch"] for row in last] == [1, 2, 3, 4, 5]
    assert not lines.exists()
    history, _ = read_parquet(tmp_path / "run/history.parquet", HISTORY)
    assert history.to_pylist()[:5] == last
    assert last[:2] == rows
    train(train_inputs(results, "coop", hyperparameters={"epochs": 6}), tmp_path / "whole")
    assert (tmp_path / "run/prompts.safetensors").read_bytes() == (tmp_path / "whole/prompts.safetensors").read_bytes()


def test_tensorboard_gets_the_rows(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stand-in for its writer; it is given the run's folder, and from which epoch on its older events are void."""
    written: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def flush(self) -> None:
            written.append("flushed")

        def close(self) -> None:
            written.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    output = tmp_path / "results/mine/runs/base_to_new/land/r1/coop-0/s1"
    train(train_inputs(results, "coop", tensorboard=tmp_path / "events"), output)
    history = read_parquet(output / "history.parquet", HISTORY)[0].to_pylist()
    assert written[0] == (str(tmp_path / "events/mine/base_to_new/land/r1/coop-0/s1"), 1)
    assert [each for each in written if each[0] == "loss"] == [("loss", row["loss"], row["epoch"]) for row in history]
    assert (written.count("flushed"), written[-1]) == (2, "closed")
    train(train_inputs(results, "coop"), tmp_path / "without")
    assert (output / "prompts.safetensors").read_bytes() == (tmp_path / "without/prompts.safetensors").read_bytes()
    written.clear()
    resumed = Progress(None, tmp_path / "events")
    resumed.begin(ROWS[:2])
    assert written == [(str(tmp_path / "events"), 3)]


def test_the_real_writer(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for before in (0, 1):  # the second resumes, and writes epoch 2 again
        progress = Progress(None, tmp_path)
        progress.begin(ROWS[:before])
        for row in ROWS[before:]:
            progress.add(row)
        progress.end()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "seconds"]
    assert [(event.step, event.value) for event in events.Scalars("seconds")] == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_without_tensorboard_it_says_what_to_install(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(CptError, match="is not installed; run `pip install tensorboard`"):
        train(train_inputs(results, "coop", tensorboard=tmp_path), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    untrained = train_inputs(results, "zeroshot", tensorboard=tmp_path / "events")
    untrained.hyperparameters.clear()
    train(untrained, tmp_path / "run")
    assert (tmp_path / "run/run.json").exists()
    assert not (tmp_path / "events").exists(), "it has no epochs"
