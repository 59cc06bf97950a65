"""The catalog: the shipped file and the facts in it, defaults, and one-line errors."""

import hashlib
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
import yaml

from cpt.data import world
from cpt.data.catalog import find, load_catalog
from cpt.data.make_manifest import find_images
from cpt.errors import CptError

CONFIG = Path(__file__).parents[2] / "config"
SHIPPED = load_catalog(CONFIG / "datasets.yaml")
REAL = {name: entry for name, entry in SHIPPED.items() if entry.layout != "embedded" and entry.counterpart}
LONG_TAILED = {
    "imagenet_lt": (1000, {"train": 115846, "val": 20000, "test": 50000}),
    "places_lt": (365, {"train": 62500, "val": 7300, "test": 36500}),
    "inaturalist2018": (8142, {"train": 437513, "test": 24426}),
}

COUNTERPARTS = [
    "ImageNet", "Caltech101", "OxfordPets", "StanfordCars", "Flowers102", "Food101", "FGVCAircraft", "SUN397", "DTD",
    "EuroSAT", "UCF101", "ImageNetV2", "ImageNet-Sketch", "ImageNet-A", "ImageNet-R",
]  # fmt: skip


class Fact(NamedTuple):
    """What is published, or was measured on the published split file: typed from there, not from the catalog.

    Attributes:
        classes: number of classes.
        base: number of base classes, labels 0 to base - 1.
        names: first class, last base class, first new class, last class.
        sha256: of the class names in label order, joined by line feeds.
        images: train, val and test images; a 0 where there is no such part.
    """

    classes: int
    base: int
    names: tuple[str, str, str, str]
    sha256: str
    images: tuple[int, int, int]
    template: str = "a photo of a {}."


IMAGENET_NAMES = "571ae1c583b4be7da87519494c52bf405a46af05d5815627c7a0dee997068b60"
FACTS = {
    "imagenet": Fact(1000, 500, ("tench", "cleaver", "cliff dwelling", "toilet paper"), IMAGENET_NAMES,
                     (1281167, 0, 50000)),
    "caltech101": Fact(100, 50, ("face", "helicopter", "ibis", "yin_yang"),
                       "84f9ff49dce58ae6e74754fd578f6dd6bb9c1b711758e7c3da3888216d0630ca", (4128, 1649, 2465)),
    "oxford_pets": Fact(37, 19, ("abyssinian", "keeshond", "leonberger", "yorkshire_terrier"),
                        "8e35ab44db27d55ab1a062c8af3308606560f9f3e3a6bf698b19e4ea54212d6d", (2944, 736, 3669),
                        "a photo of a {}, a type of pet."),
    "stanford_cars": Fact(196, 98, ("2000 AM General Hummer SUV", "1998 Eagle Talon Hatchback", "2012 FIAT 500 Abarth",
                                    "2012 smart fortwo Convertible"),
                          "2caca90b5c02b65fcd9542cc2c934aa40c56ded5cb5b72e6e0b8e6b023cf81f9", (6509, 1635, 8041)),
    "oxford_flowers": Fact(102, 51, ("pink primrose", "petunia", "wild pansy", "blackberry lily"),
                           "0d27092c2140383d4f002dc99d20c184d58ffdc454e5f4d12f0475b4e23480ee", (4093, 1633, 2463),
                           "a photo of a {}, a type of flower."),
    "food101": Fact(101, 51, ("apple_pie", "grilled_salmon", "guacamole", "waffles"),
                    "efe7060c0e6aa88c98d3ad9532240013747f6b2179d45e1f750527890437c59d", (50500, 20200, 30300),
                    "a photo of {}, a type of food."),
    "fgvc_aircraft": Fact(100, 50, ("707-320", "Cessna 525", "Cessna 560", "Yak-42"),
                          "e1c9e72060e63d526dce032008262a95f573b02e802be7be42f0cb6ccd5b4217", (3334, 3333, 3333),
                          "a photo of a {}, a type of aircraft."),
    "sun397": Fact(397, 199, ("abbey", "indoor ice_skating_rink", "outdoor ice_skating_rink", "youth_hostel"),
                   "583c0fad85d22c563fc88e49462efce4c5a08aec1e0b8020f325224af67cb040", (15880, 3970, 19850)),
    "dtd": Fact(47, 24, ("banded", "marbled", "matted", "zigzagged"),
                "681d23b9cd3c2edec8ff7ea1fd6f5dd92f3b8d1dfb5a43fd0faee72a116c1130", (2820, 1128, 1692), "{} texture."),
    "eurosat": Fact(10, 5, ("Annual Crop Land", "Industrial Buildings", "Pasture Land", "Sea or Lake"),
                    "bcff3a8022b63397730ecbb798e13cf58822547521ea94ed2975f05971b28da3", (13500, 5400, 8100),
                    "a centered satellite photo of {}."),
    "ucf101": Fact(101, 51, ("Apply_Eye_Makeup", "Long_Jump", "Lunges", "Yo_Yo"),
                   "d22e81fba7ebebf0fb154d6bc7c3b2c11a31a31d102b6873aa4f37413abaefc1", (7639, 1898, 3783),
                   "a photo of a person doing {}."),
}  # fmt: skip
SHIFTS = {"imagenetv2": (1000, 10000), "imagenet_sketch": (1000, 50889), "imagenet_a": (200, 7500),
          "imagenet_r": (200, 30000)}  # fmt: skip
HALVES = {
    "imagenet": {"test": (25000, 25000)},
    "caltech101": {"train": (2594, 1534), "val": (1036, 613), "test": (1549, 916)},
    "oxford_pets": {"train": (1508, 1436), "val": (377, 359), "test": (1881, 1788)},
    "stanford_cars": {"train": (3240, 3269), "val": (812, 823), "test": (4002, 4039)},
    "oxford_flowers": {"train": (1744, 2349), "val": (696, 937), "test": (1053, 1410)},
    "food101": {"train": (25500, 25000), "val": (10200, 10000), "test": (15300, 15000)},
    "sun397": {"train": (7960, 7920), "val": (1990, 1980), "test": (9950, 9900)},
    "dtd": {"train": (1440, 1380), "val": (576, 552), "test": (864, 828)},
    "eurosat": {"train": (7000, 6500), "val": (2800, 2600), "test": (4200, 3900)},
    "ucf101": {"train": (3926, 3713), "val": (975, 923), "test": (1934, 1849)},
}
"""Images of base and of new classes."""
WNIDS = {
    "imagenet": "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd",
    "imagenet_a": "f6aa4b23244554d9b864fd715ae20048f6a9686388911b2dfbf1ada01bf0f520",
    "imagenet_r": "e19a59d84e3746fafd34d2ccf6ae604a44e9a0500a596f343c878a89e30ce624",
}


def names_of(entry):
    """Class names in label order; of ImageNet and its shifts that of the sorted wnids."""
    names = entry.class_names
    return [names[wnid] for wnid in sorted(names)] if isinstance(names, dict) else names


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def load(tmp_path, text):
    path = tmp_path / "datasets.yaml"
    path.write_text(text, encoding="utf-8")
    return load_catalog(path)


def test_the_shipped_catalog_holds_the_generated_worlds():
    assert set(SHIPPED) - set(REAL) - set(LONG_TAILED) == set(world.KEYS)
    for name in world.KEYS:
        entry = SHIPPED[name]
        assert entry.shift_of == world.DATA_SETS[name].classes_of
        assert (entry.per_class.train, entry.per_class.test) == (32, 20 if entry.shift_of else 60)


def test_the_datasets_of_the_paper_and_their_counterparts_come_in_its_order():
    assert list(REAL) == [*FACTS, *SHIFTS]
    assert [entry.counterpart for entry in REAL.values()] == COUNTERPARTS
    embedded = [entry.counterpart for entry in SHIPPED.values() if entry.layout == "embedded"]
    assert [name for name in embedded if name] == COUNTERPARTS, "of the first world"
    assert SHIPPED.keys() - REAL.keys() - {n for n, e in SHIPPED.items() if e.layout == "embedded"} == set(LONG_TAILED)


@pytest.mark.parametrize("name", LONG_TAILED)
def test_long_tailed_benchmarks(name):
    entry, (classes, images) = SHIPPED[name], LONG_TAILED[name]
    assert (entry.expected.classes, entry.expected.images) == (classes, images)
    assert set(entry.lists) == set(images)
    if name == "inaturalist2018":  # named by its own categories.json
        return
    names = names_of(entry)
    middle = (classes + 1) // 2
    assert (names[0], names[middle - 1], names[middle], names[-1]) == entry.expected.boundary
    assert sha256("\n".join(names)) == entry.expected.names_sha256
    assert len(set(names)) == (998 if name == "imagenet_lt" else 365)


def test_places_names_are_those_of_the_authors_file():
    """Its lines, `/a/airfield 0`, put together again from the names, have its published checksum."""
    paths = ["/".join(reversed(name.split(" "))) for name in names_of(SHIPPED["places_lt"])]
    text = "\n".join(f"/{path[0]}/{path} {label}" for label, path in enumerate(paths))
    assert hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() == "06c963b85866bd0649f97cb43dd16673"


def test_roles():
    assert {name for name, entry in REAL.items() if entry.shift_of == "imagenet"} == set(SHIFTS)
    assert {name for name, entry in REAL.items() if entry.shift_of is None} == set(FACTS)
    assert {name for name, entry in REAL.items() if entry.gated} == {"imagenet"}


@pytest.mark.parametrize("name", FACTS)
def test_class_names_are_the_published_ones_in_label_order(name):
    fact, entry = FACTS[name], SHIPPED[name]
    names = names_of(entry)
    assert len(names) == entry.expected.classes == fact.classes
    assert sha256("\n".join(names)) == entry.expected.names_sha256 == fact.sha256
    assert (names[0], names[fact.base - 1], names[fact.base], names[-1]) == entry.expected.boundary == fact.names
    assert entry.template == fact.template


@pytest.mark.parametrize("name", FACTS)
def test_counts_are_the_published_ones(name):
    expected = SHIPPED[name].expected
    assert tuple(expected.images.get(part, 0) for part in ("train", "val", "test")) == FACTS[name].images
    halves = HALVES.get(name, {})
    assert expected.base == {part: base for part, (base, _) in halves.items()}
    assert expected.new == {part: new for part, (_, new) in halves.items()}
    for part, both in halves.items():
        assert sum(both) == expected.images[part]


@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_are_test_images_of_classes_of_imagenet(name):
    classes, images = SHIFTS[name]
    entry, source = SHIPPED[name], SHIPPED["imagenet"].class_names
    assert (entry.expected.classes, entry.expected.images) == (classes, {"test": images})
    assert entry.class_names.items() <= source.items()
    assert len(entry.class_names) == classes
    assert sha256("\n".join(names_of(entry))) == entry.expected.names_sha256
    assert entry.template == "a photo of a {}."


def test_classes_of_imagenet_and_its_subsets():
    for name, expected in WNIDS.items():
        wnids = list(SHIPPED[name].class_names)
        assert wnids == sorted(wnids)
        assert sha256("\n".join(wnids)) == expected
    a, r = (set(SHIPPED[name].class_names) for name in ("imagenet_a", "imagenet_r"))
    assert len(a & r) == 86
    for subset in (a, r):  # the two names that stand for two classes each must not meet in a subset
        names = [SHIPPED["imagenet"].class_names[wnid] for wnid in subset]
        assert len(set(names)) == len(names) == 200


def test_imagenet_names_are_those_of_openai():
    from open_clip import IMAGENET_CLASSNAMES

    file = (CONFIG / "classes" / "imagenet.txt").read_bytes()
    assert hashlib.sha256(file).hexdigest() == "89e0b642c6697a3a43a06a2bb65f9fefb3ca295ccc5f4ba9ce385f1a3a58c629"
    names = names_of(SHIPPED["imagenet"])
    assert names == list(IMAGENET_CLASSNAMES)
    assert [i for i, name in enumerate(names) if name == "missile"] == [657, 744]
    assert [i for i, name in enumerate(names) if name == "sunglasses"] == [836, 837]


def test_everything_that_is_needed_can_be_had():
    for name, entry in REAL.items():
        assert entry.license
        provided = {path for item in entry.files for path in item.provides}
        for item in entry.files:
            for source in item.sources:
                assert source.url.startswith(("https://", "http://"))
                assert "/blob/" not in source.url, "a page about the file, not the file"
        if entry.gated:
            assert "{root}" in entry.gated
            continue
        assert entry.images in provided | {"."}, name
        assert entry.split is None or entry.split in provided, name
    assert {"cars_train", "cars_test"} <= set(SHIPPED["stanford_cars"].files[0].provides)


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


MINE = "a: {title: A, layout: folders, root: x, "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {title: A, layout: embedded, tmplate: x}", "a.tmplate: unknown key; did you mean 'template'"),
        ("a: {title: A, layout: embedded, per_class: {tran: 3}}", "a.per_class.tran: unknown key; .*'train'"),
        ("a: {title: A, layout: embeded}", "a.layout: 'embeded': is no layout; did you mean 'embedded'"),
        ("a: {layout: embedded}", "a.title: missing"),
        ("a: {title: 3, layout: embedded}", "a.title: 3: must be a text; put it in quotes"),
        ("a: {title: A, layout: embedded, template: a photo}", "a.template: 'a photo': must contain {} exactly once"),
        ("a: {title: A, layout: embedded, per_class: {test: 0}}", "a.per_class.test: 0: must be at least 1"),
        ("a: {title: A, layout: folders}", "a: layout folders needs root"),
        ("a: {title: A, layout: embedded, shift_of: b}", "a.shift_of: unknown dataset 'b'; .*known: a"),
        ("a: {title: A, layout: embedded, name: b}", "a.name: unknown key"),
        (
            'a: {title: A, layout: embedded, files: [{provides: {x: []}, sources: [{url: "http://a/x\\n"}]}]}',
            r"a.files.0.sources.0.url: 'http://a/x\\n': must be one line",
        ),
        ("a: embedded", "a: must be a name followed by a mapping"),
        ("1: {title: A, layout: embedded}", "1: must be a name"),
        ("- a", "holds list; write one mapping"),
        ("a: {b", "not valid YAML: line 1"),
        ("a: {title: A, layout: embedded}\nb: {}\na: {}", "line 3: 'a' stands in line 1 too; delete one"),
        ("a: {titel: A, layout: embedded}", "a.titel: unknown key; did you mean 'title'"),
        ("a: {title: no, layout: embedded}", r"a.title: false: must be a text; put it in quotes \(in YAML yes, no,"),
        ("a: {title: 2026-11-28, layout: embedded}", "a.title: 2026-11-28: must be a text; put it in quotes"),
        (MINE + "class_names: [ant, no, on]}", "a.class_names.1: false: must be a text; put it in quotes"),
        (MINE + "class_names: {n1: ant, n2: 3}}", "a.class_names.n2: 3: must be a text; put it in quotes"),
        (MINE + "class_names: 3}", "a.class_names: 3: must be a text or a list or a mapping"),
        (MINE + "per_class: {train: true}}", "a.per_class.train: true: must be a whole number"),
        (MINE + 'images: "a\\0"}', r"a.images: 'a\\x00': has a NUL character"),
        ('a: {title: A, layout: folders, root: "a\\0"}', r"a.root: 'a\\x00': has a NUL character"),
        (MINE + "fingerprint: size}", "a.fingerprint: 'size': must be 'bytes' or 'sizes'"),
        (MINE + 'descriptions: "~nosuchuser/x"}', "a.descriptions: .*: no home folder is known for ~nosuchuser"),
        (MINE + 'class_names: "~nosuchuser/x"}', "a.class_names: .*no home folder is known for ~nosuchuser"),
        (
            MINE + "files: [{provides: {x: []}, sources: [{url: ftp://x}]}]}",
            "a.files.0.sources.0.url: 'ftp://x': must begin",
        ),
        (
            MINE + "files: [{provides: {x: []}, sources: [{url: http://x, md5: ab}]}]}",
            ".*md5: 'ab': must have 32 digits",
        ),
        (f"{'a' * 101}: {{}}", "a+: has 101 letters, files are called by it"),
        (f"{'ab' * 20}: {{}}", "[ab]+: repeats itself 20 times"),
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


def test_paths_begin_at_home(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "names.txt").write_text("ant\nbee\n")
    monkeypatch.setenv("HOME", str(home))
    text = "{title: A, layout: folders, root: ~/x, descriptions: ~/d.json, class_names: ~/names.txt}"
    entry = load(tmp_path, f"a: {text}")["a"]
    assert (entry.folder, entry.descriptions, entry.class_names) == (home / "x", f"{home}/d.json", ["ant", "bee"])
    assert entry.root == "~/x", "as it is written, so that the manifest is the same on every machine"


def test_a_home_that_is_not_known_is_told_where_it_is_needed(tmp_path):
    entry = load(tmp_path, 'a: {title: A, layout: folders, root: "~nosuchuser/x"}')["a"]
    with pytest.raises(CptError) as caught:
        _ = entry.folder
    message = "a.root: '~nosuchuser/x': no home folder is known for ~nosuchuser; write the whole path"
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["be\x1be", "be\ae", "be\0e", "be\x7fe", "be\ufffee", "b\n\té 蜂 🐝 \u202e"])
def test_a_class_name_is_one_that_xml_holds(tmp_path, name):
    """The oracle is the XML parser: a name that it refuses would leave an SVG that no browser shows."""
    entry = load(tmp_path, yaml.safe_dump({"a": {"title": "A", "layout": "folders", "root": str(tmp_path / "x")}}))["a"]
    for part in ("train", "test"):
        for folder in ("ant", "bee"):
            (tmp_path / "x" / part / folder).mkdir(parents=True)
            (tmp_path / "x" / part / folder / "0.png").write_bytes(b"x")
    entry = entry.model_copy(update={"class_names": {"ant": "ant", "bee": name}})
    try:
        ElementTree.fromstring(f"<a>{escape(name)}</a>".encode())
    except ElementTree.ParseError:
        with pytest.raises(CptError, match=r"^a: class .*: has the character .*, which no figure can hold; delete it$"):
            find_images(entry)
    else:
        assert find_images(entry).class_names == ["ant", name]
