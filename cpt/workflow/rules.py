"""What the rules use beside ``cpt.experiment.stages``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from cpt.errors import CptError, told


def refuse(problem: object) -> NoReturn:
    """End with a line per problem and an exit code: Snakemake would print a traceback."""
    print(told(problem), file=sys.stderr, flush=True)
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


def cores_and_places(workflow: Any) -> tuple[int | None, int | None]:
    """Return how many cores Snakemake has for jobs on this machine, and how many jobs may use a GPU at once.

    None where jobs run on other machines, and where ``--resources`` sets no limit.
    """
    settings = workflow.resource_settings
    places = settings.resources.get("gpu")
    return settings.cores if workflow.local_exec else None, getattr(places, "value", places)  # 9.10: a bare number
