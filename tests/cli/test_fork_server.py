"""The fork server: a job in it does and gives what the job's own process does and gives, or is left to that."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from cpt.cli import fork_client as client
from cpt.data.split import SCHEMA as SPLIT
from cpt.features.clusters import ALGORITHMS
from cpt.features.text import TEXT_FEATURES
from cpt.files.paths import CLASSIFIER, PREDICTIONS, RUN
from cpt.files.provenance import PACKAGE
from cpt.files.stage_files import write_json, write_parquet, write_tensors

REFUSED = 99
ASK = """
import sys
from cpt.cli.fork_client import call
code = call(sys.argv[1], sys.argv[2:])
sys.exit(99 if code is None else code)
"""
"""The client alone: unlike ``cpt``, it does not run the job itself where no server takes it."""

TELL = """
import json, os, signal, sys
import cpt.cli.app, cpt.cli.fork_server

def tell():
    print(json.dumps({
        "environment": dict(os.environ), "folder": os.getcwd(), "arguments": sys.argv, "umask": oct(os.umask(0)),
        "input": sys.stdin.read(), "encodings": [sys.stdout.encoding, sys.stderr.encoding],
        "errors": [sys.stdout.errors, sys.stderr.errors],
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGCHLD, signal.SIGTERM)],
    }))
    print("to the other stream", file=sys.stderr)
    return 7

cpt.cli.app.run = tell
if len(sys.argv) > 2:
    sys.argv = sys.argv[1:]
    sys.exit(tell())
cpt.cli.fork_server.LIBRARIES, cpt.cli.fork_server._own_modules = (), lambda: []
cpt.cli.fork_server.serve(sys.argv[1])
"""
"""A server whose jobs tell what they find; with words, such a job without a server."""


def environment(**changes: str) -> dict[str, str]:
    """This process's without what pins threads and names a server."""
    kept = {
        key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS") and key != "CPT_FORK_SERVER"
    }
    return kept | changes


def started(command: list[str], address: Path, **options) -> subprocess.Popen:
    """Start a server and wait until it is ready."""
    address.parent.mkdir(parents=True)
    process = subprocess.Popen([*command, str(address)], **{"env": environment(), **options})
    while not address.exists():
        assert process.poll() is None
        time.sleep(0.05)
    return process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The server as the workflow starts it, on a machine of several cores."""
    address = tmp_path_factory.mktemp("server") / "own" / "fork-server"
    process = started([sys.executable, "-m", "cpt.cli.fork_server", "--owner", str(os.getpid())], address)
    yield address
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    address = tmp_path_factory.mktemp("telling") / "own" / "fork-server"
    process = started([sys.executable, "-c", TELL], address, env=environment(ONLY_THE_SERVERS="1"))
    yield address
    process.kill()
    process.wait()


def ask(server: Path, *words: str, **options) -> subprocess.CompletedProcess:
    """Have a server do a job; the exit code is REFUSED where it does not."""
    command = [sys.executable, "-c", ASK, str(server), "cpt", *words]
    return subprocess.run(command, **{"env": environment(), "capture_output": True, "text": True, **options})


def alone(*words: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "cpt", *words]
    return subprocess.run(command, **{"env": environment(), "capture_output": True, "text": True, **options})


# ---- results -----------------------------------------------------------------------------------

CLASSES, WIDTH = 1000, 512
"""ImageNet's classes, ViT-B/16's features: libraries share work of this size among threads."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text features, a split, and a run's predictions and classifier of a large dataset."""
    folder, random = tmp_path_factory.mktemp("large"), np.random.default_rng(1)
    names = [f"class {i}" for i in range(CLASSES)]
    features = torch.tensor(random.normal(size=(CLASSES, WIDTH))).float()  # no clusters: every last bit may decide
    unit = torch.nn.functional.normalize(features, dim=1)
    tokens = torch.zeros(CLASSES, 4, dtype=torch.int32)
    stored = {"features": features, "directions": unit, "tokens": tokens, "dataset_tokens": tokens.clone(),
              "template_tokens": tokens.clone(), "name_lengths": tokens[:, 0].clone()}  # fmt: skip
    write_tensors(
        folder / "text.safetensors", stored, TEXT_FEATURES, classes=names, phrase_length=1, source_hash="0" * 64
    )
    label = np.arange(CLASSES)
    split = pa.table(
        {"row": label, "label": label, "original_label": label, "rank": label, "count": np.ones_like(label)}
    )
    write_parquet(
        folder / "split.parquet", split, SPLIT, classes=names, new_classes=[], split_hash="0", imbalance_ratio=1.0
    )
    write_json(folder / "run/run.json", {"schema": RUN, "dataset": "large", "method": "coop", "steps": 1})
    scores = random.dirichlet([1, 1], size=CLASSES)
    table = pa.table(
        {
            "target": ["large"] * CLASSES,
            "subset": ["all"] * CLASSES,
            "epoch": pa.array([None] * CLASSES, pa.int64()),
            "label": label,
            "top_labels": pa.array([[i, (i + 1) % CLASSES] for i in range(CLASSES)]),
            "top_scores": pa.array(scores.tolist()),
            "true_score": scores[:, 0],
        }
    )
    write_parquet(folder / "run/predictions.parquet", table, PREDICTIONS)
    means = unit + torch.tensor(random.normal(size=(CLASSES, WIDTH))).float() / 9
    held = {"large/all": unit, "large/all/images": means}
    write_tensors(folder / "run/classifier.safetensors", held, CLASSIFIER, classes={"large/all": names})
    return folder


def results(folder: Path) -> dict[str, bytes]:
    """What a verb wrote; records tell the command, which differs."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if "provenance" not in path.name}


WAYS = {"one": "1", "many": "8", "served": "8"}
"""Threads that the environment gives a job: in a process of its own, and in the server."""

JOBS = {
    **{
        algorithm: ["clusters", "--text-features", "IN/text.safetensors", "--protocol", "all_classes", "--seed", "1",
                    "--algorithm", algorithm, "--output", "OUT/clusters.parquet"]
        for algorithm in ALGORITHMS
    },
    "scores": ["score", "OUT", "--split", "IN/split.parquet"],
    "backbone": ["backbone", "--output", "OUT/backbone.json"],
}  # fmt: skip

IN_TURN = """
import json, sys
from cpt.cli.app import run

for sys.argv in json.loads(sys.argv[1]):
    assert run() == 0
"""
"""Several jobs in a process of its own, which reads the variables when it starts: libraries are imported once."""


@pytest.fixture(scope="module")
def made(server: Path, large: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the jobs write in a process that may use one core or many, and in the server: a folder for each."""
    made = {way: tmp_path_factory.mktemp(way) for way in WAYS}
    for way, threads in WAYS.items():
        commands = []
        for name, words in JOBS.items():
            place = made[way] / name
            shutil.copytree(large / "run", place) if name == "scores" else place.mkdir()
            commands.append([word.replace("IN", str(large)).replace("OUT", str(place)) for word in words])
        variables = environment(
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        )
        if way == "served":
            ended = [ask(server, *words, env=variables) for words in commands]
        else:
            words = [sys.executable, "-c", IN_TURN, json.dumps([["cpt", *words] for words in commands])]
            ended = [subprocess.run(words, env=variables, capture_output=True, text=True)]
        for done in ended:
            assert done.returncode == 0, done.stderr
    return made


@pytest.mark.parametrize("job", JOBS)
def test_results_are_the_same(made: dict[str, Path], job: str) -> None:
    found = {way: results(folder / job) for way, folder in made.items()}
    assert found["one"]
    assert found["one"] == found["many"] == found["served"]


@pytest.mark.parametrize("way", WAYS)
def test_the_backbones_file_holds_no_rounding_error(made: dict[str, Path], way: str) -> None:
    """Its hash is part of every run's identity; what depends on the processor is in the record beside it."""
    folder = made[way] / "backbone"

    def numbers(value: object) -> Iterator[float]:
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from numbers(item)
        if isinstance(value, float):
            yield value

    assert all(
        number == 0 or abs(number) > 1e-6 for number in numbers(json.loads((folder / "backbone.json").read_text()))
    )
    record = json.loads((folder / "backbone.json.provenance.json").read_text())
    assert 0 <= record["largest_difference_to_open_clip"] < 1e-5


def test_threads_that_are_asked_for_are_used(tmp_path: Path) -> None:
    code = (
        "import sys; from cpt.cli import app; from cpt.clip import device; app._before_every_verb(False, None); "
        "import torch; print(torch.get_num_threads()); device.prepare_device('cpu', 'float32', 2); "
        "print(torch.get_num_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(OMP_NUM_THREADS="4")
    )
    assert done.stdout.split() == ["1", "2"]


# ---- what a job finds --------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1:backslashreplace"])
def test_a_job_finds_what_its_client_has(telling: Path, tmp_path: Path, encoding: str) -> None:
    """Nothing of the server's own: the oracle is the same job in a process of its own."""
    options = {
        "env": environment(PYTHONIOENCODING=encoding, ONLY_MINE="é"),
        "cwd": tmp_path,
        "umask": 0o027,
        "input": "typed",
        "capture_output": True,
        "text": True,
    }
    own = subprocess.run([sys.executable, "-c", TELL, "cpt", "a b", "é"], **options)
    served = ask(telling, "a b", "é", **options)
    assert (own.returncode, served.returncode) == (7, 7)
    assert served.stderr == own.stderr == "to the other stream\n"
    expected = json.loads(own.stdout)
    assert "ONLY_THE_SERVERS" not in expected["environment"]
    assert expected["umask"] == "0o27"
    found = json.loads(served.stdout)
    if ":" in encoding:  # how errors are handled is the command line's own choice
        expected.pop("errors"), found.pop("errors")
    assert found == expected


def test_the_server_does_what_the_process_does(server: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for words in (
        ["--version"],
        [],
        ["aggregate", "--grid", "nowhere.json"],
        ["tarin"],
        ["methods", "npt"],
        ["grid", "c.yaml", "--output", "x"],
    ):
        plain, served = alone(*words, cwd=here), ask(server, *words, cwd=here)
        assert served.returncode != REFUSED
        assert (plain.returncode, plain.stdout, plain.stderr) == (served.returncode, served.stdout, served.stderr)


# ---- what the server must not do ---------------------------------------------------------------


def test_a_server_that_was_stopped_leaves_the_job_to_its_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And when it goes on, it does not do the job a second time."""
    address = tmp_path / "server" / "fork-server"
    process = started([sys.executable, "-c", TELL], address)
    try:
        process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(client, "PATIENCE", 0.2)
        report = tmp_path / "output"
        with report.open("w") as output:
            kept = os.dup(1)
            os.dup2(output.fileno(), 1)
            try:
                assert client.call(str(address), ["cpt"]) is None
            finally:
                os.dup2(kept, 1)
                os.close(kept)
        process.send_signal(signal.SIGCONT)
        assert ask(address, input="").returncode == 7, "it serves again"
        assert report.read_text() == ""
    finally:
        process.kill()
        process.wait()


def test_a_client_whose_folder_is_gone_runs_its_job(telling: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import os, sys; from cpt.cli.fork_client import call; os.rmdir(sys.argv[1]); "
        "assert call(sys.argv[2], ['cpt']) is None"
    )
    subprocess.run(
        [sys.executable, "-c", code, gone, telling],
        cwd=gone,
        env=environment(PYTHONPATH=str(PACKAGE.parent)),
        check=True,
    )


def test_another_installation_is_not_served(telling: Path, tmp_path: Path) -> None:
    """A client of another checkout of the code gets its own code's result."""
    other = tmp_path / "other"
    shutil.copytree(PACKAGE, other / "cpt", ignore=shutil.ignore_patterns("assets", "__pycache__"))
    assert ask(telling, input="", env=environment(PYTHONPATH=str(other)), cwd=tmp_path).returncode == REFUSED
    assert ask(telling, input="", env=environment(PYTHONPATH=str(PACKAGE.parent)), cwd=tmp_path).returncode == 7


def test_another_users_jobs_are_not_done(tmp_path: Path) -> None:
    """The server takes its clients for another user's."""
    address = tmp_path / "server" / "fork-server"
    process = started([sys.executable, "-c", f"import os; os.geteuid = lambda: {os.geteuid() + 1}\n{TELL}"], address)
    try:
        assert ask(address, input="").returncode == REFUSED
    finally:
        process.kill()
        process.wait()


def test_another_users_server_is_told_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment may hold secrets."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "theirs"))
        listening.listen()
        somebody = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: somebody)
        assert client.call(str(tmp_path / "theirs"), ["cpt"]) is None
        assert listening.accept()[0].recv(1000) == b""


def test_changed_code_is_run_as_it_is(tmp_path: Path) -> None:
    """A source file that changes after the server has read it."""
    shutil.copytree(PACKAGE, tmp_path / "cpt", ignore=shutil.ignore_patterns("assets", "__pycache__"))
    mine = environment(PYTHONPATH=str(tmp_path))
    code = (
        "import cpt.cli.app, cpt.cli.fork_server as w, sys; w.LIBRARIES = (); w._own_modules = lambda: []; "
        "w.serve(sys.argv[1])"
    )
    address = tmp_path / "server" / "fork-server"
    process = started([sys.executable, "-c", code], address, env=mine, cwd=tmp_path)
    words = ["verify", "nowhere"]
    try:
        before = ask(address, *words, env=mine, cwd=tmp_path)
        source = tmp_path / "cpt/workflow/verify.py"
        changed = source.read_text().replace("no such folder", "another folder")
        source.write_text(changed)
        after = ask(address, *words, env=mine, cwd=tmp_path)
    finally:
        process.kill()
        process.wait()
    assert before.stderr.startswith("cpt: error: nowhere: no such folder")
    assert after.stderr.startswith("cpt: error: nowhere: another folder")
    assert after.stderr == alone(*words, env=mine, cwd=tmp_path).stderr
