"""Miniatures of the 15 datasets: true layouts, names, lists and quirks, a few tiny images per class.

Class names, label order and split formats are those of config/datasets.yaml; only the number of images is small.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

REAL = Path(__file__).parents[2] / "config" / "datasets.yaml"
TRAIN, VAL, TEST = 2, 1, 1
"""Images per class of the datasets with a split; ImageNet has TRAIN and TEST, its shifts TEST."""

Members = dict[str, bytes]


def picture(number: int, kind: str = "JPEG") -> bytes:
    """A small image that no other number gives, in the format ``kind`` (CMYK and L are JPEGs of those modes)."""
    size = (20 + number % 5, 18 + number % 7)
    color = np.random.default_rng(number).integers(0, 255, 3).tolist()
    image = Image.new("RGB", size, tuple(color))
    image.putpixel((0, 0), (number % 256, number // 256 % 256, 0))
    stream = io.BytesIO()
    if kind in ("CMYK", "L"):
        image.convert(kind).save(stream, "JPEG")
    else:
        image.save(stream, kind)
    return stream.getvalue()


def make_tar(members: Members, mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def make_zip(members: Members) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


class Miniatures:
    """Archives and split files of the paper's datasets, and the catalog that fetches them.

    Attributes:
        served: path on the server -> content.
        catalog: entries like those of config/datasets.yaml.
    """

    def __init__(self, data: Path, url: str) -> None:
        self.data, self.url = data, url
        self.served: dict[str, bytes] = {}
        every = yaml.safe_load(REAL.read_text(encoding="utf-8"))
        of_paper = {name: entry for name, entry in every.items() if "counterpart" in entry}
        self.catalog: dict[str, Any] = {name: e for name, e in of_paper.items() if e["layout"] != "embedded"}
        self.number = 0
        for name, entry in self.catalog.items():
            entry["root"] = str(data / Path(entry["root"]).relative_to("data"))
            entry["class_names"] = str(REAL.parent / entry["class_names"])
            names = Path(entry["class_names"]).read_text().splitlines()
            lists = getattr(self, f"_{name}")(entry, names)
            self._expect(entry, lists, len(names))

    def write_catalog(self, path: Path) -> Path:
        path.write_text(yaml.safe_dump(self.catalog, sort_keys=False), encoding="utf-8")
        return path

    def _next(self, kind: str = "JPEG") -> bytes:
        self.number += 1
        return picture(self.number, kind)

    def _serve(self, entry: dict[str, Any], item: int, content: bytes) -> None:
        """Make ``content`` what the first source of an item gives, under the file name of the real address."""
        source = entry["files"][item]["sources"][0]
        path = f"/{Path(entry['root']).name}/{item}/{re.split('[?#]', source['url'])[0].rsplit('/', 1)[-1]}"
        self.served[path] = content
        source |= {"url": self.url + path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        source.pop("md5", None)
        entry["files"][item]["sources"] = [source]

    def _expect(self, entry: dict[str, Any], lists: dict[str, list[int]], classes: int) -> None:
        middle, expected = (classes + 1) // 2, entry["expected"]
        expected["images"] = {part: len(labels) for part, labels in lists.items()}
        for half, inside in (("base", lambda label: label < middle), ("new", lambda label: label >= middle)):
            if half in expected:
                expected[half] = {part: sum(map(inside, labels)) for part, labels in lists.items()}

    def _split(
        self, entry: dict[str, Any], names: list[str], path: Callable[[int, int, str], str], *, item: int = 1,
        shuffled: bool = False, encoding: str = "utf-8", newline: str = "\n",
    ) -> tuple[Members, dict[str, list[int]]]:  # fmt: skip
        """Serve a split file; return its images by path, and the labels of every part."""
        lists: dict[str, list] = {"train": [], "val": [], "test": []}
        images: Members = {}
        for label, name in enumerate(names):
            parts = ["train"] * TRAIN + ["val"] * VAL + ["test"] * TEST
            for number, part in enumerate(parts):
                where = path(label, number, part)
                images[where] = self._next()
                lists[part].append([where, label, name])
        if shuffled:
            for part in lists.values():
                random.Random(0).shuffle(part)
        text = json.dumps(lists, indent=0).replace("\n", newline)
        self._serve(entry, item, text.encode(encoding))
        return images, {part: [label for _, label, _ in items] for part, items in lists.items()}

    def _caltech101(self, entry: dict[str, Any], names: list[str]) -> dict[str, list[int]]:
        folder = {name: original for original, name in entry["derive"]["rename"].items()}
        images, lists = self._split(
            entry, names, lambda label, i, _: f"{folder.get(names[label], names[label])}/image_{i + 1:04d}.jpg"
        )
        inner = {f"101_ObjectCategories/{path}": content for path, content in images.items()}
        for extra in entry["derive"]["drop"]:
            inner[f"101_ObjectCategories/{extra}/image_0001.jpg"] = self._next("L")
        members = {
            "caltech-101/101_ObjectCategories.tar.gz": make_tar(inner, "w:gz"),
            "caltech-101/Annotations.tar": make_tar({"Annotations/a.mat": b"x"}),
            "__MACOSX/caltech-101/._101_ObjectCategories.tar.gz": b"junk",
        }
        self._serve(entry, 0, make_zip(members))
        return lists

    def _oxford_pets(self, entry: dict[str, Any], names: list[str]) -> dict[str, list[int]]:
        breed = [name.title() if i % 3 == 0 else name for i, name in enumerate(names)]  # cats are capitalized
        images, lists = self._split(
            entry, names, lambda label, i, _: f"{breed[label]}_{i + 1}.jpg", encoding="utf-8-sig"
        )
        first = next(iter(images))
        images[first] = self._next("PNG")  # a wrong extension, as some of the real ones
        extra = {f"{breed[0]}_100.mat": b"no image", ".DS_Store": b"junk", f"._{breed[0]}_1.jpg": b"junk"}
        members = {f"images/{path}": content for path, content in (images | extra).items()}
        self._serve(entry, 0, make_tar(members, "w:gz"))
        lines = {"trainval": [], "test": []}
        for path in sorted(images):
            label = breed.index(path.rpartition("_")[0])
            part = "test" if path.endswith(f"_{TRAIN + VAL + 1}.jpg") else "trainval"
            lines[part].append(f"{path.removesuffix('.jpg')} {label + 1} 1 1")
        annotations = {f"annotations/{part}.txt": "\n".join(text).encode() for part, text in lines.items()}
        self._serve(entry, 2, make_tar(annotations, "w:gz"))
        return lists

    def _stanford_cars(self, entry: dict[str, Any], names: list[str]) -> dict[str, list[int]]:
        def path(label: int, i: int, part: str) -> str:
            folder, per_class = ("cars_test", TEST) if part == "test" else ("cars_train", TRAIN + VAL)
            return f"{folder}/{label * per_class + i % (TRAIN + VAL) + 1:05d}.jpg"

        images, lists = self._split(entry, names, path, shuffled=True, newline="\r\n")
        members = {f"stanford_cars/{path}": content for path, content in images.items()}
        self._serve(entry, 0, make_zip(members | {"stanford_cars/devkit/README.txt": b"devkit"}))
        return lists

    def _oxford_flowers(self, entry: dict[str, Any], names: list[str]) -> dict[str, list[int]]:
        every = TRAIN + VAL + TEST
        images, lists = self._split(
            entry, names, lambda label, i, _: f"image_{label * every + i + 1:05d}.jpg", shuffled=True
        )
        self._serve(entry, 0, make_tar({f"jpg/{path}": content for path, content in images.items()}, "w:gz"))
        return lists

    def _food101(self, entry: dict[str, Any], names: list[str]) -> dict[str, list[int]]:
        images, lists = self._split(entry, names, lambda label, i, _: f"{names[label]}/{1000 + i}.jpg")
        members = {f"food-101/images/{path}": content for path, content in images.items()}
        self._serve(entry, 0, make_tar(members | {"food-101/meta/classes.txt": b"unused"}, "w:gz"))
        return lists

    def _fgvc_aircraft(self, entry: dict[str, Any], names: list[str]) -> dict[str, list[int]]:
        lists: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        lines: dict[str, list[str]] = {part: [] for part in lists}
        members: Members = {}
        for label, name in enumerate(names):
            for i, part in enumerate(["train"] * TRAIN + ["val"] * VAL + ["test"] * TEST):
                identity = f"{label * 10 + i:07d}"
                members[f"images/{identity}.jpg"] = self._next()
                lines[part].append(f"{identity} {name}")
                lists[part].append(label)
        members["variants.txt"] = ("\ufeff" + "\r\n".join(names) + "\r\n").encode()
        for part, text in lines.items():
            members[f"images_variant_{part}.txt"] = "\n".join(text).encode()
        prefix = "fgvc-aircraft-2013b/data/"
        self._serve(entry, 0, make_tar({prefix + name: content for name, content in members.items()}, "w:gz"))
        return lists

    def _sun397(self, entry: dict[str, Any], names: list[str]) -> dict[str, list[int]]:
        def folder(name: str) -> str:
            parts = name.split(" ")[::-1]
            return "/".join([parts[0][0], *parts])

        images, lists = self._split(entry, names, lambda label, i, _: f"{folder(names[label])}/sun_{i:04d}.jpg", item=0)
        for path, kind in zip(list(images), ("BMP", "PNG", "GIF"), strict=False):
            images[path] = self._next(kind)
        unused = {f"{folder(names[0])}/sun_unused.jpg": self._next(), "ClassName.txt": b"unused"}
        members = {f"sun397/SUN397/{path}": content for path, content in (images | unused).items()}
        self._serve(entry, 1, make_zip(members))
        return lists

    def _dtd(self, entry: dict[str, Any], names: list[str]) -> dict[str, list[int]]:
        images, lists = self._split(entry, names, lambda label, i, _: f"{names[label]}/{names[label]}_{i + 1:04d}.jpg")
        members = {f"dtd/images/{path}": content for path, content in images.items()}
        members |= {"dtd/labels/train1.txt": b"unused", "dtd/images/banded/.directory": b"junk"}
        self._serve(entry, 0, make_tar(members))  # a plain tar in spite of its name
        return lists

    def _eurosat(self, entry: dict[str, Any], names: list[str]) -> dict[str, list[int]]:
        folder = {name: original for original, name in entry["derive"]["rename"].items()}

        def path(label: int, i: int, _: str) -> str:
            own = folder.get(names[label], names[label])
            return f"{own}/{own}_{i + 1}.jpg"

        images, lists = self._split(entry, names, path)
        self._serve(entry, 0, make_zip({f"2750/{path}": content for path, content in images.items()}))
        return lists

    def _ucf101(self, entry: dict[str, Any], names: list[str]) -> dict[str, list[int]]:
        def path(label: int, i: int, part: str) -> str:
            action = names[label].replace("_", "").replace("HandstandPushups", "HandStandPushups")
            group = i + 1 if part == "test" else 8 + i
            return f"{names[label]}/v_{action}_g{group:02d}_c01.jpg"

        images, lists = self._split(entry, names, path)
        self._serve(entry, 0, make_zip({f"UCF-101-midframes/{path}": content for path, content in images.items()}))
        return lists

    def _imagenet(self, entry: dict[str, Any], names: list[str]) -> dict[str, list[int]]:
        """Gated: the images lie where the user would put them, with a CMYK, a grey and a wrongly named one."""
        root = Path(entry["root"]) / "images"
        kinds = iter(["CMYK", "L", "PNG"])
        lists: dict[str, list[int]] = {"train": [], "test": []}
        for label, line in enumerate(names):
            wnid = line.split(" ")[0]
            for folder, part, count in (("train", "train", TRAIN), ("val", "test", TEST)):
                (root / folder / wnid).mkdir(parents=True)
                for i in range(count):
                    (root / folder / wnid / f"{wnid}_{i}.JPEG").write_bytes(self._next(next(kinds, "JPEG")))
                lists[part] += [label] * count
        return lists

    def _imagenetv2(self, entry: dict[str, Any], names: list[str]) -> dict[str, list[int]]:
        members = {
            f"imagenetv2-matched-frequency-format-val/{label}/{label:x}.jpeg": self._next()
            for label in range(len(names))
        }
        self._serve(entry, 0, make_tar(members))  # again a plain tar
        return {"test": list(range(len(names)))}

    def _imagenet_sketch(self, entry: dict[str, Any], names: list[str]) -> dict[str, list[int]]:
        members = {f"sketch/{line.split(' ')[0]}/sketch_0.JPEG": self._next() for line in names}
        self._serve(entry, 0, make_zip(members))
        return {"test": list(range(len(names)))}

    def _imagenet_a(self, entry: dict[str, Any], names: list[str], folder: str = "imagenet-a") -> dict[str, list[int]]:
        members = {f"{folder}/{line.split(' ')[0]}/0.jpg": self._next() for line in names}
        self._serve(entry, 0, make_tar(members | {f"{folder}/README.txt": b"unused"}))
        return {"test": list(range(len(names)))}

    def _imagenet_r(self, entry: dict[str, Any], names: list[str]) -> dict[str, list[int]]:
        return self._imagenet_a(entry, names, "imagenet-r")
