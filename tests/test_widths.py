"""Pages from a phone's width to a wide screen's, and zoomed in: nothing is cut, hidden or aside."""

import pytest
from playwright.sync_api import Page, TimeoutError, expect
from run_dirs import run_in, set_state
from test_browser import (  # noqa: F401, some are fixtures
    SLOW,
    browser,
    headline,
    open_all,
    page,
    place,
    server,
    settle,
)

from grads import api

pytestmark = pytest.mark.browser

# Width and height of the window in CSS pixels, and device pixels a CSS pixel.
WINDOWS = {
    "1920": (1920, 1000, 1),
    "1400": (1400, 1000, 1),
    "150%": (933, 667, 1.5),
    "800": (800, 1000, 1),
    "400": (400, 800, 1),
}
PAGES = {
    "Start": "?run=demo",
    "Data": "Data?dataset=data.jsonl&model={model}&max_length=64",
    "Run": "Run?run=demo",
    "New run": "Run?view=New+run&dataset=data.jsonl&model={model}&max_length=64",
    "Explore": "Explore?run=demo&sample=5&topics=0",
    "Review": "Review?run=demo",
    "Select": "Select?run=demo&by=kind",
    "Evaluate": "Evaluate?run=demo",
}
# What is wrong below an element: a list of texts.
FAULTS = r"""(top) => {
  const faults = [], all = (within, names) => [...within.querySelectorAll(names)];
  const seen = (one) => one.checkVisibility({ visibilityProperty: true })
    && one.getBoundingClientRect().width > 0 && !one.closest(".st-key-fetch, .js-plotly-plot");
  const called = (one) => (one.innerText || one.ariaLabel || one.tagName).slice(0, 50);
  for (const one of [document.scrollingElement, top])
    if (one.scrollWidth > one.clientWidth)
      faults.push(`the page scrolls sideways: ${one.scrollWidth} in ${one.clientWidth}`);
  const views = top.querySelector(".st-key-views [data-testid=stBidiComponentIsolated]");
  const words = [...all(top, "button, h2, h4, label, summary, [data-testid=stPageLink-NavLink],"
    + " [data-testid=stMetricValue], [data-testid=stMetricLabel], [data-testid=stMetricDelta]"),
    ...all(views?.shadowRoot ?? top, "figcaption")].filter(seen);
  for (const one of words.flatMap((word) => [word, ...all(word, "*")])) {
    const style = getComputedStyle(one), hides = style.overflowY !== "visible";
    if (style.display === "inline" || !one.innerText?.trim()) continue;
    if (one.scrollWidth > one.clientWidth + 1 || (hides && one.scrollHeight > one.clientHeight + 2))
      faults.push(`cut: ${called(one)}`);
  }
  // In columns that scroll for themselves, what is out of view lies below something else.
  const column = (one) => one.closest("[data-testid=stColumn]:has(> * > * > .st-key-side,"
    + " > * > * > .st-key-middle, > * > * > .st-key-reading)");
  const acts = all(top, "button, a, input, textarea, summary").filter(seen)
    .map((one) => [one, one.getBoundingClientRect()]);
  for (const [place, [one, a]] of acts.entries())
    for (const [other, b] of acts.slice(place + 1))
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
          && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1
          && !one.contains(other) && column(one) === column(other))
        faults.push(`over each other: ${called(one)} | ${called(other)}`);
  return [...new Set(faults)];
}"""


def resize(page: Page, window: str) -> None:  # noqa: F811
    """As a window of this size shows the page, or this zoom."""
    width, height, scale = WINDOWS[window]
    metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
    page.context.new_cdp_session(page).send("Emulation.setDeviceMetricsOverride", metrics)
    page.wait_for_function("width => innerWidth === width", arg=width)


def check(page: Page, within: str) -> None:  # noqa: F811
    """Nothing is wrong there, once pictures and tables have followed the window."""
    top = page.locator(within).last.element_handle()
    try:
        page.wait_for_function(f"top => !({FAULTS})(top).length", arg=top, timeout=60_000)
    except TimeoutError:
        assert page.evaluate(FAULTS, top) == []


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_or_lies_over_something_else(page, server, place, name):  # noqa: F811
    """No page scrolls sideways either, with all open that is folded."""
    page.goto(f"{server.url}/{PAGES[name].format(model=place / 'model')}")
    if name == "Data":
        expect(headline(page)).to_contain_text("can be used", timeout=SLOW)
    if name == "New run":
        expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible(timeout=SLOW)
    expect(headline(page)).to_be_visible()
    settle(page)
    open_all(page)
    for window in WINDOWS:
        resize(page, window)
        check(page, ".stMain")
    expect(page.get_by_text("Something went wrong")).to_have_count(0)


@pytest.fixture(params=["running", "failed"])
def job(server, request):  # noqa: F811
    """A run in that state; its process is this very one, which nothing may stop in the end."""
    run = run_in(server.runs, request.param, f"wide-{request.param}")
    yield run
    set_state(run, "failed")
    api.delete_run(run)


def test_a_job_is_whole_at_every_width(page, server, job):  # noqa: F811
    page.goto(f"{server.url}/Run?run={job.id}")
    expect(headline(page)).to_contain_text("This run")
    expect(page.get_by_text("Score every sample").first).to_be_visible()
    for window in WINDOWS:
        resize(page, window)
        check(page, ".stMain")


@pytest.mark.parametrize("window", ["400", "150%"])
def test_what_opens_over_a_page_stays_in_the_window(page, server, window):  # noqa: F811
    page.goto(f"{server.url}/Explore?run=demo")
    expect(headline(page)).to_be_visible()
    settle(page)
    resize(page, window)
    for name in ("Share", "How to choose", "Views"):
        page.get_by_role("button", name=name, exact=True).click()
        body = page.get_by_test_id("stPopoverBody")
        expect(body).to_be_visible()
        check(page, "[data-testid=stPopoverBody]")
        box = body.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= WINDOWS[window][0]
        page.keyboard.press("Escape")
        expect(body).to_have_count(0)


def test_a_narrow_page_wastes_no_room(page, server):  # noqa: F811
    """What fits in one line stands there, and an open example comes before the options."""
    page.goto(f"{server.url}/Select?run=demo&sample=5")
    expect(page.get_by_text("Example in row 5")).to_be_visible()
    settle(page)
    resize(page, "400")
    wait_for(page, "middle('.st-key-share') - middle('.st-key-run') < 10")
    wait_for(page, "box('.st-key-budget').top - box('.st-key-strip').top < 200")
    resize(page, "800")
    wait_for(page, "box('.st-key-middle').bottom <= box('.st-key-reading').top")
    wait_for(page, "box('.st-key-reading').bottom <= box('.st-key-side').top")


def wait_for(page: Page, place: str) -> None:  # noqa: F811
    """Until this holds of boxes on the page."""
    box = "const box = (name) => document.querySelector(name).getBoundingClientRect();"
    middle = "const middle = (name) => (box(name).top + box(name).bottom) / 2;"
    page.wait_for_function(f"() => {{ {box} {middle} return {place}; }}")
