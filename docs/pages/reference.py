"""Pages that are written from the code when the site is built; their parts are in modules beside."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

import cpt
from cpt.data.entry import Entry
from cpt.experiment.config import Config
from cpt.methods.base import references, registry
from docs.pages import commands, schema
from docs.pages.links import ROOT

STATISTICS = "cpt.results.stats"
OF_METHODS = [f"cpt.methods.base.{name}" for name in ("method", "hyperparameters", "prompts", "losses")]
CONFIGURATION = """# Configuration

Fields of the files in `config/` and of your own, written from the types that check them. A file may stand on top of
another one: [adding.md](../adding.md#a-configuration-on-top-of-another).

"""
ENTRIES = """# Dataset entries

Fields of an entry of `config/datasets.yaml`, or of the file that `catalog` of the [configuration](configuration.md)
names. The key of the entry is the dataset's name. How to write one: [adding.md](../adding.md#a-dataset-one-entry).

"""
PYTHON = """# Python

How to use it: [use.md](../use.md). Errors that a user can fix are `cpt.errors.CptError`: a line with what is wrong,
where, and the fix.

"""
METHODS = """# Python for methods

What a new method builds on. How to write one: [adding.md](../adding.md#a-method-one-file). Values of every method's
hyperparameters: [methods.md](../methods.md).

"""
CITE = """# How to cite

Cite the paper, and this repository with the version that you ran (`cpt --version`):

```bibtex
{paper}

@software{{cpt_longtail,
  title = {{{title}}},
  author = {{{{{authors}}}}},
  version = {{{version}}},
  license = {{{license}}}
}}
```

Cite the papers of the methods that you compare with, too: `cpt methods --bibtex coop maple` prints their BibTeX,
without names that of all methods. [methods.md](methods.md#licenses-and-citation) lists papers, codes and licenses.

Embedded results describe the generated benchmark only:
[what it can and cannot show](embedded.md#what-it-can-and-cannot-show).
"""


def pages() -> dict[str, str]:
    """Return path below docs/ -> Markdown."""
    public = {f"cpt.{name}": _place(name) for name in (*cpt.__all__, "Model")} | {STATISTICS: STATISTICS}
    return {
        "cite.md": cite(),
        "reference/commands.md": commands.page(),
        "reference/configuration.md": CONFIGURATION + schema.sections(Config.model_json_schema()),
        "reference/datasets.md": ENTRIES + schema.sections(Entry.model_json_schema(), without=["name"]),
        "reference/python.md": PYTHON + _docstrings(public),
        "reference/methods.md": METHODS + _docstrings({name: name for name in OF_METHODS}),
    }


def _place(name: str) -> str:
    """Where an object of the public interface is written."""
    return "cpt.results.frame.frame" if name == "results" else f"{getattr(cpt, name).__module__}.{name}"


def _docstrings(places: Mapping[str, str]) -> str:
    """What mkdocstrings turns into documentation: heading -> place of a module, class or function."""
    return "".join(
        f"::: {place}\n    options: {{heading: {name}, toc_label: {name}}}\n\n" for name, place in places.items()
    )


def cite() -> str:
    """Return BibTeX of the paper, and of the repository as CITATION.cff has it."""
    held = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    authors = " and ".join(author["name"] for author in held["authors"])
    paper = references.bibliography({"cpt": registry.get("cpt").source}).strip()
    return CITE.format(paper=paper, authors=authors, **{key: held[key] for key in ("title", "version", "license")})
