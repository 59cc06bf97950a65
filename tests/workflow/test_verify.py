"""`cpt verify`: whatever is changed between split and table is found, and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cpt.api.model import load as load_run
from cpt.cli.app import app
from cpt.errors import CptError
from cpt.files import integrity, provenance
from cpt.files.stage_files import read_json, read_parquet, write_json, write_parquet
from cpt.workflow.bundle import bundle
from cpt.workflow.verify import verify
from tests.helpers.finished import CATALOG, RESULTS, cpt

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy to be changed, in a project of its own."""
    shutil.copytree(made.parent.parent, tmp_path / "project")
    return tmp_path / "project" / RESULTS


def every_file(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def found(folder: Path) -> dict[str, str]:
    return {finding.file: finding.problem for finding in verify(folder).findings}


@contextlib.contextmanager
def changed(path: Path, offset: int, mask: int = 1) -> Iterator[None]:
    """The bits of ``mask`` of one byte of a file are other than they were."""
    kept = path.read_bytes()
    content = bytearray(kept)
    content[offset] ^= mask
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(kept)


def run_of(folder: Path, method: str, dataset: str = "land") -> Path:
    return next((folder / f"runs/base_to_new/{dataset}").glob(f"r*/{method}-*/s*"))


# ---- nothing is wrong --------------------------------------------------------------------------


def test_what_was_not_touched_fits(made: Path) -> None:
    report = verify(made)
    assert report.findings == []
    assert report.files == len(every_file(made))
    assert report.size == sum(p.stat().st_size for p in every_file(made) if not p.name.endswith(".provenance.json"))
    assert report.runs == len(read_json(made / "grid.json", "cpt.grid/5")["runs"])
    assert list(report.devices) == ["cpu"]


def test_it_fits_wherever_it_lies(copied: Path, tmp_path: Path) -> None:
    copied.parent.parent.rename(tmp_path / "elsewhere")
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere" / RESULTS)
    assert found(tmp_path / "linked") == {}


def test_files_of_another_configuration_do_not_count(copied: Path) -> None:
    (copied / "runs/base_to_new/land/r1/old-12345678/s1").mkdir(parents=True)
    (copied / "runs/base_to_new/land/r1/old-12345678/s1/run.json").write_text("{}")
    (copied / "notes.txt").write_text("mine")
    split = copied / "splits/base_to_new/land/r0.5/s1.parquet"
    for seed in (8, 9):
        for name in (f"s{seed}.parquet", f"s{seed}.parquet.provenance.json"):
            shutil.copy(split.with_name(name.replace(str(seed), "1", 1)), split.with_name(name))
    (split.parent / "s8.parquet.provenance.json").write_text("{")
    old = split.parent / "s9.parquet.provenance.json"
    rewritten(old, path=str(old), outputs={"s9.parquet": "0" * 64}, commit="c" * 40)
    report = verify(copied)
    assert report.findings == []
    assert "c" * 40 not in report.commits


# ---- single bytes ------------------------------------------------------------------------------


@pytest.mark.no_cover
def test_a_changed_byte_in_any_file_is_found_there(made: Path) -> None:
    stream = random.Random(0)
    for path in every_file(made):
        name, size = str(path.relative_to(made)), path.stat().st_size
        for offset in {0, stream.randrange(size), size - 1}:
            with changed(path, offset, stream.randrange(1, 256)):
                assert list(found(made)) == [name], f"byte {offset}"
    assert found(made) == {}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_changed_byte_anywhere_is_found(made: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(every_file(made)))
    offset = data.draw(st.integers(0, path.stat().st_size - 1))
    with changed(path, offset, data.draw(st.integers(1, 255))):
        assert list(found(made)) == [str(path.relative_to(made))]


def test_another_line_end_in_a_record_is_found(made: Path) -> None:
    record = made / "grid.json.provenance.json"
    with changed(record, record.read_bytes().index(b"\n"), ord("\n") ^ ord("\r")):
        assert list(found(made)) == [record.name]


# ---- missing, moved, stale ---------------------------------------------------------------------


def test_every_missing_file_is_named(made: Path, tmp_path: Path) -> None:
    for path in every_file(made):
        aside = path.rename(tmp_path / "aside")
        problems = found(made)
        aside.rename(path)
        name = str(path.relative_to(made))
        if name.endswith(".provenance.json"):
            written = {main for main, problem in problems.items() if problem == "has no record of how it was made"}
            assert Path(name.removesuffix(".provenance.json")).with_suffix("") in {
                Path(w).with_suffix("") for w in written
            }
        else:
            assert problems[name] == "is missing"


def test_a_file_without_permission_is_named(copied: Path) -> None:
    """Root may read everything, so the refusal comes from elsewhere there: a link that leads to itself."""
    path, reason = copied / "runs.parquet", "Permission denied"
    if os.geteuid() == 0:
        path.unlink()
        path.symlink_to(path)
        reason = "Too many levels of symbolic links"
    else:
        path.chmod(0)
    assert found(copied)["runs.parquet"] == f"cannot be read ({reason})"


def test_a_folder_in_a_files_place_is_named(copied: Path) -> None:
    (copied / "runs.parquet").unlink()
    (copied / "runs.parquet").mkdir()
    assert found(copied) == {"runs.parquet": "cannot be read (Is a directory)"}


def test_a_pipe_or_a_device_in_a_files_place_is_named(copied: Path) -> None:
    (copied / "runs.parquet").unlink()
    os.mkfifo(copied / "runs.parquet")
    (copied / "costs.parquet").unlink()
    (copied / "costs.parquet").symlink_to("/dev/zero")
    assert found(copied) == dict.fromkeys(["runs.parquet", "costs.parquet"], "cannot be read (not a regular file)")


def test_a_record_without_permission_is_named(copied: Path) -> None:
    record = copied / "backbone.json.provenance.json"
    record.unlink()
    record.symlink_to(record)
    assert found(copied)[record.name] == "cannot be read (Too many levels of symbolic links)"


ODD = {"outputs": None, "sources": {"a": None}, "path": None, "versions": [], "device": 3, "dirty": "no"}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("main", ["grid.json", "backbone.json"])
def test_a_record_of_another_shape_is_named(copied: Path, main: str, name: str) -> None:
    rewritten(copied / f"{main}.provenance.json", **{name: ODD[name]})
    assert list(found(copied)) == [f"{main}.provenance.json"]


def test_a_record_leads_nowhere_else(copied: Path) -> None:
    record = copied / "grid.json.provenance.json"
    sources = read_json(record, "cpt.provenance/1")["sources"]
    rewritten(record, sources=sources | {"/dev/zero": "0" * 64, "..": "0" * 64, "../..": "0" * 64})
    assert found(copied) == {}


@pytest.mark.parametrize(
    "changes",
    [{"runs": None}, {"runs": 3}, {"runs": [3]}, {"runs": [{}]}, {"exhibits": None}, {"exhibits": {"a": None}}],
)
def test_a_grid_of_another_shape_is_named(copied: Path, changes: dict[str, object]) -> None:
    grid = read_json(copied / "grid.json", "cpt.grid/5") | changes
    (copied / "grid.json.provenance.json").unlink()
    write_json(copied / "grid.json", grid)
    assert found(copied)["grid.json"].startswith(("has no record", "does not hold what"))
    with provenance.recorded(copied / "grid.json"):
        write_json(copied / "grid.json", grid)
    assert found(copied)["grid.json"] == "does not hold what a file of schema cpt.grid/5 does"


def test_a_grid_with_names_that_are_none_is_named(copied: Path) -> None:
    grid = read_json(copied / "grid.json", "cpt.grid/5")
    grid["runs"][0]["run"] += "\0"
    with provenance.recorded(copied / "grid.json"):
        write_json(copied / "grid.json", grid)
    assert "does not hold what" in found(copied)["grid.json"]


def test_a_run_of_another_shape_is_named(copied: Path) -> None:
    path = run_of(copied, "cpt", "photos") / "run.json"
    record = read_json(path, "cpt.run/3")
    for changes in ({"hyperparameters": None}, {"schema": "cpt.run/1"}, {"method": ["cpt"], "hyperparameters": []}):
        with provenance.recorded(path):
            write_json(path, record | changes)
        assert "does not hold what" in found(copied)[str(path.relative_to(copied))]


def test_exchanged_runs_are_named(copied: Path) -> None:
    one, other = run_of(copied, "cpt"), run_of(copied, "zeroshot")
    one.rename(copied / "aside")
    other.rename(one)
    (copied / "aside").rename(other)
    problems = found(copied)
    for run in (one, other):
        for name in ("run.json", "predictions.parquet", "metrics.parquet"):
            assert "has been moved here" in problems[str((run / name).relative_to(copied))]


@pytest.mark.parametrize("suffix", ["", ".provenance.json"], ids=["file", "record"])
def test_exchanged_files_are_named(copied: Path, suffix: str) -> None:
    names = [f"splits/base_to_new/{dataset}/r0.5/s1.parquet" for dataset in CATALOG]
    one, other = (copied / f"{name}{suffix}" for name in names)
    one.rename(copied / "aside")
    other.rename(one)
    (copied / "aside").rename(other)
    assert set(names) <= set(found(copied))


def test_a_table_of_other_numbers_is_stale(copied: Path) -> None:
    metrics = run_of(copied, "cpt") / "metrics.parquet"
    table, _ = read_parquet(metrics, "cpt.metrics/2")
    counts, _ = read_parquet(metrics.with_name("counts.parquet"), "cpt.counts/2")
    values = [value + 1 for value in table["value"].to_pylist()]
    with provenance.recorded(metrics):
        write_parquet(metrics, table.set_column(4, "value", [values]), "cpt.metrics/2")
        write_parquet(metrics.with_name("counts.parquet"), counts, "cpt.counts/2")
    cpt("aggregate", "--grid", copied / "grid.json")
    problems = found(copied)
    assert set(problems) == {"tables/table2.csv", "tables/table2b.csv", "figures/figure3.svg", "report/index.html"}
    assert problems["tables/table2.csv"].startswith("was made from another runs.parquet (")
    for name in ("table2", "table2b"):
        cpt("table", name, "--results", copied)
    cpt("figure", "figure3", "--results", copied)
    cpt("page", "--results", copied)
    assert found(copied) == {}


def test_metrics_of_other_predictions_are_stale(copied: Path) -> None:
    run = run_of(copied, "cpt")
    cpt("predict", run, "--results", copied, "--target", "land/base", "--device", "cpu")
    problems = found(copied)
    name = str((run / "metrics.parquet").relative_to(copied))
    assert list(problems) == [name]
    assert "classifier.safetensors" in problems[name], "the first of two that changed"
    assert "1 others" in problems[name]


def test_what_was_made_from_a_file_without_a_record_is_stale_when_that_changes(copied: Path) -> None:
    text = "features/land/text-single.safetensors"
    (copied / f"{text}.provenance.json").unlink()
    used = hashlib.sha256((copied / text).read_bytes()).hexdigest()
    readers = {str((run_of(copied, method) / "run.json").relative_to(copied)) for method in ("cpt", "zeroshot")}
    assert set(found(copied)) == {text}
    content = bytearray((copied / text).read_bytes())
    content[-1] ^= 1
    (copied / text).write_bytes(content)
    problems = found(copied)
    assert problems[text] == "has no record of how it was made"
    now = hashlib.sha256(content).hexdigest()
    for reader in readers:
        assert problems[reader] == f"was made from another {text} ({used[:12]} then, {now[:12]} now)"


def test_an_unfinished_experiment_says_what_is_missing(copied: Path) -> None:
    run = run_of(copied, "cpt")
    shutil.rmtree(run)
    for name in ("runs.parquet", "runs.parquet.provenance.json", "costs.parquet", "counts.parquet", "curves.parquet"):
        (copied / name).unlink()
    problems = found(copied)
    assert problems[str((run / "metrics.parquet").relative_to(copied))] == "is missing"
    assert set(problems.values()) == {"is missing"}


@pytest.mark.parametrize("content", ["", "{", '{"schema": "cpt.grid/1"}'])
def test_without_a_grid_the_rest_is_still_checked(copied: Path, content: str) -> None:
    (copied / "grid.json").write_text(content)
    with changed(copied / "data/land/images.npy", 1000):
        assert {"grid.json", "data/land/images.npy"} == set(found(copied))


def test_no_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CptError, match="no such folder"):
        verify(tmp_path / "nothing")
    with pytest.raises(CptError, match=r"holds no experiment \(no grid.json\); give results/<experiment>"):
        verify(tmp_path)


# ---- what the verb says ------------------------------------------------------------------------


def test_the_verb_names_file_problem_and_fix(made: Path, tmp_path: Path) -> None:
    fits = CliRunner().invoke(app, ["verify", str(made)])
    assert fits.exit_code == 0
    assert "all fit" in fits.output
    name = "tables/table2.tex"
    with changed(made / name, 5):
        done = CliRunner().invoke(app, ["verify", str(made), "--json", str(tmp_path / "report.json")])
    assert done.exit_code == 1
    line = next(line for line in done.output.splitlines() if line.startswith(f"{made / name}: has changed"))
    words = shlex.split(line.partition("; fix: ")[2])
    assert words == [
        "snakemake",
        str(made / "tables/table2.csv"),
        "--force",
        "--cores",
        "2",
        "--configfile",
        "slice.yaml",
    ]
    told = json.loads((tmp_path / "report.json").read_text())
    assert [finding["file"] for finding in told["findings"]] == [name]


def test_progress_of_a_large_experiment_is_told(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("cpt.workflow.verify.MANY", 10)
    verify(made, lines.append)
    assert len(lines) >= 10
    assert all(line.endswith("files read") for line in lines)


def rewritten(file: Path, /, **changes: object) -> None:
    """A record as another machine would have written it."""
    record = read_json(file, "cpt.provenance/1") | changes
    write_json(file, record | {"digest": integrity.digest(record)})


def test_different_origins_are_noticed(copied: Path) -> None:
    for name, commit, dirty in (("cpt", "b" * 40, True), ("zeroshot", "a" * 40, False)):
        path = run_of(copied, name) / "run.json.provenance.json"
        versions = read_json(path, "cpt.provenance/1")["versions"] | {"torch": name}
        rewritten(path, commit=commit, dirty=dirty, versions=versions, device="NVIDIA A100")
    report = verify(copied)
    assert report.findings == []
    text = "\n".join(report.notices)
    assert "commits: " in text
    assert "b" * 40 in text
    assert "versions of torch: cpt, zeroshot" not in text, "other records have the real version"
    assert "3 versions of torch" in text
    assert "checkout with changes" in text
    assert report.commits["b" * 40 + " (dirty)"] == 1
    assert report.devices["NVIDIA A100"] == 2


def test_runs_of_other_code_are_noticed(copied: Path) -> None:
    path = run_of(copied, "cpt", "photos") / "run.json"
    record = read_json(path, "cpt.run/3")
    with provenance.recorded(path):
        write_json(path, record | {"code": "another"})
    notices = verify(copied).notices
    assert [n for n in notices if "code" in n] == [
        f"2 versions of the code that trained cpt: {', '.join(sorted(['another', record['code']]))}"
    ]


# ---- records -----------------------------------------------------------------------------------


def record_of(path: Path) -> dict:
    return read_json(path.with_name(f"{path.name}.provenance.json"), "cpt.provenance/1")


def test_a_record_holds_what_was_read_and_written(made: Path) -> None:
    run = run_of(made, "cpt")
    own = str(run.relative_to(made))
    split, clusters = "splits/base_to_new/land/r0.5/s1.parquet", "clusters/base_to_new/land/spherical-per4-single/s1"
    frozen = {"backbone.json", "backbone.safetensors", "data/land/manifest.parquet"}
    trained_on = {split, "features/land/text-single.safetensors", f"{clusters}.parquet", f"{clusters}.safetensors"}
    scored = {split, *(f"{own}/{name}" for name in ("run.json", "predictions.parquet", "classifier.safetensors"))}
    for main, others, sources in (
        ("run.json", {"prompts.safetensors", "history.parquet"}, frozen | trained_on),
        ("metrics.parquet", {"counts.parquet"}, scored),
    ):
        record = record_of(run / main)
        assert set(record["outputs"]) == {main, *others}
        assert {os.path.relpath(run / source, made) for source in record["sources"]} == sources
        for name, sha256 in (record["outputs"] | record["sources"]).items():
            assert hashlib.sha256((run / name).read_bytes()).hexdigest() == sha256, name


def test_the_pixel_cache_and_the_page_are_sources(made: Path) -> None:
    assert (
        "../../data/photos/pixels-test.json" in record_of(made / "features/photos/images-test.safetensors")["sources"]
    )
    assert {
        "../tables/table2.csv",
        "../figures/figure3.svg",
        "../costs.parquet",
        "../counts.parquet",
        "../curves.parquet",
    } <= set(record_of(made / "report/index.html")["sources"])


def test_a_record_tells_versions_commit_device_and_command(made: Path) -> None:
    import torch

    record = record_of(run_of(made, "cpt") / "run.json")
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert record["commit"] == (head or None)
    assert record["device"] == "cpu"
    assert record["command"] == sys.argv


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build  (dvs)", "550.54.14"),
        ("something else", None),
        (None, None),
    ],
)
def test_the_driver(text: str | None, version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_DRIVER", tmp_path / "version")
    if text is not None:
        (tmp_path / "version").write_text(text)
    assert provenance.driver() == version


def test_a_stage_that_fails_leaves_no_record(tmp_path: Path) -> None:
    with pytest.raises(CptError), provenance.recorded(tmp_path / "grid.json"):
        raise CptError("no")
    assert not list(tmp_path.iterdir())


# ---- bundles -----------------------------------------------------------------------------------


def unpacked(archive: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    return folder / "slice"


def test_a_bundle_fits_elsewhere_and_gives_the_tables(made: Path, tmp_path: Path) -> None:
    archive = tmp_path / "one.tar.gz"
    bundle(made, archive)
    with tarfile.open(archive) as opened:
        assert all(member.isreg() and (member.mtime, member.uid, member.uname) == (0, 0, "") for member in opened)
        assert all(name.startswith("slice/") and ".." not in name for name in opened.getnames())
    there = unpacked(archive, tmp_path / "colleague")
    out = read_json(there / "bundle.json", "cpt.bundle/1")["left_out"]
    assert set(out) == {"backbone.safetensors", "data/land/images.npy", "data/photos/pixels-test.npy",
                        "features/photos/images-test.safetensors"}  # fmt: skip
    assert out == {name: hashlib.sha256((made / name).read_bytes()).hexdigest() for name in out}
    report = verify(there)
    assert report.findings == []
    assert any(f"{len(out)} files are not checked" in notice for notice in report.notices)
    cpt("table", "table2", "--results", there)
    for suffix in ("csv", "md", "tex", "html"):
        name = f"tables/table2.{suffix}"
        assert (there / name).read_bytes() == (made / name).read_bytes()
    bundle(there, tmp_path / "two.tar.gz")  # of the bundle
    again = unpacked(tmp_path / "two.tar.gz", tmp_path / "friend")
    assert read_json(again / "bundle.json", "cpt.bundle/1")["left_out"] == out
    assert found(again) == {}


def test_equal_experiments_give_equal_bundles(made: Path, copied: Path, tmp_path: Path) -> None:
    bundle(made, tmp_path / "one.tar.gz", predictions=False)
    bundle(copied, tmp_path / "two.tar.gz", predictions=False)
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    there = unpacked(tmp_path / "one.tar.gz", tmp_path / "there")
    assert not list(there.rglob("predictions.parquet"))
    assert found(there) == {}


def test_what_changes_in_a_bundle_is_found(made: Path, tmp_path: Path) -> None:
    bundle(made, tmp_path / "one.tar.gz")
    there = unpacked(tmp_path / "one.tar.gz", tmp_path)
    (there / "runs.parquet").unlink()
    assert verify(there).findings[0].fix == "unpack the archive of slice again"
    with changed(there / "grid.json", 5):
        assert {"grid.json", "runs.parquet"} <= found(there).keys()
    described = json.loads((there / "bundle.json").read_text())
    described["left_out"]["backbone.safetensors"] = "0" * 64  # another file than the one that was used
    write_json(there / "bundle.json", described)
    assert found(there)["backbone.safetensors"] == "is missing"


def test_a_run_of_a_bundle_classifies_with_its_backbone_made_anew(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message about the weights that were left out names a command that makes them."""
    bundle(made, tmp_path / "one.tar.gz")
    there = unpacked(tmp_path / "one.tar.gz", tmp_path / "colleague")
    run = next((there / "runs").rglob("run.json")).parent
    with pytest.raises(CptError, match=r"backbone\.safetensors: not found; fix: cpt backbone --name") as error:
        load_run(run, device="cpu")
    monkeypatch.chdir(there.parent)
    cpt(*shlex.split(str(error.value).partition("fix: cpt ")[2]))
    assert load_run(run, device="cpu").class_names
    assert found(there) == {}


def test_what_cannot_be_bundled(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(CptError, match=r"is written as \.tar\.gz"):
        bundle(copied, tmp_path / "x.zip")
    with pytest.raises(CptError, match="lies in the experiment itself"):
        bundle(copied, copied / "x.tar.gz")
    (copied / "runs.parquet").unlink()
    with pytest.raises(CptError, match=r"runs\.parquet: is missing; fix it first \(1 findings\): cpt verify"):
        bundle(copied, tmp_path / "x.tar.gz")
    assert not (tmp_path / "x.tar.gz").exists()
