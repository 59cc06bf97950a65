"""The fixes that messages give, typed: the command that was refused then does its work.

Elsewhere: `fix: snakemake …` (tests/faults), `kill -TERM`, `scancel` and `snakemake --unlock` (tests/workflow),
configurations (tests/experiment/test_config_fixes.py), downloads (tests/data/test_fetch.py and test_prepare.py).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.helpers.command import here
from tests.helpers.experiment import linked, train_inputs, train_words
from tests.helpers.fake_results import write_results

Words = list[str]
Fix = Callable[[re.Match[str], Words], Words]


def told(pattern: str, words: Words) -> re.Match[str]:
    """What a refused command is told to do."""
    done = here(*words)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    found = re.search(pattern, done.stderr)
    assert found, done.stderr
    return found


def works(words: Words) -> None:
    done = here(*words)
    assert done.returncode == 0, done.stderr


def option(name: str, to: str | None = None) -> Fix:
    """Give an option what the message names, or this with {} for it; a fix without a value leaves it out."""

    def fix(match: re.Match[str], words: Words) -> Words:
        place = words.index(name) if name in words else len(words)
        given = [name, (to or "{}").replace("{}", match[1])] if match.re.groups else []
        return [*words[:place], *given, *words[place + 2 :]]

    return fix


def word(place: int) -> Fix:
    """Say what the message names instead of a word."""

    def fix(match: re.Match[str], words: Words) -> Words:
        changed = words.copy()
        changed[place] = match[1]
        return changed

    return fix


@pytest.fixture
def folder(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with an experiment whose stages before training are done."""
    (tmp_path / "results/mine").mkdir(parents=True)
    linked(results, tmp_path / "results/mine")
    (tmp_path / "results/mine/splits").symlink_to(results / "splits")
    shutil.copytree(results / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def training(method: str = "coop", **changes: object) -> Words:
    words = train_words(train_inputs(Path("results/mine"), method, **changes), Path("run"))
    return words + ([] if "--checkpoint" in words else ["--checkpoint", "work/s1.checkpoint"])


MEANT = "did you mean '(.+?)'"
TRAINING: dict[str, tuple[Words, str, Fix]] = {
    "method": (["--method", "coopp"], MEANT, option("--method")),
    "hyperparameter": (["--hyperparameters", '{"epoch": 1}'], MEANT, option("--hyperparameters", '{"{}": 1}')),
    "JSON": (["--hyperparameters", "{epochs: 5}"], "write it like '(.+)'", option("--hyperparameters")),
    "object": (["--hyperparameters", "5"], "must be a JSON object like '(.+)'", option("--hyperparameters")),
    "augmentation": (["--augmentation", "rrc_flp"], MEANT, option("--augmentation")),
    "device": (["--device", "gpu"], MEANT, option("--device")),
    "cuda": (["--device", "cuda"], "use device: (cpu)", option("--device")),
    "precision": (["--precision", "fp32"], r"(?:did you mean '|known: )(\w+)", option("--precision")),
    "cuda_graphs": (["--cuda-graphs", "of"], MEANT, option("--cuda-graphs")),
    "code": (["--code", "0123"], "", option("--code")),
    "checkpoint": (["--checkpoint", "data"], "give the path of a (file)", option("--checkpoint", "work/{}")),
    "loss": (
        ["--hyperparameters", '{"epochs": 2, "learning_rate": 1e30, "warmup_epochs": 0}'],
        "lower (learning_rate)",
        option("--hyperparameters", '{"epochs": 2, "{}": 0.001}'),
    ),
}


@pytest.mark.parametrize("case", TRAINING)
def test_an_option_of_a_training(folder: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, pattern, fix = TRAINING[case]
    words = training()
    for name, value in zip(wrong[::2], wrong[1::2], strict=True):
        words = option(name, value)(re.match("()", ""), words)
    if case == "cuda":  # as on a machine without one
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    works(fix(told(pattern, words), words))


def test_a_depth_that_the_towers_do_not_have(folder: Path) -> None:
    wrong = {"depth_text": 9, "depth_vision": 9}
    for name in tuple(wrong):
        found = told(rf"set ({name}) to at most (\d+)", training("ivlp", hyperparameters=wrong))
        wrong[found[1]] = int(found[2])
    works(training("ivlp", hyperparameters=wrong))


@pytest.mark.parametrize(("method", "name"), [("cpt", "clusters"), ("coprompt", "descriptions")])
def test_what_a_method_needs_is_made_by_the_command_that_is_named(folder: Path, method: str, name: str) -> None:
    verb = told(rf"needs --{name}; make them with `cpt (\w+)`", training(method))[1]
    root, made = "results/mine", f"made/{name}.{'parquet' if name == 'clusters' else 'safetensors'}"
    if verb == "clusters":
        words = ["--text-features", f"{root}/features/land/text-single.safetensors", "--protocol", "base_to_new"]
        words += ["--seed", "1", "--classes-per-cluster", "2"]
    else:
        Path("catalog.yaml").write_text(yaml.safe_dump({"land": {"title": "Land", "layout": "embedded"}}))
        words = ["land", "--manifest", f"{root}/data/land/manifest.parquet", "--backbone", f"{root}/backbone.json"]
        words += ["--catalog", "catalog.yaml", "--templates", "single"]
    works([verb, *words, "--output", made])
    works([*training(method), f"--{name}", made])


CLUSTERS = [
    *("clusters", "--text-features", "results/mine/features/land/text-single.safetensors"),
    *("--protocol", "base_to_new", "--seed", "1", "--output", "clusters.parquet"),
]
SPLIT = [
    *("split", "--manifest", "results/mine/data/land/manifest.parquet", "--protocol", "base_to_new"),
    *("--ratio", "0.5", "--seed", "1", "--output", "split.parquet"),
]
TEXT = [
    *("text-features", "land", "--manifest", "results/mine/data/land/manifest.parquet"),
    *("--backbone", "results/mine/backbone.json", "--catalog", "catalog.yaml", "--output", "text.safetensors"),
]
BACKBONE = ["backbone", "--output", "new/backbone.json"]
IMAGES = [
    *("image-features", "--manifest", "results/mine/data/land/manifest.parquet"),
    *("--backbone", "results/mine/backbone.json", "--output", "images.safetensors"),
]
MANIFEST = ["data", "manifest", "photos", "--catalog", "catalog.yaml", "--output", "made"]
OTHERS: dict[str, tuple[Words, str, Fix]] = {
    "algorithm": ([*CLUSTERS, "--algorithm", "spherica"], MEANT, option("--algorithm")),
    "protocol": (option("--protocol", "base-to-new")(re.match("()", ""), CLUSTERS), MEANT, option("--protocol")),
    "clusters": ([*CLUSTERS, "--number", "0"], "give (1) or more", option("--number")),
    "templates": ([*TEXT, "--templates", "singel"], MEANT, option("--templates")),
    "dataset": ([*TEXT[:1], "lnad", *TEXT[2:], "--templates", "single"], MEANT, word(1)),
    "code": (["--code", "cpt.nothing=1", *SPLIT], "leave it out", lambda _, words: words[2:]),
    "output": ([*SPLIT[:-1], "data"], "give the path of a (file)", word(-1)),
    "checksum": ([*BACKBONE, "--sha256", "0" * 64], "delete it", option("--sha256")),
    "sets": ([*TEXT, "--templates", "mine", "--sets", "{mine"], "write it like '(.+)'", option("--sets")),
    "set": (
        [*TEXT, "--templates", "mine", "--sets", '{"mine": "a photo of a {}."}'],
        "must be a list .*, as in '(.+)'",
        option("--sets"),
    ),
    "folder": (
        option("--manifest", "results/mine/data/lnad/manifest.parquet")(re.match("()", ""), SPLIT),
        r"not found; did you mean (.+?)\?",
        option("--manifest"),
    ),
    "experiment": (["table", "table2", "--results", "fke"], r"did you mean (.+?)/grid.json\?", option("--results")),
    "part": ([*IMAGES, "--part", "tset"], MEANT, option("--part")),
    "tag": ([*BACKBONE, "--pretrained", "openai"], "use (shipped)", option("--pretrained")),
    "table": (["table", "figure3", "--results", "fake"], "make it with cpt (figure)", word(0)),
    "figure": (["figure", "table2", "--results", "fake"], "make it with cpt (table)", word(0)),
    "exhibit": (["table", "tabel2", "--results", "fake"], f"fake/grid.json: .*{MEANT}", word(1)),
    "published": (["audit", "--published", "no.csv"], "give the .*, (config/published.csv)", option("--published")),
    "claims": (["audit", "--claims", "config/config.yaml"], "as in (.+?);", option("--claims")),
    "row": (["compare", "fake", "--row", "ivpl", "other"], MEANT, option("--row")),
    "itself": (["compare", "cpt", "cpt", "--results", "fake"], r"give another row \((\w+)", word(2)),
    "no catalog": (["data", "check", "--catalog", "catalg.yaml"], "did you mean (.+?)\\?", option("--catalog")),
    "configuration": (
        ["data", "check", "land", "--catalog", "config/config.yaml"],
        "is the configuration .*, for example (.+)",
        lambda match, words: [*words[:2], "flowers", "--catalog", match[1]],
    ),
    "entry": (["data", "check", "lnad", "--catalog", "catalog.yaml"], MEANT, word(2)),
}


@pytest.fixture
def project(folder: Path, root: Path) -> Path:
    """With finished (invented) results, a catalog, and the configuration's folder."""
    write_results(folder / "fake")
    shutil.copytree(folder / "fake", folder / "other")
    (folder / "config").symlink_to(root / "config")
    (folder / "Snakefile").touch()
    land = {"title": "Land", "layout": "embedded", "per_class": {"train": 18, "val": 3, "test": 6}}
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"land": land}))
    return folder


@pytest.mark.parametrize("case", OTHERS)
def test_a_word_of_another_command(project: Path, case: str) -> None:
    words, pattern, fix = OTHERS[case]
    works(fix(told(pattern, words), words))


# ---- one's own images ----------------------------------------------------------------------------


@pytest.fixture
def photos(project: Path) -> Path:
    """Two classes of images without parts, as one has them."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (project / "photos" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(project / "photos" / name / f"{number}.png")
    entry(title="Photos", layout="folders", root="photos", template="a photo of a {}.")
    return project / "photos"


def entry(**fields: object) -> None:
    Path("catalog.yaml").write_text(yaml.safe_dump({"photos": fields}))


def cut_in_parts(photos: Path) -> None:
    for part, numbers in {"train": "012", "test": "3"}.items():
        for number in numbers:
            for name in ("cat", "dog"):
                (photos / part / name).mkdir(parents=True, exist_ok=True)
                (photos / name / f"{number}.png").rename(photos / part / name / f"{number}.png")
    for name in ("cat", "dog"):
        (photos / name).rmdir()


def test_images_without_parts_are_laid_out_as_said(photos: Path) -> None:
    assert told("lay images out as (.+)/train/<class>/<image>;", MANIFEST)[1] == str(photos)
    cut_in_parts(photos)
    works(MANIFEST)


def test_images_without_parts_are_cut_by_the_keys_that_are_said(photos: Path) -> None:
    key = told("by `(.+?)`", MANIFEST)[1]
    entry(**yaml.safe_load(Path("catalog.yaml").read_text())["photos"], **yaml.safe_load(key))
    works(MANIFEST)


def test_a_class_without_images(photos: Path) -> None:
    cut_in_parts(photos)
    (photos / "train/eel").mkdir()
    told("class 'eel' has no image under .*; add one .* or delete the folder", MANIFEST)
    (photos / "train/eel").rmdir()
    works(MANIFEST)


def test_a_damaged_image(photos: Path) -> None:
    cut_in_parts(photos)
    bad = photos / "test/dog/3.png"
    bad.write_bytes(bad.read_bytes()[:60])
    works(MANIFEST)
    features = ["image-features", "--manifest", "made/manifest.parquet", "--part", "test"]
    features += ["--backbone", "results/mine/backbone.json", "--output", "images.safetensors"]
    assert told("cpt: error: (.+?): image cannot be decoded .*; replace or remove it", features)[1] == str(bad)
    bad.unlink()
    Image.new("RGB", (32, 32)).save(bad)
    works(MANIFEST)
    works(features)


def test_keys_of_an_entry(photos: Path) -> None:
    cut_in_parts(photos)
    good = yaml.safe_load(Path("catalog.yaml").read_text())["photos"]
    entry(**good, titel="Photos")
    told("photos.titel: unknown key; did you mean 'title'", MANIFEST)
    entry(**good | {"class_names": ["cat"]})
    told("1 names for 2 class folders in .*; name each class folder in sorted order, or write a mapping", MANIFEST)
    entry(**good | {"class_names": {"cat": "a cat", "dog": "a dog"}})
    works(MANIFEST)
    entry(**{key: value for key, value in good.items() if key != "root"})
    told("layout folders needs root, the folder that holds the dataset", MANIFEST)


# ---- a run that is trained -----------------------------------------------------------------------


def test_what_is_done_with_a_run(photos: Path) -> None:
    run = str(Path("results/mine/runs/s1"))
    words = training()
    words[words.index("run")] = run
    told("no finished run .*; `cpt runs results/<experiment>` lists the folders to give", ["classify", "run", "photos"])
    works(words)
    assert told("no finished run .*; did you mean (.+?)\\?", ["classify", "results/mine/runs", "photos"])[1] == run
    predict = ["predict", run, "--results", "results/mine", "--device", "cpu", "--target"]
    subset = told("write dataset/subset, for example flowers/(base)", [*predict, "land"])[1]
    meant = told(MEANT, [*predict, "land/bse"])[1]
    for name in (subset, meant):
        works([*predict, f"land/{name}"])
    score = ["score", run, "--split", "results/mine/splits/base_to_new/land/r1/s1.parquet", "--class-groups"]
    works([*score, told("three positive numbers, for example (.+)", [*score, "1-1"])[1]])
    names = Path("names.txt")
    names.touch()
    classify = ["classify", run, "photos", "--classes", "names.txt"]
    told("holds no name; write one per line", classify)
    names.write_text("cat\ndog\n")
    works(classify)
    told("no image file in it or below; give files ending in .*.png", ["classify", run, "work"])
    suffix = told(r"use (\.\w+)", ["export", run, "--output", "model.bin"])[1]
    works(["export", run, "--output", f"model{suffix}"])


def test_an_archive(project: Path) -> None:
    shutil.copytree("fake", "results/fake")
    told("is written as (.tar.gz); call it so", ["bundle", "results/fake", "--output", "fake.zip"])
    told(
        "lies in the experiment itself; write it elsewhere",
        ["bundle", "results/fake", "--output", "results/fake/x.tar.gz"],
    )
