"""No page has a serious fault of accessibility that axe-core finds, in light and in dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from run_dirs import run_in, set_state
from test_browser import (  # noqa: F401, some are fixtures
    SLOW,
    browser,
    headline,
    open_all,
    place,
    server,
    settle,
    tab,
)

from grads import api

pytestmark = pytest.mark.browser

PAGES = {
    "Start": "?run=demo",
    "Data": "Data?dataset=data.jsonl&model={model}&max_length=64",
    "Run": "Run?run=demo",
    "Explore": "Explore?run=demo&sample=5&topics=0",
    "Review": "Review?run=demo",
    "Select": "Select?run=demo&sample=5&by=kind",
    "Evaluate": "Evaluate?run=demo",
}
JOBS = ("queued", "running", "stopped", "failed")
STATES = {
    **PAGES,
    **{f"Run, {state}": f"Run?run=a-{state}" for state in JOBS},
    "Run, new": "Run?view=New+run&dataset=data.jsonl&model={model}&max_length=64",
    "Run, queue": "Run?view=Queue",
    "Data, none": "Data?dataset=",
    "Explore, not scored": "Explore?run=a-running",
    "Explore, nothing matches": "Explore?run=demo&search=zzzz",
    "Explore, how to choose": "Explore?run=demo",
    "Review, nothing left": "Review?run=demo&size=1&at=2",
}


@pytest.fixture(scope="module")
def runs(server):  # noqa: F811
    """A run in every state; the job of those at work is this very process: none may stop it."""
    made = [run_in(server.runs, state, f"a-{state}") for state in JOBS]
    yield
    for run in made:
        set_state(run, "failed")
        api.delete_run(run)


def faults(page: Page) -> list[tuple[str, str, str]]:
    """What axe-core finds that is serious or worse."""
    page.wait_for_timeout(1_000)  # what is drawn fades in
    return [
        (fault["id"], node["html"][:200], node["failureSummary"])
        for fault in Axe().run(page).response["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


def visit(page: Page, address: str) -> None:
    """A page as it stands when it is drawn, whatever it has to wait for."""
    page.goto(address)
    expect(headline(page)).to_be_visible(timeout=SLOW)
    if "dataset=data" in address:
        done = ".st-key-next, .st-key-share"  # the way on, and what a checked run can be shared as
        expect(page.locator(done).first).to_be_visible(timeout=SLOW)
    settle(page)


@pytest.mark.parametrize("name", STATES)
def test_no_serious_fault(browser, server, place, runs, name):  # noqa: F811
    """With all open that is folded; where something opens over the page, with that."""
    with tab(browser, color_scheme="light") as page:
        visit(page, f"{server.url}/{STATES[name].format(model=place / 'model')}")
        if name == "Explore, how to choose":
            page.get_by_role("button", name="How to choose", exact=True).click()
            expect(page.get_by_test_id("stPopoverBody")).to_be_visible()
        else:
            open_all(page)
        assert faults(page) == []
        page.emulate_media(color_scheme="dark")
        expect(page.locator(".stApp")).to_have_css("background-color", "rgb(17, 21, 28)")
        assert faults(page) == []


@pytest.mark.parametrize("name", PAGES)
def test_no_serious_fault_in_chinese(browser, server, place, name):  # noqa: F811
    with tab(browser, locale="zh-CN") as page:
        visit(page, f"{server.url}/{PAGES[name].format(model=place / 'model')}")
        expect(page.get_by_role("button", name="English")).to_be_visible()
        assert faults(page) == []
