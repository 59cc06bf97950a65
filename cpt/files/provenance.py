"""Where a result came from: what it was made from and by, versions, commit, and a hash of the code that a stage uses.

Beside every file that a stage writes lies its record, ``<file>.provenance.json``. It stands apart because results hold
nothing that differs between two equal computations, and a record's times of change make nothing stale.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from cpt import __version__
from cpt.errors import CptError
from cpt.files import plugins
from cpt.files.hashes import sha256_text
from cpt.files.integrity import SCHEMA, SUFFIX, digest
from cpt.files.stage_files import sha256_file, write_json
from cpt.files.trace import traced

PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("torch", "numpy", "open_clip_torch", "scikit-learn", "pyarrow", "safetensors", "snakemake")

_DRIVER = Path("/proc/driver/nvidia/version")
_device = "cpu"


@contextlib.contextmanager
def recorded(output: Path) -> Iterator[dict[str, Any]]:
    """Write the record beside a stage's main file when the block has succeeded; yield a dictionary for further facts.

    ``sources`` are all stage files that the block read, ``outputs`` those that it wrote into the folder of ``output``,
    both as paths relative to that folder with the SHA-256 of their bytes. ``versions`` has those of other packages,
    whose methods and datasets the block used, too.
    """
    global _device
    _device = "cpu"
    plugins.forget()
    facts: dict[str, Any] = {}
    with traced() as trace:
        yield facts
    main = os.path.abspath(output)
    folder = os.path.dirname(main)
    written = {path for path in trace.written if os.path.dirname(path) == folder}

    def hashes(paths: set[str]) -> dict[str, str]:
        found = {path: trace.sha256.get(path) or sha256_file(Path(path)) for path in paths}
        return {Path(os.path.relpath(path, folder)).as_posix(): digest for path, digest in found.items()}

    record = {
        "schema": SCHEMA,
        "path": main,
        "sources": hashes(trace.read - written),
        "outputs": hashes(written),
        "command": sys.argv,
        "cpt": __version__,
        **commit(),
        "versions": versions() | plugins.used(),
        "device": _device,
        "driver": driver(),
        "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        **facts,
    }
    write_json(Path(main + SUFFIX), {**record, "digest": digest(record)})


def computing_on(device: str) -> None:
    """Note the name of the device for the record that is being made."""
    global _device
    _device = device


def driver() -> str | None:
    """Version of the NVIDIA driver; None where there is none."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+[\d.]+)\s", _DRIVER.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[1] if found else None


def code_version(*modules: str, data: Sequence[str] = ()) -> str:
    """Return a hash of the named modules and of everything in ``cpt``, or in a plugin's package, that they import.

    The hash is over syntax trees without docstrings, so that comments and formatting never make a result stale.
    Modules that are found at run time (methods) have to be named, and so have files that the code reads.

    ``data`` are files or folders inside the package, such as ``report/page/page.html.j2``; their bytes count.
    """
    seen: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen[module], imported = _module(module)
            waiting += imported
    for name in data:
        found = PACKAGE / name
        for path in sorted(found.rglob("*")) if found.is_dir() else [found]:
            if path.is_file():
                seen[str(path.relative_to(PACKAGE))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return sha256_text("".join(f"{m}{d}" for m, d in sorted(seen.items())))[:12]


def stamp(*modules: str, data: Sequence[str] = ()) -> str:
    """Return what ``require_code`` compares: the names, and the hash of their code (``code_version``)."""
    return f"{'+'.join([*modules, *data])}={code_version(*modules, data=data)}"


def require_code(stamp: str) -> None:
    """See that the code is the one that the workflow counts on: Snakemake records what it was when it started.

    Raises:
        CptError: it has changed since, or this is no stamp.
    """
    names, _, expected = stamp.rpartition("=")
    modules = [name for name in names.split("+") if _source(name)]
    data = [name for name in names.split("+") if name not in modules and (PACKAGE / name).exists()]
    if not names or len(modules) + len(data) != len(names.split("+")):
        raise CptError(f"--code {stamp}: names no code of cpt; leave it out")
    require_version(expected, code_version(*modules, data=data), modules[0])


def require_version(expected: str, found: str, what: str) -> None:
    """Refuse code that has changed since Snakemake started.

    Raises:
        CptError: it has.
    """
    if found != expected:
        raise CptError(
            f"--code: the code of {what} has changed since Snakemake started ({expected} then, {found} now); "
            "end Snakemake and start it again"
        )


@cache
def _module(module: str) -> tuple[str, tuple[str, ...]]:
    """Return the hash of one module's code and the modules that it imports and that count (``is_code``)."""
    path = _source(module)
    assert path is not None, module
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _imported_from(module, path, node)
            imported += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return sha256_text(ast.dump(tree)), tuple(sorted({name for name in imported if _source(name)}))


def _imported_from(module: str, path: Path, node: ast.ImportFrom) -> str:
    """Module that ``from ... import`` of a module names; packages with plugins may name it relative to their own."""
    if not node.level:
        return node.module or ""
    parents = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    return ".".join([*parents[: len(parents) - node.level + 1], *([node.module] if node.module else [])])


def is_code(module: str) -> bool:
    """Whether a name is a module of ``cpt``, or of a package that has plugins."""
    return _source(module) is not None


def _source(module: str) -> Path | None:
    """File of a module of the package, or of a package that has plugins; None for other names."""
    package, *inside = module.split(".")
    if package == "cpt":
        place = PACKAGE.joinpath(*inside) if inside else None
    else:
        found = plugins.source(package)
        place = found and found.joinpath(*inside)
    files = (place, place.with_suffix(".py"), place / "__init__.py") if place else ()
    return next((file for file in files if file.is_file()), None)


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def commit() -> dict[str, Any]:
    """Commit of the checkout that the package is part of, and whether it is not all of the code; None where unknown.

    ``dirty``: tracked files differ from it, or the package has modules that git does not know, as a new method.

    A repository that only surrounds the package, as it surrounds a virtual environment, is none: it does not track it.
    """
    # variables of a hook or an editor may name another repository
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(PACKAGE), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=environment)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    tracked = git("ls-files", "--error-unmatch", "__init__.py") is not None
    head = git("rev-parse", "HEAD") if tracked else None
    if head is None:
        return {"commit": None, "dirty": None}
    new = git("ls-files", "--others", "--exclude-standard", "--", "*.py")  # below the package
    return {"commit": head, "dirty": bool(git("status", "--porcelain", "-uno") or new)}
