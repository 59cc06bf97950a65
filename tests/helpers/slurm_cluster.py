"""A SLURM cluster of one node with two GPUs that are none, for tests: slurmctld, slurmd and munged from Debian.

It needs root on a machine that may be thrown away: Snakemake's plugin takes SLURM_CONF from what it starts, so that
SLURM's configuration has to be in /etc/slurm.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.helpers.workflow import install, leave_out

ETC = Path("/etc/slurm")
MARK = "# written by the tests of cpt"
PORT = 16817
MEMORY_MB = 60_000
"""What the node claims to have; nothing enforces it."""


def check() -> None:
    """Leave the test out on a machine that belongs to a cluster, or where another test's cluster runs."""
    own = ETC / "slurm.conf"
    if (ETC / "gres.conf").exists() and not own.exists():
        leave_out(f"{ETC}/gres.conf is somebody's own")
    if own.exists() and MARK not in own.read_text():
        leave_out(f"{own} is somebody's own")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            leave_out(f"port {PORT} is taken: the SLURM of another test run?")


class Cluster:
    """The running cluster.

    Args:
        folder: for its sockets, logs and state.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, socket.gethostname().split(".")[0]
        self._node: subprocess.Popen | None = None
        self._others: list[subprocess.Popen] = []
        self._without = os.environ.pop("SLURM_CONF")

    def start(self) -> None:
        """Write the configuration and start the daemons."""
        for name in ("spool", "state", "log", "run"):
            (self.folder / name).mkdir(parents=True)
        ETC.mkdir(parents=True, exist_ok=True)
        (ETC / "slurm.conf").write_text(self._configuration())
        gpus = "".join(f"NodeName={self.host} Name=gpu File={path}\n" for path in ("/dev/null", "/dev/zero"))
        (ETC / "gres.conf").write_text(gpus)
        run = self.folder / "run"
        (run / "munge.key").write_bytes(os.urandom(128))
        (run / "munge.key").chmod(0o600)
        self._daemon(
            "munged", "--foreground", "--force", f"--key-file={run}/munge.key", f"--socket={run}/munge.sock",
            f"--pid-file={run}/munged.pid", f"--log-file={self.folder}/log/munged.log", f"--seed-file={run}/seed",
        )  # fmt: skip
        self.wait_until(lambda: (run / "munge.sock").exists(), "munged did not start")
        self._daemon("slurmctld", "-D", "-c")
        self.node_up()

    def _daemon(self, *command: str) -> subprocess.Popen:
        log = open(self.folder / "log" / f"{command[0]}.out", "a")  # noqa: SIM115 - the daemon's
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._others.append(process)
        return process

    def node_up(self) -> None:
        """Start the node's daemon and wait until the node takes jobs."""
        self._node = self._daemon("slurmd", "-D", "-c")
        self.wait_until(
            lambda: (self._ask("sinfo", "-h", "-o", "%T") or "") in ("idle", "mixed", "allocated"),
            "the node did not come up",
        )

    def node_down(self) -> list[str]:
        """The node is gone: its daemons and every process of its jobs are killed; return these jobs.

        ``slurmstepd`` dies before its job, whose end it would report.
        """
        assert self._node is not None
        jobs = self._ask("squeue", "-h", "-t", "running", "-o", "%A").split()
        self._node.kill()
        self._node.wait()
        self._kill(lambda process: (process / "comm").read_text().strip() == "slurmstepd")
        marks = [f"SLURM_JOB_ID={job}\0".encode() for job in jobs]
        self._kill(lambda process: any(mark in (process / "environ").read_bytes() for mark in marks))
        self._ask("scontrol", "update", f"nodename={self.host}", "state=down", "reason=test")
        return jobs

    @staticmethod
    def _kill(chosen: Callable[[Path], bool]) -> None:
        """Kill the processes whose folder in /proc is chosen."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if chosen(process):
                    os.kill(int(process.name), 9)

    def stop(self) -> None:
        """End all jobs and daemons and remove the configuration."""
        self._ask("scancel", "--full", "--user=root")
        time.sleep(1)
        for process in reversed(self._others):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        for name in ("slurm.conf", "gres.conf"):
            (ETC / name).unlink(missing_ok=True)
        os.environ["SLURM_CONF"] = self._without

    def jobs(self, state: str = "all") -> list[dict[str, str]]:
        """Jobs that SLURM knows: id, state, rule (the comment), GPUs, seconds it may run, memory, restarts."""
        fields = {"JobID": 20, "State": 20, "Comment": 200, "tres-alloc": 60, "TimeLimit": 20, "MinMemory": 20,
                  "RestartCnt": 20, "StartTime": 30, "EndTime": 30}  # fmt: skip
        layout = ",".join(f"{name}:{width}" for name, width in fields.items())
        found = []
        for line in self._ask("squeue", "-h", "-t", state, "-O", layout).splitlines():
            job, start = {}, 0
            for name, width in fields.items():
                job[name], start = line[start : start + width].strip(), start + width
            found.append(job)
        return found

    def start_now(self, jobs: list[str]) -> None:
        """Start requeued jobs, which SLURM holds back for two minutes."""

        def started() -> bool:
            for job in jobs:
                self.control("update", f"jobid={job}", "StartTime=now")
            return not {job["JobID"] for job in self.jobs("pending,completing,requeue_hold")} & set(jobs)

        time.sleep(1)
        self.wait_until(started, f"jobs {jobs} did not start")

    def control(self, *words: str) -> str:
        """Call ``scontrol``."""
        return self._ask("scontrol", *words)

    @staticmethod
    def _ask(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()

    @staticmethod
    def wait_until(true: Callable[[], object], problem: str, seconds: float = 180) -> None:
        """Wait for something to become true, which on a busy machine takes its time."""
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                raise AssertionError(problem)
            time.sleep(0.2)

    def _configuration(self) -> str:
        run, log = self.folder / "run", self.folder / "log"
        return f"""{MARK}
ClusterName=cpt
SlurmctldHost={self.host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={run}/munge.sock
SlurmctldPort={PORT}
SlurmdPort=16818
SrunPortRange=16900-16999
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/slurmd.pid
SlurmctldLogFile={log}/slurmctld.log
SlurmdLogFile={log}/slurmd.log
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
JobRequeue=1
MinJobAge=3600
KillWait=2
OverTimeLimit=0
SlurmdTimeout=120
MessageTimeout=60
SlurmdParameters=config_overrides
NodeName={self.host} NodeAddr=127.0.0.1 CPUs=4 RealMemory={MEMORY_MB} Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes={self.host} Default=YES MaxTime=600 DefMemPerCPU=500 State=UP
"""


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster for the block; its logs stay in ``folder``."""
    check()  # before the block that ends with stop(), which removes the configuration
    install(("slurmctld", "slurmd", "munged"), ("slurm-wlm", "munge"), "SLURM (Debian packages slurm-wlm and munge)")
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
