"""Numbers in the documents are those of docs/results; ``docs/write_numbers.py`` writes them and finds what drifted."""

from __future__ import annotations

import functools
import itertools
import json
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.stats

from cpt.experiment import config, grid
from cpt.files.paths import RUNS
from cpt.files.stage_files import read_parquet, write_parquet
from cpt.methods.base import registry
from cpt.methods.cpt import CPTHyperparameters
from docs import kept

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.no_cover


@pytest.fixture(scope="module")
def command() -> dict:
    """The command's names; every number is computed once for all tests."""
    found = runpy.run_path(str(ROOT / "docs/write_numbers.py"))
    found["NUMBERS"].update({name: functools.cache(number) for name, number in found["NUMBERS"].items()})
    return found


PLANNED = {"plan_jobs", "plan_steps", "plan_hours", "plan_pixels", "plan_runs", "zeroshot_downloads"}
"""Numbers of the plan of whole grids, which takes most of the check's time."""


def test_documents_say_what_was_measured(command: dict) -> None:
    for document in command["documents"]():
        for _, name, text, _ in command["PLACE"].findall(document.read_text(encoding="utf-8")):
            assert name in PLANNED or text == command["NUMBERS"][name](), f"{document}: run docs/write_numbers.py"


@pytest.mark.slow
def test_the_check_finds_nothing(command: dict, capsys: pytest.CaptureFixture) -> None:
    """Planned numbers included."""
    assert command["main"](["--check"]) == 0, capsys.readouterr().out


def test_a_changed_number_is_found_and_fixed(command: dict, tmp_path: Path) -> None:
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
    found = set()
    for path in command["documents"]():
        begin, place = ("<!-- =", "PLACE") if path.suffix == ".md" else ("# =", "LINES")
        text = path.read_text(encoding="utf-8")
        assert len(re.findall(begin, text)) == len(command[place].findall(text)), path
        found |= {names[1] for names in command[place].findall(text)}
    assert found == set(command["NUMBERS"])


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


# ---- an oracle of its own: pandas, itertools and scipy instead of the report's code ------------------------------


@functools.cache
def runs_of(experiment: str) -> pd.DataFrame:
    """The kept rows after training, with hyperparameters as columns."""
    frame = pd.read_parquet(ROOT / f"docs/results/{experiment}.parquet")
    frame = frame[frame["epoch"].isna()].reset_index(drop=True)
    texts = frame["hyperparameters"].drop_duplicates().reset_index(drop=True)
    columns = pd.json_normalize(texts.map(json.loads).tolist())
    return frame.merge(columns.assign(hyperparameters=texts), on="hyperparameters", validate="many_to_one")


def of_h(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that hold H."""
    return frame[(frame["subset"] == "base+new") & (frame["metric"] == "harmonic_mean")]


def h_by_dataset(frame: pd.DataFrame, seeds: list[int], **wanted: object) -> pd.Series:
    """H per dataset, mean over the seeds of the only run that has these hyperparameters."""
    chosen = of_h(frame[frame["seed"].isin(seeds)])
    for name, value in wanted.items():
        chosen = chosen[chosen[name] == value]
    counts = chosen.groupby(["dataset", "seed"]).size()
    assert (counts == 1).all(), counts[counts > 1]
    assert set(chosen["seed"]) == set(seeds)
    return chosen.groupby("dataset")["value"].mean()


def exact_p(values: list[float]) -> float:
    """All 2^n sign flips of the datasets' differences, two-sided."""
    flipped = [abs(np.dot(signs, values)) for signs in itertools.product((-1, 1), repeat=len(values))]
    return float(np.mean(np.array(flipped) >= abs(np.sum(values)) * (1 - 1e-12)))


def holm_by_hand(p_values: list[float]) -> list[float]:
    """Step down: the smallest times m, the next times m - 1, never falling."""
    adjusted, largest = dict.fromkeys(range(len(p_values)), 0.0), 0.0
    for rank, index in enumerate(sorted(adjusted, key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return list(adjusted.values())


def lines_of(text: str) -> list[list[str]]:
    """Cells of the lines of a Markdown table, without its head."""
    rows = [line.strip("|").split("|") for line in text.strip().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def expected_line(values: list[float]) -> list[str]:
    """Mean, interval and number of wins of one difference per dataset, as the documents print them."""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
    low, high = np.mean(values) - half, np.mean(values) + half
    return [f"{np.mean(values):+.2f}", f"{low:+.2f} to {high:+.2f}", f"{np.sum(np.array(values) > 0)} of {len(values)}"]


CPT_AS_IN_TABLES = {"method": "cpt", "cc_weight": 0.15, "rs_weight": 0.1, "tetf_weight": 0.25}
READINGS = {
    "printed": ("sum", "raw"),
    "pairs_unit": ("pairs", "unit"),
    "pairs_raw": ("pairs", "raw"),
    "sum_unit": ("sum", "unit"),
}


@pytest.fixture(scope="module")
def readings() -> dict[str, list[float]]:
    """Candidate -> its H minus the printed reading's, per dataset."""
    frame = runs_of("pilot")
    h = {
        row: sum(
            h_by_dataset(
                frame, [1, 2, 3, 4, 5], imbalance_ratio=ratio, tetf_reading=tetf, rs_features=rs, **CPT_AS_IN_TABLES
            )
            for ratio in (0.25, 0.06)
        )
        / 2
        for row, (tetf, rs) in READINGS.items()
    }
    assert len(h["printed"]) == 11
    return {row: (h[row] - h["printed"]).tolist() for row in READINGS if row != "printed"}


def test_the_pilots_test_is_computed_another_way(command: dict, readings: dict[str, list[float]]) -> None:
    found = lines_of(command["NUMBERS"]["pilot_differences"]())
    p_values = [exact_p(values) for values in readings.values()]
    corrected = holm_by_hand(p_values)
    for line, values, p, adjusted in zip(found, readings.values(), p_values, corrected, strict=True):
        assert line[1:] == [*expected_line(values), f"{p:.3f}", f"{adjusted:.3f}"]


def test_the_default_reading_is_what_the_rule_chose(readings: dict[str, list[float]]) -> None:
    corrected = holm_by_hand([exact_p(values) for values in readings.values()])
    means = {row: float(np.mean(values)) for row, values in readings.items()}
    better = [row for row, p in zip(readings, corrected, strict=True) if means[row] > 0 and p < 0.05]
    default = CPTHyperparameters()
    assert (default.tetf_reading, default.rs_features) == READINGS[
        max(better, key=lambda row: means[row], default="printed")
    ]


def test_learning_rates_and_epochs_are_what_the_procedure_chose(command: dict) -> None:
    frame = of_h(runs_of("effort"))
    frame = frame[~((frame["method"] == "promptsrc") & ~frame["average_mean"].eq(0.75 * frame["epochs"]))]
    assert set(frame["method"]) == {
        m for m in registry.built_in() if registry.get(m).trains and not registry.get(m).control
    } - {"cpt"}
    text, chosen = lines_of(command["NUMBERS"]["effort"]()), {}
    for method, tried in frame.groupby("method"):
        by_setting = tried.pivot_table(index="dataset", columns=["epochs", "learning_rate"], values="value")
        assert by_setting.shape == (11, 8)
        assert not by_setting.isna().any().any()
        means = by_setting.mean()
        best = means.idxmax()
        behind = by_setting.rsub(by_setting[best], axis=0)
        close = behind.mean() <= behind.std(ddof=1) / np.sqrt(11)
        fewest = min(epochs for epochs, _ in close.index[close])
        among = means[[setting for setting in close.index[close] if setting[0] == fewest]]
        chosen[method] = among.idxmax()
        line = next(line for line in text if line[0].endswith(f"(`{method}`)"))
        assert line[1:] == [
            str(len(means)), f"{best[0]:g}, {best[1]:g}", f"{means[best]:.2f}",
            f"{chosen[method][0]:g}, {chosen[method][1]:g}", line[5], f"{among.max():.2f}",
        ]  # fmt: skip
        published = sorted(rate for _, rate in means.index)[0]
        assert float(line[5]) == pytest.approx(chosen[method][1] / published)
    chosen["cpt"] = chosen["ivlp"]
    built = grid.build(LARGE, "embedded_full")
    assert chosen.keys() <= {run.method for run in built.runs.values()}
    for run in built.runs.values():
        if (
            run.method in chosen
            and run.protocol == "base_to_new"
            and not run.hyperparameters.snapshots
            and run.hyperparameters.epochs
        ):
            hp = run.hyperparameters
            assert (hp.epochs, hp.learning_rate) == chosen[run.method], run.id


CPT_ROW = CPT_AS_IN_TABLES | {"classes_per_cluster": 4, "clustering": "spherical"}
SWITCHES = ("prior", "loss", "reweight", "reweight_after", "sampler", "snapshots")
LARGE = config.load([ROOT / "config/embedded_full.yaml"])
VARIANTS = LARGE.variants


def test_tip_adapters_constants_are_what_validation_images_chose(command: dict) -> None:
    frame = of_h(runs_of("tip_adapter"))
    text = {(line[0], *line[1:3]): line[3:] for line in lines_of(command["NUMBERS"]["effort_caches"]())}
    built = grid.build(LARGE, "embedded_full")
    cells = built.exhibits["table10"]["cells"]
    frame = frame[frame["method"] == "tip_adapter"].assign(mean=lambda found: found["mean_values"].eq(True))
    for mean, row in ((False, "tip_adapter"), (True, "tip_adapter_mean")):
        own = frame[frame["mean"] == mean]
        by_setting = own.pivot_table(index="dataset", columns=["imbalance_ratio", "alpha", "beta"], values="value")
        assert by_setting.shape == (11, 16)
        assert not by_setting.isna().any().any()
        means = by_setting.mean()
        for alpha, beta in means[0.06].index:
            shown = text["mean" if mean else "sum, as published", f"{alpha:g}", f"{beta:g}"]
            assert shown == [f"{means[ratio, alpha, beta]:.2f}" for ratio in (1.0, 0.06)]
        for run in {run for cell in cells if cell["row"] == row for run in cell["runs"]}:
            hp = built.runs[run].hyperparameters
            assert (hp.mean_values, hp.alpha, hp.beta) == (mean, *means[0.06].idxmax())


def is_control(row: str) -> bool:
    return VARIANTS[row].control or registry.get(VARIANTS[row].method).control


def row_of(frame: pd.DataFrame, row: str, ratio: float, seeds: list[int]) -> pd.Series:
    """H per dataset of a row of Table 2: of the runs with the values that tell its method's variants apart."""
    variant = VARIANTS[row]
    fields = registry.get(variant.method).hyperparameters.model_fields
    names = {name for other in VARIANTS.values() if other.method == variant.method for name in other.set} | {*SWITCHES}
    wanted = {name: fields[name].default for name in names - {"epochs"} if name in fields}
    for rule in LARGE.overrides:
        if variant.method in (rule.methods or ()) and not rule.protocols:
            wanted |= {name: value for name, value in rule.set.items() if name in wanted}
    frame = of_h(frame[frame["method"] == variant.method])
    if variant.method == "cpt":
        printed = READINGS["printed"] if CPTHyperparameters().tetf_reading == "sum" else READINGS["pairs_unit"]
        wanted |= CPT_ROW | {"tetf_reading": printed[0], "rs_features": printed[1]}
        frame = frame[frame["clusters"].isna()]
    wanted |= variant.set
    for name in wanted.keys() & {*frame.columns}:  # a record leaves some defaults out
        default = fields[name].default if name in fields else None
        frame = frame.assign(**{name: [default if pd.isna(value) else value for value in frame[name]]})
    wanted = {name: value for name, value in wanted.items() if name in frame.columns and value is not None}
    if frame["seed"].eq(0).all():  # nothing is drawn
        return h_by_dataset(frame, [0], **wanted)
    return h_by_dataset(frame, seeds, imbalance_ratio=ratio, **wanted)


FULL, EVERY = (
    [row for row in LARGE.exhibits[table].variants if row != "cpt" and not is_control(row)]
    for table in ("table2", "table10")
)


@pytest.mark.parametrize(
    ("name", "experiment", "rows", "ratios", "seeds"),
    [
        ("embedded_differences", "embedded", ["zeroshot", "coop", "ivlp"], [1.0, 0.06], [1, 2]),
        ("full_differences", "embedded_full", FULL, [1.0, 0.25, 0.06], [1, 2, 3]),
        ("every_differences", "embedded_full", EVERY, [0.06], [1, 2, 3]),
    ],
)
def test_differences_are_computed_another_way(
    command: dict, name: str, experiment: str, rows: list[str], ratios: list[float], seeds: list[int]
) -> None:
    frame = runs_of(experiment)
    text = iter(lines_of(command["NUMBERS"][name]()))
    for ratio in ratios:
        cpt = row_of(frame, "cpt", ratio, seeds)
        values = [(row_of(frame, row, ratio, seeds) - cpt)[cpt.index].tolist() for row in rows]
        p_values = [exact_p(own) for own in values]
        for own, p, adjusted in zip(values, p_values, holm_by_hand(p_values), strict=True):  # over the rows of a τ
            line = next(text)
            assert [line[0], *line[2:]] == [f"{ratio:g}", *expected_line(own), f"{p:.3f}", f"{adjusted:.3f}"]
    assert next(text, None) is None


@pytest.mark.parametrize("rows", ["full", "every"])
def test_rows_beyond_the_test_are_those_of_the_table(command: dict, rows: str) -> None:
    """Of the differences above, those whose corrected p is below 0.05, on the side of their sign."""
    expected: dict[tuple[str, str], list[str]] = {}
    for ratio, name, mean, interval, _, _, corrected in lines_of(command["NUMBERS"][f"{rows}_differences"]()):
        if float(corrected) < 0.05:
            side = "above" if float(mean) > 0 else "below"
            expected.setdefault((ratio, side), []).append(f"{name} ({mean}, {interval}, p {corrected})")
    for line in command["NUMBERS"][f"{rows}_beyond"]().strip().splitlines():
        ratio, above, below = re.fullmatch(r"- τ = ([\d.]+): above CPT: (.*); below CPT: (.*)\.", line).groups()
        for side, text in (("above", above), ("below", below)):
            assert text == (", ".join(expected.pop((ratio, side), [])) or "none")
    assert not expected


REMEDIES = ("la", "cb", "grw", "focal", "ldam", "ldam_drw", "lade", "balanced")


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("full_prior", [(ratio, f"{m}_la", m) for ratio in (1.0, 0.25, 0.06) for m in ("ivlp", "cpt")]),
        ("remedies", [(0.06, f"{m}_{remedy}", m) for m in ("coop", "ivlp", "cpt") for remedy in REMEDIES]),
    ],
)
def test_what_remedies_change_is_computed_another_way(command: dict, name: str, pairs: list) -> None:
    frame, seeds, values = runs_of("embedded_full"), [1, 2, 3], []
    for ratio, *rows in pairs:
        one, other = (row_of(frame, row, ratio, seeds) for row in rows)
        values.append((one - other)[other.index].tolist())
    p_values = [exact_p(own) for own in values]
    lines = lines_of(command["NUMBERS"][name]())
    for line, (ratio, *_), own, p, adjusted in zip(lines, pairs, values, p_values, holm_by_hand(p_values), strict=True):
        assert [line[0], *line[2:]] == [f"{ratio:g}", *expected_line(own), f"{p:.3f}", f"{adjusted:.3f}"]


def test_profiles_average_over_datasets_first(command: dict) -> None:
    frame = runs_of("embedded")
    frame = frame[(frame["protocol"] == "base_to_new") & (frame["subset"] == "base")]
    text = {
        line[0]: [float(cell) for cell in line[1:4]] for line in lines_of(command["NUMBERS"]["embedded_profiles"]())
    }
    for title, method in (("CoOp", "coop"), ("IVLP", "ivlp")):
        own = frame[(frame["method"] == method) & (frame["imbalance_ratio"] == 0.06) & frame["seed"].isin([1, 2])]
        own = own[own["target"] == own["dataset"]]
        for place, group in enumerate(("head", "medium", "tail")):
            by_dataset = own[own["metric"] == f"{group}_accuracy"].groupby("dataset")["value"].mean()
            assert text[title][place] == pytest.approx(by_dataset.mean(), abs=0.005), (title, group)


def test_a_dataset_with_more_seeds_weighs_no_more() -> None:
    first = {"easy": {1: 90.0, 2: 92.0, 3: 94.0}, "hard": {1: 10.0}}
    second = {"easy": {1: 89.0}, "hard": {1: 13.0, 2: 50.0}}
    assert kept.differences(first, second) == [1.0, -3.0], "over the seed that both have on both"
    assert kept.differences(first, {"easy": {0: 91.0}, "hard": {0: 5.0}}) == [-1.0, 5.0], "an untrained row has one run"
    assert kept.differences({"easy": {0: 91.0}}, {"easy": first["easy"]}) == [-1.0]
    with pytest.raises(Exception, match="no seed that both rows have on all datasets"):
        kept.differences(first, {"easy": {1: 0.0}, "hard": {2: 0.0}})


def test_modeled_hours_add_up(command: dict) -> None:
    """Stages to their sum, and the sum to hours on several GPUs, within what rounding leaves."""
    *stages, total = ([float(cell) for cell in line[1:]] for line in lines_of(command["NUMBERS"]["plan_stages"]()))
    assert [sum(column) for column in zip(*stages, strict=True)] == pytest.approx(total, abs=0.1)
    gpu, _, alone = total
    reports = stages[-1][2]
    for cards, runs, cores, found in lines_of(command["NUMBERS"]["plan_schedule"]()):
        count, together = int(cards), int(runs)
        least = gpu / count / (1 if together == 1 else 0.9)
        assert float(found) == pytest.approx(max(least, (alone - reports) / count / together) + reports, abs=0.1)
        assert int(cores) == 4 * together


def test_modeled_steps_are_never_slower_as_graphs_or_with_fewer_classes(command: dict) -> None:
    for _, _, *cells in lines_of(command["NUMBERS"]["plan_gpu_steps"]()):
        eager, graph = zip(*([float(ms) for ms in cell.split(" / ")] for cell in cells), strict=True)
        assert all(one >= other for one, other in zip(eager, graph, strict=True))
        assert list(graph) == sorted(graph)
