"""What can be said of SLURM without one."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.helpers import slurm_cluster, workflow


@pytest.fixture(autouse=True)
def outside_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)


def test_what_is_missing_skips_a_test_and_fails_it_in_ci(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for expected in (pytest.skip.Exception, pytest.fail.Exception):
        with pytest.raises(expected, match="needs a thing, or root"):
            workflow.install(["no-such-program"], ["no-such-package"], "a thing")
        variable = re.search(r"^export (\w+)=(\w+)", (root / ".ci/run").read_text(), re.MULTILINE)
        monkeypatch.setenv(*variable.groups())


@pytest.mark.parametrize("name", ["slurm.conf", "gres.conf"])
def test_a_cluster_of_somebody_else_is_left_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_cluster, "ETC", tmp_path)
    monkeypatch.setattr(slurm_cluster.Cluster, "_ask", lambda *_: pytest.fail("a command was given to it"))
    (tmp_path / name).write_text("ClusterName=theirs\n")
    with pytest.raises(pytest.skip.Exception, match="somebody's own"), slurm_cluster.cluster(tmp_path / "cluster"):
        pass
    assert (tmp_path / name).read_text() == "ClusterName=theirs\n"


def test_the_cluster_of_another_test_run_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_cluster, "ETC", tmp_path)
    monkeypatch.setattr(slurm_cluster.Cluster, "_ask", lambda *_: pytest.fail("a command was given to it"))
    (tmp_path / "slurm.conf").write_text(slurm_cluster.MARK)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setattr(slurm_cluster, "PORT", other.getsockname()[1])
        with pytest.raises(pytest.skip.Exception, match="is taken"), slurm_cluster.cluster(tmp_path / "cluster"):
            pass
    assert (tmp_path / "slurm.conf").exists()


def test_every_job_says_its_memory_and_time_and_asks_for_more_on_a_retry(root: Path) -> None:
    """What a rule leaves out is Snakemake's 1 GB and the partition's time, on every attempt."""
    rules = [
        block
        for file in sorted(root.glob("rules/*.smk"))
        for block in re.split(r"^(?= *rule\b)", file.read_text(), flags=re.MULTILINE)[1:]
    ]
    jobs = [block for block in rules if "localrule: True" not in block]
    assert len(jobs) > 10
    for block in jobs:
        for resource in ("mem_mb", "runtime"):
            assert re.search(rf"{resource}=growing\(\s*\d+", block), block
