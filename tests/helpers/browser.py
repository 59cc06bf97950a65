"""Debian's Chromium, which Playwright drives."""

from __future__ import annotations

import shutil

from tests.helpers.workflow import install


def chromium() -> str:
    """Path of Chromium, installed where that is possible; the test is left out elsewhere."""
    names = ("chromium", "chromium-browser", "google-chrome")
    if not any(map(shutil.which, names)):
        install(names[:1], names[:1], "Chromium (Debian package chromium)")
    return next(filter(None, map(shutil.which, names)))
