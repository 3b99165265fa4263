"""Eight people on one server at once, each with choices of their own, among twenty runs.

Half a minute here, ten minutes by `make reliability`.
"""

import asyncio
import re
import subprocess
import sys
import threading
import time
from itertools import cycle

import psutil
import pytest
from chain import ROOT, until
from playwright.async_api import Browser, Page, async_playwright, expect
from run_dirs import BROKEN, STATES, demo_run, run_in
from test_browser import CHROMIUM, FLAGS, OWN_PROBES, Server

pytestmark = pytest.mark.browser
SESSIONS, RUNS = 8, 20
SECONDS = {False: 30.0, True: 600.0}
MOST_GROWTH = 150 * 2**20  # bytes of the server, from once every page was seen to the end
PATIENCE = 300_000  # milliseconds: eight windows share what the machine has left
PRESETS = ("5%", "10%", "25%", "50%")
POOL = 300  # examples of the demo


class Watched(Server):
    """A dashboard whose errors are kept, and whose memory is looked at."""

    def start(self):
        self.log = self.runs.parent / "server.log"
        command = [sys.executable, "-m", "grads", "dashboard", "--port", str(self.port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--runs-dir", str(self.runs)],
                cwd=ROOT,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        until(self.answers, "the server", during=lambda: self.process.poll() is None)

    def memory(self):
        """Bytes of the process that draws the pages."""
        below = psutil.Process(self.process.pid).children()
        return sum(one.memory_info().rss for one in below if "studio.serve" in one.cmdline())


@pytest.fixture
def watched(tmp_path):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    runs = tmp_path / "runs"
    demo_run(runs, "demo")
    states = [state for state, _ in zip(cycle(STATES), range(RUNS - 1), strict=False)]
    for number, state in enumerate(states):
        run_in(runs, state, f"{state}-{number}")
    running = Watched(runs, tmp_path)
    yield running
    running.kill()


class Session:
    """One person: a browser window of their own, and what they have typed and not saved."""

    def __init__(self, number: int, page: Page, url: str) -> None:
        self.number, self.page, self.url = number, page, url
        self.name, self.percent = f"mine-{number}", 3 + number
        self.errors: list[str] = []
        self.visits = 0
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._console)

    def _console(self, message) -> None:
        if message.type == "error" and not OWN_PROBES.search(message.location["url"]):
            self.errors.append(f"{message.text} {message.location}")

    async def _open(self, address: str, sentence: str) -> None:
        await self.page.goto(f"{self.url}/{address}")
        await expect(self.page.locator("h2").first).to_have_text(re.compile(sentence))

    async def _is_sound(self) -> None:
        text = await self.page.locator(".stMain").inner_text()
        assert BROKEN not in text, text
        assert await self.page.locator(".stException").count() == 0
        others = set(re.findall(r"mine-\d", text)) - {self.name}
        assert not others, f"{self.name} sees {others}"
        self.visits += 1

    async def start(self) -> None:
        await self._open("", "Which of my examples")
        links = self.page.get_by_role("link", name=re.compile("^.*(Explore it|Watch it)$"))
        await expect(links).to_have_count(RUNS)

    async def data(self) -> None:
        await self._open("Data", "Which examples do you have")

    async def run(self) -> None:
        state = STATES[self.number % len(STATES)]
        number = self.number % len(STATES)
        await self._open(f"Run?run={state}-{number}", "This run")

    async def explore(self) -> None:
        await self._open(f"Explore?run=demo&sample={self.number + 1}", "What the model finds in")
        await expect(
            self.page.get_by_text(f"Example in row {self.number + 1}", exact=False).first
        ).to_be_visible()

    async def evaluate(self) -> None:
        await self._open("Evaluate?run=demo", r"\w")

    async def select(self) -> None:
        """A size of one's own, another from the presets, and a name that is not saved."""
        kept = round(POOL * self.percent / 100)
        await self._open(f"Select?run=demo&budget={self.percent}.0", f"Keep {kept} of {POOL}")
        field = self.page.get_by_label("Save as")
        await expect(field).to_have_value("")
        await field.fill(self.name)
        await field.press("Enter")
        preset = PRESETS[(self.number + self.visits) % len(PRESETS)]
        await self.page.get_by_role("button", name=preset, exact=True).click()
        kept = round(POOL * int(preset[:-1]) / 100)
        await expect(self.page.locator("h2").first).to_have_text(f"Keep {kept} of {POOL} examples")
        await expect(field).to_have_value(self.name)

    async def work(self, until: float) -> None:
        """Through the pages, each session from another one on, until the time is over."""
        pages = (
            self.start,
            self.explore,
            self.select,
            self.evaluate,
            self.run,
            self.select,
            self.data,
        )
        number = self.number
        while time.monotonic() < until:
            try:
                await pages[number % len(pages)]()
                await self._is_sound()
            except Exception:
                print(f"session {self.number} on {self.page.url}: {self.errors}")
                raise
            number += 1


async def all_at_once(watched: Watched, seconds: float) -> tuple[list[Session], list[int]]:
    """Every session at work; the sessions, and the server's memory from time to time."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE
        )
        sessions = [await opened(browser, number, watched.url) for number in range(SESSIONS)]
        memory: list[int] = []
        ended = asyncio.Event()

        async def look() -> None:
            while not ended.is_set():
                memory.append(watched.memory())
                await asyncio.sleep(1)

        looking = asyncio.create_task(look())
        try:
            until = time.monotonic() + seconds
            await asyncio.gather(*(session.work(until) for session in sessions))
        finally:
            ended.set()
            await looking
            await browser.close()
    return sessions, memory


async def opened(browser: Browser, number: int, url: str) -> Session:
    context = await browser.new_context(viewport={"width": 1400, "height": 1000})
    page = await context.new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    return Session(number, page, url)


def in_a_thread(work):
    """Run a coroutine where no other event loop is at work, as one of an earlier test may be."""
    found = []

    def run() -> None:
        try:
            found.append(asyncio.run(work))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


@pytest.mark.full
def test_eight_sessions_at_once_among_twenty_runs(watched, full):
    sessions, memory = in_a_thread(all_at_once(watched, SECONDS[full]))
    visits = [session.visits for session in sessions]
    early, late = (max(part) for part in (memory[: len(memory) // 3], memory[-10:]))
    print(
        f"{sum(visits)} visits; {memory[0]:,} bytes, after a third {early:,}, at the end {late:,}"
    )
    assert [error for session in sessions for error in session.errors] == []
    assert min(visits) > 0
    log = watched.log.read_text()
    assert "Traceback" not in log, log
    assert "Error" not in log, log
    assert not (watched.runs / "studio.log").exists()
    assert late - early < MOST_GROWTH
    names = [path.stem for path in (watched.runs / "demo" / "selections").glob("*.json")]
    assert not [name for name in names if name.startswith("mine")], "nothing was saved"
