"""Reference implementation of long-tailed prompt tuning for CLIP: CPT and the methods it is compared with."""

import importlib
import sys
from typing import Any

if sys.platform == "win32":
    raise SystemExit(
        "cpt does not run on Windows itself; install and run it in WSL: https://learn.microsoft.com/windows/wsl"
    )

__version__ = "0.1.0"
__all__ = ["fit", "load", "results"]

_WHERE = {"fit": "cpt.api.fit", "load": "cpt.api.model", "Model": "cpt.api.model"}


def __getattr__(name: str) -> Any:
    """Import the Python interface when it is used: it needs torch, which takes seconds."""
    if name == "results":  # a package, which can be called
        return importlib.import_module("cpt.results")
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'cpt' has no attribute {name!r}")
