"""The one exception that users see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CptError(Exception):
    """A problem that the user can fix: what is wrong, where, and the fix, in one line, or a line each of several."""


def told(error: object) -> str:
    """Return an error as the terminal shows it."""
    return "\n".join(f"cpt: error: {line}" for line in str(error).splitlines())


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt name: ``did you mean 'flowers'?`` or the list of known names."""
    names = sorted(known)
    found = close(word, names)
    return f"did you mean {found!r}?" if found else f"known: {', '.join(names)}"


def close(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt one is most like; None where none is."""
    return next(iter(difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)), None)
