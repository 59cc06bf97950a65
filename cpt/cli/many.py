"""The verb that runs several commands in one job of a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from cpt.cli.options import log
from cpt.training import interruption


def add_many(app: typer.Typer) -> None:
    """Add ``cpt many``, which runs the other verbs of the application."""

    @app.command()
    def many(
        commands: Annotated[list[str], typer.Argument(help="JSON objects with words, needs, makes and keep")],
        checkpoint_interval: Annotated[float | None, typer.Option(help="seconds between checkpoints")] = None,
    ) -> None:
        """Run several commands in this process, as jobs of a cluster do (`runs_per_job`, docs/slurm.md).

        A failed one does not end the others; what is finished is kept in `keep` until all have succeeded.

        Example: `cpt many '{"words": ["score", "my-run", "--split", "s1.parquet"], "needs": ["s1.parquet"],
        "makes": ["my-run/metrics.parquet"], "keep": "work/my-run.score"}'`
        """
        from cpt.workflow.many import parse, run_all

        if checkpoint_interval is not None:
            interruption.watch()
        also = [] if checkpoint_interval is None else ["--checkpoint-interval", str(checkpoint_interval)]
        run_all([parse(text) for text in commands], _runner(app, also), log)


def _runner(app: typer.Typer, also: list[str]) -> Callable[[list[str]], Any]:
    def run(words: list[str]) -> Any:
        sys.argv = ["cpt", *words]  # what the records of the results name
        return app([*words, *also], standalone_mode=False)

    return run
