"""Names and texts of others are text everywhere: no path, no markup, no command of a terminal."""

import shutil

import pytest
from run_dirs import DEMO, demo_run

from grads import api
from grads.config.evaluation import EvaluationConfig
from grads.errors import RunError
from grads.store.folders import Draft, Evaluation, TokenRequest, open_folder
from grads.store.runs import Run

OUTSIDE = (
    "../../other/selections/everything",
    "..",
    "",
    "/etc/passwd",
    "a/b",
    "./everything",
    "a\0b",
)


@pytest.mark.parametrize("name", ["evaluations", "token_signal", ".evaluations", "selections"])
def test_a_run_may_have_any_name(tmp_path, name):
    """Also that of a folder within runs, as its own and as that of the folder it lies in."""
    for run in (demo_run(tmp_path, name), demo_run(tmp_path / "deep" / name, "mine")):
        assert type(open_folder(run.path)) is Run
        assert type(open_folder(run.path / "evaluations" / "tenth")) is Evaluation
        assert type(open_folder(run.path / "token_signal")) is TokenRequest
        assert api.observe(open_folder(run.path)).state == "finished"


def test_a_run_within_a_run_is_a_run(tmp_path):
    outer = demo_run(tmp_path)
    inner = demo_run(outer.evaluations, "copy")
    assert type(open_folder(inner.path)) is Run


def test_drafts_are_told_by_their_place(tmp_path):
    draft = Draft.of(demo_run(tmp_path).config(), tmp_path, "data")
    assert type(open_folder(draft.path)) is Draft


@pytest.mark.parametrize("place", [".", "evaluations", "evaluations/none", "token_signal/x"])
def test_what_is_no_job_folder_is_refused(tmp_path, place):
    run = demo_run(tmp_path)
    folder = tmp_path if place == "." else run.path / place
    with pytest.raises(RunError, match=r"no run at|has no evaluation"):
        open_folder(folder)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_never_leads_out_of_its_run(tmp_path, name):
    """Though there is something at the place that it leads to."""
    run, other = demo_run(tmp_path), demo_run(tmp_path, "other")
    for saved in list(other.selections.iterdir()):
        shutil.copy(saved, other.selections / f"everything{saved.suffix}")
    for use in (
        lambda: api.read_record(run, name),
        lambda: api.export_selection(run, name, "jsonl"),
        lambda: api.load_pool(run).kept(name),
        lambda: api.read_evaluation(
            run, name.replace("selections/everything", "evaluations/tenth")
        ),
        lambda: api.create_evaluation(
            run,
            "mine",
            EvaluationConfig(selections=(name,), heldout=str(DEMO / "medical_qa_heldout.jsonl")),
        ),
    ):
        with pytest.raises(RunError, match=r"is no name|has no selection"):
            use()
    assert not run.exports.exists()
    assert not (run.evaluations / "mine").exists()
