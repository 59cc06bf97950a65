"""The table of docs/reliability.md."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tests.faults.damage import GROUPS
from tests.faults.scenarios import EVENTS, VICTIMS, Outcome

DOCUMENT = Path(__file__).parents[2] / "docs/reliability.md"
BEGINNING, END = "<!-- faults -->\n", "<!-- /faults -->\n"
HEAD = ["what happens", "what one sees", "what to type", "numbers"]
DAMAGES = [name for group in GROUPS.values() for name in group]
NAMES = [*VICTIMS, *EVENTS, *DAMAGES]


def table(kills: dict[str, list[Outcome]], others: dict[str, Outcome]) -> str:
    """Return the table as Markdown.

    Args:
        kills: outcomes by name.
        others: outcome by name.
    """
    rows = [HEAD, ["---"] * len(HEAD)]
    for name in VICTIMS:
        outcomes = kills[name]
        seen = Counter(outcome.seen for outcome in outcomes)
        told = "; ".join(f"{text} ({count} of {len(outcomes)})" for text, count in seen.most_common())
        typed = max((outcome.typed for outcome in outcomes), key=len)
        same = sum(outcome.same for outcome in outcomes)
        rows.append([name, told, _commands(typed), f"{same} of {len(outcomes)} identical"])
    for name in (*EVENTS, *DAMAGES):
        outcome = others[name]
        rows.append([name, outcome.seen, _commands(outcome.typed), "identical" if outcome.same else "DIFFERENT"])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _commands(typed: tuple[str, ...]) -> str:
    return ", then ".join("COMMAND" if command == "COMMAND" else f"`{command}`" for command in typed) or "nothing"


def replace(document: str, rows: str) -> str:
    """Put a table between the marks of a document."""
    before, _, rest = document.partition(BEGINNING)
    return f"{before}{BEGINNING}{rows}{END}{rest.partition(END)[2]}"


def names(document: str) -> list[str]:
    """What happens in a document's table, row by row."""
    rows = document.partition(BEGINNING)[2].partition(END)[0].splitlines()[2:]
    return [re.split(r" \| ", row.removeprefix("| "))[0] for row in rows]
