"""The command line: one command per stage. Heavy libraries are imported inside the commands that need them."""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from cpt import __version__
from cpt.cli import compare, data, evaluate, experiment, features, report, train, use
from cpt.cli.options import Workers, log
from cpt.errors import CptError, told
from cpt.files.provenance import require_code
from cpt.training import interruption

app = typer.Typer(
    name="cpt",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Long-tailed prompt tuning of CLIP, stage by stage. Commands read and write the files described in "
    "docs/files.md; `snakemake --cores 1` runs them in order. Every command's --help has an "
    "example on files of the finished default experiment, or says what else it needs.",
)  # fmt: skip

VERBS: dict[str, tuple[Callable[..., None], ...]] = {
    "An experiment": (
        experiment.init, experiment.plan, experiment.status, compare.compare, compare.across, experiment.verify,
        experiment.bundle, report.board,
    ),
    "A trained run": (use.runs, use.classify, use.export, use.words, use.push, use.pull),
    "What there is": (experiment.methods,),
    "Stages, in order": (
        experiment.grid, features.backbone, data.split, features.text_features, features.descriptions,
        features.image_features, features.clusters, train.train, evaluate.predict, evaluate.score, evaluate.aggregate,
        report.table, report.figure, report.ledger, report.audit, report.page,
    ),
}  # fmt: skip
"""Verbs by what one wants to do, as ``cpt --help`` shows them."""
for panel, verbs in VERBS.items():
    for verb in verbs:
        app.command(rich_help_panel=panel)(verb)
app.add_typer(data.data, name="data", rich_help_panel="What there is")
for verb in (experiment.schema, features.pretrain):
    app.command(hidden=True)(verb)


@app.command(hidden=True)
def many(
    commands: Annotated[list[str], typer.Argument(help="JSON objects with words, needs, makes and keep")],
    checkpoint_interval: Annotated[float | None, typer.Option(help="seconds between checkpoints")] = None,
    workers: Workers = None,
) -> None:
    """Run several commands in this process, for cluster jobs with several runs (`runs_per_job`, docs/slurm.md).

    If one fails, the others still run. Finished files are kept in `keep` until all commands have succeeded.

    Example, after those of `cpt train` and `cpt predict`: `cpt many '{"words": ["score", "my-run", "--split",
    "results/embedded/splits/base_to_new/flowers/r1/s1.parquet"], "needs": ["my-run/predictions.parquet"],
    "makes": ["my-run/metrics.parquet"], "keep": "work/my-run.score"}'`
    """
    from cpt.workflow.many import parse, run_all

    also: list[str] = []
    if checkpoint_interval is not None:
        interruption.watch()
        also = ["--checkpoint-interval", str(checkpoint_interval)]
    if workers is not None:
        also += ["--workers", str(workers)]

    def run_one(words: list[str]) -> None:
        sys.argv = ["cpt", *words]  # recorded in the provenance of results
        app([*words, *also], standalone_mode=False)

    run_all([parse(text) for text in commands], run_one, log)


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@functools.cache
def command() -> Callable[..., Any]:
    """The command line, built once, because building it takes typer as long as a small job computes."""
    return typer.main.get_command(app)


def run() -> int:
    """Run the command line on sys.argv; return the exit code. Errors that users can fix are a line each."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="replace"
        )  # a character that a terminal or a log cannot show must not end the command
    try:
        code = command()(prog_name="cpt", standalone_mode=False)
    except CptError as error:
        print(told(error), file=sys.stderr)
        return 1
    except interruption.StoppedError as stopped:
        print(f"cpt: {stopped}", file=sys.stderr)
        return interruption.EXIT_CODE
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of the command line itself
            if message := error.format_message():  # empty if the help was printed instead
                called = getattr(getattr(error, "ctx", None), "command_path", "cpt")
                print(
                    f"cpt: error: {message.replace('Value error, ', '').rstrip('.')}; see `{called} --help`",
                    file=sys.stderr,
                )
            return 2
        raise
    return code if isinstance(code, int) else 0


@app.callback(invoke_without_command=True)
def _before_every_verb(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
    code: Annotated[
        str | None, typer.Option(hidden=True, help="refuse to run with another version of the code")
    ] = None,
) -> None:
    one_thread()
    if version:
        print(__version__)
        raise typer.Exit
    if code is not None:
        require_code(code)


def one_thread() -> None:
    """Limit every library to one thread, so that results depend on neither the machine nor how a command is started.

    ``--threads`` gives torch more. Libraries read these variables when they are loaded: after this call, or in the fork
    server, which calls this too.
    """
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
