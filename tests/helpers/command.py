"""The command line in the tests' own process."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from cpt.cli.app import run


def here(
    *words: str, env: dict[str, str] | None = None, cwd: Path | None = None, encoding: str = "utf-8"
) -> subprocess.CompletedProcess:
    """What ``cpt`` does, in this process: for what does not depend on its start, which costs seconds."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, errors) for errors in ("strict", "backslashreplace"))
    with (
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.dict(os.environ, env or {}),
        mock.patch.object(sys, "argv", ["cpt", *words]),
        mock.patch.object(sys, "stdout", out),
        mock.patch.object(sys, "stderr", err),
    ):
        code = run()
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode(encoding))
    return subprocess.CompletedProcess(words, code, *texts)
