"""Files and paths that people write: read as they look, refused in one line, and never without end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt.data.catalog import load_catalog
from cpt.errors import CptError
from cpt.experiment import config
from cpt.files import handwritten


def plain(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=12,
    )


@settings(deadline=None)
@given(values=plain(st.text()), indent=st.sampled_from([None, 2, "\t"]))
def test_json_is_read_as_json(values: Any, indent: Any) -> None:
    assert repr(handwritten.parse(json.dumps(values, indent=indent))) == repr(values)


@settings(deadline=None)
@given(values=plain(st.text(st.characters(exclude_characters="0123456789"))))
def test_what_a_yaml_library_writes_is_read_back(values: Any) -> None:
    """But for texts such as 1e5, which YAML 1.1 needs no quotes for."""
    assert repr(handwritten.parse(yaml.safe_dump(values, sort_keys=False))) == repr(values)


@pytest.mark.parametrize("path", sorted(Path("config").rglob("*.yaml")), ids=str)
def test_shipped_files_are_read_as_yaml_says(path: Path) -> None:
    assert repr(handwritten.load(path)) == repr(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+1e-3", "10e-4", "1.0e-3", "1.e-3", ".1e-2", "1_0e-4"])
def test_numbers_of_science(text: str) -> None:
    assert handwritten.parse(f"x: {text}") == {"x": 0.001}


def test_anchors_and_merge_keys_work() -> None:
    text = "a: &a {p: 1, q: 2}\nb: {<<: *a, q: 3}\nc: {<<: [*a, {p: 9, z: 0}], z: 5}\nd: [*a, *a]\n"
    assert handwritten.parse(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\n'a': 3", "line 3: 'a' stands in line 1 too; delete one"),
        ("x:\n  a: {b: 1,\n      b: 2}", "line 3: 'b' stands in line 2 too; delete one"),
        ("a: 1\nb: &x {c: 1}\n<<: *x\na: 1", "line 4: 'a' stands in line 1 too"),
        ("yes: 1\ntrue: 2", "line 2: 'true' stands in line 1 too"),
        ('{"a": 1,\n\t"b": {"c": 1e-5,\n\t\t"c": 2}}', "line 3: 'c' stands in line 2 too"),
        ('{"😀": 1, "\\ud83d\\ude00": 2}', "'😀' stands twice in one mapping; delete one"),
        ("s: [1,\n  010]", "line 2: YAML reads 010 as 8; write 8, or '010' for a text"),
        ("s: -0_17", "line 1: YAML reads -0_17 as -15; write -15, or '-0_17'"),
        ("s: 1:30", "line 1: YAML reads 1:30 as 90; write 90, or '1:30' for a text"),
        ("s: 1:30.5", "line 1: YAML reads 1:30.5 as 90.5"),
        ("s: 2026-13-45", "line 1: month must be in 1..12; put it in quotes"),
        ("s: " + "9" * 5000, "line 1: Exceeds the limit"),
        ("a:\n\t- b", "not valid YAML: line 2: found character '\\\\t' that cannot start any token"),
        ("a: [", "not valid YAML: line 1: "),
        ("a: \a", "not valid YAML: unacceptable character #x0007"),
        ("a: !!python/name:os.system x", "line 1: could not determine a constructor for the tag"),
        ("[" * 100_000, "nested deeper than 50 levels"),
        ("[" * 100_000 + "]" * 100_000, "nested deeper than 50 levels"),
        ("[" * 60 + "]" * 60, "nested deeper than 50 levels"),
        ("a: &a {b: *a}", "nested deeper than 50 levels"),
        ("&a [*a]", "nested deeper than 50 levels"),
    ],
)
def test_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    for read in (load_catalog, lambda path: config.load([path])):
        with pytest.raises(CptError, match=f"x.yaml: {message.replace('[', '.')}") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("merge", "last"),
    [
        (False, "ValueError: holds more than 200,000 values, with those that aliases (*name) repeat; delete some"),
        (True, ""),
    ],
)
def test_a_bomb_of_aliases_bursts_nothing(tmp_path: Path, merge: bool, last: str) -> None:
    """Nine levels of ten aliases each are a billion mappings, or a billion pairs that merge into one."""
    lines = ["l0: &l0 {k: 1}"]
    for i in range(1, 10):
        many = [f"*l{i - 1}"] * 10
        inner = f"<<: [{', '.join(many)}]" if merge else ", ".join(f"k{j}: {alias}" for j, alias in enumerate(many))
        lines.append(f"l{i}: &l{i} {{{inner}}}")
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "from pathlib import Path; from cpt.files import handwritten; handwritten.load(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    assert (done.stderr.splitlines() or [""])[-1] == last


def test_a_path_begins_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert handwritten.expanded("~/x") == f"{tmp_path}/x"
    assert [handwritten.expanded(path) for path in ("a/~/b", "./~", "/x", "")] == ["a/~/b", "./~", "/x", ""]


@pytest.mark.parametrize("content", [b"\xff\xfea", "é: 1".encode("latin-1")])
def test_another_encoding(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(ValueError, match="not UTF-8; save it as UTF-8"):
        handwritten.load(tmp_path / "x.yaml")


@pytest.mark.parametrize("text", ["seeds: [1]\r\n", '{"seeds": [1]}'])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert handwritten.load(tmp_path / "x.yaml") == {"seeds": [1]}
