"""Where a result came from: versions, commit, and a hash of the code that a stage uses."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
LIBRARIES = ("torch", "numpy", "open_clip_torch", "scikit-learn", "pyarrow", "safetensors", "snakemake")


def code_version(*modules: str, data: Sequence[str] = ()) -> str:
    """Return a hash of the named modules of ``cpt`` and of everything in ``cpt`` that they import.

    The hash is over syntax trees without docstrings, so that comments and formatting never make a result stale.
    Modules that are found at run time (methods) have to be named, and so have files that the code reads.

    Args:
        modules: names such as ``cpt.train``.
        data: files or folders inside the package, such as ``report/page.html.j2``; their bytes count.
    """
    seen: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen:
            digest, imported = _module(module)
            seen[module] = digest
            waiting += imported
    for name in data:
        found = PACKAGE / name
        for path in sorted(found.rglob("*")) if found.is_dir() else [found]:
            if path.is_file():
                seen[str(path.relative_to(PACKAGE))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256("".join(f"{m}{d}" for m, d in sorted(seen.items())).encode()).hexdigest()[:12]


@cache
def _module(module: str) -> tuple[str, tuple[str, ...]]:
    """Return the hash of one module's code and the modules of ``cpt`` that it imports."""
    relative = module.removeprefix("cpt").removeprefix(".").replace(".", "/")
    path = PACKAGE / f"{relative}.py"
    if not path.is_file():
        path = PACKAGE / relative / "__init__.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return digest, tuple(sorted({name for name in imported if name.startswith("cpt.") and _exists(name)}))


def _exists(module: str) -> bool:
    relative = Path(*module.split(".")[1:])
    return (PACKAGE / relative).with_suffix(".py").is_file() or (PACKAGE / relative / "__init__.py").is_file()


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
    """Commit of the checkout that the package lies in, and whether tracked files differ from it."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(PACKAGE), *words], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    head = git("rev-parse", "HEAD")
    return {"commit": head, "dirty": None if head is None else bool(git("status", "--porcelain", "-uno"))}
