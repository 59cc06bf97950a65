"""The vocabulary around learned context vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cpt.errors import CptError
from cpt.methods.base.hyperparameters import Starting
from cpt.methods.base.prompts import TextPrompts

if TYPE_CHECKING:
    import pandas as pd

    from cpt.methods.base.method import Method


def words(method: Method, backbone: Path, names: Sequence[str], top: int = 3) -> pd.DataFrame:
    """Return the words whose token embeddings are nearest to each learned context vector.

    Only vectors at the input of the text tower stand among word embeddings; those of deeper blocks do not. Source of
    the measure, the Euclidean distance: repo KaiyangZhou/CoOp, interpret_prompts/interpret_prompt.py.

    Args:
        method: with the learned tensors.
        backbone: backbone.json, whose tokenizer has the words.
        names: the trained classes.
        top: words per vector.

    Returns:
        One row per vector and rank: ``class`` (empty unless every class has its own), ``vector`` from 1, ``rank`` from
        1, ``word`` (``</w>`` marks the end of one), ``distance``.

    Raises:
        CptError: the method learns no such vectors.
    """
    import pandas as pd

    from cpt.clip.make_backbone import load_tokenizer

    found = [part for part in method.modules() if isinstance(part, TextPrompts)]
    if not found or isinstance(method.hp, Starting):
        raise CptError(f"{method.name}: learns no context vectors at the input of the text tower; give a run of coop")
    tower, decoder = method.clip.text, load_tokenizer(backbone).decoder  # type: ignore[attr-defined]
    table = tower.embed(torch.arange(len(decoder), device=method.clip.device)).float()
    context = found[0].context.detach().float()
    per_class = context.dim() == 3
    rows: list[dict[str, Any]] = []
    for number, vectors in enumerate(context if per_class else context[None]):
        distances, ids = torch.cdist(vectors, table).topk(top, dim=1, largest=False)
        for vector, (row, chosen) in enumerate(zip(distances.tolist(), ids.tolist(), strict=True), 1):
            for rank, (distance, token) in enumerate(zip(row, chosen, strict=True), 1):
                rows.append({
                    "class": names[number] if per_class else "",
                    "vector": vector,
                    "rank": rank,
                    "word": decoder[token],
                    "distance": distance,
                })  # fmt: skip
    return pd.DataFrame(rows)
