"""Splits: the order of operations, nesting across τ, and the contract's columns."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt.data.fewshot import sample_shots
from cpt.data.longtail import CLASS_ORDERS, parse_ratio, tail_counts
from cpt.data.manifest import Manifest
from cpt.data.split import SCHEMA, make_split, read_split, write_split
from cpt.errors import CptError
from cpt.files import stage_files as files


def pool(train, classes=10, test=2):
    """A manifest with ``train`` training images per class, a number or a list."""
    sizes = [train] * classes if isinstance(train, int) else train
    label = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), np.repeat(np.arange(len(sizes)), test)])
    part = np.repeat(["train", "test"], [sum(sizes), test * len(sizes)])
    return Manifest(
        path=np.full(len(label), "images.npy", dtype=object),
        index=np.arange(len(label)),
        label=label,
        part=part,
        class_names=[f"class {i}" for i in range(len(sizes))],
        metadata={"dataset": "toy", "content_hash": "abc"},
    )


def split(manifest, **changes):
    arguments = {"protocol": "base_to_new", "imbalance_ratio": 0.06, "n_max": 16, "seed": 1, "class_order": "label"}
    return make_split(manifest, **(arguments | changes))


def test_columns_and_metadata_are_those_of_the_contract():
    table, metadata = split(pool(32))
    assert {name: str(table.schema.field(name).type) for name in table.column_names} == dict.fromkeys(
        ["row", "label", "original_label", "rank", "count"], "int64"
    )
    assert metadata["classes"] == [f"class {i}" for i in range(5)]
    assert metadata["new_classes"] == [f"class {i}" for i in range(5, 10)]
    assert (metadata["dataset"], metadata["protocol"], metadata["manifest_hash"]) == ("toy", "base_to_new", "abc")
    assert (metadata["imbalance_ratio"], metadata["n_max"], metadata["seed"]) == (0.06, 16, 1)
    assert len(metadata["split_hash"]) == 64


@pytest.mark.parametrize(("ratio", "counts"), [(1, [16] * 5), (0.25, [16, 11, 8, 5, 4]), (0.06, [16, 7, 3, 1, 1])])
def test_five_base_classes(ratio, counts):
    table, _ = split(pool(32), imbalance_ratio=ratio)
    assert np.bincount(table["label"]).tolist() == counts
    assert sorted(set(zip(table["rank"].to_pylist(), table["count"].to_pylist(), strict=True))) == list(
        enumerate(counts)
    )


def test_natural_is_all_that_there_is(tmp_path):
    sizes = [3, 130, 20, 40, 7, 9]
    table, metadata = split(pool(sizes), imbalance_ratio="natural", protocol="few_shot", class_order="random")
    assert np.bincount(table["label"]).tolist() == sizes
    assert table["row"].to_pylist() == list(range(sum(sizes)))
    write_split(tmp_path / "s.parquet", table, metadata)
    read = read_split(tmp_path / "s.parquet")
    assert read.counts.tolist() == sizes
    assert read.ranks.tolist() == [5, 0, 2, 1, 4, 3], "most images first"
    found = {key: read.metadata[key] for key in ("imbalance_ratio", "n_max", "class_order")}
    assert found == {"imbalance_ratio": "natural", "n_max": 130, "class_order": "appearance"}
    assert split(pool(sizes), imbalance_ratio="natural", protocol="few_shot", seed=2)[0] == table, "for every seed"
    base, _ = split(pool(sizes), imbalance_ratio="natural")
    assert np.bincount(base["label"]).tolist() == sizes[:3]


def test_ratios_of_the_command_line():
    assert [parse_ratio("natural"), parse_ratio("0.06")] == ["natural", 0.06]
    with pytest.raises(CptError, match="--ratio naturl: must be a number"):
        parse_ratio("naturl")


@pytest.mark.parametrize("protocol", ["all_classes", "few_shot"])
def test_other_protocols_train_on_all_classes(protocol):
    table, metadata = split(pool(32), protocol=protocol, imbalance_ratio=1.0)
    assert np.bincount(table["original_label"]).tolist() == [16] * 10
    assert metadata["classes"] == [f"class {i}" for i in range(10)]
    assert metadata["new_classes"] == []


def test_shots_are_the_published_draw_for_all_classes():
    manifest = pool(32)
    drawn = sample_shots(manifest.label[manifest.rows("train")], 16, seed=3)
    for protocol, last in (("base_to_new", 5), ("all_classes", 10)):
        table, _ = split(manifest, protocol=protocol, imbalance_ratio=1.0, seed=3)
        assert table["row"].to_pylist() == sorted(drawn[manifest.label[drawn] < last].tolist())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shots_are_drawn_for_all_classes_before_the_base_half_is_cut_out(seed):
    """In a list that is not sorted: the rule of Dassl and CoOp written down once more."""
    generator = random.Random(7)
    order = list(range(6 * 20))
    generator.shuffle(order)
    labels = [item // 20 for item in order]
    manifest = pool([20] * 6)
    shuffled = np.concatenate([order, np.arange(120, len(manifest.label))])
    manifest = replace(manifest, label=manifest.label[shuffled])
    assert labels[0] > 2, "a new class comes first and uses the generator up"
    by_label: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        by_label.setdefault(label, []).append(row)
    draw = random.Random(seed)
    shots = [row for rows in by_label.values() for row in draw.sample(rows, 16)]
    table, _ = split(manifest, imbalance_ratio=1.0, seed=seed)
    assert sorted(table["row"].to_pylist()) == sorted(row for row in shots if labels[row] < 3)


def test_classes_with_few_images_keep_what_they_have():
    table, _ = split(pool([32, 5, 32, 2]), protocol="all_classes", imbalance_ratio=0.25)
    assert np.bincount(table["label"]).tolist() == [16, 5, 6, 2]
    assert table["count"].to_pylist() == [16] * 16 + [5] * 5 + [6] * 6 + [2] * 2


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=2, max_size=12),
    seed=st.integers(0, 3),
    protocol=st.sampled_from(["base_to_new", "all_classes"]),
    order=st.sampled_from(CLASS_ORDERS),
    ratios=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_splits_are_nested_and_consistent(sizes, seed, protocol, order, ratios):
    manifest = pool(sizes)
    small, large = (
        split(manifest, seed=seed, protocol=protocol, class_order=order, imbalance_ratio=ratio)[0]
        for ratio in sorted(ratios)
    )
    assert set(small["row"].to_pylist()) <= set(large["row"].to_pylist())
    assert len(set(large["row"].to_pylist())) == len(large)
    row, label = large["row"].to_numpy(), large["label"].to_numpy()
    assert (manifest.part[row] == "train").all()
    assert (manifest.label[row] == large["original_label"].to_numpy()).all()
    assert (np.diff(label) >= 0).all()
    assert sorted(set(label)) == list(range(len(set(label))))
    assert (np.bincount(label)[label] == large["count"].to_numpy()).all()
    bound = tail_counts(len(set(label)), 16, max(ratios))[large["rank"].to_numpy()]
    assert (large["count"].to_numpy() <= bound).all()


def test_split_hash_follows_the_content():
    manifest = pool(32)
    first = split(manifest)[1]["split_hash"]
    assert split(manifest)[1]["split_hash"] == first
    assert split(manifest, seed=2)[1]["split_hash"] != first
    assert split(manifest, class_order="random")[1]["split_hash"] != first
    assert split(manifest, imbalance_ratio=0.25)[1]["split_hash"] != first
    other = pool(32)
    other.metadata["content_hash"] = "def"
    assert split(other)[1]["split_hash"] != first


def test_written_splits_are_read_back(tmp_path):
    table, metadata = split(pool(32), class_order="random")
    path = tmp_path / "r0.06" / "s1.parquet"
    write_split(path, table, metadata)
    found = read_split(path)
    assert found.rows.tolist() == table["row"].to_pylist()
    assert found.labels.tolist() == table["label"].to_pylist()
    assert sorted(found.ranks.tolist()) == [0, 1, 2, 3, 4]
    assert found.counts.tolist() == tail_counts(5, 16, 0.06)[found.ranks].tolist()
    assert (found.classes, found.new_classes) == (metadata["classes"], metadata["new_classes"])
    assert found.metadata["split_hash"] == metadata["split_hash"]
    first = path.read_bytes()
    write_split(path, *split(pool(32), class_order="random"))
    assert path.read_bytes() == first
    with pytest.raises(CptError, match=rf"expected a file of schema cpt.other/1, found {SCHEMA}"):
        files.read_parquet(path, "cpt.other/1")


def test_base_to_new_needs_two_classes():
    with pytest.raises(CptError, match="toy: has one class, and base_to_new needs two; add one or delete it from base"):
        split(pool([4]))
    table, metadata = split(pool([4]), protocol="all_classes")
    assert (len(table), metadata["classes"]) == (4, ["class 0"])


@pytest.mark.parametrize(("half", "tested"), [("new", [0, 1]), ("base", [2, 3])])
def test_base_to_new_needs_test_images_in_both_halves(half, tested):
    manifest = pool([4] * 4)
    keep = (manifest.part == "train") | np.isin(manifest.label, tested)
    columns = {name: getattr(manifest, name)[keep] for name in ("path", "index", "label", "part")}
    with pytest.raises(CptError, match=f"toy: no {half} class has a test image, and base_to_new tests both halves"):
        split(replace(manifest, **columns))
    assert len(split(replace(manifest, **columns), protocol="all_classes")[0])
    one = keep | (np.arange(len(keep)) == np.flatnonzero(~keep)[0])
    columns = {name: getattr(manifest, name)[one] for name in columns}
    assert len(split(replace(manifest, **columns))[0]), "one image is enough"


def test_a_trained_class_needs_images():
    with pytest.raises(CptError, match="toy: class 'class 1' has no training image"):
        split(pool([4, 0, 4, 0]))
    table, _ = split(pool([4, 4, 4, 0]))  # a new class needs none
    assert sorted(set(table["label"].to_pylist())) == [0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "base2new"}, "protocol: unknown 'base2new'; did you mean 'base_to_new'"),
        ({"imbalance_ratio": 0.0}, "imbalance_ratio: 0.0 is outside"),
        ({"n_max": 0}, "n_max: 0 is below 1"),
        ({"class_order": "labels"}, "class_order: unknown 'labels'; did you mean 'label'"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(CptError, match=message):
        split(pool(4), **changes)
