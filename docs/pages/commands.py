"""The command line as Markdown, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from cpt.cli.app import app
from docs.pages.schema import text

HIDDEN = "For developers and for the workflow"
HEAD = """# Commands

Every command has the same words in its `--help`. Errors that a user can fix are a line each. The exit code is then 1,
or 2 where the command line is wrong. Files that commands read and write: [files.md](../files.md).

"""


def page() -> str:
    """Return every command with its arguments and options, by what one wants to do."""
    panels: dict[str, list[str]] = {}
    for name, command, panel in _commands(typer.main.get_command(app), "cpt", ""):
        panels.setdefault(panel, []).append(_section(name, command))
    panels[HIDDEN] = panels.pop(HIDDEN)
    return HEAD + "\n".join(f"## {panel}\n\n" + "\n".join(found) for panel, found in panels.items())


def _commands(group: Any, name: str, panel: str) -> Iterator[tuple[str, Any, str]]:
    """Yield name, command and panel of all commands of a group and of the groups in it."""
    for verb, command in group.commands.items():
        of = HIDDEN if command.hidden else command.rich_help_panel or panel
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {verb}", of)
        else:
            yield f"{name} {verb}", command, of


def _section(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=name)
    usage = " ".join(["$", name, *command.collect_usage_pieces(context)])
    paragraphs = [text(paragraph) for paragraph in command.help.split("\n\n")]
    rows = [record for parameter in command.params if (record := parameter.get_help_record(context))]
    table = (
        [
            "| argument or option | meaning |",
            "|---|---|",
            *(f"| `{given}` | {text(meaning)} |" for given, meaning in rows),
        ]
        if rows
        else []
    )
    return "\n".join(
        [f"### {name}", "", *"\n\n".join(paragraphs).split("\n"), "", "```text", usage, "```", "", *table, ""]
    )
