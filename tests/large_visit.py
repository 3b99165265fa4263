"""How long a browser takes to open Explore on a large run.

PYTHONPATH=. python tests/large_visit.py FOLDER RUN visits the run of a runs folder, such as the one
that large_run.py makes: by a server and a browser that have shown nothing before, in a new tab of
that browser, and, server and browser fresh again, from the page Start.
"""

import sys
import time
from pathlib import Path

import test_browser
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

LISTED = "[data-testid=stDataFrame] canvas"
DRAWN = ("plane", "distribution", "topic-sizes")


def new_window(browser: Browser) -> BrowserContext:
    return browser.new_context(viewport={"width": 1400, "height": 1000})


def visit(page: Page, url: str, when: str) -> None:
    """Open the address, and print the seconds to its headline and to its last picture."""
    started = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.get_by_text("What the model finds in").wait_for()
    headline = time.perf_counter() - started
    page.locator(LISTED).first.wait_for()
    for key in DRAWN:
        page.locator(f".st-key-{key} .main-svg .xtick").first.wait_for(state="attached")
    whole = time.perf_counter() - started
    print(f"{when:42} headline {headline:5.2f} s, all drawn {whole:5.2f} s", flush=True)


def visits(playwright: Playwright, root: Path, run: str) -> None:
    server = test_browser.Server(root, root)
    explore = f"{server.url}/Explore?run={run}"
    options = {"executable_path": test_browser.CHROMIUM, "args": test_browser.FLAGS}
    try:
        context = new_window(playwright.chromium.launch(**options))
        visit(context.new_page(), explore, "fresh server, fresh browser")
        visit(context.new_page(), explore, "the same once more, in a new tab")
        context.close()
        server.kill()
        server.start()
        page = new_window(playwright.chromium.launch(**options)).new_page()
        page.goto(server.url)
        page.get_by_text("Which of my examples").wait_for()
        page.wait_for_timeout(3_000)  # people read before they go on
        visit(page, explore, "fresh server and browser, from Start")
    finally:
        server.kill()


if __name__ == "__main__":
    with sync_playwright() as playwright:
        visits(playwright, Path(sys.argv[1]).resolve(), sys.argv[2])
