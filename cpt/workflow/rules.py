"""What the rules use beside ``cpt.experiment.stages``."""

from __future__ import annotations

import base64
import os
import re
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from cpt.errors import CptError, close, told
from cpt.experiment import preflight
from cpt.experiment.stages import Stages
from cpt.files.integrity import configuration, snakemake
from cpt.files.stage_files import canonical_json, parse_json, sha256_text


def refuse(problem: object) -> NoReturn:
    """End with a line per problem and an exit code: Snakemake would print a traceback."""
    print(told(problem), file=sys.stderr, flush=True)
    os._exit(1)


def require_folder() -> None:
    """Refuse to be read from elsewhere than the project's folder, where its relative paths begin."""
    if not Path("config/config.yaml").is_file():
        refuse("config/config.yaml: no such configuration file; run snakemake in the project's folder")


def asked(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return an input or parameter function of the wildcards; a name that the experiment lacks ends Snakemake."""

    def of(wildcards: Any) -> Any:
        try:
            return function(wildcards)
        except CptError as error:
            refuse(error)

    return of


def asks_for_exhibits(
    words: Sequence[str], parser: Callable[[], ArgumentParser], root: str, files: Collection[str]
) -> bool:
    """Whether a call of Snakemake names tables and figures, by their files, and no other target.

    Args:
        words: its command line.
        parser: returns Snakemake's.
        root: folder of the experiment.
        files: of all its tables and figures.

    Raises:
        CptError: a target is of another experiment, or a table or figure that there is none of.
    """
    if not any(os.path.normpath(word).startswith("results/") for word in words):  # building the parser takes longer
        return False
    targets = [os.path.normpath(target) for target in parser().parse_args(words[1:]).targets]
    for target in targets:
        found = re.match("(results/[^/]+)/(tables/|figures/)?", target)
        if found and found[1] != root:
            again = shlex.join(snakemake(configuration(Path(found[1])), target))
            other = f"`{again}`" if Path(found[1]).is_dir() else "give its configuration with --configfile"
            raise CptError(f"{target}: {Path(root).name} is another experiment; {other}")
        if found and found[2] and target not in files:
            raise CptError(f"{target}: {Path(root).name} makes no such file; {_hint(target, files)}")
    return bool(targets) and all(target in files for target in targets)


def _hint(target: str, files: Collection[str]) -> str:
    found = close(target, files)
    return f"did you mean {found}?" if found else "`cpt plan` with the same configuration lists its exhibits"


def growing(amount: int) -> Callable[[Any, int], int]:
    """Return a resource that grows by ``amount`` with each attempt."""
    return lambda wildcards, attempt: amount * attempt


METADATA = Path(".snakemake/metadata")
"""Where Snakemake keeps with which parameters it made a file, under the file's path in base64."""


def require_memory(stages: Stages, triggers: Collection[str]) -> None:
    """Refuse a changed configuration where Snakemake cannot tell what it makes stale.

    Outputs whose parameters have changed would be kept: splits, say, and grid.json, and with it every table.

    Args:
        stages: of the experiment.
        triggers: what makes Snakemake run jobs again.

    Raises:
        CptError: there are results of another configuration, and Snakemake's notes on them are missing or unused.
    """
    path = Path(stages.root, "grid.json")
    try:
        held = sha256_text(canonical_json(parse_json(path.read_bytes())))
    except (OSError, ValueError):
        return
    if held == stages.resolved.digest:
        return
    found = f"{stages.root} was made with another configuration or version of cpt"
    if "params" not in triggers:
        raise CptError(f"{found}; leave out --rerun-triggers, so that what it changes is made again")
    if not (METADATA / base64.b64encode(str(path).encode()).decode()).is_file():
        raise CptError(
            f"{found}, and Snakemake's notes on how ({METADATA}) are not here, so it cannot tell what to make again; "
            f"give the configuration another `experiment`, or `rm -r {stages.root}`"
        )


def check_first_jobs(stages: Stages, workflow: Any, words: Sequence[str], parser: Callable[[], ArgumentParser]) -> None:
    """Refuse what the first jobs would refuse, unless this call only removes locks.

    Args:
        stages: of the experiment.
        workflow: Snakemake's.
        words: its command line.
        parser: Snakemake's.

    Raises:
        CptError: as in ``require_memory`` and ``cpt.experiment.preflight``.
    """
    if any(word.startswith("--unl") for word in words):
        return
    require_memory(stages, {str(trigger) for trigger in parser().parse_args(words[1:]).rerun_triggers})
    source = " + ".join(stages.files)
    if workflow.resource_settings.nodes is None:  # else the jobs run on other machines
        preflight.require_device(stages.config.device, source)
        if not workflow.deployment_settings.deployment_method:  # else they have an environment of their own
            preflight.require_tensorboard(stages)
    preflight.check(stages, source, Path("work", stages.config.experiment))


def cores_and_places(workflow: Any) -> tuple[int | None, int | None]:
    """Return how many cores Snakemake has for jobs on this machine, and how many jobs may use a GPU at once.

    None where jobs run on other machines, and where ``--resources`` sets no limit.
    """
    settings = workflow.resource_settings
    places = settings.resources.get("gpu")
    return settings.cores if workflow.local_exec else None, getattr(places, "value", places)  # 9.10: a bare number
