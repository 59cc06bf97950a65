"""Turn a pydantic error into the one line that users see: field, value, mend."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from cpt.errors import nearest


def one_line(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Describe the first problem as ``field: value: what is wrong; the mend``.

    Args:
        error: what pydantic raised.
        model: the model that was validated; its fields are the known names.
        prefix: where the model stands, for example ``variants.cpt.set``.
    """
    problem = error.errors(include_url=False)[0]
    location, around = _walk(model, problem["loc"])
    written = (part if str(part).isprintable() else repr(part) for part in (prefix, *location) if part != "")
    field = ".".join(map(str, written))
    if problem["type"] == "extra_forbidden":
        hint = nearest(str(location[-1]), around) if around else "delete it"
        return f"{field}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{field}: missing; add it"
    reason = problem["msg"].removeprefix("Value error, ")
    value = problem["input"]
    shown = "" if isinstance(value, (dict, list)) else f"{value!r}: "
    sentence = f"{shown}{reason[:1].lower()}{reason[1:]}"
    return f"{field}: {sentence}" if field else sentence


def no_braces(path: str) -> str:
    """Return a path that a rule may name.

    Raises:
        ValueError: it holds braces.
    """
    if set("{}") & set(path):
        raise ValueError("braces in a path are wildcards to Snakemake; rename it")
    return path


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


def _walk(model: type[BaseModel], location: tuple[Any, ...]) -> tuple[list[Any], set[str]]:
    """Return the location as a user writes it, and the known names around its last part.

    Pydantic puts the tag of a union's member into the location, which no configuration file has.
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
        written.append(part)
    return written, around


def _models(annotation: Any) -> list[type[BaseModel]]:
    """All models inside an annotation such as ``dict[str, Model]`` or a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    kind = model.model_fields.get("kind")
    return get_args(kind.annotation) if kind else ()
