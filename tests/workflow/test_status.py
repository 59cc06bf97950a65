"""``cpt status`` on the files of an experiment that is half done."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from rich.console import Console

from cpt.experiment.config import Config, load
from cpt.experiment.resolved import load as load_workflow
from cpt.report.terminal.status import render
from cpt.workflow import instance
from cpt.workflow.status import DONE, FAILED, MISSING, RUNNING, Status, status

ROOT = Path(__file__).parents[2]
NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first look at the default experiment keeps for the next."""
    memory = tmp_path_factory.mktemp("memory") / "workflow.json"
    load_workflow(load([Path("config/config.yaml")]), "", memory)
    return memory


@pytest.fixture
def config(tmp_path: Path, resolved: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    (tmp_path / "config").symlink_to(ROOT / "config")
    (tmp_path / "work/embedded").mkdir(parents=True)
    shutil.copy(resolved, tmp_path / "work/embedded")
    monkeypatch.chdir(tmp_path)
    return load([Path("config/config.yaml")])


def runs() -> list[str]:
    return list(load_workflow(load([Path("config/config.yaml")]), "", Path("work/embedded/workflow.json")).runs)


ALL = ("run.json", "predictions.parquet", "metrics.parquet")


def finish(run: str, *, ago: float, files: tuple[str, ...] = ALL) -> None:
    for name in files:
        path = Path("results/embedded/runs", run, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (NOW - ago, NOW - ago))


def log(stage: str, run: str, text: str) -> Path:
    path = Path("logs/embedded", stage, f"{run}.log")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def look(config: Config) -> Status:
    return status(config, "config/config.yaml", NOW)


def printed(found: Status) -> str:
    console = Console(width=150, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(render(found))
    return console.export_text()


def test_nothing_has_begun(config: Config) -> None:
    found = look(config)
    assert found.counts() == {MISSING: len(runs())}
    assert (found.last, found.per_hour, found.hours_left(), found.worker, found.page) == (None, 0, None, None, False)
    assert f"0 of {len(runs())} runs done, {len(runs())} missing" in printed(found)


def test_half_done(config: Config) -> None:
    names = runs()
    finish(names[0], ago=7200)
    for name in names[1:5]:
        finish(name, ago=600)
    finish(names[5], ago=60, files=("run.json",))
    finish(names[6], ago=60, files=("run.json",))
    log("train", names[7], "IVLP: 80 images\nepoch 1/12  lr 1e-05  loss 2.1\n")
    failed = log("train", names[8], "IVLP: 80 images\ncpt: error: the loss of epoch 2 is nan; lower learning_rate\n")
    crashed = log("predict", names[6], "Traceback (most recent call last):\n  ...\nMemoryError\n")
    log(
        "train",
        names[9],
        "epoch 1/12  lr 1e-05  loss 2.1\ncpt: SIGTERM: stopped at epoch 2, step 3; checkpoint saved\n",
    )
    found = look(config)
    assert found.counts() == {DONE: 5, FAILED: 3, MISSING: len(names) - 8}, "nobody is at work: nothing runs"
    assert {f.log: f.line for f in found.failures if f.log in (failed, crashed)} == {
        failed: "cpt: error: the loss of epoch 2 is nan; lower learning_rate",
        crashed: "MemoryError",
    }
    assert (found.last, found.per_hour) == (600, 4)
    assert found.hours_left() == (len(names) - 5) / 4
    text = printed(found)
    assert f"failed: {failed}: cpt: error: the loss of epoch 2 is nan" in text
    assert "last run finished 10 min ago, 4 in the last hour; about" in text


def test_while_snakemake_works(config: Config) -> None:
    names = runs()
    log("train", names[0], "IVLP: 80 images\nepoch 1/12  lr 1e-05  loss 2.1\n")
    instance.claim(Path("work/embedded"))
    found = look(config)
    assert found.states[names[0]] == RUNNING
    assert f"at work: snakemake (pid {os.getpid()}) since" in printed(found)
    instance.release(Path("work/embedded"))
    assert look(config).states[names[0]] == MISSING


def test_all_done(config: Config) -> None:
    for name in runs():
        finish(name, ago=100)
    assert "`snakemake` makes the tables" in printed(look(config))
    page = Path("results/embedded/report/index.html")
    page.parent.mkdir(parents=True)
    page.touch()
    os.utime(page, (NOW, NOW))
    assert "report: results/embedded/report/index.html" in printed(look(config))


@pytest.mark.no_cover
def test_the_papers_grid_is_resolved_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes seconds; the next looks take what the first has kept."""
    paper = load([Path("config/paper.yaml")])
    first = status(paper, "config/paper.yaml", NOW)
    monkeypatch.setattr("cpt.experiment.resolved._resolved", lambda *_: pytest.fail("resolved again"))
    assert status(paper, "config/paper.yaml", NOW) == first


@pytest.mark.no_cover
def test_the_papers_grid_is_shown_by_method(config: Config) -> None:
    found = status(load([Path("config/paper.yaml")]), "config/paper.yaml", time.time())
    assert len(found.states) == found.counts()[MISSING] > 1000
    assert "DeKg" not in printed(found)
    assert "dekg_tcp" in printed(found)


def test_several_seeds_in_a_job_have_one_log(tmp_path: Path, config: Config) -> None:
    """Of a job for several seeds (runs_per_job) the log tells about all of them."""
    together = config.model_copy(update={"runs_per_job": 2})
    run = next(name for name in runs() if name.endswith("/s1") and name.removesuffix("1") + "2" in runs())
    failed = log("train", f"{Path(run).parent}/seeds_1_2", "1/2 train\ncpt: error: out of luck\n")
    found = look(together)
    assert found.states[run] == found.states[run.removesuffix("1") + "2"] == FAILED
    assert {failure.log for failure in found.failures} == {failed}
