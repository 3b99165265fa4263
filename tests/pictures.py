"""The pictures of the documents, taken of the dashboard on the demo run.

PYTHONPATH=. python tests/pictures.py writes docs/images/*.png; look at them before they are kept.
"""

import shutil
import tempfile
from pathlib import Path

import test_browser
from chain import ROOT
from playwright.sync_api import expect, sync_playwright

IMAGES = ROOT / "docs" / "images"
PICTURES = {  # address on the demo run, the last picture to be drawn, height of the window
    "select": ("Select?run=demo&by=kind", "coverage", 1000),
    "explore": ("Explore?run=demo&colour=kind&topics=0", "topic-sizes", 1000),
}


def take(runs: Path) -> None:
    """Draw each page in a fresh tab, in light colours, 1400 pixels wide."""
    server = test_browser.Server(runs, runs)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=test_browser.CHROMIUM, args=test_browser.FLAGS
            )
            for name, (address, last, height) in PICTURES.items():
                page = browser.new_page(
                    viewport={"width": 1400, "height": height}, color_scheme="light"
                )
                page.goto(f"{server.url}/{address}")
                expect(page.locator(f".st-key-{last} .main-svg .xtick").first).to_be_visible(
                    timeout=test_browser.SLOW
                )
                test_browser.settle(page)
                page.wait_for_timeout(2_000)  # what is drawn fades in
                page.screenshot(path=IMAGES / f"{name}.png")
                page.close()
            browser.close()
    finally:
        server.kill()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(test_browser.DEMO, Path(folder) / "demo")
        IMAGES.mkdir(parents=True, exist_ok=True)
        take(Path(folder))
