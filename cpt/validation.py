"""Turn a pydantic error into the one line that users see: field, value, fix."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from cpt import limits
from cpt.errors import close, nearest

T = TypeVar("T")
Place = tuple[Any, ...]
"""Keys and indices from the top of a model to a value."""
QUOTE = "'"
"""What pydantic puts around the names in an error's context."""


def one_line(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Describe the first problem as ``field: value: what is wrong; the fix``.

    Args:
        error: what pydantic raised.
        model: the model that was validated; its fields are the known names.
        prefix: where the model stands, for example ``variants.cpt.set``.
    """
    return lines_of(error, model, lambda place: (prefix, *place))[0][1]


def lines_of(
    error: ValidationError, model: type[BaseModel], called: Callable[[Place], Place] = lambda place: place
) -> list[tuple[Place, str]]:
    """Describe every problem as ``one_line`` does the first; return (place in the model, description) of each.

    ``called`` turns a place in the model into what its description begins with.
    """
    found = [(*_walk(model, problem["loc"]), problem) for problem in problems_of(error)]
    unknown = [(place, names) for place, names, problem in found if problem["type"] == "extra_forbidden"]
    meant = {(*place[:-1], close(str(place[-1]), names)) for place, names in unknown}
    found = [entry for entry in found if entry[2]["type"] != "missing" or entry[0] not in meant]
    lines = []
    while found:
        first = found[0][0]
        # every member of a union has problems of its own: those of the one that was meant lie deepest
        same = [entry for entry in found if entry[0][: len(first)] == first]
        place = max((entry[0] for entry in same), key=len)
        around = next(names for at, names, _ in same if at == place)
        problems = [problem for at, _, problem in same if at == place]
        lines.append((place, _line(called(place), around, problems)))
        found = [entry for entry in found if entry not in same and entry[0] != first[: len(entry[0])]]
    return lines


def _line(place: Place, around: set[str], problems: Sequence[Mapping[str, Any]]) -> str:
    """Describe the problems of one place, among the known names ``around`` its last part."""
    written = (part if str(part).isprintable() else repr(part) for part in place if part != "")
    field = ".".join(map(str, written))
    problem = problems[0]
    if problem["type"] == "extra_forbidden":
        hint = nearest(str(place[-1]), around) if around else "delete it"
        return f"{field}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{field}: missing; add it"
    if problem["type"] == "union_tag_invalid":
        key, tag, tags = (problem["ctx"][name] for name in ("discriminator", "tag", "expected_tags"))
        return f"{field}.{key.strip(QUOTE)}: unknown {tag!r}; {nearest(tag, re.findall(f'{QUOTE}(.+?){QUOTE}', tags))}"
    value = problem["input"]
    shown = "" if isinstance(value, (dict, list)) else f"{_as_written(value)}: "
    sentence = f"{shown}{_reason(problems)}"
    return f"{field}: {sentence}" if field else sentence


def problems_of(error: ValidationError) -> Sequence[Mapping[str, Any]]:
    """Return pydantic's problems, the one to tell first: an unknown key may be the misspelt one of a missing one."""
    found = error.errors(include_url=False)
    return sorted(found, key=lambda problem: problem["type"] != "extra_forbidden")


_KINDS = {
    "string_type": "a text",
    "invalid_key": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
"""What must stand where pydantic raises an error of a type."""

_REASONS = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must fit the pattern {pattern}",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "union_tag_not_found": "{discriminator} is missing; add it",
}
"""What is wrong where pydantic raises an error of a type, with its context."""


def _reason(problems: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with a value, and the fix, in words of a configuration."""
    kinds = [_KINDS[problem["type"]] for problem in problems if problem["type"] in _KINDS]
    if not kinds:
        kind, context = problems[0]["type"], problems[0].get("ctx", {})
        context = {name: int(v) if isinstance(v, float) and v.is_integer() else v for name, v in context.items()}
        text = _REASONS[kind].format(**context) if kind in _REASONS else problems[0]["msg"]
        text = text.removeprefix("Value error, ")
        return f"{text[:1].lower()}{text[1:]}"
    reason, value = f"must be {' or '.join(dict.fromkeys(kinds))}", problems[0]["input"]
    if kinds == ["a text"] and isinstance(value, bool):
        return f"{reason}; put it in quotes (in YAML yes, no, on and off are true and false)"
    if kinds == ["a text"] and isinstance(value, (int, float, date)):
        return f"{reason}; put it in quotes"
    if kinds == ["a list"] and not isinstance(value, dict):
        return f"{reason}; write [{_as_written(value)}]"
    return reason


def _as_written(value: object) -> str:
    """A value as YAML has it; texts in quotes."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if isinstance(value, date) else repr(value)


_PRINTS = {32: "`md5sum`", 64: "`sha256sum`"}
"""What prints a checksum, by its digits."""


def no_braces(path: str) -> str:
    """Return a path that a rule may name.

    Raises:
        ValueError: it holds braces, or see ``no_nul``.
    """
    no_nul(path)
    if set("{}") & set(path):
        raise ValueError("braces in a path are wildcards to Snakemake; rename it")
    return path


def no_nul(path: str) -> str:
    """Return a path that can be one.

    Raises:
        ValueError: it holds a NUL character.
    """
    if "\0" in path:
        raise ValueError("has a NUL character, which no path has; delete it")
    return path


def path_name(name: str) -> str:
    """Return a name that files and folders are called by.

    Raises:
        ValueError: it is longer than 100 letters, or Snakemake would take it for an endless loop of rules.
    """
    if len(name) > limits.NAME:
        raise ValueError(f"has {len(name)} letters, files are called by it; use at most {limits.NAME}")
    if re.search(r"(.+?)\1{19}", name):
        raise ValueError("repeats itself 20 times, which Snakemake takes for an endless loop; shorten it")
    return name


def checksum(digits: int) -> Callable[[str], str]:
    """Return a check of a checksum of so many digits, which raises a ValueError."""

    def check(text: str) -> str:
        if not re.fullmatch(f"[0-9a-f]{{{digits}}}", text):
            raise ValueError(f"must have {digits} digits, 0-9 and a-f, as {_PRINTS[digits]} prints them")
        return text

    return check


def is_unicode(text: str) -> bool:
    """Whether a text is whole: file names of another encoding and JSON can hold half letters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def drawable(text: str) -> str:
    """Return a text that an SVG and a page can hold.

    Raises:
        ValueError: it has a character that no XML holds.
    """
    if bad := re.search("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text):
        raise ValueError(f"has the character {bad[0]!a}, which no figure can hold; delete it")
    return text


def once(items: list[T]) -> list[T]:
    """Return a list in which nothing stands twice.

    Raises:
        ValueError: something does.
    """
    for i, item in enumerate(items):
        if item in items[:i]:
            raise ValueError(f"{item!r} is there twice; delete one")
    return items


def shown(text: str) -> str:
    """Return a text that tables and figures can show.

    Raises:
        ValueError: it holds characters that cannot be seen, or a legend would leave it out.
    """
    if not text.isprintable():
        raise ValueError("has characters that cannot be shown; write it in one line of letters")
    if text.startswith("_"):
        raise ValueError("must not start with _, legends leave that out")
    return text


def _walk(model: type[BaseModel], location: tuple[Any, ...]) -> tuple[tuple[Any, ...], set[str]]:
    """Return the location as a user writes it, and the known names around its last part.

    Pydantic puts the member of a union that it tried into the location, and ``[key]`` behind a key.
    """
    current: Any = model
    written: list[Any] = []
    around: set[str] = set()
    for part in location:
        models = _models(current)
        tagged = [m for m in models if part in _tags(m)]
        around = set(models[0].model_fields) if len(models) == 1 else set()
        if len(models) == 1 and part in models[0].model_fields:
            current = models[0].model_fields[part].annotation
        elif tagged and len(models) > 1:
            current = tagged[0]
            continue
        elif part == "[key]" or part in _members(current):
            continue
        written.append(part)
    return tuple(written), around


def _models(annotation: Any) -> list[type[BaseModel]]:
    """All models inside an annotation such as ``dict[str, Model]`` or a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _members(annotation: Any) -> set[str]:
    """Names that pydantic gives the members of the unions inside an annotation: ``list[str]``."""
    parts = get_args(annotation)
    own = {getattr(part, "__name__", "") if not get_args(part) else str(part).replace(" ", "") for part in parts}
    inner = {name for part in parts for name in _members(part)}
    return inner | (own if get_origin(annotation) in (Union, UnionType) else set())


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    kind = model.model_fields.get("kind")
    return get_args(kind.annotation) if kind else ()
