"""Disks that cannot map files (FUSE, some network disks): everything is read and written as elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = '''
import ctypes, platform, sys
from pathlib import Path
import numpy as np, pyarrow, torch
from PIL import Image
from safetensors.torch import save
from cpt.files import stage_files as files
from cpt.clip import tiny, weights
from cpt.data.entry import Entry
from cpt.data.images import ImageStore
from cpt.data.make_manifest import make_manifest
from cpt.data.manifest import read_manifest
from cpt.data.image_cache import open_pixels
from cpt.data.make_image_cache import make_pixels
from cpt.training.checkpoint import CheckpointFile

def refuse_maps():
    """From now on the kernel answers ENODEV to whoever maps a file."""
    load, equals, has, end = 0x20, 0x15, 0x45, 0x06
    number = {"x86_64": 9, "aarch64": 222}[platform.machine()]
    program = [(load, 0, 0, 0), (equals, 0, 3, number), (load, 0, 0, 40), (has, 1, 0, 0x20),
               (end, 0, 0, 0x50000 | 19), (end, 0, 0, 0x7FFF0000)]
    packed = b"".join(code.to_bytes(2, "little") + bytes([yes, no]) + k.to_bytes(4, "little")
                      for code, yes, no, k in program)
    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_char_p)]
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(38, 1, 0, 0, 0) == 0
    assert prctl(22, 2, ctypes.byref(Filter(len(program), packed))) == 0

def everything(folder):
    """Write and read a file of every kind."""
    files.write_array(folder / "a.npy", np.arange(9))
    files.write_parquet(folder / "a.parquet", pyarrow.table({"x": list(range(5000))}), "s/1")
    assert files.read_parquet(folder / "a.parquet", "s/1")[0]["x"][7].as_py() == 7
    files.write_tensors(folder / "a.safetensors", {"x": torch.arange(9.0)}, "s/1", k=3)
    assert files.read_tensors(folder / "a.safetensors", "s/1")[0]["x"].tolist() == list(range(9))
    assert files.read_metadata(folder / "a.safetensors", "s/1")["k"] == 3
    CheckpointFile(folder / "a.checkpoint", "key", 0).save(x=torch.arange(9.0))
    assert CheckpointFile(folder / "a.checkpoint", "key", 0).load()["x"][3] == 3
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    (folder / "b.safetensors").write_bytes(save(model.state_dict()))
    torch.save(model.state_dict(), folder / "b.pt")
    for name in ("b.safetensors", "b.pt"):
        weights.load(model, folder / name, "linear")
    tiny.load(Path(tiny.__file__).parents[1] / "assets/tiny_clip")
    entry = Entry(name="land", title="Land", layout="embedded", per_class={"train": 1, "test": 1})
    assert ImageStore(make_manifest(entry, folder / "land")).pixels([3]).shape == (1, 32, 32, 3)
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for part in ("train", "test"):
        (folder / "photos" / part / "cat").mkdir(parents=True)
        for kind in ("bmp", "tiff", "png", "ppm"):
            Image.fromarray(grey).save(folder / "photos" / part / "cat" / f"0.{kind}")
    entry = Entry(name="photos", title="Photos", layout="folders", root=str(folder / "photos"))
    manifest = make_manifest(entry, folder / "out")
    make_pixels(manifest, "test", 8, folder / "cache.npy", 1, lambda line: None)
    cached = open_pixels(folder / "cache.npy", read_manifest(manifest).metadata["content_hash"], 8)
    assert (cached.take(np.arange(4, 8)) == grey[..., None]).all()

everything(Path(sys.argv[1], "mapped"))  # what is imported late is mapped now
refuse_maps()
try:
    np.load(Path(sys.argv[1], "mapped/a.npy"), mmap_mode="r")
except OSError as error:
    assert error.errno == 19
else:
    raise AssertionError("files can be mapped")
everything(Path(sys.argv[1], "unmapped"))
'''


def test_nothing_has_to_be_mapped(tmp_path: Path) -> None:
    for name in ("mapped", "unmapped"):
        (tmp_path / name).mkdir()
    done = subprocess.run([sys.executable, "-c", CODE, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = [
        sorted(path for path in (tmp_path / name).iterdir() if path.is_file()) for name in ("mapped", "unmapped")
    ]
    for one, other in zip(*written, strict=True):
        assert one.name == other.name
        assert one.suffix in (".json", ".pt") or one.read_bytes() == other.read_bytes()
