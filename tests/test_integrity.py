"""Readers notice what has changed since it was written, and name the command that makes it again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from cpt import files, integrity
from cpt.clip.backbone import load_backbone
from cpt.data.catalog import Entry
from cpt.data.images import ImageStore
from cpt.data.layouts import make_manifest
from cpt.errors import CptError
from cpt.provenance import recorded
from cpt.trace import traced
from cpt.workflow import remember


def write_all(folder: Path) -> None:
    """Files of every kind as two stages write them: one alone, the others beside it."""
    with recorded(folder / "a.json"):
        files.write_json(folder / "a.json", {"schema": "s/1", "number": 1})
    with recorded(folder / "b.parquet"):
        files.write_parquet(folder / "b.parquet", pa.table({"x": np.arange(1000)}), "s/1")
        files.write_tensors(folder / "c.safetensors", {"w": torch.arange(100.0)}, "s/1")


READERS = {"a.json": files.read_json, "b.parquet": files.read_parquet, "c.safetensors": files.read_tensors}


def refusal(read: Any, *arguments: Any) -> str:
    with traced(), pytest.raises(CptError) as caught:  # as another process would: its own writes count as right
        read(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_a_changed_byte_anywhere_is_noticed(tmp_path: Path, name: str) -> None:
    write_all(tmp_path)
    path, content = tmp_path / name, (tmp_path / name).read_bytes()
    for offset in np.random.default_rng(0).integers(0, len(content), 50).tolist():
        changed = bytearray(content)
        changed[offset] ^= 1 << offset % 8
        path.write_bytes(changed)
        message = refusal(READERS[name], path, "s/1")
        assert message.startswith(f"{path}: has changed since it was written (")
        assert message.endswith("; delete it and run again"), "it is of no experiment"
    path.write_bytes(content[: len(content) // 2])
    assert "has changed since" in refusal(READERS[name], path, "s/1")
    path.write_bytes(content)
    with traced():
        READERS[name](path, "s/1")


def test_what_a_stage_has_just_written_is_its_own(tmp_path: Path) -> None:
    write_all(tmp_path)
    with recorded(tmp_path / "a.json"):
        files.write_json(tmp_path / "a.json", {"schema": "s/1", "number": 2})
        assert files.read_json(tmp_path / "a.json", "s/1")["number"] == 2


def test_a_damaged_record_accuses_nobody(tmp_path: Path) -> None:
    write_all(tmp_path)
    record = tmp_path / "a.json.provenance.json"
    record.write_text(record.read_text().replace('"a.json": "', '"a.json": "0'))
    with traced():
        assert files.read_json(tmp_path / "a.json", "s/1")["number"] == 1
    record.unlink()
    with traced():
        assert files.read_json(tmp_path / "a.json", "s/1")["number"] == 1


def test_the_mend_names_the_stages_main_file_and_the_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "project/results/my experiment"
    write_all(folder / "runs")
    with recorded(folder / "grid.json") as record:
        files.write_json(folder / "grid.json", {})
        record["configuration"] = ["config/config.yaml", "my config.yaml"]
    ending = "--force --cores 2 --resources gpu=1 --configfile config/config.yaml 'my config.yaml'"
    (folder / "runs/c.safetensors").write_bytes(b"x")
    message = refusal(files.read_tensors, folder / "runs/c.safetensors", "s/1")
    assert message.endswith(f"; mend: snakemake 'results/my experiment/runs/b.parquet' {ending}")
    message = refusal(files.read_json, folder / "runs/absent.json", "s/1")
    assert message == (
        f"{folder}/runs/absent.json: not found; mend: snakemake 'results/my experiment/runs/absent.json' {ending}"
    )
    (folder / f"grid.json{integrity.SUFFIX}").unlink()
    assert integrity.mend(folder / "runs/a.json") == (
        "snakemake 'results/my experiment/runs/a.json' --force --cores 2 --resources gpu=1"
    )
    remember(["config/config.yaml", "my config.yaml"], folder)
    assert integrity.mend(folder / "grid.json") == f"snakemake 'results/my experiment/grid.json' {ending}"


def test_there_is_no_mend_for_what_the_workflow_does_not_make(tmp_path: Path) -> None:
    folder = tmp_path / "results/own"
    run = "base_to_new/land/r1/coop-12345678/s1"
    files.write_json(folder / "grid.json", {"runs": [{"run": run}], "datasets": {"land": {}}})
    made = [f"runs/{run}/run.json", "data/land/manifest.parquet", "features/land/text-single.safetensors",
            "splits/base_to_new/land/r1/s1.parquet", "backbone.json", "tables/table2.csv"]  # fmt: skip
    unknown = [f"runs/{run.removesuffix('/s1')}/run.json", "data/bird/manifest.parquet",
               "features/bird/text-single.safetensors", "splits/base_to_new/bird/r1/s1.parquet"]  # fmt: skip
    assert all(integrity.mend(folder / file) for file in made)
    for file in unknown:
        message = refusal(files.read_json, folder / file, "s/1")
        assert message == f"{folder / file}: not found; run the stage that writes it (docs/files.md)"


@pytest.mark.parametrize("name", READERS)
def test_what_cannot_be_read_says_why(tmp_path: Path, name: str) -> None:
    path, reason = tmp_path / name, "Permission denied"
    if os.geteuid() == 0:  # may read everything
        path.mkdir()
        reason = "Is a directory"
    else:
        path.touch(mode=0)
    assert f"{name}: " in (message := refusal(READERS[name], path, "s/1"))
    assert reason in message or "is a directory" in message or "not a regular file" in message or "damaged" in message


def test_the_backbones_weights_are_those_that_it_names(results: Path, tmp_path: Path) -> None:
    for name in ("backbone.json", "backbone.safetensors"):
        shutil.copy(results / name, tmp_path / name)
    load_backbone(tmp_path / "backbone.json")
    content = bytearray((tmp_path / "backbone.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "backbone.safetensors").write_bytes(content)
    assert "backbone.safetensors: has changed since it was written" in refusal(
        load_backbone, tmp_path / "backbone.json"
    )


@pytest.mark.parametrize("damage", ["byte", "end"])
def test_packed_images_are_those_of_the_manifest(tmp_path: Path, damage: str) -> None:
    entry = Entry(name="land", title="Land", layout="embedded", per_class={"train": 1, "test": 1})
    with recorded(tmp_path / "manifest.parquet"):
        manifest = make_manifest(entry, tmp_path)
    with traced():
        assert len(ImageStore(manifest)) == 20
    content = bytearray((tmp_path / "images.npy").read_bytes())
    content[-1] ^= 1
    (tmp_path / "images.npy").write_bytes(content if damage == "byte" else content[:-1])
    assert "images.npy: has changed since it was written" in refusal(ImageStore, manifest)
