"""Making the board: bundles are checked, their rows merged and ranked, and written as a page with files beside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cpt import __version__
from cpt.data.entry import Entry
from cpt.errors import CptError
from cpt.files.stage_files import parse_json, write_json, write_text
from cpt.report.board.files import table_of, write_numbers
from cpt.report.board.rows import Row, merged, plain, read_rows
from cpt.report.board.tables import Ranked, in_settings, shown
from cpt.report.formats import html
from cpt.report.page import web
from cpt.report.templates import templates
from cpt.report.words import counted
from cpt.workflow.strict import CHECKS, ODD, Check
from cpt.workflow.submissions import Submission, find, submission

RECORD = "cpt.board-record/1"
_PAGE = Path(web.__file__).parent
_SCRIPTS = (_PAGE / "dom.js", _PAGE / "frame.js", _PAGE / "tables.js", Path(__file__).with_name("board.js"))
_STYLES = (_PAGE / "page.css", Path(__file__).with_name("board.css"))
_LIBRARIES = ("datatables", "datatables-css")


@dataclass(frozen=True)
class Outcome:
    """What became of a bundle: its record, and why it was refused; None if it was not."""

    name: str
    refusal: str | None
    record: Mapping[str, Any]


def make_board(
    places: Sequence[Path], output: Path, catalog: Mapping[str, Entry], log: Callable[[str], None] = print
) -> list[Outcome]:
    """Write the board of some bundles; return what became of each. Nothing is written if none is accepted.

    Args:
        places: archives of ``cpt bundle``, folders of experiments, or folders that hold some.
        output: folder for index.html, board.parquet, board.csv, and a record per bundle in ``records``.
        catalog: datasets with what a complete copy of them holds.
        log: gets lines of progress.

    Raises:
        CptError: a place holds no bundle, or ``output`` is an experiment's folder.
    """
    if (output / "grid.json").exists():
        raise CptError(f"{output}: is the folder of an experiment; choose another with --output")
    outcomes: list[Outcome] = []
    rows: list[Row] = []
    for name, given in find(places).items():
        outcome, own = _examined(name, given, catalog, outcomes, log)
        outcomes.append(outcome)
        rows += own
        log(f"{name}: {'accepted' if outcome.refusal is None else f'refused: {outcome.refusal}'}")
    accepted = {each.name: each.record for each in outcomes if each.refusal is None}
    if accepted:
        settings = in_settings(merged(rows))
        _write_records(output / "records", outcomes)
        write_numbers(output, [pair for found in settings for pair in found.rows], accepted)
        write_text(output / "index.html", _page(settings, outcomes))
    return outcomes


def _examined(
    name: str,
    given: Path,
    catalog: Mapping[str, Entry],
    before: Sequence[Outcome],
    log: Callable[[str], None],
) -> tuple[Outcome, list[Row]]:
    """Check a bundle; return what became of it, and its rows."""
    checks: list[Check] = []
    facts: dict[str, Any] = {}
    rows: list[Row] = []
    refusal: str | None
    try:
        with submission(name, given, catalog, log) as found:
            checks, refusal = found.checked.checks, found.checked.refusal
            if refusal is None:
                facts = _cleaned(found)
                refusal = _copy(facts, before)
                rows = [] if refusal else read_rows(found.folder, name)
                table_of([(row, None) for row in rows], {name: facts})  # an odd value is this bundle's fault alone
    except CptError as error:
        refusal = str(error).replace(f"{given.parent}/", "")
    except Exception as error:  # of files that a stranger wrote, whatever is in them
        refusal = f"{ODD} ({type(error).__name__})"
    refusal = None if refusal is None else plain(refusal, longest=400)
    told = [
        asdict(check) | {"found": plain(check.found, longest=400), "meaning": CHECKS[check.name]} for check in checks
    ]
    record = {
        "schema": RECORD,
        "bundle": name,
        "outcome": "accepted" if refusal is None else "refused",
        "reason": refusal,
        "checks": told,
        "board": {"cpt": __version__},
        **facts,
    }
    return Outcome(name, refusal, record), rows if refusal is None else []


def _cleaned(found: Submission) -> dict[str, Any]:
    """The facts of a bundle, with the texts that its makers wrote as lines."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {plain(name): clean(of) for name, of in value.items()}
        if isinstance(value, list):
            return [clean(each) for each in value]
        return plain(value, longest=400) if isinstance(value, str) else value

    cleaned: dict[str, Any] = clean(found.record())
    return cleaned


def _copy(facts: Mapping[str, Any], before: Sequence[Outcome]) -> str | None:
    """Why a bundle is refused that was there before: equal seconds of all runs are no second machine's."""
    own = {name: digest for name, digest in facts["sha256"].items() if name != "archive"}
    for other in before:
        if other.refusal is None and own.items() <= other.record["sha256"].items():
            return f"is a copy of {other.name}; give each bundle once"
    return None


def _write_records(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Write a record per bundle, and delete those of an earlier board."""
    for path in folder.glob("*.json"):
        try:
            ours = parse_json(path.read_bytes())["schema"] == RECORD
        except (OSError, ValueError, KeyError, TypeError):
            ours = False
        if ours:
            path.unlink()
    for outcome in outcomes:
        write_json(folder / f"{outcome.name}.json", outcome.record)


def _page(settings: Sequence[Ranked], outcomes: Sequence[Outcome]) -> str:
    script = Markup("\n" + "".join(path.read_text(encoding="utf-8") for path in _SCRIPTS))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    places = {outcome.name: position for position, outcome in enumerate(outcomes, 1)}
    tables = [shown(found, position, places) for position, found in enumerate(settings, 1)]
    return (
        templates()
        .get_template("board/board.html.j2")
        .render(
            version=__version__,
            tables=[(each, Markup(html.write(each.table, linked=True))) for each in tables],
            outcomes=outcomes,
            accepted=[outcome for outcome in outcomes if outcome.refusal is None],
            refused=[outcome for outcome in outcomes if outcome.refusal is not None],
            rows=counted(sum(len(found.rows) for found in settings), "row"),
            count_of_tables=counted(len(tables), "table"),
            choices={
                "Protocol": _choices(each.protocol for each in tables),
                "Backbone": _choices(each.backbone for each in tables),
                "τ": _choices(each.ratio for each in tables),
                "Text knowledge": _choices(row.knowledge for found in settings for row, _ in found.rows),
            },
            style=Markup("".join(path.read_text(encoding="utf-8") for path in _STYLES)),
            script=script,
            script_hash=digest,
            packed=[(name, web.library(name)) for name in _LIBRARIES],
        )
    )


def _choices(values: Any) -> list[str]:
    return list(dict.fromkeys(values))
