"""Put the numbers of a finished run between the markers of a document.

python docs/write_numbers.py results/embedded README.md            the tables 2 and 1 as they are
python docs/write_numbers.py results/embedded_full docs/embedded.md --averages    the averages of tables 2, 3 and 4
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

TABLES = ("table2", "table1")
AVERAGES = (("table2", "base"), ("table2", "new"), ("table2", "H"), ("table3", "accuracy"), ("table4", "accuracy"))
TITLES = ("base", "new", "H", "cross-dataset", "domain generalisation")


def tables(results: Path) -> str:
    """Tables of a results folder as Markdown."""
    return "\n\n".join((results / "tables" / f"{name}.md").read_text(encoding="utf-8").strip() for name in TABLES)


def averages(results: Path) -> str:
    """One row per imbalance ratio and method: averages over the datasets, mean over seeds."""
    found: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    seeds = set()
    for name in dict.fromkeys(table for table, _ in AVERAGES):
        for row in csv.DictReader((results / "tables" / f"{name}.csv").open(encoding="utf-8")):
            if row["dataset"] == "Avg" and row["value"]:
                spread = f" ± {float(row['std']):.2f}" if row["std"] else ""
                number = f"{float(row['value']):.2f}{spread}"
                found.setdefault((row["imbalance_ratio"], row["method"]), {})[name, row["metric"]] = number
                seeds.add(int(row["n_seeds"]))
    lines = [f"| τ | method | {' | '.join(TITLES)} |", "|--:|:--" + "|--:" * len(TITLES) + "|"]
    for (ratio, method), numbers in found.items():
        cells = " | ".join(numbers.get(key, "–") for key in AVERAGES)
        lines.append(f"| {ratio} | {method} | {cells} |")
    return "\n".join(lines) + f"\n\nSeeds per row: {', '.join(map(str, sorted(seeds)))}."


def main() -> None:
    """Replace what stands between the markers."""
    results, document = Path(sys.argv[1]), Path(sys.argv[2])
    block = averages(results) if "--averages" in sys.argv else tables(results)
    text = document.read_text(encoding="utf-8")
    marked = f"<!-- numbers -->\n{block}\n<!-- /numbers -->"
    replaced, count = re.subn(r"<!-- numbers -->.*<!-- /numbers -->", lambda _: marked, text, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"{document}: expected one block of numbers, found {count}")
    document.write_text(replaced, encoding="utf-8")


if __name__ == "__main__":
    main()
