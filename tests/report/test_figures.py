"""Figures: the data they draw, their measures against closed forms, and files that are the same every time."""

from __future__ import annotations

import csv
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cpt.errors import CptError
from cpt.metrics import geometry
from cpt.report.drawing import style
from cpt.report.drawing.features import Clusters, effective_rank, normalize
from cpt.report.drawing.labels import place_labels
from cpt.report.drawing.make import make_figure
from cpt.report.figures.cost import Point, named, undominated
from cpt.report.figures.method import principal_plane, within_cluster
from cpt.report.figures.sweep import positions
from cpt.results.cells import read_results
from tests.helpers import fake_results
from tests.helpers.fake_results import changed

NAMES = fake_results.FIGURES


@pytest.fixture(scope="module")
def made(with_figures: Path) -> Path:
    """Every figure of the invented results."""
    return with_figures


def drawn(made: Path, name: str) -> list[dict[str, str]]:
    with open(made / "figures" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def texts(made: Path, name: str) -> str:
    """Return the texts of an SVG, one per line."""
    return "\n".join(re.findall(r"<text[^>]*>(.*?)</text>", (made / "figures" / f"{name}.svg").read_text()))


# ---- the files ---------------------------------------------------------------------------------


@pytest.mark.no_cover
def test_same_inputs_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    for name in NAMES:
        make_figure(made / "grid.json", made / "runs.parquet", name, tmp_path)
    written = {path.name: path.read_bytes() for path in (made / "figures").iterdir()}
    assert written == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(written) == 5 * len(NAMES)


def test_files_carry_no_dates(made: Path) -> None:
    for path in (made / "figures").iterdir():
        assert not re.search(rb"CreationDate|<dc:date>|tIME", path.read_bytes())


def test_figures_have_the_width_of_a_column_or_a_page(made: Path) -> None:
    widths = {
        name: float(re.search(r'<svg[^>]* width="([\d.]+)pt"', (made / "figures" / f"{name}.svg").read_text())[1])
        for name in NAMES
    }
    full, column = 72 * style.FULL_WIDTH, 72 * style.COLUMN_WIDTH
    assert widths == pytest.approx(dict(zip(NAMES, (full, full, full, column, column, full, full, full), strict=True)))


def test_style_does_not_follow_the_user_and_leaves_no_trace() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30}), style.house_style():
        assert matplotlib.rcParams["font.size"] == 7.5
    assert dict(matplotlib.rcParams) == before


def test_a_row_looks_the_same_in_every_figure_and_in_every_experiment(made: Path) -> None:
    results = read_results(made / "grid.json", made / "runs.parquet")
    looks = style.looks(results)
    assert looks.keys() == {"zeroshot", "ivlp", "npt", "cptsum", "cpt"}
    assert len({(look.color, look.marker) for look in looks.values()}) == len(looks)
    many = [{"id": f"mine{i}"} for i in range(30)]
    other = replace(results, grid={"exhibits": {"figure9": {"kind": "cost", "rows": [*many, {"id": "cpt"}]}}})
    assert style.looks(other)["cpt"] == looks["cpt"]
    assert len({(look.color, look.marker) for look in style.looks(other).values()}) == 31
    for name in ("figure1", "figure3", "figure4", "figure5", "figure6", "figure7", "figure8"):
        assert looks["cpt"].color.lower() in (made / "figures" / f"{name}.svg").read_text(), name


def test_further_series_of_a_row_are_lighter_with_open_marks() -> None:
    look = style.look(0)
    assert look.again(0) == look
    assert (look.again(1).marker, look.again(1).face) == (look.marker, "white")
    assert len({look.again(step).color for step in range(4)}) == 4


def test_looks_differ_in_color_marker_and_dash() -> None:
    looks = [style.look(index) for index in range(4)]
    for part in range(3):
        assert len({look[part] for look in looks}) == 4


# ---- figure 1 ----------------------------------------------------------------------------------


def test_effective_rank_of_known_matrices() -> None:
    assert effective_rank(np.eye(7)) == pytest.approx(7)
    assert effective_rank(np.ones((7, 7))) == pytest.approx(1)
    blocks = np.kron(np.eye(3), np.ones((2, 2)))
    assert effective_rank(blocks) == pytest.approx(3)
    simplex = np.full((5, 5), -0.25) + 1.25 * np.eye(5)
    assert effective_rank(simplex) == pytest.approx(4)


def test_effective_rank_is_that_of_the_reported_measure() -> None:
    features = normalize(np.random.default_rng(0).normal(size=(7, 5)))
    assert effective_rank(features @ features.T) == pytest.approx(
        float(geometry.effective_rank(torch.tensor(features)))
    )


def test_similarity_figure_shows_every_pair_and_every_seed_over_epochs(made: Path) -> None:
    rows = drawn(made, "figure1")
    count = fake_results.TRAINED
    for method in ("Zero-shot", "CPT (as printed)", "CPT"):
        pairs = [row for row in rows if row["panel"] == "similarity" and row["method"] == method]
        assert len(pairs) == count * (count - 1) // 2
        assert all(-1 <= float(row["value"]) <= 1 for row in pairs)
    stability = [row for row in rows if row["panel"] == "stability"]
    assert len(stability) == 2 * fake_results.EPOCHS * 3
    final = {row["seed"]: row["value"] for row in stability if row["method"] == "CPT" and row["epoch"] == "6"}
    assert final == {"1": "60.0", "2": "61.0", "3": "62.0"}
    assert "CPT, n = 3 seeds" in texts(made, "figure1")
    assert f"of {count}" in texts(made, "figure1")


def test_unfinished_runs_leave_a_panel_that_says_so(made: Path, tmp_path: Path) -> None:
    grid = json.loads((made / "grid.json").read_text())
    missing = "base_to_new/scripts/r0.06/npt/s1"
    for name, parameter in (("figure1", None), ("figure2", None), ("figure3", "etf_weight"), ("figure4", None)):
        for cell in grid["exhibits"][name]["cells"]:
            if cell["parameter"] == parameter:
                cell.update(runs=[missing], dataset="scripts")
    folder = changed(made, tmp_path / "changed", exhibits=grid["exhibits"])
    for name in NAMES[:4]:
        make_figure(folder / "grid.json", folder / "runs.parquet", name, tmp_path)
        assert "no finished run" in (tmp_path / f"{name}.svg").read_text()


# ---- figure 2 ----------------------------------------------------------------------------------


def test_within_cluster_cosine_and_simplex_target() -> None:
    cosines = np.array([[1, 0.5, 9, 9], [0.5, 1, 9, 9], [9, 9, 1, 9], [9, 9, 9, 1]])
    clusters = Clusters(list("abcd"), np.array([0, 0, 1, 2]))
    assert within_cluster(cosines, clusters) == (0.5, -1.0)
    assert within_cluster(cosines, Clusters(list("abcd"), np.arange(4))) is None
    one = Clusters(list("abcd"), np.zeros(4, dtype=int))
    simplex = np.full((4, 4), -1 / 3) + 4 / 3 * np.eye(4)
    assert within_cluster(simplex, one) == pytest.approx((-1 / 3, -1 / 3))


def test_clusters_are_ordered_in_blocks() -> None:
    clusters = Clusters(list("abcde"), np.array([0, 1, 0, 2, 1]))
    assert clusters.order().tolist() == [0, 2, 1, 4, 3]
    assert clusters.bounds() == [(0, 2), (2, 4), (4, 5)]


def test_principal_plane_holds_flat_features_and_has_a_fixed_sign() -> None:
    flat = np.random.default_rng(0).normal(size=(9, 2)) @ np.array([[3.0, 0, 0, 0], [0, 0, 1.0, 0]])
    plane = principal_plane(flat)
    assert plane.shares.sum() == pytest.approx(1)
    assert (
        np.ptp(np.linalg.norm(flat - flat.mean(axis=0), axis=1) - np.linalg.norm(plane.project(flat), axis=1)) < 1e-12
    )
    assert (plane.axes[np.arange(2), np.abs(plane.axes).argmax(axis=1)] > 0).all()
    assert principal_plane(flat[:1]).shares.tolist() == [0, 0]


def test_method_figure_draws_the_trained_classes_before_and_after(made: Path) -> None:
    rows = drawn(made, "figure2")
    trained = list(fake_results.CLASSES[: fake_results.TRAINED])
    for panel in ("frozen", "tuned"):
        assert [row["class"] for row in rows if row["panel"] == panel] == trained
    assert len([row for row in rows if row["panel"] == "centroid"]) == 3
    said = texts(made, "figure2")
    assert all(name in said for name in trained)
    # clusters of 4, 4 and 2: (6 + 6 pairs at -1/3, 1 pair at -1) / 13
    assert "(simplex: −0.38)" in said
    moved = r"Tuning moved the mean cosine within clusters from (0\.\d\d) to (0\.\d\d), (away|[\d.]+ % of the way)"
    (old, new, _), *_ = re.findall(moved, (made / "figures" / "figure2.txt").read_text())
    assert f"mean within clusters {old} " in said
    assert f"mean within clusters {new} " in said
    assert len([row for row in rows if row["panel"] == "cosine_after" and row["cluster"]]) == 13


def test_method_figure_refuses_a_method_without_clusters(made: Path, tmp_path: Path) -> None:
    grid = json.loads((made / "grid.json").read_text())
    grid["exhibits"]["figure2"]["cells"] = grid["exhibits"]["figure1"]["cells"][:1]
    folder = changed(made, tmp_path / "without", exhibits=grid["exhibits"])
    with pytest.raises(CptError, match="needs a run of a method with clusters"):
        make_figure(folder / "grid.json", folder / "runs.parquet", "figure2", tmp_path)


def test_labels_do_not_cover_each_other() -> None:
    points = np.array([[0.5, 0.5], [0.502, 0.5], [0.5, 0.503], [0.9, 0.9]])
    with style.house_style():
        figure = style.new_figure(3.3, 3.3)
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        place_labels(axes, points, {i: (f"class {i}", "black") for i in range(4)}, np.empty((0, 2)))
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)


def test_labels_stay_off_lines() -> None:
    level = np.array([[0.0, 0.5], [1.0, 0.5]])
    with style.house_style():
        figure = style.new_figure(3.3, 3.3)
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        place_labels(axes, level[:1], {0: ("level", "black")}, lines=[level])
        figure.draw_without_rendering()
        (box,) = (text.get_window_extent() for text in axes.texts)
        height = axes.transData.transform((0, 0.5))[1]
    assert not box.y0 <= height <= box.y1


# ---- figures 3 to 5 ----------------------------------------------------------------------------


def test_sweep_positions_are_to_scale_unless_they_crowd() -> None:
    assert positions([2, 4, 8, 15]) == {2: 2.0, 4: 4.0, 8: 8.0, 15: 15.0}
    assert positions([0, 0.05, 0.25, 1.0]) == {0: 0.0, 0.05: 1.0, 0.25: 2.0, 1.0: 3.0}
    assert positions([3]) == {3: 3.0}


def test_sweep_draws_every_seed_mean_and_std(made: Path) -> None:
    rows = drawn(made, "figure3")
    assert {row["parameter"] for row in rows} == {"etf_weight", "compactness_weight", "anchor_weight"}
    at_one = [row for row in rows if row["parameter"] == "etf_weight" and row["x"] == "1"]
    # 61 - 2 * 0.75^2
    assert {row["statistic"]: float(row["value"]) for row in at_one if not row["seed"]} == {"mean": 59.875, "std": 1.0}
    assert len([row for row in at_one if row["statistic"] == "seed"]) == 3
    assert texts(made, "figure3").count("default") == 3
    assert {"λ_ETF", "compactness weight"} < set(texts(made, "figure3").splitlines())


def test_sweep_averages_over_datasets(made: Path) -> None:
    means = [float(row["value"]) for row in drawn(made, "figure5") if row["statistic"] == "mean"]
    assert means == [62.0] * 4  # flowers 61, world 63


def test_few_seeds_are_points_without_violins(made: Path) -> None:
    rows = drawn(made, "figure4")
    npt = [row for row in rows if row["method"] == "NPT (reconstruction)"]
    # flowers and world of seeds 1 and 2: (59 + 61) / 2 and (60 + 62) / 2
    assert [float(row["value"]) for row in npt if row["statistic"] == "seed"] == [60.0, 61.0]
    said = texts(made, "figure4")
    assert "n = 2" in said
    assert "FillBetweenPolyCollection" not in (made / "figures" / "figure4.svg").read_text()
    assert "violin" not in (made / "figures" / "figure4.txt").read_text().split("a_b.")[1]


def test_unknown_figure_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(CptError, match="no exhibit 'figure9'"):
        make_figure(made / "grid.json", made / "runs.parquet", "figure9", tmp_path)
    with pytest.raises(CptError, match="'table1' is a table"):
        make_figure(made / "grid.json", made / "runs.parquet", "table1", tmp_path)


# ---- figures 6 to 8 ----------------------------------------------------------------------------


def test_collapse_is_averaged_over_datasets_and_drawn_over_epochs(made: Path) -> None:
    rows = drawn(made, "figure6")
    cpt = {(row["epoch"], row["seed"]): float(row["value"]) for row in rows if row["method"] == "CPT"}
    assert len(cpt) == fake_results.EPOCHS * 3
    assert cpt["2", "1"] == pytest.approx(0.8)
    assert {row["measure"] for row in rows} == {"etf_distance"}
    npt = {row["seed"] for row in rows if row["method"].startswith("NPT")}
    assert npt == {"1", "2"}, "flowers lacks seed 3"
    shown = texts(made, "figure6")
    assert "(b) text-image alignment" in shown
    assert "no finished run" in shown, "no run has the second measure"


def test_reliability_pools_datasets_and_seeds(made: Path) -> None:
    rows = [row for row in drawn(made, "figure7") if (row["method"], row["half"]) == ("CPT", "base")]
    assert [(row["bin"], row["images"], float(row["accuracy"])) for row in rows] == [
        ("7", "600", 0.4),
        ("14", "1200", 0.95),
    ]
    assert float(rows[1]["confidence"]) == pytest.approx(0.96)
    # gaps of 600 images by 0.1 and of 1200 by 0.01
    assert "base, ECE 4.0" in texts(made, "figure7")
    assert "ECE: expected calibration error of these pooled images" in (made / "figures" / "figure7.txt").read_text()


def test_cost_against_accuracy(made: Path) -> None:
    rows = {(row["cost"], row["method"]): row for row in drawn(made, "figure8")}
    seconds = rows["seconds", "CPT"]
    assert (float(seconds["value"]), float(seconds["accuracy"]), seconds["undominated"]) == (4.0, 62.0, "1")
    assert (rows["seconds", "Zero-shot"]["value"], rows["seconds", "Zero-shot"]["undominated"]) == ("0.0", "1")
    assert rows["seconds", "CPT (as printed)"]["undominated"] == "0", "CPT costs the same and is better"


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ([(1, 5), (2, 4), (3, 6)], [(1, 5), (3, 6)]),
        ([(1, 5), (1, 6)], [(1, 6)]),
        ([(2, 5), (1, 5)], [(1, 5)]),
        ([(1, 5), (1, 5)], [(1, 5), (1, 5)]),
        ([], []),
    ],
)
def test_undominated_points(points: list, best: list) -> None:
    made = [Point("", "", cost, accuracy, None, 1) for cost, accuracy in points]
    assert [(point.cost, point.accuracy) for point in undominated(made)] == best


@pytest.mark.parametrize("count", [12, 13])
def test_of_many_methods_only_the_front_and_what_it_is_compared_with_are_named(count: int) -> None:
    ids = ["cpt", *(f"worse{i}" for i in range(count - 3)), "cheap", "best"]
    made = [Point(row, "", 1.0 if row == "cheap" else 2.0, float(place), None, 3) for place, row in enumerate(ids)]
    assert [point.row for point in named(made)] == (ids if count == 12 else ["cpt", "cheap", "best"])


def test_panels_have_letters_without_end() -> None:
    assert list(itertools.islice(style.letters(), 25, 29)) == ["z", "aa", "ab", "ac"]


def test_captions_say_what_is_drawn_n_and_error_bars(made: Path) -> None:
    for name in NAMES:
        caption = (made / "figures" / f"{name}.txt").read_text()
        assert caption.startswith(f"Figure {name[-1]}. An invented ")
        assert f" τ = 0.06. What {name} shows: τ → 0 & a_b." in caption
        assert re.search(r"n = \d|n below|No error bars|no error bars", caption)
        assert caption.count("\n") == 1
