"""Rules that hold for every input: files, paths, configuration. (Splits, archives, losses have theirs beside them.)"""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cpt.errors import CptError
from cpt.experiment.config import load, parse
from cpt.files import paths
from cpt.files.stage_files import read_json, read_parquet, read_tensors, write_json, write_parquet, write_tensors
from cpt.report import shown
from cpt.report.formats import html, md, tex
from cpt.results import stats

CONFIG = load([Path("config/config.yaml")])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"], include_characters="_-"), min_size=1, max_size=12)
few = settings(max_examples=40)


@few
@given(JSON)
def test_json_comes_back(value: object) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        write_json(path, {"schema": "a/1", "value": value})
        assert read_json(path, "a/1")["value"] == value
        first = path.read_bytes()
        write_json(path, {"value": value, "schema": "a/1"})
        assert path.read_bytes() == first
        with pytest.raises(CptError, match="a/2"):
            read_json(path, "a/2")


@few
@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats(), TEXT), max_size=20), JSON)
def test_parquet_comes_back_and_has_one_form(rows: list, extra: object) -> None:
    schema = pa.schema({"i": pa.int64(), "x": pa.float64(), "s": pa.string()})
    table = pa.Table.from_pylist([dict(zip("ixs", row, strict=True)) for row in rows], schema=schema)
    with TemporaryDirectory() as folder:
        one, two = Path(folder) / "1.parquet", Path(folder) / "2.parquet"
        for path in (one, two):
            write_parquet(path, table, "a/1", extra=extra)
        found, metadata = read_parquet(one, "a/1")
        assert metadata == {"schema": "a/1", "extra": extra}
        for name in "ixs":
            np.testing.assert_array_equal(found[name].to_numpy(), table[name].to_numpy())
        assert one.read_bytes() == two.read_bytes()


@few
@given(st.dictionaries(NAMES, st.lists(st.floats(width=32, allow_nan=False), max_size=6), min_size=1, max_size=4))
def test_tensors_come_back(values: dict[str, list[float]]) -> None:
    tensors = {name: torch.tensor(numbers) for name, numbers in values.items()}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        write_tensors(path, tensors, "a/1")
        found, _ = read_tensors(path, "a/1")
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@given(NAMES, NAMES, st.floats(1e-3, 1), st.integers(0, 10**6))
def test_paths_stay_inside_and_differ(dataset: str, other: str, ratio: float, seed: int) -> None:
    """Whatever a dataset may be called, its files lie below the results folder, and no two share one."""
    made = [
        paths.manifest(dataset),
        paths.pixels(dataset, "test"),
        paths.split("base_to_new", dataset, ratio, seed),
        paths.text_features(dataset, other),
        paths.run("few_shot", dataset, ratio, f"cpt-{other}", seed),
        paths.clusters("few_shot", dataset, other, seed),
    ]
    root = Path("/results")
    assert all((root / path).resolve().is_relative_to(root / path.split("/")[0]) for path in made)
    assert len(set(made)) == len(made)
    if dataset != other:
        assert paths.manifest(dataset) != paths.manifest(other)


@few
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seeds": st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
            "n_max": st.integers(1, 32),
            "imbalance_ratios": st.lists(st.sampled_from([1.0, 0.5, 0.25, 0.06]), min_size=1, unique=True),
            "threads": st.integers(1, 8),
            "checkpoint_interval": st.floats(0, 1e4),
            "class_order": st.sampled_from(["label", "random", "appearance"]),
        },
    )
)
def test_a_valid_configuration_comes_back(changes: dict) -> None:
    values = CONFIG.model_dump(exclude_none=True) | changes
    parsed = parse(values, "a.yaml")
    assert parse(parsed.model_dump(exclude_none=True), "a.yaml") == parsed
    assert all(getattr(parsed, name) == value for name, value in changes.items())


@few
@given(NAMES.filter(lambda name: name not in CONFIG.model_dump()), JSON.filter(lambda value: value is not None))
def test_an_unknown_key_is_named(name: str, value: object) -> None:
    with pytest.raises(CptError, match=rf"a\.yaml: {name}: unknown key"):
        parse(CONFIG.model_dump(exclude_none=True) | {name: value}, "a.yaml")


class Cells(HTMLParser):
    """Text of every table cell; whatever else is in one of them is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.others: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in ("td", "th"):
            self.texts.append("")
            self.inside = True
        elif self.inside:
            self.others.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data


SPECIAL = st.sampled_from(r"\`*_[]<>|#~&$;{}!()% ")
PRINTED = st.text(st.characters(exclude_categories=["C", "Z"]) | SPECIAL, max_size=24)
WORDS = PRINTED.map(lambda text: " ".join(text.split())).filter(bool)


@few
@given(WORDS, WORDS)
def test_a_label_stays_what_it_is_in_a_table(label: str, title: str) -> None:
    """As Markdown read by markdown-it and as HTML read by Python's parser: the same text, no element more."""
    line = shown.Line(label, None, [shown.Shown("1.00")])
    table = shown.Table("e", "t", "Table 1", "t", "", "", "row", [shown.Column(title)], [shown.Block("", [line])])
    rendered = MarkdownIt("commonmark").enable("table").render(md.write(table))
    for text in (rendered, html.write(table)):
        cells = Cells()
        cells.feed(text)
        assert [" ".join(cell.split()) for cell in cells.texts] == ["row", title, label, "1.00"]
        assert not cells.others
    rows = tex.write(table).splitlines()
    assert not any(row.startswith(("[", "*")) for row in rows), "an argument of the line before"
    rule = rows.index(r"\midrule")
    lines = rows[rule + 1] + rows[rule - 1]
    plain = re.sub(r"\\[&%$#_{}]|\\text\w+\{\}|\\ldots\{\}|\$\\?\S+?\$|\{[][*]\}", "", lines)
    assert re.fullmatch(r"[^\\{}$#%^_&~]*&[^\\{}$#%^_&~]*\\\\[^\\{}$#%^_&~]*&[^\\{}$#%^_&~]*\\\\", plain), plain


NUMBERS = st.lists(st.floats(0, 100), min_size=2, max_size=12)


@given(NUMBERS, st.floats(-50, 50), st.randoms())
def test_an_interval_moves_with_its_values(values: list[float], shift: float, random: object) -> None:
    interval = stats.t_interval(values)
    assert interval.low <= np.mean(values) <= interval.high or math.isclose(interval.low, interval.high)
    moved = stats.t_interval([value + shift for value in values])
    np.testing.assert_allclose([moved.low, moved.high], [interval.low + shift, interval.high + shift], atol=1e-6)
    shuffled = list(values)
    random.shuffle(shuffled)
    np.testing.assert_allclose(stats.t_interval(shuffled), interval, atol=1e-9)


@few
@given(st.lists(st.floats(-5, 5).filter(lambda x: abs(x) > 1e-3), min_size=2, max_size=10))
def test_a_sign_flip_test_is_symmetric(differences: list[float]) -> None:
    def p(values: list[float]) -> float:
        return stats.sign_flip_test(values, np.random.default_rng(0))

    assert 0 < p(differences) <= 1
    assert p(differences) == pytest.approx(p([-each for each in differences]), abs=0.02)
    assert p([abs(each) for each in differences]) <= p(differences) + 0.02


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_corrects_upwards_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = stats.holm(p_values)
    assert np.all(corrected >= np.array(p_values) - 1e-12)
    assert np.all(corrected <= 1)
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(corrected[order]) >= -1e-12)
    assert corrected[order[0]] == pytest.approx(min(1, len(p_values) * min(p_values)))
