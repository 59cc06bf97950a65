"""A JSON schema as Markdown: one section per type, one row per field."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

KINDS = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "mapping"}
"""Other types have the same name here."""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
CODE_OR_TEXT = re.compile(r"(`[^`]*`)")
DOCUMENT = re.compile(r"docs/(\w+\.md)")


def sections(schema: Mapping[str, Any], without: Sequence[str] = ()) -> str:
    """Return the type of a schema, then every type that it uses, in the order of their first use.

    Args:
        schema: as pydantic writes it.
        without: fields of the first type that are not the user's to write.
    """
    found, left = [], [schema["title"]]
    types = {schema["title"]: schema, **schema.get("$defs", {})}
    done: set[str] = set()
    while left:
        name = left.pop(0)
        if name not in done:
            done.add(name)
            found.append(_section(name, types, () if done - {name} else without))
            left += re.findall(r'"#/\$defs/(\w+)"', json.dumps(types[name].get("properties", {})))
    return "\n".join(found)


def text(words: str) -> str:
    """Return words of the code as Markdown in a cell: signs of HTML as they are, documents as links."""
    pieces = CODE_OR_TEXT.split(" ".join(words.split()))
    plain = [DOCUMENT.sub(r"[\1](../\1)", html.escape(piece, quote=False)) for piece in pieces[::2]]
    pieces[::2] = plain
    return "".join(pieces).replace("|", "&#124;")


def _section(name: str, types: Mapping[str, Any], without: Sequence[str]) -> str:
    schema = types[name]
    required = schema.get("required", [])
    head = [f"## {name}", "", text(schema.get("description", "")), ""]
    lines = [*head, "| field | meaning | value | default |", "|---|---|---|---|"]
    for field, about in schema.get("properties", {}).items():
        if field not in without:
            default = "**required**" if field in required else _default(about.get("default"))
            lines.append(f"| `{field}` | {text(_meaning(about, types))} | {_values(about)} | {default} |")
    return "\n".join(lines) + "\n"


def _meaning(about: Mapping[str, Any], types: Mapping[str, Any]) -> str:
    """What a field is for: its own words, or those of its type or of its items."""
    if "description" in about:
        return about["description"]
    inner = [*about.get("anyOf", ()), *([about["items"]] if "items" in about else [])]
    inner += [types[about["$ref"].rpartition("/")[2]]] if "$ref" in about else []
    return next((found for each in inner if (found := _meaning(each, types))), "")


def _default(value: Any) -> str:
    if value is None or value in ({}, [], ""):
        return "–"
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


def _values(about: Mapping[str, Any]) -> str:
    """What a field takes, in words; null is what it has where it is absent."""
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in about:
        return f"`{about['const']}`"
    if "enum" in about:
        return ", ".join(f"`{value}`" for value in about["enum"])
    for several in ("anyOf", "oneOf"):
        if several in about:
            return " or ".join(_values(each) for each in about[several] if each.get("type") != "null")
    if about.get("type") == "array":
        items = about.get("prefixItems") or [about.get("items", {})]
        return f"list: {', '.join(dict.fromkeys(_values(each) for each in items))}"
    if about.get("type") == "object":
        inner = next(iter(about.get("patternProperties", {}).values()), about.get("additionalProperties"))
        return f"name: {_values(inner)}" if isinstance(inner, dict) and inner else KINDS["object"]
    kind = about.get("type", "any value")
    bounds = "".join(f", {sign} {about[key]}" for key, sign in BOUNDS.items() if key in about and about[key] < 2**53)
    return KINDS.get(kind, kind) + bounds
