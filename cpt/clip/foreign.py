"""Tokenizers of transformers, in the form of CLIP's rows: a start token, the words, the end token, zeros.

SigLIP's tokenizers put nothing before a text, their end token is no large id, and what follows it is padding that the
tower sees. Everything that works on rows (``cpt.features.text``, prompts) knows CLIP's form alone. So rows get two ids
of ours, both larger than those of the vocabulary, and ``cpt.clip.padded`` takes them out again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cpt.errors import CptError


class ForeignTokenizer:
    """A tokenizer of transformers as open_clip uses it: (texts, context_length) -> rows in CLIP's form.

    Args:
        text_config: ``text_cfg`` of the model's configuration.

    Attributes:
        marks: what the tower needs to take its own rows out of these.

    Raises:
        CptError: transformers is not installed, the tokenizer cannot be had, or it is not of SigLIP's kind.
    """

    def __init__(self, text_config: Mapping[str, Any]) -> None:
        name = text_config["hf_tokenizer_name"]
        if find_spec("transformers") is None:
            raise CptError(
                f"backbone: tokenizer {name} is one of transformers, which is not installed; `pip install transformers`"
            )
        from open_clip.tokenizer import HFTokenizer

        options = dict(text_config.get("tokenizer_kwargs") or {})
        try:
            self._inner = HFTokenizer(name, tokenizer_mode=text_config.get("tokenizer_mode"), **options)
        except Exception as error:  # connections, files and versions fail in as many ways
            reason = " ".join(str(error).split())[:160]
            raise CptError(
                f"backbone: tokenizer {name} cannot be read ({type(error).__name__}: {reason}); run `cpt backbone` "
                "once where there is internet, or name a folder that holds it in text_cfg.hf_tokenizer_name"
            ) from None
        known, self._rows = self._inner.tokenizer, int(text_config.get("vocab_size", 49408))
        self.marks = {"end": known.eos_token_id, "pad": known.pad_token_id}
        bare = self._inner(["a"], context_length=8)[0].tolist()
        ends = [place for place, token in enumerate(bare) if token == known.eos_token_id]
        outside = any(mark not in range(self._rows) for mark in self.marks.values())
        if not ends or bare[0] in known.all_special_ids or outside:
            raise CptError(
                f"backbone: unsupported architecture: tokenizer {name}, which begins texts with a token of its own, "
                "or does not end them with one that the model has (supported: those like SigLIP's, and CLIP's own)"
            )

    @property
    def decoder(self) -> dict[int, str]:
        """Word of each id."""
        return {number: word for word, number in self._inner.tokenizer.get_vocab().items() if number < self._rows}

    def __call__(self, texts: str | Sequence[str], context_length: int) -> Tensor:
        """Rows (K, context_length)."""
        own = self._inner(texts, context_length=context_length - 1).numpy()
        end = (own == self.marks["end"]).argmax(axis=1)
        rows = np.zeros((len(own), context_length), dtype=np.int64)
        rows[:, 1:] = np.where(np.arange(context_length - 1) < end[:, None], own, 0)
        rows[:, 0] = self._rows
        rows[np.arange(len(own)), end + 1] = self._rows + 1
        return torch.from_numpy(rows)


def own_rows(rows: NDArray[np.int64], marks: Mapping[str, int]) -> NDArray[np.int64]:
    """The tower's own rows (K, L - 1) of rows in CLIP's form (K, L): no start token, its end token, its padding."""
    end, place = rows.argmax(axis=1)[:, None], np.arange(rows.shape[1])
    return np.where(place < end, rows, np.where(place == end, marks["end"], marks["pad"]))[:, 1:]
