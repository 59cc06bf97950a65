"""Run every scenario and write the table of docs/reliability.md (about ten minutes): ``python -m tests.faults``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.faults.damage import GROUPS, damage
from tests.faults.project import Kept
from tests.faults.scenarios import EVENTS, SEEDS, VICTIMS, kill
from tests.faults.table import DOCUMENT, replace, table


def main() -> None:
    """Run, tell, write."""
    with tempfile.TemporaryDirectory() as folder, Kept.made(Path(folder)) as kept:
        kills, others = {name: [] for name in VICTIMS}, {}
        for seed in SEEDS:
            for name, outcome in kill(kept, Path(folder, f"kill-{seed}"), seed).items():
                kills[name].append(outcome)
                print(f"seed {seed}, {name}: {outcome}", flush=True)
        for number, (name, event) in enumerate(EVENTS.items()):
            others[name] = event(kept, Path(folder, f"event-{number}"))
            print(f"{name}: {others[name]}", flush=True)
        for number, group in enumerate(GROUPS):
            found = damage(kept, Path(folder, f"damage-{number}"), group)
            others |= found
            print(*(f"{name}: {outcome}" for name, outcome in found.items()), sep="\n", flush=True)
    document = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(replace(document, table(kills, others)), encoding="utf-8")


main()
