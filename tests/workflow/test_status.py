"""``cpt status`` on the files of an experiment that is half done."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
from rich.console import Console

from cpt.cli.app import run
from cpt.experiment.config import Config, load
from cpt.experiment.resolved import load as load_workflow
from cpt.experiment.stages import Stages
from cpt.report.terminal.status import render
from cpt.workflow import instance
from cpt.workflow.logs import FAILED, STOPPED
from cpt.workflow.status import DONE, MISSING, RUNNING, At, Progress, Status, status

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


def log(stage: str, run: str, text: str, ago: float = 0.0) -> Path:
    return written(Path("logs/embedded", stage, f"{run}.log"), text, ago)


def written(path: Path, text: str, ago: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (NOW - ago, NOW - ago))
    return path


def begin(ago: float) -> None:
    """This process is the Snakemake that works on the experiment."""
    instance.claim(Path("work/embedded"))
    os.utime("work/embedded/snakemake.json", (NOW - ago, NOW - ago))


def look(config: Config) -> Status:
    return status(config, "config/config.yaml", NOW)


def printed(found: Status, width: int = 150) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(render(found))
    return console.export_text()


def test_nothing_has_begun(config: Config) -> None:
    found = look(config)
    assert found.counts() == {MISSING: len(runs())}
    assert found.before.keys() == found.after.keys() == {MISSING}
    assert (found.last, found.recent, found.seconds_left(), found.worker, found.page) == (None, 0, None, None, False)
    text = printed(found)
    assert f"0 of {len(runs())} runs done, {len(runs())} missing" in text
    assert "nobody is at work, or a Snakemake that began in the last half minute still counts its jobs" in text


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
    saved = "cpt: SIGTERM: stopped at epoch 2, step 3; checkpoint saved\n"
    log("train", names[9], f"epoch 1/12  lr 1e-05  loss 2.1\n{saved}")
    log("predict", names[5], "Traceback (most recent call last):\n  ...\nKeyboardInterrupt\n")
    log("train", names[10], "cpt: notice: this is no failure\n")
    found = look(config)
    assert found.counts() == {DONE: 5, FAILED: 2, STOPPED: 2, MISSING: len(names) - 9}, "nobody is at work"
    assert found.failures == [
        At(f"predict {names[6]}", crashed, "MemoryError"),
        At(f"train {names[8]}", failed, "cpt: error: the loss of epoch 2 is nan; lower learning_rate"),
    ]
    assert (found.last, found.recent) == (600, 4)
    text = printed(found)
    assert f"failed: train {names[8]}: cpt: error: the loss of epoch 2 is nan" in text
    assert f"log: {failed}\n" in text
    assert re.search("last run finished 10 min ago *\n", text), "nobody is at work: no time to go"


def test_every_kind_of_job_is_told_of_when_it_fails(config: Config) -> None:
    """The jobs that are of no run; ``test_paper_workflow`` compares their logs with those that the rules write."""
    jobs = Stages(config, load_workflow(config, "", Path("work/embedded/workflow.json"))).jobs
    shared = {rule: made[0] for rule, made in jobs.items() if rule not in ("train", "predict", "score", "all")}
    logs = {
        "grid": "grid.log", "backbone": "backbone.log", "data": "data/{}.log", "split": "splits/{}.log",
        "text_features": "features/{}.log", "image_features": "features/{}.log", "clusters": "clusters/{}.log",
        "aggregate": "aggregate.log", "table": "tables/{}.log", "figure": "figures/{}.log", "ledger": "ledger.log",
        "audit": "audit.log", "page": "page.log",
    }  # fmt: skip
    assert shared.keys() == logs.keys()
    for rule, made in shared.items():
        name = made.removeprefix("results/embedded/")
        told = name.split("/")[1] if rule == "data" else name.partition("/")[2].rpartition(".")[0]
        path = written(Path("logs/embedded", logs[rule].format(told)), f"cpt: error: no luck with {rule}\n")
        assert At(f"{rule} {name}", path, f"cpt: error: no luck with {rule}") in look(config).failures
    found = look(config)
    assert (found.before[FAILED], found.after[FAILED]) == (7, 6)
    assert "jobs before the runs: 0 of" in printed(found)


def test_the_same_cause_is_told_once(config: Config) -> None:
    names = runs()
    first = log("train", names[0], "cpt: error: out of luck\n")
    for name in names[1:4]:
        log("train", name, "cpt: error: out of luck\n")
    text = printed(look(config))
    assert f"failed: train {names[0]} and 3 more: cpt: error: out of luck" in text
    assert f"log: {first}" in text


def test_a_job_that_ended_without_a_word_is_told_of_by_snakemake(config: Config) -> None:
    names = runs()
    begin(ago=600)
    cut = [log("train", name, "IVLP: 80 images\nepoch 1/12  lr 1e-05  loss 2.1\n", ago=60) for name in names[:2]]
    began = "rule train:\n    log: {}\n    jobid: 1\n"
    ended = "Error in rule train:\n    log: {} (check log file(s) for error details)\nTrying to restart job 1.\n"
    text = began.format(cut[0]) + ended.format(cut[0]) + began.format(cut[1]) + ended.format(cut[1])
    seen = written(Path(".snakemake/log/1.snakemake.log"), text + began.format(cut[1]))
    written(Path(".snakemake/log/0.snakemake.log"), ended.format(cut[1]), ago=60)
    found = look(config)
    assert (found.states[names[0]], found.states[names[1]]) == (FAILED, RUNNING), "the second was started again"
    (failure,) = found.failures
    assert str(seen) in failure.line
    (again,) = found.running
    assert again.failed == seen
    text = printed(found)
    assert f"running: train {names[1]}\n  tried again: it failed before, see {seen}" in text
    assert f"  none of {again.progress.epochs} epochs finished yet" in text


def test_a_failure_is_past_once_the_job_has_begun_again(config: Config) -> None:
    """A Snakemake called with ``--quiet rules`` leaves no word of its jobs in its own log."""
    names = runs()
    told = "rule train:\n    log: {0}\nError in rule train:\n    log: {0} (check log file(s) for error details)\n"
    text = "".join(told.format(f"logs/embedded/train/{name}.log") for name in names[:2])
    written(Path(".snakemake/log/1.snakemake.log"), text, ago=300)
    log("train", names[0], "IVLP: 80 images\nepoch 1/12  lr 1e-05  loss 2.1\n", ago=60)
    log("train", names[1], "IVLP: 80 images\n", ago=400)
    assert [look(config).states[name] for name in names[:2]] == [MISSING, FAILED], "nobody is at work"
    begin(ago=200)
    found = look(config)
    assert [found.states[name] for name in names[:2]] == [RUNNING, MISSING]
    assert found.failures == []


def test_a_training_that_failed_again_is_not_done(config: Config) -> None:
    """Snakemake has deleted what it made before; predictions and metrics are still those of the earlier one."""
    names = runs()
    for name in names:
        finish(name, ago=60)
    root = Path("results/embedded")
    written(root / "report/index.html", "", ago=10)
    assert look(config).counts() == {DONE: len(names)}
    (root / "runs" / names[0] / "run.json").unlink()
    failed = log("train", names[0], "cpt: error: the loss of epoch 1 is nan; lower learning_rate\n")
    found = look(config)
    assert found.counts() == {DONE: len(names) - 1, FAILED: 1}
    assert [(at.log, at.line) for at in found.failures] == [
        (failed, "cpt: error: the loss of epoch 1 is nan; lower learning_rate")
    ]
    assert not found.finished


def test_while_snakemake_works(config: Config) -> None:
    names = runs()
    own = log("train", names[0], "IVLP: 80 images\nepoch 1/12  lr 1e-05  loss 2.1\n", ago=60)
    log("train", names[1], "IVLP: 80 images\nepoch 1/12  lr 1e-05  loss 2.1\n", ago=700)
    rows = [{"epoch": epoch, "loss": 3.0 / epoch, "seconds": 20.0 * epoch} for epoch in (1, 2, 3)]
    written(Path(f"work/embedded/{names[0]}.history.jsonl"), "".join(json.dumps(row) + "\n" for row in rows), ago=5)
    begin(ago=600)
    found = look(config)
    assert (found.states[names[0]], found.states[names[1]]) == (RUNNING, MISSING), "the second is an earlier call's"
    epochs = json.loads(load_workflow(config, "", Path("work/embedded/workflow.json")).runs[names[0]].hyperparameters)
    (running,) = found.running
    assert running == At(f"train {names[0]}", own, progress=Progress(3, epochs["epochs"], 1.0, running.progress.left))
    assert running.progress.left == pytest.approx(20.0 * (epochs["epochs"] - 3) - 5)
    text = printed(found, 80)
    assert f"at work: snakemake (pid {os.getpid()}) since" in text
    assert f"running: train {names[0]}\n" in re.sub(" +\n", "\n", text)
    assert f"epoch 3 of {epochs['epochs']}, loss 1.0000, " in text
    assert f"log: {own}" in re.sub(" +\n", "\n", text)
    instance.release(Path("work/embedded"))
    assert look(config).states[names[0]] == MISSING


def test_the_time_to_go_is_rough_while_few_runs_are_finished(config: Config) -> None:
    names = runs()
    begin(ago=1200)
    finish(names[0], ago=60)
    finish(names[1], ago=1500)
    found = look(config)
    assert (found.recent, found.span) == (1, 1200), "since Snakemake began"
    assert found.seconds_left() == 1200 * (len(names) - 2)
    assert "to go at the speed of one run" in printed(found)
    assert "; roughly " in printed(found)
    for name in names[2:6]:
        finish(name, ago=60)
    assert look(config).seconds_left() == pytest.approx(1200 / 5 * (len(names) - 6))
    assert re.search("; about .* to go at the speed of the last 5 runs", printed(look(config)))
    os.utime("work/embedded/snakemake.json", (NOW - 90_000, NOW - 90_000))
    assert (look(config).recent, look(config).span) == (6, 3600)
    instance.release(Path("work/embedded"))


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
def test_the_papers_grid_is_readable_at_80_columns(config: Config) -> None:
    found = status(load([Path("config/paper.yaml")]), "config/paper.yaml", time.time())
    assert len(found.states) == found.counts()[MISSING] > 1000
    text = printed(found, 80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for names in (found.datasets, found.methods):
        for name in names.values():
            assert re.search(rf"(^|\s){name}\s+0/\d+\s", text), name


def test_several_seeds_in_a_job_have_one_log(tmp_path: Path, config: Config) -> None:
    """Of a job for several seeds (runs_per_job) the log tells about all of them, one after the other."""
    together = config.model_copy(update={"runs_per_job": 2})
    run = next(name for name in runs() if name.endswith("/s1") and name.removesuffix("1") + "2" in runs())
    other = run.removesuffix("1") + "2"
    folders = [f"results/embedded/runs/{name}" for name in (run, other)]
    first = f"1/2 train {folders[0]}\ncpt: error: out of luck\n"
    job = log("train", f"{Path(run).parent}/seeds_1_2", first)
    found = look(together)
    assert (found.states[run], found.states[other]) == (FAILED, MISSING)
    log("train", f"{Path(run).parent}/seeds_1_2", f"{first}2/2 train {folders[1]}\nepoch 1/2\n")
    begin(ago=60)
    found = look(together)
    assert (found.states[run], found.states[other]) == (FAILED, RUNNING)
    assert {at.log for at in (*found.failures, *found.running)} == {job}
    instance.release(Path("work/embedded"))


@pytest.mark.usefixtures("config")
def test_watched_into_a_pipe_a_line_tells_of_every_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    names = runs()

    def pass_time(_: float) -> None:
        done = len(list(Path("results/embedded").rglob("metrics.parquet")))
        if done < 2:
            finish(names[done], ago=0)
            monkeypatch.setattr(time, "sleep", lambda _: monkeypatch.setattr(time, "sleep", pass_time))
        else:
            for name in names:
                finish(name, ago=0)
            written(Path("results/embedded/report/index.html"), "page")

    monkeypatch.setattr(time, "sleep", pass_time)
    monkeypatch.setattr("sys.argv", ["cpt", "status", "--watch"])
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    count = len(names)
    assert lines[:3] == [f"embedded: {n} of {count} runs done, {count - n} missing" for n in range(3)]
    assert lines[3].rstrip() == f"embedded: {count} of {count} runs done"
    assert lines[-1].rstrip() == "report: results/embedded/report/index.html"
