"""The command ``cpt train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpt.cli.options import BackboneFile, Device, ManifestFile, Precision, Seed, Threads, Workers, json_object, log
from cpt.files.paths import EVENTS
from cpt.files.provenance import recorded
from cpt.training import interruption


def train(
    method: Annotated[str, typer.Option(help="name of the method; `cpt methods` lists them")],
    seed: Seed,
    backbone: BackboneFile,
    manifest: ManifestFile,
    split: Annotated[Path, typer.Option(help="split of the run")],
    text_features: Annotated[Path, typer.Option(help="frozen text features of the dataset")],
    output: Annotated[Path, typer.Option(help="folder for prompts.safetensors, history.parquet and run.json")],
    hyperparameters: Annotated[
        str, typer.Option(help="JSON; absent ones are the method's defaults for the split's protocol")
    ] = "{}",
    clusters: Annotated[Path | None, typer.Option(help="clusters, if the method needs them")] = None,
    image_features: Annotated[Path | None, typer.Option(help="frozen features of the training images")] = None,
    descriptions: Annotated[
        Path | None, typer.Option(help="features of class descriptions, if the method needs them")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="folder of the finished run to start from, if the method needs one")
    ] = None,
    augmentation: Annotated[str, typer.Option(help="none or rrc_flip")] = "rrc_flip",
    checkpoint: Annotated[Path | None, typer.Option(help="checkpoint file of the unfinished training")] = None,
    checkpoint_interval: Annotated[float, typer.Option(help="seconds between checkpoints")] = 60.0,
    tensorboard: Annotated[
        Path | None, typer.Option(help="folder for TensorBoard's event files, one below for each run", envvar=EVENTS)
    ] = None,
    cuda_graphs: Annotated[
        str, typer.Option(help="auto: capture the step as a CUDA graph on a GPU; off: launch every operator by itself")
    ] = "auto",
    code: Annotated[str | None, typer.Option(help="refuse to train with another version of the code")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 1,
    workers: Workers = None,
) -> None:
    """Train one run: dataset × τ × method × seed. An interrupted run resumes from --checkpoint.

    On Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 it saves a checkpoint after the current step and exits with code 75. The same
    command resumes. Each finished epoch is a line of JSON in `<checkpoint>.history.jsonl` while it trains.

    Example: `cpt train --method coop --seed 1 --backbone results/embedded/backbone.json
    --manifest results/embedded/data/flowers/manifest.parquet
    --split results/embedded/splits/base_to_new/flowers/r1/s1.parquet
    --text-features results/embedded/features/flowers/text-single.safetensors
    --hyperparameters '{"epochs": 5}' --augmentation none --output my-run`
    """
    given = dict(locals())  # the options are the fields of TrainInputs, but for the output
    interruption.watch()  # before the imports, which take seconds
    from cpt.training.train import TrainInputs
    from cpt.training.train import train as run_training

    given["hyperparameters"] = json_object("--hyperparameters", hyperparameters, '{"epochs": 5}')
    inputs = TrainInputs(**{name: value for name, value in given.items() if name != "output"})
    with recorded(output / "run.json"):
        run_training(inputs, output, log)
