"""A project with a slice of the embedded experiment that is made in seconds, and what a user does with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import yaml

from cpt.workflow.verify import verify
from tests.helpers.workflow import CATALOG, copy_project, write_photos

ROOT = Path(__file__).parents[2]
RESULTS = Path("results/slice")
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "2", "--resources", "gpu=2"]
CALL = ["--configfile", "slice.yaml"]
METHODS = ("zeroshot", "coop", "cpt")
CONFIGURATION = {
    "extends": "config/config.yaml",
    "experiment": "slice",
    "catalog": "catalog.yaml",
    "seeds": [1],
    "imbalance_ratios": [0.5],
    "n_max": 4,
    "checkpoint_interval": 0.0,
    "overrides": [{"set": {"epochs": 20, "batch_size": 8, "templates": "single", "depth_text": 2, "depth_vision": 2}}],
    "variants": {name: {"method": name} for name in METHODS},
    "tasks": {
        "base_to_new": {"datasets": list(CATALOG)},
        **dict.fromkeys(("cross_dataset", "domain_generalization", "few_shot")),
    },
    "exhibits": {
        "table2": {"variants": list(METHODS), "ratios": None},
        **dict.fromkeys((*(f"table{i}" for i in (1, 3, 4, 5, 6, 7)), *(f"figure{i}" for i in range(1, 9)))),
    },
}


def create(folder: Path) -> None:
    """Make a project in which nothing has run yet."""
    copy_project(folder, ROOT)
    (folder / "catalog.yaml").write_text(yaml.safe_dump(CATALOG))
    (folder / "slice.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    write_photos(folder)


@dataclass(frozen=True)
class Kept:
    """Projects to copy: ``new``, ``prepared`` (everything before the splits is there) and ``finished``.

    Attributes:
        server: address of a fork server, so that the many calls of Snakemake need not start one each.
    """

    folder: Path
    server: str

    @classmethod
    @contextlib.contextmanager
    def made(cls, folder: Path) -> Iterator[Kept]:
        """Make all three by one undisturbed run; the server lasts as long as the block."""
        kept = cls(folder, str(folder / "server/fork-server"))
        (folder / "server").mkdir()
        create(folder / "new")
        command = [sys.executable, "-m", "cpt.cli.fork_server", kept.server, "--owner", str(os.getpid())]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as server:
            try:
                while not Path(kept.server).exists():
                    assert server.poll() is None
                    time.sleep(0.05)
                assert Session(kept, kept.copy("new", folder / "finished")).snakemake()
                kept.copy("finished", folder / "prepared")
                for name in ("splits", "clusters", "runs", "tables", "report"):
                    shutil.rmtree(folder / "prepared" / RESULTS / name)
                for path in (folder / "prepared" / RESULTS).glob("*s.parquet*"):
                    path.unlink()
                yield kept
            finally:
                server.kill()

    def copy(self, stage: str, folder: Path) -> Path:
        """Copy a project with its times."""
        shutil.copytree(self.folder / stage, folder, symlinks=True)
        return folder

    def same(self, folder: Path) -> bool:
        """Whether a project has the undisturbed run's numbers, and a whole chain of records behind them."""
        one, other = (project / RESULTS / "runs.parquet" for project in (folder, self.folder / "finished"))
        return one.read_bytes() == other.read_bytes() and not verify(folder / RESULTS).findings


def processes(folder: Path) -> Iterator[psutil.Process]:
    """Jobs and Snakemakes that work in a project; its own fork server, which ends by itself, is none."""
    for process in psutil.process_iter(["cwd", "cmdline"]):
        if process.info["cwd"] == str(folder) and (command := process.info["cmdline"]):  # one that just ends has none
            with contextlib.suppress(ProcessLookupError):
                if "cpt.cli.fork_server" not in command or os.getsid(process.pid) != process.pid:
                    yield process


def settle(folder: Path) -> None:
    """Wait until no job of the project runs any more, as the documents tell the user to."""
    deadline = time.monotonic() + 120
    while running := [process.pid for process in processes(folder)]:
        assert time.monotonic() < deadline, f"still running: {running}"
        time.sleep(0.02)


@dataclass
class Session:
    """A user at work in a project.

    Attributes:
        typed: commands so far.
        text: what the last one printed.
    """

    kept: Kept
    folder: Path
    typed: list[str] = field(default_factory=list)
    text: str = ""

    def start(self, *, own_server: bool = False) -> subprocess.Popen:
        """Start Snakemake as a terminal would, in a process group of its own; its output goes to output.txt."""
        with open(self.folder / "output.txt", "w") as output:
            return subprocess.Popen(
                [*SNAKEMAKE, *CALL],
                cwd=self.folder,
                env=self._environment(own_server),
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip - a shell's background job would ignore Ctrl-C

    def snakemake(self, *words: str) -> bool:
        """Call Snakemake; return whether it succeeded."""
        return self._call([*SNAKEMAKE, *CALL, *words], " ".join(["snakemake", *words]))

    def again(self) -> bool:
        """Call Snakemake again, and do what it asks for when it finds the folder locked."""
        settle(self.folder)
        if self.snakemake():
            return True
        return "--unlock" in self.text and self.snakemake("--unlock") and self.snakemake()

    def type(self, command: str, name: str) -> bool:
        """Type a command, which the documents call by ``name``."""
        settle(self.folder)
        return self._call(["bash", "-c", command], name)

    def _call(self, command: list[str], name: str) -> bool:
        environment = self._environment(own_server=False)
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        self.typed.append(name)
        self.text = done.stdout + done.stderr
        return done.returncode == 0

    def _environment(self, own_server: bool) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {key: value for key, value in os.environ.items() if key != "CPT_FORK_SERVER"} | {"PATH": path}
        return own if own_server else own | {"CPT_FORK_SERVER": self.kept.server}
