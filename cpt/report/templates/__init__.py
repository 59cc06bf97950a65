"""Templates of the report."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


@cache
def templates() -> jinja2.Environment:
    """Return the package's templates, with every inserted text escaped."""
    import jinja2  # not above: reading a configuration imports this module (cpt.experiment.exhibits)

    return jinja2.Environment(
        loader=jinja2.PackageLoader("cpt.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
