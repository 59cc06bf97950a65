"""An entry of the catalog: what a dataset is called, where it comes from and lies, and how its images are laid out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from cpt.errors import CptError, nearest
from cpt.files.handwritten import expanded
from cpt.validation import checksum, no_braces, no_nul, shown


def _must(hold: Callable[[str], object], words: str) -> AfterValidator:
    """Refuse a text for which a condition does not hold."""

    def check(text: str) -> str:
        if not hold(text):
            raise ValueError(f"must {words}")
        return text

    return AfterValidator(check)


def _known(kind: str) -> AfterValidator:
    """Check a name against those that the reader of the catalog knows (the context of the validation)."""

    def check(name: str, info: ValidationInfo) -> str:
        known = (info.context or {}).get(kind, [name])
        if name not in known:
            raise ValueError(f"is no {kind}; {nearest(name, known)}")
        return name

    return AfterValidator(check)


Template = Annotated[str, _must(lambda t: t.count("{}") == 1, "contain {} exactly once, where the class name goes")]
Inside = Annotated[
    str,
    _must(lambda p: not (Path(p).is_absolute() or ".." in Path(p).parts), "be a path inside the dataset's root"),
    AfterValidator(no_nul),
]
Address = Annotated[
    str,
    _must(lambda url: re.match("https?://", url), "begin with https:// or http://"),
    _must(lambda url: not re.search(r"[\x00-\x1f\x7f]", url), "be one line without control characters"),
]
PartName = Annotated[str, _must(lambda part: part in ("train", "val", "test"), "be train, val or test")]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Names of datasets."""


OWN = ("folders", "csv", "huggingface")
"""Layouts of datasets of one's own, whose images can be cut into parts without further ado."""
BY_LISTS = ("lists", "imagenet_lists", "inaturalist")
"""Layouts of which a file per part lists the images."""


class Part(BaseModel):
    """A part of an entry: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PerClass(Part):
    """Number of images that a generated world renders per class and part."""

    train: int = Field(default=32, ge=1, description="size of the pool from which the shots are drawn")
    val: int = Field(default=0, ge=0, description="validation images beside the pool")
    test: int = Field(default=60, ge=1, description="test images")


class Source(Part):
    """One place that a file can be had from."""

    url: Address = Field(description="http or https address of the file itself")
    bytes: int | None = Field(None, ge=1, description="size of the file, if published")
    sha256: Annotated[str, AfterValidator(checksum(64))] | None = Field(None, description="checksum, if published")
    md5: Annotated[str, AfterValidator(checksum(32))] | None = Field(
        None, description="checksum, if only this is published"
    )


class Files(Part):
    """Something that a dataset needs below its root, and the places to get it from."""

    provides: dict[Inside, list[str]] = Field(
        min_length=1,
        description="path below the root: names under which archives hold it; an empty list: the source is this file",
    )
    sources: list[Source] = Field(min_length=1, description="tried in this order")
    nested: list[str] = Field([], description="patterns of archives inside the archive")
    only_split_images: bool = Field(False, description="keep only images that the split file names")
    derived_split_only: bool = Field(False, description="needed only where the split is derived")


class Derive(Part):
    """How a split is made where the published split file cannot be had (``cpt.data.layouts.derived``)."""

    rule: Annotated[str, _known("rule")] = Field(description="how the images are cut into parts")
    drop: list[str] = Field([], description="class folders that are no classes")
    rename: dict[str, str] = Field({}, description="class folder: class name")


class Columns(Part):
    """Which columns of a Hugging Face dataset hold images and labels, where it has several of a kind."""

    image: str | None = Field(default=None, description="column of the images")
    label: str | None = Field(default=None, description="column of the labels")


class Expected(Part):
    """What a complete copy holds; checked when its manifest is made."""

    classes: int = Field(description="number of classes")
    names_sha256: str | None = Field(None, description="of the class names in label order, joined by line feeds")
    images: dict[str, int] = Field({}, description="part: number of images")
    base: dict[str, int] = Field({}, description="part: number of images of base classes")
    new: dict[str, int] = Field({}, description="part: number of images of new classes")
    boundary: tuple[str, str, str, str] | None = Field(
        None, strict=False, description="first class, last base class, first new class, last class"
    )


class Entry(Part):
    """One dataset of the catalog. ``name`` is the key under which it stands there."""

    name: str
    title: Annotated[str, AfterValidator(shown)] = Field(description="name in tables and figures")
    counterpart: str | None = Field(None, description="the paper's dataset whose role it plays")
    layout: Annotated[str, _known("layout")] = Field(description="how its images lie, or embedded")
    template: Template = Field("a photo of a {}.", description="prompt; the class name goes into {}")
    other_templates: dict[str, Template] = Field(
        {}, description="its template in other code bases, by template set (texture, tcp)"
    )
    root: Annotated[str, AfterValidator(no_nul)] | None = Field(
        None, description="the dataset's folder, relative to where cpt is started"
    )
    images: Inside = Field(
        ".", description="folder of the images below root (all layouts but embedded, folders and csv)"
    )
    split: Inside | None = Field(
        None,
        description="file below root: JSON with train, val and test lists of [path, label, class name], or the table "
        "of the layout csv",
    )
    lists: dict[PartName, Inside] = Field({}, description="part: file below root (lists, imagenet_lists, inaturalist)")
    parts: dict[PartName, str] = Field(
        {}, description="part: split of the dataset; default: train, validation and test (huggingface)"
    )
    columns: Columns = Field(Columns(), description="columns of images and labels (huggingface)")
    class_names: str | list[str] | dict[str, str] | None = Field(
        None,
        description="names in label order, folder: name in label order, or a text file beside the catalog with a name "
        "or `<folder> <name>` on every line",
    )
    derive: Derive | None = Field(None, description="how to make a split where the published one is missing")
    derived_split: bool = Field(False, description="make the split by derive; results are marked as not comparable")
    fingerprint: Literal["bytes", "sizes"] = Field(
        "bytes", description="what of the image files the manifest's hash covers"
    )
    expected: Expected | None = Field(None, description="what a complete copy holds")
    license: str | None = Field(None, description="terms of use, shown before a download")
    gated: str | None = Field(None, description="what to get where, for data that cannot be fetched")
    files: list[Files] = Field([], description="what can be fetched, in order")
    descriptions: Annotated[str, AfterValidator(no_braces), AfterValidator(expanded)] | None = Field(
        None,
        description="JSON file {class name: [sentence, ...]}, relative to where cpt is started, for text knowledge",
    )
    per_class: PerClass = Field(PerClass(), description="images per class (embedded)")
    shift_of: str | None = Field(
        None, description="the dataset of which this is a test-only shift with (a part of) its classes"
    )
    key: str | None = Field(None, description="which world dataset; the entry's name if absent (embedded)")

    def template_for(self, templates: str) -> str:
        """Return the dataset's template in a template set."""
        return self.other_templates.get(templates, self.template)

    @property
    def folder(self) -> Path:
        """Absolute path of the dataset's root.

        Raises:
            CptError: its ``~`` has no home folder.
        """
        assert self.root is not None
        try:
            return Path(expanded(self.root)).absolute()
        except ValueError as error:
            raise CptError(f"{self.name}.root: {self.root!r}: {error}") from None

    @property
    def has_files(self) -> bool:
        """Its images are files, which an image cache is made of."""
        return self.layout != "embedded"

    @property
    def fetched(self) -> bool:
        """Its files can be fetched, or asked for."""
        return bool(self.files or self.gated)

    @property
    def wanted(self) -> list[Any]:
        """What of its files must be there, for telling whether that has changed."""
        return [self.root, self.derived_split, [sorted(item.provides) for item in self.files]]

    @property
    def identity(self) -> str:
        """What its manifest depends on, as JSON."""
        others = {"title", "counterpart", "template", "other_templates", "descriptions", "license", "gated", "files"}
        return self.model_dump_json(exclude=others)

    @model_validator(mode="after")
    def _complete(self) -> Entry:
        if self.layout != "embedded" and self.root is None:
            raise ValueError(f"layout {self.layout} needs root, the folder that holds the dataset")
        if self.layout == "split_json" and self.split is None:
            raise ValueError("layout split_json needs split, the JSON file with its train, val and test lists")
        if self.layout == "csv" and self.split is None:
            raise ValueError("layout csv needs split, the table below root, for example split: labels.csv")
        if self.layout in BY_LISTS and not {"train", "test"} <= set(self.lists):
            raise ValueError(f"layout {self.layout} needs lists, a file below root for train and one for test")
        if self.derived_split and self.derive is None and self.layout not in OWN:
            raise ValueError("derived_split needs derive, the rule that makes it")
        return self
