"""The dashboard in a real browser, with a real server and real jobs on a tiny model."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlencode

import chain
import large_run
import numpy as np
import psutil
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from run_dirs import demo_run, run_in, set_state

from grads import api
from grads.jobs import processes as jobs
from grads.selection.filters import Filter
from grads.selection.options import Bound
from grads.store.folders import Checker, Draft, Evaluation
from grads.store.runs import ACTIVE, Run, list_runs
from studio import charts
from studio.views import data

DEMO = chain.ROOT / "assets" / "demo" / "run"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    " --disable-background-networking --disable-component-update --enable-unsafe-swiftshader"
).split()
# Milliseconds: what takes one second on an idle machine may take dozens beside other work.
PATIENCE = 90_000
SLOW = 180_000  # a job loads torch before it shows anything
expect.set_options(timeout=PATIENCE)
pytestmark = pytest.mark.browser
# On a deep link, Streamlit's own front end first looks for its server below the page's address.
OWN_PROBES = re.compile(r"/_stcore/(health|host-config)")
PAGES = ("", "Data", "Run", "Explore", "Review", "Select", "Evaluate")


def free_port() -> int:
    """A port that the system gives to no one else for a while, whatever else is tested here."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A dashboard that can be killed and started again on the same runs."""

    def __init__(self, runs: Path, data: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.runs = runs
        self.environment = os.environ | {"GRADS_DATA_DIRS": str(data)}
        self.environment.pop("DISPLAY", None)
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "grads", "dashboard", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--runs-dir", str(self.runs)],
            cwd=chain.ROOT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        chain.until(self.answers, "the server", during=lambda: self.process.poll() is None)

    def answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=10):
            return True
        return False

    def kill(self) -> None:
        """No goodbye: the server and all it holds are gone at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=chain.PATIENCE)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        message = "no Chromium on this machine: install it, e.g. apt install chromium"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model, a short and a long data set, and the demo run in a runs folder."""
    folder = tmp_path_factory.mktemp("studio")
    chain.save_tiny_model(folder / "model")
    chain.write_data(folder / "data.jsonl")
    chain.write_data(folder / "long.jsonl", 3000)
    shutil.copytree(DEMO, folder / "runs" / "demo")
    return folder


@pytest.fixture(scope="module")
def server(place):
    running = Server(place / "runs", place)
    yield running
    running.kill()
    for run in list_runs(running.runs):
        if jobs.observe(run).state in ACTIVE:
            jobs.stop(run, grace_s=5)


@contextmanager
def tab(browser: Browser, may_lose_server: bool = False, **options):
    """A tab whose console must stay free of errors, but for those of a lost server."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, **options)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda message: (
            errors.append(f"{message.text} {message.location}")
            if message.type == "error" and not OWN_PROBES.search(message.location["url"])
            else None
        ),
    )
    page.set_default_timeout(PATIENCE)
    yield page
    context.close()
    lost = re.compile(
        "ERR_CONNECTION|ERR_EMPTY_RESPONSE|when disconnected from server"
        "|No response received when attempting to reach|server is not responding"
    )
    assert [e for e in errors if not (may_lose_server and lost.search(e))] == []


@pytest.fixture
def page(browser, server):
    with tab(browser) as opened:
        yield opened


def headline(page: Page):
    return page.locator("h2").first


def new_run(server: Server, place: Path, data: str = "long.jsonl", **more: str) -> str:
    settings = {"dataset": str(place / data), "model": str(place / "model"), "max_length": "64"}
    query = "&".join(f"{key}={value}" for key, value in (settings | more).items())
    return f"{server.url}/Run?view=New+run&{query}"


def running(server: Server) -> list[Run]:
    return [run for run in list_runs(server.runs) if jobs.observe(run).state in ACTIVE]


def start(page: Page, server: Server, place: Path, **more: str) -> Run:
    """Start a job from the page and wait until its process is at work."""
    page.goto(new_run(server, place, **more))
    button = page.get_by_role("button", name="Start", exact=True)
    button.wait_for(timeout=SLOW)  # it comes once the data have been looked at
    settle(page)
    button.click()
    expect(headline(page)).to_have_text("This run is at work")
    (run,) = running(server)
    chain.wait_for(run, "running")
    return run


def test_from_data_to_a_finished_run_with_a_reload_on_the_way(page, server, place):
    """Check the data, see the price, start, reload, follow to the end, explore."""
    query = f"dataset=data.jsonl&model={place / 'model'}&max_length=64"  # below an allowed folder
    page.goto(f"{server.url}/Data?{query}")
    expect(headline(page)).to_have_text("58 of 60 rows can be used, 2 cannot", timeout=SLOW)
    expect(page.get_by_text("2 rows refused")).to_be_visible()
    page.get_by_role("link", name="Continue: what will it cost?").click()
    expect(headline(page)).to_have_text("What will it cost?")
    page.get_by_role("button", name="Estimate time, memory and disk").click()
    expect(page.get_by_text(re.compile("About .* of memory"))).to_be_visible(timeout=SLOW)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(headline(page)).to_have_text("This run is at work")
    page.reload()
    expect(headline(page)).to_have_text(re.compile("at work|are scored"))
    expect(headline(page)).to_have_text("All 53 examples are scored", timeout=SLOW)
    expect(page.get_by_text("were estimated")).to_be_visible()
    page.get_by_role("link", name="Explore what the model found").click()
    expect(headline(page)).to_have_text("What the model finds in 53 examples")


def test_a_killed_server_leaves_the_job_and_shows_it_again(browser, server, place):
    with tab(browser, may_lose_server=True) as page:
        run = start(page, server, place, limit="1500")
        pid = run.read_status().pid
        server.kill()
        assert psutil.pid_exists(pid)
        server.start()
        page.goto(f"{server.url}/Run?run={run.id}")
        expect(headline(page)).to_have_text("This run is at work")
        assert jobs.observe(run).pid == pid
        expect(headline(page)).to_have_text(re.compile("All .* scored"), timeout=2 * SLOW)
        assert jobs.observe(run).state == "finished"


def test_stop_frees_the_whole_process_tree(page, server, place):
    run = start(page, server, place, seed="1")
    process = psutil.Process(run.read_status().pid)
    tree = [process, *process.children(recursive=True)]
    page.get_by_role("button", name="Stop").click()
    expect(headline(page)).to_have_text(re.compile("This run is stopped"), timeout=SLOW)
    chain.until(lambda: all(map(chain.gone, tree)), "the end of the process tree", seconds=10)
    expect(page.get_by_role("button", name="Resume")).to_be_visible()


def test_a_start_takes_what_was_typed_last(page, server, place):
    """A field left by the click on Start itself counts: the job runs with what the screen says."""
    page.goto(new_run(server, place, seed="5"))
    button = page.get_by_role("button", name="Start", exact=True)
    button.wait_for(timeout=SLOW)
    settle(page)
    page.get_by_text("Advanced settings").click()
    page.get_by_label("lr", exact=True).fill("0.00037")
    button.click()
    expect(headline(page)).to_have_text("This run is at work")
    (run,) = running(server)
    assert run.config().lr == 0.00037
    jobs.stop(run)


def test_a_run_whose_evaluation_is_at_work_is_not_deleted(page, server):
    """The question's answer is a message, and everything stays."""
    run = demo_run(server.runs, "busy")
    set_state(Evaluation.open(run, "tenth"), "running")
    visit(page, f"{server.url}/Run?run=busy")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_text("stop it first")).to_be_visible()
    assert run.scores_file.exists()
    shutil.rmtree(run.path)


def test_double_click_and_two_tabs_start_one_job(browser, page, server, place):
    before = {run.id for run in list_runs(server.runs)}
    with tab(browser) as second:
        for opened in (page, second):
            opened.goto(new_run(server, place, seed="2"))
            start_button = opened.get_by_role("button", name="Start", exact=True)
            expect(start_button).to_be_enabled(timeout=SLOW)
        page.get_by_role("button", name="Start", exact=True).dblclick()
        second.get_by_role("button", name="Start", exact=True).click()
        for opened in (page, second):
            expect(headline(opened)).to_have_text("This run is at work")
    (made,) = {run.id for run in list_runs(server.runs)} - before
    jobs.stop(Run.open(server.runs / made), grace_s=20)


def view(page: Page, name: str):
    """The canvas of one of the linked views, drawn, where it stays.

    Before, it does not know where its axes lie, and what comes above it moves it.
    """
    canvas = page.locator(f".st-key-views figure.{name} canvas")
    canvas.wait_for()
    place = None
    while (now := canvas.bounding_box()) != place:
        place = now
        page.wait_for_timeout(300)
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return canvas


def drag(page: Page, name: str, *places: tuple[float, float]) -> None:
    """Over a view along these places, from 0 to 1 from its left and from its top."""
    area = view(page, name)
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    at = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in places]
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()


def settle(page: Page) -> None:
    """Wait until the page has been drawn to its end: its headline stands before its list does.

    Before the headline, a page that has just been opened is as still as one that is done. What has
    no code in the browser yet, styles among it, is held a place for, and moves all below as it
    comes.
    """
    expect(headline(page)).to_be_visible(timeout=SLOW)
    expect(page.locator("[data-test-script-state=notRunning]")).to_be_attached(timeout=SLOW)
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0, timeout=SLOW)


def visit(page: Page, address: str) -> None:
    """Open a page, to act on it: what is pressed before it has been drawn may be drawn over."""
    page.goto(address)
    settle(page)


def open_all(page: Page) -> None:
    """Open what is folded, and what is folded in that."""
    folded = page.locator(".stMain details:not([open]) > summary")
    while folded.count():
        folded.evaluate_all("found => found.forEach(one => one.click())")
        settle(page)


def within(page: Page) -> tuple[Bound, ...]:
    """The ranges in the address."""
    found = re.findall(r"within=([a-z_]+)%3A([-\d.e]+)%3A([-\d.e]+)", page.url)
    return tuple(Bound(column=c, low=float(a), high=float(b)) for c, a, b in found)


def test_brush_list_sample(page, server):
    """A brush narrows headline and list to what it covers; a row opens as text."""
    page.goto(f"{server.url}/Explore?run=demo")
    expect(headline(page)).to_have_text("What the model finds in 300 examples")
    settle(page)
    drag(page, "distribution", (0.3, 0.5), (0.45, 0.5))
    expect(headline(page)).to_have_text(re.compile(r"\d+ match"))
    page.wait_for_url(re.compile("within="))
    (bound,) = within(page)
    assert bound.column == "signal"
    pool = api.load_pool(Run.open(server.runs / "demo"))
    matching = pool.matching(Filter(bounds=(bound,)))
    assert 5 < matching.sum() < 295
    expect(headline(page)).to_have_text(
        f"What the model finds in 300 examples: {matching.sum()} match"
    )
    settle(page)
    table = page.locator(".st-key-list canvas").first
    table.scroll_into_view_if_needed()
    table.click(position={"x": 18, "y": 55}, force=True)
    expect(page.get_by_text(re.compile(r"Example in row \d+"))).to_be_visible()
    page.wait_for_url(re.compile(r"sample=\d+"))
    sample = int(re.search(r"sample=(\d+)", page.url).group(1))
    assert matching[pool.positions([sample])].all()
    page.get_by_text("Where the signal lies").click()
    expect(page.get_by_text("Darker means more learning signal")).to_be_visible()


def test_a_shape_on_the_map_narrows_all_views_and_is_taken_off(page, server):
    """Drawn again it is another one; Escape takes it off."""
    page.goto(f"{server.url}/Explore?run=demo")
    settle(page)
    pool = api.load_pool(Run.open(server.runs / "demo"))
    corners = [(0.02, 0.02), (0.5, 0.02), (0.5, 0.98), (0.02, 0.98)]
    drag(page, "map", *corners)
    page.wait_for_url(re.compile("shape="))
    settle(page)
    (text,) = page.evaluate("new URL(location).searchParams.getAll('shape')")
    x, y, *ends = json.loads(text)
    drawn = tuple(zip(ends[::2], ends[1::2], strict=True))
    matching = pool.matching(Filter(lassos=((x, y, drawn),)))
    assert (x, y) == api.MAP
    assert 30 < matching.sum() < 270
    expect(headline(page)).to_have_text(
        f"What the model finds in 300 examples: {matching.sum()} match"
    )
    expect(page.get_by_role("button", name="Drawn on the map")).to_be_visible()
    view(page, "map").focus()
    page.keyboard.press("Escape")
    expect(headline(page)).to_have_text("What the model finds in 300 examples")


def marked_row(page):
    """The number in the row of the list that is marked."""
    row = page.locator(".st-key-list table [role=row][aria-selected=true]")
    return row.locator("[role=gridcell]").first


def test_the_mark_of_the_list_follows_the_open_example(page, server):
    """Opened by its number, then as another row; taken off, the example is closed."""
    pool = api.load_pool(Run.open(server.runs / "demo"))
    order = pool.ordered("signal", np.ones(len(pool), bool))
    first, third = pool.scores.sample_id[order[[0, 2]]].tolist()
    page.goto(f"{server.url}/Explore?run=demo&sort=signal&sample={third}")
    settle(page)
    expect(marked_row(page)).to_have_text(str(third))
    table = page.locator(".st-key-list canvas").first
    table.scroll_into_view_if_needed()
    table.click(position={"x": 18, "y": 55}, force=True)
    expect(page.get_by_text(f"Example in row {first}")).to_be_visible()
    settle(page)
    expect(marked_row(page)).to_have_text(str(first))
    table.click(position={"x": 18, "y": 55}, force=True)
    expect(page.get_by_text("Choose a point or a row to read it here.")).to_be_visible()
    settle(page)
    page.get_by_label("Open row").fill(str(third))
    page.get_by_label("Open row").press("Enter")
    expect(marked_row(page)).to_have_text(str(third))


def test_a_point_tells_its_text_and_opens_by_a_click_and_a_bar_its_nearest(page, server):
    run = Run.open(server.runs / "demo")
    pool = api.load_pool(run)
    page.goto(f"{server.url}/Explore?run=demo")
    settle(page)
    view(page, "map").focus()
    page.keyboard.press("ArrowRight")  # a point whose place the page tells
    tip = page.locator(".st-key-views .tip")
    row = int(re.search(r"row (\d+)", tip.inner_text()).group(1))
    (text,) = pool.first_words(pool.positions(np.array([row])))
    across, up = data.Plane.of(*pool.map.values()).place(
        [float(m[pool.positions([row])][0]) for m in pool.map.values()]
    )
    box = view(page, "map").bounding_box()
    page.keyboard.press("Tab")
    place = (6 + across * (box["width"] - 12), 6 + (1 - up) * (box["height"] - 12))
    page.mouse.move(box["x"] + place[0], box["y"] + place[1])
    expect(tip).to_contain_text(f"row {row}")
    expect(tip).to_contain_text(text[:60])
    view(page, "map").click(position={"x": place[0], "y": place[1]})
    expect(page.get_by_text(f"Example in row {row}")).to_be_visible()
    settle(page)
    box = view(page, "distribution").bounding_box()
    view(page, "distribution").click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    page.wait_for_url(lambda url: f"sample={row}" not in url and "sample=" in url)
    opened = int(re.search(r"sample=(\d+)", page.url).group(1))
    low, high = charts.spread(pool.numbers["signal"])
    middle = low + (box["width"] / 2 - 44) / (box["width"] - 56) * (high - low)
    far = np.abs(pool.numbers["signal"] - middle)
    assert far[pool.positions([opened])][0] <= far.min() + 0.02 * (high - low)


def test_a_brushed_range_is_excluded_together_and_taken_back(page, server):
    run = Run.open(server.runs / "demo")
    page.goto(f"{server.url}/Explore?run=demo")
    settle(page)
    drag(page, "distribution", (0.8, 0.5), (0.95, 0.5))
    page.wait_for_url(re.compile("within="))
    settle(page)
    pool = api.load_pool(run)
    shown = pool.scores.sample_id[pool.matching(Filter(bounds=within(page)))].tolist()
    assert 0 < len(shown) < 100
    page.get_by_text(re.compile("Do something with what is shown")).click()
    page.get_by_role("button", name="Exclude all of them").click()
    expect(page.get_by_text("will be never kept")).to_be_visible()
    made = api.decisions(run)
    assert {one: made[one].decision for one in made} == dict.fromkeys(shown, "exclude")
    page.locator(".st-key-bulk-undo button").click()
    expect(page.get_by_text("will be never kept")).to_be_hidden()
    assert api.decisions(run) == {}


DRAWN = """
window.drawn = { names: new Set(), dim: { fill: 0, stroke: 0 } };
const pen = CanvasRenderingContext2D.prototype;
for (const kind of ["fill", "stroke", "fillText"]) {
  const does = pen[kind];
  pen[kind] = function (...given) {
    if (kind === "fillText") window.drawn.names.add(given[0]);
    else if (Math.abs(this.globalAlpha - 0.16) < 1e-6) window.drawn.dim[kind] += 1;
    return does.apply(this, given);
  };
}
"""


def test_kept_topics_are_named_and_dimmed_points_stay_rings_or_filled(page, server):
    page.add_init_script(DRAWN)
    page.goto(f"{server.url}/Select?run=demo&search=insulin")
    settle(page)
    page.wait_for_function("window.drawn.dim.stroke > 0")
    drawn = page.evaluate("({ ...window.drawn, names: [...window.drawn.names] })")
    assert drawn["dim"]["stroke"] > drawn["dim"]["fill"] > 0, "a tenth is kept"
    pool = api.load_pool(Run.open(server.runs / "demo"))
    kept = api.preview(pool, api.SelectionConfig(ratio=0.1)).kept
    topics = np.unique(pool.cluster[kept])
    named = [
        topic
        for topic in topics
        if any(name.startswith(pool.cluster_names()[topic]) for name in drawn["names"])
    ]
    assert len(named) > 5, (len(named), len(topics))


def test_a_finger_drags_a_threshold_from_the_end_of_the_axis(browser, server):
    with tab(browser, has_touch=True) as page:
        page.goto(f"{server.url}/Explore?run=demo")
        settle(page)
        area = view(page, "distribution")
        area.scroll_into_view_if_needed()
        box = area.bounding_box()
        y, width = box["y"] + box["height"] / 2, box["width"] - 56
        touch = page.context.new_cdp_session(page)
        for kind, along in (("touchStart", 0), ("touchMove", 0.1), ("touchMove", 0.4)):
            points = [{"x": box["x"] + 44 + along * width, "y": y}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_url(re.compile("within="))
        (bound,) = within(page)
        signal = api.load_pool(Run.open(server.runs / "demo")).numbers["signal"]
        low, high = charts.spread(signal)
        assert bound.low == pytest.approx(low + 0.4 * (high - low), abs=0.02 * (high - low))
        assert bound.high >= signal.max()


def test_the_list_is_gone_through_and_decided_about_by_keys(page, server):
    run = Run.open(server.runs / "demo")
    pool = api.load_pool(run)
    order = pool.ordered("signal", np.ones(len(pool), bool))
    first, second = pool.scores.sample_id[order[:2]].tolist()
    page.goto(f"{server.url}/Explore?run=demo&sort=signal&sample={first}")
    expect(page.get_by_text(f"Example in row {first}")).to_be_visible()
    settle(page)
    expect(page.locator(".st-key-step-N button")).to_be_enabled()
    page.keyboard.press("n")
    expect(page.get_by_text(f"Example in row {second}")).to_be_visible()
    settle(page)
    page.keyboard.press("x")
    expect(page.get_by_text(f"Row {second} is never kept")).to_be_visible()
    settle(page)
    expect(page.locator(".st-key-step-P button")).to_be_enabled()
    page.keyboard.press("p")
    expect(page.get_by_text(f"Example in row {first}")).to_be_visible()
    settle(page)
    page.keyboard.press("k")
    expect(page.get_by_text(f"Row {first} is always kept")).to_be_visible()
    made = {sample: one.decision for sample, one in api.decisions(run).items()}
    api.decide_all(run, [("clear", first), ("clear", second)])
    assert made == {first: "pin", second: "exclude"}


def test_points_are_gone_through_and_opened_by_keys(page, server):
    page.goto(f"{server.url}/Select?run=demo")
    settle(page)
    view(page, "plane").focus()
    page.keyboard.press("ArrowRight")
    said = page.locator(".st-key-views .said")
    expect(said).to_have_text(re.compile(r"row \d+ · (kept|set aside)"))
    row = re.search(r"row (\d+)", said.inner_text()).group(1)
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"Example in row {row}")).to_be_visible()
    page.wait_for_url(re.compile(f"sample={row}"))


def test_thresholds_are_dragged_and_limit_the_choice(page, server):
    """First drawn, then one end moved: by the mouse, and by keys."""
    page.goto(f"{server.url}/Select?run=demo")
    settle(page)

    def limits() -> Bound:
        (text,) = page.evaluate("new URL(location).searchParams.getAll('bound')")
        return Bound.model_validate(text)

    drag(page, "distribution", (0.4, 0.5), (0.6, 0.5))
    page.wait_for_url(re.compile("bound=signal"))
    settle(page)
    first = limits()
    drag(page, "distribution", (0.6, 0.5), (0.8, 0.5))
    page.wait_for_function("low => !location.search.includes(low)", arg=f"{first.high:.10g}")
    settle(page)
    second = limits()
    assert second.low == pytest.approx(first.low, abs=1e-8)
    assert second.high > first.high + 0.5
    view(page, "distribution").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("low => !location.search.includes(low)", arg=f"{first.low:.10g}")
    settle(page)
    assert limits().low < first.low
    pool = api.load_pool(Run.open(server.runs / "demo"))
    chosen = api.SelectionConfig(ratio=0.1, bounds=(limits(),))
    assert api.preview(pool, chosen).count == 30
    expect(headline(page)).to_have_text("Keep 30 of 300 examples")
    expect(page.get_by_text("Chosen only from:")).to_be_visible()


@pytest.mark.parametrize(("name", "gesture"), [("distribution", "within="), ("plane", "shape=")])
def test_what_is_being_drawn_outlives_an_answer_of_the_server(page, server, name, gesture):
    """Another example is opened by a key while the button of the mouse is down."""
    run = Run.open(server.runs / "demo")
    pool = api.load_pool(run)
    order = pool.ordered("signal", np.ones(len(pool), bool))
    first, second = pool.scores.sample_id[order[:2]].tolist()
    visit(page, f"{server.url}/Explore?run=demo&sort=signal&sample={first}")
    expect(page.get_by_text(f"Example in row {first}")).to_be_visible()
    area = view(page, name)
    area.scroll_into_view_if_needed()
    box = area.bounding_box()

    def place(x, y):
        return box["x"] + box["width"] * x, box["y"] + box["height"] * y

    page.mouse.move(*place(0.3, 0.3))
    page.mouse.down()
    page.mouse.move(*place(0.7, 0.3), steps=6)
    page.mouse.move(*place(0.7, 0.8), steps=6)
    page.keyboard.press("n")
    expect(page.get_by_text(f"Example in row {second}")).to_be_visible()
    settle(page)
    page.mouse.up()
    page.wait_for_url(re.compile(gesture))


def test_the_line_of_the_budget_is_dragged_and_moved_by_keys(page, server):
    """It snaps to what the slider can say, and slider, address and headline follow."""
    pool = api.load_pool(Run.open(server.runs / "demo"))
    steps = np.arange(1, 201) / 2
    loss = np.sort(pool.numbers["loss"])[::-1]
    low, high = charts.spread(loss)
    place = {  # of the line, from the left of the axis
        percent: (float(loss[round(3 * percent) - 1]) - low) / (high - low) for percent in steps
    }
    page.goto(f"{server.url}/Select?run=demo&criterion=loss_high")
    expect(headline(page)).to_have_text("Keep 30 of 300 examples")
    settle(page)
    width = view(page, "distribution").bounding_box()["width"]
    across = {percent: (44 + at * (width - 56)) / width for percent, at in place.items()}
    drag(page, "distribution", (across[10], 0.3), (across[20], 0.3), (across[40], 0.3))
    page.wait_for_url(re.compile("budget="))
    settle(page)
    budget = float(page.evaluate("new URL(location).searchParams.get('budget')"))
    assert budget in steps
    assert abs(across[budget] - across[40]) * width < 2
    expect(headline(page)).to_have_text(f"Keep {round(3 * budget)} of 300 examples")
    expect(page.get_by_role("slider", name="Budget")).to_have_value(f"{budget:g}")
    assert "bound=" not in page.url
    view(page, "distribution").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".st-key-views .said")).to_contain_text(f"budget {budget - 1:g}%")
    page.wait_for_url(re.compile(f"budget={budget - 1:g}(&|$)"))
    expect(headline(page)).to_have_text(f"Keep {round(3 * (budget - 1))} of 300 examples")
    settle(page)
    page.keyboard.press("ArrowLeft")  # goes on with the line that was moved
    page.wait_for_url(re.compile(f"budget={budget - 0.5:g}(&|$)"))
    page.keyboard.press("Tab")  # to the lower end of the axis
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile("bound=loss"))


def bar(page: Page, chart: str, name: str):
    """The mark of a category in a picture of categories: the last that is drawn in its row."""
    row = page.locator(f".st-key-{chart} .ytick text", has_text=name).bounding_box()
    middle = row["y"] + row["height"] / 2
    marks = page.locator(f".st-key-{chart} .points path").all()
    boxes = [box for box in (mark.bounding_box() for mark in marks) if box and box["width"]]
    return [b for b in boxes if abs(b["y"] + b["height"] / 2 - middle) < 6][-1]


@pytest.mark.parametrize(
    ("address", "chart", "parameter"),
    [
        ("Explore?run=demo", "topic-sizes", "topics"),
        ("Select?run=demo", "coverage", "topics"),
        ("Select?run=demo&by=kind", "coverage", "only"),
    ],
)
def test_a_click_on_a_bar_shows_its_category_alone_and_another_all(
    page, server, address, chart, parameter
):
    pool = api.load_pool(Run.open(server.runs / "demo"))
    column = "kind" if parameter == "only" else api.TOPIC
    found = pool.categories[column]
    sizes = np.bincount(found.code)
    number = int(np.argsort(-sizes)[1])
    held = json.dumps([column, found.names[number]]) if parameter == "only" else str(number)
    page.goto(f"{server.url}/{address}")
    expect(page.locator(f".st-key-{chart} .points path").first).to_be_attached()
    settle(page)
    page.locator(f".st-key-{chart}").scroll_into_view_if_needed()

    def click() -> None:
        box = bar(page, chart, found.names[number])
        page.mouse.move(box["x"] + box["width"] / 2 - 3, box["y"] + box["height"] / 2)
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    click()
    expect(headline(page)).to_have_text(re.compile(f": {sizes[number]} match"))
    page.wait_for_url(re.compile(f"{parameter}="))
    query = f"new URL(location).searchParams.getAll('{parameter}')"
    assert page.evaluate(query) == [held]
    settle(page)
    click()
    expect(headline(page)).not_to_have_text(re.compile("match"))
    page.wait_for_url(lambda url: f"{parameter}=" not in url)


def test_what_is_set_on_explore_stands_on_select(page, server):
    visit(page, f"{server.url}/Explore?run=demo")
    page.get_by_role("button", name="25%", exact=True).click()
    page.wait_for_url(re.compile("budget=25"))
    drag(page, "distribution", (0.3, 0.5), (0.45, 0.5))
    page.wait_for_url(re.compile("within="))
    settle(page)
    (range_,) = within(page)
    page.get_by_role("link", name="Select", exact=True).click()
    expect(headline(page)).to_have_text(re.compile("Keep 75 of 300 examples: \\d+ match"))
    assert within(page) == (range_,)


def test_budget_save_export_and_the_files_rows(page, server, tmp_path):
    """The number on the screen is the file's row count."""
    visit(page, f"{server.url}/Select?run=demo")
    page.get_by_role("button", name="5%", exact=True).click()
    expect(headline(page)).to_have_text("Keep 15 of 300 examples")
    page.get_by_role("button", name="50%", exact=True).click()
    expect(headline(page)).to_have_text("Keep 150 of 300 examples")
    page.get_by_label("Save as").fill("half")
    page.get_by_label("Save as").press("Enter")
    page.get_by_role("button", name="Save these 150").click()
    expect(page.get_by_text("Saved 150 examples as half")).to_be_visible()
    page.get_by_role("button", name="Make the files").click()
    expect(page.get_by_text("150 rows written, loaded back and counted.")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_test_id("stDownloadButton").click()
    target = tmp_path / download.value.suggested_filename
    download.value.save_as(target)
    if target.suffix == ".zip":
        shutil.unpack_archive(target, tmp_path / "files")
        (target,) = (tmp_path / "files").rglob("*.jsonl")
    assert len(target.read_bytes().splitlines()) == 150


def held_down(page: Page, slider: str, key: str, times: int) -> str:
    """Press a key on a slider ten times a second; what it says once the page is at rest."""
    thumb = page.locator(f".st-key-{slider} input[type=range]").first
    thumb.focus()
    for _ in range(times):
        page.keyboard.press(key)
        page.wait_for_timeout(100)
    page.wait_for_timeout(1_000)  # the last one is on its way
    settle(page)
    return str(thumb.get_attribute("aria-valuetext"))


def test_a_slider_that_is_held_down_agrees_with_page_and_link(page, server):
    page.goto(f"{server.url}/Select?run=demo")
    expect(headline(page)).to_have_text("Keep 30 of 300 examples")
    settle(page)
    for key, times, percent in (("ArrowRight", 30, 25), ("ArrowLeft", 10, 20)):
        assert held_down(page, "budget", key, times) == f"{percent}%"
        expect(headline(page)).to_have_text(f"Keep {3 * percent} of 300 examples")
        page.wait_for_url(re.compile(f"budget={percent}(&|$)"))
    assert held_down(page, "focus", "ArrowRight", 15) == "0.50"
    page.wait_for_url(re.compile(r"focus=0\.5(&|$)"))
    page.get_by_label("Save as").fill("held")
    page.get_by_label("Save as").press("Enter")
    page.get_by_role("button", name="Save these 60").click()
    expect(page.get_by_text("Saved 60 examples as held")).to_be_visible()
    options = api.read_record(Run.open(server.runs / "demo"), "held").options
    assert (options.ratio, options.focus) == (0.2, 0.5)


def test_back_takes_back_one_step(page, server):
    """Of options, of what is open, and of pages; a link keeps all of it."""
    visit(page, f"{server.url}/Select?run=demo")
    expect(headline(page)).to_have_text("Keep 30 of 300 examples")
    page.get_by_role("button", name="50%", exact=True).click()
    expect(headline(page)).to_have_text("Keep 150 of 300 examples")
    page.get_by_role("button", name="5%", exact=True).click()
    expect(headline(page)).to_have_text("Keep 15 of 300 examples")
    page.get_by_role("link", name="Explore", exact=True).click()
    expect(headline(page)).to_have_text("What the model finds in 300 examples")
    for expected in (15, 150, 30):
        settle(page)
        page.go_back()
        expect(headline(page)).to_have_text(f"Keep {expected} of 300 examples")
    expect(page.locator(".st-key-budget input[type=range]").first).to_have_value("10")
    page.go_forward()
    expect(headline(page)).to_have_text("Keep 150 of 300 examples")


def test_deep_links_on_a_fresh_server(browser, place):
    """Every page is whole when it is the first thing a server is asked for."""
    fresh = Server(place / "runs", place)
    try:
        with tab(browser) as page:
            page.goto(f"{fresh.url}/Select?run=demo&budget=25.0&focus=0.0&sample=5")
            expect(headline(page)).to_have_text("Keep 75 of 300 examples")
            expect(page.get_by_text("Example in row 5")).to_be_visible()
            expect(page.get_by_role("link", name="Evaluate")).to_be_visible()
        with tab(browser) as page:
            page.goto(f"{fresh.url}/Explore?run=demo&search=insulin")
            expect(headline(page)).to_have_text(re.compile(r"300 examples: \d+ match"))
    finally:
        fresh.kill()


def test_data_are_looked_at_by_a_warm_process_that_ends_with_its_server(browser, place, tmp_path):
    """The libraries are loaded once, beside the server, and not again for each look."""
    shutil.copytree(place / "runs" / "demo", tmp_path / "runs" / "demo")
    own, checker = Server(tmp_path / "runs", place), Checker(tmp_path / "runs")
    try:
        pid = chain.wait_for(checker, "running").pid
        process = psutil.Process(pid)
        with tab(browser, may_lose_server=True) as page:
            query = urlencode({"dataset": place / "data.jsonl", "model": place / "model"})
            page.goto(f"{own.url}/Data?{query}")
            expect(page.get_by_text("58 of 60 rows can be used")).to_be_visible(timeout=SLOW)
        (draft,) = (tmp_path / "runs" / ".drafts").glob("data-*")
        assert Draft(draft).read_status().pid == pid
        assert checker.waiting() == []
    finally:
        own.kill()
    _, alive = psutil.wait_procs([process], timeout=60)
    assert not alive


def test_settings_go_from_data_to_run_at_the_first_drawing(page, server, place):
    """Data that were looked at before: the page is whole at once, its mapping goes along too."""
    rows = "".join(f'{{"q": "the heart {i}?", "a": "blood {i}"}}\n' for i in range(20))
    (place / "mapped.jsonl").write_text(rows)
    settings = {"dataset": place / "mapped.jsonl", "model": place / "model", "max_length": 48}
    link = f"{server.url}/Data?{urlencode(settings | {'map_prompt': 'q', 'map_response': 'a'})}"
    for _ in range(2):
        page.goto(link)
        expect(headline(page)).to_have_text("20 of 20 rows can be used", timeout=SLOW)
    page.get_by_role("link", name="Continue: what will it cost?").click()
    expect(headline(page)).to_have_text("What will it cost?")
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible(timeout=SLOW)
    field = page.locator('input[aria-label="Data: file, folder or hub id"]')
    expect(field).to_have_value(str(place / "mapped.jsonl"))
    expect(page.locator('input[aria-label="Longest, in tokens"]')).to_have_value("48")


def test_after_a_switch_of_the_language_boxes_show_the_other_words(page, server):
    """A browser goes on showing the words that it has, and would send them as a choice."""
    visit(page, f"{server.url}/Run?view=New+run&warmup=full")
    warmup = page.get_by_role("combobox", name=re.compile("Warm-up|预热"))
    expect(warmup).to_have_value("Full: all weights")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    page.get_by_role("button", name="中文").click()
    expect(warmup).to_have_value("全量：所有权重")
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    assert "warmup=full" in page.url


def test_upload_of_a_broken_file_shows_the_line(page, server, place, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text("\n" * 16 + '{"question": "a?", \n')
    visit(page, f"{server.url}/Data?model={place / 'model'}")
    expect(headline(page)).to_have_text("Which examples do you have?")
    page.locator('input[type="file"]').set_input_files(broken)
    expect(headline(page)).to_have_text("This data cannot be used yet", timeout=SLOW)
    expect(page.get_by_test_id("stAlert")).to_contain_text("line 17")
    expect(page.get_by_role("link", name="Continue: what will it cost?")).to_have_count(0)


def test_a_refused_upload_is_told_in_a_sentence(page, server, tmp_path):
    table = tmp_path / "answers.xlsx"
    table.write_bytes(b"PK\x03\x04")
    visit(page, f"{server.url}/Data")
    expect(headline(page)).to_have_text("Which examples do you have?")
    page.locator('input[type="file"]').set_input_files(table)
    expect(page.get_by_test_id("stAlert")).to_contain_text("answers.xlsx cannot be read")
    expect(page.get_by_test_id("stAlert")).to_contain_text("CSV UTF-8")


def test_a_swipe_on_a_phone_draws_nothing(browser, server):
    """It scrolls the page, wherever the finger lies."""
    phone = {"has_touch": True, "is_mobile": True}
    with tab(browser, **phone) as page:
        page.set_viewport_size({"width": 400, "height": 800})
        page.goto(f"{server.url}/Explore?run=demo")
        expect(headline(page)).to_have_text("What the model finds in 300 examples")
        settle(page)
        area = view(page, "plane")
        area.scroll_into_view_if_needed()
        box = area.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        touch = page.context.new_cdp_session(page)
        for kind, moved in (("touchStart", 0), ("touchMove", -60), ("touchMove", -140)):
            points = [{"x": x + moved / 3, "y": y + moved}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        settle(page)
        page.wait_for_timeout(1_000)
        assert "shape=" not in page.url
        assert "sample=" not in page.url
        expect(headline(page)).to_have_text("What the model finds in 300 examples")


def test_text_with_html_shows_as_text(page, server, place):
    nasty = "<script>window.hacked = 1</script><b>bold</b> [x](javascript:alert(1)) **stars**"
    rows = f'{{"question": "{nasty}", "answer": "the heart {nasty}"}}\n' * 3
    (place / "nasty.jsonl").write_text(rows)
    page.goto(f"{server.url}/Data?dataset={place / 'nasty.jsonl'}&model={place / 'model'}")
    expect(headline(page)).to_have_text("3 of 3 rows can be used", timeout=SLOW)
    expect(page.locator(".turn.user").first).to_contain_text(nasty)
    assert page.evaluate("window.hacked") is None


def test_names_are_shown_as_they_stand(page, server):
    """What Streamlit's front end would make of them is known to it alone."""
    name = (
        "evil :material/home: :smile: :red[x] a -> b -- c >= d $x$ **b** _i_ `c` <b>x</b> &lt;"
        " https://a.bc/d www.a.bc a.b@c.de [a](b)"
    )
    run = demo_run(server.runs, "marked")
    run.config_file.write_text(json.dumps(run.config_values() | {"model": name}))
    page.goto(f"{server.url}/Run?run=marked")
    line = page.locator("p", has_text="evil").first
    expect(line).to_be_visible()
    page.wait_for_timeout(2_000)  # icons, formulas and smileys come with scripts of their own
    assert name in line.inner_text().replace("\u2060", "")
    assert line.locator("a, code, em, img, .katex").count() == 0
    api.delete_run(run)


NOTED = """
window.told = [];
window.Notification = class {
  static permission = "default";
  static async requestPermission() { return (this.permission = "granted"); }
  constructor(title, more) { window.told.push(title); }
};
"""


def test_the_tab_tells_of_a_job_and_the_browser_of_its_end(page, server):
    """How far it is stands in the title; who asks is told of the end, after a reload too."""
    run = run_in(server.runs, "running", "going")
    page.add_init_script(NOTED.replace('"default"', 'sessionStorage.asked || "default"'))
    page.goto(f"{server.url}/Run?run=going")
    expect(page).to_have_title("40% · Score every sample · GrADS Studio")
    page.get_by_role("button", name="Tell me when it has ended").click()
    page.evaluate("sessionStorage.asked = Notification.permission")
    page.reload()
    expect(page.get_by_role("button", name="Do not tell me")).to_be_visible()
    assert page.evaluate("window.told") == []
    set_state(run, "failed")
    page.wait_for_function("window.told.length")
    assert page.evaluate("window.told") == ["going has failed"]
    expect(page).to_have_title("Run · GrADS Studio")
    api.delete_run(run)


def test_the_tab_tells_how_far_an_evaluation_is(page, server):
    run = demo_run(server.runs, "measured")
    made = Evaluation(run, "going")
    made.path.mkdir(parents=True)
    made.config_file.write_text('{"kind": "evaluation"}')
    far = {"stage": "evaluate", "done": 4000, "total": 10000, "message": "full, seed 0"}
    set_state(made, "running", **far)
    page.goto(f"{server.url}/Evaluate?run=measured&evaluation=going")
    expect(page).to_have_title("40% · evaluate · GrADS Studio")
    shutil.rmtree(run.path)


def test_the_page_that_is_open_is_underlined_without_a_ground_of_its_own(page, server):
    page.goto(f"{server.url}/Review?run=demo")
    here = page.locator(".st-key-here")
    expect(here).to_contain_text("Review")
    expect(here).to_have_css("border-bottom-style", "solid")
    expect(here.get_by_role("link")).to_have_css("background-color", "rgba(0, 0, 0, 0)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_in_light_and_dark(browser, server, scheme):
    """No errors in the console, the theme follows, nothing is wider than the window."""
    with tab(browser, color_scheme=scheme) as page:
        for name in PAGES:
            page.goto(f"{server.url}/{name}?run=demo")
            expect(headline(page)).to_be_visible()
            style = "getComputedStyle(document.querySelector('.stApp')).backgroundColor"
            lightness = sum(int(n) for n in re.findall(r"\d+", page.evaluate(style))[:3])
            assert (lightness > 500) == (scheme == "light")
            for width in (1400, 800):
                page.set_viewport_size({"width": width, "height": 1000})
                # Pictures take a moment to follow the window.
                fits = "width => document.querySelector('.stMain').scrollWidth <= width"
                page.wait_for_function(fits, arg=width)


@pytest.mark.parametrize("name", ["Explore", "Select"])
def test_the_workspace_takes_what_the_strip_leaves(page, server, name):
    """The page does not scroll, its columns do; also below a brush and a warning."""
    for more in ({}, {"within": "signal:-1:1", "bound": "signal:3:100", "budget": "0.5"}):
        page.goto(f"{server.url}/{name}?{urlencode({'run': 'demo'} | more)}")
        expect(page.locator(".st-key-middle")).to_be_visible()
        settle(page)
        expect(page.locator(".st-key-strip [data-testid=stAlert]")).to_have_count(len(more) // 3)
        fits = "() => (m => m.scrollHeight <= m.clientHeight)(document.querySelector('.stMain'))"
        page.wait_for_function(fits)
        column = page.locator("[data-testid=stColumn]:has(> * > * > .st-key-middle)")
        page.wait_for_function("c => c.scrollHeight > c.clientHeight", arg=column.element_handle())
        bottom = page.evaluate("c => c.getBoundingClientRect().bottom", column.element_handle())
        assert 960 < bottom <= 1000


def test_letters_have_three_sizes(page, server):
    """But for maths, icons, and what pictures and tables draw."""
    sizes = """() => [...new Set([...document.querySelectorAll(
        ".stMain :is(p, li, h2, h4, label, button, .turn, .who, [data-testid^=stMetric])")]
        .filter(one => one.innerText?.trim() && !one.closest(".katex")
            && [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
        .map(one => getComputedStyle(one).fontSize))]"""
    for name in PAGES:
        page.goto(f"{server.url}/{name}?run=demo&sample=5")
        expect(headline(page)).to_be_visible()
        settle(page)
        assert set(page.evaluate(sizes)) <= {"12.25px", "14px", "19.6px"}, name


def test_three_hundred_thousand_rows(page, server):
    """Points are a labelled sample; a drawn shape applies to every row."""
    run = large_run.make(server.runs / "large", 300_000)
    page.goto(f"{server.url}/Explore?run=large")
    expect(headline(page)).to_have_text("What the model finds in 300,000 examples")
    expect(page.get_by_text("Showing 2,000 of 300,000 examples")).to_be_visible()
    settle(page)
    drag(page, "plane", (0.3, 0.3), (0.6, 0.3), (0.6, 0.6), (0.3, 0.6))
    expect(headline(page)).to_have_text(re.compile(r"[\d,]+ match"))
    page.wait_for_url(re.compile("shape="))
    (text,) = page.evaluate("new URL(location).searchParams.getAll('shape')")
    x, y, *ends = json.loads(text)
    drawn = tuple(zip(ends[::2], ends[1::2], strict=True))
    expected = api.load_pool(run).matching(Filter(lassos=((x, y, drawn),))).sum()
    assert 2_000 < expected < 300_000
    expect(headline(page)).to_have_text(re.compile(f"{expected:,} match"))
