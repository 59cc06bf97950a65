"""The one description of every stage: its files fit together, its words are ones that the command line takes."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import typer

from cpt.cli.app import app
from cpt.errors import CptError
from cpt.experiment import config, resolved
from cpt.experiment.stages import Stages
from cpt.files import paths, provenance

RUN_STAGES = {"train": paths.TRAINED, "predict": paths.PREDICTED, "score": paths.SCORED}


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the resolved experiments are kept from one test to the next."""
    return tmp_path_factory.mktemp("memory")


@pytest.fixture
def stages(memory: Path, request: pytest.FixtureRequest) -> Stages:
    """The default experiment, with the changes that a test asks for."""
    values = config.load([Path("config/config.yaml")]).model_dump(mode="json", exclude_unset=True)
    changes = getattr(request, "param", {})
    parsed = config.parse(values | changes, "x")
    return Stages(parsed, resolved.load(parsed, "x", memory / f"{'-'.join(changes)}.json"))


def test_every_input_is_some_stages_output(stages: Stages) -> None:
    made = {path for outputs in stages.jobs.values() for path in outputs}
    made |= {path for run in stages.resolved.runs for verb in RUN_STAGES for path in getattr(stages, verb)(run).outputs}
    for run in stages.resolved.runs:
        for verb in RUN_STAGES:
            stage = getattr(stages, verb)(run)
            assert stage.inputs
            assert set(stage.inputs) <= made, (verb, run)
            assert len(stage.inputs) == len(set(stage.inputs))
            assert not set(stage.inputs) & set(stage.outputs)


def test_the_command_line_takes_the_words(stages: Stages) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for run in stages.resolved.runs:
        for verb in RUN_STAGES:
            name, *words = getattr(stages, verb)(run).words
            assert name == verb
            # a word that the command does not know raises a usage error
            assert commands[verb].make_context(verb, list(words)).params["threads" if verb != "score" else "split"]
    for name in stages.resolved.clusters:
        verb, *words = stages.clusters(name.removeprefix("clusters/").removesuffix(".parquet")).words
        assert commands[verb].make_context(verb, [*words, "--output", "x"]).params["protocol"]


def test_words_name_the_inputs(stages: Stages) -> None:
    """What a training is given it depends on; backbone and manifest come with these."""
    for run in stages.resolved.runs:
        stage = stages.train(run)
        given = {word for word in stage.words if word.startswith(f"{stages.root}/")}
        implied = {f"{stages.root}/backbone.json", f"{stages.root}/runs/{run}"}
        start = {str(Path(path).parent) for path in stage.inputs if path.endswith("run.json")}
        asked = {path for path in stage.inputs if not path.endswith("run.json")} | start
        assert given - implied - {f"{stages.root}/{paths.manifest(stages.resolved.runs[run].dataset)}"} == asked


AUGMENTED = {"augmentation": "rrc_flip", "device": "auto", "threads": 4}


@pytest.mark.parametrize(
    ("stages", "cores", "places", "expected"),
    [
        (AUGMENTED, 16, 3, 5),
        (AUGMENTED, 16, 1, 15),
        (AUGMENTED, 64, 1, 16),
        (AUGMENTED, 8, 3, 4),  # no fewer than the configuration says
        (AUGMENTED, 1, 1, 4),
        (AUGMENTED, 16, 0, 4),
        (AUGMENTED, 16, None, 4),
        (AUGMENTED, None, 3, 4),  # on other machines
        (AUGMENTED | {"device": "cpu"}, 16, 3, 4),  # jobs take no place there, but as many cores as they are given
        (AUGMENTED | {"augmentation": "none"}, 16, 3, 4),
    ],
    indirect=["stages"],
)
def test_a_training_augments_with_its_share_of_the_cores(
    stages: Stages, cores: int | None, places: int | None, expected: int
) -> None:
    assert stages.workers(cores, places) == expected


@pytest.mark.parametrize("stages", [{"runs_per_job": 2, "seeds": [1, 2, 3]}], indirect=True)
def test_every_run_has_one_job(stages: Stages) -> None:
    single = [run for run in stages.resolved.runs if re.fullmatch(stages.single_runs, run)]
    together = [f"{cell}/s{seed}" for seeds, cells in stages.batches.items() for cell in cells for seed in seeds]
    assert together
    assert Counter([*single, *together]) == Counter(stages.resolved.runs.keys())
    for seeds, cells in stages.batches.items():
        assert 1 < len(seeds) <= 2
        for verb in RUN_STAGES:
            stage = stages.batch(verb, cells[0], seeds)
            own = [getattr(stages, verb)(f"{cells[0]}/s{seed}") for seed in seeds]
            commands = [json.loads(text) for text in stage.words[1:]]
            assert [command["words"] for command in commands] == [each.words for each in own]
            assert [command["makes"] for command in commands] == [each.outputs for each in own]
            assert set(stage.inputs) == {path for each in own for path in each.inputs}
            name = f"{cells[0]}/s{seeds[0]}"
            assert stages.log(verb, name) == f"logs/embedded/{verb}/{cells[0]}/seeds_{'_'.join(map(str, seeds))}.log"


def test_a_name_that_the_experiment_lacks_is_refused(stages: Stages) -> None:
    run = next(iter(stages.resolved.runs))
    with pytest.raises(CptError, match=f"run {run}x: embedded has none of this name; did you mean"):
        stages.train(f"{run}x")
    with pytest.raises(
        CptError, match=r"clusters clusters/zzz\.parquet: .* none of this name; results/embedded/grid\.json lists all"
    ):
        stages.clusters("zzz")


@pytest.mark.no_cover
def test_a_change_of_a_kind_reaches_its_figures_and_the_plan_only(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, memory = tmp_path / "cpt", tmp_path / "memory.json"
    shutil.copytree(provenance.PACKAGE, copy, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    monkeypatch.setattr(provenance, "_module", provenance._module.__wrapped__)

    def state() -> dict[str, str]:
        resolved.load(stages.config, "x", memory)
        training = provenance.code_version("cpt.training.train", "cpt.methods.cpt")
        figures = {name: stages.figure_code(name) for name in ("figure4", "figure8")}
        table = provenance.stamp("cpt.report.tables", "cpt.report.layouts.tasks")
        return {**figures, "table": table, "training": training, "plan": json.loads(memory.read_text())["key"]}

    before = state()
    for changed, expected in (
        ("report/figures/violin.py", {"figure4", "plan"}),
        ("report/layouts/tasks.py", {"table", "plan"}),
        ("report/drawing/labels.py", {"figure8"}),
    ):
        with open(copy / changed, "a") as file:
            file.write("\nCHANGED = 1\n")
        after = state()
        assert {name for name in after if after[name] != before[name]} == expected, changed
        before = after


def test_tables_and_the_page_depend_on_every_layout(stages: Stages) -> None:
    for stage in ("table", "page"):
        assert all(f"cpt.report.layouts.{name}" in stages.code(stage) for name in ("tasks", "datasets", "measures"))
