"""Files between stages: atomic, deterministic, and refused when they are not what they should be."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from cpt import seeds
from cpt.cli.options import json_object
from cpt.errors import CptError, nearest
from cpt.features.descriptions import read_description_file
from cpt.files import stage_files as files
from cpt.training.checkpoint import CheckpointFile
from cpt.workflow import instance, many


def test_atomic_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    files.write_text(path, "one")
    with pytest.raises(FileNotFoundError), files.atomic(path) as temporary:
        (temporary.write_text("half"), Path(tmp_path / "absent").read_text())
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    """A child writes and is killed; another writes while the parent does."""
    path, others = (
        tmp_path / "a.txt",
        [tmp_path / ".a-x.txt", tmp_path / ".a-12345678.json", tmp_path / ".ab-12345678.txt"],
    )
    for other in others:
        other.touch()
    code = "import sys; from pathlib import Path; from cpt.files.stage_files import atomic\n"
    code += "with atomic(Path(sys.argv[1])) as t: t.write_text('child'); print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    killed, living = (subprocess.Popen([sys.executable, "-c", code, path], **pipes) for _ in range(2))
    for child in (killed, living):
        child.stdout.readline()
    killed.kill()
    killed.wait()
    assert len(list(tmp_path.iterdir())) == 5
    files.write_text(path, "parent")
    assert path.read_text() == "parent"
    assert len(list(tmp_path.iterdir())) == 5, "the file came, the killed one's went"
    living.communicate(b"\n")
    assert living.returncode == 0
    assert path.read_text() == "child"
    assert set(tmp_path.iterdir()) == {path, *others}


WRITERS = {
    "a.txt": "files.write_text(path, 'x' * 10**6)",
    "a.json": "files.write_json(path, ['x' * 10**6])",
    "a.npy": "files.write_array(path, numpy.zeros(10**6))",
    "a.parquet": "files.write_parquet(path, pyarrow.table({'x': numpy.random.rand(10**5)}), 's/1')",
    "a.safetensors": "files.write_tensors(path, {'x': torch.zeros(10**6)}, 's/1')",
    "a.checkpoint": "CheckpointFile(path, 'key', 0).save(x=torch.zeros(10**6))",
}


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EFBIG, "cannot be written, it is larger than this process may write; raise `ulimit -f`"),
        (errno.ENOSPC, r"cannot be written, the disk is full \([\d,.]+ MB free\); free some and run again"),
    ],
    ids=["limit", "full"],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, number: int, words: str) -> None:
    """The limit on a file's size fails as a full disk does, in any file system; the message tells them apart."""
    code = f"""
import errno, resource, sys
from pathlib import Path
import numpy, pyarrow, torch
from cpt.files import stage_files as files
from cpt.errors import CptError
from cpt.training.checkpoint import CheckpointFile
errno.EFBIG, errno.ENOSPC = sorted([errno.EFBIG, errno.ENOSPC], reverse={number == errno.ENOSPC})
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
for name, write in {WRITERS}.items():
    path = Path(sys.argv[1], name)
    try:
        eval(write)
    except CptError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "new"], capture_output=True, text=True, check=True)
    for name, line in zip(WRITERS, done.stdout.splitlines(), strict=True):
        assert re.fullmatch(f"{tmp_path}/new/{name}: {words}", line), line
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_takes_no_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CptError, match=r"x.txt: cannot be written \((Not a directory|File exists)\); fix that and run"):
        files.write_text(tmp_path / "file" / "x.txt", "x")


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to pipe", "link to folder", "link to open file"])
def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    """The last is what /dev/stdout is while a shell sends it to a file; as root, one could replace it."""
    path, there = tmp_path / "y.txt", tmp_path / "there"
    place = there if kind.startswith("link") else path
    with contextlib.ExitStack() as stack:
        if kind.endswith("pipe"):
            os.mkfifo(place)
        elif kind.endswith("folder"):
            place.mkdir()
        else:
            there = Path(f"/proc/self/fd/{stack.enter_context(open(there, 'w')).fileno()}")
        if kind.startswith("link"):
            path.symlink_to(there)
        before = path.lstat().st_ino
        with pytest.raises(CptError, match=f"^{path}: is no regular file; give the path of a file$"):
            files.write_text(path, "x")
        assert path.lstat().st_ino == before
    assert {p.name for p in tmp_path.iterdir()} <= {"y.txt", "there"}


def test_a_link_to_a_file_is_replaced_by_the_file(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("old")
    for name, target in (("a.txt", "there"), ("b.txt", "nowhere")):
        (tmp_path / name).symlink_to(tmp_path / target)
        files.write_text(tmp_path / name, "new")
        assert ((tmp_path / name).read_text(), (tmp_path / name).is_symlink()) == ("new", False)
    assert (tmp_path / "there").read_text() == "old"


def write(name: str, path: Path) -> None:
    eval(
        WRITERS[name],
        {"files": files, "numpy": np, "pyarrow": pa, "torch": torch, "CheckpointFile": CheckpointFile, "path": path},
    )


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_flushed_to_the_disk_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Not a file that a library has put another in the place of."""
    flushed: list[tuple[int, int]] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        fsync(handle)
        flushed.append((os.fstat(handle).st_ino, os.fstat(handle).st_size))

    monkeypatch.setattr(os, "fsync", noted)
    write(name, tmp_path / name)
    there = (tmp_path / name).stat()
    assert flushed == [(there.st_ino, there.st_size)]


def test_a_writer_that_puts_another_file_in_place_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    with pytest.raises(RuntimeError, match="in the place of the locked one"), files.atomic(tmp_path / "a") as temporary:
        (tmp_path / "other").rename(temporary)
    assert list(tmp_path.iterdir()) == []


def test_a_saved_state_leaves_alone_what_a_living_process_saves(tmp_path: Path) -> None:
    """Two processes of one run: the first is finished while the other saves."""
    path, orphan = tmp_path / "run.checkpoint", tmp_path / ".run-0123abc_.checkpoint"
    orphan.touch()
    with files.atomic(path) as temporary:
        CheckpointFile(path, "key", 0).remove()
        assert temporary.exists()
        assert not orphan.exists()
    assert path.exists()


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ENOSPC])
def test_errors_that_name_no_file_are_of_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    def broken(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", broken)
    why = (
        "the disk is full" if number == errno.ENOSPC else re.escape(f"({os.strerror(number)}); fix that and run again")
    )
    with pytest.raises(CptError, match=f"^{tmp_path}/{name}: cannot be written,? {why}"):
        write(name, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_paths_that_are_relative_are_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder/y.txt").mkdir(parents=True)
    Path("file").touch()
    for name, why in (
        ("folder/y.txt", "is no regular file; give the path of a file"),
        ("file/x.txt", r"cannot be written \((Not a directory|File exists)\); fix that and run again"),
    ):
        with pytest.raises(CptError, match=rf"^{name}: {why}"):
            files.write_text(Path(name), "x")


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        CptError("x.png: cannot be decoded ([Errno 5] Input/output error)"),
        PermissionError(errno.EACCES, "Permission denied", "elsewhere"),
        OSError(errno.ENOSPC, "No space left on device", "/elsewhere"),
        ValueError("neither"),
    ],
)
def test_errors_of_others_stay_what_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, files.atomic(tmp_path / "a.txt"):
        raise error
    assert caught.value is error


# Locks


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS])
def test_disks_without_locks_go_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    orphan = tmp_path / ".a-0123abc_.txt"
    orphan.touch()
    files.write_text(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.txt").read_text() == "x"
    assert orphan.exists(), "nobody can tell whether its writer lives"


def test_file_modes_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_round_trips_are_deterministic(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2], "b": ["x", "y"], "c": [0.5, 1.5]})
    tensors = {"w": torch.arange(6.0).view(2, 3).T}
    for i in range(2):
        files.write_parquet(tmp_path / f"{i}.parquet", table, "s/1", k=1, j=2)
        files.write_tensors(tmp_path / f"{i}.safetensors", tensors, "s/1", k=1)
        files.write_json(tmp_path / f"{i}.json", {"schema": "s/1", "b": 1, "a": [1]})
    for suffix in ("parquet", "safetensors", "json"):
        assert (tmp_path / f"0.{suffix}").read_bytes() == (tmp_path / f"1.{suffix}").read_bytes()
    read, metadata = files.read_parquet(tmp_path / "0.parquet", "s/1")
    assert read.to_pydict() == table.to_pydict()
    assert metadata == {"schema": "s/1", "k": 1, "j": 2}
    assert files.column(read, "a").tolist() == [1, 2]
    assert files.column(read, "b").tolist() == ["x", "y"]
    assert files.column(read, "c").dtype == np.float64
    loaded, _ = files.read_tensors(tmp_path / "0.safetensors", "s/1")
    assert torch.equal(loaded["w"], tensors["w"])
    assert files.sha256_file(tmp_path / "0.json") == files.sha256_text((tmp_path / "0.json").read_text())


@pytest.mark.parametrize(
    ("reader", "name"),
    [(files.read_parquet, "a.parquet"), (files.read_tensors, "a.safetensors"), (files.read_json, "a.json")],
)
def test_unusable_files_are_named(tmp_path: Path, reader, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(CptError, match=f"{name}: not found"):
        reader(path, "s/1")
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(CptError, match=rf"{name}: damaged .*delete it and run again"):
        reader(path, "s/1")
    writers = {
        "a.parquet": lambda: files.write_parquet(path, pa.table({"a": [1]}), "other/1"),
        "a.safetensors": lambda: files.write_tensors(path, {"w": torch.zeros(1)}, "other/1"),
        "a.json": lambda: files.write_json(path, {"schema": "other/1"}),
    }
    writers[name]()
    with pytest.raises(CptError, match="expected a file of schema s/1, found other/1; give the file that was meant"):
        reader(path, "s/1")


@pytest.mark.parametrize(("reader", "suffix"), [(files.read_parquet, "parquet"), (files.read_tensors, "safetensors")])
def test_a_file_of_another_kind_is_not_called_damaged(tmp_path: Path, reader: Any, suffix: str) -> None:
    path = tmp_path / "grid.json"  # which would be its own experiment's
    files.write_json(path, {"schema": "s/1", "runs": [], "datasets": {}})
    with pytest.raises(CptError, match=rf"grid.json: is not a .{suffix} file; give the one that the stage wrote"):
        reader(path, "s/1")


@pytest.mark.parametrize("metadata", ["[]", "3", "null", '"s/1"', '{"schema": ["s/1"]}'])
def test_metadata_that_are_no_object_are_refused(tmp_path: Path, metadata: str) -> None:
    described = pa.table({"a": [1]}).replace_schema_metadata({"cpt": metadata})
    pq.write_table(described, tmp_path / "a.parquet")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"cpt": metadata})
    (tmp_path / "a.json").write_text(metadata)
    for reader, suffix in (
        (files.read_parquet, "parquet"),
        (files.read_tensors, "safetensors"),
        (files.read_json, "json"),
    ):
        with pytest.raises(CptError, match=rf"a.{suffix}: expected a file of schema s/1, found .*; delete it"):
            reader(tmp_path / f"a.{suffix}", "s/1")


READERS = {"a.json": files.read_json, "a.parquet": files.read_parquet, "a.safetensors": files.read_tensors}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_or_a_device_in_a_files_place_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(CptError, match=rf"{name}: cannot be read \(not a regular file\); delete it and run again"):
        READERS[name](tmp_path / name, "s/1")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(CptError, match="not a regular file"):
        READERS[name](tmp_path / name, "s/1")
    with pytest.raises(CptError, match="not a regular file"):
        files.sha256_file(tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_an_error_of_the_disk_is_told_as_it_is(tmp_path: Path, name: str) -> None:
    """Not as a missing or a damaged file. A link to itself is one error of opening that needs no disk."""
    (tmp_path / name).symlink_to(tmp_path / name)
    with pytest.raises(CptError, match=rf"{name}: cannot be read \(Too many levels of symbolic links\)"):
        READERS[name](tmp_path / name, "s/1")


@pytest.mark.parametrize("depth", [900, 100_000])
def test_json_that_is_nested_deeply_is_one_line(tmp_path: Path, depth: int) -> None:
    deep = '{"schema": ' + "[" * depth + "]" * depth + "}"
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"cpt": deep}), tmp_path / "a.parquet")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"cpt": deep})
    (tmp_path / "a.json").write_text(deep)
    for name, reader in READERS.items():
        with pytest.raises(CptError, match=rf"{name}: (damaged \(nested too deeply\)|expected a file of schema s/1)"):
            reader(tmp_path / name, "s/1")


def test_json_of_others_that_is_nested_deeply_is_one_line(tmp_path: Path) -> None:
    deep = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    (tmp_path / "texts.json").write_text(deep)
    (tmp_path / "snakemake.json").write_text(deep)
    for read in (
        lambda: read_description_file(tmp_path / "texts.json", ["a"]),
        lambda: many.parse(deep),
        lambda: json_object("--hyperparameters", deep, "{}"),
    ):
        with pytest.raises(CptError, match=r"JSON.*nested too deeply"):
            read()
    assert instance.working(tmp_path) is None


def test_tensors_of_every_kind_are_read_as_safetensors_reads_them(tmp_path: Path) -> None:
    made = {
        str(dtype): torch.arange(-6, 6).reshape(3, 4).to(dtype)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
                      torch.uint8, torch.bool)
    }  # fmt: skip
    made |= {"scalar": torch.tensor(2.5), "none": torch.empty(0, 5), "odd": torch.ones(3, dtype=torch.uint8)}
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, made, "s/1")
    loaded, expected = files.read_tensors(path, "s/1")[0], load_file(path)
    assert list(loaded) == sorted(made)
    for name, tensor in loaded.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])
        assert tensor.data_ptr() % 64 == 0, "sums depend on where memory begins"
    content = path.read_bytes()
    for changed in (content[:-1], content + b"x"):
        path.write_bytes(changed)
        with pytest.raises(CptError, match=rf"^{path}: damaged \(of another length\); delete it and run again$"):
            files.read_tensors(path, "s/1")


def test_safetensors_with_lies_in_their_header_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for header in (b"[]", b"3", b'{"__metadata__": 3}', b'{"__metadata__": {"cpt": 3}}', b"\xff", b"", b"{" * 99):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        for reader in (files.read_tensors, files.read_metadata):
            with pytest.raises(CptError, match=rf"^{path}: (damaged|expected).*; delete it and run again$"):
                reader(path, "s/1")
    described = (
        b'{"__metadata__":{"cpt":"{\\"schema\\":\\"s/1\\"}"},"a":{"dtype":"%s","shape":[1],"data_offsets":[0,%d]}}'
    )
    for dtype, size in ((b"F32", 8), (b"F32", 4), (b"F8_E8M0", 1), (b"F9", 1)):
        header = described % (dtype, size)
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(CptError, match=rf"^{path}: damaged \(.*\); delete it and run again$"):
            files.read_tensors(path, "s/1")
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(CptError, match="expected a file of schema s/1"):
        files.read_metadata(path, "s/1")


def test_streams_are_named_and_independent() -> None:
    a, b = (seeds.numpy_stream(1, "batches", epoch).permutation(50) for epoch in (0, 1))
    assert not np.array_equal(a, b)
    assert np.array_equal(a, seeds.numpy_stream(1, "batches", 0).permutation(50))
    x, y = (torch.randn(5, generator=seeds.torch_stream(seed, "prompts")) for seed in (1, 2))
    assert not torch.equal(x, y)
    assert 0 <= seeds.stream_seed(3, "x") < 2**63


def test_nearest_name() -> None:
    assert nearest("flower", ["flowers", "land"]) == "did you mean 'flowers'?"
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
