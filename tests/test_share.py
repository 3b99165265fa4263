"""What leaves a page: its link, the line that repeats it, the report; and the queue."""

import shlex
import subprocess
import sys

import psutil
import pytest
from run_dirs import (
    DEMO,
    assert_sound,
    choose,
    demo_run,
    everything,
    headline,
    kept_ids,
    open_page,
    press,
    run_in,
    set_state,
)
from typer.testing import CliRunner

from grads import api
from grads.__main__ import app
from grads.config.queue import QueueConfig
from grads.jobs import turns
from grads.jobs.job import Job
from grads.store.folders import Evaluation


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    return demo_run(tmp_path)


def command(at) -> list[str]:
    """The words of the one command that the page offers, after `python -m grads`."""
    (found,) = [c.value for c in at.code if c.value.startswith("python -m grads ")]
    return shlex.split(found)[3:]


def link(at) -> str:
    """The link that the page offers."""
    (found,) = [c.value for c in at.code if "run=demo" in c.value]
    return found


def test_the_line_of_select_makes_what_the_page_shows(run):
    at = open_page(
        "Select",
        run="demo",
        budget="7.5",
        focus="1.2",
        criterion="grads",
        draw="stratified",
        deduplicate="true",
        bound="loss:1:4",
    )
    line = command(at)
    assert CliRunner().invoke(app, line).exit_code == 0
    assert headline(at) == f"Keep {len(kept_ids(run, 'mine'))} of 300 examples"
    assert {"budget=7.5", "deduplicate=true"} <= set(link(at).split("?")[1].split("&"))
    assert link(at).count("/Select?") == 1


@pytest.mark.parametrize(
    "filtered",
    [{"topics": ["1", "3"]}, {"within": "loss:1:3.5"}, {"alike": "any"}, {"search": "fever"}],
    ids=lambda given: next(iter(given)),
)
def test_the_line_of_explore_keeps_what_is_shown(run, filtered):
    at = open_page("Explore", run="demo", **filtered)
    assert CliRunner().invoke(app, command(at)).exit_code == 0
    assert f"{len(kept_ids(run, 'mine'))} match" in headline(at)


def test_run_and_evaluate_offer_the_lines_that_made_them(run):
    line = command(open_page("Evaluate", run="demo"))
    assert line[:5] == ["evaluate", "--run-dir", str(run.path), "--name", "tenth"]
    assert line.count("--selection") == 2
    line = command(open_page("Run", run="demo"))
    assert line[:3] == ["run", "--run-dir", str(run.path)]
    assert line[line.index("--max-length") + 1] == "256"


def test_start_and_the_queue_offer_the_list(run):
    for at in (open_page("Start"), open_page("Run", run="demo", view="Queue")):
        done = CliRunner().invoke(app, [*command(at), "--runs-dir", str(run.root)])
        assert done.exit_code == 0
        assert "demo" in done.output


def test_review_offers_its_queue_as_a_page(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = command(open_page("Review", run="demo", queue="highest", size="7"))
    assert CliRunner().invoke(app, line).exit_code == 0
    page = (tmp_path / "packet.html").read_text(encoding="utf-8")
    assert page == api.packet_page(run, QueueConfig(kind="highest", count=7))


def test_data_offers_the_line_that_starts_a_run_on_them(run):
    data = str(DEMO / "medical_qa.jsonl")
    line = command(open_page("Data", dataset=data, max_length="64"))
    assert line[:3] == ["run", "--dataset", data]
    assert line[line.index("--max-length") + 1] == "64"


def test_every_page_of_a_scored_run_offers_the_report(run):
    for page in ("Run", "Explore", "Review", "Select", "Evaluate"):
        at = open_page(page, run="demo")
        assert_sound(at)
        assert "Download the report" in [one.proto.label for one in at.get("download_button")]


# -- near-duplicates


def test_explore_shows_near_duplicates_and_their_groups(run):
    pool = api.load_pool(run)
    groups = pool.duplicate_groups
    at = open_page("Explore", run="demo", alike="any")
    assert f"{sum(groups.values())} match" in headline(at)
    first, size = next(iter(groups.items()))
    at = open_page("Explore", run="demo", alike=str(first))
    assert f"{size} match" in headline(at)
    (table,) = [frame.value for frame in at.dataframe if "like rows" in frame.value.columns]
    rows = set(table["row"])
    for row, like in zip(table["row"], table["like rows"], strict=True):
        assert {int(n) for n in like.split(", ")} == rows - {row}
    assert choose(at, "Near-duplicates", None)
    assert headline(open_page("Explore", run="demo", alike="299999")) == headline(
        open_page("Explore", run="demo")
    )


def test_keep_one_of_each_is_an_option_of_the_page(run):
    at = open_page("Select", run="demo", budget="100", deduplicate="true")
    pool = api.load_pool(run)
    dropped = sum(size - 1 for size in pool.duplicate_groups.values())
    assert headline(at) == f"Keep {300 - dropped} of 300 examples"
    assert "--deduplicate" in command(at)


# -- the queue


@pytest.fixture
def other_process():
    """A process that lives for as long as the test."""
    process = psutil.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def test_the_queue_names_what_works_and_what_waits_in_order(
    run, tmp_path, other_process, monkeypatch
):
    set_state(Evaluation(run, "tenth"), "running")
    late = run_in(tmp_path, "queued", "late")
    api.describe(late, title="Late one")
    its = {"pid": other_process.pid, "process_started": other_process.create_time()}
    set_state(late, "queued", **its)
    job = Job(late)
    job.status = late.read_status()
    with turns._ticket(job, job.folder.root):
        assert [(one.run.id, one.what, one.place) for one in api.queue()] == [
            ("demo", "the evaluation tenth", 0),
            ("late", "the run", 1),
        ]
        at = open_page("Run", run="late", view="Queue")
        stopped = []
        monkeypatch.setattr(api, "stop_run", stopped.append)
        press(at, "Take out")
        assert [folder.id for folder in stopped] == ["late"]
    assert headline(at) == "What is at work, and what waits?"
    seen = everything(at)
    assert "**Late one**: the run  \n:gray[waits, number 1]" in seen
    assert "**demo**: the evaluation tenth  \n:gray[running]" in seen
    assert {"Stop", "Take out"} <= {button.label for button in at.button}


def test_an_empty_queue_says_so(run):
    at = open_page("Run", run="demo", view="Queue")
    assert "none waits" in everything(at)
