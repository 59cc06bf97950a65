"""Which Snakemake works on an experiment: what a second one, ``--unlock`` and one after a killed one are told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cpt.errors import CptError
from cpt.workflow import instance

CLAIM = """
import sys
from pathlib import Path
from cpt.workflow import instance
instance.claim(Path(sys.argv[1]))
print(flush=True)
input()
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts processes that work on an experiment and hold locks, as Snakemake does."""
    monkeypatch.chdir(tmp_path)
    running = []

    def starts(experiment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", CLAIM, f"work/{experiment}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(Path(instance.__file__).parents[2])},
        )
        running.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        locks().mkdir(parents=True, exist_ok=True)
        (locks() / f"{len(list(locks().iterdir()))}.input.lock").write_text("config/config.yaml\n")
        (locks() / f"{len(list(locks().iterdir()))}.output.lock").write_text(f"results/{experiment}/runs.parquet\n")
        return process

    yield starts
    for process in running:
        process.kill()
        process.wait()


def locks() -> Path:
    return Path(".snakemake/locks")


def unlock() -> None:
    """What ``snakemake --unlock`` does, and what the end of any Snakemake does."""
    for path in locks().iterdir():
        path.unlink()


def check(experiment: str) -> str:
    """What a Snakemake is told that begins; empty if it may."""
    try:
        instance.check(Path("work", experiment), locks())
    except CptError as refused:
        return str(refused)
    return ""


def check_unlock(experiment: str) -> str:
    try:
        instance.check_unlock(Path("work", experiment), locks())
    except CptError as refused:
        return str(refused)
    return ""


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def test_nobody_works(start: Callable) -> None:
    assert check("a") == check_unlock("a") == ""


def test_a_living_one_refuses_a_second_whatever_the_locks_say(start: Callable) -> None:
    first = start("a")
    assert check("a").startswith(f"another snakemake (pid {first.pid} on ")
    unlock()
    assert "works on a; wait for it, or end it with `kill -TERM " in check("a")
    assert "works on a, and would lose its locks too; wait for it" in check_unlock("a")
    assert check("b") == "", "another experiment may begin"


def test_the_command_that_ends_it_ends_it(start: Callable) -> None:
    """A background process of a script ignores SIGINT; its group may be the script's and is not hit."""
    first = start("a")
    command = re.search(r"`(kill .*?)`", check("a"))
    assert command is not None
    assert command[1] == f"kill -TERM {first.pid}"
    subprocess.run(["bash", "-c", command[1]], check=True)
    assert first.wait(timeout=30) == -15


def test_a_killed_one_holds_its_locks_until_they_are_removed(start: Callable) -> None:
    kill(start("a"))
    assert re.fullmatch(
        r"the snakemake \(pid \d+ .*\) that worked on a was killed; `snakemake --unlock` with .*", check("a")
    )
    assert check_unlock("a") == ""
    unlock()
    assert check("a") == ""
    assert not Path("work/a/snakemake.json").exists(), "it is forgotten"


def test_a_killed_one_is_forgotten_while_another_experiment_is_worked_on(start: Callable) -> None:
    kill(start("a"))
    unlock()
    start("b")
    assert check("a") == "", "the locks that there are are b's"


def test_nothing_is_unlocked_that_a_living_one_holds(start: Callable) -> None:
    kill(start("a"))
    other = start("b")
    told = check("a")
    assert f"another snakemake (pid {other.pid} on" in told
    assert "works on b, so wait for it, `snakemake --unlock`" in told
    assert "works on b, and would lose its locks too; wait for it" in check_unlock("a")
    assert "scancel" not in told, "the jobs may be b's"
    kill(other)
    assert check_unlock("a") == ""


def test_another_process_of_the_same_number_is_not_it(start: Callable) -> None:
    first = start("a")
    path = Path("work/a/snakemake.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"born": record["born"] - 1}))
    assert "was killed" in check("a")
    assert first.poll() is None


def test_one_on_another_machine(start: Callable) -> None:
    kill(start("a"))
    path = Path("work/a/snakemake.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "elsewhere"}))
    assert "end it there with Ctrl-C. If it is gone, `snakemake --unlock`" in check("a")
    assert "on elsewhere" in check_unlock("b"), "nobody knows whether it lives"
    assert check_unlock("a") == "", "who types it says that it is gone"
    unlock()
    assert check("a") == check_unlock("b") == ""


def test_the_end_of_one_does_not_forget_another(start: Callable) -> None:
    start("a")
    instance.release(Path("work/a"))
    assert check("a")
    instance.claim(Path("work/own"))
    assert check("own") == "", "it is this process"
    instance.release(Path("work/own"))
    assert not Path("work/own/snakemake.json").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": 1}'])
def test_a_damaged_note_is_none(start: Callable, content: str) -> None:
    Path("work/a").mkdir(parents=True)
    Path("work/a/snakemake.json").write_text(content)
    assert check("a") == check_unlock("b") == ""
