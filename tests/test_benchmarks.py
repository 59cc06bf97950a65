"""The benchmark suite at small sizes: every line is measured and written; what it counts against closed forms.

No test asserts on time.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from benchmarks import compute, figure, memory, peak, rows
from benchmarks.__main__ import LINES, main
from benchmarks.counters import cost, forward_and_backward
from benchmarks.problem import make_problem
from benchmarks.rows import Row
from benchmarks.steps import PARTS, NaiveStep, OurStep, close, difference
from benchmarks.timing import Peak, Settings


def test_cost_of_a_linear_layer() -> None:
    x, weight = torch.randn(6, 8), torch.randn(5, 8)
    assert cost(lambda: F.linear(x, weight)) == (2 * 6 * 8 * 5, 4 * (6 * 8 + 8 * 5 + 6 * 5))


def test_cost_of_a_backward_pass_to_the_input() -> None:
    x, weight = torch.randn(6, 8, requires_grad=True), torch.randn(5, 8)
    forward, backward = forward_and_backward(lambda: F.linear(x, weight))
    assert forward.flops == backward.flops == 2 * 6 * 8 * 5
    assert x.grad is not None


def test_cost_of_attention() -> None:
    q, k, v = (torch.randn(2, 3, t, 16) for t in (4, 7, 7))
    found = cost(lambda: F.scaled_dot_product_attention(q, k, v))
    assert found.flops == 2 * (2 * 2 * 3 * 4 * 7 * 16)  # scores, and the values they weigh
    inputs = sum(x.numel() for x in (q, k, v))
    kept = 4 * (inputs + q.numel() + 2 * 3 * 4)  # the output, and the logarithm of each row's sum
    assert kept - 4 * 2 * 3 * 4 <= found.bytes <= kept


def test_views_and_unread_rows_move_no_bytes() -> None:
    x, table = torch.randn(6, 8), torch.randn(1000, 8)
    assert cost(lambda: x.T.unflatten(0, (2, 4)).transpose(0, 1)).bytes == 0
    index = torch.tensor([1, 5])
    assert cost(lambda: table[index]).bytes == 2 * (2 * 8 * 4) + index.nbytes
    assert cost(lambda: x[:1].expand(6, 8) + x).bytes <= 3 * x.nbytes


def test_extrapolation() -> None:
    assert memory.extrapolate((100, 200), (7.0, 12.0), 500) == 27.0
    assert memory.extrapolate((40, 100), (1.0, 1.0), 7) == 1.0


def test_naive_memory_is_measured_where_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def mebibytes(_settings: Settings, _kind: str, count: int) -> float:
        asked.append(count)
        return 500 + 30.0 * count

    settings = Settings(False, 1, 1, tmp_path)
    monkeypatch.setattr(memory, "_peak", mebibytes)
    monkeypatch.setattr(memory, "available_memory", lambda: 24 * 2**30)
    value, note = memory._naive(settings, 500)
    assert (value, asked[-1]) == (15500, 500)
    assert note.startswith("naive measured")
    monkeypatch.setattr(memory, "available_memory", lambda: 8 * 2**30)
    value, note = memory._naive(settings, 500)
    assert math.isclose(value, 15500)
    assert asked[-2:] == [100, 200]
    assert "linearly" in note


def test_chunks_follow_the_memory() -> None:
    problem = make_problem(quick=True)
    whole = compute.chunk_size(problem, 20, 1e12)
    assert whole == 20
    per_class = 18 * 64 * 77 * 3 * 4
    assert compute.chunk_size(problem, 20, 10 * per_class / compute.SHARE) == 10
    assert compute.chunk_size(problem, 20, 9.5 * per_class / compute.SHARE) == 7


@pytest.mark.parametrize("chunk", [20, 7])
def test_both_steps_agree(chunk: int) -> None:
    """Losses and gradients over three steps, with the graph of all classes in memory and in chunks."""
    problem = make_problem(quick=True)
    classes = problem.classes(20)
    method = problem.method(classes)
    slow = NaiveStep(problem, method, classes, problem.batches(classes, 3, 1), chunk)
    fast = OurStep(problem, method, classes, problem.batches(classes, 3, 1))
    for _ in range(3):
        (theirs, their_loss), (ours, loss) = slow(), fast()
        assert close(loss, their_loss, compute.TOLERANCE)
        assert difference(fast, slow) <= compute.TOLERANCE
        for seconds in (ours, theirs):
            assert set(seconds) == {*PARTS, "whole"}
            assert math.isclose(sum(seconds[part] for part in PARTS), seconds["whole"])
            assert min(seconds.values()) > 0


def test_a_wrong_gradient_is_noticed() -> None:
    problem = make_problem(quick=True)
    classes = problem.classes(5)
    method = problem.method(classes)
    slow = NaiveStep(problem, method, classes, problem.batches(classes, 1, 1), 5)
    with torch.no_grad():
        slow.naive.values["text.context"][0, 0] += 0.01
    fast = OurStep(problem, method, classes, problem.batches(classes, 1, 1))
    slow(), fast()
    assert difference(fast, slow) > compute.TOLERANCE


def test_half_precision_on_the_cpu(tmp_path: Path) -> None:
    """What is measured on a GPU, on the device that is here."""
    said: list[str] = []
    settings = Settings(True, 1, 2, tmp_path, said.append)
    (row,) = compute.cuda_lines(settings, "cpu", "bfloat16")
    assert row.ours > 0
    assert row.repeats == 2
    assert any("losses" in line for line in said)


def test_fractions_of_the_peak(tmp_path: Path) -> None:
    settings = Settings(True, 1, 2, tmp_path, peak=Peak({"float32": 1e9}))
    step, rate = Row("step", "a", "s", 4.0, flops=2e9), Row("evaluation", "b", "images/s", 5.0, flops=1e8)
    found = peak.fractions([step, rate, Row("dag", "c", "s", 1.0)], settings)
    assert [row.peak_fraction for row in found] == [0.5, 0.5, None]
    assert [rows.limit(row) for row in found] == [2.0, 10.0, None]


def test_rows_are_judged_written_and_read(tmp_path: Path) -> None:
    good = Row("text", "a | b", "s", 0.5, 7.0, 14.0, 12.0, flops=2e9, bytes=1e9, peak_fraction=0.5, note="why")
    slow = Row("startup", "c", "s", 4.0, None, None, 3.0, "ours")
    plain = Row("peak", "d", "GFLOP/s", 1234.0)
    assert [row.reached for row in (good, slow, plain)] == [True, False, None]
    assert rows.limit(good) == 0.25
    described = rows.described([good, slow, plain], 2, True)
    rows.write(described, tmp_path)
    assert rows.read(tmp_path / rows.PARQUET) == described
    assert "a \\| b" in (tmp_path / rows.MARKDOWN).read_text()
    text = rows.text(described)
    assert "[1] why" in text
    assert "1,234" in text


@pytest.mark.slow
def test_the_whole_suite(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--quick", "--threads", "1", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    measured = rows.read(tmp_path / rows.PARQUET)
    names = {row.name for row in measured}
    assert names == set(LINES) - {"whole"} - (set() if torch.cuda.is_available() else {"cuda"})
    assert torch.cuda.is_available() or "no CUDA device" in printed
    for row in measured:
        numbers = (row.ours, row.naive, row.ratio, row.flops, row.bytes, row.peak_fraction, row.peak_memory_mb)
        assert all(number is None or number > 0 for number in numbers), row
        assert row.threads == 1
        assert row.machine
        assert row.torch == torch.__version__
        if row.name in ("text", "evaluation") or (row.part == "whole" and row.name == "step"):
            assert None not in (row.naive, row.ratio, row.flops, row.bytes, row.peak_fraction), row
    assert {row.part for row in measured if row.name == "step"} == {"whole", *PARTS}
    assert printed.count("agree within") >= 3  # text, and both numbers of classes of the step
    for name in names:
        assert f"\n{name} " in printed
    figure.main([str(tmp_path / rows.PARQUET), str(tmp_path / "a.svg"), str(tmp_path / "a.png")])
    assert (tmp_path / "a.svg").stat().st_size > 1000
    # A later call for one line keeps the others.
    main(["--quick", "--only", "peak", "--threads", "1", "--output", str(tmp_path)])
    assert {row.name for row in rows.read(tmp_path / rows.PARQUET)} == names
