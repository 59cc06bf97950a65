"""The one exception that users see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CptError(Exception):
    """A problem that the user can mend. The message is one line: what is wrong, where, and the mend."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt name: ``did you mean 'flowers'?`` or the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
