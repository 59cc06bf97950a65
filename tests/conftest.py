"""A small real experiment, made once per test session by calling the stages directly."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import is_hypothesis_test, settings

torch.set_num_threads(1)
os.environ.pop("CPT_FORK_SERVER", None)
os.environ["SLURM_CONF"] = os.devnull  # Snakemake's plugin asks SLURM, which, installed but not configured, takes 10 s
with contextlib.suppress(ValueError):  # not the main thread
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background, and then by every child
settings.register_profile("cpt", deadline=None, derandomize="CI" in os.environ)  # a slow machine is no fault
settings.load_profile("cpt")


LONGEST = ("test_slurm.py", "test_faults.py", "test_workflow.py", "test_paper_workflow.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest begin; random examples are not traced.

    Tracing nearly doubles the time of random examples, and plain tests reach the same lines.
    """
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker("no_cover")


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """results/<experiment> with one small dataset (land, 10 classes): every stage before training has run."""
    from cpt.clip.backbone import load_backbone
    from cpt.clip.make_backbone import load_tokenizer, make_backbone
    from cpt.data.entry import Entry
    from cpt.data.make_manifest import make_manifest
    from cpt.data.manifest import read_manifest
    from cpt.data.split import make_split, write_split
    from cpt.features.images import make_image_features
    from cpt.features.make_clusters import make_clusters
    from cpt.features.text import make_text_features

    folder = tmp_path_factory.mktemp("experiment")
    make_backbone("tiny-clip", "embedded", "shipped", folder / "backbone.json")
    clip = load_backbone(folder / "backbone.json")
    entry = Entry(name="land", title="Land", layout="embedded", per_class={"train": 18, "val": 3, "test": 6})
    manifest = make_manifest(entry, folder / "data/land")
    text = folder / "features/land/text-single.safetensors"
    names = read_manifest(manifest).class_names
    tokenizer = load_tokenizer(folder / "backbone.json")
    make_text_features(clip, tokenizer, names, ["a photo of a {}."], entry.template, text)
    for part in ("train", "test"):
        make_image_features(clip, manifest, part, folder / f"features/land/images-{part}.safetensors")
    for protocol in ("base_to_new", "all_classes"):
        for ratio in (1.0, 0.25):
            split = folder / f"splits/{protocol}/land/r{ratio:g}/s1.parquet"
            options = {"imbalance_ratio": ratio, "n_max": 16, "seed": 1, "class_order": "label"}
            write_split(split, *make_split(read_manifest(manifest), protocol=protocol, **options))
        target = folder / f"clusters/{protocol}/land/spherical-per2-single/s1.parquet"
        make_clusters(text, protocol, "spherical", 1, target, per=2)
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """results/slice, a finished experiment; tests leave it as they find it."""
    from tests.helpers import finished

    folder = tmp_path_factory.mktemp("finished")
    with contextlib.chdir(folder):
        finished.make(folder)
    return folder / finished.RESULTS
