"""The progress of an experiment, read from its files alone: a running Snakemake is not asked."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cpt.experiment.config import Config
from cpt.experiment.resolved import load
from cpt.experiment.stages import Stages
from cpt.files import paths
from cpt.workflow import logs
from cpt.workflow.instance import began, working
from cpt.workflow.logs import FAILED

STAGES = {"train": paths.TRAINED[0], "predict": paths.PREDICTED[0], "score": paths.SCORED[0]}
"""Stages of a run in order, with the file that says that it is done."""

DONE, RUNNING, MISSING = "done", "running", "missing"
"""States of jobs and runs, beside ``failed`` and ``stopped``: ended by a signal, the same command resumes."""

REPORT = ("aggregate", "table", "figure", "ledger", "audit", "page")
"""Rules after the runs; those that are not of runs are before them."""

RECENT = 3600.0
"""Seconds over which the speed is measured."""


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        epoch, epochs: finished ones, and all.
        loss: mean over the last finished epoch.
        left: seconds to go at its mean speed; None before the first epoch is finished.
    """

    epoch: int
    epochs: int
    loss: float | None
    left: float | None


@dataclass(frozen=True)
class At:
    """A job that runs, or whose last attempt failed or was stopped.

    Attributes:
        job: its stage and the run or file that it makes.
        log: its log.
        line: the line of the log that says why it ended; empty while it runs.
        progress: of a training that runs.
        failed: Snakemake's log of its failed attempt, where it is tried again.
    """

    job: str
    log: Path
    line: str = ""
    progress: Progress | None = None
    failed: Path | None = None


@dataclass(frozen=True)
class Status:
    """The state of an experiment.

    Attributes:
        experiment: its name.
        worker: who works on it now, None if nobody.
        states: state by run.
        methods, datasets: of every run.
        before, after: jobs before and after the runs by state.
        running, failures: jobs that run, and jobs that failed.
        last: seconds since the last run was finished; None before the first.
        recent: runs finished while the speed was measured.
        span: seconds over which it was: the last hour, or since Snakemake began.
        page: whether the report is there and newer than every run.
    """

    experiment: str
    worker: str | None
    states: dict[str, str]
    methods: dict[str, str]
    datasets: dict[str, str]
    before: Counter[str]
    after: Counter[str]
    running: list[At]
    failures: list[At]
    last: float | None
    recent: int
    span: float
    page: bool

    def counts(self) -> Counter[str]:
        """Number of runs by state."""
        return Counter(self.states.values())

    @property
    def finished(self) -> bool:
        """Whether everything is done and nobody is at work."""
        return self.page and self.worker is None and self.counts()[DONE] == len(self.states)

    def seconds_left(self) -> float | None:
        """Seconds to go at the recent speed; None without one."""
        left = len(self.states) - self.counts()[DONE]
        return left * self.span / self.recent if self.recent and left else None


class Watch:
    """Looks at an experiment's files, in the folder where Snakemake is started.

    Args:
        source: where the configuration came from, for messages.

    Raises:
        CptError: the configuration cannot be resolved.
    """

    def __init__(self, config: Config, source: str) -> None:
        self.experiment, self.work = config.experiment, Path("work", config.experiment)
        self.plan = load(config, source, self.work / "workflow.json")
        self.stages = Stages(config, self.plan)
        of_runs = tuple(STAGES)
        self.shared = {rule: made for rule, made in self.stages.jobs.items() if not rule.startswith((*of_runs, "all"))}

    def look(self, now: float | None = None) -> Status:
        """Return the state now, or at a time in seconds since the epoch."""
        now = time.time() if now is None else now
        worker, start = working(self.work), began(self.work)
        found = _Found(self, start if worker else None, logs.seen_failing(self.experiment), now)
        states, finished = {}, []
        for run in self.plan.runs:
            states[run], scored = found.of_run(run)
            finished += [scored] if scored is not None else []
        before, after = Counter[str](), Counter[str]()
        for rule, made in self.shared.items():
            (after if rule in REPORT else before).update(found.of_file(rule, path) for path in made)
        page = _time(Path(self.plan.root, "report/index.html"))
        span = min(RECENT, max(now - start, 1.0)) if worker and start else RECENT
        return Status(
            experiment=self.experiment,
            worker=worker,
            states=states,
            methods={run: job.method for run, job in self.plan.runs.items()},
            datasets={run: job.dataset for run, job in self.plan.runs.items()},
            before=before,
            after=after,
            running=found.running,
            failures=found.failures,
            last=max(0.0, now - max(finished)) if finished else None,
            recent=sum(now - when < span for when in finished),
            span=span,
            page=page is not None and page >= max(finished, default=0.0),
        )


def status(config: Config, source: str, now: float | None = None) -> Status:
    """Look once; see ``Watch``."""
    return Watch(config, source).look(now)


class _Found:
    """Jobs that run and that failed, as they are found.

    Args:
        start: when the Snakemake that works began; None if none does.
        seen: jobs that Snakemake saw fail.
    """

    def __init__(self, watch: Watch, start: float | None, seen: logs.Seen, now: float) -> None:
        self.watch, self.start, self.seen, self.now = watch, start, seen, now
        self.running: list[At] = []
        self.failures: list[At] = []

    def of_run(self, run: str) -> tuple[str, float | None]:
        """State of a run, and when it was scored."""
        folder = Path(self.watch.plan.root, "runs", run)
        times = {stage: _time(folder / name) for stage, name in STAGES.items()}
        if None not in times.values():  # Snakemake deletes what a failed training had made, not what came after
            return DONE, times["score"]
        stage = next(stage for stage, when in times.items() if when is None)
        return self._unfinished(stage, run, Path(self.watch.stages.log(stage, run)), folder), None

    def of_file(self, rule: str, path: str) -> str:
        """State of a job that is not of a run, by its main output."""
        if _time(Path(path)) is not None:
            return DONE
        name = path.removeprefix(f"{self.watch.plan.root}/")
        return self._unfinished(rule, name, Path(self.watch.stages.log_of(rule, path)), Path(path))

    def _unfinished(self, stage: str, name: str, log: Path, made: Path) -> str:
        """State of a job that is not finished; note it if it runs or failed."""
        text = None
        with contextlib.suppress(OSError):
            text = logs.section(log.read_text(encoding="utf-8", errors="replace"), str(made))
        state, line = (None, "") if text is None else logs.ending(text)
        seen = self.seen.failed.get(str(log))
        if state is None and seen and not self._is_past(seen, log):
            state, line = FAILED, f"ended without a word: killed, or out of memory? {seen} has more"
        if state == FAILED:
            self.failures.append(At(f"{stage} {name}", log, line))
        elif state is None and text is not None and self.start is not None and self.start <= (_time(log) or 0.0):
            progress = self._progress(name) if stage == "train" else None
            self.running.append(At(f"{stage} {name}", log, "", progress, self.seen.again.get(str(log))))
            return RUNNING
        return state or MISSING

    def _is_past(self, seen: Path, log: Path) -> bool:
        """Whether the job has begun again since: a Snakemake called with ``--quiet`` does not say so in its log."""
        when = _time(seen) or 0.0
        return when < max(_time(log) or 0.0, self.start or 0.0)

    def _progress(self, run: str) -> Progress | None:
        path = self.watch.work / f"{run}{paths.HISTORY_LINES}"
        epochs = json.loads(self.watch.plan.runs[run].hyperparameters).get("epochs", 0)
        try:
            row = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
        except (OSError, ValueError, IndexError):
            return Progress(0, epochs, None, None) if epochs else None
        since = self.now - (_time(path) or self.now)
        left = (epochs - row["epoch"]) * row["seconds"] / row["epoch"] - since
        return Progress(row["epoch"], epochs, row["loss"], max(0.0, left))


def _time(path: Path) -> float | None:
    """When a file was written, None if it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None
