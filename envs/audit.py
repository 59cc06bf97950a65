"""Known vulnerabilities of the pinned versions and secrets in tracked files; part of ``make lint``.

Vulnerabilities come from pip-audit, secrets from detect-secrets. What could not be asked or scanned is printed as
SKIPPED and is no failure. Exceptions with reasons: ``envs/exceptions.yaml``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
EXCEPTIONS = ROOT / "envs/exceptions.yaml"
PINS = ("requirements.txt", "requirements-dev.txt", "requirements-docs.txt")  # pip-audit follows no references
CHECKSUM = "Hex High Entropy String"  # the one kind of finding that a file can be excepted from


def vulnerabilities(report: Mapping[str, Any], accepted: Mapping[str, str]) -> tuple[list[str], int, list[str]]:
    """Return a line per vulnerability that is not accepted, how many packages the service knew, and the others.

    Args:
        report: JSON of ``pip-audit --format json``.
        accepted: identifier: reason.
    """
    known = [package for package in report["dependencies"] if "skip_reason" not in package]
    lines = [
        f"{package['name']} {package['version']}: {found['id']}; pin {' or '.join(found['fix_versions']) or 'another'}"
        for package in known
        for found in package["vulns"]
        if not {found["id"], *found.get("aliases", [])} & set(accepted)
    ]
    return lines, len(known), [package["name"] for package in report["dependencies"] if "skip_reason" in package]


def secrets(report: Mapping[str, Any], accepted: Mapping[str, str]) -> list[str]:
    """Return a line per secret of detect-secrets' report that is not accepted, and per exception that none needs."""
    found_in = {name: {found["type"] for found in all_found} for name, all_found in report["results"].items()}
    return [
        f"{name}:{found['line_number']}: looks like a secret ({found['type']}); take it out, or give the file a reason "
        f"in {EXCEPTIONS.name}"
        for name, all_found in report["results"].items()
        for found in all_found
        if name not in accepted or found["type"] != CHECKSUM
    ] + [
        f"{EXCEPTIONS.name}: secrets: {name}: nothing to except in it; delete the line"
        for name in accepted
        if CHECKSUM not in found_in.get(name, ())
    ]


def unreasoned(exceptions: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return a line per exception without a reason."""
    return [
        f"{EXCEPTIONS.name}: {kind}: {name}: needs a reason"
        for kind, accepted in exceptions.items()
        for name, reason in accepted.items()
        if not isinstance(reason, str) or not reason.strip()
    ]


def main() -> int:
    """Print what was found; return 1 if anything has to be fixed."""
    exceptions = yaml.safe_load(EXCEPTIONS.read_text(encoding="utf-8"))
    problems = unreasoned(exceptions)
    files = [word for name in PINS for word in ("-r", str(ROOT / "envs" / name))]
    options = ["--no-deps", "--disable-pip", "--format", "json"]
    audit = _run("pip_audit", *files, *options, "--progress-spinner", "off", "--timeout", "15")
    try:
        found, known, unknown = vulnerabilities(json.loads(audit.stdout), exceptions["vulnerabilities"])
    except (json.JSONDecodeError, KeyError):
        print(
            "SKIPPED: vulnerabilities: no answer from pip-audit:",
            (audit.stderr.strip() or "it printed nothing").splitlines()[-1],
        )
    else:
        problems += found
        if known:
            print(f"vulnerabilities: {known} packages asked about")
        if unknown:
            print("SKIPPED: vulnerabilities: the service does not know", ", ".join(unknown) if known else "any package")
    scan = _run("detect_secrets", "scan", "--no-verify")  # verifying would send what it finds to its service
    if scan.returncode or "fatal:" in scan.stderr:
        print("SKIPPED: secrets:", (scan.stderr.strip() or "no answer from detect-secrets").splitlines()[-1])
    else:
        problems += secrets(json.loads(scan.stdout), exceptions["secrets"])
        print("secrets: tracked files scanned")
    print("\n".join(problems) or "nothing to fix")
    return int(bool(problems))


def _run(module: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT, capture_output=True, text=True, timeout=600)


if __name__ == "__main__":
    sys.exit(main())
