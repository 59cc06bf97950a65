"""What the page brings along: its own script, the libraries it uses and its data, packed into text that HTML can hold.

The libraries come from Python packages that ship them minified: DataTables with its extensions (MIT) from ``itables``
(MIT), Plotly.js (MIT) from ``plotly`` (MIT). Neither package is imported.
"""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from cpt.errors import CptError

LIBRARIES = {
    "datatables": ("itables", "html/dt_bundle.js"),
    "datatables-css": ("itables", "html/dt_bundle.css"),
    "plotly": ("plotly", "package_data/plotly.min.js"),
}


@cache
def library(name: str) -> str:
    """Return a library's minified source, packed.

    Raises:
        CptError: the package that ships it is absent or ships it elsewhere.
    """
    package, file = LIBRARIES[name]
    found = find_spec(package)
    places = list(found.submodule_search_locations or []) if found else []
    path = Path(places[0], file) if places else None
    if path is None or not path.is_file():
        raise CptError(f"page: {file} of the package {package} is not there; pip install -r envs/requirements.txt")
    return packed(path.read_bytes())


def packed_json(value: object) -> str:
    """Return a value as JSON, packed; objects keep their order."""
    return packed(json.dumps(value, separators=(",", ":"), allow_nan=False).encode())


def packed(data: bytes) -> str:
    """Return gzip of some bytes as base64: no character that HTML could take for markup, and no time inside."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()
