"""The Python interface on image files, against what the workflow's stages give for the same images."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image

import cpt
from cpt.clip import tiny
from cpt.data.manifest import read_manifest
from cpt.errors import CptError
from cpt.evaluation.predict import predict
from cpt.experiment.config import load as load_config
from cpt.experiment.grid import build
from cpt.files.stage_files import read_parquet, read_tensors
from cpt.methods.base import registry
from cpt.training.train import train
from tests.helpers.experiment import linked, train_inputs

METHODS = ("zeroshot", "coop", "cocoop", "cpt", "lamp", "lift", "mmrl", "clip_lora")
"""Of LIFT with five crops of a test image."""
NEW = ["meadow", "harbor", "glacier"]


def silent(line: str) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def runs(results: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of every one of some methods, trained for an epoch and tested on both halves."""
    root = linked(results, tmp_path_factory.mktemp("api"))
    found = {}
    for method in METHODS:
        clusters = results / "clusters/base_to_new/land/spherical-per2-single/s1.parquet"
        inputs = train_inputs(results, method, clusters=clusters)
        trained = {"epochs": 1} if method != "zeroshot" else {"templates": "single"}
        trained |= {"test_crops": 5} if method == "lift" else {}
        inputs.hyperparameters.update(trained)
        if method == "zeroshot":
            for name in inputs.hyperparameters.keys() - trained.keys():
                del inputs.hyperparameters[name]
        found[method] = root / "runs" / method
        train(inputs, found[method], silent)
        predict(found[method], root, [("land", "base"), ("land", "new")], device="cpu", log=silent)
    return found


@pytest.fixture(scope="module")
def photos(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images as files, named by their rows in the manifest."""
    folder = tmp_path_factory.mktemp("photos")
    manifest = read_manifest(results / "data/land/manifest.parquet")
    packed = np.load(results / "data/land/images.npy")
    for row in manifest.rows("test"):
        Image.fromarray(packed[manifest.index[row]]).save(folder / f"{row:04}.png")
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_predictions_are_those_of_the_workflow(runs: dict[str, Path], photos: Path, method: str) -> None:
    model = cpt.load(runs[method], device="cpu")
    written = read_parquet(runs[method] / "predictions.parquet", "cpt.predictions/2")[0].to_pylist()
    for subset, classes in (("base", None), ("new", new_names(runs[method]))):
        rows = [row for row in written if row["subset"] == subset]
        table = model.predict([photos / f"{row['row']:04}.png" for row in rows], classes)
        assert list(table.columns) == ["path", "rank", "label", "name", "probability"]
        for row, (path, found) in zip(rows, table.groupby("path", sort=False), strict=True):
            assert path == str(photos / f"{row['row']:04}.png")
            assert found["rank"].tolist() == [1, 2, 3, 4, 5]
            np.testing.assert_allclose(found["probability"], row["top_scores"], atol=1e-5)
            names = classes or list(model.class_names)
            assert [names[label] for label in found["label"]] == found["name"].tolist()
            if row["top_scores"][0] - row["top_scores"][1] > 1e-5:
                assert found["label"].iloc[0] == row["top_labels"][0]


def new_names(run: Path) -> list[str]:
    return read_manifest(run.parents[1] / "data/land/manifest.parquet").class_names[5:]


def test_features_give_the_probabilities(runs: dict[str, Path], photos: Path) -> None:
    model = cpt.load(runs["cpt"], device="cpu")
    images, texts = model.encode_images(photos), model.encode_texts()
    assert images.shape == (60, texts.shape[1])
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    logits = model.logit_scale * images @ texts.T
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = model.predict(photos, top=1)
    np.testing.assert_allclose(table["probability"], wanted.max(axis=1), rtol=1e-4)
    assert table["label"].tolist() == wanted.argmax(axis=1).tolist()


def test_new_names_need_no_images(runs: dict[str, Path], photos: Path) -> None:
    model = cpt.load(runs["cpt"], device="cpu")
    table = model.predict(photos, NEW, top=9)
    assert len(table) == 60 * 3
    assert set(table["name"]) == set(NEW)
    np.testing.assert_allclose(table.groupby("path")["probability"].sum(), 1, atol=1e-5)
    own = list(model.class_names)
    np.testing.assert_allclose(model.encode_texts(own[::-1])[::-1], model.encode_texts(), atol=1e-6)


def test_arrays_files_and_images_are_the_same(runs: dict[str, Path], photos: Path) -> None:
    model = cpt.load(runs["coop"], device="cpu")
    files = sorted(photos.glob("*.png"))[:3]
    arrays = [np.asarray(Image.open(path)) for path in files]
    wanted = model.predict(files)["probability"].tolist()
    for given in (arrays, np.stack(arrays), [Image.open(path) for path in files], [str(path) for path in files]):
        table = model.predict(given)
        assert table["probability"].tolist() == wanted
    assert model.predict(arrays)["path"].unique().tolist() == ["0", "1", "2"]
    assert model.predict(files[0])["path"].unique().tolist() == [str(files[0])]


def test_bad_images_are_named(runs: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    model = cpt.load(runs["coop"], device="cpu")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    good = sorted(photos.glob("*.png"))[0]
    with pytest.raises(CptError, match=r"bad\.png: image cannot be decoded"):
        model.predict([good, bad])
    table = model.predict([bad, good, tmp_path / "gone.png"], errors="skip")
    assert table["path"].unique().tolist() == [str(good)]
    assert [path for path, _ in table.attrs["errors"]] == [str(bad), str(tmp_path / "gone.png")]
    with pytest.raises(CptError, match="image 0: an array of shape"):
        model.encode_images(np.zeros((4, 4)))
    with pytest.raises(CptError, match="no image file in it"):
        model.predict(tmp_path / "empty") if (tmp_path / "empty").mkdir() is None else None
    with pytest.raises(CptError, match="is a run, no image"):
        model.predict([good, runs["coop"]])
    with pytest.raises(CptError, match="no list of names"):
        model.predict(good, "cat")
    with pytest.raises(CptError, match=r"needs .* tokens"):
        model.predict(good, ["a very " * 40])
    with pytest.raises(CptError, match="depend on the image"):
        cpt.load(runs["cocoop"], device="cpu").encode_texts()


def test_what_is_no_run(tmp_path: Path, runs: dict[str, Path]) -> None:
    with pytest.raises(CptError, match=r"no finished run \(no run\.json\)"):
        cpt.load(tmp_path)
    lonely = tmp_path / "s1"
    lonely.mkdir()
    for name in ("run.json", "prompts.safetensors"):
        (lonely / name).write_bytes((runs["coop"] / name).read_bytes())
    with pytest.raises(CptError, match=r"no backbone\.json in any folder above"):
        cpt.load(lonely)
    assert cpt.load(lonely, results=runs["coop"].parents[1], device="cpu").class_names


# ---- other programs ----------------------------------------------------------------------------


def pixels_of(photos: Path, count: int) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(photos.glob("*.png"))[:count]])


@pytest.mark.parametrize("method", ["coop", "cpt", "lamp", "mmrl", "clip_lora"])
def test_onnx_gives_the_same_probabilities(runs: dict[str, Path], photos: Path, tmp_path: Path, method: str) -> None:
    """Of batches of any size, from pixels, without torch."""
    import onnxruntime

    model = cpt.load(runs[method], device="cpu")
    names = NEW if method == "lamp" else list(model.class_names)
    model.export(tmp_path / "run.onnx", NEW if method == "lamp" else None)
    session = onnxruntime.InferenceSession(tmp_path / "run.onnx")
    described = json.loads(session.get_modelmeta().custom_metadata_map["cpt"])
    assert described["class_names"] == names
    for count in (1, 5):
        pixels = pixels_of(photos, count)
        features, probabilities = session.run(None, {"pixels": pixels})
        np.testing.assert_allclose(features, model.encode_images(pixels), atol=1e-5)
        table = model.predict(pixels, names, top=len(names)).sort_values(["path", "label"])
        np.testing.assert_allclose(probabilities.ravel(), table["probability"], atol=2e-5)


def test_the_documents_onnx_program(
    runs: dict[str, Path], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/use.md, on images of several shapes: what the run itself says of them."""
    pytest.importorskip("onnxruntime")
    (program,) = [
        text
        for text in re.findall(r"```python\n(.*?)```", Path("docs/use.md").read_text(), re.DOTALL)
        if "onnxruntime" in text
    ]
    model = cpt.load(runs["cpt"], device="cpu")
    monkeypatch.chdir(tmp_path)
    model.export(tmp_path / "flowers.onnx")
    for i, (file, shape) in enumerate(zip(sorted(photos.glob("*.png")), [(32, 32), (61, 40), (35, 90)], strict=False)):
        Image.open(file).resize(shape).save(tmp_path / f"{i}.png")
        names: dict[str, Any] = {}
        exec(program.replace("photo.jpg", f"{i}.png"), names)
        table = model.predict(tmp_path / f"{i}.png").sort_values("label")
        np.testing.assert_allclose(names["probabilities"][0], table["probability"], atol=1e-4)


def test_onnx_holds_merged_weights(runs: dict[str, Path], tmp_path: Path) -> None:
    """Low-rank changes leave no part of their own, and as many operators as the unchanged tower has."""
    onnx, operators = pytest.importorskip("onnx"), {}
    for method in ("zeroshot", "clip_lora"):
        model = cpt.load(runs[method], device="cpu")
        model.export(tmp_path / f"{method}.onnx")
        graph = onnx.load(tmp_path / f"{method}.onnx").graph
        operators[method] = sorted(node.op_type for node in graph.node)
        sizes = {name: tuple(held.dims) for held in graph.initializer for name in [held.name]}
    assert operators["clip_lora"] == operators["zeroshot"]
    assert not [name for name, size in sizes.items() if 2 in size and len(size) > 2], "no factor of rank 2"


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_arrays_classify_without_this_package(runs: dict[str, Path], photos: Path, tmp_path: Path, suffix: str) -> None:
    """With numpy alone where the frozen tower's features will do; otherwise the file says that they will not."""
    tower = cpt.load(runs["zeroshot"], device="cpu")
    for method in ("coop", "cpt"):
        model = cpt.load(runs[method], device="cpu")
        model.export(tmp_path / f"run.{suffix}")
        if suffix == "npz":
            held: Any = dict(np.load(tmp_path / "run.npz"))  # without pickle
            held["run"] = json.loads(str(held["run"]))
        else:
            tensors, metadata = read_tensors(tmp_path / "run.safetensors", "cpt.export/1")
            held = metadata | {"text": tensors["text"].numpy()}
        assert list(held["class_names"]) == list(model.class_names)
        assert held["run"]["method"] == method
        assert held["image_tower"] == model.image_tower == {"coop": "frozen", "cpt": "prompted"}[method]
        logits = held["logit_scale"] * tower.encode_images(photos) @ held["text"].T
        same = (logits.argmax(axis=1) == model.predict(photos, top=1)["label"]).all()
        assert same == (method == "coop")


def test_the_texts_classify_features_of_open_clip(
    runs: dict[str, Path], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/use.md with the tiny CLIP: open_clip's model and preprocessing, the exported matrix as its text tower."""
    with resources.as_file(resources.files("cpt") / "assets/tiny_clip") as folder:
        model, _ = tiny.load(folder)
    cpt.load(runs["coop"], device="cpu").export(tmp_path / "pets.safetensors")
    _, held = read_tensors(tmp_path / "pets.safetensors", "cpt.export/1")
    preprocess = image_transform(model.visual.image_size, False, mean=held["image_mean"], std=held["image_std"])
    monkeypatch.setattr(open_clip, "create_model_and_transforms", lambda *_, **__: (model, None, preprocess))
    *_, program = re.findall(r"```python\n(.*?)```", Path("docs/use.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    files, found = sorted(photos.glob("*.png"))[:9], []
    for file in files:
        names: dict[str, Any] = {}
        exec(program.replace("photo.jpg", str(file)), names)
        found.append(names["probabilities"])
    table = cpt.load(runs["coop"], device="cpu").predict(files).sort_values(["path", "label"])
    np.testing.assert_allclose(torch.cat(found).ravel(), table["probability"], atol=1e-5)


def test_the_documents_say_which_methods_prompt_images() -> None:
    """The table of docs/use.md, of the methods that it names."""
    rows = dict(re.findall(r"^\| (.+?) \| (frozen|prompted)", Path("docs/use.md").read_text(), re.MULTILINE))
    said = {title: tower for titles, tower in rows.items() for title in titles.split(", ")}
    kinds = {kind.title: kind for kind in map(registry.get, registry.names())}
    assert (said.pop("DPC on PromptSRC"), said.pop("DPC on CoOp")) == ("prompted", "frozen")
    assert len(said) >= 12
    frozen = {title: kinds[title].keeps_images(kinds[title].hyperparameters()) for title in said}
    assert said == {title: "frozen" if kept else "prompted" for title, kept in frozen.items()}


def test_what_cannot_be_exported(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cpt.load(runs["coop"], device="cpu")
    with pytest.raises(CptError, match=r"cannot export to \.csv; use \.npz, \.safetensors, \.onnx"):
        model.export(tmp_path / "run.csv")
    with pytest.raises(CptError, match=r"\.pt; prompts are no weights of CLIP, .* use \.npz, \.safetensors, \.onnx"):
        model.export(tmp_path / "run.pt")
    with pytest.raises(CptError, match="depend on the image"):
        cpt.load(runs["cocoop"], device="cpu").export(tmp_path / "run.npz")
    with pytest.raises(CptError, match=r"lift classifies by more than .*; use `cpt classify`"):
        cpt.load(runs["lift"], device="cpu").export(tmp_path / "run.npz")
    with pytest.raises(CptError, match=r"of float32 on a CPU; load the run with"):
        cpt.load(runs["coop"], device="cpu", precision="bfloat16").export(tmp_path / "run.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(CptError, match=r"pip install onnx onnxscript"):
        model.export(tmp_path / "run.onnx")
    assert list(tmp_path.iterdir()) == []


def test_words_are_those_of_the_initial_context(runs: dict[str, Path], results: Path) -> None:
    """Before training, the context is "a photo of a"; its nearest words are itself, at no distance."""
    model = cpt.load(runs["coop"], device="cpu")
    assert model.words(top=2)["rank"].tolist() == [1, 2] * 4
    phrase = model.method.clip.text.embed(torch.tensor(phrase_ids(results)))
    with torch.no_grad():
        model.method.text.context.copy_(phrase)
    table = model.words(top=1)
    assert table["word"].tolist() == ["a</w>", "photo</w>", "of</w>", "a</w>"]
    np.testing.assert_allclose(table["distance"], 0, atol=1e-3)
    with pytest.raises(CptError, match="learns no context vectors"):
        cpt.load(runs["zeroshot"], device="cpu").words()


def phrase_ids(results: Path) -> list[int]:
    tensors, _ = read_tensors(results / "features/land/text-single.safetensors", "cpt.text-features/4")
    return tensors["tokens"][0, 1:5].tolist()


FITTED: dict[str, dict[str, Any]] = {
    "cpt": {"epochs": 2, "batch_size": 8, "depth_vision": 2, "depth_text": 2, "classes_per_cluster": 2},
    "tip_adapter_f": {"epochs": 1, "mean_values": True},  # keeps features of the images
}


@pytest.mark.parametrize("method", FITTED)
def test_fit_trains_on_folders(method: str, results: Path, tmp_path: Path) -> None:
    manifest = read_manifest(results / "data/land/manifest.parquet")
    packed = np.load(results / "data/land/images.npy")
    for row in manifest.rows("train"):
        label = manifest.label[row]
        if label < 4 and row % 18 < 14 - 3 * label:  # a long tail of its own
            folder = tmp_path / "photos" / manifest.class_names[label].replace(" ", "_")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(packed[manifest.index[row]]).save(folder / f"{row}.png")
    lines: list[str] = []
    model = cpt.fit(
        method, tmp_path / "photos", backbone=results / "backbone.json", output=tmp_path / "kept", device="cpu",
        log=lines.append, templates="single", **FITTED[method],
    )  # fmt: skip
    assert model.class_names == tuple(sorted(manifest.class_names[:4]))
    assert FITTED[method].items() <= model.record["hyperparameters"].items()
    assert any("epoch" in line for line in lines) == model.method.trains
    assert not any("test image" in line for line in lines), "it tests on nothing"
    table = model.predict(tmp_path / "photos", top=1)
    truth = [Path(path).parent.name.replace("_", " ") for path in table["path"]]
    assert np.mean(table["name"] == truth) > 0.5
    with pytest.raises(CptError, match="kept: holds a model; give another folder"):
        cpt.fit(method, tmp_path / "photos", output=tmp_path / "kept")
    run = next((tmp_path / "kept").rglob("run.json")).parent
    again = cpt.load(run, device="cpu").predict(tmp_path / "photos", top=1)
    assert again.equals(table)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("ivpl", {}, "unknown method 'ivpl'; did you mean 'ivlp'"),
        ("dpc", {}, "starts from a finished run"),
        ("coop", {"epochs": -1}, "epochs"),
        ("coop", {"epoch": 1}, "epoch.*did you mean.*epochs"),
        ("coop", {}, "no such folder"),
    ],
)
def test_fit_refuses_at_once(tmp_path: Path, method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CptError, match=message):
        cpt.fit(method, tmp_path / "nowhere", **options)


def test_torch_comes_when_it_is_used() -> None:
    code = "import cpt, sys; cpt.results; assert 'torch' not in sys.modules; cpt.load; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_the_documents_examples_run(
    runs: dict[str, Path],
    photos: Path,
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Those of docs/use.md, with a run of another name; that of ``cpt.results`` needs a whole experiment."""
    config = load_config([Path("config/config.yaml")])
    first, second, *_ = re.findall(r"```python\n(.*?)```", Path("docs/use.md").read_text(), re.DOTALL)
    runs_of_default = build(config, "config/config.yaml").runs
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/embedded").symlink_to(runs["cpt"].parents[1])
    manifest = read_manifest(results / "data/land/manifest.parquet")
    for row in manifest.rows("test"):
        folder = tmp_path / "photos-by-class" / manifest.class_names[manifest.label[row]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row}.png").symlink_to(photos / f"{row:04}.png")
    named = re.search(r'"results/embedded/runs/([^"]+)"', first)[1]
    assert named in runs_of_default, "a run of the default experiment"
    names: dict[str, Any] = {}
    exec(re.sub(r'"results/embedded/runs/[^"]+"', '"results/embedded/runs/cpt"', first), names)
    assert names["logits"].shape == (60, 5)
    assert (tmp_path / "flowers.npz").is_file()
    (tmp_path / "test-photos-by-class").symlink_to(tmp_path / "photos-by-class")
    exec(second.replace("epochs=5", "epochs=1"), names)
    found = (names["top"]["name"] == names["truth"]).mean()
    assert len(names["truth"]) == 60
    assert capsys.readouterr().out.endswith(f"\naccuracy {100 * found:.2f} %\n")
    assert len(names["table"]) == 60 * 5
    again = cpt.load("my-model").predict("photos")
    pd.testing.assert_frame_equal(again, names["model"].predict("photos"))
    with pytest.raises(CptError, match="depth_text: unknown key"):  # as the page says
        cpt.fit("coop", "photos-by-class", backbone="results/embedded/backbone.json", depth_text=2)


# ---- the command line --------------------------------------------------------------------------


def call(*words: object, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cpt", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, input=given)


def test_classify_reports_bad_files_and_does_the_others(runs: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    files = sorted(photos.glob("*.png"))[:3]
    (tmp_path / "bad.jpg").write_text("no image")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(NEW) + "\n\n")
    given = "".join(f"{path}\n" for path in [*files, tmp_path / "bad.jpg", "nowhere.png"])
    done = call("classify", runs["cpt"], "-", "--top", 1, "--format", "csv", "--classes", names, given=given)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"cpt: {tmp_path / 'bad.jpg'}: image cannot be decoded")
    assert lines[1:] == ["cpt: nowhere.png: no such file; check its name"]
    table = pd.read_csv(io.StringIO(done.stdout))
    wanted = cpt.load(runs["cpt"], device="cpu").predict(files, NEW, top=1)
    assert table["path"].tolist() == [str(path) for path in files]
    assert table["name"].tolist() == wanted["name"].tolist()
    np.testing.assert_allclose(table["probability"], wanted["probability"], atol=1e-6)
    done = call("classify", runs["cpt"], "nowhere.png")
    assert (done.returncode, done.stdout) == (1, ""), "no empty table"
    done = call("classify", runs["cpt"], "-", given="")
    assert done.stderr.startswith("cpt: error: -: stdin names no image; write a path per line")


def test_classify_in_lines_of_json_and_in_a_table(runs: dict[str, Path], photos: Path) -> None:
    file = sorted(photos.glob("*.png"))[0]
    done = call("classify", runs["coop"], file, "--top", 2, "--format", "jsonl")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2]
    assert rows[0].keys() == {"path", "rank", "label", "name", "probability"}
    done = call("classify", runs["coop"], file, "--top", 2)
    assert done.returncode == 0
    assert rows[0]["name"] in done.stdout.splitlines()[1]
    done = call("classify", runs["coop"], "nowhere.png")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "cpt: nowhere.png: no such file; check its name\n")


def test_a_suffix_that_names_no_format_is_refused_first(tmp_path: Path) -> None:
    done = call("export", tmp_path / "no-run", "--output", "x.txt")
    assert done.returncode == 1
    assert done.stderr == "cpt: error: x.txt: cannot export to .txt; use .npz, .safetensors, .onnx\n"


def test_export_says_where_frozen_features_will_not_do(runs: dict[str, Path], tmp_path: Path) -> None:
    done = call("export", runs["cpt"], "--output", tmp_path / "run.npz")
    assert done.returncode == 0
    assert (
        "the method cpt prompts or changes the image tower: features of the frozen CLIP do not fit these texts"
        in done.stderr
    )
    done = call("export", runs["coop"], "--output", tmp_path / "coop.npz")
    assert done.stderr == ""
    assert call("words", runs["coop"], "--top", 1).stdout.count("</w>") == 4
