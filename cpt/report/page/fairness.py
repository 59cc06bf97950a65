"""The fairness sheet: what every method was given, so that a reader can judge whether rows are comparable.

On the page it shows the runs of the experiment; ``markdown`` writes the published settings (docs/methods.md).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from cpt.files.paths import COSTS
from cpt.files.stage_files import read_parquet
from cpt.methods.base.hyperparameters import TrainingHyperparameters, layers
from cpt.report.tables import by_dataset
from cpt.report.templates import templates
from cpt.report.words import MISSING, ratio_title
from cpt.results.cells import Results, hyperparameters

LEFT_OUT = ("snapshots", "start_hyperparameters")  # no setting of the method; the started method has its own row


def fairness(results: Results) -> list[dict[str, Any]]:
    """Return what every row of the tables and figures was given, in the runs of its first cell that has finished ones.

    A row's ``settings`` are its hyperparameters; ``chosen`` says by whom: ``published``, ``ours``, ``this experiment``
    or ``started run``.

    Raises:
        CptError: runs.parquet or costs.parquet is missing or damaged.
    """
    spent = {row["run"]: row for row in read_parquet(results.gathered / "costs.parquet", COSTS)[0].to_pylist()}
    values = hyperparameters(results)
    found: dict[str, dict[str, Any]] = {}
    exhibits = sorted(results.grid["exhibits"].values(), key=lambda e: (not by_dataset(e), e["name"]))
    for exhibit in exhibits:
        for row in exhibit["rows"]:
            for cell in exhibit["cells"]:
                finished = [run for run in cell["runs"] if run in spent]
                own = cell["row"] == row["id"] and cell["parameter"] is None
                if own and finished and row["id"] not in found:
                    given = _given(results, finished, values[finished[0]], spent)
                    where = f"{given.pop('dataset')}, {ratio_title(row.get('imbalance_ratio', cell['ratio']))}"
                    found[row["id"]] = {**given, **row, "where": where}
    return list(found.values())


def _given(
    results: Results, runs: list[str], values: dict[str, Any], spent: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What the runs of a cell were given, with these hyperparameters; ``spent`` holds the costs of all runs."""
    run, cost = results.run(runs[0]), spent[runs[0]]
    facts = results.grid["methods"][run["method"]]
    given = {
        "dataset": results.dataset_title(run["dataset"]),
        "learned": f"{cost['learnable_parameters']:,}",
        "knowledge": knowledge(values, cost),
        "source": facts["source"],
        "settings": [_setting(facts, run, name, value) for name, value in values.items() if name not in LEFT_OUT],
    }
    if "epochs" not in values:
        trained = ("epochs", "batch", "optimizer", "augmentation", "texts", "images", "frozen_images", "seconds")
        return given | dict.fromkeys(trained, MISSING)
    starts = [results.run(name)["start"] for name in runs]
    seconds = [
        spent[name]["seconds"] + (spent[start]["seconds"] if start else 0)
        for name, start in zip(runs, starts, strict=True)
    ]
    encoded = {kind: cost[f"{kind}_per_step"] for kind in ("texts", "images", "frozen_images")}
    return given | {
        "epochs": _epochs(values),
        "batch": str(values["batch_size"]),
        "optimizer": _optimizer(values),
        "augmentation": cost["augmentation"],
        **{kind: f"{count:.1f}".removesuffix(".0") for kind, count in encoded.items()},
        "seconds": f"{statistics.median(seconds):.1f}",
    }


def knowledge(values: Mapping[str, Any], cost: Mapping[str, Any]) -> str:
    """Return what a run knew of its classes beyond their names: by its hyperparameters, and by its row of costs."""
    return _knowledge(values) if cost["text_knowledge"] == "none" else cost["text_knowledge"]


def _setting(facts: Mapping[str, Any], run: Mapping[str, Any], name: str, value: Any) -> dict[str, str]:
    """One hyperparameter of a run, and who chose its value."""
    about = facts["hyperparameters"][name]
    default = about["default"]
    for layer in layers(facts["protocol_defaults"], facts["dataset_defaults"], run["protocol"], run["dataset"]):
        default = layer.get(name, default)
    chosen = "ours" if about["source"].startswith("ours") else "published"
    if value != default:
        chosen = "this experiment"
    if name == "templates" and run["start"]:
        chosen = "started run"
    return {
        "name": name,
        "value": _shown(value),
        "description": about["description"],
        "source": about["source"],
        "chosen": chosen,
    }


def _epochs(values: Mapping[str, Any]) -> str:
    """Epochs of a run, behind those of the run that it starts from."""
    start = values.get("start_hyperparameters")
    return f"{start['epochs']} + {values['epochs']}" if start else str(values["epochs"])


def _optimizer(values: Mapping[str, Any]) -> str:
    return f"{values['optimizer'].upper()} {values['learning_rate']:g}"


def _knowledge(values: Mapping[str, Any]) -> str:
    """Text beyond the class names in ``a photo of a {}.`` that the frozen features carry."""
    names = {"single": "none", "dataset": "the dataset's template", "ensemble": "60 templates"}
    return names.get(values["templates"], f"templates “{values['templates']}”")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return MISSING
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---- docs/methods.md ---------------------------------------------------------------------------


def markdown() -> str:
    """Return the sheet of all methods with their published settings, learned values and measured passes."""
    from cpt.methods.base import describe, registry

    names = sorted(registry.built_in(), key=lambda name: (registry.get(name).trains, name))
    shared = describe.hyperparameters(TrainingHyperparameters)
    methods = []
    for name in names:
        facts = describe.facts(name)
        by_dataset = {
            dataset: {field: _shown(value) for field, value in own.items()}
            for dataset, own in facts["dataset_defaults"].items()
        }
        settings = _published_settings(facts["hyperparameters"], facts["protocol_defaults"], shared)
        own = {"name": name, "dataset_defaults": by_dataset, "given": _published(name), "settings": settings}
        methods.append(facts | own | _origin(facts["source"]) | {"control": registry.get(name).control})
    template = templates().get_template("templates/methods.md.j2")
    every = _published_settings(shared, {}, {})
    text = template.render(batch=describe.BATCH, classes=describe.CLASSES, shared=every, methods=methods)
    return text.strip() + "\n"


def _origin(source: str) -> dict[str, str]:
    """Cells of a method's row of papers and codes: keys of BibTeX, repositories, and their licenses."""
    from cpt.methods.base import references

    codes = references.codes(source)
    return {
        "papers": ", ".join(f"`{paper.key}`" for paper in references.papers(source)) or MISSING,
        "codes": ", ".join(codes) or MISSING,
        "licenses": ", ".join(dict.fromkeys(codes.values())) or MISSING,
    }


def _published(name: str) -> list[str]:
    """Cells of a method's row: what its published settings give it, protocol by protocol where these differ."""
    from cpt.methods.base import describe, registry

    kind = registry.get(name)
    values = [describe.published(name, protocol).model_dump() for protocol in describe.PROTOCOLS]
    knowledge = "class descriptions" if kind.needs_descriptions else _knowledge(values[0])
    knowledge += ", names of new classes" * kind.needs_new_classes
    if not kind.trains:
        return [MISSING, MISSING, MISSING, "0", MISSING, knowledge, MISSING, MISSING, MISSING]
    encoded = describe.encoded_per_step(name)
    return [
        _varying(map(_epochs, values)),
        _varying(str(hp["batch_size"]) for hp in values),
        _varying(map(_optimizer, values)),
        f"{describe.learned_values(name, 'base_to_new'):,}",
        f"{kind.views} × {kind.augmentation}" if kind.augmentation else "the experiment's",
        knowledge,
        *(f"{encoded[part]:g}" for part in ("texts", "images", "frozen_images")),
    ]


def _published_settings(
    fields: Mapping[str, Any], by_protocol: Mapping[str, Any], shared: Mapping[str, Any]
) -> list[dict[str, str]]:
    """Hyperparameters without those that are as in ``shared`` under every protocol."""
    from cpt.methods.base.describe import PROTOCOLS

    rows = []
    for name, about in fields.items():
        default = about["default"]
        value = _varying(_shown(by_protocol.get(protocol, {}).get(name, default)) for protocol in PROTOCOLS)
        if name not in LEFT_OUT and (about != shared.get(name) or value != _shown(default)):
            told = {key: about[key].replace("|", "\\|") for key in ("description", "source")}
            ours = "yes" if about["source"].startswith("ours") else ""
            rows.append({"name": name, "value": value, **told, "ours": ours})
    return rows


def _varying(values: Iterable[str]) -> str:
    """One value where all are equal."""
    found = list(values)
    return found[0] if len(set(found)) == 1 else " / ".join(found)
