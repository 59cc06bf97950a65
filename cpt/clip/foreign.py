"""Tokenizers of transformers, in the form of CLIP's rows: a start token, the words, the end token, zeros.

Their end tokens are no large ids, something else follows them, and SigLIP's put nothing before a text. Everything that
works on rows (``cpt.features.text``, prompts) knows CLIP's form alone. So rows get two ids of ours, both larger than
those of the vocabulary, and ``cpt.clip.padded`` puts the tower's own in their place, or takes them out again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cpt.clip.hub import of_hub, require_transformers
from cpt.errors import CptError

VOCABULARIES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model"
)  # fmt: skip
"""Files of which a tokenizer of transformers has at least one."""
_PROBES = ["", "cat", "a photo of a dog"]


class ForeignTokenizer:
    """A tokenizer of transformers as open_clip uses it: (texts, context_length) -> rows in CLIP's form.

    Args:
        text_config: ``text_cfg`` of the model's configuration.

    Attributes:
        marks: what the tower needs to take its own rows out of these: ``end`` and ``pad``, and ``start`` where texts
            begin with a token (of the class in BERT, of the language in NLLB).
        rows: ids of the vocabulary are below it.

    Raises:
        CptError: transformers is not installed, the tokenizer cannot be had, or its texts have another form.
    """

    def __init__(self, text_config: Mapping[str, Any]) -> None:
        name = text_config["hf_tokenizer_name"]
        require_transformers(f"tokenizer {name}")
        from open_clip.tokenizer import HFTokenizer

        options = {**(text_config.get("tokenizer_kwargs") or {}), "trust_remote_code": False}
        kind = partial(HFTokenizer, name, tokenizer_mode=text_config.get("tokenizer_mode"), **options)
        self._inner = of_hub(name, "tokenizer", "hf_tokenizer_name", VOCABULARIES, kind)
        known = self._inner.tokenizer
        self.rows = int(text_config.get("vocab_size", 49408))
        if text_config.get("hf_model_name"):  # open_clip does not read vocab_size there
            self.rows = 1 + max([len(known) - 1, *known.get_vocab().values()])
        end = known.sep_token_id if known.eos_token_id is None else known.eos_token_id
        self.marks = {"end": end, "pad": known.pad_token_id}
        firsts = set(self._inner(_PROBES, context_length=8)[:, 0].tolist()) - {end}
        if len(firsts) == 1:
            self.marks["start"] = firsts.pop()
        self._require_form(name)

    def _require_form(self, name: str) -> None:
        """Refuse a tokenizer whose rows are not these rows with the marks in their places."""
        fix = "name the tokenizer that the model was trained with in text_cfg.hf_tokenizer_name"
        form = (
            f"backbone: unsupported architecture: tokenizer {name}, whose texts are not the words, perhaps one token "
            f"before them, an end token that the model has, and padding behind it; {fix}"
        )
        if any(mark not in range(self.rows) for mark in self.marks.values()):
            raise CptError(form)
        rows = self(_PROBES, 24).numpy()
        theirs = self._inner(_PROBES, context_length=own_rows(rows, self.marks).shape[1]).numpy()
        words = [set(row[1:end].tolist()) for row, end in zip(rows, rows.argmax(axis=1), strict=True)]
        pads = self.marks["pad"] in {self.marks.get("start"), *words[-1]}
        if not np.array_equal(own_rows(rows, self.marks), theirs) or words[0] or pads:
            raise CptError(form)
        if len(set.union(*words)) < 2:
            raise CptError(f"backbone: tokenizer {name} knows no words: its vocabulary is missing; {fix}")

    @property
    def decoder(self) -> dict[int, str]:
        """Word of each id."""
        return {number: word for word, number in self._inner.tokenizer.get_vocab().items() if number < self.rows}

    def __call__(self, texts: str | Sequence[str], context_length: int) -> Tensor:
        """Rows (K, context_length)."""
        skipped = 0 if "start" in self.marks else 1
        own = self._inner(texts, context_length=context_length - skipped).numpy()
        end = (own == self.marks["end"]).argmax(axis=1) + skipped
        rows = np.zeros((len(own), context_length), dtype=np.int64)
        rows[:, skipped:] = np.where(np.arange(skipped, context_length) < end[:, None], own, 0)
        rows[:, 0] = self.rows
        rows[np.arange(len(own)), end] = self.rows + 1
        return torch.from_numpy(rows)


def own_rows(rows: NDArray[np.int64], marks: Mapping[str, int]) -> NDArray[np.int64]:
    """The tower's own rows of rows in CLIP's form (K, L): its start token if it has one, its end token, its padding.

    (K, L) with a start token, (K, L - 1) without.
    """
    end, place = rows.argmax(axis=1)[:, None], np.arange(rows.shape[1])
    own = np.where(place < end, rows, np.where(place == end, marks["end"], marks["pad"]))
    if "start" not in marks:
        return own[:, 1:]
    own[:, 0] = marks["start"]
    return own
