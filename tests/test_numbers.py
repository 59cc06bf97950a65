"""Numbers in the documents are those of docs/results; ``docs/write_numbers.py`` writes them and finds what drifted."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from cpt.files import read_parquet, write_parquet
from cpt.paths import RUNS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def command() -> dict:
    return runpy.run_path(str(ROOT / "docs/write_numbers.py"))


def test_documents_say_what_was_measured(command: dict, capsys: pytest.CaptureFixture) -> None:
    assert command["main"](["--check"]) == 0, capsys.readouterr().out


def test_a_changed_number_is_found_and_mended(command: dict, tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    shutil.copy(ROOT / "docs/performance.md", document)
    text = document.read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| text | text path"))
    digit = re.search(r"\d\.\d", row)
    assert digit is not None
    changed = row[: digit.start()] + str((int(digit[0][0]) + 1) % 10) + row[digit.start() + 1 :]
    document.write_text(text.replace(row, changed), encoding="utf-8")
    assert command["written"](document) == text != document.read_text(encoding="utf-8")


def test_an_unknown_number_is_refused(command: dict, tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("<!-- =benhc -->1<!-- / -->", encoding="utf-8")
    with pytest.raises(Exception, match=r"a\.md: unknown number 'benhc'.*bench"):
        command["written"](document)


def test_every_place_is_closed_and_every_number_is_used(command: dict) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in command["documents"]())
    assert len(re.findall("<!-- =", text)) == len(command["PLACE"].findall(text))
    assert {place[1] for place in command["PLACE"].findall(text)} == set(command["NUMBERS"])


def test_a_fresh_run_is_compared_cell_by_cell(command: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    fresh = tmp_path / "embedded"
    fresh.mkdir()
    table, _ = read_parquet(ROOT / "docs/results/embedded.parquet", RUNS)
    for shift in (0.0, 5.0):
        values = table["value"].to_pylist()
        moved = [
            value + shift if (metric, method) == ("harmonic_mean", "coop") else value
            for value, metric, method in zip(
                values, table["metric"].to_pylist(), table["method"].to_pylist(), strict=True
            )
        ]
        column = table.column_names.index("value")
        changed = table.set_column(column, "value", pa.array(moved, pa.float64()))
        write_parquet(fresh / "runs.parquet", changed, RUNS, experiment="embedded")
        assert command["main"](["--against", str(fresh)]) == int(shift > 0)
        assert f"largest difference {shift:.2f} points" in capsys.readouterr().out


def test_what_is_measured_in_prose_is_marked() -> None:
    """A decimal in the results' section of docs/embedded.md stands between marks."""
    text = (ROOT / "docs/embedded.md").read_text(encoding="utf-8")
    section = text[text.index("## What was measured") :]
    bare = re.sub(r"<!-- =.*?<!-- / -->", "", section, flags=re.DOTALL)
    unmarked = [number for number in re.findall(r"(?<![\w.])\d+\.\d+", bare) if number not in ("0.25", "0.06")]
    assert unmarked == []
