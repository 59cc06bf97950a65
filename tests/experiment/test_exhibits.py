"""Kinds of figures and layouts of tables are found by name, and said to be incomplete where they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cpt.report.figures
import cpt.report.layouts
from cpt.errors import CptError
from cpt.experiment import exhibits


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Put a module ``new`` beside the kinds and the layouts."""

    def write(text: str) -> None:
        (tmp_path / "new.py").write_text(text)
        exhibits.names.cache_clear()

    for package in (cpt.report.figures, cpt.report.layouts):
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    yield write
    exhibits.names.cache_clear()
    for package in (exhibits.FIGURES, exhibits.LAYOUTS):
        sys.modules.pop(f"{package}.new", None)


def test_all_are_found() -> None:
    for package, find in ((exhibits.FIGURES, exhibits.kind), (exhibits.LAYOUTS, exhibits.layout)):
        assert len(exhibits.names(package)) > 3
        for name in exhibits.names(package):
            assert find(name).__module__ == f"{package}.{name}"
            assert find(name).__doc__
    for module in exhibits.modules(exhibits.FIGURES):
        assert callable(sys.modules[module].draw)
        assert sys.modules[module].HEADER


@pytest.mark.parametrize(
    "text",
    [
        "",
        "from typing import Literal\nfrom cpt.experiment.exhibits import VariantsFigure\n"
        "class New(VariantsFigure):\n    kind: Literal['old']\n",
        "from typing import Literal\nfrom cpt.experiment.exhibits import VariantsFigure\n"
        "class New(VariantsFigure):\n    kind: Literal['new']\nclass Other(New):\n    pass\n",
        "from cpt.experiment.exhibits import VariantsFigure\nclass New(VariantsFigure):\n    pass\n",
    ],
)
def test_a_kind_must_define_its_section(added: Callable[[str], None], text: str) -> None:
    added(text)
    assert "new" in exhibits.names(exhibits.FIGURES)
    with pytest.raises(CptError, match=r"figures/new\.py must define exactly one Exhibit, with kind: Literal\['new'\]"):
        exhibits.kind("new")


def test_a_layout_must_define_itself(added: Callable[[str], None]) -> None:
    added("from cpt.report.layout import Layout\n")
    with pytest.raises(CptError, match=r"layouts/new\.py must define exactly one Layout"):
        exhibits.layout("new")
