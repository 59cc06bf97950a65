"""Several commands in one job: each goes on after another's failure, and what is finished is kept for a retry.

A scheduler's job costs seconds to minutes beside its work, so a cluster trains several short runs in one. Snakemake
deletes all outputs of a job that fails; so every finished command's files are kept outside them until the job as a
whole succeeds, and a retry takes them from there if nothing that they depend on has changed.
"""

from __future__ import annotations

import os
import shutil
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cpt.errors import CptError
from cpt.files.provenance import SUFFIX
from cpt.files.stage_files import canonical_json, parse_json, read_json, sha256_file, sha256_text, write_json
from cpt.training.interruption import StoppedError
from cpt.validation import one_line

SCHEMA = "cpt.kept/1"
_RECORD = "kept.json"


class Command(BaseModel):
    """One command of a job.

    Attributes:
        words: of the command line after ``cpt``.
        needs: files that its result depends on.
        makes: files that it writes; their provenance records are kept with them.
        keep: folder for what is finished, outside the job's outputs.
        code: stamp of the code that is to make them (``cpt --code``); the version of a training's is among its words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: list[str]
    needs: list[Path]
    makes: list[Path]
    keep: Path
    code: str = ""


def parse(text: str) -> Command:
    """Read a command from JSON.

    Raises:
        CptError: not JSON, or not a command.
    """
    try:
        return Command(**parse_json(text))
    except ValidationError as error:
        raise CptError(f"cpt many: {one_line(error, Command)}") from None
    except (ValueError, TypeError) as error:
        raise CptError(f"cpt many: {text[:60]!r} is not a JSON object ({error})") from None


def run_all(commands: Sequence[Command], run: Callable[[list[str]], Any], log: Callable[[str], None] = print) -> None:
    """Run the commands one after the other; ``run`` runs the words of one, ``log`` gets a line per command.

    Raises:
        CptError: commands failed; the others' files are kept.
        StoppedError: a signal asked for it.
    """
    failed = []
    for number, command in enumerate(commands, 1):
        title = f"{number}/{len(commands)} {command.words[0]} {command.makes[0].parent}"
        if _restore(command):
            log(f"{title}: finished by an earlier attempt")
            continue
        log(title)
        try:
            run(["--code", command.code, *command.words] if command.code else command.words)
        except StoppedError:
            raise
        except CptError as error:
            log(f"cpt: error: {error}")
            failed.append(title)
        except Exception:  # the other runs of the job are not lost for it
            log(traceback.format_exc())
            failed.append(title)
        else:
            _keep(command)
    if failed:
        raise CptError(f"{len(failed)} of {len(commands)} failed: {'; '.join(failed)}; the finished ones are kept")
    for command in commands:
        shutil.rmtree(command.keep, ignore_errors=True)


def _key(command: Command) -> str:
    """Hash of everything that the command's files depend on."""
    needed = {str(path): sha256_file(path) for path in command.needs}
    return sha256_text(canonical_json([command.words, command.code, needed]))


def _keep(command: Command) -> None:
    """Copy the finished files; the list of them comes last, so that half a copy is none."""
    shutil.rmtree(command.keep, ignore_errors=True)
    command.keep.mkdir(parents=True)
    records = [Path(f"{path}{SUFFIX}") for path in command.makes]
    hashes = {}
    for path in (*command.makes, *(record for record in records if record.is_file())):
        shutil.copyfile(path, command.keep / path.name)
        hashes[str(path)] = sha256_file(command.keep / path.name)
    write_json(command.keep / _RECORD, {"schema": SCHEMA, "key": _key(command), "files": hashes})


def _restore(command: Command) -> bool:
    """Put kept files in place; False if there are none, they are damaged, or something has changed since."""
    try:
        record = read_json(command.keep / _RECORD, SCHEMA)
        kept = {Path(path): command.keep / Path(path).name for path in record["files"]}
        whole = all(sha256_file(kept[Path(path)]) == digest for path, digest in record["files"].items())
    except CptError:
        return False
    if not whole or record["key"] != _key(command):
        return False
    for path, copy in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.kept")
        shutil.copyfile(copy, temporary)
        os.replace(temporary, path)
    return True
