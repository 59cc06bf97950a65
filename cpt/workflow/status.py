"""How far an experiment is, from its files alone: it may be running, and nothing is asked of it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cpt.experiment.config import Config
from cpt.experiment.resolved import load
from cpt.experiment.stages import Stages
from cpt.files import paths
from cpt.workflow.instance import working

STAGES = {"train": paths.TRAINED[0], "predict": paths.PREDICTED[0], "score": paths.SCORED[0]}
"""Stages of a run in order, with the file that says that it is done."""

DONE, RUNNING, FAILED, MISSING = "done", "running", "failed", "missing"
RECENT = 3600.0
"""Seconds over which the speed is measured."""


@dataclass(frozen=True)
class Failure:
    """A run whose last attempt failed: its log and the line that says why."""

    run: str
    log: Path
    line: str


@dataclass(frozen=True)
class Status:
    """The state of an experiment.

    Attributes:
        experiment: its name.
        worker: who works on it now, None if nobody.
        states: state by run.
        methods, datasets: of every run.
        failures: what failed.
        last: seconds since the last run was finished; None before the first.
        per_hour: runs finished in the last hour.
        page: whether the report is there and newer than every run.
    """

    experiment: str
    worker: str | None
    states: dict[str, str]
    methods: dict[str, str]
    datasets: dict[str, str]
    failures: list[Failure]
    last: float | None
    per_hour: int
    page: bool

    def counts(self) -> Counter[str]:
        """Number of runs by state."""
        return Counter(self.states.values())

    def hours_left(self) -> float | None:
        """Hours to go at the speed of the last hour; None without one."""
        left = len(self.states) - self.counts()[DONE]
        return left / self.per_hour if self.per_hour and left else None


def status(config: Config, source: str, now: float | None = None) -> Status:
    """Look at an experiment's files, in the folder where Snakemake is started.

    Args:
        source: where the configuration came from, for messages.
        now: seconds since the epoch; default: the time of the call.

    Raises:
        CptError: the configuration cannot be resolved.
    """
    now = time.time() if now is None else now
    work = Path("work", config.experiment)
    plan = load(config, source, work / "workflow.json")
    stages = Stages(config, plan)
    worker = working(work)
    states, failures, finished = {}, [], []
    for run in plan.runs:
        times = {stage: _time(Path(plan.root, "runs", run, name)) for stage, name in STAGES.items()}
        if (scored := times["score"]) is not None:
            states[run] = DONE
            finished.append(scored)
            continue
        stage = next(stage for stage, when in times.items() if when is None)
        log = Path(stages.log(stage, run))
        states[run], line = _unfinished(log, worker is not None)
        if states[run] == FAILED:
            failures.append(Failure(run, log, line))
    page = _time(Path(plan.root, "report/index.html"))
    return Status(
        experiment=config.experiment,
        worker=worker,
        states=states,
        methods={run: job.method for run, job in plan.runs.items()},
        datasets={run: job.dataset for run, job in plan.runs.items()},
        failures=failures,
        last=max(0.0, now - max(finished)) if finished else None,
        per_hour=sum(now - when < RECENT for when in finished),
        page=page is not None and page >= max(finished, default=0.0),
    )


def _time(path: Path) -> float | None:
    """When a file was written, None if it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _unfinished(log: Path, at_work: bool) -> tuple[str, str]:
    """State of a run that is not finished, by its log, and the line that tells it."""
    try:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return MISSING, ""
    last = lines[-1] if lines else ""
    told = next((line for line in reversed(lines) if line.startswith("cpt: ")), None)
    if told is not None or (lines and not last.startswith(("epoch", "resuming")) and "Traceback" in "".join(lines)):
        return FAILED, told or last
    return (RUNNING, last) if at_work else (MISSING, last)
