"""Tokenizers of transformers, in the form of CLIP's rows: a start token, the words, the end token, zeros.

Their end tokens are no large ids, something else follows them, and SigLIP's put nothing before a text. Everything that
works on rows (``cpt.features.text``, prompts) knows CLIP's form alone. So rows get two ids of ours, both larger than
those of the vocabulary, and ``cpt.clip.padded`` puts the tower's own in their place, or takes them out again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cpt.errors import CptError

T = TypeVar("T")


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
        mode = text_config.get("tokenizer_mode")
        self._inner = of_hub(
            name,
            "tokenizer",
            "hf_tokenizer_name",
            lambda **how: HFTokenizer(name, tokenizer_mode=mode, **options | how),
        )
        known = self._inner.tokenizer
        self.rows = int(text_config.get("vocab_size", len(known) if text_config.get("hf_model_name") else 49408))
        end = known.sep_token_id if known.eos_token_id is None else known.eos_token_id
        self.marks = {"end": end, "pad": known.pad_token_id}
        bare = self._inner([""], context_length=8)[0].tolist()
        before = bare.index(end) if end in bare else 2
        if before == 1:
            self.marks["start"] = bare[0]
        if before > 1 or any(mark not in range(self.rows) for mark in self.marks.values()):
            raise CptError(
                f"backbone: unsupported architecture: tokenizer {name}, whose texts are not the words, perhaps one "
                "token before them, and an end token that the model has"
            )

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


def require_transformers(part: str) -> None:
    """Refuse a part of a model that needs transformers where it is not installed.

    Raises:
        CptError: names the part.
    """
    if find_spec("transformers") is None:
        raise CptError(f"backbone: {part} is one of transformers, which is not installed; `pip install transformers`")


def of_hub(name: str, what: str, key: str, read: Callable[..., T]) -> T:
    """Read something of transformers from a folder or the hub's cache, or else from the hub.

    Args:
        name: the folder, or a repository of the hub.
        what: for messages.
        key: of the model configuration, which has the name.
        read: with ``local_files_only=True`` it may ask nobody.

    Raises:
        CptError: it is neither there nor available, or damaged.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    try:
        with contextlib.suppress(Exception):  # files and versions fail in as many ways
            return read(local_files_only=True)
        if not Path(name).is_dir():
            # Ask once first: without a connection, what comes next would retry for half a minute.
            with contextlib.suppress(EntryNotFoundError):
                get_hf_file_metadata(hf_hub_url(name, "config.json"))
        return read()
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise CptError(
            f"backbone: {what} {name} cannot be read ({type(error).__name__}: {reason}); run `cpt backbone` once where "
            f"there is internet, or name a folder that holds it in text_cfg.{key}"
        ) from None


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
