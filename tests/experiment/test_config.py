"""Configurations are refused early, in one line that says where and how to fix; good ones resolve to runs."""

from __future__ import annotations

import contextlib
import copy
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cpt.data.catalog import load_catalog
from cpt.errors import CptError
from cpt.experiment import config, grid
from cpt.experiment.runs import Run
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import Hyperparameters, resolve

BASE: dict[str, Any] = config.load([Path("config/config.yaml")]).model_dump(mode="json", exclude_unset=True)


def build(values: dict[str, Any]) -> grid.Grid:
    return grid.build(config.parse(values, "my.yaml"), "my.yaml")


def changed(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(BASE)
    *parents, last = path.split(".")
    section: Any = values
    for part in parents:
        section = section[int(part)] if isinstance(section, list) else section[part]
    section[int(last) if isinstance(section, list) else last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("sedes", [1], "my.yaml: sedes: unknown key; did you mean 'seeds'?"),
        ("seeds", "one", "my.yaml: seeds: 'one': must be a list; write ['one']"),
        ("seeds", 1, "my.yaml: seeds: 1: must be a list; write [1]"),
        ("seeds", [], "my.yaml: seeds: must not be empty"),
        ("seeds", [2, 1, 2], "my.yaml: seeds: 2 is there twice; delete one"),
        ("seeds", [True], "my.yaml: seeds.0: true: must be a whole number"),
        ("seeds", [1, "2"], "my.yaml: seeds.1: '2': must be a whole number"),
        ("seeds", [1.0], "my.yaml: seeds.0: 1.0: must be a whole number"),
        ("seeds", [-1], "my.yaml: seeds.0: -1: must be at least 0"),
        ("seeds", [2**63], "my.yaml: seeds.0: 9223372036854775808: must be at most 9223372036854775807"),
        ("n_max", True, "my.yaml: n_max: true: must be a whole number"),
        ("threads", 1025, "my.yaml: threads: 1025: must be at most 1024"),
        ("threads", True, "my.yaml: threads: true: must be a whole number"),
        ("checkpoint_interval", True, "my.yaml: checkpoint_interval: true: must be a number"),
        ("printed", "no", "my.yaml: printed: 'no': must be true or false"),
        ("imbalance_ratios", [0.5, 1, 1.0], "my.yaml: imbalance_ratios: 1.0 is there twice; delete one"),
        ("tasks.base_to_new.datasets", ["land", "land"], "tasks.base_to_new.datasets: 'land' is there twice"),
        ("exhibits.table1.variants", ["cpt", "cpt"], "exhibits.table1.variants: 'cpt' is there twice"),
        ("exhibits.figure3.sweep", {"tetf_weight": [0, 0.0]}, "exhibits.figure3.sweep.tetf_weight: 0.0 is there twice"),
        ("exhibits.figure3.sweep", {"epochs": [True]}, "exhibits.figure3.sweep.epochs.0: true: must be a whole number or a number"),
        ("variants.cpt.set", {"epochs": True}, "variants.cpt.set.epochs: true: must be a whole number"),
        ("variants.cpt.set", {"cluster_seed": 2**63}, "variants.cpt.set.cluster_seed: 9223372036854775808: must be at most"),
        ("experiment", False, "my.yaml: experiment: false: must be a text; put it in quotes"),
        ("experiment", date(2026, 11, 28), "my.yaml: experiment: 2026-11-28: must be a text; put it in quotes"),
        ("experiment", 2026, "my.yaml: experiment: 2026: must be a text; put it in quotes"),
        ("experiment", "Mine", "my.yaml: experiment: 'Mine': may have lower-case letters, digits, _ and - only"),
        ("experiment", "mine\n", "my.yaml: experiment: 'mine\\n': may have lower-case letters"),
        ("experiment", "a" * 101, "has 101 letters, files are called by it; use at most 100"),
        ("experiment", "ab" * 20, "repeats itself 20 times, which Snakemake takes for an endless loop"),
        ("templates", {"x" * 101: ["{}"]}, "has 101 letters"),
        ("exhibits.table1.title", "bell\a", "exhibits.table1.title: 'bell\\x07': has the character '\\x07', which no figure can hold"),
        ("backbone.pretrained", "~nosuchuser/x.pt", "backbone.pretrained: '~nosuchuser/x.pt': no home folder is known for ~nosuchuser"),
        ("catalog", "~nosuchuser/x.yaml", "catalog: '~nosuchuser/x.yaml': no home folder is known for ~nosuchuser"),
        ("extends", "~nosuchuser/x.yaml", "extends: '~nosuchuser/x.yaml': no home folder is known for ~nosuchuser"),
        ("backbone.architecture", "a\0b", "backbone.architecture: 'a\\x00b': has a NUL character, which no path has; delete it"),
        ("imbalance_ratios", [1.5], "my.yaml: imbalance_ratios.0: 1.5: must be at most 1"),
        ("imbalance_ratios", ["naturl"], "my.yaml: imbalance_ratios.0: 'naturl': must be a number in (0, 1], or natural"),
        ("imbalance_ratios", ["natural", "natural"], "my.yaml: imbalance_ratios: 'natural' is there twice; delete one"),
        ("imbalance_ratios", [0.0], "my.yaml: imbalance_ratios.0: 0.0: must be greater than 0"),
        ("n_max", 0, "my.yaml: n_max: 0: must be at least 1"),
        ("experiment", "a/b", "my.yaml: experiment: 'a/b': "),
        ("class_order", "labels", "my.yaml: class_order: 'labels': must be 'label', 'random' or 'appearance'"),
        ("backbone.sha256", "abc", "backbone.sha256: 'abc': must have 64 digits, 0-9 and a-f, as `sha256sum` prints them"),
        ("backbone.architeture", "x", "my.yaml: backbone.architeture: unknown key; did you mean 'architecture'?"),
        ("tasks.base_to_new.datasets", ["flower"], "unknown dataset 'flower'; did you mean 'flowers'?"),
        ("tasks.cross_dataset.source", "wrld", "tasks.cross_dataset.source: unknown dataset 'wrld'; did you mean 'world'?"),
        ("variants.cpt.method", "ivpl", "variants.cpt.method: unknown method 'ivpl'; did you mean 'ivlp'?"),
        ("variants.cpt.set", {"tetf_wieght": 1}, "variants.cpt.set.tetf_wieght: unknown key; did you mean 'tetf_weight'?"),
        ("variants.cpt.set", {"tetf_weight": -1}, "variants.cpt.set.tetf_weight: -1: "),
        ("overrides.0.set", {"epoch": 3}, "overrides.0.set.epoch: unknown hyperparameter; did you mean 'epochs'?"),
        ("overrides.1.methods", ["ivpl"], "overrides.1.methods: unknown method 'ivpl'; did you mean 'ivlp'?"),
        ("overrides.0.set", {"batch_size": 0}, "overrides.0.set.batch_size: 0: "),
        ("overrides.0.datasets", ["flower"], "overrides.0.datasets: unknown dataset 'flower'"),
        ("exhibits.table1.kind", "tabel", "my.yaml: exhibits.table1.kind: unknown 'tabel'; did you mean 'table'?"),
        ("exhibits.table1.variant", ["cpt"], "exhibits.table1.variant: unknown key; did you mean 'variants'?"),
        ("exhibits.table1.variants", ["cptt"], "exhibits.table1.variants: unknown variant 'cptt'; did you mean 'cpt'?"),
        ("exhibits.table1.tasks", ["few"], "exhibits.table1.tasks.0: 'few': "),
        ("exhibits.table2.datasets", ["shapes"], "exhibits.table2.datasets: none of shapes belongs to the task base_to_new"),
        ("exhibits.figure1.dataset", "wrld", "exhibits.figure1.dataset: unknown dataset 'wrld'"),
        ("exhibits.figure1.stability.variants", ["x"], "exhibits.figure1.stability.variants: unknown variant 'x'"),
        ("exhibits.figure3.sweep", {"tetf_wait": [1]}, "exhibits.figure3.sweep.tetf_wait: unknown key; did you mean 'tetf_weight'?"),
        ("catalog", "config/nowhere.yaml", "config/nowhere.yaml: not found"),
        ("extends", "config/nowhere.yaml", "config/nowhere.yaml: no such configuration file"),
        ("extends", 3, "my.yaml: extends: 3: must be the path"),
    ],
)  # fmt: skip
def test_refused_in_one_line(path: str, value: Any, expected: str) -> None:
    with pytest.raises(CptError) as caught:
        build(changed(path, value))
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message


def test_missing_key() -> None:
    values = copy.deepcopy(BASE)
    del values["seeds"]
    with pytest.raises(CptError, match=r"my.yaml: seeds: missing; add it"):
        build(values)
    with pytest.raises(CptError, match="must be a mapping"):
        config.parse([1], "my.yaml")


@pytest.mark.parametrize(
    ("section", "written", "meant", "needs"),
    [("exhibits", "tabel2", "table2", "kind"), ("variants", "cpt_pritned", "cpt_printed", "method")],
)
def test_a_misspelt_entry_of_the_file_below(section: str, written: str, meant: str, needs: str) -> None:
    over = {"extends": "config/config.yaml", section: {written: {"title" if section == "exhibits" else "label": "A"}}}
    with pytest.raises(CptError) as caught:
        config.parse(over, "my.yaml")
    expected = (
        f"my.yaml: {section}.{written}: there is none to change; did you mean '{meant}'? A new one needs its {needs}"
    )
    assert str(caught.value) == expected
    over[section] = {"zzzz": over[section][written]}
    with pytest.raises(CptError, match=rf"{section}\.zzzz.*{needs}'?:? (is )?missing; add it"):
        config.parse(over, "my.yaml")


def test_a_file_that_should_stand_on_another() -> None:
    mine = {"experiment": "mine", "seeds": [1]}
    with pytest.raises(CptError) as caught:
        config.parse(mine, "my.yaml")
    assert str(caught.value) == (
        "my.yaml: backbone, imbalance_ratios, variants, tasks, exhibits: missing; add `extends: config/config.yaml` to "
        "change that experiment"
    )
    assert config.parse(mine | {"extends": "config/config.yaml"}, "my.yaml").experiment == "mine"


def test_an_unknown_key_is_told_before_the_one_that_is_missing() -> None:
    values = copy.deepcopy(BASE)
    values["sedes"] = values.pop("seeds")
    with pytest.raises(CptError, match=r"^my.yaml: sedes: unknown key; did you mean 'seeds'\?$"):
        config.parse(values, "my.yaml")


def test_all_problems_of_a_file_are_told_at_once() -> None:
    below = {"extends": "config/config.yaml"}
    with pytest.raises(CptError) as caught:
        build(below | {"seeds": ["x"], "n_max": 0, "overrides": [{"sett": {}}], "exhibits": {"tabel2": {"title": "A"}}})
    assert str(caught.value).splitlines() == [
        "my.yaml: overrides.0.sett: unknown key; did you mean 'set'?",
        "my.yaml: seeds.0: 'x': must be a whole number",
        "my.yaml: n_max: 0: must be at least 1",
        "my.yaml: exhibits.tabel2: there is none to change; did you mean 'table2'? A new one needs its kind",
    ]
    with pytest.raises(CptError) as caught:
        build(
            below
            | {"tasks": {"base_to_new": {"datasets": ["lnd"]}}, "overrides": [{"methods": ["copo"], "set": {}}]}
            | {"variants": {"cpt": {"method": "ivpl"}}}
        )
    assert str(caught.value).splitlines() == [
        "my.yaml: variants.cpt.method: unknown method 'ivpl'; did you mean 'ivlp'?",
        "my.yaml: tasks.base_to_new.datasets: unknown dataset 'lnd'; did you mean 'land'?",
        "my.yaml: overrides.0.methods: unknown method 'copo'; did you mean 'coop'?",
    ]
    with pytest.raises(CptError) as caught:
        build(below | {"exhibits": {"table2": {"variants": ["x"]}, "table3": {"datasets": ["shapes"]}}})
    assert [line[:27] for line in str(caught.value).splitlines()] == [
        "my.yaml: exhibits.table2.va",
        "my.yaml: exhibits.table3.da",
    ]


def told(values: dict[str, Any]) -> tuple[config.Config, list[str]]:
    """A configuration on top of the default one, and its notices."""
    said: list[str] = []
    made = config.parse({"extends": "config/config.yaml", "experiment": "mine", **values}, "my.yaml", said.append)
    grid.build(made, "my.yaml")
    return made, said


def test_inherited_exhibits_that_no_longer_fit_are_left_out_with_one_notice() -> None:
    tasks = {"base_to_new": {"datasets": ["shapes", "land"]}, "cross_dataset": None}
    made, said = told({"tasks": tasks, "variants": {"coop": None}})
    assert said == [
        "my.yaml: left out, because it no longer fits: table3 (no task cross_dataset); table5, figure1, figure2, figure5, "
        "figure6 (no dataset world); figure3, figure4 (no dataset flowers); task cross_dataset of table1; row coop of "
        "table2, table2b, table4, table6, table7, figure7, figure8"
    ]
    assert set(made.exhibits) == {"table1", "table2", "table2b", "table4", "table6", "table7", "figure7", "figure8"}
    assert made.exhibits["table2"].variants == ["zeroshot", "ivlp", "cpt"]


def test_exhibits_that_a_file_names_itself_are_refused_where_they_do_not_fit() -> None:
    tasks = {"base_to_new": {"datasets": ["shapes"]}}
    for asked in ({"exhibits": {"figure3": {"title": "A"}}}, {"only": ["figure3"]}):
        with pytest.raises(CptError) as caught:
            told({"tasks": tasks, **asked})
        message = str(caught.value)
        assert message.startswith(
            "my.yaml: exhibits.figure3.datasets: none of flowers belongs to the task base_to_new; "
        )
    fix = yaml.safe_load(message[message.index("exhibits: {") :])
    assert fix == {"exhibits": {"figure3": None}}
    assert "figure3" not in told({"tasks": tasks, **fix})[0].exhibits


def test_another_catalog_leaves_out_what_it_lacks(tmp_path: Path) -> None:
    entry = yaml.safe_load(Path("config/datasets.yaml").read_text())["land"]
    catalog = tmp_path / "mine.yaml"
    catalog.write_text(yaml.safe_dump({"land": entry}))
    made, said = told({"catalog": str(catalog)})
    assert made.tasks.base_to_new is not None
    assert made.tasks.base_to_new.datasets == ["land"]
    assert made.tasks.cross_dataset is None
    assert {run.dataset for run in grid.build(made, "my.yaml").runs.values()} == {"land"}
    assert len(said) == 1


def test_only_some_exhibits() -> None:
    made, said = told({"only": ["table2", "figure8"]})
    assert list(made.exhibits) == ["table2", "figure8"]
    assert said == []
    whole, runs = build({"extends": "config/config.yaml", "experiment": "mine"}), grid.build(made, "my.yaml").runs
    assert len(runs) < len(whole.runs)
    assert runs.keys() <= whole.runs.keys()
    with pytest.raises(CptError, match=r"^my.yaml: only: unknown exhibit 'tabel2'; did you mean 'table2'\?$"):
        told({"only": ["tabel2"]})


def test_an_exhibit_that_only_of_a_file_below_leaves_out(tmp_path: Path) -> None:
    below = tmp_path / "below.yaml"
    below.write_text("extends: config/config.yaml\nonly: [table2]\n")
    mine = {"extends": str(below), "exhibits": {"table3": {"title": "A"}}}
    with pytest.raises(CptError) as caught:
        config.parse(mine, "my.yaml")
    message = str(caught.value)
    assert message == "my.yaml: exhibits.table3: `only` of a file below leaves it out; add `only: [table2, table3]`"
    assert set(config.parse(mine | yaml.safe_load(message.split("`")[3]), "my.yaml").exhibits) == {"table2", "table3"}


def test_the_fix_of_a_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CptError) as caught:
        config.load([Path("config/pilto.yaml")])
    message = "config/pilto.yaml: no such configuration file; did you mean config/pilot.yaml?"
    assert str(caught.value) == message
    monkeypatch.chdir(tmp_path)
    for path in ("config/config.yaml", "my.yaml"):
        with pytest.raises(CptError, match=f"{path}: no such configuration file; run it in the project's folder$"):
            config.load([Path(path)])
    with pytest.raises(CptError, match=r"datasets.yaml: not found; run it in the project's folder$"):
        load_catalog(Path("config/datasets.yaml"))


RULES = BASE["overrides"]


@pytest.mark.parametrize(
    ("own", "kept", "notice"),
    [
        ({"overrides": [{"set": {"epochs": 1}}]}, RULES, "overrides replace what {} sets: epochs of "),
        ({"overrides": [{"methods": ["coop"], "set": {"learning_rate": 1}}]}, RULES, "overrides replace what {} sets: learning_rate of coop"),
        ({"overrides": [{"methods": ["coop"], "datasets": ["textures", "land"], "set": {"learning_rate": 1}}]}, RULES,
         "overrides replace what {} sets: learning_rate of coop on land, textures"),
        ({"overrides": [{"datasets": ["land"], "set": {"momentum": 0.8}}]}, RULES, None),
        ({"overrides": RULES}, RULES, None),
        ({"overrides": []}, RULES, None),
        ({}, RULES, None),
        ({"overrides": None}, [], f"overrides: the {len(RULES)} rules of {{}} are dropped, as the file says"),
        ({"inherit_overrides": False}, [], f"overrides: the {len(RULES)} rules of {{}} are dropped, as the file says"),
        ({"inherit_overrides": False, "overrides": RULES[:2]}, [], f"overrides: the {len(RULES)} rules of {{}} are dropped"),
    ],
)  # fmt: skip
def test_overrides_are_added_to_those_below_unless_one_says_otherwise(
    tmp_path: Path, own: dict[str, Any], kept: list[Any], notice: str | None
) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(own))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump({"extends": "config/config.yaml", **own}))
    for paths, below in (
        ([Path("config/config.yaml"), tmp_path / "a.yaml"], "the files before it"),
        ([tmp_path / "b.yaml"], "config/config.yaml"),
    ):
        said: list[str] = []
        made = config.load(paths, said.append)
        assert [rule.set for rule in made.overrides] == [rule["set"] for rule in [*kept, *(own.get("overrides") or [])]]
        assert len(said) == (notice is not None)
        start = f"{paths[-1]}: {(notice or '').format(below)}"
        assert notice is None or said[0].startswith(start)
        assert not any("\n" in line for line in said)


def test_a_rule_of_one_method_changes_only_its_runs() -> None:
    """The first change that most make."""
    before = set(build({"extends": "config/config.yaml"}).runs)
    rule = {"methods": ["coop"], "datasets": ["flowers"], "set": {"learning_rate": 0.01}}
    after = set(build({"extends": "config/config.yaml", "overrides": [rule]}).runs)
    assert before - after
    assert {tuple(run.split("/")[1:4:2]) for run in before - after} == {
        ("flowers", "coop-" + run.split("coop-")[1][:8]) for run in before - after
    }


def test_a_method_that_no_rule_names_is_told_of() -> None:
    """The experiment's epochs are chosen method by method: a new one would train with its own."""
    rules = [{"methods": ["coop"], "set": {"epochs": 3}}, {"methods": ["cpt", "ivlp"], "set": {"batch_size": 8}}]
    below = {"extends": "config/config.yaml", "inherit_overrides": False, "only": ["table2"]}
    table = {"table2": {"variants": ["zeroshot", "coop", "maple", "cpt"]}}

    def said(rules: list[Any], **changes: Any) -> list[str]:
        lines: list[str] = []
        templates = {"set": {"templates": "single"}}
        made = config.parse(below | {"overrides": [*rules, templates], "exhibits": table, **changes}, "my.yaml")
        grid.build(made, "my.yaml", lines.append)
        return lines

    (line,) = said(rules)
    assert line.startswith("my.yaml: overrides choose epochs for other methods and name maple nowhere, so it trains")
    assert said([*rules, yaml.safe_load("{" + line.split("`")[3] + ", set: {epochs: 5}}")]) == []
    assert said([*rules, {"set": {"epochs": 2}}]) == []
    assert said(rules, variants={"maple": {"set": {"epochs": 5}}}) == []


def test_rules_that_a_file_in_between_drops_stay_dropped(tmp_path: Path) -> None:
    for name, values in {
        "a": {"extends": "config/config.yaml", "overrides": None},
        "b": {"extends": f"{tmp_path}/a.yaml", "overrides": [{"set": {"epochs": 2}}]},
        "c": {"overrides": [{"set": {"epochs": 3}}]},
    }.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    rules = config.load([tmp_path / "b.yaml", tmp_path / "c.yaml"]).overrides
    assert [rule.set for rule in rules] == [{"epochs": 2}, {"epochs": 3}]
    rules = config.load([tmp_path / "a.yaml", tmp_path / "c.yaml"]).overrides
    assert [rule.set for rule in rules] == [{"epochs": 3}]


def test_a_wrong_rule_is_counted_in_its_own_file() -> None:
    below = {"extends": "config/config.yaml"}
    for rule, message in (
        ({"sett": {}}, "my.yaml: overrides.0.sett: unknown key; did you mean 'set'?"),
        ({"set": {"epoch": 1}}, "my.yaml: overrides.0.set.epoch: unknown hyperparameter; did you mean 'epochs'?"),
        ({"set": {"epochs": "x"}}, "my.yaml: overrides.0.set.epochs: 'x': must be a whole number"),
    ):
        with pytest.raises(CptError) as caught:
            build(below | {"overrides": [rule]})
        assert str(caught.value) == message


def test_shipped_configurations_say_nothing() -> None:
    for path in Path("config").glob("[!dp]*.yaml"):
        if path.name != "variants.yaml":
            said: list[str] = []
            config.load([path], said.append)
            assert said == []


def test_json_is_a_configuration_too(tmp_path: Path) -> None:
    """As a script writes it, small numbers and tabs included."""
    rules = [*RULES, {"set": {"weight_decay": 1e-5}}]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"extends": "config/config.yaml", "overrides": rules}, indent="\t"))
    assert "1e-05" in path.read_text()
    runs = grid.build(config.load([path]), "mine.json").runs.values()
    assert {run.hyperparameters.weight_decay for run in runs if run.method == "ivlp"} == {1e-5}


def test_paths_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = Path("config/config.yaml").absolute()
    (tmp_path / "below.yaml").write_text(f"extends: {below}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    backbone = {"architecture": "~/a.json", "pretrained": "~/b.safetensors"}
    made = config.parse({"extends": "~/below.yaml", "catalog": "~/c.yaml", "backbone": backbone}, "my.yaml")
    assert made.catalog == f"{tmp_path}/c.yaml"
    assert made.backbone.architecture == f"{tmp_path}/a.json"
    assert made.backbone.pretrained == f"{tmp_path}/b.safetensors"


@settings(deadline=None)
@given(
    part=st.sampled_from(["a", "0", "ab", "aab", "abcde"]),
    count=st.integers(1, 60),
    rest=st.sampled_from(["", "a", "b-c"]),
)
def test_a_name_is_taken_where_snakemake_takes_it(part: str, count: int, rest: str) -> None:
    from snakemake.io import PeriodicityDetector

    name = part * count + rest
    detector = PeriodicityDetector()
    endless = any(detector.is_periodic(name[: i + 1]) for i in range(len(name)))
    why: Any = contextlib.nullcontext()
    if endless or len(name) > 100:
        why = pytest.raises(CptError, match=r"repeats itself 20 times|has \d+ letters")
    with why:
        config.parse(BASE | {"experiment": name}, "my.yaml")


def test_a_task_that_is_not_declared() -> None:
    values = copy.deepcopy(BASE)
    del values["tasks"]["cross_dataset"]
    with pytest.raises(CptError, match=r"add tasks.cross_dataset"):
        build(values)


@pytest.mark.parametrize(
    "name",
    sorted(
        {str(path.relative_to("config")) for path in Path("config").rglob("*.yaml") if path.parent.name != "backbones"}
        - {"datasets.yaml", "variants.yaml", "published_claims.yaml"}
    ),
)
def test_every_shipped_configuration_resolves(name: str) -> None:
    path = Path("config") / name
    resolved = grid.build(config.load([path]), name)
    assert resolved.runs
    assert resolved.root == f"results/{resolved.config.experiment}"


def test_later_files_win(tmp_path: Path) -> None:
    over = tmp_path / "over.yaml"
    over.write_text("seeds: [7]\nbackbone: {name: other}\nexhibits: {table5: null}\n")
    merged = config.load([Path("config/config.yaml"), over])
    assert merged.seeds == [7]
    assert merged.backbone.name == "other"
    assert merged.backbone.architecture == "embedded"
    assert "table5" not in merged.exhibits
    on_top = tmp_path / "top.yaml"
    on_top.write_text("extends: config/config.yaml\nseeds: [7]\n")
    assert config.load([on_top]).seeds == [7]


@pytest.mark.parametrize(("text", "message"), [("a: [", "not valid YAML"), ("- 1", "must be a mapping")])
def test_not_a_configuration(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(CptError, match=message):
        config.load([path])
    with pytest.raises(CptError, match="no such configuration file"):
        config.load([tmp_path / "absent.yaml"])


def test_schema_is_in_step() -> None:
    stored = Path("workflow/schemas/config.schema.json").read_text()
    assert stored == config.schema(), "run `make generated`"


def test_equal_hyperparameters_train_once() -> None:
    runs = build(BASE).runs
    assert len({run.id for run in runs.values()}) == len(runs)
    exhibits = build(BASE).exhibits
    same = {"spherical": set(), "cpt": set()}
    for cell in exhibits["table5"]["cells"]:
        if cell["row"] == "spherical" and cell["ratio"] == 0.06:
            same["spherical"] |= set(cell["runs"])
    for cell in exhibits["table2"]["cells"]:
        if cell["row"] == "cpt" and cell["ratio"] == 0.06 and cell["dataset"] == "world":
            same["cpt"] |= set(cell["runs"])
    assert same["spherical"] == same["cpt"]


@settings(max_examples=25, deadline=None)
@given(a=st.floats(0, 1), b=st.floats(0, 1), noise=st.booleans())
def test_runs_are_equal_exactly_when_hyperparameters_are(a: float, b: float, noise: bool) -> None:
    values = copy.deepcopy(BASE)
    values["variants"] = {
        "one": {"method": "cpt", "set": {"tetf_weight": a}},
        "two": {
            "method": "cpt",
            "label": "another label",
            "set": {"tetf_weight": b, **({"cc_weight": 0.15} if noise else {})},
        },
    }
    values["exhibits"] = {
        "table2": BASE["exhibits"]["table2"]
        | {"variants": ["one", "two"], "datasets": ["land"], "ratios": [1.0], "seeds": [1]}
    }
    assert len(build(values).runs) == (1 if a == b else 2)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), method=st.sampled_from(registry.names()))
def test_a_run_is_called_by_what_its_hyperparameters_resolve_to(data: st.DataObject, method: str) -> None:
    """Whatever of the defaults is spelled out, in any order, integers for whole floats: one key. A change: another."""
    kind = registry.get(method).hyperparameters
    defaults = kind().model_dump()
    spelled = data.draw(st.permutations(sorted(defaults)).flatmap(lambda names: st.sampled_from([names, names[::2]])))
    values = {
        name: int(defaults[name])
        if isinstance(defaults[name], float) and defaults[name].is_integer()
        else defaults[name]
        for name in spelled
    }

    def key(hp: Hyperparameters) -> str:
        return Run("base_to_new", "land", 1.0, method, hp, 1).key

    assert key(kind(**values)) == key(kind())
    numbers = [name for name, value in defaults.items() if type(value) in (int, float)]
    if not numbers:
        return
    name = data.draw(st.sampled_from(sorted(numbers)))
    factor = data.draw(st.sampled_from([-0.0, 0.5, 1, 2, 3]))
    try:
        changed = kind(**{name: type(defaults[name])(factor * defaults[name])})
    except ValidationError:
        return
    assert (key(changed) == key(kind())) == (changed == kind())
    assert key(kind.model_validate_json(changed.model_dump_json())) == key(changed)


def places(values: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a configuration can be changed: every key and every item."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [place for key, inner in items for place in [(*above, key), *places(inner, (*above, key))]]


WRONG = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([-(2**70), 2**63, 2**70]), st.dates(), st.floats(), st.text(max_size=4), st.just([]), st.just({}),
    st.lists(st.just({"?": "\n"}), min_size=1, max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(place=st.sampled_from(places(BASE)), value=WRONG)
def test_whatever_stands_anywhere_is_taken_or_refused_in_a_line_per_problem(place: tuple[Any, ...], value: Any) -> None:
    values = copy.deepcopy(BASE)
    section: Any = values
    for part in place[:-1]:
        section = section[part]
    section[place[-1]] = value
    message = "my.yaml: none"
    try:
        build(values)
    except CptError as refused:
        message = str(refused)
    assert all(line.startswith("my.yaml: ") for line in message.splitlines()) or place == ("catalog",)


def test_adding_a_seed_only_adds() -> None:
    before, after = build(BASE).runs, build(changed("seeds", [1, 2, 3])).runs
    assert set(before) < set(after)
    assert all(before[name].targets == after[name].targets for name in before)


def test_one_hyperparameter_changes_only_its_runs() -> None:
    before = set(build(BASE).runs)
    after = set(build(changed("variants.tetf_rs.set", {"cc_weight": 0, "rs_weight": 0.11})).runs)
    gone = before - after
    assert gone
    keys = {run.split("/")[3] for run in gone}
    assert len(keys) == 2  # the two protocols of the one variant
    assert all(run.split("/")[3].startswith("cpt-") for run in gone)


def test_untrained_methods_run_once() -> None:
    zero = [run for run in build(BASE).runs.values() if run.method == "zeroshot"]
    assert len(zero) == len({(run.protocol, run.dataset) for run in zero})
    assert {(run.ratio, run.seed) for run in zero} == {(1.0, 0)}


def test_untrained_methods_that_see_the_training_images_run_for_each_training_set() -> None:
    values = changed("variants.zeroshot", {"method": "ss_text"})
    found = [run for run in build(values).runs.values() if run.method == "ss_text"]
    assert {(run.ratio, run.seed) for run in found} >= {(1.0, 1), (1.0, 2), (0.06, 1), (0.06, 2)}
    assert (found[0].dataset, "train") in build(values).frozen_image_parts(found[0])


def test_grid_names_what_a_run_needs() -> None:
    resolved = build(BASE)
    content = resolved.as_json()
    assert content["schema"] == "cpt.grid/5"
    by_method = {run["method"]: run for run in content["runs"]}
    assert by_method["cpt"]["clusters"].startswith("clusters/")
    assert by_method["ivlp"]["clusters"] is None
    frozen = {run.method: resolved.frozen_image_parts(run) for run in resolved.runs.values()}
    assert frozen["cpt"] == []
    assert any(part == "train" for _, part in frozen["coop"])
    assert all(part == "test" for _, part in frozen["zeroshot"])
    assert grid.digest(resolved) == grid.digest(build(BASE))
    assert grid.digest(resolved) != grid.digest(build(changed("seeds", [3])))


def test_the_full_grid_has_the_rows_of_the_paper() -> None:
    full = grid.build(config.load([Path("config/embedded_full.yaml")]), "full").exhibits
    rows = {name: [row["label"] for row in exhibit["rows"]] for name, exhibit in full.items()}
    printed = {"MaPLe", "CoPrompt", "NPT", "DeKg", "DPC", "CPT"}
    beside = {
        "Zero-shot CLIP",
        "IVLP",
        "PromptSRC",
        "LAMP from its abstract",
        "IVLP + logit adjustment",
        "CPT + logit adjustment",
    }
    for name, more in (("table2", set()), ("table3", set()), ("table4", {"CoCoOp"})):
        assert printed | beside | more <= set(rows[name]), name
    assert rows["figure1"] == ["Zero-shot CLIP", "NPT", "CPT"]
    assert rows["figure4"] == ["CoOp", "Global-ETF PT", "CPT without RS", "CPT"]
    notes = {row["label"]: row["note"] for row in full["table2"]["rows"]}
    assert {label for label, note in notes.items() if note == "reconstruction"} == {"NPT", "LAMP from its abstract"}


def test_defaults_by_protocol_and_dataset() -> None:
    kind = registry.get("promptsrc").hyperparameters

    def average(protocol: str, dataset: str, **own: Any) -> tuple[float, float]:
        hp: Any = resolve(kind, protocol, dataset, own)
        return hp.average_mean, hp.average_std

    assert average("base_to_new", "dtd") == (15, 1)
    assert average("all_classes", "imagenet") == (6, 10)
    assert average("few_shot", "food101") == (30, 30)
    assert average("few_shot", "dtd") == (45, 5)
    assert average("few_shot", "dtd", average_std=7) == (45, 7)


def test_a_missing_file_of_descriptions_is_refused(tmp_path: Path) -> None:
    catalog = yaml.safe_load(Path("config/datasets.yaml").read_text())
    (tmp_path / "classes").symlink_to(Path("config/classes").absolute())
    file = tmp_path / "land.json"
    catalog["land"]["descriptions"] = str(file)
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump(catalog))
    values = BASE | {"catalog": str(tmp_path / "datasets.yaml")}
    assert build(values).runs, "nothing shown needs descriptions"
    values = copy.deepcopy(values)
    values["exhibits"]["table2"]["variants"] = ["coprompt"]
    with pytest.raises(CptError, match=r"land\.descriptions: '.*land\.json': no such file; put it there"):
        build(values)
    file.write_text("{}")
    resolved = build(values)
    used = {resolved.descriptions(run) for run in resolved.runs.values() if run.method == "coprompt"}
    assert "features/land/descriptions-file.safetensors" in used
    assert "features/flowers/descriptions-templates-captions.safetensors" in used


def test_every_method_has_a_variant() -> None:
    assert {variant["method"] for variant in BASE["variants"].values()} == set(registry.names())


def test_fixed_clusters_and_seed() -> None:
    runs = build(changed("variants.cpt.set", {"clusters": 3, "cluster_seed": 9})).runs.values()
    fixed = {run.clusters for run in runs if run.method == "cpt" and run.hyperparameters.clusters == 3}
    assert fixed
    assert all("fixed3" in path and path.endswith("s9.parquet") for path in fixed)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("imbalance_ratios", [0.3333333], "at most six significant digits"),
        ("templates", {"mine": ["no slot"]}, "every template must contain {} exactly once"),
        ("variants.cpt.set", {"templates": "singel"}, "templates: unknown set 'singel'; did you mean 'single'?"),
        ("variants.dpc.set", {"prior": "logit_adjustment"}, "variants.dpc.set.prior: 'logit_adjustment': "),
        ("variants.dpc.set", {"start": "promptscr"}, "no method to start from: 'promptscr'; did you mean 'promptsrc'?"),
        ("variants.dpc.set", {"start": "zeroshot"}, "variants.dpc.set.start: no method to start from: 'zeroshot'"),
        (
            "variants.dpc.set",
            {"start_hyperparameters": {"epoch": 3}},
            "variants.dpc.set.start_hyperparameters.epoch: unknown key",
        ),
        (
            "variants.coprompt.set",
            {"descriptions": "caption"},
            "descriptions: unknown set 'caption'; did you mean 'captions'?",
        ),
        (
            "variants.cpt.set",
            {"prior": "logit_adjustment", "contrast": "in_batch"},
            "variants.cpt.set.contrast: 'in_batch': has no class logits",
        ),
        (
            "variants.cpt.set",
            {"reweight": "generalized", "contrast": "in_batch"},
            "variants.cpt.set.contrast: 'in_batch': has no class logits for reweight: generalized; set reweight: none",
        ),
        (
            "variants.cpt.set",
            {"loss": "focal", "prior": "logit_adjustment"},
            "variants.cpt.set.loss: 'focal': does not go together with prior: logit_adjustment; set prior: none",
        ),
        ("variants.dpc.set", {"loss": "focal"}, "variants.dpc.set.loss: 'focal': must be 'cross_entropy'"),
        ("variants.dpc.set", {"focal_gamma": 1.0}, "has no effect with loss: cross_entropy; delete it"),
        ("variants.cpt.set", {"tetf_weight": float("inf")}, "variants.cpt.set.tetf_weight: inf: "),
        ("tasks.base_to_new.datasets", ["world_v2"], "'world_v2' is a shift with test images only"),
        ("tasks.cross_dataset.targets", ["world", "land"], "'world' is the source; it is tested anyway"),
        ("exhibits.figure3.sweep", {"clustering": ["spherical"]}, "exhibits.figure3.sweep.clustering.0"),
        (
            "exhibits.table6.measures",
            ["tial"],
            "exhibits.table6.measures: unknown measure 'tial'; did you mean 'tail'?",
        ),
        ("exhibits.table6.measures", [], "measures are for the layout 'measures', which needs them"),
        ("exhibits.table2.measures", ["tail"], "measures are for the layout 'measures', which needs them"),
        ("exhibits.table2b.tasks", ["few_shot"], "the layout 'base_new' is of the task base_to_new"),
        ("exhibits.table6.tasks", ["cross_dataset"], "the layout 'measures' is of the task base_to_new"),
        ("exhibits.table2.reference", "cptt", "exhibits.table2: reference 'cptt' is no row; did you mean 'cpt'?"),
        ("exhibits.figure6.measures", ["tail"], "unknown measure 'tail'"),
        ("class_groups", {"head": 0}, "class_groups.head: 0: "),
        ("class_groups", {"middle": 1}, "class_groups.middle: unknown key"),
    ],
)
def test_impossible_plans_are_refused(path: str, value: Any, expected: str) -> None:
    with pytest.raises(CptError) as caught:
        build(changed(path, value))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_dataset_whose_catalog_names_one_class_cannot_be_halved(tmp_path: Path) -> None:
    entry = {"title": "One", "layout": "folders", "root": "one", "class_names": ["ant"]}
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump({"one": entry}))
    values = changed("tasks", {"base_to_new": {"datasets": ["one"]}}) | {"catalog": str(tmp_path / "datasets.yaml")}
    values["exhibits"] = {"table2": values["exhibits"]["table2"]}
    with pytest.raises(CptError, match=r"tasks.base_to_new.datasets: 'one' has one class, and base_to_new needs two"):
        build(values)
    entry["class_names"] = ["ant", "bee"]
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump({"one": entry}))
    assert build(values).runs


def test_files_that_extend_themselves(tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text(f"extends: {path}\n")
    with pytest.raises(CptError, match=r"extends itself; name another file$"):
        config.load([path])
    with pytest.raises(CptError, match="cannot be read: Is a directory; give a file that you can read"):
        config.load([tmp_path])
