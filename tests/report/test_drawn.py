"""What figures draw, read back from their marks, lines, bands, bars and axes, against the files by plain arithmetic."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex
from safetensors.numpy import load_file
from scipy.stats import gaussian_kde

from cpt.report.drawing import style
from cpt.report.figures import violin
from cpt.results.cells import read_results
from tests.helpers import rough_results
from tests.helpers.rough_results import over_datasets

NAMES = {
    "zeroshot": "Zero-shot",
    "ivlp": "IVLP",
    "npt": "NPT (reconstruction)",
    "cptsum": "CPT (as printed)",
    "cpt": "CPT",
}
Cells = list[dict[str, Any]]


@pytest.fixture(scope="module")
def made(uneven: Path) -> Path:
    return uneven


def exhibit(made: Path, name: str) -> dict[str, Any]:
    return json.loads((made / "grid.json").read_text())["exhibits"][name]


def of(cells: Cells, row: str, ratio: float, **more: object) -> Cells:
    wanted = {"row": row, "ratio": ratio, **more}
    return [cell for cell in cells if cell | wanted == cell]


def several_ratios(made: Path, name: str) -> dict[str, Any]:
    """A figure's exhibit over two datasets and two ratios, with the cells of Table 2."""
    chosen = exhibit(made, name)
    rows = [row["id"] for row in chosen["rows"]]
    cells = [
        cell
        for cell in exhibit(made, "table2")["cells"]
        if cell["row"] in rows and cell["dataset"] in ("flowers", "world") and cell["ratio"] in (1.0, 0.06)
    ]
    return chosen | {"cells": cells, "ratios": [1.0, 0.06]}


def draw(made: Path, shown: Mapping[str, Any]) -> style.Drawing:
    results = read_results(made / "grid.json", made / "runs.parquet")
    with style.house_style():
        drawing = import_module(f"cpt.report.figures.{shown['kind']}").draw(results, shown)
        drawing.figure.draw_without_rendering()
    inside(drawing.figure.axes)
    return drawing


def inside(panels: Iterable[Axes]) -> None:
    """Whatever is drawn is seen: no point lies outside the axes."""
    for axes in panels:
        marks = [np.asarray(c.get_offsets()) for c in axes.collections if isinstance(c, PathCollection)]
        lines = [line.get_xydata() for line in axes.lines if line.get_transform() == axes.transData]
        points = np.concatenate([np.empty((0, 2)), *marks, *lines])
        for values, (low, high) in zip(points.T, (axes.get_xlim(), axes.get_ylim()), strict=True):
            assert all((min(low, high) <= values) & (values <= max(low, high)))


def rows(drawing: style.Drawing, **wanted: object) -> pd.DataFrame:
    """Rows of the figure's CSV."""
    table = pd.DataFrame(drawing.rows, columns=drawing.header)
    for name, value in wanted.items():
        table = table[table[name] == value]
    return table


def series(axes: Axes) -> dict[str, tuple[pd.Series, pd.DataFrame]]:
    """Label -> line (x -> y) and band (x -> low, high) of the same color."""
    bands = {to_hex(c.get_facecolor()[0][:3]): c for c in axes.collections if isinstance(c, PolyCollection)}
    found = {}
    for line in axes.lines:
        if line.get_label().startswith("_"):
            continue
        corners = pd.DataFrame(bands.pop(to_hex(line.get_color())).get_paths()[0].vertices, columns=["x", "y"])
        around = corners.groupby("x")["y"].agg(["min", "max"])
        found[line.get_label()] = pd.Series(line.get_ydata(), index=line.get_xdata()), around
    assert not bands
    return found


def check_band(found: tuple[pd.Series, pd.DataFrame], values: Mapping[float, pd.Series]) -> None:
    """The line runs through the means, the band is one sample standard deviation wide to both sides."""
    line, band = found
    assert line.index.tolist() == band.index.tolist() == list(values)
    mean = np.array([v.mean() for v in values.values()])
    std = np.array([v.std(ddof=1) if len(v) > 1 else 0.0 for v in values.values()])
    np.testing.assert_allclose(line, mean)
    np.testing.assert_allclose(band, np.stack([mean - std, mean + std], axis=1))


def marks(axes: Axes, color: str) -> np.ndarray:
    """Points of the scatters that have this color alone, (N, 2)."""
    found = [
        np.asarray(c.get_offsets())
        for c in axes.collections
        if isinstance(c, PathCollection)
        and {color.lower()}
        == {to_hex(part[:3]) for part in (c.get_facecolor() if len(c.get_facecolor()) else c.get_edgecolor())}
    ]
    return np.concatenate(found)


def same_points(found: np.ndarray, expected: Iterable[tuple[float, float]]) -> None:
    order = sorted(map(tuple, np.round(np.asarray(found), 6).tolist()))
    np.testing.assert_allclose(order, sorted(tuple(map(float, point)) for point in expected), atol=2e-6)


# ---- similarity ----------------------------------------------------------------------------------


def features(made: Path, run: str) -> np.ndarray:
    found = load_file(made / "runs" / run / "classifier.safetensors")["flowers/base"].astype(np.float64)
    return found / np.sqrt((found**2).sum(axis=1, keepdims=True))


def by_cluster(made: Path) -> pd.DataFrame:
    """Label, class and cluster of the trained classes, cluster by cluster."""
    path = next((made / "clusters").rglob("s1.parquet"))
    return pd.read_parquet(path).sort_values(["cluster", "label"]).reset_index(drop=True)


def blocks(axes: Axes) -> list[tuple[float, float, float, float]]:
    return [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in axes.patches]


def test_heat_maps_show_the_first_seed_s_cosines_cluster_by_cluster_on_one_scale(made: Path) -> None:
    shown = exhibit(made, "figure1")
    maps = [cell for cell in shown["cells"] if cell["parameter"] is None]
    shown["cells"] += [cell | {"runs": cell["runs"][::-1]} for cell in maps]  # of a second dataset, say
    drawing = draw(made, shown)
    clusters = by_cluster(made)
    order, sizes = clusters["label"].to_numpy(), clusters.groupby("cluster").size().to_numpy()
    first = np.cumsum(sizes) - sizes
    expected = {}
    for row in ("zeroshot", "cptsum", "cpt"):
        own = features(made, of(shown["cells"], row, 0.06, parameter=None)[0]["runs"][0])
        expected[NAMES[row]] = own @ own.T
    panels = [axes for axes in drawing.figure.axes if axes.images]
    assert len(panels) == 3
    lowest = min(matrix.min() for matrix in expected.values())
    for axes, letter, (name, matrix) in zip(panels, "abc", expected.items(), strict=True):
        (image,) = axes.images
        np.testing.assert_allclose(image.get_array(), matrix[np.ix_(order, order)])
        assert image.get_clim() == pytest.approx((lowest, 1))
        edges = [(start - 0.5, start - 0.5, size, size) for start, size in zip(first, sizes, strict=True)]
        np.testing.assert_allclose(blocks(axes), edges)
        shares = np.linalg.svd(matrix, compute_uv=False) / len(matrix)
        rank = np.exp(-(shares * np.log(shares)).sum())
        assert axes.get_title(loc="left") == f"({letter}) {name}\neffective rank {rank:.1f} of {len(matrix)}"
        table = rows(drawing, panel="similarity", method=name)
        label = dict(zip(clusters["class_name"], clusters["label"], strict=True))
        assert len(table) == len(matrix) * (len(matrix) - 1) // 2
        for one, other, value in zip(table["class"], table["other_class"], table["value"], strict=True):
            assert value == pytest.approx(matrix[label[one], label[other]])


def test_stability_shows_mean_and_deviation_of_the_snapshots(made: Path) -> None:
    shown = exhibit(made, "figure1")
    drawing = draw(made, shown)
    (axes,) = (axes for axes in drawing.figure.axes if axes.get_xlabel() == "epoch")
    found = series(axes)
    assert list(found) == [f"{NAMES[row]}, n = 3 seeds" for row in ("cptsum", "cpt")]
    for row in ("cptsum", "cpt"):
        (cell,) = of(shown["cells"], row, 0.06, parameter="epochs")
        runs = {
            run.rpartition("/s")[2]: pd.read_parquet(made / "runs" / run / "metrics.parquet") for run in cell["runs"]
        }
        table = pd.concat(runs, names=["seed"]).reset_index()
        check_band(found[f"{NAMES[row]}, n = 3 seeds"], dict(iter(table.groupby("epoch")["value"])))
        written = rows(drawing, panel="stability", method=NAMES[row])
        assert sorted(written["value"]) == sorted(table["value"])
    assert axes.get_ylabel() == "H (%), mean ± std"


# ---- method --------------------------------------------------------------------------------------


def test_method_figure_shows_classes_before_and_after_in_one_plane(made: Path) -> None:
    shown = exhibit(made, "figure2")
    drawing = draw(made, shown)
    clusters = by_cluster(made).set_index("label").sort_index()
    run = shown["cells"][0]["runs"][0]
    tuned = features(made, run)
    frozen = load_file(made / "features/flowers/text-ensemble.safetensors")["features"].astype(np.float64)
    frozen = (frozen / np.linalg.norm(frozen, axis=1, keepdims=True))[: len(clusters)]
    values, vectors = np.linalg.eigh(np.cov(frozen.T))
    axes_of_plane = vectors[:, [-1, -2]].T
    for axis in axes_of_plane:
        axis *= np.sign(axis[np.abs(axis).argmax()])
    shares = values[[-1, -2]] / values.sum()
    old, new = ((points - frozen.mean(axis=0)) @ axes_of_plane.T for points in (frozen, tuned))
    before, after, *maps = drawing.figure.axes
    for cluster, members in clusters.groupby("cluster").groups.items():
        color = style.look(int(cluster)).color
        same_points(marks(before, color), [*old[members], old[members].mean(axis=0)])
        same_points(marks(after, color), new[members])
    colors = [style.look(int(cluster)).color.lower() for cluster in clusters["cluster"]]
    (opened,) = (
        c for c in after.collections if isinstance(c, PathCollection) and to_hex(c.get_facecolor()[0]) == "#ffffff"
    )
    np.testing.assert_allclose(opened.get_offsets(), old, atol=1e-9)
    assert [to_hex(part[:3]) for part in opened.get_edgecolor()] == colors
    (moves,) = (c for c in after.collections if isinstance(c, LineCollection))
    np.testing.assert_allclose(moves.get_segments(), np.stack([old, new], axis=1), atol=1e-9)
    assert [to_hex(part[:3]) for part in moves.get_edgecolor()] == colors
    for axes in (before, after):
        assert axes.get_xlabel() == f"component 1 ({100 * shares[0]:.0f} % of the frozen variance)"
        assert axes.get_aspect() == 1
    assert before.get_ylabel() == f"component 2 ({100 * shares[1]:.0f} %)"
    assert (before.get_xlim(), before.get_ylim()) == (after.get_xlim(), after.get_ylim()), "positions compare"
    anchors = {text.get_text(): text.xy for text in before.texts}
    assert anchors.keys() == set(clusters["class_name"])
    for name, point in zip(clusters["class_name"], old, strict=True):
        np.testing.assert_allclose(anchors[name], point)
    for panel, points in (("frozen", old), ("tuned", new)):
        table = rows(drawing, panel=panel)
        assert table["class"].tolist() == clusters["class_name"].tolist()
        assert table["cluster"].tolist() == clusters["cluster"].tolist()
        np.testing.assert_allclose(table[["x", "y"]].astype(float), points)
    centers = rows(drawing, panel="centroid")
    expected = [old[clusters["cluster"] == m].mean(axis=0) for m in centers["cluster"]]
    np.testing.assert_allclose(centers[["x", "y"]].astype(float), expected)

    order = by_cluster(made)["label"].to_numpy()
    cosines = {"before": frozen @ frozen.T, "after": tuned @ tuned.T}
    lowest = min(matrix.min() for matrix in cosines.values())
    panels = [axes for axes in maps if axes.images]
    for axes, letter, (when, matrix) in zip(panels, "cd", cosines.items(), strict=True):
        (image,) = axes.images
        np.testing.assert_allclose(image.get_array(), matrix[np.ix_(order, order)])
        assert image.get_clim() == pytest.approx((lowest, 1))
        pairs = [
            (matrix[i, j], -1 / (size - 1))
            for members in clusters.groupby("cluster").groups.values()
            for size in [len(members)]
            for i in members
            for j in members
            if i < j
        ]
        found, target = np.mean(pairs, axis=0)
        said = f"mean within clusters {found:.2f} (simplex: {target:.2f})".replace("-", "−")
        assert axes.get_title(loc="left") == f"({letter}) cosine similarity {when} tuning\n{said}"
        table = rows(drawing, panel=f"cosine_{when}")
        label = {name: i for i, name in enumerate(clusters["class_name"])}
        for one, other, cluster, value in table[["class", "other_class", "cluster", "cosine"]].itertuples(index=False):
            i, j = label[one], label[other]
            assert value == pytest.approx(matrix[i, j])
            same = clusters["cluster"][i] == clusters["cluster"][j]
            assert (cluster == clusters["cluster"][i]) if same else pd.isna(cluster)


# ---- sweep ---------------------------------------------------------------------------------------


def ticks(axes: Axes) -> dict[float, float]:
    """What the ticks say -> where they are."""
    return {
        float(label.get_text()): place for label, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
    }


def check_sweep(made: Path, shown: Mapping[str, Any], drawing: style.Drawing) -> None:
    parameters = list(dict.fromkeys(cell["parameter"] for cell in shown["cells"]))
    panels = [axes for axes in drawing.figure.axes if axes.axison]
    assert [axes.get_xlabel() for axes in panels] == [
        {"etf_weight": "λ_ETF"}.get(name, name.replace("_", " ")) for name in parameters
    ]
    for axes, parameter in zip(panels, parameters, strict=True):
        place, found = ticks(axes), series(axes)
        cells = [cell for cell in shown["cells"] if cell["parameter"] == parameter]
        assert sorted(place) == sorted({cell["x"] for cell in cells})
        assert sorted(place.values()) == [place[x] for x in sorted(place)]
        colors = {line.get_label(): line.get_color() for line in axes.lines}
        for row in shown["rows"]:
            for ratio in shown["ratios"]:
                label = f"{NAMES[row['id']]}, τ = {ratio:g}"
                own = {x: over_datasets(made, of(cells, row["id"], ratio, x=x), "H") for x in sorted(place)}
                check_band(found.pop(label), {place[x]: values for x, values in own.items()})
                same_points(marks(axes, colors[label]), [(place[x], v) for x, values in own.items() for v in values])
                for x, values in own.items():
                    written = rows(drawing, parameter=parameter, method=NAMES[row["id"]], imbalance_ratio=f"{ratio:g}",
                                   x=f"{x:g}")  # fmt: skip
                    table = written.set_index("statistic")["value"]
                    assert table["mean"] == pytest.approx(values.mean())
                    assert table["std"] == pytest.approx(values.std(ddof=1))
                    of_seeds = written[written["statistic"] == "seed"].set_index("seed")["value"]
                    pd.testing.assert_series_equal(of_seeds, values, check_names=False, check_dtype=False,
                                                   check_index_type=False)  # fmt: skip
        assert not found


@pytest.mark.parametrize("name", ["figure3", "figure5"])
def test_sweeps_show_every_seed_the_means_and_deviations(made: Path, name: str) -> None:
    shown = exhibit(made, name)
    drawing = draw(made, shown)
    check_sweep(made, shown, drawing)
    assert drawing.figure.axes[0].get_ylabel() == "H (%)\nmean ± std, n = 3 seeds"


def several_series(made: Path) -> dict[str, Any]:
    """A sweep over one hyperparameter with two methods and two ratios."""
    datasets = {2.0: "world", 4.0: "flowers", 8.0: "scripts"}
    cells = [
        cell | {"parameter": "depth_text", "x": x}
        for cell in exhibit(made, "table3")["cells"] + exhibit(made, "table2")["cells"]
        for x, dataset in datasets.items()
        if cell["dataset"] == dataset and cell["task"] == "base_to_new" and cell["row"] in ("ivlp", "cpt")
    ]
    chosen = exhibit(made, "figure5") | {"rows": [{"id": r, "label": NAMES[r], "note": None} for r in ("ivlp", "cpt")]}
    return chosen | {"cells": cells, "ratios": [1.0, 0.06], "defaults": {}}


def test_sweeps_of_several_methods_and_ratios(made: Path) -> None:
    shown = several_series(made)
    drawing = draw(made, shown)
    check_sweep(made, shown, drawing)
    assert [text.get_text() for text in drawing.figure.axes[0].get_legend().get_texts()] == [
        f"{name}, τ = {ratio}" for name in ("IVLP", "CPT") for ratio in (1, 0.06)
    ]


def test_an_unfinished_left_panel_of_a_sweep_tells_of_the_others(made: Path) -> None:
    shown = several_series(made)
    finished = [cell | {"runs": cell["runs"][:1]} for cell in shown["cells"]]
    unfinished = [cell | {"parameter": "depth_image", "dataset": "none of them"} for cell in finished]
    left, right = draw(made, shown | {"cells": unfinished + finished}).figure.axes
    assert [text.get_text() for text in left.texts] == ["no finished run"]
    assert left.get_ylabel() == "H (%)\nmean ± std, n = 1 seed"
    assert [text.get_text() for text in left.get_legend().get_texts()] == [line.get_label() for line in right.lines]


def test_dotted_lines_stand_at_the_defaults(made: Path) -> None:
    def defaults(name: str) -> list[tuple[dict[float, float], float]]:
        panels = [axes for axes in draw(made, exhibit(made, name)).figure.axes if axes.axison]
        dotted = [[line for line in axes.lines if line.get_label().startswith("_")] for axes in panels]
        assert all("default" in [text.get_text() for text in axes.texts] for axes in panels)
        return [(ticks(axes), line.get_xdata()[0]) for axes, (line,) in zip(panels, dotted, strict=True)]

    (etf, at), (compactness, by), (anchor, between) = defaults("figure3")
    assert (at, by) == (etf[0.25], compactness[0.125])
    assert between == pytest.approx(anchor[0.05] + (0.1 - 0.05) / 0.075 * (anchor[0.125] - anchor[0.05]))
    ((per_cluster, here),) = defaults("figure5")
    assert here == per_cluster[4]


# ---- violin --------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["one ratio", "two ratios"])
def test_violins_show_every_seed_the_mean_and_the_density(
    made: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(violin, "FEWEST_SEEDS", 3)
    looks = style.looks(read_results(made / "grid.json", made / "runs.parquet"))
    shown = exhibit(made, "figure4") if which == "one ratio" else several_ratios(made, "figure4")
    drawing = draw(made, shown)
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == [
        f"τ = {ratio:g}" for ratio in shown["ratios"]
    ]
    for axes, ratio in zip(drawing.figure.axes, shown["ratios"], strict=True):
        bars = {round(float(s[:, 0].mean()), 6): s for c in axes.collections if isinstance(c, LineCollection)
                for s in c.get_segments()}  # fmt: skip
        shapes = {to_hex(c.get_facecolor()[0][:3]): c for c in axes.collections if isinstance(c, PolyCollection)}
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert axes.get_xticks().tolist() == list(range(len(shown["rows"])))
        for place, row in enumerate(shown["rows"]):
            values = over_datasets(made, of(shown["cells"], row["id"], ratio), "H")
            *name, count = labels[place].split("\n")
            spaceless = "".join(name).replace(" ", ""), NAMES[row["id"]].replace(" ", "")
            assert (spaceless[0], count) == (spaceless[1], f"n = {len(values)}")
            color = looks[row["id"]].color
            points = marks(axes, color)
            assert sorted(points[:, 1]) == pytest.approx(sorted(values))
            assert all(abs(points[:, 0] - place) < 0.3)
            assert bars.pop(place)[:, 1] == pytest.approx([values.mean()] * 2)
            written = rows(drawing, method=NAMES[row["id"]], imbalance_ratio=f"{ratio:g}").set_index("statistic")[
                "value"
            ]
            assert written[["mean", "std"]].tolist() == pytest.approx([values.mean(), values.std(ddof=1)])
            if len(values) < 3:
                continue
            corners = pd.DataFrame(shapes.pop(next(c for c in shapes if alike(c, color))).get_paths()[0].vertices)
            edges = corners.groupby(1)[0].agg(["min", "max"])
            assert (edges.index.min(), edges.index.max()) == pytest.approx((values.min(), values.max()))
            np.testing.assert_allclose(edges.mean(axis=1), place, atol=1e-9)
            width = (edges["max"] - edges["min"]).to_numpy()
            density = gaussian_kde(values)(edges.index)
            np.testing.assert_allclose(width / width.max(), density / density.max(), atol=1e-3)
        assert not bars
        assert not shapes
    assert drawing.figure.axes[0].get_ylabel() == "H (%)"


def alike(one: str, other: str) -> bool:
    """Violins are drawn a little less saturated than the palette."""
    return np.abs(np.subtract(*(np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in (one, other)))).max() < 60


# ---- collapse ------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["one ratio", "two ratios"])
def test_collapse_shows_means_over_datasets_and_deviations_over_seeds(made: Path, which: str) -> None:
    shown = exhibit(made, "figure6") if which == "one ratio" else several_ratios(made, "figure6")
    curves = pd.read_parquet(made / "curves.parquet")
    drawing = draw(made, shown)
    axes = drawing.figure.axes[0]
    assert axes.get_title(loc="left") == "(a) ETF distance"
    assert axes.get_xlabel() == "epoch"
    assert axes.get_xlim()[0] == 0
    found = series(axes)
    for row in shown["rows"]:
        for ratio in shown["ratios"]:
            parts = []
            for cell in of(shown["cells"], row["id"], ratio):
                own = curves[curves["run"].isin(cell["runs"]) & (curves["measure"] == "etf_distance")]
                own = own.assign(seed=own["run"].str.rpartition("/s")[2].astype(int))
                parts.append(own.set_index(["epoch", "seed"])["value"])
            values = pd.concat(parts, axis=1, join="inner").mean(axis=1)
            label = NAMES[row["id"]] + (f", τ = {ratio:g}" if which == "two ratios" else "")
            check_band(found.pop(label), dict(iter(values.groupby("epoch"))))
            written = rows(drawing, method=NAMES[row["id"]], imbalance_ratio=f"{ratio:g}")
            written = written.set_index(["epoch", "seed"])["value"].sort_index()
            pd.testing.assert_series_equal(written, values.sort_index(), check_names=False)
    assert not found
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert legend == [line.get_label() for line in axes.lines]


def test_a_method_that_learns_nothing_is_a_level_line_where_no_image_enters(made: Path) -> None:
    rows_of = [{"id": name, "label": NAMES[name], "note": None} for name in ("zeroshot", "cpt")]
    cells = [cell for row in rows_of for cell in of(exhibit(made, "table2")["cells"], row["id"], 0.06)]
    shown = exhibit(made, "figure6") | {"rows": rows_of, "cells": cells, "measures": ["effective_rank", "alignment"]}
    drawing = draw(made, shown)
    text, image = drawing.figure.axes
    (level,) = text.lines
    expected = over_datasets(made, of(cells, "zeroshot", 0.06), "effective_rank").mean()
    assert level.get_ydata() == pytest.approx([expected, expected])
    assert level.get_label() == "Zero-shot"
    assert not image.lines
    (written,) = drawing.rows
    assert (written[:4], written[5]) == (("effective_rank", "Zero-shot", "0.06", None), pytest.approx(expected))
    assert "Dashed: methods that learn nothing, where no image enters." in drawing.note
    assert "Alignment: mean cosine" in drawing.note


# ---- reliability ---------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["one ratio", "two ratios"])
def test_reliability_marks_stand_at_confidence_and_accuracy(made: Path, which: str) -> None:
    shown = exhibit(made, "figure7") if which == "one ratio" else several_ratios(made, "figure7")
    counts = pd.read_parquet(made / "counts.parquet")
    counts = counts[counts["by"] == "confidence"]
    drawing = draw(made, shown)
    places = [(row["id"], ratio) for ratio in shown["ratios"] for row in shown["rows"]]
    panels = [axes for axes in drawing.figure.axes if axes.axison]
    for axes, letter, (row, ratio) in zip(panels, "abcdef"[: len(places)], places, strict=True):
        title = NAMES[row] + (f", τ = {ratio:g}" if which == "two ratios" else "")
        assert axes.get_title(loc="left") == f"({letter}) {title}"
        diagonal, *lines = axes.lines
        assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
        scatters = [c for c in axes.collections if isinstance(c, PathCollection)]
        said = [text.get_text() for text in axes.get_legend().get_texts()]
        for half, line, scatter, label in zip(("base", "new"), lines, scatters, said, strict=True):
            cells = of(shown["cells"], row, ratio)
            own = pd.concat(
                counts[counts["run"].isin(c["runs"]) & (counts["target"] == c["dataset"]) & (counts["subset"] == half)]
                for c in cells
            )
            own["weighted"] = own["confidence"] * own["images"]
            bins = own.groupby("index")[["images", "correct", "weighted"]].sum()
            expected = np.stack([bins["weighted"], bins["correct"]], axis=1) / bins[["images"]].to_numpy()
            np.testing.assert_allclose(scatter.get_offsets(), expected)
            np.testing.assert_allclose(line.get_xydata(), expected)
            shares = (bins["images"] / bins["images"].sum()).to_numpy()
            sizes = scatter.get_sizes()
            np.testing.assert_allclose(sizes / sizes.sum(), shares, err_msg="area tells the share of images")
            gaps = (expected[:, 0] - expected[:, 1]) * shares
            assert label == f"{half}, ECE {100 * np.abs(gaps).sum():.1f}", "of the curve that is drawn"
            written = rows(drawing, method=NAMES[row], imbalance_ratio=f"{ratio:g}", half=half)
            assert written["bin"].tolist() == bins.index.tolist()
            assert written["images"].tolist() == bins["images"].tolist()
            np.testing.assert_allclose(written[["confidence", "accuracy"]], expected)
        assert axes.get_xlim() == axes.get_ylim() == (0, 1)
    columns = min(len(places), 4)
    assert {axes.get_xlabel() for axes in drawing.figure.axes[-columns:]} == {"mean confidence"}
    assert drawing.figure.axes[0].get_ylabel() == "accuracy"


# ---- cost ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["one ratio", "two ratios"])
def test_costs_stand_against_accuracy_with_its_deviation(made: Path, which: str) -> None:
    shown = exhibit(made, "figure8") if which == "one ratio" else several_ratios(made, "figure8")
    costs = pd.read_parquet(made / "costs.parquet").set_index("run")
    drawing = draw(made, shown)
    panels = np.reshape(drawing.figure.axes, (len(shown["ratios"]), 3))
    titles = {
        "seconds": ("training time", "training of a run, s"),
        "peak_memory_mb": ("memory", "peak memory, MiB"),
        "learnable_parameters": ("learned values", "learned values"),
    }
    for line_of_panels, ratio in zip(panels, shown["ratios"], strict=True):
        assert line_of_panels[0].get_ylabel() == "H (%), mean ± std"
        for axes, (cost, (title, label)) in zip(line_of_panels, titles.items(), strict=True):
            assert axes.get_xlabel() == label
            further = f", τ = {ratio:g}" if which == "two ratios" else ""
            assert re.fullmatch(rf"\([a-f]\) {title}{further}", axes.get_title(loc="left"))
            names = {text.get_text(): text.xy for text in axes.texts}
            points = {}
            for row in shown["rows"]:
                cells = of(shown["cells"], row["id"], ratio)
                values = over_datasets(made, cells, "H")
                own = [run for cell in cells for run in cell["runs"]]
                spent = costs.loc[own, cost].to_numpy()
                if row["id"] == rough_results.STARTED[0] and cost != "learnable_parameters":
                    started = [run.replace("/cptsum/", "/ivlp/") for run in own]
                    both = np.stack([spent, costs.loc[started, cost]])
                    spent = both.sum(axis=0) if cost == "seconds" else both.max(axis=0)
                spent = np.median(spent)
                points[row["id"]] = spent, values.mean(), values.std(ddof=1)
                (written,) = rows(drawing, cost=cost, method=NAMES[row["id"]], imbalance_ratio=f"{ratio:g}").to_dict(
                    "records"
                )
                assert written["accuracy"] == pytest.approx(values.mean())
                assert written["n_seeds"] == len(values)
                if row["id"] == "zeroshot":
                    continue
                assert (written["value"], written["std"]) == pytest.approx((spent, values.std(ddof=1)))
                assert names[NAMES[row["id"]]] == pytest.approx((spent, values.mean()))
            free = points.pop("zeroshot")[1]
            paid = [spent for spent, _, _ in points.values()]
            logarithmic = max(paid) >= 3 * min(paid)
            assert axes.get_xscale() == ("log" if logarithmic else "linear")
            assert logarithmic or axes.get_xlim()[0] == 0
            flat = [line for line in axes.lines if line.get_transform() != axes.transData]
            assert [line.get_ydata()[0] for line in flat] == pytest.approx([free]), "no training, no cost"
            assert names["Zero-shot"][1] == pytest.approx(free)
            assert len(axes.containers) == len(points)
            for (mark, _, (bar,)), (spent, mean, std) in zip(axes.containers, points.values(), strict=True):
                np.testing.assert_allclose(mark.get_xydata(), [[spent, mean]])
                np.testing.assert_allclose(bar.get_segments(), [[[spent, mean - std], [spent, mean + std]]])
            best = [
                (spent, mean)
                for spent, mean, _ in sorted(points.values())
                if mean > free and all(spent < s or mean > m for s, m, _ in points.values() if (s, m) != (spent, mean))
            ]
            front = [line for line in axes.lines if line.get_color() == style.GREY and line.get_linewidth() == 0.8]
            assert front[0].get_drawstyle() == "steps-post", "nothing lies between two methods"
            np.testing.assert_allclose(np.reshape(front[0].get_xydata(), (-1, 2)), np.reshape(best, (-1, 2)))
