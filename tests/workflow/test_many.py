"""Several commands in one job (``cpt many``): what fails does not cost what has succeeded."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from cpt.cli.app import run
from cpt.errors import CptError
from cpt.files.stage_files import read_json
from cpt.training.interruption import StoppedError
from cpt.workflow.many import Command, parse, run_all
from tests.helpers.experiment import train_inputs, train_words


class Job:
    """Commands that each write the text of their need, twice; ``broken`` ones fail."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ran, self.broken = folder, [], set()
        self.commands = []
        for name in "abc":
            (folder / f"{name}.need").write_text(name)
            makes = [folder / "out" / name / "first", folder / "out" / name / "second"]
            self.commands.append(
                Command(words=["make", name], needs=[folder / f"{name}.need"], makes=makes, keep=folder / "kept" / name)
            )

    def attempt(self) -> None:
        """What Snakemake does: outputs are removed before it, and after a failure."""
        self.ran = []
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        run_all(self.commands, self._run, lambda line: None)

    def _run(self, words: list[str]) -> None:
        name = words[-1]
        self.ran.append(name)
        if name in self.broken:
            raise CptError("broken")
        for which in ("first", "second"):
            path = self.folder / "out" / name / which
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text((self.folder / f"{name}.need").read_text() + which)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_a_retry_repeats_only_what_failed(job: Job) -> None:
    job.broken = {"b"}
    with pytest.raises(CptError, match=r"1 of 3 failed: 2/3 make .*out/b; the finished ones are kept"):
        job.attempt()
    assert job.ran == ["a", "b", "c"]
    job.broken = set()
    job.attempt()
    assert job.ran == ["b"]
    assert {path.name: path.read_text() for path in (job.folder / "out/a").iterdir()} == {
        "first": "afirst",
        "second": "asecond",
    }
    assert not list((job.folder / "kept").iterdir()), "a whole job keeps nothing"


@pytest.mark.parametrize("change", ["need", "words", "code", "kept file"])
def test_what_has_changed_is_not_taken_from_an_earlier_attempt(job: Job, change: str) -> None:
    job.broken = {"c"}
    with pytest.raises(CptError):
        job.attempt()
    first = job.commands[0]
    if change == "need":
        (job.folder / "a.need").write_text("other")
    elif change == "words":
        job.commands[0] = first.model_copy(update={"words": ["make", "--differently", "a"]})
    elif change == "code":
        job.commands[0] = first.model_copy(update={"code": "2"})
    else:
        (first.keep / "first").write_text("damaged")
    job.broken = set()
    job.attempt()
    assert job.ran == ["a", "c"]
    assert (job.folder / "out/a/first").read_text() == (job.folder / "a.need").read_text() + "first"


def test_an_unexpected_error_does_not_end_the_others(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real = job._run
    monkeypatch.setattr(job, "_run", lambda words: 1 / 0 if words[-1] == "a" else real(words))
    with pytest.raises(CptError, match="1 of 3 failed"):
        job.attempt()
    assert job.ran == ["b", "c"]


def test_a_signal_ends_the_job_and_a_retry_goes_on(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real = job._run

    def stopped(words: list[str]) -> None:
        if words[-1] == "b":
            raise StoppedError("SIGTERM: stopped at epoch 1, step 2")
        real(words)

    monkeypatch.setattr(job, "_run", stopped)
    with pytest.raises(StoppedError):
        job.attempt()
    assert job.ran == ["a"]
    monkeypatch.undo()
    job.attempt()
    assert job.ran == ["b", "c"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{", "is not a JSON object"), ("[]", "is not a JSON object"), ('{"words": ["score"]}', "needs"), ('"a"', "JSON")],
)
def test_other_arguments_are_refused(text: str, problem: str) -> None:
    with pytest.raises(CptError, match=problem):
        parse(text)


def test_trained_runs_are_those_of_single_jobs(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The real command: two trainings, one of them impossible."""
    good = train_inputs(results, "ivlp", hyperparameters={"epochs": 1}, checkpoint=tmp_path / "good.checkpoint")
    bad = train_inputs(results, "ivlp", hyperparameters={"epochs": -1}, checkpoint=tmp_path / "bad.checkpoint")
    made = ["prompts.safetensors", "history.parquet", "run.json"]
    texts = [
        json.dumps(
            {
                "words": train_words(inputs, tmp_path / name),
                "needs": [str(inputs.split)],
                "makes": [str(tmp_path / name / file) for file in made],
                "keep": str(tmp_path / f"{name}.train"),
            }
        )
        for name, inputs in (("bad", bad), ("good", good))
    ]
    monkeypatch.setattr(sys, "argv", ["cpt", "many", *texts, "--checkpoint-interval", "5", "--workers", "3"])
    assert run() == 1
    printed = capsys.readouterr()
    assert "epochs" in printed.out
    assert "1 of 2 failed" in printed.err
    monkeypatch.setattr(sys, "argv", ["cpt", *train_words(good, tmp_path / "alone")])
    assert run() == 0
    same = "prompts.safetensors"
    assert (tmp_path / "good" / same).read_bytes() == (tmp_path / "alone" / same).read_bytes()
    record = read_json(tmp_path / "good.train/run.json.provenance.json", "cpt.provenance/1")
    assert record["command"][:2] == ["cpt", "train"]
    assert record["path"] == str(tmp_path / "good/run.json")
