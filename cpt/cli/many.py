"""The command that runs several commands in one cluster job."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from cpt.cli.options import log
from cpt.training import interruption


def add_many(app: typer.Typer) -> None:
    """Add ``cpt many``, which runs other commands of the application."""

    @app.command()
    def many(
        commands: Annotated[list[str], typer.Argument(help="JSON objects with words, needs, makes and keep")],
        checkpoint_interval: Annotated[float | None, typer.Option(help="seconds between checkpoints")] = None,
    ) -> None:
        """Run several commands in this process, for cluster jobs with several runs (`runs_per_job`, docs/slurm.md).

        If one fails, the others still run. Finished files are kept in `keep` until all commands have succeeded.

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
        sys.argv = ["cpt", *words]  # recorded in the provenance of results
        return app([*words, *also], standalone_mode=False)

    return run
