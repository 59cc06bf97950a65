"""Readers notice what has changed since it was written, and name the command that makes it again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from cpt.clip.backbone import load_backbone
from cpt.data.entry import Entry
from cpt.data.images import ImageStore
from cpt.data.make_manifest import make_manifest
from cpt.errors import CptError
from cpt.experiment.resolved import remember
from cpt.files import integrity
from cpt.files import stage_files as files
from cpt.files.provenance import recorded
from cpt.files.trace import traced


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


def test_a_record_tells_what_its_stage_wrote(tmp_path: Path) -> None:
    """Another process writes into the same folder before the record is written."""
    path = tmp_path / "b.parquet"
    with recorded(path):
        files.write_parquet(path, pa.table({"x": [1]}), "s/1")
        mine = path.read_bytes()
        path.write_bytes(b"of another process")
    outputs = integrity.read_record(tmp_path / "b.parquet.provenance.json")["outputs"]
    assert outputs == {"b.parquet": hashlib.sha256(mine).hexdigest()}
    assert "has changed since it was written" in refusal(files.read_parquet, path, "s/1")


@pytest.mark.parametrize("name", READERS)
def test_a_record_that_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    """Root may read everything, so that a link that leads to itself stands for a file without permission."""
    write_all(tmp_path)
    main = "a.json" if name == "a.json" else "b.parquet"
    record = tmp_path / f"{main}.provenance.json"
    record.unlink()
    record.symlink_to(record)
    message = refusal(READERS[name], tmp_path / name, "s/1")
    assert message.startswith(f"{record}: cannot be read (Too many levels of symbolic links); ")


def test_the_fix_of_a_record_that_cannot_be_read_makes_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "project/results/mine"
    write_all(folder / "runs")
    files.write_json(folder / "grid.json", {})
    record = folder / "runs/b.parquet.provenance.json"
    record.unlink()
    record.symlink_to(record)
    message = refusal(files.read_tensors, folder / "runs/c.safetensors", "s/1")
    assert "; fix: snakemake results/mine/runs/b.parquet --force" in message


ODD: dict[str, Any] = {
    "outputs": [None, [], {"a": None}, {"a\0": "1"}, {"\ud800": "1"}],
    "sources": [None, 3, {"a": ["1"]}],
    "path": [None, 3],
    "versions": [None, {"torch": 2}],
    "commit": [3, ["a"]],
    "dirty": ["no", 3],
    "device": [None, {}],
    "configuration": [None, "config.yaml", [3]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ODD.items() for value in values])
def test_a_record_of_another_shape_is_damaged(tmp_path: Path, name: str, value: object) -> None:
    """Although its own hash fits."""
    write_all(tmp_path)
    path = tmp_path / "a.json.provenance.json"
    record = integrity.read_record(path) | {name: value}
    files.write_json(path, record | {"digest": integrity.digest(record)})
    with pytest.raises(ValueError, match="does not hold what a file of schema"):
        integrity.read_record(path)
    with traced():
        assert files.read_json(tmp_path / "a.json", "s/1")["number"] == 1


@pytest.mark.parametrize("depth", [990, 100_000])
def test_a_record_that_is_nested_deeply_is_damaged(tmp_path: Path, depth: int) -> None:
    deep = json.dumps({"schema": integrity.SCHEMA}).replace("}", ', "x": ' + "[" * depth + "]" * depth + "}")
    (tmp_path / "a.json.provenance.json").write_text(deep)
    with pytest.raises(ValueError, match=r"nested too deeply|has changed"):
        integrity.read_record(tmp_path / "a.json.provenance.json")


def test_a_damaged_record_accuses_nobody(tmp_path: Path) -> None:
    write_all(tmp_path)
    record = tmp_path / "a.json.provenance.json"
    record.write_text(record.read_text().replace('"a.json": "', '"a.json": "0'))
    with traced():
        assert files.read_json(tmp_path / "a.json", "s/1")["number"] == 1
    record.unlink()
    with traced():
        assert files.read_json(tmp_path / "a.json", "s/1")["number"] == 1


def test_the_fix_names_the_stages_main_file_and_the_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "project/results/my experiment"
    write_all(folder / "runs")
    with recorded(folder / "grid.json") as record:
        files.write_json(folder / "grid.json", {})
        record["configuration"] = ["config/config.yaml", "my config.yaml"]
    ending = "--force --cores 2 --configfile config/config.yaml 'my config.yaml'"
    (folder / "runs/c.safetensors").write_bytes(b"x")
    message = refusal(files.read_tensors, folder / "runs/c.safetensors", "s/1")
    assert message.endswith(f"; fix: snakemake 'results/my experiment/runs/b.parquet' {ending}")
    message = refusal(files.read_json, folder / "runs/absent.json", "s/1")
    assert message == (
        f"{folder}/runs/absent.json: not found; fix: snakemake 'results/my experiment/runs/absent.json' {ending}"
    )
    (folder / f"grid.json{integrity.SUFFIX}").unlink()
    assert integrity.fix(folder / "runs/a.json") == ("snakemake 'results/my experiment/runs/a.json' --force --cores 2")
    remember(["config/config.yaml", "my config.yaml"], folder)
    assert integrity.fix(folder / "grid.json") == f"snakemake 'results/my experiment/grid.json' {ending}"


def test_there_is_no_fix_for_what_the_workflow_does_not_make(tmp_path: Path) -> None:
    folder = tmp_path / "results/own"
    run = "base_to_new/land/r1/coop-12345678/s1"
    files.write_json(folder / "grid.json", {"runs": [{"run": run}], "datasets": {"land": {}}})
    made = [f"runs/{run}/run.json", "data/land/manifest.parquet", "features/land/text-single.safetensors",
            "splits/base_to_new/land/r1/s1.parquet", "backbone.json", "tables/table2.csv"]  # fmt: skip
    unknown = [f"runs/{run.removesuffix('/s1')}/run.json", "data/bird/manifest.parquet",
               "features/bird/text-single.safetensors", "splits/base_to_new/bird/r1/s1.parquet"]  # fmt: skip
    assert all(integrity.fix(folder / file) for file in made)
    for file in unknown:
        message = refusal(files.read_json, folder / file, "s/1")
        assert re.fullmatch(
            rf"{folder / file}: not found; (run the stage that writes it|give the folder of a) .*", message
        )


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
