"""Makes the merges of a tiny CLIP's tokenizer: byte-pair encoding until every word of its world is one token.

The file has the format of CLIP's own (`bpe_simple_vocab_16e6.txt.gz`), so that
`open_clip.tokenizer.SimpleTokenizer` reads it unchanged; unknown words fall back to bytes.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

Merge = tuple[str, str]


def learn_merges(texts: Iterable[str]) -> list[Merge]:
    """The merges that make every word of the texts one token, by falling frequency of the pair.

    Frequencies count distinct words, so the result depends on the vocabulary only. Ties go to the alphabet.
    """
    words = {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in sorted(words)]
    merges: list[Merge] = []
    while pairs := Counter(pair for symbols in spelled for pair in pairwise(symbols)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for symbols in spelled:
            _merge(symbols, best)
    return merges


def _merge(symbols: list[str], pair: Merge) -> None:
    at = 0
    while at < len(symbols) - 1:
        if (symbols[at], symbols[at + 1]) == pair:
            symbols[at : at + 2] = ["".join(pair)]
        at += 1


def merges_file(merges: Sequence[Sequence[str]]) -> bytes:
    """The gzip file of the merges, the same bytes every time: a header, then one merge a line."""
    text = "\n".join(["#version: 0.2 - tiny CLIP", *(" ".join(merge) for merge in merges)])
    return gzip.compress(text.encode(), mtime=0)


def read_merges(content: bytes) -> list[list[str]]:
    """The merges of such a file."""
    return [line.split() for line in gzip.decompress(content).decode().splitlines()[1:]]
