"""The embedded world: its classes, its images, its captions and its tokenizer."""

import gzip
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from cpt.data.world import KEYS, SHIFTS, benchmark, bpe, captions, class_names, novel, objects, render
from cpt.data.world.families import FAMILIES, held_out
from cpt.errors import CptError

COUNTS = {
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
}


@pytest.fixture(scope="module")
def web():
    return captions.web(4000, seed=3)


def test_eleven_data_sets_and_four_shifts():
    assert (*COUNTS, *SHIFTS) == KEYS
    assert SHIFTS == ("world_v2", "world_sketch", "world_r", "world_a")


@pytest.mark.parametrize("key", KEYS)
def test_class_names_are_distinct_and_as_many_as_promised(key):
    names = class_names(key)
    assert len(set(names)) == len(names) == COUNTS.get(key, COUNTS["world"])
    assert len(novel(key)) == len(names)


@pytest.mark.parametrize("key", SHIFTS)
def test_shifts_share_the_classes_of_the_world(key):
    assert class_names(key) == class_names("world")


def test_no_class_of_another_data_set_is_a_class_of_the_world():
    others = {name for key in COUNTS if key != "world" for name in class_names(key)}
    assert not others & set(class_names("world"))


def test_every_data_set_but_the_land_has_novel_classes_among_base_or_new():
    for key in COUNTS:
        count = sum(novel(key))
        assert (count == 0) if key == "land" else (2 <= count < len(novel(key)) / 2), (key, count)


def test_the_held_out_share_of_every_family():
    for name, family in FAMILIES.items():
        expected = 0 if name == "land" else round(0.22 * len(family.compositions))
        assert len(held_out(name)) == expected


def test_images_are_the_same_on_every_call_and_do_not_depend_on_how_many():
    for key in ("world", "digits", "land", "world_r", "world_sketch"):
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


@pytest.mark.parametrize(("key", "part"), [("word", "test"), ("world", "val"), ("world_v2", "train")])
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
    original = {synonym: word for word, synonyms in captions.SYNONYMS.items() for synonym in synonyms}
    forbidden = [FAMILIES[f].class_name(c) for f in FAMILIES for c in held_out(f)]
    pattern = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in forbidden))
    for pair in web:
        assert pair.composition not in held_out(pair.family)
        text = " ".join(original.get(word, word) for word in re.findall(r"\w+", pair.caption))
        assert not pattern.search(text), pair


def test_captions_are_noisy_but_mostly_right(web):
    named = [FAMILIES[p.family].class_name(p.composition) in p.caption for p in web]
    generic = [p.caption in FAMILIES[p.family].generic for p in web]
    assert 0.38 < np.mean(named) < 0.55
    assert 0.05 < np.mean(generic) < 0.11
    assert {p.family for p in web} == set(FAMILIES)


def test_the_web_is_the_same_for_a_seed_and_another_for_another(web):
    assert captions.web(50, seed=3) == web[:50]
    assert captions.web(50, seed=4) != web[:50]
    images = captions.render_web(web[:20])
    assert np.array_equal(images, captions.render_web(web[:20]))


def test_every_word_is_one_token_and_the_longest_caption_fits(web, tmp_path):
    from open_clip.tokenizer import SimpleTokenizer

    content = bpe.merges_file(bpe.learn_merges(captions.phrases()))
    assert content == bpe.merges_file(bpe.learn_merges(captions.phrases()))
    assert not gzip.decompress(content).endswith(b"\n")
    (tmp_path / "merges.txt.gz").write_bytes(content)
    tokenizer = SimpleTokenizer(str(tmp_path / "merges.txt.gz"), context_length=16)
    assert tokenizer.eot_token_id == tokenizer.vocab_size - 1
    names = [f"a photo of a {name}." for key in KEYS for name in class_names(key)]
    for text in {pair.caption for pair in web} | set(names):
        tokens = tokenizer.encode(text)
        assert len(tokens) == len(re.findall(r"\w+|[^\w\s]", text)), text
        assert len(tokens) + 2 <= 16, text


def test_base_classes_are_the_first_half_rounded_up_and_both_halves_mix_families():
    classes = benchmark.classes("world")
    half = math.ceil(len(classes) / 2)
    assert len({family for family, _ in classes[:half]}) >= 8
    assert len({family for family, _ in classes[half:]}) >= 8
