"""What the sections of a configuration are made of: the base class, and types of values with their checks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from cpt import limits
from cpt.errors import nearest
from cpt.files import paths
from cpt.files.handwritten import expanded
from cpt.files.paths import NATURAL
from cpt.validation import drawable, no_braces, once, path_name, shown

_NAME = r"^[a-z0-9][a-z0-9_-]*$"


def named(name: str) -> str:
    """Return the name of an experiment, dataset or the like; raises ValueError for others."""
    if not re.match(_NAME, name) or name.endswith("\n"):
        raise ValueError("may have lower-case letters, digits, _ and - only, and starts with a letter or digit")
    return path_name(name)


Name = Annotated[
    str,
    AfterValidator(named),
    Field(description="lower case, digits, _ and -", json_schema_extra={"pattern": _NAME, "maxLength": limits.NAME}),
]
Label = Annotated[str, AfterValidator(shown)]
Text = Annotated[str, AfterValidator(drawable)]
FilePath = Annotated[str, AfterValidator(no_braces), AfterValidator(expanded)]


def _six_digits(value: float) -> float:
    if float(f"{value:g}") != value:
        raise ValueError("use at most six significant digits; paths are named by it")
    return value


def _or_natural(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, str) and value != NATURAL:
        raise ValueError(f"must be a number in (0, 1], or {NATURAL}")
    return value if value == NATURAL else check(value)


if TYPE_CHECKING:
    Ratio = paths.Ratio
else:
    Ratio = Annotated[
        float,
        Field(gt=0, le=1),
        AfterValidator(_six_digits),
        WrapValidator(_or_natural),
        PlainSerializer(lambda value: value),
        WithJsonSchema(
            {
                "anyOf": [{"exclusiveMinimum": 0, "maximum": 1, "type": "number"}, {"const": NATURAL}],
                "description": "imbalance ratio τ in (0, 1], or natural: all training images that a dataset has",
            }
        ),
    ]
Ratios = Annotated[list[Ratio], Field(min_length=1), AfterValidator(once)]
Names = Annotated[list[str], Field(min_length=1), AfterValidator(once)]
Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seeds = Annotated[list[Annotated[int, Field(ge=0, le=limits.SEED)]], Field(min_length=1), AfterValidator(once)]

Protocol = Literal["base_to_new", "all_classes", "few_shot"]
Task = Literal["base_to_new", "cross_dataset", "domain_generalization", "few_shot"]


def known_measures(known: Mapping[str, object]) -> Callable[[list[str]], list[str]]:
    """Return a check that measures are among the known ones."""

    def check(names: list[str]) -> list[str]:
        for name in names:
            if name not in known:
                raise ValueError(f"unknown measure {name!r}; {nearest(name, known)}")
        return names

    return check


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
