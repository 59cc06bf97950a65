"""Take the picture of the README: python docs/picture.py, after `make run`, with Chromium installed."""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "results/embedded/report/index.html"


def main() -> None:
    """Write docs/report.png: the first 1400 x 1400 pixels of the default experiment's page."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])  # root has no sandbox
        page = browser.new_page(viewport={"width": 1400, "height": 1400}, color_scheme="light")
        page.goto(PAGE.as_uri())
        page.wait_for_timeout(3000)  # tables become sortable
        page.screenshot(path=ROOT / "docs/report.png")
        browser.close()


if __name__ == "__main__":
    main()
