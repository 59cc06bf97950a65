"""What every stage of an experiment reads, writes, and is called with: the one description of the workflow's shape.

The rules connect stages by it, ``cpt plan`` counts its jobs, ``cpt status`` finds its logs. ``cpt verify`` starts at
grid.json instead, because results may lie where no configuration is. Nothing here imports torch.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePath
from typing import Any

from cpt.clip import tiny
from cpt.data.make_manifest import digest
from cpt.errors import CptError, close
from cpt.experiment import exhibits
from cpt.experiment.config import Config
from cpt.experiment.config import load as load_config
from cpt.experiment.resolved import Resolved
from cpt.experiment.resolved import load as load_resolved
from cpt.experiment.resolved import remember as note_files
from cpt.experiment.runs import Job
from cpt.files import paths
from cpt.files.provenance import code_version, stamp
from cpt.validation import no_braces

_TINY_CLIP = ["assets/tiny_clip"]
_SCRIPTS = [f"page/{name}.js" for name in ("dom", "frame", "charts", "tables", "page")]
_PAGE = ["page/page.html.j2", "page/page.css", *_SCRIPTS, "templates/table.html.j2"]
_LAYOUTS, _FORMATS = exhibits.modules(exhibits.LAYOUTS), exhibits.modules(exhibits.FORMATS)
_BACKBONE, _TEMPLATES = "cpt.clip.make_backbone", "cpt.features.templates"

_WORKERS = 16
"""Most threads that augment a training's images: CoOp's 32 of a step take 40 ms of a core, a step on a GPU a few."""

CODE: dict[str, tuple[list[str], list[str]]] = {
    "backbone": ([_BACKBONE], _TINY_CLIP),
    "data": (["cpt.data.make_manifest"], _TINY_CLIP),
    "pixels": (["cpt.data.make_image_cache"], []),
    "split": (["cpt.data.split"], []),
    "text_features": (["cpt.features.text", _BACKBONE, _TEMPLATES], []),
    "descriptions": (["cpt.features.descriptions", _BACKBONE, _TEMPLATES], []),
    "image_features": (["cpt.features.images"], []),
    "clusters": (["cpt.features.make_clusters"], []),
    "predict": (["cpt.evaluation.predict"], []),
    "score": (["cpt.evaluation.score"], []),
    "aggregate": (["cpt.results.aggregate"], []),
    "table": (
        ["cpt.report.tables", *_LAYOUTS, *_FORMATS],
        ["report/templates/table.html.j2"],
    ),
    "ledger": (["cpt.report.printed.ledger"], ["report/templates/ledger.html.j2"]),
    "audit": (["cpt.report.printed.audit_text"], ["report/templates/audit.html.j2"]),
    "page": (["cpt.report.page.make", *_LAYOUTS], [f"report/{name}" for name in _PAGE]),
}
"""Modules, and files of the package, whose change makes a stage's outputs stale. Training: see ``Stages.train``."""


def load_stages(workflow: Any) -> Stages:
    """Return the stages of the experiment whose configuration files Snakemake was given.

    Args:
        workflow: Snakemake's, of the Snakefile. Its main process prints notices and notes the files' names beside the
            experiment's work; the processes of jobs do not.

    Raises:
        CptError: a path has braces, ``--config`` was given, or the configuration or its catalog is wrong.
    """
    if workflow.config_settings.config:
        raise CptError(
            "--config is not supported; put the changes into a file that has `extends: config/config.yaml` and give "
            "it with --configfile"
        )
    files = [os.path.relpath(path) for path in workflow.configfiles]
    for path in (str(workflow.basedir), *files):
        try:
            no_braces(path)
        except ValueError as error:
            raise CptError(f"{path}: {error}") from None

    def notify(notice: str) -> None:
        if workflow.is_main_process:
            print(f"cpt: notice: {notice}", file=sys.stderr)

    # Snakemake has read the files too, otherwise than `cpt plan` does: its YAML is laxer
    config = load_config([Path(path) for path in files], notify)
    resolved = load_resolved(config, " + ".join(files), Path("work", config.experiment, "workflow.json"), notify)
    if workflow.is_main_process:
        note_files(files, Path(resolved.root))
    return Stages(config, resolved, files)


def batch_name(seeds: Sequence[int]) -> str:
    """Name of a group of seeds in rules and logs."""
    return f"seeds_{'_'.join(map(str, seeds))}"


def one_of(names: Sequence[str]) -> str:
    """Pattern that matches these names and no others."""
    return "|".join(map(re.escape, names)) or "(?!)"


@cache
def training_code(modules: tuple[str, ...]) -> str:
    """Version of the code that trains a method, by the modules that define it."""
    return code_version("cpt.training.train", *modules)


@dataclass(frozen=True)
class Stage:
    """One job of a stage.

    Attributes:
        inputs: files that it reads, once each. Backbone and manifests are inputs of these: named again, they would
            cost seconds of every call of Snakemake.
        outputs: files that it writes; the first one tells that it is done.
        words: of its command, after ``cpt``.
    """

    inputs: list[str]
    outputs: list[str]
    words: list[str]


class Stages:
    """The stages of an experiment.

    Args:
        config: its configuration.
        resolved: what the configuration resolves to.
        files: the configuration files.
    """

    def __init__(self, config: Config, resolved: Resolved, files: Sequence[str] = ()) -> None:
        self.config, self.resolved, self.files, self.root = config, resolved, list(files), resolved.root

    # ---- all of the experiment -----------------------------------------------------------------

    @cached_property
    def datasets(self) -> list[str]:
        """Datasets that are trained on or tested on."""
        runs = self.resolved.runs.values()
        return sorted({name for run in runs for name in (run.dataset, *(target for target, _ in run.targets))})

    @property
    def backbone_files(self) -> list[str]:
        """The user's own files that the backbone is made of, as far as they are there.

        Of a tiny CLIP's folder that is its recipe, which has the hashes of the others.
        """
        chosen = self.config.backbone
        files = (chosen.architecture, chosen.pretrained, os.path.join(chosen.pretrained, tiny.RECIPE))
        return [path for path in files if os.path.isfile(path)]

    @property
    def gathered(self) -> list[str]:
        """What ``cpt aggregate`` writes."""
        return self._under(paths.GATHERED)

    @property
    def scored(self) -> list[str]:
        """Metrics and counts of all runs."""
        return [path for run in self.resolved.runs for path in self.score(run).outputs]

    def part(self, exhibit: str) -> Stage:
        """Aggregation of the runs that a table or figure shows."""
        runs = list(self.resolved.runs)
        shown = [runs[i] for i in self._known(self.resolved.shown, exhibit, "exhibit")]
        outputs = self._under([f"{paths.PARTS}/{exhibit}/{name}" for name in paths.GATHERED])
        words = ["aggregate", "--grid", f"{self.root}/grid.json", "--exhibit", exhibit]
        inputs = [path for run in shown for path in self.score(run).outputs]
        return Stage([f"{self.root}/grid.json", *inputs], outputs, words)

    @property
    def tables(self) -> list[str]:
        """Files of all tables."""
        return self._exhibits("tables", exhibits.table_suffixes())

    @property
    def figures(self) -> list[str]:
        """Files of all figures."""
        return self._exhibits("figures", paths.FIGURE)

    @property
    def jobs(self) -> dict[str, list[str]]:
        """Main output of every job by rule; ``all`` has none and stands for itself."""
        runs, clusters = self.resolved.runs, self.resolved.clusters
        tested = {(dataset, run.templates) for run in runs.values() for dataset, _ in run.targets}
        text_features = {paths.text_features(*pair) for pair in tested} | {run.text_features for run in runs.values()}
        shared: dict[str, Iterable[str | None]] = {
            "grid": ["grid.json"],
            "backbone": ["backbone.json"],
            "fetch": [paths.fetched(name) for name in self.datasets if self.resolved.catalog[name].fetched],
            "data": map(paths.manifest, self.datasets),
            "pixels": [paths.pixels(name, self.config.evaluate_on) for name in self.resolved.pixels],
            "split": [run.split for run in runs.values()],
            "text_features": text_features | {options[0] for options in clusters.values()},
            "descriptions": [run.descriptions for run in runs.values()],
            "image_features": [paths.image_features(*key) for run in runs.values() for key in run.frozen_images],
            "clusters": clusters,
        }
        found = {rule: sorted(set(self._under([path for path in files if path]))) for rule, files in shared.items()}
        found |= self._jobs_of_runs()
        found |= {
            "aggregate": self._under(paths.GATHERED[:1]),
            "table": self._exhibits("tables", exhibits.table_suffixes()[:1]),
            "figure": self._exhibits("figures", paths.FIGURE[:1]),
            "ledger": self._under(["report/ledger.parquet"]),
            "audit": self._under(["report/audit.html"]),
            "page": self._under(["report/index.html"]),
            "all": ["all"],
        }
        return {rule: files for rule, files in found.items() if files}

    def code(self, stage: str) -> str:
        """Stamp of a stage's code (``cpt --code``)."""
        modules, data = CODE[stage]
        return stamp(*modules, data=data)

    def workers(self, cores: int | None, places: int | None) -> int:
        """Threads of a training: where it augments images beside a GPU, its share of this machine's cores.

        One core is left for jobs without a GPU, and no training gets more than it has work for.

        Args:
            cores: of Snakemake on this machine; None where jobs run on others.
            places: jobs that may use a GPU at once; None for any number.
        """
        config = self.config
        if config.device == "cpu" or config.augmentation == "none" or not cores or not places:
            return config.threads
        return max(config.threads, min((cores - 1) // places, _WORKERS))

    def figure_code(self, name: str) -> str:
        """Stamp of the code that draws a figure."""
        figures = {figure: kind for figure, kind in self.resolved.exhibits.items() if kind != "table"}
        kind = self._known(figures, name, "figure")
        return stamp("cpt.report.drawing.make", f"{exhibits.FIGURES}.{kind}")

    # ---- one run -------------------------------------------------------------------------------

    def train(self, name: str) -> Stage:
        """Training of a run."""
        run, config = self._run(name), self.config
        frozen = [key for key in run.frozen_images if key[1] == "train"]
        files = {
            "--split": run.split,
            "--text-features": run.text_features,
            "--clusters": run.clusters,
            "--image-features": next((paths.image_features(*key) for key in frozen), None),
            "--descriptions": run.descriptions,
            "--start": f"runs/{run.start}/run.json" if run.start else None,
        }
        given = {option: f"{self.root}/{path}" for option, path in files.items() if path}
        options = {
            "--method": run.method,
            "--seed": str(run.seed),
            "--hyperparameters": run.hyperparameters,
            "--backbone": f"{self.root}/backbone.json",
            "--manifest": f"{self.root}/{paths.manifest(run.dataset)}",
            **given,
            "--augmentation": config.augmentation,
            "--device": config.device,
            "--precision": config.precision,
            "--threads": str(config.threads),
            "--cuda-graphs": config.cuda_graphs,
            "--checkpoint": f"work/{config.experiment}/{name}.checkpoint",
            "--code": training_code(tuple(run.modules)),
            "--output": f"{self.root}/runs/{name}",
        }
        if run.start:
            options["--start"] = f"{self.root}/runs/{run.start}"
        words = ["train", *(word for pair in options.items() for word in pair)]
        return Stage(list(given.values()), self._of_run(name, paths.TRAINED), words)

    def predict(self, name: str) -> Stage:
        """Prediction of a run's targets."""
        run, config = self._run(name), self.config
        datasets = sorted({dataset for dataset, _ in run.targets})
        inputs = [f"{self.root}/{paths.text_features(dataset, run.templates)}" for dataset in datasets]
        if frozen := [key for key in run.frozen_images if key[1] != "train"]:
            inputs += [f"{self.root}/{paths.image_features(*key)}" for key in frozen]
        else:
            cached = [dataset for dataset in datasets if dataset in self.resolved.pixels]
            inputs += [f"{self.root}/{paths.pixels(dataset, config.evaluate_on)}" for dataset in cached]
        words = ["predict", f"{self.root}/runs/{name}", "--results", self.root, "--part", config.evaluate_on]
        words += ["--device", config.device, "--threads", str(config.threads)]
        words += [word for target in run.targets for word in ("--target", "/".join(target))]
        return Stage([*inputs, f"{self.root}/runs/{name}/run.json"], self._of_run(name, paths.PREDICTED), words)

    def score(self, name: str) -> Stage:
        """Scoring of a run's predictions."""
        run = self._run(name)
        split = f"{self.root}/{run.split}"
        words, inputs = (
            ["score", f"{self.root}/runs/{name}", "--split", split],
            [*self._of_run(name, paths.PREDICTED), split],
        )
        if run.measured_clusters:
            inputs.append(f"{self.root}/{run.measured_clusters}")
            words += ["--clusters", inputs[-1]]
        groups = ":".join(map(str, self.config.class_groups.model_dump().values()))
        return Stage(inputs, self._of_run(name, paths.SCORED), [*words, "--class-groups", groups])

    # ---- several seeds of a run in one job (runs_per_job) ----------------------------------------

    @cached_property
    def batches(self) -> dict[tuple[int, ...], list[str]]:
        """Seeds that one job handles -> the runs without their seed that have exactly these."""
        seeds: dict[str, list[int]] = {}
        for name, run in self.resolved.runs.items():
            seeds.setdefault(str(PurePath(name).parent), []).append(run.seed)
        found: dict[tuple[int, ...], list[str]] = {}
        for cell, own in seeds.items():
            ordered, size = sorted(own), self.config.runs_per_job
            for first in range(0, len(ordered), size):
                together = tuple(ordered[first : first + size])
                if len(together) > 1:
                    found.setdefault(together, []).append(cell)
        return found

    @property
    def single_runs(self) -> str:
        """Pattern of the runs that have a job of their own."""
        if not self.batches:
            return "base_to_new/.+|all_classes/.+|few_shot/.+"
        together = {f"{cell}/s{seed}" for seeds, cells in self.batches.items() for cell in cells for seed in seeds}
        return one_of(sorted(self.resolved.runs.keys() - together))

    def log(self, verb: str, name: str) -> str:
        """Log of the job that handles a stage of a run."""
        cell, seed = str(PurePath(name).parent), self._run(name).seed
        together = next((seeds for seeds, cells in self.batches.items() if cell in cells and seed in seeds), None)
        file = name if together is None else f"{cell}/{batch_name(together)}"
        return f"logs/{self.config.experiment}/{verb}/{file}.log"

    def log_of(self, rule: str, output: str) -> str:
        """Log of a job that is not of one run, by its rule and its main output (``jobs``)."""
        folder = f"logs/{self.config.experiment}"
        if rule in ("aggregate", "ledger", "audit", "page"):
            return f"{folder}/{rule}.log"
        path = PurePath(output).relative_to(self.root)
        if path.parts[0] == "data":
            part = {"fetch": "-fetch", "pixels": f"-{path.stem}"}.get(rule, "")
            return f"{folder}/{path.parent}{part}.log"
        return f"{folder}/{path.with_suffix('.log')}"

    def batch(self, verb: str, cell: str, seeds: Sequence[int]) -> Stage:
        """A stage of several seeds of a run: ``cpt many`` with one JSON object per seed."""
        stages = {name: getattr(self, verb)(name) for name in (f"{cell}/s{seed}" for seed in seeds)}
        commands = [
            {
                "words": stage.words,
                "needs": stage.inputs,
                "makes": stage.outputs,
                "keep": f"work/{self.config.experiment}/{name}.{verb}",
                "code": self.code(verb) if verb in CODE else "",  # that of a training is among its words
            }
            for name, stage in stages.items()
        ]
        inputs = dict.fromkeys(path for stage in stages.values() for path in stage.inputs)
        outputs = [path for stage in stages.values() for path in stage.outputs]
        return Stage(list(inputs), outputs, ["many", *(json.dumps(command, sort_keys=True) for command in commands)])

    # ---- what is shared by runs --------------------------------------------------------------------

    def clusters(self, name: str) -> Stage:
        """Clusters by their path below ``clusters/`` without suffix."""
        text_features, *options = self._known(self.resolved.clusters, f"clusters/{name}.parquet", "clusters")
        outputs = self._under([f"clusters/{name}.parquet", f"clusters/{name}.safetensors"])
        source = f"{self.root}/{text_features}"
        return Stage([source], outputs, ["clusters", "--text-features", source, *options])

    def stand_in(self, dataset: str, descriptions: str) -> str:
        """Template set that stands in for class descriptions; any will do where the dataset has a file."""
        runs = {run.descriptions: run for run in self.resolved.runs.values() if run.descriptions}
        path = f"features/{dataset}/descriptions-{descriptions}.safetensors"
        return self._known(runs, path, "descriptions").stand_in or "single"

    def own_images(self, dataset: str) -> Any:
        """What there is of a user's own images, which no rule makes; None for others."""
        entry = self.resolved.catalog[dataset]
        return None if entry.fetched or not entry.has_files else digest(entry)

    def template_sets(self, name: str) -> str:
        """The configuration's template set of this name as JSON, for ``--sets``."""
        return json.dumps({key: templates for key, templates in self.config.templates.items() if key == name})

    def _jobs_of_runs(self) -> dict[str, list[str]]:
        """Main outputs of trainings, predictions and scorings; of a job for several seeds, one that is missing."""
        together = {f"{cell}/s{seed}" for seeds, cells in self.batches.items() for cell in cells for seed in seeds}
        alone = [run for run in self.resolved.runs if run not in together]
        found = {}
        for rule, (file, *_) in (("train", paths.TRAINED), ("predict", paths.PREDICTED), ("score", paths.SCORED)):
            found[rule] = self._under([f"runs/{run}/{file}" for run in alone])
            for seeds, cells in self.batches.items():
                outputs = (self._under([f"runs/{cell}/s{seed}/{file}" for seed in seeds]) for cell in cells)
                found[f"{rule}_{batch_name(seeds)}"] = [min(files, key=os.path.isfile) for files in outputs]
        return found

    # ---- helpers -------------------------------------------------------------------------------------

    def _run(self, name: str) -> Job:
        return self._known(self.resolved.runs, name, "run")

    def _known(self, things: dict[Any, Any], name: str, what: str) -> Any:
        """What a target's name stands for.

        Raises:
            CptError: the experiment has none of this name.
        """
        if name not in things:
            found = close(name, things)
            hint = f"did you mean {found}?" if found else f"{self.root}/grid.json lists all"
            raise CptError(f"{what} {name}: {self.config.experiment} has none of this name; {hint}")
        return things[name]

    def _under(self, names: Sequence[str]) -> list[str]:
        return [f"{self.root}/{name}" for name in names]

    def _of_run(self, name: str, files: Sequence[str]) -> list[str]:
        return [f"{self.root}/runs/{name}/{file}" for file in files]

    def _exhibits(self, folder: str, suffixes: Sequence[str]) -> list[str]:
        kinds = self.resolved.exhibits.items()
        names = [name for name, kind in kinds if (kind == "table") == (folder == "tables")]
        return [f"{self.root}/{folder}/{name}.{suffix}" for name in names for suffix in suffixes]
