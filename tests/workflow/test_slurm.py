"""The workflow through a real SLURM on this machine: what a grid goes through between Friday and Monday."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from cpt.workflow.verify import verify
from tests.helpers.slurm_cluster import Cluster, cluster
from tests.helpers.workflow import ONLY_TABLE_2, copy_project, snakemake

pytestmark = pytest.mark.slow

SMALL = {
    "extends": "config/config.yaml",
    "experiment": "small",
    "device": "auto",  # jobs ask for a GPU, and compute on the CPU where there is none
    "seeds": [1, 2],
    "imbalance_ratios": [0.25],
    "checkpoint_interval": 0.0,
    "overrides": [
        {"methods": ["coop"], "set": {"epochs": 2}},
        {"methods": ["ivlp"], "set": {"epochs": 120}},
    ],
    "tasks": ONLY_TABLE_2["tasks"],
    "exhibits": {
        **ONLY_TABLE_2["exhibits"],
        "table2": {"ratios": None, "variants": ["coop", "ivlp"]},
    },
}  # fmt: skip
SITE = {"default-resources": {"slurm_partition": "gpu"}, "slurm-init-seconds-before-status-checks": 3}
RUNS = "results/small/runs.parquet"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("slurm") / "cluster") as running:
        yield running


@pytest.fixture(scope="module")
def made_here(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The same experiment made without SLURM."""
    folder = tmp_path_factory.mktemp("here") / "project"
    copy_project(folder, root)
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    (folder / "many.yaml").write_text(yaml.safe_dump(SMALL | {"runs_per_job": 2}))
    (folder / "site").mkdir()
    (folder / "site/config.yaml").write_text(yaml.safe_dump(SITE))
    snakemake(folder, "--configfile", "small.yaml")
    return folder


@pytest.fixture
def project(made_here: Path, tmp_path: Path) -> Path:
    """A copy of it in which IVLP's runs, and the table of all runs, have still to be made."""
    folder = tmp_path / "project"
    shutil.copytree(made_here, folder)
    (folder / RUNS).unlink()
    for run in runs_of(folder, "ivlp"):
        shutil.rmtree(run)
    return folder


def runs_of(folder: Path, method: str) -> list[Path]:
    return sorted(folder.glob(f"results/small/runs/base_to_new/land/r0.25/{method}-*/s*"))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """A failed test leaves no Snakemake behind."""
    yield
    for process in Submitted.started:
        process.kill()
    Submitted.started.clear()


class Submitted:
    """``snakemake --workflow-profile slurm`` in the background.

    Args:
        words: as of Snakemake, such as a target.
        commands: folder whose programs go before those of the environment.
    """

    started: ClassVar[list[subprocess.Popen]] = []

    def __init__(self, folder: Path, *words: str, config: str = "small.yaml", commands: Path | None = None) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "CPT_FORK_SERVER"}
        first = [] if commands is None else [str(commands)]
        environment["PATH"] = os.pathsep.join([*first, str(Path(sys.executable).parent), environment["PATH"]])
        self.log, self.folder = folder / f"snakemake-{time.monotonic_ns()}.log", folder
        command = [sys.executable, "-m", "snakemake", "--workflow-profile", "slurm", "--profile", "site", *words]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [*command, "--configfile", config], cwd=folder, env=environment, stdout=log, stderr=log
            )
        self.started.append(self.process)

    @property
    def text(self) -> str:
        return self.log.read_text()

    def wait(self, seconds: float = 600) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(self.text[-4000:]) from None

    def finish(self) -> None:
        assert self.wait() == 0, self.text[-6000:]


def states(folder: Path) -> list[Path]:
    return list(folder.glob("work/small/**/*.checkpoint"))


def logs(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("logs/small/train/**/*.log")))


def same(folder: Path, made_here: Path) -> bool:
    return (folder / RUNS).read_bytes() == (made_here / RUNS).read_bytes()


def test_a_whole_grid_in_jobs_of_two_runs_one_job_per_gpu(slurm: Cluster, made_here: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(made_here, folder, ignore=shutil.ignore_patterns("runs", "runs.parquet", "splits", "work", "logs"))
    running, shared, used = threading.Event(), [], set()

    def watch() -> None:
        while not running.is_set():
            taken = re.findall(r"GRES=gpu:1\(IDX:(\d)\)", slurm.control("show", "job", "-d"))
            used.update(taken)
            shared.extend(index for index in set(taken) if taken.count(index) > 1)
            time.sleep(0.3)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        Submitted(folder, config="many.yaml").finish()
    finally:
        running.set()
        watcher.join()
    assert used == {"0", "1"}
    assert shared == []
    assert same(folder, made_here)
    assert not list(folder.glob("work/small/**/*.train"))
    assert verify(folder / "results/small").findings == []
    rules = {re.sub(r"rule_(\w+?)(_wildcards.*)?$", r"\1", job["Comment"]) for job in slurm.jobs()}
    assert {"train_seeds_1_2", "predict_seeds_1_2", "score_seeds_1_2", "split"} <= rules
    assert not {"aggregate", "table", "page", "grid", "backbone", "fetch"} & rules, "these are local"


def test_more_time_after_a_time_out_and_more_memory_after_a_kill(
    slurm: Cluster, made_here: Path, project: Path, tmp_path: Path
) -> None:
    """Nothing enforces memory on this cluster: a script does what the kernel does to a job that has too little."""
    commands = tmp_path / "commands"
    commands.mkdir()
    real = Path(sys.executable).parent / "cpt"
    (commands / "cpt").write_text(
        f"""#!/bin/bash
if [[ "$*" == "train "*"--seed 1 "* ]] && mkdir {tmp_path}/slow 2>/dev/null; then sleep 600; fi
if [[ "$*" == "train "*"--seed 2 "* ]] && mkdir {tmp_path}/killed 2>/dev/null; then kill -9 $$; fi
exec {real} "$@"
"""
    )
    (commands / "cpt").chmod(0o755)
    rule = project / "rules/train.smk"
    assert "growing(120)" in rule.read_text()
    rule.write_text(rule.read_text().replace("growing(120)", "growing(1)"))  # minutes
    known = {job["JobID"] for job in slurm.jobs()}
    Submitted(project, RUNS, commands=commands).finish()
    assert (tmp_path / "slow").is_dir()
    assert (tmp_path / "killed").is_dir()
    assert same(project, made_here)
    jobs = [job for job in slurm.jobs() if job["JobID"] not in known and job["Comment"].startswith("rule_train")]
    asked = {(job["State"], job["TimeLimit"], job["MinMemory"]) for job in jobs}
    assert asked == {
        ("TIMEOUT", "1:00", "8000M"),
        ("FAILED", "1:00", "8000M"),
        ("COMPLETED", "2:00", "16000M"),
    }


def test_a_requeued_job_and_a_lost_node_go_on_from_their_state(slurm: Cluster, made_here: Path, project: Path) -> None:
    submitted = Submitted(project, RUNS)
    slurm.wait_until(lambda: len(states(project)) == 2, "no state was saved")
    job = next(job["JobID"] for job in slurm.jobs("running") if job["Comment"].startswith("rule_train"))
    slurm.control("requeue", job)
    slurm.start_now([job])
    slurm.wait_until(lambda: "resuming at epoch" in logs(project), "the requeued job did not go on")
    lost = slurm.node_down()
    assert job in lost
    slurm.wait_until(
        lambda: set(lost) <= {each["JobID"] for each in slurm.jobs("pending")},
        "SLURM requeues what ran on a lost node",
    )
    slurm.node_up()
    slurm.start_now(lost)
    submitted.finish()
    assert "resuming at epoch" in logs(project)
    assert same(project, made_here)
    restarts = {job["JobID"]: int(job["RestartCnt"]) for job in slurm.jobs()}
    assert restarts[job] >= 2, "requeued once, lost once"
    assert all(restarts[each] >= 1 for each in lost)


def test_a_canceled_job_is_submitted_again(slurm: Cluster, made_here: Path, project: Path) -> None:
    submitted = Submitted(project, RUNS)
    slurm.wait_until(lambda: states(project), "no state was saved")
    job = next(job["JobID"] for job in slurm.jobs("running") if job["Comment"].startswith("rule_train"))
    subprocess.run(["scancel", job], check=True)
    submitted.finish()
    assert f"{job}" in submitted.text
    assert "resuming at epoch" in logs(project)
    assert same(project, made_here)


def test_a_second_snakemake_and_one_after_a_killed_one(slurm: Cluster, made_here: Path, project: Path) -> None:
    first = Submitted(project, RUNS)
    slurm.wait_until(lambda: states(project), "no state was saved")
    second = Submitted(project, RUNS)
    assert second.wait() == 1
    assert f"another snakemake (pid {first.process.pid} " in second.text
    assert re.search(rf"`kill -TERM {first.process.pid}`", second.text)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    third = Submitted(project, RUNS)
    assert third.wait() == 1
    assert "was killed" in third.text
    jobs = re.search(r"its SLURM jobs still run: `(scancel [\d ]+)`, then `snakemake --unlock`", third.text)
    assert jobs is not None, third.text
    subprocess.run(jobs[1].split(), check=True)
    snakemake(project, "--unlock", "--configfile", "small.yaml")
    Submitted(project, RUNS).finish()
    assert same(project, made_here)
