"""The fixes that messages about configurations give, typed by a machine: the file is then taken."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cpt.errors import CptError
from cpt.experiment import config, grid

BASE: dict[str, Any] = config.load([Path("config/config.yaml")]).model_dump(mode="json", exclude_unset=True)

TYPED: tuple[tuple[str, Callable[[Any, re.Match[str]], Any]], ...] = (
    (r"; write (\[.+\])$", lambda _, found: yaml.safe_load(found[1])),
    (r"did you mean '(.+?)'\?", lambda old, found: [found[1]] if isinstance(old, list) else found[1]),
    (r"(\S+) is there twice; delete one", lambda old, _: list(dict.fromkeys(old))),
    (r"must be at (?:least|most) (\S+)", lambda old, found: type(old)(found[1])),
    (r"must be greater than 0", lambda old, _: 0.1),
    (r"must be a whole number", lambda old, _: 1),
    (r"must be a number", lambda old, _: 1.5),
    (r"must be true or (false)", lambda old, _: False),
    (r"(?:must be|use one of) '(.+?)'", lambda _, found: found[1]),
    (r"put it in quotes", lambda old, _: "quoted"),
    (r"lower-case letters, digits, _ and - only", lambda old, _: re.sub("[^a-z0-9_-]", "-", str(old).lower())),
    (r"use at most (\d+)", lambda old, found: "ab-" * (int(found[1]) // 30)),
    (r"; shorten it", lambda old, _: old[:10]),
    (r"; (?:use|set) (\w+): (\w+)$", lambda old, found: {**old, found[1]: yaml.safe_load(found[2])}),
)
"""What a fix says, and the value that one writes for the old one."""

WRONG: list[tuple[str, Any]] = [
    ("seeds", 1), ("seeds", [2, 1, 2]), ("seeds.0", True), ("seeds.0", 1.0), ("seeds.0", -1),
    ("seeds.0", 2**63), ("n_max", True), ("n_max", 0), ("threads", 1025), ("checkpoint_interval", True),
    ("printed", "no"), ("imbalance_ratios", [0.5, 1, 1.0]), ("imbalance_ratios.0", 1.5), ("imbalance_ratios.0", 0.0),
    ("tasks.base_to_new.datasets", ["world", "flowers", "textures", "land", "land"]),
    ("exhibits.table1.variants", ["cpt", "cpt"]), ("variants.cpt.set", {"prior_strength": 0.5}),
    ("variants.cpt.set", {"focal_gamma": 1.0}), ("variants.cpt.set", {"ldam_margin": 0.3}),
    ("variants.cpt.set", {"lade_weight": 1.0}), ("variants.cpt.set", {"class_balanced_beta": 0.9}),
    ("variants.cpt.set", {"generalized_exponent": 2.0}), ("variants.cpt.set", {"reweight_after": 0.8}),
    ("variants.cpt.set", {"loss": "ldam", "prior": "compensating"}),
    ("variants.cpt.set", {"reweight": "generalized", "prior": "compensating"}),
    ("variants.cpt.set", {"sampler": "class_balanced", "prior": "compensating"}),
    ("variants.cpt.set", {"reweight": "generalized", "loss": "lade"}),
    ("variants.cpt.set", {"sampler": "class_balanced", "loss": "lade"}),
    ("variants.cpt.set", {"sampler": "class_balanced", "reweight": "generalized"}),
    ("variants.cpt.set", {"reweight": "generalized", "batch_size": 1}),
    ("experiment", False), ("experiment", 2026), ("experiment", "Mine"), ("experiment", "a/b"),
    ("experiment", "a" * 101), ("experiment", "ab" * 20), ("class_order", "labels"), ("device", "gpu"),
    ("precision", "fp16"), ("exhibits.table1.kind", "tabel"), ("exhibits.table1.variants", ["cptt"]),
    ("variants.cpt.method", "cppt"), ("tasks.cross_dataset.source", "wrld"), ("exhibits.figure1.dataset", "wrld"),
]  # fmt: skip
"""Places and values that are refused there."""

MISSPELT = [
    ("sedes", [1]), ("backbone.architeture", "embedded"), ("variants.cpt.set.tetf_wieght", 1),
    ("overrides.0.set.epoch", 3), ("exhibits.table1.variant", ["cpt"]), ("exhibits.tabel2", {"title": "T"}),
]  # fmt: skip


def place(values: dict[str, Any], path: str) -> tuple[Any, Any]:
    """What holds a place, and the key or index there."""
    *parents, last = path.split(".")
    section: Any = values
    for part in parents:
        section = section[int(part)] if isinstance(section, list) else section.setdefault(part, {})
    return section, int(last) if isinstance(section, list) else last


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(CptError) as refused:
        grid.build(config.parse(copy.deepcopy(values), "my.yaml"), "my.yaml")
    return str(refused.value)


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_a_value(path: str, value: Any) -> None:
    values = copy.deepcopy(BASE)
    section, last = place(values, path)
    section[last] = value
    said = refusal(values)
    form, typed = next((form, typed) for form, typed in TYPED if re.search(form, said))
    section[last] = typed(value, re.search(form, said))
    grid.build(config.parse(values, "my.yaml"), "my.yaml")


@pytest.mark.parametrize(("path", "value"), MISSPELT)
def test_a_key(path: str, value: Any) -> None:
    values = copy.deepcopy(BASE)
    section, last = place(values, path)
    section[last] = value
    found = re.search(r"did you mean '(.+?)'\?", refusal(values))
    assert found
    section.setdefault(found[1], section.pop(last))
    grid.build(config.parse(values, "my.yaml"), "my.yaml")


def test_lines_that_are_no_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file: a key that stands twice, a number that YAML reads otherwise, a misspelt file below."""
    (tmp_path / "config").symlink_to(Path("config").absolute())
    (tmp_path / "Snakefile").touch()
    monkeypatch.chdir(tmp_path)
    mine = Path("mine.yaml")
    text = "extends: config/confi.yaml\nexperiment: mine\nn_max: 010\nseeds: [1]\nseeds: [2]\n"
    for form, typed in (
        (r"line (\d+) too; delete one", lambda found, text: text.replace("seeds: [2]\n", "")),
        (r"write (\d+), or", lambda found, text: text.replace("010", found[1])),
        (r"did you mean (\S+)\?", lambda found, text: text.replace("config/confi.yaml", found[1])),
    ):
        mine.write_text(text)
        with pytest.raises(CptError) as refused:
            config.load([mine])
        found = re.search(form, str(refused.value))
        assert found, refused.value
        text = typed(found, text)
    mine.write_text(text)
    grid.build(config.load([mine]), "mine.yaml")
    with pytest.raises(CptError, match=r"did you mean mine.yaml\?"):
        config.load([Path("mne.yaml")])
    monkeypatch.chdir("/")
    with pytest.raises(CptError, match="run it in the project's folder"):
        config.load([Path("config/config.yaml")])
