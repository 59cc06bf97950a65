"""Put the numbers of a finished run into the README: python docs/write_numbers.py results/embedded README.md"""

from __future__ import annotations

import re
import sys
from pathlib import Path

TABLES = ("table2", "table1")


def block(results: Path) -> str:
    """The tables of a results folder as Markdown."""
    return "\n\n".join((results / "tables" / f"{name}.md").read_text(encoding="utf-8").strip() for name in TABLES)


def main() -> None:
    """Replace what stands between the markers."""
    results, readme = Path(sys.argv[1]), Path(sys.argv[2])
    text = readme.read_text(encoding="utf-8")
    marked = f"<!-- numbers -->\n{block(results)}\n<!-- /numbers -->"
    replaced, count = re.subn(r"<!-- numbers -->.*<!-- /numbers -->", lambda _: marked, text, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"{readme}: expected one block of numbers, found {count}")
    readme.write_text(replaced, encoding="utf-8")


if __name__ == "__main__":
    main()
