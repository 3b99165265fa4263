"""How long a browser takes to open Explore on a large run, and to answer what is done there.

PYTHONPATH=. python tests/large_visit.py FOLDER RUN visits the run of a runs folder, such as the one
that large_run.py makes: by a server and a browser that have shown nothing before, in a new tab of
that browser, and, server and browser fresh again, from the page Start. Then a range is drawn, a
shape, the budget is moved on Select and an example is opened, several times each; the clock runs
from the pointer's release, or the key, to the text that tells what came of it.
"""

import sys
from collections.abc import Callable
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


# From the next release of the pointer, or key, to the first time that a text is another one.
ANSWER = """selector => {
    const shown = () => document.querySelector(selector)?.textContent ?? "";
    const before = shown();
    window.answered = null;
    const start = event => {
        removeEventListener("pointerup", start, true);
        removeEventListener("keydown", start, true);
        const from = performance.now();
        const look = () => {
            if (shown() !== before) window.answered = performance.now() - from;
            else requestAnimationFrame(look);
        };
        look();
    };
    addEventListener("pointerup", start, true);
    addEventListener("keydown", start, true);
}"""
TIMES = 4  # that each is done


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


def answered(page: Page, what: str, selector: str, acts: list[Callable[[], None]]) -> None:
    """Do these, one after the other, and print the milliseconds to each one's answer."""
    took = []
    for act in acts:
        test_browser.settle(page)
        page.wait_for_timeout(500)
        page.evaluate(ANSWER, selector)
        act()
        page.wait_for_function("window.answered !== null")
        took.append(page.evaluate("window.answered"))
    print(f"{what:42} " + ", ".join(f"{one:,.0f}" for one in took) + " ms")


def answers(page: Page, url: str, run: str) -> None:
    """Draw, move and open on the open page Explore, then on Select."""

    def drawn(view: str, *places: tuple[float, float]) -> Callable[[], None]:
        return lambda: test_browser.drag(page, view, *places)

    def opened(place: float) -> Callable[[], None]:
        canvas = test_browser.view(page, "distribution")
        return lambda: canvas.click(position={"x": 200 + place, "y": 60})

    ends = [(0.3 + 0.05 * n, 0.5) for n in range(TIMES)]
    answered(
        page,
        "a range drawn in the distribution",
        "h2",
        [drawn("distribution", one, (0.62, 0.5)) for one in ends],
    )
    page.goto(f"{url}/Explore?run={run}")
    answered(
        page,
        "a shape drawn on the map",
        "h2",
        [drawn("map", (0.02, 0.02), (x, 0.02), (x, 0.98), (0.02, 0.98)) for x, _ in ends],
    )
    page.goto(f"{url}/Explore?run={run}")
    answered(
        page,
        "an example opened from the distribution",
        ".st-key-reading h4",
        [opened(30.0 * n) for n in range(TIMES)],
    )
    page.goto(f"{url}/Select?run={run}")
    page.locator(".st-key-list canvas").first.wait_for()
    slider = page.locator(".st-key-budget input[type=range]").first
    answered(
        page,
        "a move of the budget on Select",
        "h2",
        [lambda: slider.press("ArrowRight")] * TIMES,
    )


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
        answers(page, server.url, run)
    finally:
        server.kill()


if __name__ == "__main__":
    with sync_playwright() as playwright:
        visits(playwright, Path(sys.argv[1]).resolve(), sys.argv[2])
