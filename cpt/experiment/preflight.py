"""What jobs would refuse, refused before there are any: backbone, GPU, TensorBoard, images, lengths of prompts.

Snakemake calls it whenever it reads the Snakefile, so what needs torch is remembered as long as it holds.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from cpt.clip import tiny
from cpt.clip.inside import Needs
from cpt.data.entry import Entry
from cpt.data.layouts.listing import Listing
from cpt.data.make_manifest import LAYOUTS
from cpt.errors import CptError
from cpt.experiment.config import Backbone
from cpt.experiment.stages import Stages
from cpt.files.paths import EVENTS
from cpt.files.provenance import code_version
from cpt.files.stage_files import canonical_json, parse_json, sha256_text, write_json

_MEMORY = "preflight.json"
_CLASSES = 40
"""Of the classes that methods are made for here; more than one of them may need."""


def check(stages: Stages, source: str, memory: Path | None = None) -> None:
    """Look for everything that can be refused without a download or a model.

    Args:
        stages: of the experiment.
        source: its configuration files, for messages.
        memory: folder that keeps what was found to be good; None to look again.

    Raises:
        CptError: a line for each problem.
    """
    problems: list[str] = []
    listings: dict[str, Listing | None] = {}
    for name in stages.datasets:
        entry = stages.resolved.catalog[name]
        with _noted(problems, ""):
            found = listings[name] = _listed(entry)
            if found is not None:
                _require_images(stages, name, found)
    texts = _texts(stages, listings)
    backbone = stages.config.backbone
    runs = stages.resolved.runs.values()
    methods = sorted({(run.method, run.hyperparameters) for run in runs})
    needs = sorted({(run.method, run.tower_needs) for run in runs})
    code = code_version("cpt.clip.make_backbone", "cpt.methods.base.prompts", __name__)
    seen = sha256_text(canonical_json([backbone.model_dump(), texts, methods, needs, code]))
    if memory is None or _kept(memory / _MEMORY) != seen or _own_weights(backbone):
        with _noted(problems, f"{source}: "):
            _require_lengths(stages, texts, problems)
            _require_tower(stages, needs, source, problems)
            _require_fitting(backbone.architecture, methods, source, problems)
    if problems:
        raise CptError("\n".join(dict.fromkeys(problems)))
    if memory is not None:
        with contextlib.suppress(CptError):  # a read-only folder only costs the time
            write_json(memory / _MEMORY, seen)


def _own_weights(backbone: Backbone) -> bool:
    """Whether the weights are the user's own file or folder, which may change or vanish."""
    rebuilt = tiny.is_rebuilt(backbone.architecture, backbone.pretrained)
    return rebuilt or bool(Path(backbone.pretrained).suffix)


def require_device(device: str, source: str) -> None:
    """Refuse ``cuda`` where this machine, which runs the jobs, has none.

    Raises:
        CptError: it has none.
    """
    if device == "cuda" and not has_cuda():
        raise CptError(f"{source}: device: cuda asked for, but this machine has no GPU; set device: auto or cpu")


def require_tensorboard(stages: Stages) -> None:
    """Refuse trainings that are to write TensorBoard's events where its package, which writes them, is not installed.

    Raises:
        CptError: it is not, and at least one method trains.
    """
    if not os.environ.get(EVENTS) or importlib.util.find_spec("tensorboard") is not None:
        return
    if any("epochs" in parse_json(run.hyperparameters) for run in stages.resolved.runs.values()):
        raise CptError(f"{EVENTS}: the package tensorboard is not installed; run `pip install tensorboard`")


def has_cuda() -> bool:
    """Whether torch can see a GPU; asked of NVIDIA's driver, because importing torch takes seconds."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version("torch")
        if "+cpu" in version or "+rocm" in version:  # AMD's GPUs are called cuda too, and have another driver
            return "+rocm" in version
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


@contextlib.contextmanager
def _noted(problems: list[str], before: str) -> Iterator[None]:
    try:
        yield
    except CptError as error:
        problems.append(f"{before}{error}")


def _kept(memory: Path) -> Any:
    try:
        return parse_json(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


# ---- images ------------------------------------------------------------------------------------


def _listed(entry: Entry) -> Listing | None:
    """The images of a user's own dataset, if they are there."""
    if not entry.has_files or entry.fetched or not entry.folder.is_dir():
        return None
    return LAYOUTS[entry.layout](entry)


def _require_images(stages: Stages, name: str, listing: Listing) -> None:
    """See that a dataset has the images that it is trained with and tested on."""
    import numpy as np

    from cpt.data.classes import subset_labels
    from cpt.data.split import require_images

    labels = np.array([label for _, label, _ in listing.images], dtype=np.int64)
    part_of = np.array([part for part, _, _ in listing.images], dtype=object)
    runs = stages.resolved.runs.values()
    parts = {part: labels[part_of == part] for part in ("train", "test")}
    for protocol in sorted({run.protocol for run in runs if run.dataset == name}):
        require_images(name, listing.class_names, labels, parts, protocol)
    part = stages.config.evaluate_on
    for subset in sorted({subset for run in runs for target, subset in run.targets if target == name}):
        if not np.isin(subset_labels(labels, subset), labels[part_of == part]).any():
            raise CptError(f"{name}/{subset}: no {part} image; put some into its {part} part")


# ---- texts -------------------------------------------------------------------------------------


def _texts(stages: Stages, listings: dict[str, Listing | None]) -> list[list[Any]]:
    """All prompts of frozen text features, as [dataset, class names, template set, its templates], as far as known.

    The templates are those of the dataset's own, that of the set, and the set's where the configuration gives them.
    """
    pairs = {(name, run.templates) for run in stages.resolved.runs.values() for name in _of(run)}
    found = []
    for name, templates in sorted(pairs):
        entry, listing = stages.resolved.catalog[name], listings.get(name)
        names = listing.class_names if listing else _names(entry)
        forms = [entry.template, entry.template_for(templates), stages.config.templates.get(templates)]
        found.append([name, [text.replace("_", " ") for text in names], templates, forms])
    return found


def _of(run: Any) -> set[str]:
    return {run.dataset, *(dataset for dataset, _ in run.targets)}


def _names(entry: Entry) -> Sequence[str]:
    """Class names of a dataset that the catalog or the generated world tells."""
    if entry.layout == "embedded":
        from cpt.data import world

        key = entry.key or entry.name
        return world.class_names(key) if key in world.KEYS else []
    names = entry.class_names
    return list(names.values()) if isinstance(names, dict) else names if isinstance(names, list) else []


def _require_tower(stages: Stages, needs: list[tuple[str, Needs]], source: str, problems: list[str]) -> None:
    """See that the backbone's image tower has what the methods change in it."""
    if all(needed == "nothing" for _, needed in needs):
        return
    from cpt.clip.make_backbone import inside

    tower = inside(stages.config.backbone.architecture)
    for method, needed in needs:
        with _noted(problems, f"{source}: "):
            tower.require(method, needed)


def _require_lengths(stages: Stages, texts: list[list[Any]], problems: list[str]) -> None:
    """See that the backbone can be made, and that its context holds the prompts."""
    from cpt.clip.make_backbone import check as check_backbone
    from cpt.features.templates import PROMPT_TEMPLATE, learnable_template, template_set
    from cpt.features.text import tokenize

    backbone = stages.config.backbone
    tokenizer, length = check_backbone(backbone.architecture, backbone.pretrained, backbone.sha256)
    for dataset, names, templates, (own, in_set, custom) in texts:
        if not names:
            continue
        chosen = template_set(templates, in_set, {} if custom is None else {templates: custom})
        every = [*chosen, PROMPT_TEMPLATE, learnable_template(own)]
        sizes = tokenizer([template.replace("{}", "x") for template in every], context_length=4 * length).argmax(dim=1)
        longest = every[int(sizes.argmax())]  # a prompt is as long as its template and its name
        with _noted(problems, f"{dataset}: "):
            tokenize(tokenizer, [longest.replace("{}", name) for name in names], length)


# ---- hyperparameters ---------------------------------------------------------------------------


def _require_fitting(architecture: str, methods: Sequence[tuple[str, str]], source: str, problems: list[str]) -> None:
    """See that every method can be made on the backbone: that it has the blocks which are prompted or changed."""
    import torch

    from cpt.clip.make_backbone import described
    from cpt.methods.base import registry, sizes

    clip = sizes.as_described(described(architecture))
    if clip is None:
        return
    classes = sizes.placeholder_classes(clip, _CLASSES)
    for name, hyperparameters in methods:
        kind = registry.get(name)
        with _noted(problems, f"{source}: {name}: "):
            kind(clip, kind.hyperparameters(**parse_json(hyperparameters)), classes, torch.Generator())
