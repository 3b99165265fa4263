"""No page has a serious fault of accessibility that axe-core finds, in light and in dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from test_browser import SLOW, browser, headline, place, server, settle, tab  # noqa: F401

pytestmark = pytest.mark.browser

PAGES = {
    "Start": "?run=demo",
    "Data": "Data?dataset=",
    "Run": "Run?run=demo",
    "Explore": "Explore?run=demo&sample=5&topics=0",
    "Review": "Review?run=demo",
    "Select": "Select?run=demo",
    "Evaluate": "Evaluate?run=demo",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_no_serious_fault(browser, server, name, scheme):  # noqa: F811
    with tab(browser, color_scheme=scheme) as page:
        page.goto(f"{server.url}/{PAGES[name]}")
        expect(headline(page)).to_be_visible(timeout=SLOW)
        settle(page)
        page.wait_for_timeout(1_000)  # what is drawn fades in
        found = Axe().run(page).response["violations"]
        told = [
            (fault["id"], node["html"][:200], node["failureSummary"])
            for fault in found
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]
        assert told == []
