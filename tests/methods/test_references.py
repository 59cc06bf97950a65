"""Papers and codes of methods: entries of BibTeX that a strict reader takes, and a license for every repository."""

from __future__ import annotations

import re

import pytest

from cpt.methods.base import references, registry
from tests.helpers.command import here

METHODS = [name for name in registry.built_in() if not registry.get(name).control]
NEEDED = {"article": {"title", "author", "journal", "year"}, "inproceedings": {"title", "booktitle", "year"},
          "misc": {"title", "url"}}  # fmt: skip


def parsed(text: str) -> dict[str, dict[str, str]]:
    """Read BibTeX: key -> its fields and its ``type``. Anything that is no entry, comment or blank line is refused."""
    found: dict[str, dict[str, str]] = {}
    text = re.sub(r"(?m)^%.*\n", "", text)
    for kind, key, body, rest in re.findall(r"@(\w+)\{([\w:-]+),\n(.*?)\n\}\n?|(\S.*)", text, re.DOTALL):
        assert not rest, rest
        assert key not in found, "a key stands once"
        fields = re.findall(r"  (\w+) = \{(.*)\}(?:,|$)", body)
        assert len(fields) == len(body.splitlines()), body
        assert len(dict(fields)) == len(fields)
        found[key] = {"type": kind, **dict(fields)}
    return found


@pytest.fixture(scope="module")
def entries() -> dict[str, dict[str, str]]:
    done = here("methods", "--bibtex")
    assert done.returncode == 0
    return parsed(done.stdout)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_papers(name: str, entries: dict[str, dict[str, str]]) -> None:
    keys = [paper.key for paper in references.papers(registry.get(name).source)]
    assert keys
    assert set(keys) <= entries.keys()
    assert len(keys) == (2 if name == "dekg_tcp" else 1)
    assert list(parsed(here("methods", "--bibtex", name).stdout)) == keys


def test_entries_are_whole(entries: dict[str, dict[str, str]]) -> None:
    for key, fields in entries.items():
        assert NEEDED[fields["type"]] <= fields.keys(), key
        for value in fields.values():
            assert value.isascii(), "BibTeX of any age"
            assert value.count("{") == value.count("}")
            assert not re.search(r"[&%$#]", value.replace("\\", "")) or "url" in fields
        authors = fields.get("author", "Name, Any").split(" and ")
        assert all(author == "others" or author.count(",") == 1 for author in authors)
        assert re.fullmatch(r"(19|20)\d\d", fields.get("year", "2025"))
        assert re.fullmatch(r"\d{4}\.\d{5}", fields.get("eprint", "2605.11939"))
        assert ("eprint" in fields) == (fields.get("archivePrefix") == "arXiv")


def test_every_paper_is_of_a_method(entries: dict[str, dict[str, str]]) -> None:
    assert {paper.key for paper in references.PAPERS.values()} == entries.keys()
    assert entries["cpt2026"]["eprint"] == "2605.11939"


def test_controls_have_none() -> None:
    assert here("methods", "--bibtex", "prior_only").stdout == "% prior_only: no entry; source: ours: a control\n"
    assert here("methods", "--bibtex", "ivpl").stderr.startswith(
        "cpt: error: unknown method 'ivpl'; did you mean 'ivlp'?"
    )


def test_every_repository_has_its_license(root) -> None:
    found = {name: references.codes(registry.get(name).source) for name in registry.built_in()}
    assert {repository for of in found.values() for repository in of} <= references.LICENSES.keys()
    assert found["coop"] == {"KaiyangZhou/CoOp": "MIT"}
    assert found["lift"] == {"shijxcs/LIFT": references.NONE}
    assert not found["cpt"]
    text = (root / "docs/methods.md").read_text()
    assert "| LIFT (`lift`) | `shi2024lift` | shijxcs/LIFT | none |" in text
