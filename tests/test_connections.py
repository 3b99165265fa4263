"""Without the offline switch, which is how people work: whom do a run and the dashboard ask?

Every connection and every look-up of a name is seen by Python's audit events, in all processes.
"""

import os

import pytest
from chain import command, save_tiny_model, write_data
from playwright.sync_api import expect, sync_playwright
from run_dirs import PAGES, demo_run
from test_browser import CHROMIUM, FLAGS, PATIENCE, Server

SEEN_BY = """
import os, sys

EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")

def see(event, arguments):
    if event in EVENTS:
        place = arguments[0 if event in EVENTS[1:3] else 1]
        with open(os.environ["SEEN"], "a") as file:
            print(event, repr(place), sep="\\t", file=file)

sys.addaudithook(see)
with open(os.environ["SEEN"], "a") as file:
    print("begun", sys.argv[:3] if hasattr(sys, "argv") else "", sep="\\t", file=file)
"""
HERE = (
    "'localhost'",
    "'127.",
    "'::1'",
    "('127.",
    "('localhost'",
    "('::1'",
    "'/",
    "b'\\x00",
    "None",
)


@pytest.fixture
def seen(tmp_path):
    """An environment in which each process notes whom it asks, and where those notes lie."""
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "sitecustomize.py").write_text(SEEN_BY)
    notes = tmp_path / "seen"
    notes.touch()
    environment = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    return environment | {"PYTHONPATH": str(tmp_path / "hooks"), "SEEN": str(notes)}, notes


def asked(notes):
    """What was asked of others than this machine, and how many processes were watched."""
    lines = [line.split("\t") for line in notes.read_text().splitlines()]
    others = [line for line in lines if line[0] != "begun" and not line[1].startswith(HERE)]
    return others, sum(line[0] == "begun" for line in lines)


@pytest.mark.job
def test_the_notes_name_who_is_asked(seen):
    """Else none of them would say anything; and a hub id is what is asked for."""
    environment, notes = seen
    told = command(
        *("run", "--dataset", "no-such-owner/no-such-data", "--run-dir", str(notes.parent / "run")),
        env=environment | {"HF_ENDPOINT": "http://hub.invalid"},
    )
    assert told.returncode == 1
    others, _ = asked(notes)
    assert any("hub.invalid" in place for _, place in others)


@pytest.mark.job
def test_a_run_with_data_and_model_of_this_machine_asks_nobody(seen, tmp_path):
    """From the data to an evaluation and an export."""
    environment, notes = seen
    save_tiny_model(tmp_path / "model")
    write_data(tmp_path / "data.jsonl")
    general = tmp_path / "general.jsonl"
    general.write_text('{"instruction": "the heart?", "output": "rest and water."}\n' * 4)
    at = ["--run-dir", str(tmp_path / "run")]
    short = ["--epochs", "1", "--batch-size", "4", "--lora-rank", "4", "--lr", "5e-3"]
    for arguments in (
        [
            *("run", *at, "--dataset", str(tmp_path / "data.jsonl"), *short),
            *("--model", str(tmp_path / "model"), "--heldout", "5", "--max-length", "64"),
        ],
        ["select", *at, "--name", "fifth", "--ratio", "0.2"],
        ["export", *at, "--selection", "fifth", "--format", "trl"],
        [
            *("evaluate", *at, "--selection", "fifth", "--arms", "selection", *short),
            *("--seeds", "1", "--general", str(general)),
        ],
    ):
        done = command(*arguments, env=environment)
        assert done.returncode == 0, done.stderr
    others, processes = asked(notes)
    assert processes >= 6  # four commands and two jobs
    assert others == []


class Noting(Server):
    """A dashboard in a given environment."""

    def __init__(self, runs, data, environment):
        self.given = environment
        super().__init__(runs, data)

    def start(self):
        self.environment = self.given | {"GRADS_DATA_DIRS": str(self.runs.parent)}
        super().start()


@pytest.mark.browser
def test_the_dashboard_asks_nobody_while_its_pages_are_seen(seen, tmp_path):
    if CHROMIUM is None:
        message = "no Chromium on this machine"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    environment, notes = seen
    demo_run(tmp_path / "runs", "demo")
    server = Noting(tmp_path / "runs", tmp_path, environment)
    try:
        with sync_playwright() as playwright:
            opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = opened.new_page()
            page.set_default_timeout(PATIENCE)
            for name in ("", *PAGES[1:]):  # the first is the start
                page.goto(f"{server.url}/{name}?run=demo")
                page.get_by_role("heading").first.wait_for()
                expect(page.locator("[data-test-script-state=notRunning]")).to_be_attached()
            opened.close()
    finally:
        server.kill()
    others, processes = asked(notes)
    assert processes >= 1
    assert others == []
