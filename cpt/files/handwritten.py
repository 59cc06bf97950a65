"""What people write by hand: YAML and JSON files, and the paths in them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Hashable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import yaml

from cpt.errors import close

VALUES = 200_000
"""Values that a file may hold, those behind an alias counted wherever it stands."""
DEPTH = 50

_MERGE = "tag:yaml.org,2002:merge"
_FLOAT = "tag:yaml.org,2002:float"


def load(path: Path) -> Any:
    """Return what a JSON or YAML file holds.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, or see ``parse``; one line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError:
        raise ValueError("not UTF-8; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot be read: {getattr(error, 'strerror', error)}; give a file that you can read"
        ) from None
    return parse(text)


def parse(text: str) -> Any:
    """Return what a text of JSON or YAML holds.

    JSON is tried first, as Snakemake does: YAML refuses the tabs that may indent it.

    Raises:
        ValueError: it is neither, a key stands twice in a mapping, a number is not what it looks like, or it holds too
            much; one line with the line's number where there is one.
    """
    try:
        values = _json(text)
        _require_size(values)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEPTH} levels; write it flatter") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}: "
        what = "" if isinstance(error, yaml.constructor.ConstructorError) else "not valid YAML: "
        raise ValueError(what + where + " ".join(str(error.problem).split())) from None
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None
    return values


def expanded(path: str) -> str:
    """Return a path with its ``~`` or ``~name`` in front replaced by the home folder.

    Raises:
        ValueError: there is no such home folder.
    """
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise ValueError(f"no home folder is known for {Path(path).parts[0]}; write the whole path") from None


def instead(path: Path, *named_in: Path) -> str:
    """Return what to do about a YAML file that is not there, as the end of a message; empty if there is no hint.

    ``named_in`` are files that name it; paths begin where cpt is started, not there.
    """
    if not path.is_absolute() and not Path("Snakefile").exists():
        return "; run it in the project's folder"
    try:
        for other in (*(file.parent / path for file in named_in), Path("config", path.name)):
            if other.is_file():
                return f"; did you mean {other}?"
        found = close(path.stem, [other.stem for other in path.parent.glob("*.yaml")])
    except (OSError, ValueError):
        return ""
    return f"; did you mean {path.with_name(found)}.yaml?" if found else ""


def _json(text: str) -> Any:
    twice: list[str] = []

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice.extend(key for key in found if sum(other == key for other, _ in pairs) > 1)
        return found

    try:
        values = json.loads(text, object_pairs_hook=mapping)
    except ValueError:
        return _Loader(text).get_single_data()
    if twice:
        with contextlib.suppress(yaml.scanner.ScannerError, yaml.parser.ParserError, yaml.reader.ReaderError):
            _Loader(text.replace("\t", " ")).get_single_data()  # knows the lines and refuses, unless it is no YAML
        raise ValueError(f"{twice[0]!r} stands twice in one mapping; delete one")
    return values


def _require_size(values: Any) -> None:
    """Refuse what aliases multiply beyond all measure, or without end."""
    count, level = 0, [values]
    for _ in range(DEPTH):
        level = list(islice(_inside(level), VALUES + 1 - count))
        count += len(level)
        if count > VALUES:
            raise ValueError(f"holds more than {VALUES:,} values, with those that aliases (*name) repeat; delete some")
        if not level:
            return
    raise ValueError(f"nested deeper than {DEPTH} levels; write it flatter")


def _inside(values: list[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, dict):
            yield from value.values()
        elif isinstance(value, list | tuple):
            yield from value


class _Loader(yaml.SafeLoader):
    """Plain data from YAML 1.1, where nothing is dropped or read otherwise than it looks."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # a date or a number that is none
            self._refuse(node, f"{error}; put it in quotes if it is a text")

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Hashable, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            name, line = self.construct_object(key), key.start_mark.line + 1
            if name in lines:
                self._refuse(key, f"{key.value!r} stands in line {lines[name]} too; delete one")
            lines[name] = line
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        # what << overrides is left out, or aliases of aliases would multiply it
        last = {(key.tag, str(key.value)): (key, value) for key, value in node.value}
        node.value = list(last.values())

    def number(self, node: yaml.ScalarNode) -> int | float:
        value = self.construct_yaml_float(node) if node.tag == _FLOAT else self.construct_yaml_int(node)
        digits = node.value.lstrip("+-")
        if ":" in digits or re.fullmatch("0[0-9_]+", digits):
            self._refuse(node, f"YAML reads {node.value} as {value}; write {value}, or '{node.value}' for a text")
        return value

    def _refuse(self, node: yaml.Node, problem: str) -> NoReturn:
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.number)
_Loader.add_constructor(_FLOAT, _Loader.number)
# YAML 1.2 and everybody else read 1e-3 as a number, YAML 1.1 wants 1.0e-3
_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)
