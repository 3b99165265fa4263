"""The page Run: what a run will cost, its start, what it took."""

import json

import chain
import pytest
import run_dirs
from run_dirs import (
    DEMO,
    assert_sound,
    choose,
    drafts,
    everything,
    has_button,
    headline,
    links,
    messages,
    open_page,
    press,
    run_in,
)
from streamlit.testing.v1 import AppTest

from grads import api
from grads.errors import RunError
from grads.jobs import processes as jobs
from grads.store.runs import ACTIVE, list_runs
from studio import words


def test_a_finished_run_says_how_long_it_took(run):
    seconds = sum(run.read_manifest().seconds.values())
    text = everything(open_page("Run"))
    assert f"It took {words.duration(seconds)}." in text
    assert "estimated" not in text
    assert "Explore what the model found" in links(open_page("Run"))


def test_the_estimate_is_held_against_what_it_took(run):
    """Only the stages that were estimated count in how far it was off."""
    spent = run.read_manifest().seconds
    half = (spent["score"] + spent["warm-up"]) / 2
    run.estimate_file.write_text(json.dumps({"seconds": {"score": half, "warm-up": 0.0}}))
    text = everything(open_page("Run"))
    assert f"It took {words.duration(sum(spent.values()))}; {words.duration(half)} were" in text
    assert "(+100%)" in text


def test_the_warmups_loss_is_drawn(run):
    charts = [c.proto.alt for c in open_page("Run").get("plotly_chart")]
    assert any("Loss by training step" in alt for alt in charts)
    assert any("Loss by batch" in alt for alt in charts)


NEW = {"view": "New run", "dataset": str(DEMO / "medical_qa.jsonl")}


def test_a_new_run_without_data_asks_for_data(run):
    at = open_page("Run", view="New run")
    assert headline(at) == "What will it cost?"
    assert "First choose your data" in messages(at)
    assert "Choose data" in links(at)
    assert not has_button(at, "Start")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lr": "abc"}, "lr is 'abc'"),
        ({"max_length": "2"}, "max_length is 2"),
        ({"epochs": "0"}, "epochs is '0'"),
        ({"warmup_fraction": "1.5"}, "warmup_fraction is '1.5'"),
        ({"batch_size": "0", "lora_rank": "0"}, "lora_rank is 0"),
        ({"batch_tokens": "many"}, "batch_tokens is 'many': Input should be 'auto'"),
        ({"dataset": "/etc/passwd"}, "lies outside the folders"),
        ({"model": "/etc"}, "/etc lies outside the folders"),
        ({"warmup_from": "/etc"}, "/etc lies outside the folders"),
    ],
)
def test_an_invalid_setting_is_named_and_nothing_starts(root, settings, expected):
    at = open_page("Run", **(NEW | settings))
    assert headline(at) == "What will it cost?"
    assert expected in messages(at)
    assert not has_button(at, "Start")
    assert list_runs(root) == []


@pytest.mark.job
def test_valid_settings_can_be_started_and_measured(root, new_link):
    at = open_page("Run", **new_link, lr="1e-3", warmup="full")
    assert headline(at) == "What will it cost?"
    assert not at.error
    assert has_button(at, "Start")
    assert has_button(at, "Estimate")
    assert list_runs(root) == [], "looking starts nothing"


@pytest.mark.job
def test_the_tokens_of_a_pass_are_a_number_or_left_to_the_memory(new_link):
    """What a link says, and what is chosen; the command says the same."""
    at = open_page("Run", **new_link, batch_tokens="512")
    assert any("--batch-tokens 512" in code.value for code in at.code)
    choose(at, "batch tokens", "auto")
    assert_sound(at)
    assert at.query_params["batch_tokens"] == "auto"
    assert any("--batch-tokens auto" in code.value for code in at.code)
    assert has_button(at, "Start")


@pytest.mark.job
def test_a_new_run_is_told_of_the_one_at_work(root, new_link):
    run_in(root, "running")
    at = open_page("Run", **new_link)
    assert "running is at work" in messages(at).replace("`", "")
    assert [toggle.value for toggle in at.toggle] == [False]


@pytest.mark.job
def test_a_start_that_fails_leaves_the_page_standing(new_link, monkeypatch):
    def refuse(*args, **more):
        raise RunError("the disk is full: make room")

    monkeypatch.setattr(api, "start_new", refuse)
    at = press(open_page("Run", **new_link), "Start")
    assert "the disk is full" in messages(at)
    assert headline(at) == "What will it cost?"


def test_the_percent_beside_a_stage_is_of_that_stage_whatever_is_known_of_the_end(run):
    def page(path, name):
        import streamlit as st

        from grads.api import Evaluation, Run, Status
        from studio import job

        for left in (None, 1e6):
            status = Status(state="running", stage="score", done=4, total=10, left_s=left)
            st.text(job.progress(Evaluation.open(Run.open(path), name), status))

    name = run.evaluation_names()[0]
    patience = run_dirs.PATIENCE
    at = AppTest.from_function(page, args=(str(run.path), name), default_timeout=patience).run()
    assert [line.value for line in at.text] == ["40% · Score every sample"] * 2


@pytest.mark.job
def test_a_run_is_measured_started_once_and_stopped(root, new_link):
    """Estimate, Start, a second start of the same, Stop: by the page's own buttons."""
    link = new_link | {"epochs": "500", "batch_size": "4"}
    at = press(open_page("Run", **link), "Estimate")
    (draft,) = drafts(root, "cost")
    assert chain.wait_for(draft, "finished", "failed").state == "finished"
    at = open_page("Run", **link)
    assert "of memory and" in everything(at)
    assert "for 53 examples" in everything(at)
    press(at, "Start")
    assert_sound(at)
    (run,) = list_runs(root)
    try:
        assert headline(at) == "This run is at work"
        assert api.start_new(run.config()).path == run.path, "a double start finds the first"
        press(open_page("Run", **link), "Start")
        assert [r.path for r in list_runs(root)] == [run.path]
        assert run.read_estimate() == draft.read_estimate()
        chain.wait_for(run, "running")

        def warming_up():
            status = jobs.observe(run)
            return status.stage == "warm-up" and status.done

        chain.until(warming_up, "a step of the warm-up", during=lambda: chain.at_work(run))
        at = open_page("Run", run=run.id)
        (bar,) = at.get("progress")
        assert bar.proto.text.startswith("Warm up the model")
        press(at, "Stop")
    finally:
        if jobs.observe(run).state in ACTIVE:
            api.stop_run(run)
    assert jobs.observe(run).state == "stopped"
    assert "is stopped" in headline(at)
    assert has_button(at, "Resume")
