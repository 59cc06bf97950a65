"""What the rules use beside ``cpt.experiment.stages``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from cpt.errors import CptError


def refuse(problem: object) -> NoReturn:
    """End with one line and an exit code: Snakemake would print a traceback."""
    print(f"cpt: error: {problem}", file=sys.stderr, flush=True)
    os._exit(1)


def asked(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return an input or parameter function of the wildcards; a name that the experiment lacks ends Snakemake."""

    def of(wildcards: Any) -> Any:
        try:
            return function(wildcards)
        except CptError as error:
            refuse(error)

    return of


def growing(amount: int) -> Callable[[Any, int], int]:
    """Return a resource that grows by ``amount`` with each attempt."""
    return lambda wildcards, attempt: amount * attempt
