"""What the rules see of an experiment (cpt.experiment.resolved): the grid's runs as plain data, kept between calls."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cpt.errors import CptError
from cpt.experiment import config, grid
from cpt.experiment import resolved as workflow

CONFIG = config.load([Path("config/config.yaml")])


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> tuple[workflow.Resolved, Path]:
    """The default experiment as it is resolved, and the file that keeps it."""
    memory = tmp_path_factory.mktemp("memory") / "memory.json"
    return workflow.load(CONFIG, "x", memory), memory


@pytest.fixture
def memory(resolved: tuple[workflow.Resolved, Path], tmp_path: Path) -> Path:
    """A copy of that file."""
    return Path(shutil.copy(resolved[1], tmp_path / "memory.json"))


def test_it_holds_what_the_grid_says(resolved: tuple[workflow.Resolved, Path]) -> None:
    plan, own = resolved[0], grid.build(CONFIG, "x")
    assert list(plan.runs) == list(own.runs)
    assert plan.digest == grid.digest(own)
    assert plan.exhibits == {name: exhibit["kind"] for name, exhibit in own.exhibits.items()}
    for name, run in own.runs.items():
        job = plan.runs[name]
        assert job.hyperparameters == run.hyperparameters_json
        assert (job.split, job.text_features, job.clusters) == (run.split, run.text_features, run.clusters)
        assert job.measured_clusters == own.clustered(run).clusters
        assert job.measured_clusters.endswith("/s1.parquet"), "the same for all seeds"
        assert {job.clusters, job.measured_clusters} - {None} <= plan.clusters.keys()
        assert job.start == (run.start.id if run.start else None)
        assert [tuple(pair) for pair in job.frozen_images] == own.frozen_image_parts(run)
        assert tuple(job.modules) == run.modules
        assert {tuple(target) for target in job.targets} == run.targets


def test_the_second_call_takes_it_from_memory_without_torch(
    resolved: tuple[workflow.Resolved, Path], memory: Path
) -> None:
    first, kept = resolved[0], memory.read_bytes()
    code = (
        "import sys; from pathlib import Path; from cpt.experiment import config, resolved\n"
        "plan = resolved.load(config.load([Path('config/config.yaml')]), 'x', Path(sys.argv[1]))\n"
        "print(len(plan.runs), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, memory], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(first.runs)), "False"]
    assert workflow.load(CONFIG, "x", memory) == first
    assert memory.read_bytes() == kept


def test_what_changes_is_resolved_anew(resolved: tuple[workflow.Resolved, Path], memory: Path, tmp_path: Path) -> None:
    first = resolved[0]
    values = CONFIG.model_dump(mode="json", exclude_unset=True)
    more = workflow.load(config.parse(values | {"seeds": [1, 2, 3]}, "x"), "x", memory)
    assert len(more.runs) > len(first.runs)
    catalog = yaml.safe_load(Path("config/datasets.yaml").read_text())
    (tmp_path / "classes").symlink_to(Path("config/classes").absolute())
    other = tmp_path / "datasets.yaml"
    other.write_text(yaml.safe_dump(catalog))
    there = config.parse(values | {"catalog": str(other)}, "x")
    before = workflow.load(there, "x", memory).catalog["flowers"].template
    catalog["flowers"]["template"] = "a drawing of {}."
    other.write_text(yaml.safe_dump(catalog))
    assert workflow.load(there, "x", memory).catalog["flowers"].template != before
    memory.write_text("{")
    assert workflow.load(CONFIG, "x", memory) == first


def test_an_own_file_that_is_gone_is_told_again(tmp_path: Path) -> None:
    catalog = yaml.safe_load(Path("config/datasets.yaml").read_text())
    (tmp_path / "classes").symlink_to(Path("config/classes").absolute())
    sentences = tmp_path / "sentences.json"
    sentences.write_text("{}")
    for name in ("world", "flowers", "textures", "land"):
        catalog[name]["descriptions"] = str(sentences)
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump(catalog))
    values = CONFIG.model_dump(mode="json", exclude_unset=True) | {"catalog": str(tmp_path / "datasets.yaml")}
    values["exhibits"]["table2"]["variants"] = ["coprompt"]
    asked, memory = config.parse(values, "x"), tmp_path / "memory.json"
    assert workflow.load(asked, "x", memory).descriptions == [str(sentences)]
    sentences.unlink()
    with pytest.raises(CptError, match="no such file; put it there"):
        workflow.load(asked, "x", memory)


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert workflow.load(CONFIG, "x", blocked / "memory.json").runs


def test_the_memory_holds_nothing_but_plain_data(resolved: tuple[workflow.Resolved, Path]) -> None:
    plan, memory = resolved
    kept = json.loads(memory.read_text())
    assert all(workflow.Job(**job) == plan.runs[name] for name, job in kept["runs"].items())


def test_the_limit_that_the_snakefile_takes_away_is_snakemakes_default() -> None:
    """And no other: one that a user gives stays."""
    from snakemake.cli import get_argument_parser
    from snakemake.settings.types import MaxJobsPerTimespan

    default = MaxJobsPerTimespan.parse_choice(get_argument_parser().get_default("max_jobs_per_timespan"))
    assert f"({default.max_jobs}, {default.timespan:g})" in Path("Snakefile").read_text()
