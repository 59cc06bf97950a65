"""Equal effort: one grid of learning rates and epochs for every method that learns, and what is chosen from it.

The rule is in docs/embedded.md; it was written before its result. ``python docs/write_numbers.py`` writes the grid into
config/effort.yaml and the choices into config/config.yaml.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from cpt.experiment import config
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import resolve
from docs.kept import CONFIGS, ROOT, by_dataset, cell, kept, markdown

RATIO = 0.06
"""Imbalance ratio of config/effort.yaml."""
MULTIPLES = (1, 3, 10, 30)
"""Learning rates that are tried, in published ones."""
EPOCHS = (12, 48)
FOLLOWS = {"cpt": "ivlp"}
"""Methods that are not tuned: they take another's choice."""
OTHER_PROTOCOLS = {"all_classes": 8, "few_shot": 25}
"""Epochs for 12 of base-to-new: the paper's of CPT."""


def tuned() -> list[str]:
    """The methods that are tuned: those that learn, in the order of their names."""
    kinds = {name: registry.get(name) for name in registry.built_in()}
    return [name for name, kind in kinds.items() if kind.trains and not kind.control and name not in FOLLOWS]


def published(method: str, protocol: str = "base_to_new") -> Any:
    """A method's published hyperparameters."""
    return resolve(registry.get(method).hyperparameters, protocol, "")


def setting(method: str, epochs: int, multiple: int, protocol: str = "base_to_new") -> dict[str, float]:
    """The hyperparameters that a point of the grid changes; PromptSRC's average keeps its place among the epochs."""
    own = published(method, protocol)
    found = {"epochs": epochs, "learning_rate": _short(multiple * own.learning_rate)}
    if method == "promptsrc":
        found |= {name: _short(getattr(own, name) * epochs / own.epochs) for name in ("average_mean", "average_std")}
    return found


def caches() -> str:
    """Every setting of Tip-Adapter that was tried: H on validation images, mean over the datasets."""
    lines = ["| images of a class | α | β | H, τ = 1 | H, τ = 0.06 |", "|:--|--:|--:|--:|--:|"]
    variants = config.load([ROOT / CONFIGS["tip_adapter"]]).variants
    for row in (row["id"] for row in kept("tip_adapter").exhibit("table2")["rows"]):
        own = variants[row].set
        what = "mean" if own.get("mean_values") else "sum, as published" if own else "none (zero-shot CLIP)"
        cells = [what, *(f"{own[name]:g}" if own else "–" for name in ("alpha", "beta"))]
        cells += [f"{cell('tip_adapter', 'table2', ratio, row):.2f}" for ratio in (1.0, RATIO)]
        lines.append(f"| {' | '.join(cells)} |")
    return markdown(lines)


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _flow(values: Mapping[str, Any]) -> str:
    """A mapping in one line of YAML."""
    pairs = (f"{key}: {_flow(value) if isinstance(value, Mapping) else f'{value:g}'}" for key, value in values.items())
    return f"{{{', '.join(pairs)}}}"


def grid() -> str:
    """The variants of config/effort.yaml."""
    lines = ["variants:"]
    for method in tuned():
        for epochs in EPOCHS:
            for multiple in MULTIPLES:
                values: dict[str, Any] = setting(method, epochs, multiple)
                if method == "dpc":
                    values["start_hyperparameters"] = setting("promptsrc", EPOCHS[0], 1)
                title = f"{method}, {epochs} epochs, {multiple} x"
                name = f"{method}_{epochs}_{multiple}"
                lines.append(f'  {name}: {{method: {method}, label: "{title}", set: {_flow(values)}}}')
    return "\n".join(lines) + "\n"


def rows() -> str:
    """The rows of its table."""
    names = [[f"{method}_{epochs}_{multiple}" for epochs in EPOCHS for multiple in MULTIPLES] for method in tuned()]
    listed = ",\n".join(f"      {', '.join(row)}" for row in names)
    return f"    variants: [\n{listed}\n    ]\n"


class Setting(NamedTuple):
    """A point of the grid: epochs, learning rate in published ones and as it is, H on validation images per dataset."""

    epochs: int
    multiple: int
    learning_rate: float
    values: list[float]

    @property
    def mean(self) -> float:
        """Mean H over the datasets."""
        return statistics.fmean(self.values)


@cache
def tried() -> dict[str, list[Setting]]:
    """Method -> the settings that were tried."""
    variants = config.load([ROOT / CONFIGS["effort"]]).variants
    found: dict[str, list[Setting]] = {}
    for row in kept("effort").exhibit("table2")["rows"]:
        variant = variants[row["id"]]
        seeds = by_dataset("effort", "table2", RATIO, row["id"]).values()
        means = [statistics.fmean(values.values()) for values in seeds]
        rate = variant.set["learning_rate"]
        multiple = round(rate / published(variant.method).learning_rate)
        found.setdefault(variant.method, []).append(Setting(variant.set["epochs"], multiple, rate, means))
    return found


def best(settings: Sequence[Setting]) -> Setting:
    """The setting with the highest mean H."""
    return max(settings, key=lambda setting: setting.mean)


def chosen(settings: Sequence[Setting]) -> Setting:
    """The one with the fewest epochs among those within one paired standard error of the best."""
    highest = best(settings)

    def close(setting: Setting) -> bool:
        behind = [b - s for b, s in zip(highest.values, setting.values, strict=True)]
        return statistics.fmean(behind) <= statistics.stdev(behind) / len(behind) ** 0.5

    return min(filter(close, settings), key=lambda setting: (setting.epochs, -setting.mean))


def edges() -> str:
    """How many choices lie at an edge of the learning rates."""
    found = [chosen(settings).multiple for settings in tried().values()]
    low, high = found.count(MULTIPLES[0]), found.count(MULTIPLES[-1])
    return (
        f"Of {len(found)} choices, {low + high} are at an edge in the learning rate: {low} at the published one, "
        f"{high} at {MULTIPLES[-1]} times it."
    )


def outcome() -> str:
    """Settings tried and chosen for every method."""
    lines = [
        "| method | settings | best: epochs, learning rate | H | chosen: epochs, learning rate | × published | H |",
        "|:--|--:|:--|--:|:--|--:|--:|",
    ]
    for method, settings in tried().items():
        kind, highest, own = registry.get(method), best(settings), chosen(settings)
        mark = " _(reconstruction)_" if kind.reconstruction else ""
        lines.append(
            f"| {kind.title}{mark} (`{method}`) | {len(settings)} "
            f"| {highest.epochs}, {highest.learning_rate:g} | {highest.mean:.2f} "
            f"| {own.epochs}, {own.learning_rate:g} | {own.multiple} | {own.mean:.2f} |"
        )
    runs = sum(len(setting.values) for settings in tried().values() for setting in settings)
    return markdown([*lines, "", f"{runs:,} runs. H on validation images, mean over the datasets."])


def overrides() -> str:
    """The choices as overrides of config/config.yaml, also for the other protocols."""
    lines = []
    for protocol, of_twelve in {"base_to_new": EPOCHS[0], **OTHER_PROTOCOLS}.items():
        same: dict[str, list[str]] = {}
        for method, settings in tried().items():
            found = chosen(settings)
            values = setting(method, round(found.epochs * of_twelve / EPOCHS[0]), found.multiple, protocol)
            followers = [name for name, followed in FOLLOWS.items() if followed == method]
            same.setdefault(_flow(values), []).extend([method, *followers])
        for values_text, methods in same.items():
            where = "" if protocol == "base_to_new" else f"protocols: [{protocol}], "
            lines.append(f"  - {{methods: [{', '.join(methods)}], {where}set: {values_text}}}\n")
    return "".join(lines)
