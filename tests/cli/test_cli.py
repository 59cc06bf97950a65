"""The command line: help that teaches, one-line errors, the fork server."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from cpt.cli.app import app
from cpt.cli.options import slow
from cpt.methods.base import registry
from tests.helpers.command import here
from tests.helpers.workflow import ONLY_TABLE_2

VERBS = [
    "plan", "grid", "backbone", "data", "split", "text-features", "descriptions", "image-features", "clusters", "train",
    "predict", "score", "aggregate", "table", "figure", "page", "verify", "status", "compare", "audit", "ledger",
    "many", "methods", "schema", "pretrain", "classify", "export", "words", "bundle", "push", "pull", "init", "board",
    "runs", "across",
]  # fmt: skip


def cpt(*words: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "CPT_FORK_SERVER"} | (env or {})
    return subprocess.run(
        [sys.executable, "-m", "cpt", *words],
        capture_output=True,
        encoding=environment.get("PYTHONIOENCODING", "utf-8"),
        env=environment,
        cwd=cwd,
        timeout=120,
    )


def test_help_lists_every_verb() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    assert set(typer.main.get_command(app).commands) == set(VERBS)
    assert {verb for verb in VERBS if verb not in text} == {"many", "schema", "pretrain"}, "of the project's own"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    result = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5
    assert f"cpt {verb}" in result.output, "an example to copy"
    command = typer.main.get_command(app).commands[verb]
    written = " ".join([command.help, *(getattr(param, "help", None) or "" for param in command.params)])
    assert [word for word in re.findall(r"<\w+>", written) if word not in result.output] == [], "HTML of Markdown"


@pytest.mark.parametrize("verb", ["fetch", "check", "manifest", "pixels"])
def test_every_verb_of_data_explains_itself(verb: str) -> None:
    assert verb in CliRunner().invoke(app, ["data", "--help"]).output
    result = CliRunner().invoke(app, ["data", verb, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"cpt data {verb}" in result.output, "an example to copy"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["aggregate", "--grid", "nowhere.json"], "cpt: error: nowhere.json: not found"),
        (["grid", "nowhere.yaml", "--output", "x"], "cpt: error: nowhere.yaml: no such configuration file"),
        (["train"], "cpt: error: Missing option"),
        (["plan"], "cpt: error: Missing argument 'CONFIG...'; see `cpt plan --help`"),
        (["data", "check", "--threads", "0"], "cpt: error: Invalid value for '--threads'"),
        (["split", "--seed", "-1"], "cpt: error: Invalid value for '--seed': "),
        (["train", "--seed", str(2**63)], "cpt: error: Invalid value for '--seed': "),
        (["clusters", "--seed", "-1"], "cpt: error: Invalid value for '--seed'"),
        (["image-features", "--threads", "1025"], "cpt: error: Invalid value for '--threads'"),
        (["tarin"], "cpt: error: No such command 'tarin'"),
        (["data", "manifest", "flower", "--output", "x"], "did you mean 'flowers'?"),
        (["data", "fetch", "dtt"], "cpt: error: dataset: unknown 'dtt'; did you mean 'dtd'?"),
        (["data", "fetch", "flowers"], "cpt: error: flowers: is drawn by cpt itself, there is nothing to fetch"),
        (["data", "chekc"], "cpt: error: No such command 'chekc'"),
        (["verify", "nowhere"], "cpt: error: nowhere: no such folder; give results/<experiment>"),
        (["verify", "docs"], "cpt: error: docs: holds no experiment (no grid.json); give results/<experiment>"),
        (
            ["predict", "x", "--results", "y", "--target", "land/all"],
            "x/run.json: not found; give the folder of a finished",
        ),
        (["predict", "x", "--results", "y", "--target", "land"], "write dataset/subset"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str) -> None:
    done = here(*words)
    assert done.returncode != 0
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_process_ends_with_the_error() -> None:
    done = cpt("aggregate", "--grid", "nowhere.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cpt: error: nowhere.json: not found")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_hyperparameters_must_be_json(text: str) -> None:
    options = ["--method", "ivlp", "--seed", "1", "--output", "x", "--hyperparameters", text]
    for name in ("backbone", "manifest", "split", "text-features"):
        options += [f"--{name}", "x"]
    done = here("train", *options)
    assert done.returncode == 1
    assert "--hyperparameters: " in done.stderr


@pytest.mark.parametrize("words", [[], ["data"]])
def test_without_a_verb_it_is_the_help_alone(words: list[str]) -> None:
    done = cpt(*words)
    assert (done.returncode, done.stderr) == (2, "")
    assert f"Usage: {' '.join(['cpt', *words])} [OPTIONS]" in done.stdout


def test_a_slow_command_says_what_it_does(capsys: pytest.CaptureFixture) -> None:
    with slow(after=60) as say:
        say("counting")
    assert capsys.readouterr() == ("", "")
    with slow(after=0.01) as say:
        say("counting")
        deadline = time.monotonic() + 10
        while not (told := capsys.readouterr().err) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert told == "cpt: counting ...\n"
        say("estimating")
    assert capsys.readouterr() == ("", "cpt: estimating ...\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("words", [["audit", "--all"], ["methods"], ["split", "--help"], ["data", "check"]])
def test_an_output_without_the_letters_is_no_reason_to_fail(encoding: str, words: list[str], root: Path) -> None:
    done = here(*words, encoding=encoding, cwd=root)
    assert done.returncode == (words == ["data", "check"]), "datasets are missing"
    assert done.stdout
    assert "Error" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_process_whose_output_lacks_the_letters_does_not_fail(encoding: str) -> None:
    done = cpt("split", "--help", env={"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_what_goes_into_a_file_is_whole(tmp_path: Path, root: Path) -> None:
    (tmp_path / "config").symlink_to(root / "config")
    entry = {"title": "Land", "layout": "embedded", "key": "land", "per_class": {"train": 16, "test": 1}}
    datasets = {"note" * 9 + end: entry for end in ("Test", "Train")}
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(datasets))
    (tmp_path / "own.yaml").write_text(
        yaml.safe_dump(
            {
                "extends": "config/config.yaml",
                "experiment": "own",
                "catalog": "catalog.yaml",
                **ONLY_TABLE_2,
                "tasks": {**ONLY_TABLE_2["tasks"], "base_to_new": {"datasets": list(datasets)}},
            }
        )
    )
    done = here("status", "own.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in datasets)
    run = next((tmp_path / "work/own").glob("workflow.json"))
    log = tmp_path / "logs/own/train" / f"{next(iter(json.loads(run.read_text())['runs']))}.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"cpt: error: {'a long reason ' * 20}\n")
    assert str(log.relative_to(tmp_path)) in (text := here("status", "own.yaml", cwd=tmp_path).stdout)
    assert "a long reason " * 19 in text


def test_version() -> None:
    assert cpt("--version").stdout.strip() == "0.1.0"


def test_methods_are_listed() -> None:
    done = here("methods", env={"COLUMNS": "300"})
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert set(registry.names()) < set(lines)
    assert "46,080" in lines["cpt"]
    assert "arXiv 2605.11939" in lines["cpt"]
    assert [name for name, line in lines.items() if "(reconstruction)" in line] == ["lamp", "lamp_abstract", "npt"]


def test_one_method_is_explained() -> None:
    done = here("methods", "npt", env={"COLUMNS": "300"})
    assert "collapse_weight" in done.stdout
    assert "ours: not published" in done.stdout
    assert here("methods", "ivpl").stderr.strip() == "cpt: error: unknown method 'ivpl'; did you mean 'ivlp'?"


def test_the_sheet_of_the_methods_is_in_step(tmp_path: Path, root: Path) -> None:
    before = {name: repr(registry.get(name).hyperparameters.dataset_defaults) for name in registry.names()}
    assert here("methods", "--sheet", str(tmp_path / "methods.md")).returncode == 0
    assert before == {name: repr(registry.get(name).hyperparameters.dataset_defaults) for name in registry.names()}
    kept = re.sub(r"(<!-- =\w+ -->).*?(<!-- / -->)", r"\1\2", (root / "docs/methods.md").read_text(), flags=re.DOTALL)
    assert (tmp_path / "methods.md").read_text() == kept, "run `make generated`"


def test_data_by_hand(tmp_path: Path, results: Path) -> None:
    done = here("split", "--manifest", str(results / "data/land/manifest.parquet"), "--protocol", "base_to_new",
               "--ratio", "0.06", "--seed", "3", "--output", str(tmp_path / "split.parquet"))  # fmt: skip
    assert done.stdout.strip() == "28 images of 5 classes, 16 to 1 per class"
    text = ["--text-features", str(results / "features/land/text-single.safetensors"), "--protocol", "base_to_new"]
    done = here("clusters", *text, "--seed", "1", "--number", "2", "--output", str(tmp_path / "clusters.parquet"))
    assert done.stdout.startswith("5 classes in 2 clusters, cosine silhouette ")


@pytest.fixture
def server(tmp_path: Path):
    """A fork server of this process, with few libraries so that it is ready at once."""
    address = tmp_path / "server" / "fork-server"
    address.parent.mkdir()
    code = "import cpt.cli.fork_server as w, sys; w.LIBRARIES = (); w._own_modules = lambda: []; w.serve(sys.argv[1])"
    process = subprocess.Popen([sys.executable, "-c", code, str(address)])
    for _ in range(200):
        if address.exists():
            break
        time.sleep(0.05)
    yield {"CPT_FORK_SERVER": str(address), "PID": str(process.pid)}
    process.kill()
    process.wait()


def test_without_its_server_a_job_runs_all_the_same(tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    dead.touch()
    assert cpt("--version", env={"CPT_FORK_SERVER": str(dead)}).stdout.strip() == "0.1.0"
    assert cpt("--version", env={"CPT_FORK_SERVER": str(tmp_path / "absent")}).stdout.strip() == "0.1.0"


def test_a_server_that_dies_before_it_takes_a_job_leaves_it_to_the_client(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(tmp_path / "fork-server"))
        dying.listen()
        client = subprocess.Popen(
            [sys.executable, "-m", "cpt", "--version"],
            env=os.environ | {"CPT_FORK_SERVER": str(tmp_path / "fork-server")},
            stdout=subprocess.PIPE,
            text=True,
        )
        dying.accept()[0].close()
    assert client.communicate(timeout=60)[0].strip() == "0.1.0"
    assert client.returncode == 0


def long_job(server: dict[str, str], tmp_path: Path) -> subprocess.Popen:
    words = ["pretrain", "--output", str(tmp_path / "tiny")]
    return subprocess.Popen(
        [sys.executable, "-m", "cpt", *words], env=os.environ | server, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def children(server: dict[str, str]) -> set[int]:
    """Processes that this test's own server started."""
    done = subprocess.run(["pgrep", "-P", server["PID"]], capture_output=True, text=True)
    return {int(pid) for pid in done.stdout.split()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_client_takes_its_job_along(server: dict[str, str], tmp_path: Path, number: int) -> None:
    client = long_job(server, tmp_path)
    for _ in range(100):
        if children(server):
            break
        time.sleep(0.05)
    assert children(server), "the job's process"
    client.send_signal(number)
    client.wait(timeout=20)
    assert client.returncode != 0
    for _ in range(100):
        if not children(server):
            break
        time.sleep(0.05)
    assert not children(server)


def test_a_job_that_dies_is_reported(server: dict[str, str], tmp_path: Path) -> None:
    client = long_job(server, tmp_path)
    assert client.stdout is not None
    assert client.stdout.readline().startswith(b"tiny: rendering"), (
        "the server took the job: else its client does it itself"
    )
    found = children(server)
    assert found, "the job's process"
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    _, errors = client.communicate(timeout=20)
    assert client.returncode == 137
    assert b"process died" in errors
