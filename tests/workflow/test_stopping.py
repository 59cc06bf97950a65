"""Ending Snakemake ends what its jobs wait for, and nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SNAKEMAKE = """
import subprocess
from cpt.workflow.stopping import stop_jobs_first

stop_jobs_first()
job = subprocess.Popen(["bash", "-c", "sleep 61; echo the shell waited"])
server = subprocess.Popen(["sleep", "60"], start_new_session=True)
print(flush=True)
try:
    job.wait()
except KeyboardInterrupt:
    print(job.wait(), server.poll())
server.kill()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_its_jobs_are_told_to_stop(number: signal.Signals) -> None:
    """The command gets the signal and its shell does not: Snakemake waits for what the command does at it."""
    process = subprocess.Popen([sys.executable, "-c", SNAKEMAKE], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    while subprocess.run(["pgrep", "-f", "^sleep 61", "-s", "0"], capture_output=True).returncode:
        pass
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == "the shell waited\n0 None\n"
