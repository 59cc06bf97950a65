"""The fairness sheet: what every method was given, so that a reader can judge whether rows are comparable.

On the page it shows the runs of the experiment; ``markdown`` writes the published settings (docs/methods.md).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cpt.files.paths import COSTS, RUNS
from cpt.files.stage_files import read_parquet
from cpt.methods.base.hyperparameters import TrainingHyperparameters, layers
from cpt.report.tables import by_dataset
from cpt.report.words import MISSING, ratio_title
from cpt.results.cells import Results

LEFT_OUT = ("snapshots", "start_hyperparameters")  # no setting of the method; the started method has its own row


class Setting(NamedTuple):
    """One hyperparameter; ``chosen`` says by whom: ``published``, ``ours``, ``this experiment`` or ``started run``."""

    name: str
    value: str
    description: str
    source: str
    chosen: str


class Given(NamedTuple):
    """What one row of the tables was given, in the runs of one cell."""

    id: str
    label: str
    note: str | None
    where: str
    epochs: str
    batch: str
    optimizer: str
    learned: str
    augmentation: str
    knowledge: str
    texts: str
    images: str
    frozen_images: str
    seconds: str
    source: str
    settings: list[Setting]


def fairness(results: Results, runs: Path, costs: Path) -> list[Given]:
    """Return one entry per row of all tables and figures, from its first cell that has finished runs.

    Args:
        results: the grid with its metrics.
        runs: runs.parquet, which holds the hyperparameters.
        costs: costs.parquet.

    Raises:
        CptError: a file is missing or damaged.
    """
    spent = {row["run"]: row for row in read_parquet(costs, COSTS)[0].to_pylist()}
    table, _ = read_parquet(runs, RUNS)
    hyperparameters = dict(zip(table["run"].to_pylist(), table["hyperparameters"].to_pylist(), strict=True))
    found: dict[str, Given] = {}
    exhibits = sorted(results.grid["exhibits"].values(), key=lambda e: (not by_dataset(e), e["name"]))
    for exhibit in exhibits:
        for row in exhibit["rows"]:
            for cell in exhibit["cells"]:
                finished = [run for run in cell["runs"] if run in spent]
                own = cell["row"] == row["id"] and cell["parameter"] is None
                if own and finished and row["id"] not in found:
                    values = json.loads(hyperparameters[finished[0]])
                    found[row["id"]] = _given(results, row, cell, values, [spent[run] for run in finished], spent)
    return list(found.values())


def _given(
    results: Results,
    row: Mapping[str, Any],
    cell: Mapping[str, Any],
    values: dict[str, Any],
    costs: list[dict[str, Any]],
    spent: Mapping[str, Mapping[str, Any]],
) -> Given:
    """Describe a row by the runs of one of its cells, whose costs are given; ``spent`` has those of started runs."""
    run, cost = results.run(costs[0]["run"]), costs[0]
    facts = results.grid["methods"][run["method"]]
    trains = "epochs" in values

    def step(kind: str) -> str:
        return f"{cost[f'{kind}_per_step']:.1f}".removesuffix(".0") if trains else MISSING

    def seconds(one: Mapping[str, Any]) -> float:
        start = results.run(one["run"])["start"]
        return one["seconds"] + (spent[start]["seconds"] if start else 0)

    return Given(
        id=row["id"],
        label=row["label"],
        note=row["note"],
        where=f"{results.dataset_title(run['dataset'])}, {ratio_title(cell['ratio'])}",
        epochs=_epochs(values) if trains else MISSING,
        batch=str(values["batch_size"]) if trains else MISSING,
        optimizer=f"{values['optimizer'].upper()} {values['learning_rate']:g}" if trains else MISSING,
        learned=f"{cost['learnable_parameters']:,}",
        augmentation=cost["augmentation"] if trains else MISSING,
        knowledge=_knowledge(values) if cost["text_knowledge"] == "none" else cost["text_knowledge"],
        texts=step("texts"),
        images=step("images"),
        frozen_images=step("frozen_images"),
        seconds=f"{statistics.median(map(seconds, costs)):.1f}" if trains else MISSING,
        source=facts["source"],
        settings=[
            Setting(
                name,
                _shown(value),
                about["description"],
                about["source"],
                "started run" if name == "templates" and run["start"] else _chosen(facts, run, name, value),
            )
            for name, value in values.items()
            if name not in LEFT_OUT
            for about in [facts["hyperparameters"][name]]
        ],
    )


def _epochs(values: Mapping[str, Any]) -> str:
    """Epochs of a run, behind those of the run that it starts from."""
    start = values.get("start_hyperparameters")
    return f"{start['epochs']} + {values['epochs']}" if start else str(values["epochs"])


def _knowledge(values: Mapping[str, Any]) -> str:
    """Text beyond the class names in ``a photo of a {}.`` that the frozen features carry."""
    names = {"single": "none", "dataset": "the dataset's template", "ensemble": "60 templates"}
    return names.get(values["templates"], f"templates “{values['templates']}”")


def _chosen(facts: Mapping[str, Any], run: Mapping[str, Any], name: str, value: Any) -> str:
    default = facts["hyperparameters"][name]["default"]
    for layer in layers(facts["protocol_defaults"], facts["dataset_defaults"], run["protocol"], run["dataset"]):
        default = layer.get(name, default)
    if value != default:
        return "this experiment"
    return _origin(facts["hyperparameters"][name]["source"])


def _origin(source: str) -> str:
    return "ours" if source.startswith("ours") else "published"


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

    names = sorted(registry.names(), key=lambda name: (registry.get(name).trains, name))
    introduction = _INTRODUCTION.format(batch=describe.BATCH, classes=describe.CLASSES)
    shared = describe.hyperparameters(TrainingHyperparameters)
    parts = [introduction, _overview(names), _EFFORT, _SETTINGS, _settings(shared, {}, {})]
    return "\n\n".join([*parts, *(_section(name, shared) for name in names)]) + "\n"


_INTRODUCTION = (
    "# Methods: what each is given\n\n"
    "Written by `cpt methods --sheet docs/methods.md`; a test keeps it in step with the code. The page of every "
    "experiment has the same sheet for the runs that were made.\n\n"
    "Published settings: base-to-new / all classes / few-shot where they differ. Learned values: ViT-B/16, "
    "base-to-new. Texts and images: what a training step sends through the towers with gradients, and frozen images "
    "without, measured on one step of {batch} images of {classes} classes whatever the method's own batch; with cached "
    "frozen features the last column is 0. Augmentation: the experiment's is a random resized crop with a flip, or "
    "none, and then no method has any. Everything else (backbone, batches, schedule, precision, evaluation) is the "
    "same code for all."
)
_EFFORT = (
    "## Effort on the embedded benchmark\n\n"
    "There the learning rate and epochs of every method but CPT, which takes IVLP's, are chosen by one procedure on "
    "validation images "
    "([embedded.md](embedded.md#equal-effort)). What was tried and chosen, written by `docs/write_numbers.py`:\n\n"
    "<!-- =effort --><!-- / -->"
)
_SETTINGS = (
    "## Settings\n\n"
    "Every trained method has these hyperparameters; its own section lists what it adds or sets otherwise. "
    "*Chosen by us* marks what no publication fixes. A *reconstruction* is built from a description because neither "
    "equations nor code are public: its numbers say little about the original."
)


def _overview(names: list[str]) -> str:
    from cpt.methods.base import describe, registry

    lines = [
        "| method | epochs | batch | optimizer | learned | augmentation | text knowledge | texts | images "
        "| frozen images |",
        "|:--|--:|--:|:--|--:|:--|:--|--:|--:|--:|",
    ]
    for name in names:
        kind = registry.get(name)
        title = kind.title + (" _(reconstruction)_" if kind.reconstruction else "")
        cells = [f"{title} (`{name}`)"]
        if kind.trains:
            by_protocol = [describe.published(name, protocol).model_dump() for protocol in describe.PROTOCOLS]
            optimizer = [f"{hp['optimizer'].upper()} {hp['learning_rate']:g}" for hp in by_protocol]
            cells += [_varying(list(map(_epochs, by_protocol))), _varying([hp["batch_size"] for hp in by_protocol])]
            cells += [_varying(optimizer), f"{describe.learned_values(name, 'base_to_new'):,}"]
            cells += [f"{kind.views} × {kind.augmentation}" if kind.augmentation else "the experiment's"]
            cells += ["class descriptions" if kind.needs_descriptions else _knowledge(by_protocol[0])]
            encoded = describe.encoded_per_step(name)
            cells += [f"{encoded[key]:g}" for key in ("texts", "images", "frozen_images")]
        else:
            knowledge = _knowledge(describe.published(name, "base_to_new").model_dump())
            cells += [MISSING, MISSING, MISSING, "0", MISSING, knowledge, MISSING, MISSING, MISSING]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _settings(fields: Mapping[str, Any], by_protocol: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    """A table of hyperparameters, without those that are as in ``shared`` under every protocol."""
    lines = ["| hyperparameter | value | meaning | source | chosen by us |", "|:--|:--|:--|:--|:--|"]
    for field, about in fields.items():
        value = _over_protocols(field, about["default"], by_protocol)
        if field in LEFT_OUT or (about == shared.get(field) and value == _shown(about["default"])):
            continue
        ours = "yes" if _origin(about["source"]) == "ours" else ""
        lines.append(f"| `{field}` | {value} | {_cell(about['description'])} | {_cell(about['source'])} | {ours} |")
    return "\n".join(lines)


def _section(name: str, shared: Mapping[str, Any]) -> str:
    from cpt.methods.base import describe

    facts = describe.facts(name)
    mark = " (reconstruction)" if facts["reconstruction"] else ""
    lines = [
        f"### {facts['title']} · `{name}`{mark}",
        f"{facts['summary'][:1].upper()}{facts['summary'][1:]}. Source: {facts['source']}.",
        _settings(facts["hyperparameters"], facts["protocol_defaults"], shared),
    ]
    if facts["dataset_defaults"]:
        lines.append("Trained on these datasets it differs:")
        lines.append(
            "\n".join(
                f"- `{dataset}`: " + ", ".join(f"`{field}` {_shown(value)}" for field, value in own.items())
                for dataset, own in facts["dataset_defaults"].items()
            )
        )
    return "\n\n".join(lines)


def _over_protocols(field: str, default: Any, by_protocol: Mapping[str, Any]) -> str:
    from cpt.methods.base.describe import PROTOCOLS

    return _varying([_shown(by_protocol.get(protocol, {}).get(field, default)) for protocol in PROTOCOLS])


def _varying(values: list[Any]) -> str:
    return str(values[0]) if len(set(values)) == 1 else " / ".join(map(str, values))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
