"""Packages with methods and datasets for cpt, installed into folders of their own."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from cpt.files import plugins, provenance
from cpt.methods.base import registry

EXAMPLE = Path(__file__).parents[1] / "plugin_example"


def install_example(work: Path, target: Path) -> Path:
    """Install the example by pip into ``target``, or by hand where pip or setuptools are absent; return ``target``."""
    copy = shutil.copytree(EXAMPLE, work / "source", ignore=shutil.ignore_patterns("__pycache__"))  # pip writes there
    if all(map(importlib.util.find_spec, ("pip", "setuptools"))):
        offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
        command = [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", str(target), str(copy)]
        subprocess.run(command, check=True, capture_output=True)
        return target
    project = tomllib.loads((copy / "pyproject.toml").read_text())["project"]
    shutil.copytree(copy / "cpt_plugin_example", target / "cpt_plugin_example")
    return describe(target, project["name"], project["version"], project["entry-points"])


def describe(target: Path, package: str, version: str, points: dict[str, dict[str, str]]) -> Path:
    """Write the metadata that an installed package has: its version, and its entry points by group."""
    folder = target / f"{package.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    groups = ["\n".join([f"[{group}]", *(f"{n} = {v}" for n, v in own.items())]) for group, own in points.items()]
    (folder / "entry_points.txt").write_text("\n\n".join(groups) + "\n")
    return target


@contextlib.contextmanager
def on_path(*targets: Path) -> Iterator[None]:
    """Let this process find the packages in some folders."""
    before, modules = list(sys.path), set(sys.modules)
    sys.path[:0] = map(str, targets)
    _forget()
    try:
        yield
    finally:
        sys.path[:] = before
        for name in set(sys.modules) - modules:
            if any(str(getattr(sys.modules[name], "__file__", "")).startswith(str(target)) for target in targets):
                del sys.modules[name]
        _forget()


def _forget() -> None:
    """Forget what was found before."""
    importlib.invalidate_caches()
    for known in (plugins.of, plugins.source, registry.names, registry.package, provenance._module):
        known.cache_clear()
