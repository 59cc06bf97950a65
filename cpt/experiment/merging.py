"""Configuration files on top of others: what stays, what is replaced, and what of it is told (docs/adding.md)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cpt.errors import CptError
from cpt.files import handwritten
from cpt.files.handwritten import expanded

Notify = Callable[[str], None]
START = "write it for example on top of config/config.yaml: `extends: config/config.yaml`"


def together(paths: Sequence[Path], notify: Notify) -> tuple[dict[str, Any], dict[str, Any]]:
    """Put files on top of each other, later ones above earlier ones.

    Returns:
        What they hold together, where ``null`` still stands for what is taken away below, and what the last one holds.

    Raises:
        CptError: a file is missing, or neither YAML nor JSON.
    """
    merged: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for path in paths:
        own = _read(path)
        put(merged, own, str(path), "the files before it", notify, nulls=True)
    return merged, own


def extended(values: Any, source: str, notify: Notify, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Put a configuration on top of the file that its key ``extends`` names.

    Raises:
        CptError: that file is missing, neither YAML nor JSON, or extends itself.
    """
    if not isinstance(values, dict):
        raise CptError(f"{source}: must be a mapping; {START}")
    own = {key: value for key, value in values.items() if key != "extends"}
    merged: dict[str, Any] = {}
    below = ""
    if values.get("extends") is not None:
        path = _parent(values["extends"], source)
        below = str(path)
        if below in seen:
            raise CptError(f"{source}: extends: {path} extends itself; name another file")
        read = _read(path, source)
        merged = copy.deepcopy(extended(read, below, notify, (*seen, below)))
        merged.pop("inherit_overrides", None)
    put(merged, own, source, below, notify)
    return merged


def put(
    target: dict[str, Any], values: dict[str, Any], source: str, below: str, notify: Notify, *, nulls: bool = False
) -> None:
    """Put ``values`` on top of ``target``: mappings merge, rules of ``overrides`` are appended, others replace.

    Args:
        target: what stands below; it is changed.
        values: what is put on top.
        source: file of ``values``, for notices.
        below: file or files of ``target``, for notices.
        notify: gets a line about overrides that are dropped or replaced.
        nulls: keep a ``null`` for what stands further below instead of taking the entry away.
    """
    rules, kept = _rules(target.get("overrides")), target.get("inherit_overrides", True)
    own = dict(values)
    if "overrides" in own and own["overrides"] is None:
        own |= {"overrides": [], "inherit_overrides": False}
    if own.get("inherit_overrides", True) is False:
        if rules:
            notify(f"{source}: overrides: the {len(rules)} rules of {below} are dropped, as the file says")
        own.setdefault("overrides", [])
    elif isinstance(own.get("overrides"), list) and isinstance(target.get("overrides"), list):
        if found := _replaced(rules, _rules(own["overrides"])):
            notify(f"{source}: overrides replace what {below} sets: {'; '.join(found)}")
        own["overrides"] = [*target["overrides"], *own["overrides"]]
    if kept is False:  # of a file in between: what lies further below stays dropped
        own["inherit_overrides"] = False
    _merge(target, own, nulls=nulls)


def _merge(target: dict[str, Any], values: dict[str, Any], *, nulls: bool) -> None:
    for key, value in values.items():
        if value is None and not nulls:
            target.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            _merge(target[key], value, nulls=nulls)
        else:
            target[key] = value


def _read(path: Path, named_in: str | None = None) -> dict[str, Any]:
    """Return what a file holds; ``named_in`` is the file that extends it."""
    try:
        values = handwritten.load(path)
    except FileNotFoundError:
        fix = handwritten.instead(path, *(Path(name) for name in (named_in or "").split(" + ") if name))
        fix = fix or "; the folder config has some, for example config/config.yaml"
        where = f"{named_in}: extends: " if named_in else ""
        raise CptError(f"{where}{path}: no such configuration file{fix}") from None
    except ValueError as error:
        raise CptError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise CptError(f"{path}: must be a mapping; {START}")
    if values and all(isinstance(entry, dict) and {"title", "layout"} <= entry.keys() for entry in values.values()):
        raise CptError(f"{path}: is a catalog of datasets; name it in a configuration, by the line `catalog: {path}`")
    return values


def _parent(written: Any, source: str) -> Path:
    if not isinstance(written, str):
        raise CptError(f"{source}: extends: {written!r}: must be the path of a configuration file")
    try:
        return Path(expanded(written))
    except ValueError as error:
        raise CptError(f"{source}: extends: {written!r}: {error}") from None


# ---- overrides ---------------------------------------------------------------------------------


def _rules(written: Any) -> list[dict[str, Any]]:
    """Rules of a list that may not be checked yet: those that can be compared."""
    rules = written if isinstance(written, list) else []
    return [rule for rule in rules if isinstance(rule, dict) and isinstance(rule.get("set"), dict)]


def _replaced(below: list[dict[str, Any]], own: list[dict[str, Any]]) -> list[str]:
    """What rules below set otherwise than those on top where both apply: ``epochs of coop, maple on land``."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for rule in own:
        if rule in below:  # a copy
            continue
        for other in below:
            if not all(_meet(rule.get(part), other.get(part)) for part in ("methods", "protocols", "datasets")):
                continue
            methods = _common(rule, other, "methods") or ["all methods"]
            datasets = _common(rule, other, "datasets")
            where = f" on {', '.join(datasets)}" if datasets else ""
            for key, value in rule["set"].items():
                if key in other["set"] and other["set"][key] != value:
                    found.setdefault((_plain(key), where), {}).update(dict.fromkeys(methods))
    return [f"{key} of {', '.join(methods)}{where}" for (key, where), methods in found.items()]


def _common(one: dict[str, Any], other: dict[str, Any], part: str) -> list[str]:
    """What a condition of two rules lets through together; empty if neither has it."""
    lists = [set(map(_plain, rule[part])) for rule in (one, other) if isinstance(rule.get(part), list)]
    return sorted(set.intersection(*lists)) if lists else []


def _meet(one: Any, other: Any) -> bool:
    """Whether two conditions of rules can hold at once; an absent one always holds."""
    if not isinstance(one, list) or not isinstance(other, list):
        return True
    return any(item in other for item in one)


def _plain(item: Any) -> str:
    """An item that is not checked yet, in one line."""
    text = str(item)
    return text if text.isprintable() else repr(text)
