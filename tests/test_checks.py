"""Looks at data and at costs: one at a time, and none that nobody waits for."""

import os
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import psutil
import pytest
from chain import config_for, save_tiny_model, until, write_data
from run_dirs import open_page
from streamlit.runtime.caching import clear_session_resource_cache
from streamlit.runtime.scriptrunner import get_script_run_ctx

from grads import api
from grads.api import drafts
from grads.config.run import RunConfig
from grads.jobs import processes as jobs
from grads.jobs import turns
from grads.jobs.identity import begun
from grads.jobs.job import Job
from grads.store.folders import Checker, Draft
from grads.store.runs import ACTIVE
from studio import wanted

SETTINGS = 5


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A runs folder with data, which the pages use."""
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("GRADS_DATA_DIRS", str(tmp_path))
    write_data(tmp_path / "data.jsonl")
    return tmp_path


@pytest.fixture
def never_ending(monkeypatch):
    """Jobs begin, and this process is theirs."""
    monkeypatch.setattr(
        jobs, "start", lambda folder, at_once: folder.write_status(begun(os.getpid()))
    )


def draft(root, seed, purpose="data"):
    return api.draft(RunConfig(dataset=str(root / "data.jsonl"), seed=seed), purpose)


def test_drafts_are_worked_at_one_at_a_time(root, monkeypatch):
    """Whoever has started them: those that look at data, and those that also measure."""
    from grads.stages import run as stages

    now, most, lock = [0], [0], threading.Lock()

    def work(*_):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return SimpleNamespace(write=lambda path: None)

    @contextmanager
    def making(job, name):
        yield True

    monkeypatch.setattr(turns, "LOOK_S", 0.01)
    monkeypatch.setattr(stages, "making", making)
    monkeypatch.setattr(stages.preparing, "prepare", work)
    monkeypatch.setattr(stages.loading, "load_pool", lambda draft: None)
    monkeypatch.setattr(stages.cost, "measure", work)
    made = [draft(root, seed, purpose) for seed in range(3) for purpose in ("data", "cost")]
    threads = [threading.Thread(target=stages.check, args=[Job(one)]) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


@pytest.mark.job
def test_five_settings_at_once_are_one_process(root, monkeypatch):
    """The server's checker looks at one after the other."""
    save_tiny_model(root / "model")
    monkeypatch.setattr(drafts, "_warm", False)
    api.keep_warm()
    checker = Checker(root / "runs")
    process = psutil.Process(checker.read_status().pid)
    try:
        made = [api.check(config_for(root, seed=seed), "data") for seed in range(SETTINGS)]
        at_work = set()

        def ended():
            for other in psutil.process_iter(["pid", "cmdline"]):
                if str(root / "runs") in " ".join(other.info["cmdline"] or ()):
                    at_work.add(other.pid)
            return all(jobs.observe(one).state not in ACTIVE for one in made)

        until(ended, "five looks", during=process.is_running)
        assert [one.read_status().state for one in made] == ["finished"] * SETTINGS
        assert at_work == {process.pid}
        assert {one.read_status().pid for one in made} == {process.pid}
    finally:
        jobs.stop(checker, grace_s=0)


def test_what_waits_in_the_queue_may_be_silent(root):
    """It has not begun: that it says nothing means nothing."""
    one = draft(root, 0)
    one.write_status(begun(os.getpid()).model_copy(update={"heartbeat": 1.0}))
    assert jobs.observe(one).message == "starting"


def test_what_was_given_up_goes_on_when_it_is_wanted_again(root, never_ending):
    """While its job has not ended yet, and after that; a look that failed waits for a person."""
    config = RunConfig(dataset=str(root / "data.jsonl"))
    one = api.check(config, "data")
    api.give_up(one)
    assert one.stop_file.exists()
    api.check(config, "data")
    assert not one.stop_file.exists()
    for state, again in (("stopped", True), ("failed", False), ("finished", False)):
        one.write_status(one.read_status().model_copy(update={"state": state}))
        api.check(config, "data")
        assert (one.read_status().state in ACTIVE) == again, state


def test_only_what_a_session_waits_for_is_kept(root, never_ending, monkeypatch):
    """Five quick changes in one tab leave the last; what another tab wants stays."""
    session = ["a"]
    monkeypatch.setattr(wanted, "_wanted", {})
    monkeypatch.setattr(wanted, "_session", lambda: session[0])
    looks = [
        api.check(RunConfig(dataset=str(root / "data.jsonl"), seed=seed), "data")
        for seed in range(SETTINGS)
    ]
    for look in looks:
        wanted.want("data", look)
    given_up = [look.stop_file.exists() for look in looks]
    assert given_up == [True] * (SETTINGS - 1) + [False]
    session[0] = "b"
    wanted.want("data", looks[-1])
    wanted._left("a")
    assert not looks[-1].stop_file.exists()
    wanted._left("b")
    assert looks[-1].stop_file.exists()


def test_what_a_closed_tab_waited_for_is_given_up(root, never_ending, monkeypatch):
    """Its look at data, and its measurement of a cost."""
    sessions = set()
    session = wanted._session
    monkeypatch.setattr(wanted, "_wanted", {})
    monkeypatch.setattr(
        wanted, "_session", lambda: sessions.add(get_script_run_ctx().session_id) or session()
    )
    open_page("Data", dataset=str(root / "data.jsonl"))
    (look,) = (Draft(path) for path in (root / "runs" / ".drafts").glob("data-*"))
    assert not look.stop_file.exists()
    (closed,) = sessions
    clear_session_resource_cache(closed)
    assert look.stop_file.exists()
    assert wanted._wanted == {}
