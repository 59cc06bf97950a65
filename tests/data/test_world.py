"""The generated worlds: their classes, their images, their captions and their tokenizers."""

import gzip
import hashlib
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from cpt.clip import bpe, tiny
from cpt.data.world import KEYS, SHIFTS, WORLDS, benchmark, captions, class_names, novel, objects, render
from cpt.data.world.first import FIRST
from cpt.data.world.second import SECOND
from cpt.data.world.style import Style
from cpt.data.world.worlds import DATA_SETS, FAMILIES, held_out, world_of
from cpt.errors import CptError

COUNTS = {
    "first": {
        "world": 64,
        "shapes": 30,
        "animals": 30,
        "vehicles": 32,
        "flowers": 28,
        "digits": 30,
        "letters": 30,
        "scenes": 34,
        "textures": 30,
        "land": 10,
        "patterns": 30,
    },
    "second": {
        "market": 60,
        "symbols": 30,
        "sealife": 30,
        "buildings": 32,
        "fruits": 28,
        "clocks": 30,
        "trees": 24,
        "flags": 30,
        "surfaces": 10,
        "charts": 30,
    },
}
SHIFTED = {
    "first": ("world_v2", "world_sketch", "world_r", "world_a"),
    "second": ("market_v2", "market_sketch", "market_r"),
}
EVERY = pytest.mark.parametrize("world", WORLDS.values(), ids=list(WORLDS))


@pytest.fixture(scope="module", params=WORLDS.values(), ids=list(WORLDS))
def web(request):
    return request.param, captions.web(request.param, 4000, seed=3)


def test_data_sets_and_shifts_of_every_world():
    assert list(WORLDS) == list(COUNTS) == list(SHIFTED)
    for name, world in WORLDS.items():
        assert (*COUNTS[name], *SHIFTED[name]) == tuple(world.datasets)
        assert all(world_of(key) is world for key in world.datasets)
    assert tuple(key for name in WORLDS for key in SHIFTED[name]) == SHIFTS


def test_the_worlds_share_no_key_no_family_and_no_class():
    assert len(KEYS) == len(FIRST.datasets) + len(SECOND.datasets)
    assert len(FAMILIES) == len(FIRST.families) + len(SECOND.families)
    first, second = ({name for key in world.datasets for name in class_names(key)} for world in (FIRST, SECOND))
    assert not first & second


@pytest.mark.parametrize("key", KEYS)
def test_class_names_are_distinct_and_as_many_as_promised(key):
    names, world = class_names(key), world_of(key)
    assert len(set(names)) == len(names) == COUNTS[world.name].get(key, COUNTS[world.name][world.source])
    assert len(novel(key)) == len(names)
    assert all(1 <= len(name.split()) <= 5 for name in names)


@EVERY
def test_no_two_compositions_of_a_world_have_one_name(world):
    names = [family.class_name(c) for family in world.families.values() for c in family.compositions]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("key", SHIFTS)
def test_shifts_share_the_classes_of_the_source(key):
    assert DATA_SETS[key].classes_of == world_of(key).source
    assert class_names(key) == class_names(world_of(key).source)


@EVERY
def test_no_class_of_another_data_set_is_a_class_of_the_source(world):
    others = {name for key in COUNTS[world.name] if key != world.source for name in class_names(key)}
    assert not others & set(class_names(world.source))


@EVERY
def test_every_data_set_but_one_has_novel_classes_among_base_or_new(world):
    for key in COUNTS[world.name]:
        count = sum(novel(key))
        assert (count == 0) if key in ("land", "surfaces") else (2 <= count < len(novel(key)) / 2), (key, count)


def test_the_held_out_share_of_every_family():
    for name, family in FAMILIES.items():
        expected = 0 if name in ("land", "surface") else round(0.22 * len(family.compositions))
        assert len(held_out(name)) == expected


def test_the_first_world_is_that_of_the_shipped_weights():
    """Of a few images and captions, so that no change of drawing or chance goes unseen."""
    images = np.concatenate([render(key, "test", 1)[0] for key in FIRST.datasets])
    said = repr([pair.caption for pair in captions.web(FIRST, 500, seed=0)])
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == "4d409d4f9e1ac256"
    assert hashlib.sha256(said.encode()).hexdigest()[:16] == "ae620c46f4bd2eb3"


@pytest.mark.parametrize("family", SECOND.families)
def test_classes_of_a_family_look_different(family):
    """The nearest class mean of 20 images' raw pixels is right in over 40 %, chance being 10 % or less."""
    calm = Style(scale=(0.8, 0.9), rotation=0.1, jitter=0.05, background="plain", tint=(128, 128, 128), noise=(0, 5))
    described = SECOND.families[family]
    classes = described.compositions[:: max(1, len(described.compositions) // 12)][:12]

    def drawn(part, count):
        return np.stack([
            [
                benchmark.draw_image(family, c, calm, benchmark.image_seed(part, family, c, i), part).ravel()
                for i in range(count)
            ]
            for c in classes
        ]).astype(float)  # fmt: skip

    means, test = drawn("train", 20).mean(axis=1), drawn("test", 8)
    nearest = ((test[:, :, None] - means) ** 2).sum(axis=-1).argmin(axis=-1)
    assert (nearest == np.arange(len(classes))[:, None]).mean() > 0.4


def test_images_are_the_same_on_every_call_and_do_not_depend_on_how_many():
    for key in ("world", "digits", "land", "world_r", "world_sketch", "market", "surfaces", "market_r"):
        few, labels = render(key, "test", 2)
        many, _ = render(key, "test", 3)
        again, _ = render(key, "test", 2)
        classes = len(class_names(key))
        assert few.shape == (2 * classes, 32, 32, 3)
        assert few.dtype == np.uint8
        assert labels.dtype == np.int64
        assert labels.tolist() == [label for label in range(classes) for _ in range(2)]
        assert np.array_equal(few, again)
        assert np.array_equal(few.reshape(classes, 2, -1), many.reshape(classes, 3, -1)[:, :2])


def test_train_and_test_images_differ():
    train, test = (render("shapes", part, 10)[0].reshape(300, -1) for part in ("train", "test"))
    assert len(np.unique(np.concatenate([train, test]), axis=0)) == 600


def test_every_data_set_has_contrast_within_an_image_and_variety_between_images():
    for key in KEYS:
        images, _ = render(key, "test", 2)
        pixels = images.astype(float)
        assert pixels.std(axis=(1, 2, 3)).mean() > 15, key
        assert pixels.std(axis=0).mean() > 20, key


def test_world_a_shows_a_selection_of_its_candidates_up_to_sixty_per_class():
    images, labels = render("world_a", "test", 3)
    kept = benchmark.adversarial()
    name = class_names("world_a")[5]
    assert np.array_equal(images[labels == 5], benchmark.render_class("world_a", 5, "test", kept[name][:3]))
    assert all(len(set(indices)) == 60 and max(indices) < 180 for indices in kept.values())
    with pytest.raises(CptError, match="60 images per class, 61"):
        render("world_a", "test", 61)


@pytest.mark.parametrize(
    ("key", "part"), [("word", "test"), ("world", "val"), ("world_v2", "train"), ("market_r", "train")]
)
def test_unknown_data_sets_and_parts_are_named(key, part):
    with pytest.raises(CptError, match=key):
        render(key, part, 1)


def test_rendering_imports_nothing_heavy_before_it_needs_it():
    code = (
        "import sys; from cpt.data.world import render; render('letters', 'test', 1);"
        "print(sorted({'torch', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "[]\n")


@pytest.mark.parametrize("digit", ["zero", "eight"])
def test_no_scanned_digit_is_in_two_parts(digit):
    parts = [objects.scans(digit, part).reshape(-1, 64) for part in ("web", "train", "test")]
    sizes = [len(part) for part in parts]
    scans = {scan.tobytes() for part in parts for scan in part}
    distinct = [{scan.tobytes() for scan in part} for part in parts]
    assert sum(map(len, distinct)) == len(scans)
    assert sizes[0] == pytest.approx(0.5 * sum(sizes), abs=1)
    assert sizes[1] == pytest.approx(0.2 * sum(sizes), abs=1)


def test_no_held_out_composition_is_an_image_or_a_caption_of_the_web(web):
    world, pairs = web
    original = {synonym: word for word, synonyms in captions.SYNONYMS.items() for synonym in synonyms}
    forbidden = [FAMILIES[f].class_name(c) for f in world.families for c in held_out(f)]
    pattern = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in forbidden))
    for pair in pairs:
        assert pair.composition not in held_out(pair.family)
        text = " ".join(original.get(word, word) for word in re.findall(r"\w+", pair.caption))
        assert not pattern.search(text), pair


def test_captions_are_noisy_but_mostly_right(web):
    world, pairs = web
    named = [FAMILIES[p.family].class_name(p.composition) in p.caption for p in pairs]
    generic = [p.caption in FAMILIES[p.family].generic for p in pairs]
    assert 0.38 < np.mean(named) < 0.55
    assert 0.05 < np.mean(generic) < 0.11
    assert {p.family for p in pairs} == set(world.families)


def test_the_web_is_the_same_for_a_seed_and_another_for_another(web):
    world, pairs = web
    assert captions.web(world, 50, seed=3) == pairs[:50]
    assert captions.web(world, 50, seed=4) != pairs[:50]
    images = captions.render_web(pairs[:20])
    assert np.array_equal(images, captions.render_web(pairs[:20]))


def test_every_word_is_one_token_and_the_longest_caption_fits(web, tmp_path):
    world, pairs = web
    merges = bpe.learn_merges(captions.phrases(world))
    content = bpe.merges_file(merges)
    assert content == bpe.merges_file(bpe.learn_merges(captions.phrases(world)))
    assert not gzip.decompress(content).endswith(b"\n")
    assert [tuple(merge) for merge in bpe.read_merges(content)] == merges
    (tmp_path / "merges.txt.gz").write_bytes(content)
    tokenizer = tiny.tokenizer(tmp_path / "merges.txt.gz")
    assert tokenizer.eot_token_id == tokenizer.vocab_size - 1
    names = [f"a photo of a {name}." for key in world.datasets for name in class_names(key)]
    for text in {pair.caption for pair in pairs} | set(names):
        tokens = tokenizer.encode(text)
        assert len(tokens) == len(re.findall(r"\w+|[^\w\s]", text)), text
        assert len(tokens) + 2 <= 16, text


@EVERY
def test_base_classes_are_the_first_half_rounded_up_and_both_halves_mix_families(world):
    classes = benchmark.classes(world.source)
    half = math.ceil(len(classes) / 2)
    for part in (classes[:half], classes[half:]):
        assert len({family for family, _ in part}) >= len(world.families) - 3
