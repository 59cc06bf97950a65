"""The catalog: the shipped file, defaults, and one-line errors."""

from pathlib import Path

import pytest

from cpt.data import world
from cpt.data.catalog import find, load_catalog
from cpt.errors import CptError

SHIPPED = load_catalog(Path(__file__).parents[1] / "config" / "datasets.yaml")


def load(tmp_path, text):
    path = tmp_path / "datasets.yaml"
    path.write_text(text, encoding="utf-8")
    return load_catalog(path)


def test_the_shipped_catalog_holds_the_embedded_world():
    assert set(SHIPPED) == set(world.KEYS)
    for name, entry in SHIPPED.items():
        assert entry.layout == "embedded"
        assert (entry.shift_of == "world") == (name in world.SHIFTS)
        assert (entry.per_class.train, entry.per_class.test) == (32, 20 if entry.shift_of else 60)


def test_counterparts_are_the_datasets_of_the_paper():
    assert [entry.counterpart for entry in SHIPPED.values() if not entry.shift_of] == [
        "ImageNet",
        "Caltech101",
        "OxfordPets",
        "StanfordCars",
        "Flowers102",
        "Food101",
        "FGVCAircraft",
        "SUN397",
        "DTD",
        "EuroSAT",
        "UCF101",
    ]
    shifts = {entry.counterpart for entry in SHIPPED.values() if entry.shift_of}
    assert shifts == {"ImageNetV2", "ImageNet-Sketch", "ImageNet-A", "ImageNet-R"}


def test_defaults(tmp_path):
    entry = load(tmp_path, "mine: {title: Mine, layout: folders, root: photos}")["mine"]
    assert (entry.name, entry.template, entry.counterpart) == ("mine", "a photo of a {}.", None)
    assert (entry.class_names, entry.shift_of, entry.key) == (None, None, None)


def test_a_template_of_its_own(tmp_path):
    text = 'pets: {title: Pets, layout: folders, root: pets, template: "a photo of a {}, a type of pet."}'
    assert load(tmp_path, text)["pets"].template == "a photo of a {}, a type of pet."


def test_a_shift_takes_the_class_names_of_its_source(tmp_path):
    catalog = load(
        tmp_path,
        """
        source: {title: S, layout: folders, root: s, class_names: {n01: tench, n02: goldfish}}
        shift: {title: T, layout: folders, root: t, shift_of: source}
        own: {title: O, layout: folders, root: o, shift_of: source, class_names: [tench]}
        """,
    )
    assert catalog["shift"].class_names == {"n01": "tench", "n02": "goldfish"}
    assert catalog["own"].class_names == ["tench"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {title: A, layout: embedded, tmplate: x}", "a.tmplate: unknown key; did you mean 'template'"),
        ("a: {title: A, layout: embedded, per_class: {tran: 3}}", "a.per_class.tran: unknown key; .*'train'"),
        ("a: {title: A, layout: embeded}", "a.layout: 'embeded' is no layout; did you mean 'embedded'"),
        ("a: {layout: embedded}", "a.title: missing"),
        ("a: {title: 3, layout: embedded}", "a.title: 3 Input should be a valid string"),
        ("a: {title: A, layout: embedded, template: a photo}", "a.template: 'a photo' must contain {} exactly once"),
        ("a: {title: A, layout: embedded, per_class: {test: 0}}", "a.per_class.test: 0 .*greater than or equal to 1"),
        ("a: {title: A, layout: folders}", "a: layout folders needs root"),
        ("a: {title: A, layout: embedded, shift_of: b}", "a.shift_of: unknown dataset 'b'; .*known: a"),
        ("a: {title: A, layout: embedded, name: b}", "a.name: unknown key"),
        ("a: embedded", "a: must be a name followed by a mapping"),
        ("1: {title: A, layout: embedded}", "1: must be a name"),
        ("- a", "holds list; write one mapping"),
        ("a: {b", "not YAML"),
    ],
)
def test_mistakes_are_one_line_with_the_file_and_the_field(tmp_path, text, message):
    with pytest.raises(CptError, match=f"datasets.yaml: {message}") as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_shift_of_a_shift(tmp_path):
    text = """
    a: {title: A, layout: embedded}
    b: {title: B, layout: embedded, shift_of: a}
    c: {title: C, layout: embedded, shift_of: b}
    """
    with pytest.raises(CptError, match=r"c.shift_of: 'b' is itself a shift; name the source, 'a'"):
        load(tmp_path, text)


def test_a_missing_file_and_a_missing_dataset(tmp_path):
    with pytest.raises(CptError, match="not found; give the catalog"):
        load_catalog(tmp_path / "none.yaml")
    with pytest.raises(CptError, match="did you mean 'flowers'"):
        find(SHIPPED, "flowrs")
    assert find(SHIPPED, "flowers").title == "Flowers"
