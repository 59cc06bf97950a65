"""Signals to real processes: the state is saved, the exit code says "continue me", the rest gives the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cpt.clip.backbone import load_backbone
from cpt.clip.make_backbone import load_tokenizer
from cpt.data.manifest import read_manifest
from cpt.features.descriptions import make_descriptions
from cpt.files.paths import HISTORY
from cpt.files.stage_files import read_parquet
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import Starting
from cpt.training.interruption import EXIT_CODE, SIGNALS
from tests.helpers.experiment import COMMON, SMALL, train_inputs, train_words

TRAINED = [name for name in registry.names() if registry.get(name).trains]
NEVER = 1e9
"""Seconds between saves: only a signal saves."""

SERVER = """
import os, sys
import cpt.cli.app, cpt.cli.fork_server, cpt.training.loop, cpt.training.train
from cpt.methods.base import registry

for name in registry.names():
    registry.get(name)
step, done = cpt.training.loop.Loop._step, 0

def stopping(self, *arguments):
    global done
    step(self, *arguments)
    done += 1
    if done == int(os.environ.get("STOP_AFTER", 0)):
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))

cpt.training.loop.Loop._step = stopping
cpt.cli.fork_server.LIBRARIES, cpt.cli.fork_server._own_modules = (), lambda: []
cpt.cli.fork_server.serve(sys.argv[1])
"""

ASK = """
import sys
from cpt.__main__ import main
from cpt.cli import fork_client

sys.argv[0], fork_client.PATIENCE = "cpt", 100.0  # on a busy machine the client would do the job itself, unstopped
main()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A fork server whose jobs send themselves a signal after step STOP_AFTER."""
    address = tmp_path_factory.mktemp("server") / "own" / "fork-server"
    address.parent.mkdir()
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(address)])
    while not address.exists() and process.poll() is None:
        time.sleep(0.05)
    yield str(address)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def descriptions(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    backbone, output = results / "backbone.json", tmp_path_factory.mktemp("text") / "descriptions.safetensors"
    names = read_manifest(results / "data/land/manifest.parquet").class_names
    make_descriptions(load_backbone(backbone), load_tokenizer(backbone), names, output, templates=["a photo of a {}."])
    return output


def call(server: str, words: list[str], stop_after: int = 0, number: int = 0) -> subprocess.CompletedProcess:
    environment = os.environ | {"CPT_FORK_SERVER": server, "STOP_AFTER": str(stop_after), "SIGNAL": str(int(number))}
    command = [sys.executable, "-c", ASK, *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def products(run: Path) -> tuple[bytes, Any]:
    """What two equal trainings share: the history's seconds differ."""
    history, _ = read_parquet(run / "history.parquet", HISTORY)
    return (run / "prompts.safetensors").read_bytes(), history.drop_columns("seconds").to_pydict()


@pytest.mark.slow
@pytest.mark.parametrize("method", TRAINED)
def test_every_method_stopped_twice_gives_the_same_bytes(
    server: str, results: Path, descriptions: Path, tmp_path: Path, method: str
) -> None:
    kind, changes = registry.get(method), {}
    if kind.needs_clusters:
        changes["clusters"] = results / "clusters/base_to_new/land/spherical-per2-single/s1.parquet"
    if kind.needs_descriptions:
        changes["descriptions"] = descriptions
    if kind.needs_training_features:
        changes["image_features"] = results / "features/land/images-train.safetensors"
    if issubclass(kind.hyperparameters, Starting):
        changes["start"] = tmp_path / "start"
        began = train_inputs(results, "promptsrc")
        assert call(server, train_words(began, tmp_path / "start")).returncode == 0
        changes["hyperparameters"] = {"start": "promptsrc", "start_hyperparameters": COMMON | SMALL["promptsrc"]}
    given = train_inputs(results, method, checkpoint_interval=NEVER, augmentation="rrc_flip", **changes)
    whole, state = tmp_path / "whole", tmp_path / "work/run.checkpoint"
    done = call(server, train_words(given, whole))
    assert done.returncode == 0, done.stderr

    stream = random.Random(method)
    words = [*train_words(given, tmp_path / "stopped"), "--checkpoint", str(state)]
    for steps in (stream.randint(1, 4), stream.randint(1, 5)):  # of ten in two epochs
        number = stream.choice(SIGNALS)
        done = call(server, words, steps, number)
        assert done.returncode == EXIT_CODE, done.stderr
        assert done.stderr.startswith(f"cpt: {number.name}: stopped at epoch ")
        assert done.stderr.endswith(f"; checkpoint saved, the same command resumes from {state}\n")
        assert not (tmp_path / "stopped").exists()
    done = call(server, words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "resuming at epoch" in done.stdout
    assert products(tmp_path / "stopped") == products(whole)
    assert not state.exists()


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("served", [True, False], ids=["through the server", "by itself"])
def test_a_signal_from_outside_reaches_the_training(
    server: str, results: Path, tmp_path: Path, number: signal.Signals, served: bool
) -> None:
    given = train_inputs(results, "coop", hyperparameters={"epochs": 100_000}, checkpoint_interval=NEVER)
    words = [*train_words(given, tmp_path / "run"), "--checkpoint", str(tmp_path / "run.checkpoint")]
    environment = {key: value for key, value in os.environ.items() if key != "CPT_FORK_SERVER"}
    process = subprocess.Popen(
        [sys.executable, "-m", "cpt", *words],
        env=environment | ({"CPT_FORK_SERVER": server} if served else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # below nohup it is ignored
    )
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith("epoch 2/"))
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE
    assert errors.count("\n") == 1
    assert f"cpt: {number.name}: stopped at epoch " in errors
    assert (tmp_path / "run.checkpoint").exists()


def test_what_cannot_save_says_so(server: str, results: Path, tmp_path: Path) -> None:
    done = call(server, train_words(train_inputs(results, "coop"), tmp_path / "run"), 2, signal.SIGTERM)
    assert done.returncode == EXIT_CODE
    assert (
        done.stderr == "cpt: SIGTERM: stopped at epoch 1, step 2; nothing is kept, because no --checkpoint was given\n"
    )
    (tmp_path / "file").touch()
    unwritable = tmp_path / "file/run.checkpoint"
    words = train_words(train_inputs(results, "coop", checkpoint=unwritable), tmp_path / "run")
    done = call(server, words, 2, signal.SIGTERM)
    assert done.returncode == 1
    assert done.stderr.startswith(f"cpt: error: {unwritable}: cannot be written")
    assert "the checkpoint was not saved, training goes on" in done.stdout


def test_a_finished_training_ignores_the_signal(server: str, results: Path, tmp_path: Path) -> None:
    words = train_words(train_inputs(results, "coop", checkpoint=tmp_path / "run.checkpoint"), tmp_path / "run")
    assert call(server, words, 10, signal.SIGTERM).returncode == 0
    assert (tmp_path / "run/run.json").exists()
