"""How long a browser takes to open Explore on a large run.

PYTHONPATH=. python tests/large_visit.py FOLDER RUN visits the run of a runs folder, such as the one
that large_run.py makes: by a server and a browser that have shown nothing before, in a new tab of
that browser, and, server and browser fresh again, from the page Start.
"""

import sys
from pathlib import Path

import test_browser
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

# The browser's own clock, from the start of the navigation: asking from outside costs 0.4 s.
WATCH = """
    window.seen = {};
    const drawn = {
        views: () => [...document.querySelectorAll(".st-key-views *")].some(
            one => one.shadowRoot && one.shadowRoot.querySelector("figure.distribution canvas")
        ),
        topics: () => document.querySelector(".st-key-topic-sizes .main-svg .xtick"),
        list: () => document.querySelector("[data-testid=stDataFrame] canvas"),
    };
    const look = () => {
        const headline = document.querySelector("h2");
        if (!window.seen.headline && headline && headline.textContent.startsWith("What the model"))
            window.seen.headline = performance.now();
        if (!window.seen.whole && Object.values(drawn).every(there => there()))
            window.seen.whole = performance.now();
        if (!window.seen.whole) setTimeout(look, 20);
    };
    look();
"""


def new_window(browser: Browser) -> BrowserContext:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.add_init_script(WATCH)
    return context


def visit(page: Page, url: str, when: str) -> None:
    """Open the address, and print the seconds to its headline and to its last picture."""
    page.goto(url, wait_until="commit")
    page.wait_for_function("window.seen.whole", polling=200)
    seen = {name: ms / 1000 for name, ms in page.evaluate("window.seen").items()}
    print(f"{when:42} headline {seen['headline']:5.2f} s, all drawn {seen['whole']:5.2f} s")


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
