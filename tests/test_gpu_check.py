"""The check of a GPU in its quick form on a CPU, so that it works when there is a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu


@pytest.mark.slow
def test_every_part_works(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--quick", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert {row["part"] for row in rows if row["what"] != "seconds"} == {
        part.__name__
        for part in gpu.PARTS
        if part is not gpu.waits  # a CPU waits for nothing
    }
    exact = [row for row in rows if row["part"] == "numerics" and row.get("dtype") == "torch.float32"]
    assert exact
    assert all(row["loss"] == row["gradient"] == 0 for row in exact), "the CPU against itself"
    assert {row["how"] for row in rows if row["part"] == "steps" and "how" in row} == {"eager", "naive"}


def test_what_fails_is_a_row_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def attention(check: gpu.Check) -> None:
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr(gpu, "PARTS", (attention, gpu.waits))
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--quick", "--out", str(out)]) == 1
    rows = json.loads(out.read_text())
    assert rows[0] == {"part": "attention", "what": "failed", "error": "no such kernel"}
    assert rows[-1]["part"] == "waits"
