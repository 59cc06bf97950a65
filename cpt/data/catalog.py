"""The catalog: what each dataset is called, where it lies and how its images are laid out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cpt.data.layouts import LAYOUTS
from cpt.errors import CptError, nearest


def _one_slot(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError("must contain {} exactly once, where the class name goes")
    return template


def _known_layout(layout: str) -> str:
    if layout not in LAYOUTS:
        raise ValueError(f"is no layout; {nearest(layout, LAYOUTS)}")
    return layout


class PerClass(BaseModel):
    """Number of images that the embedded world renders per class and part."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    train: int = Field(default=32, ge=1, description="size of the pool from which the shots are drawn")
    val: int = Field(default=0, ge=0, description="validation images beside the pool")
    test: int = Field(default=60, ge=1, description="test images")


class Entry(BaseModel):
    """One dataset of the catalog. ``name`` is the key under which it stands there."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    title: str = Field(description="name in tables and figures")
    counterpart: str | None = Field(default=None, description="the paper's dataset whose role it plays")
    layout: Annotated[str, AfterValidator(_known_layout)] = Field(description="how its images are laid out")
    template: Annotated[str, AfterValidator(_one_slot)] = Field(
        default="a photo of a {}.", description="prompt; the class name goes into {}"
    )
    root: str | None = Field(
        default=None, description="folder with train/ and test/; relative to where cpt is started (folders)"
    )
    class_names: list[str] | dict[str, str] | None = Field(
        default=None,
        description="names in the order of the sorted class folders, or folder: name in label order (folders)",
    )
    descriptions: str | None = Field(
        default=None,
        description="JSON file {class name: [sentence, ...]}, relative to where cpt is started, for text knowledge",
    )
    per_class: PerClass = Field(default=PerClass(), description="images per class (embedded)")
    shift_of: str | None = Field(
        default=None, description="the dataset of which this is a test-only shift with (a part of) its classes"
    )
    key: str | None = Field(default=None, description="which world dataset; the entry's name if absent (embedded)")

    @model_validator(mode="after")
    def _root_where_needed(self) -> Entry:
        if self.layout == "folders" and self.root is None:
            raise ValueError("layout folders needs root, the folder that holds train/ and test/")
        return self


def load_catalog(path: Path) -> dict[str, Entry]:
    """Return the datasets of a catalog file by name.

    A shift without class names of its own takes those of its source.

    Raises:
        CptError: the file is missing or not YAML, or an entry has an unknown key or an impossible value.
    """
    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CptError(f"{path}: not found; give the catalog of datasets, for example config/datasets.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CptError(f"{path}: not YAML ({' '.join(str(error).split())}); mend the line named") from None
    if not isinstance(described, dict):
        raise CptError(f"{path}: holds {type(described).__name__}; write one mapping `name: {{title: …}}`")
    catalog = {name: _entry(path, name, fields) for name, fields in described.items()}
    return {name: _resolve_shift(path, entry, catalog) for name, entry in catalog.items()}


def find(catalog: dict[str, Entry], name: str) -> Entry:
    """Return the entry of a dataset.

    Raises:
        CptError: no such dataset; the message says the nearest known name.
    """
    if name not in catalog:
        raise CptError(f"dataset: unknown {name!r}; {nearest(name, catalog)}")
    return catalog[name]


def _entry(path: Path, name: Any, fields: Any) -> Entry:
    if not isinstance(name, str) or not isinstance(fields, dict):
        raise CptError(f"{path}: {name}: must be a name followed by a mapping with title and layout")
    if "name" in fields:
        raise CptError(f"{path}: {name}.name: unknown key; the name is the key of the entry, delete the line")
    try:
        return Entry(name=name, **fields)
    except ValidationError as error:
        raise CptError(f"{path}: {_one_line(name, error)}") from None


def _one_line(name: str, error: ValidationError) -> str:
    """Describe the first problem as ``entry.field: value, what is wrong and the mend``."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in (name, *first["loc"]))
    if first["type"] == "extra_forbidden":
        known = Entry.model_fields if len(first["loc"]) == 1 else PerClass.model_fields
        return f"{field}: unknown key; {nearest(str(first['loc'][-1]), set(known) - {'name'})}"
    if first["type"] == "missing":
        return f"{field}: missing; add it"
    reason = first["msg"].removeprefix("Value error, ")
    return f"{field}: {reason}" if isinstance(first["input"], dict) else f"{field}: {first['input']!r} {reason}"


def _resolve_shift(path: Path, entry: Entry, catalog: dict[str, Entry]) -> Entry:
    if entry.shift_of is None:
        return entry
    field = f"{path}: {entry.name}.shift_of"
    if entry.shift_of not in catalog:
        raise CptError(f"{field}: unknown dataset {entry.shift_of!r}; {nearest(entry.shift_of, catalog)}")
    source = catalog[entry.shift_of]
    if source.shift_of is not None:
        raise CptError(f"{field}: {entry.shift_of!r} is itself a shift; name the source, {source.shift_of!r}")
    if entry.class_names is None:
        return entry.model_copy(update={"class_names": source.class_names})
    return entry
