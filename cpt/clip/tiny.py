"""The tiny CLIPs of the embedded configurations: their architecture, their files, and their zero-shot accuracy.

The model is `open_clip.model.CLIP` with 0.7 million parameters, its tokenizer open_clip's with fewer merges.
The job ``backbone`` exports one; the others load what it exported.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import tempfile
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpt.clip import bpe
from cpt.errors import CptError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from open_clip.model import CLIP
    from open_clip.tokenizer import SimpleTokenizer

EMBEDDED, SHIPPED = "embedded", "shipped"
"""As an architecture; as its weights, those in this package."""
CONTEXT_LENGTH = 16
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
TEMPLATE = "a photo of a {}."
TEST_IMAGES = 60
KEPT = 60
_CHUNK = 500

SCHEMA = "cpt.tiny_clip/1"
RECIPE = "recipe.json"
MERGES = "merges.txt.gz"


def is_rebuilt(architecture: str, pretrained: str) -> bool:
    """Whether a backbone is a tiny CLIP of a folder that ``cpt pretrain`` wrote, not the shipped one."""
    return architecture == EMBEDDED and pretrained != SHIPPED


def files(pretrained: str) -> contextlib.AbstractContextManager[Path]:
    """The folder of the shipped tiny CLIP, or of one that ``cpt pretrain`` wrote.

    Raises:
        CptError: neither.
    """
    if pretrained == SHIPPED:
        return resources.as_file(resources.files("cpt") / "assets" / "tiny_clip")
    if not Path(pretrained).exists() and Path(pretrained).name == pretrained:
        raise CptError(
            f"backbone.pretrained: {pretrained!r}: the embedded CLIP has its own weights; use shipped, or a folder "
            "that `cpt pretrain` wrote"
        )
    rebuilt(Path(pretrained))
    return contextlib.nullcontext(Path(pretrained))


def for_backbone(pretrained: str) -> tuple[CLIP, dict[str, Any]]:
    """A tiny CLIP and what the record of its backbone says of it: normalization, source, merges of the tokenizer.

    The record of a rebuilt one holds the merges, so that a run can be used where the folder is not.

    Raises:
        CptError: as ``files``.
    """
    with files(pretrained) as folder:
        model, _ = load(folder)
        described: dict[str, Any] = {"image_mean": list(IMAGE_MEAN), "image_std": list(IMAGE_STD)}
        if pretrained != SHIPPED:
            recipe = rebuilt(folder)
            known = {key: recipe[key] for key in ("world", "seed", "pairs", "steps") if key in recipe}
            described["source"] = known | {"sha256": recipe["sha256"]["model.safetensors"]}
            described["merges"] = bpe.read_merges((folder / MERGES).read_bytes())
    return model, described


def tokenizer_of(record: Mapping[str, Any]) -> SimpleTokenizer:
    """The tokenizer of a backbone's record, as ``for_backbone`` describes it."""
    if "merges" not in record:
        with files(SHIPPED) as folder:
            return tokenizer(folder / MERGES)
    with tempfile.TemporaryDirectory() as made:
        path = Path(made, MERGES)
        path.write_bytes(bpe.merges_file(record["merges"]))
        return tokenizer(path)


def rebuilt(folder: Path) -> dict[str, Any]:
    """Return the recipe of a tiny CLIP that ``cpt pretrain`` has written, once its files are seen to be those of it.

    Raises:
        CptError: the folder holds none, or a file of it is missing or another.
    """
    world, _, seed = folder.name.rpartition("-s")
    which = f"--world {world} --seed {seed} " if seed.isdigit() else ""
    fix = f"make it with `cpt pretrain {which}--output {folder}`"
    try:
        recipe = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        named = recipe["sha256"]
    except FileNotFoundError:
        raise CptError(f"backbone.pretrained: {folder}: holds no tiny CLIP ({RECIPE}); {fix}, or use shipped") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise CptError(f"backbone.pretrained: {folder / RECIPE}: cannot be read; {fix}") from None
    for name in named:
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != named[name]:
            raise CptError(f"backbone.pretrained: {path}: missing, or not that of {RECIPE}; {fix}")
    return recipe


def tokenizer(merges: Path) -> SimpleTokenizer:
    """The tokenizer of a file of merges."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(str(merges), context_length=CONTEXT_LENGTH)


def configuration(vocab_size: int) -> dict[str, Any]:
    """The keyword arguments of `open_clip.model.CLIP` for the tiny model."""
    return {
        "embed_dim": 64,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 4, "width": 96, "patch_size": 8, "head_width": 32},
        "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": vocab_size, "width": 64, "heads": 2, "layers": 3},
    }


def load(folder: Path, name: str = "model.safetensors") -> tuple[CLIP, SimpleTokenizer]:
    """The tiny CLIP of a folder that `pretrain` wrote, in float32 and evaluation mode, and its tokenizer."""
    from open_clip.model import CLIP
    from safetensors.torch import load as load_bytes

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = CLIP(**{key: value for key, value in config.items() if key not in ("image_mean", "image_std")})
    model.load_state_dict(load_bytes((folder / name).read_bytes()))
    return model.eval(), tokenizer(folder / MERGES)


def normalize(images: np.ndarray) -> torch.Tensor:
    """Convert uint8 images (N, 32, 32, 3) to the model's input, float32 (N, 3, 32, 32)."""
    import torch

    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return pixels.sub_(mean).div_(std)


def encode_text(model: CLIP, tokens: torch.Tensor) -> torch.Tensor:
    """Normalized text features (N, 64) of tokens (N, 16), computed only up to the longest text.

    The text tower is causal, so tokens after the end of a text do not affect its feature.
    """
    from torch.nn.functional import normalize

    ends = tokens.argmax(dim=1)
    length = int(ends.max()) + 1
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return normalize(x[range(len(x)), ends] @ model.text_projection, dim=-1)


def similarities(model: CLIP, tokenizer: SimpleTokenizer, images: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Cosines (N, K) of images, uint8 (N, 32, 32, 3), and K class names put into "a photo of a {}."."""
    import torch

    with torch.inference_mode():
        texts = encode_text(model, tokenizer([TEMPLATE.format(name) for name in names]))
        scores = [
            model.encode_image(normalize(images[start : start + _CHUNK]), normalize=True) @ texts.T
            for start in range(0, len(images), _CHUNK)
        ]
    return torch.cat(scores).numpy()


def zero_shot(
    model: CLIP, tokenizer: SimpleTokenizer, images: np.ndarray, labels: np.ndarray, names: tuple[str, ...]
) -> dict[str, float]:
    """Zero-shot accuracy in percent: over all classes, and within the base and the new half."""
    scores = similarities(model, tokenizer, images, names)
    half = math.ceil(len(names) / 2)
    base = labels < half
    return {
        "all": 100 * float((scores.argmax(1) == labels).mean()),
        "base": 100 * float((scores[base, :half].argmax(1) == labels[base]).mean()),
        "new": 100 * float((scores[~base, half:].argmax(1) + half == labels[~base]).mean()),
    }


def measure(folder: Path, keys: Iterable[str], per_class: int) -> dict[str, dict[str, float]]:
    """Zero-shot accuracies in percent, by dataset, of the weights in a folder that `pretrain` wrote."""
    from cpt.data.world import benchmark
    from cpt.data.world.worlds import world_of

    model, tokenizer = load(folder)
    table = {}
    for key in keys:
        chosen = folder / adversarial_file(key)
        kept = benchmark.adversarial(chosen) if key == world_of(key).adversarial else None
        images, labels = benchmark.render(key, "test", per_class, kept)
        accuracies = zero_shot(model, tokenizer, images, labels, benchmark.class_names(key))
        table[key] = {part: round(value, 2) for part, value in accuracies.items()}
    return table


def adversarial_file(key: str) -> str:
    """Name of the file of the images of an adversarial dataset."""
    return f"{key}.json"


def rank_adversarial(model: CLIP, tokenizer: SimpleTokenizer, key: str, candidates: int) -> dict[str, list[int]]:
    """Rank candidates for an adversarial dataset, by class name.

    Those that the model misclassifies come first, then those of smallest margin.
    """
    import numpy as np

    from cpt.data.world import benchmark

    names = benchmark.class_names(key)
    kept = {}
    for label, name in enumerate(names):
        images = benchmark.render_class(key, label, "test", range(candidates))
        scores = similarities(model, tokenizer, images, names)
        margin = scores[:, label] - np.delete(scores, label, axis=1).max(axis=1)
        # A stable sort keeps misclassified candidates in index order, not the worst first.
        kept[name] = np.argsort(np.maximum(margin, 0), kind="stable")[:KEPT].tolist()
    return kept
