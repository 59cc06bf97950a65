"""Every scenario ends in the undisturbed run's numbers, after what the message says; docs/reliability.md tells all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpt.workflow.verify import verify
from tests.faults.damage import GROUPS, damage
from tests.faults.project import RESULTS, Kept, Session
from tests.faults.scenarios import EVENTS, FULL, SEEDS, kill, may_mount
from tests.faults.table import DOCUMENT, NAMES, names
from tests.helpers.workflow import leave_out


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with Kept.made(tmp_path_factory.mktemp("faults")) as made:
        yield made


def test_the_document_tells_of_every_scenario() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert names(document) == NAMES, "run `python -m tests.faults`"
    assert "DIFFERENT" not in document


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_killed_twice_gives_the_same_numbers(kept: Kept, tmp_path: Path, seed: int) -> None:
    assert all(outcome.same for outcome in kill(kept, tmp_path / "project", seed).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", EVENTS)
def test_a_disturbed_run_gives_the_same_numbers(kept: Kept, tmp_path: Path, name: str) -> None:
    if name in FULL and not may_mount(tmp_path):
        leave_out("may not mount a file system")
    assert EVENTS[name](kept, tmp_path / "project").same


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_a_damaged_experiment_gives_the_same_numbers(kept: Kept, tmp_path: Path, group: str) -> None:
    assert all(outcome.same for outcome in damage(kept, tmp_path / "project", group).values())


@pytest.mark.slow
def test_the_fix_that_verify_tells_fixes(kept: Kept, tmp_path: Path) -> None:
    session = Session(kept, kept.copy("finished", tmp_path / "project"))
    root = session.folder / RESULTS
    run = next((root / "runs/base_to_new/land/r0.5").glob("cpt-*/s1"))
    split = root / "splits/base_to_new/land/r0.5/s1.parquet"
    for path in (split, run / "history.parquet", root / "runs.parquet"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with contextlib.chdir(session.folder):  # its fixes are typed there
            (finding,) = verify(RESULTS).findings
        assert finding.file == str(path.relative_to(root))
        assert session.type(finding.fix, "fix"), session.text
        assert session.snakemake(), session.text
        assert verify(root).findings == []
    assert kept.same(session.folder)
