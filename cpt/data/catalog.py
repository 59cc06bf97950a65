"""The catalog of datasets: a file of entries, and the entry points ``cpt.datasets`` of other packages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cpt.data.entry import NAME, Entry
from cpt.data.layouts.derived import RULES
from cpt.data.make_manifest import BY_FOLDER, LAYOUTS
from cpt.errors import CptError, nearest
from cpt.files import handwritten, plugins
from cpt.files.handwritten import expanded
from cpt.files.plugins import Plugin
from cpt.validation import lines_of, path_name


class Catalog(dict[str, Entry]):
    """Datasets by name.

    Attributes:
        packages: dataset -> the other package that brings it.
        problems: dataset of another package -> why it cannot be used.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        super().__init__(entries)
        self.packages: dict[str, Plugin] = {}
        self.problems: dict[str, str] = {}

    def absent(self, name: str) -> str:
        """Return what to say of a dataset that is not here."""
        return self.problems.get(name) or f"unknown dataset {name!r}; {nearest(name, self)}"


def load_catalog(path: Path) -> Catalog:
    """Return the datasets of a catalog file, and those of other packages, by name.

    A shift without class names of its own takes those of its source.

    Raises:
        CptError: the file is missing or neither YAML nor JSON, or entries have unknown keys or impossible values;
            a line for each problem.
    """
    try:
        described = handwritten.load(path)
    except FileNotFoundError:
        fix = handwritten.instead(path) or "; give the catalog of datasets, for example config/datasets.yaml"
        raise CptError(f"{path}: not found{fix}") from None
    except ValueError as error:
        raise CptError(f"{path}: {error}") from None
    if not isinstance(described, dict):
        raise CptError(f"{path}: holds {type(described).__name__}; write one mapping `name: {{title: …}}`")
    if isinstance(described.get("experiment"), str):
        raise CptError(
            f"{path}: is the configuration of an experiment; give the catalog, for example config/datasets.yaml"
        )
    catalog, problems = {}, []
    for name, fields in described.items():
        try:
            catalog[name] = _with_names(path, path.parent, _entry(path, name, fields))
        except CptError as error:
            problems.append(str(error))
    if problems:
        raise CptError("\n".join(problems))
    found = Catalog({name: _resolve_shift(path, entry, catalog) for name, entry in catalog.items()})
    for name in plugins.of(plugins.DATASETS):
        _add_plugin(found, name, path)
    return found


def find(catalog: Catalog, name: str) -> Entry:
    """Return the entry of a dataset, and note the package that it is from.

    Raises:
        CptError: no such dataset; the message says the nearest known name.
    """
    if name in catalog.problems:
        raise CptError(catalog.problems[name])
    if name not in catalog:
        raise CptError(f"dataset: unknown {name!r}; {nearest(name, catalog)}")
    if name in catalog.packages:
        catalog.packages[name].use()
    return catalog[name]


def _add_plugin(catalog: Catalog, name: str, path: Path) -> None:
    """Add a dataset of another package, or why it cannot be used."""
    try:
        plugin = plugins.only(plugins.DATASETS, name, str(path) if name in catalog else "")
        assert plugin is not None
        catalog[name] = _resolve_shift(plugin, _of_plugin(plugin), catalog)
        catalog.packages[name] = plugin
    except CptError as error:
        catalog.pop(name, None)
        catalog.problems[name] = " ".join(str(error).split())


def _of_plugin(plugin: Plugin) -> Entry:
    """Entry of another package: a mapping of its fields, or what a function returns."""
    fields = plugin.load()
    if callable(fields):
        try:
            fields = fields()
        except Exception as error:
            raise plugin.broken(f"{type(error).__name__}: {error}") from error
    if not isinstance(fields, Mapping):
        raise plugin.broken(
            f"{plugin.point.value} is no mapping with title and layout, nor a function that returns one"
        )
    folder = plugins.source(plugin.module.split(".")[0]) or Path()
    return _with_names(plugin, folder, _entry(plugin, plugin.name, dict(fields)))


def _entry(path: Path | Plugin, name: Any, fields: Any) -> Entry:
    if not isinstance(name, str) or not isinstance(fields, dict):
        raise CptError(f"{path}: {name}: must be a name followed by a mapping with title and layout")
    if not NAME.fullmatch(name):
        raise CptError(
            f"{path}: {name!r}: folders are called like it, so it may have letters, digits, _, - and . only and starts "
            "with a letter or digit; what tables call it is its title"
        )
    try:
        path_name(name)
    except ValueError as error:
        raise CptError(f"{path}: {name}: {error}") from None
    if "name" in fields:
        raise CptError(f"{path}: {name}.name: unknown key; the name is the key of the entry, delete the line")
    try:
        return Entry.model_validate({"name": name, **fields}, context={"layout": LAYOUTS, "rule": RULES})
    except ValidationError as error:
        lines = lines_of(error, Entry, lambda place: (name, *place))
        raise CptError("\n".join(f"{path}: {line}" for _, line in lines)) from None


def _with_names(path: Path | Plugin, folder: Path, entry: Entry) -> Entry:
    """Read the class names of an entry that names a file of them, in a folder."""
    if not isinstance(entry.class_names, str):
        return entry
    try:
        file = folder / expanded(entry.class_names)
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        where = f"{path}: {entry.name}.class_names: {entry.class_names}"
        raise CptError(f"{where}: cannot be read ({getattr(error, 'strerror', None) or error}); fix the path") from None
    lines = {i: line.strip() for i, line in enumerate(text.splitlines(), 1) if line.strip()}
    if entry.layout not in BY_FOLDER:
        return entry.model_copy(update={"class_names": list(lines.values())})
    pairs = [line.split(maxsplit=1) for line in lines.values()]
    if bad := [i for i, pair in zip(lines, pairs, strict=True) if len(pair) != 2]:
        raise CptError(f"{file}: line {bad[0]}: write `<folder> <name>`")
    if twice := [folder for folder, count in Counter(pair[0] for pair in pairs).items() if count > 1]:
        raise CptError(f"{file}: folder {twice[0]!r} is there twice; delete one line")
    return entry.model_copy(update={"class_names": dict(pairs)})


def _resolve_shift(path: Path | Plugin, entry: Entry, catalog: Mapping[str, Entry]) -> Entry:
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
