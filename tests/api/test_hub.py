"""Runs on a hub: pushed to a stand-in on the loopback, and fetched again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import yaml
from PIL import Image

import cpt
from cpt.api import hub
from cpt.api.card import card
from cpt.clip.make_backbone import make_backbone
from cpt.errors import CptError
from cpt.evaluation.predict import predict
from cpt.evaluation.score import score
from cpt.evaluation.trained import experiment_of
from cpt.experiment.runs import Run
from cpt.files.hashes import digest_of_file
from cpt.files.stage_files import read_json, read_parquet
from cpt.training.train import train
from tests.helpers.experiment import linked, train_inputs
from tests.helpers.hub import TOKEN, Hub, Repository

PLACE = "me/land"


def silent(line: str) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def run(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of CPT with metrics, where the workflow puts it, and another seed of it."""
    root = linked(results, tmp_path_factory.mktemp("hub"))
    (root / "splits").symlink_to(results / "splits")
    clusters = results / "clusters/base_to_new/land/spherical-per2-single/s1.parquet"
    for seed in (1, 2):
        inputs = train_inputs(results, "cpt", clusters=clusters, seed=seed, hyperparameters={"epochs": 1})
        train(inputs, root / "new", silent)
        folder = root / "runs" / Run.of(read_json(root / "new/run.json", "cpt.run/3")).id
        folder.parent.mkdir(parents=True, exist_ok=True)
        (root / "new").rename(folder)
        predict(folder, root, [("land", "base"), ("land", "new")], device="cpu", log=silent)
        score(folder, inputs.split)
    return folder.with_name("s1")


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The hub, a user who may write, and an empty cache."""
    with Hub() as stand_in:
        known = huggingface_hub.constants
        template = known.HUGGINGFACE_CO_URL_TEMPLATE.replace(known.ENDPOINT, stand_in.endpoint)
        for name, value in (
            ("ENDPOINT", stand_in.endpoint),
            ("HUGGINGFACE_CO_URL_TEMPLATE", template),
            ("HF_HOME", str(tmp_path / "home")),
            ("HF_HUB_CACHE", str(tmp_path / "home/hub")),
            ("HF_TOKEN_PATH", str(tmp_path / "home/token")),
        ):
            monkeypatch.setattr(known, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield stand_in


@pytest.fixture
def photos(results: Path, tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for row, pixels in enumerate(np.load(results / "data/land/images.npy")[:4]):
        Image.fromarray(pixels).save(tmp_path / f"photos/{row}.png")
    return tmp_path / "photos"


def pushed(run: Path, **options: Any) -> str:
    return hub.push(hub.contents(run, PLACE), PLACE, **options)


# ---- there and back ----------------------------------------------------------------------------


def test_a_pulled_run_predicts_the_same(run: Path, there: Hub, photos: Path, tmp_path: Path) -> None:
    assert pushed(run) == f"{there.endpoint}/{PLACE}"
    assert there.repositories[PLACE].private
    hub.pull(PLACE, tmp_path / "fetched", log=silent)
    wanted = cpt.load(run, device="cpu").predict(photos)
    for place in (tmp_path / "fetched", f"hub:{PLACE}", f"hub:{PLACE}@main"):
        assert cpt.load(place, device="cpu").predict(photos).equals(wanted)
    for name in ("run.json", "prompts.safetensors", "metrics.parquet"):
        assert (tmp_path / "fetched" / name).read_bytes() == (run / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".cpt")] == []


def test_a_loaded_run_is_fetched_once(run: Path, there: Hub) -> None:
    pushed(run)
    cpt.load(f"hub:{PLACE}", device="cpu")
    there.requests.clear()
    cpt.load(f"hub:{PLACE}", device="cpu")
    assert {path.rpartition("/")[2] for _, path in there.requests} == {"cpt.json"}, "which commit is the newest?"


def test_a_fitted_run_is_pushed_and_fetched(results: Path, there: Hub, photos: Path, tmp_path: Path) -> None:
    """Its training images are those that there are: no imbalance ratio was imposed."""
    for number, path in enumerate(sorted(photos.iterdir())):
        folder = tmp_path / "classes" / ("lake" if number < 3 else "river")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    settings = {"templates": "single", "epochs": 1, "batch_size": 2}
    model = cpt.fit(
        "coop",
        tmp_path / "classes",
        backbone=results / "backbone.json",
        output=tmp_path / "kept",
        device="cpu",
        **settings,
    )
    run = next((tmp_path / "kept").rglob("run.json")).parent
    made = hub.contents(run, PLACE)
    assert "τ = natural" in made.card
    assert "Expect less of classes that had few training images than of frequent ones." in made.card
    hub.push(made, PLACE)
    assert cpt.load(f"hub:{PLACE}", device="cpu").predict(photos).equals(model.predict(photos))


def test_the_card_of_a_control_says_so(run: Path) -> None:
    record = read_json(run / "run.json", "cpt.run/3")
    backbone = {"pretrained": "shipped", "name": "tiny", "architecture": "x"}
    plain = card(run, experiment_of(run), record, backbone, PLACE, "mit")
    record |= {"method": "shuffled_labels", "hyperparameters": {"templates": "single"}}
    control = card(run, experiment_of(run), record, backbone, PLACE, "mit")
    assert "is a control" not in plain
    assert "The method is a control: its numbers say what others are worth." in control


def test_what_is_sent_tells_nothing_of_the_machine(run: Path, there: Hub) -> None:
    pushed(run)
    files = there.repositories[PLACE].commits[-1]
    assert set(files) == {
        "README.md", "cpt.json", "run.json", "prompts.safetensors", "classifier.safetensors", "metrics.parquet",
        "history.parquet", "features/land/text-single.safetensors",
    }  # fmt: skip
    for name, body in files.items():
        assert str(Path(run).anchor + Path(run).parts[1]).encode() not in body, name
    listed = json.loads(files["cpt.json"])["files"]
    assert listed["run.json"] == {"sha256": digest_of_file(run / "run.json"), "bytes": len(files["run.json"])}


def test_the_card_tells_what_it_is(run: Path) -> None:
    card = hub.contents(run, PLACE, license="mit").card
    _, header, text = card.split("---\n", 2)
    described = yaml.safe_load(header)
    assert described["license"] == "mit"
    assert {"clip", "cpt"} <= set(described["tags"])
    metrics, _ = read_parquet(run / "metrics.parquet", "cpt.metrics/2")
    found = {(m["subset"], m["metric"]): m["value"] for m in metrics.to_pylist() if m["epoch"] is None}
    told = {
        (entry["dataset"]["name"], entry["metrics"][0]["type"]): entry["metrics"][0]["value"]
        for entry in described["model-index"][0]["results"]
    }
    assert told["land (base classes)", "accuracy"] == round(found["base", "accuracy"], 2)
    assert told["land (base and new classes)", "harmonic_mean"] == round(found["base+new", "harmonic_mean"], 2)
    assert f'cpt.load("hub:{PLACE}")' in text
    assert "(n = 2)" in text, "two seeds"
    assert "80 images, 16 of the most frequent class and 16 of the rarest" in text
    assert "image features of the frozen CLIP give wrong answers" in text
    assert hub.contents(run, PLACE, license="mit").card == card


def test_a_run_without_metrics_has_a_card(run: Path, tmp_path: Path) -> None:
    for name in ("run.json", "prompts.safetensors"):
        shutil.copyfile(run / name, tmp_path / name)
    card = hub.contents(tmp_path, PLACE, results=run.parents[5]).card
    assert "## Results" not in card
    assert "model-index" not in card


# ---- what is refused ---------------------------------------------------------------------------


def test_who_may_read_is_what_was_asked_for(run: Path, there: Hub, tmp_path: Path, monkeypatch: Any) -> None:
    pushed(run, public=True)
    assert not there.repositories[PLACE].private
    with pytest.raises(CptError, match="is there already and is public; say --public"):
        pushed(run)
    pushed(run, public=True)
    monkeypatch.delenv("HF_TOKEN")
    hub.pull(PLACE, tmp_path / "fetched", log=silent)  # everyone may
    there.repositories["me/hidden"] = Repository(private=True, commits=there.repositories[PLACE].commits)
    with pytest.raises(CptError, match=r"no such repository, or one that you may not see; .* `hf auth login`"):
        hub.pull("me/hidden", tmp_path / "hidden", log=silent)


def test_without_a_token_nothing_is_pushed(run: Path, there: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(CptError, match="wants to know who you are; log in with `hf auth login`, or set HF_TOKEN"):
        pushed(run)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    there.denied = True
    with pytest.raises(CptError, match="you may not write there"):
        pushed(run)
    assert there.repositories == {}


def test_a_repository_of_something_else_is_left_alone(run: Path, there: Hub) -> None:
    pushed(run)
    there.change(PLACE, {"cpt.json": None})
    before = there.repositories[PLACE].commits[-1]
    with pytest.raises(CptError, match="holds files that are no run of cpt"):
        pushed(run)
    assert there.repositories[PLACE].commits[-1] is before


def test_a_folder_that_is_there_is_left_alone(run: Path, there: Hub, tmp_path: Path) -> None:
    pushed(run)
    (tmp_path / "mine").mkdir()
    with pytest.raises(CptError, match="mine: is there already; give another --output"):
        hub.pull(PLACE, tmp_path / "mine", log=silent)
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../run.json", "/etc/run.json", "features/../../x/text-a.safetensors", "prompts.pt", "code.py", "a\\b.json",
     "features/land/text-single.safetensors\n"],
)  # fmt: skip
def test_only_files_of_a_run_are_fetched(run: Path, there: Hub, tmp_path: Path, name: str) -> None:
    pushed(run)
    described = json.loads(there.repositories[PLACE].commits[-1]["cpt.json"])
    described["files"][name] = described["files"]["run.json"]
    there.change(PLACE, {"cpt.json": json.dumps(described).encode()})
    there.requests.clear()
    with pytest.raises(CptError, match="is no file of a run; nothing was fetched"):
        hub.pull(PLACE, tmp_path / "fetched", log=silent)
    assert {path.rpartition("/")[2] for _, path in there.requests} == {"cpt.json"}
    assert not (tmp_path / "fetched").exists()


@pytest.mark.parametrize("name", ["run.json", "features/land/text-single.safetensors"])
def test_a_file_that_is_another_is_refused(run: Path, there: Hub, tmp_path: Path, name: str) -> None:
    pushed(run)
    there.change(PLACE, {name: there.repositories[PLACE].commits[-1][name] + b" "})
    with pytest.raises(CptError, match=rf"{name} is not of the SHA-256 that cpt\.json tells; delete .* and pull again"):
        hub.pull(PLACE, tmp_path / "fetched", log=silent)
    there.change(PLACE, {name: None})
    with pytest.raises(CptError, match=f"has no {name}"):
        hub.pull(PLACE, tmp_path / "fetched", log=silent)
    assert not (tmp_path / "fetched").exists()


@pytest.mark.parametrize("name", ["architecture", "pretrained"])
@pytest.mark.parametrize("value", ["x.pt/", "a.json", "$(date).pt", "\x1b[2J", "two\nlines"])
def test_a_backbone_of_strangers_reads_no_file_and_writes_no_command(
    run: Path, there: Hub, tmp_path: Path, name: str, value: str
) -> None:
    pushed(run)
    described = json.loads(there.repositories[PLACE].commits[-1]["cpt.json"])
    described["backbone"] |= {"architecture": "ViT-B-32", name: value}
    there.change(PLACE, {"cpt.json": json.dumps(described).encode()})
    with pytest.raises(CptError) as refused:
        hub.pull(PLACE, tmp_path / "fetched", log=silent)
    assert str(refused.value).isprintable()
    assert "$(date)" not in str(refused.value).replace("'$(date).pt'", "").partition("`")[2]
    assert not (tmp_path / "fetched").exists()


def test_a_run_json_of_another_run_is_refused(run: Path, there: Hub, tmp_path: Path) -> None:
    pushed(run)
    files = there.repositories[PLACE].commits[-1]
    for changes in ({"seed": 7}, {"dataset": "../land"}, {"method": "mine"}, {"hyperparameters": {"epochs": "x"}}):
        body = json.dumps(json.loads(files["run.json"]) | changes).encode()
        described = json.loads(files["cpt.json"])
        described["files"]["run.json"]["sha256"] = hashlib.sha256(body).hexdigest()
        there.change(PLACE, {"run.json": body, "cpt.json": json.dumps(described).encode()})
        with pytest.raises(CptError):
            hub.pull(PLACE, tmp_path / "fetched", log=silent)
        assert not (tmp_path / "fetched").exists()


def test_a_license_that_the_hub_does_not_know(run: Path, there: Hub) -> None:
    with pytest.raises(CptError, match=r"does not take the model card .* must be one of .*; choose another --license"):
        hub.push(hub.contents(run, PLACE, license="none"), PLACE)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"schema": "cpt.hub/1"}', b'{"schema": "cpt.hub/9"}', b"\xff"])
def test_a_list_that_is_none(run: Path, there: Hub, tmp_path: Path, body: bytes) -> None:
    pushed(run)
    there.change(PLACE, {"cpt.json": body})
    with pytest.raises(CptError, match=r"cpt\.json is of no run that this version of cpt"):
        hub.pull(PLACE, tmp_path / "fetched", log=silent)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("land", "land: is no repository; write owner/name"),
        ("me/land/x", "is no repository"),
        ("me/other", "no such repository"),
        (f"{PLACE}@v2", "no such revision; leave @"),
    ],
)
def test_what_is_no_repository(run: Path, there: Hub, tmp_path: Path, place: str, message: str) -> None:
    pushed(run)
    with pytest.raises(CptError, match=message):
        hub.pull(place, tmp_path / "fetched", log=silent)


def test_a_hub_out_of_reach(run: Path, there: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed(run)
    cpt.load(f"hub:{PLACE}", device="cpu")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert cpt.load(f"hub:{PLACE}", device="cpu").class_names, "what was fetched is there without a connection"
    with pytest.raises(CptError, match="the hub is out of reach, and its cache has no copy"):
        hub.pull("me/other", tmp_path / "fetched", log=silent)


def test_what_is_no_finished_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CptError, match=r"no finished run \(no run\.json\)"):
        hub.contents(tmp_path, PLACE)
    with pytest.raises(CptError, match="write owner/name"):
        hub.contents(run, "land")


# ---- backbones ---------------------------------------------------------------------------------


def test_a_backbone_of_a_file_has_to_be_given(run: Path, there: Hub, tmp_path: Path) -> None:
    """Only its name is told; another backbone than that of the training is refused."""
    root = tmp_path / "experiment"
    folder = root / run.relative_to(run.parents[5])
    shutil.copytree(run, folder)
    (root / "features").symlink_to(run.parents[5] / "features")
    for name in ("backbone.json", "backbone.safetensors"):
        shutil.copyfile(run.parents[5] / name, root / name)
    record = json.loads((root / "backbone.json").read_text())
    (root / "backbone.json").write_text(json.dumps(record | {"pretrained": "/home/me/mine.safetensors"}))
    pushed(folder)
    assert b"/home/me" not in b"".join(there.repositories[PLACE].commits[-1].values())
    with pytest.raises(CptError, match=r"is of the file mine\.safetensors, .*`cpt backbone .* with --backbone"):
        hub.pull(PLACE, tmp_path / "fetched", log=silent)
    make_backbone("other", "ViT-S-32-alt", "random", tmp_path / "other/backbone.json")
    with pytest.raises(CptError, match="another backbone than the run was trained on"):
        hub.pull(PLACE, tmp_path / "fetched", backbone=tmp_path / "other/backbone.json", log=silent)
    hub.pull(PLACE, tmp_path / "fetched", backbone=root / "backbone.json", log=silent)
    assert cpt.load(tmp_path / "fetched", device="cpu").class_names


# ---- the command line --------------------------------------------------------------------------


def test_the_commands(run: Path, there: Hub, photos: Path, tmp_path: Path) -> None:
    """With the hub's large-file protocol; the second push sends nothing again."""
    there.lfs = (".safetensors", ".parquet")
    environment = os.environ | {"HF_ENDPOINT": there.endpoint, "HF_HOME": str(tmp_path / "home")}
    environment |= {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cpt", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)

    shown = call("push", run, "--repo", PLACE, "--dry-run")
    assert "cpt.load(" in shown.stdout
    assert "me/land (private) would get README.md, cpt.json and" in shown.stdout
    assert there.requests == []
    for _ in range(2):
        done = call("push", run, "--repo", PLACE)
        assert (done.returncode, done.stdout) == (0, f"wrote {there.endpoint}/{PLACE}\n"), done.stderr
        assert done.stderr == ""
    sent = [path for verb, path in there.requests if verb == "PUT"]
    assert len(sent) == len(set(sent)) == 5
    done = call("pull", PLACE)
    assert done.returncode == 0, done.stderr
    assert "next: cpt classify land photo.jpg" in done.stdout
    for place in ("land", f"hub:{PLACE}"):
        table = call("classify", place, photos, "--top", 1, "--format", "csv")
        assert len(table.stdout.splitlines()) == 5, table.stderr
    done = call("pull", PLACE)
    assert (done.returncode, done.stderr) == (
        1, "cpt: error: land: is there already; give another --output, or delete it\n",
    )  # fmt: skip
