"""The model card of a run: what a hub shows of it."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from math import isnan
from pathlib import Path
from typing import Any

import yaml

from cpt import __version__
from cpt.data.classes import trained_rows
from cpt.data.split import read_split
from cpt.evaluation.trained import RESIZED, image_tower
from cpt.experiment.runs import Run
from cpt.files import paths
from cpt.files.integrity import SUFFIX, read_record
from cpt.files.paths import GRID, METRICS, NATURAL, TEXT_FEATURES, Ratio, ratio_text
from cpt.files.stage_files import json_text, read_json, read_metadata, read_parquet
from cpt.methods.base import registry
from cpt.results.cells import row_names
from cpt.results.stats import t_interval

SHOWN = ("accuracy", "harmonic_mean", "macro_accuracy", "head_accuracy", "medium_accuracy", "tail_accuracy",
         "calibration_error")  # fmt: skip
"""Metrics of the card; metrics.parquet beside it has all."""
HALF = {"base": "base classes", "new": "new classes", "all": "all classes", "base+new": "base and new classes"}
NAMED = 30
"""Class names that the card lists."""

Key = tuple[str, str, str]
"""Target, subset, metric."""


def card(run: Path, root: Path, record: dict[str, Any], backbone: dict[str, Any], place: str, license: str) -> str:
    """Return README.md of a run's repository: a YAML header, what it is, how to load it, its numbers and limits.

    What the experiment's folder does not hold (grid.json, the split, metrics) the card leaves out.

    Args:
        run: its folder.
        root: folder of the experiment.
        record: run.json.
        backbone: what cpt.json says of it.
        place: ``owner/name`` of the repository.
        license: of the learned prompts, as hubs call it.

    Raises:
        CptError: a file is damaged.
    """
    grid = read_json(root / "grid.json", GRID) if (root / "grid.json").is_file() else {"datasets": {}, "exhibits": {}}
    datasets, method = grid["datasets"], _row(grid, Run.of(record))
    numbers = _numbers(run, record["seed"])
    tail = ratio_text(record["imbalance_ratio"])
    title = f"{method} on {_title(datasets, record['dataset'])}, τ = {tail}, seed {record['seed']}"
    header = _header(record, backbone, datasets, numbers, place, license)
    parts = [f"# {title}", _about(run, root, record, backbone, datasets), _use(place), _results(numbers, datasets)]
    parts += [_limits(record, backbone, datasets), _hyperparameters(record)]
    return f"---\n{header}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _row(grid: dict[str, Any], run: Run) -> str:
    """What the experiment's tables call the run, which tells variants apart; otherwise its method's title."""
    title = registry.get(run.method).title
    labels = [
        row_names(exhibit["rows"])[cell["row"]]
        for exhibit in grid["exhibits"].values()
        for cell in exhibit["cells"]
        if cell["x"] is None and run.id in cell["runs"]  # a sweep calls all its values by one name
    ]
    return title if title in labels or not labels else f"{title}, in tables “{labels[0]}”,"


def _title(datasets: dict[str, dict[str, Any]], name: str) -> str:
    return datasets.get(name, {"title": name})["title"]


def _numbers(run: Path, seed: int) -> dict[Key, dict[int, float]]:
    """The shown metrics of the finished run, by seed: first its own, then those of the other seeds beside it."""
    folders = {seed: run}
    if run.absolute().name == f"s{seed}":
        for other in sorted(run.absolute().parent.glob("s*")):
            if found := re.fullmatch(r"s(\d+)", other.name):
                folders.setdefault(int(found[1]), other)
    numbers: dict[Key, dict[int, float]] = defaultdict(dict)
    for number, folder in folders.items():
        if (folder / "metrics.parquet").is_file():
            for row in read_parquet(folder / "metrics.parquet", METRICS)[0].to_pylist():
                key = row["target"], row["subset"], row["metric"]
                if row["epoch"] is None and row["metric"] in SHOWN and (number == seed or key in numbers):
                    numbers[key][number] = row["value"]
    return {key: numbers[key] for key in sorted(numbers, key=lambda key: (key[0], SHOWN.index(key[2]), key[1]))}


def _header(
    record: dict[str, Any],
    backbone: dict[str, Any],
    datasets: dict[str, dict[str, Any]],
    numbers: dict[Key, dict[int, float]],
    place: str,
    license: str,
) -> str:
    results = [
        {
            "task": {"type": "image-classification", "name": "image classification"},
            "dataset": {
                "type": _dataset_type(datasets, target),
                "name": _tested(datasets, target, subset),
            },
            "metrics": [{"type": metric, "name": _words(metric), "value": round(next(iter(seeds.values())), 2)}],
        }
        for (target, subset, metric), seeds in numbers.items()
        if metric in ("accuracy", "harmonic_mean")
    ]
    described: dict[str, Any] = {
        "license": license,
        "library_name": "cpt-longtail",
        "pipeline_tag": "image-classification",
        "tags": ["clip", "prompt-tuning", "long-tailed", record["method"]],
        "datasets": [_dataset_type(datasets, record["dataset"])],
        "metrics": ["accuracy"],
    }
    if source := backbone.get("source", {}).get("repository"):
        described["base_model"] = source
    if results:
        described["model-index"] = [{"name": place.partition("/")[2], "results": results}]
    return yaml.safe_dump(described, sort_keys=False, allow_unicode=True)


def _tested(datasets: dict[str, dict[str, Any]], target: str, subset: str) -> str:
    return f"{_title(datasets, target)} ({HALF[subset]})"


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _dataset_type(datasets: dict[str, dict[str, Any]], name: str) -> str:
    """A name that no hub takes for the real dataset where it is a generated one."""
    return f"cpt-embedded-{name}" if datasets.get(name, {}).get("layout") == "embedded" else name


def _about(
    run: Path, root: Path, record: dict[str, Any], backbone: dict[str, Any], datasets: dict[str, dict[str, Any]]
) -> str:
    kind = registry.get(record["method"])
    features = root / paths.text_features(record["dataset"], record["hyperparameters"]["templates"])
    everything = read_metadata(features, TEXT_FEATURES)["classes"]
    names = [everything[row] for row in trained_rows(len(everything), record["protocol"])]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    rows = {
        "method": f"{kind.title}: {kind.summary}",
        "source": kind.source,
        "backbone": f"{backbone['name']} ({backbone['architecture']}, {backbone['pretrained']}), frozen; not included",
        "trained on": f"{_title(datasets, record['dataset'])}, {_images(root, record)}",
        "classes": f"{len(names)}: {', '.join(names[:NAMED])}{more}",
        "protocol": f"{record['protocol']}, τ = {_tail(record['imbalance_ratio'])}",
        "learned values": f"{record['learnable_parameters']:,}, in {record['steps']:,} steps",
        "text knowledge": _knowledge(record["text_knowledge"]),
        "made by": _made_by(run, record),
    }
    table = ["| | |", "|---|---|", *(f"| {name} | {_plain(value)} |" for name, value in rows.items())]
    return "Learned prompts for a frozen CLIP, whose weights are not changed.\n\n" + "\n".join(table)


def _tail(ratio: Ratio) -> str:
    if ratio == NATURAL:
        return f"{NATURAL} (all training images, as many of each class as there are)"
    return f"{ratio_text(ratio)} (training images of the rarest class by those of the most frequent one)"


def _knowledge(found: dict[str, Any] | None) -> str:
    if found is None:
        return "class names"
    new = found["kind"] == "new_classes"
    return f"class names, also of {found['count']} new classes" if new else "class names and descriptions"


def _images(root: Path, record: dict[str, Any]) -> str:
    where = record["protocol"], record["dataset"], record["imbalance_ratio"], record["seed"]
    path = root / paths.split(*where)
    if record["steps"] == 0:
        return "no images (the method learns nothing)"
    if not path.is_file():
        return "its training split"
    counts = read_split(path).counts
    return f"{counts.sum():,} images, {counts.max():,} of the most frequent class and {counts.min():,} of the rarest"


def _made_by(run: Path, record: dict[str, Any]) -> str:
    """Version, commit, libraries and device, by the run's record; the record itself names paths of its machine."""
    with contextlib.suppress(OSError, ValueError):
        made = read_record(run / f"run.json{SUFFIX}")
        commit = f", commit {made['commit'][:12]}{' with changes' * bool(made['dirty'])}" if made["commit"] else ""
        torch = made["versions"].get("torch", "unknown")
        return f"cpt {made['cpt']}{commit}; torch {torch}, {record['precision']} on {record['device_name']}"
    return f"cpt {__version__}; {record['precision']} on {record['device_name']}"


def _use(place: str) -> str:
    return f"""## Use
With `cpt` ({__version__} or later) installed:

```python
import cpt

model = cpt.load("hub:{place}")
print(model.predict("photo.jpg", top=3))
print(model.predict("photo.jpg", ["a red rose", "a sunflower"]))  # other classes
```

On the command line, `cpt pull {place}` makes a folder that `cpt classify`, `cpt export` and `cpt words` take. Files are
compared with the hashes in `cpt.json`; none of them can hold code. The backbone is made from its own source."""


def _results(numbers: dict[Key, dict[int, float]], datasets: dict[str, dict[str, Any]]) -> str:
    if not numbers:
        return ""
    lines = ["| test images | measure | this run | mean of seeds | 95 % interval |", "|---|---|--:|--:|--:|"]
    for (target, subset, metric), seeds in numbers.items():
        value, mean = next(iter(seeds.values())), t_interval(list(seeds.values()))
        alone = isnan(mean.low)
        average = "–" if alone else f"{mean.estimate:.2f} (n = {len(seeds)})"
        interval = "–" if alone else f"{mean.low:.2f} to {mean.high:.2f}"
        where = _plain(_tested(datasets, target, subset))
        lines.append(f"| {where} | {_words(metric)} | {value:.2f} | {average} | {interval} |")
    note = (
        "Percent. The interval is Student's t over seeds: it tells how much the draw of training images and the\n"
        "initial prompts matter, not the choice of test images. Of one seed there is none."
    )
    return "## Results\n" + "\n".join(lines) + f"\n\n{note}"


def _limits(record: dict[str, Any], backbone: dict[str, Any], datasets: dict[str, dict[str, Any]]) -> str:
    kind = registry.get(record["method"])
    facts = datasets.get(record["dataset"], {})
    said = [
        "It chooses among the classes it is given, also for an image of none of them.",
        f"Images are resized: {RESIZED[record['hyperparameters'].get('test_crops', 1)]}.",
    ]
    if image_tower(Run.of(record)) == "prompted":
        said.append(
            "The image tower has prompts, too: image features of the frozen CLIP give wrong answers with the texts in "
            "`classifier.safetensors`."
        )
    if kind.own_classifier:
        said.append("It classifies by more than the texts in `classifier.safetensors`.")
    if kind.depends_on_batch:
        said.append("How it classifies an image may depend on the images that are classified with it.")
    if record["imbalance_ratio"] == NATURAL:
        said.append("Expect less of classes that had few training images than of frequent ones.")
    elif record["imbalance_ratio"] < 1:
        said.append("Rare classes had few training images; expect less of them than of frequent ones.")
    if facts.get("layout") == "embedded":
        said.append("The dataset is generated with `cpt`. The numbers say nothing about photographs.")
    if facts.get("derived_split"):
        said.append(
            "The dataset's parts are derived: the numbers are not comparable with those of its published split."
        )
    if kind.control:
        said.append("The method is a control: its numbers say what others are worth. It is not meant to be used.")
    if kind.reconstruction:
        said.append("The method is a reconstruction from a description: neither its equations nor its code are public.")
    if backbone["pretrained"] == "random":
        said.append("The backbone has random weights: the numbers mean nothing.")
    return "## Limits\n" + "\n".join(f"- {line}" for line in said)


def _hyperparameters(record: dict[str, Any]) -> str:
    return f"## Hyperparameters\n```json\n{json_text(record['hyperparameters'])}```"


def _plain(text: str) -> str:
    """Text that stands in a Markdown table as it is."""
    return re.sub(r"([\\`*_<>\[\]|#])", r"\\\1", " ".join(text.split()))
