"""Frozen text features of class names, computed once per dataset.

The file of text features also holds every class's prompt tokens, so that training and evaluation need no tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.errors import CptError
from cpt.features.templates import PROMPT_PHRASE, PROMPT_TEMPLATE, learnable_template
from cpt.files.paths import TEXT_FEATURES
from cpt.files.stage_files import canonical_json, read_tensors, sha256_text, write_tensors


@dataclass(frozen=True, eq=False)
class Classes:
    """K classes, as methods get them.

    Attributes:
        names: K class names.
        tokens: (K, L) token ids of ``a photo of a <name>.``
        dataset_tokens: (K, L) the same with the end of the dataset's template, ``a photo of a <name> texture.``
        phrase_length: number of tokens of ``a photo of a``, which follow the start token.
        name_lengths: (K,) number of tokens of each name alone. In a prompt its tokens may differ and be more: ``Jr.``
            merges with the full stop.
        frozen: (K, D) mean over the templates of the raw frozen text features.
        directions: (K, D) unit-norm mean of the unit-norm frozen text features.
        template_tokens: (K, L) token ids under the first of the templates.
    """

    names: tuple[str, ...]
    tokens: Tensor
    phrase_length: int
    frozen: Tensor
    directions: Tensor
    dataset_tokens: Tensor
    name_lengths: Tensor
    template_tokens: Tensor

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def frozen_unit(self) -> Tensor:
        """(K, D) ``frozen`` with unit norm."""
        return F.normalize(self.frozen, dim=-1)

    def to(self, device: torch.device | str) -> Classes:
        """Return the classes with their features on a device; tokens stay on the CPU."""
        return replace(self, frozen=self.frozen.to(device), directions=self.directions.to(device))

    def take(self, rows: Sequence[int]) -> Classes:
        """Return the classes at ``rows``."""
        index = torch.as_tensor(list(rows))
        return Classes(
            tuple(self.names[i] for i in rows),
            self.tokens[index],
            self.phrase_length,
            self.frozen[index.to(self.frozen.device)],
            self.directions[index.to(self.directions.device)],
            self.dataset_tokens[index],
            self.name_lengths[index],
            self.template_tokens[index],
        )


def tokenize(tokenizer: Callable[..., Tensor], texts: Sequence[str], length: int) -> Tensor:
    """Tokenize texts to (K, length) and refuse those that are too long.

    open_clip truncates silently, and a truncated prompt would be scored under a wrong name.

    Raises:
        CptError: a text is too long; names it.
    """
    tokens = tokenizer(list(texts), context_length=4 * length)
    for text, row in zip(texts, tokens, strict=True):
        needed = int(row.argmax()) + 1
        if needed > length:
            raise CptError(
                f"prompt {text!r} needs {needed} tokens, the backbone's context has {length}; "
                "shorten the class name or the template, or set templates: single where that is shorter"
            )
    return tokens[:, :length]


@torch.no_grad()
def encode_classes(
    clip: Clip,
    tokenizer: Callable[..., Tensor],
    names: Sequence[str],
    templates: Sequence[str],
    dataset_template: str,
) -> Classes:
    """Return classes with their frozen text features and prompt tokens, on the CPU.

    Args:
        names: class names in label order.
        templates: prompt templates with one ``{}`` each.
        dataset_template: the dataset's own template; the learnable prompts of some methods end as it does.

    Raises:
        CptError: a prompt is too long for the backbone's context.
    """
    length = clip.text.context_length

    def tokens(template: str) -> Tensor:
        return tokenize(tokenizer, [template.replace("{}", name) for name in names], length)

    raw = torch.zeros(len(names), clip.embed_dim)
    directions = torch.zeros(len(names), clip.embed_dim)
    for template in templates:
        features = clip.text(clip.text.pack(tokens(template))).cpu()
        raw += features
        directions += F.normalize(features, dim=-1)
    return Classes(
        names=tuple(names),
        tokens=tokens(PROMPT_TEMPLATE),
        phrase_length=int(tokenize(tokenizer, [PROMPT_PHRASE], length).argmax()) - 1,
        frozen=raw / len(templates),
        directions=F.normalize(directions / len(templates), dim=-1),
        dataset_tokens=tokens(learnable_template(dataset_template)),
        name_lengths=tokens("{}").argmax(dim=1) - 1,
        template_tokens=tokens(templates[0]),
    )


def make_text_features(
    clip: Clip,
    tokenizer: Callable[..., Tensor],
    names: Sequence[str],
    templates: Sequence[str],
    dataset_template: str,
    output: Path,
) -> None:
    """Write the frozen text features and the prompt tokens of a dataset's classes.

    Args:
        names: class names in label order.
        templates: prompt templates with one ``{}`` each.
        dataset_template: the dataset's own template; the learnable prompts of some methods end as it does.
    """
    classes = encode_classes(clip, tokenizer, names, templates, dataset_template)
    prompts = [PROMPT_TEMPLATE, learnable_template(dataset_template)]
    write_tensors(
        output,
        {
            "features": classes.frozen,
            "directions": classes.directions,
            "name_lengths": classes.name_lengths.int(),
            "tokens": classes.tokens.int(),
            "dataset_tokens": classes.dataset_tokens.int(),
            "template_tokens": classes.template_tokens.int(),
        },
        TEXT_FEATURES,
        classes=list(names),
        templates=list(templates),
        dataset_template=dataset_template,
        phrase_length=classes.phrase_length,
        backbone=clip.name,
        source_hash=sha256_text(canonical_json([clip.sha256, list(names), list(templates), prompts])),
    )


def read_text_features(path: Path, device: torch.device | str = "cpu") -> tuple[Classes, dict]:
    """Read all classes of a dataset and the file's metadata."""
    tensors, metadata = read_tensors(path, TEXT_FEATURES)
    classes = Classes(
        names=tuple(metadata["classes"]),
        tokens=tensors["tokens"].long(),
        phrase_length=metadata["phrase_length"],
        frozen=tensors["features"].to(device),
        directions=tensors["directions"].to(device),
        dataset_tokens=tensors["dataset_tokens"].long(),
        name_lengths=tensors["name_lengths"].long(),
        template_tokens=tensors["template_tokens"].long(),
    )
    return classes, metadata
