"""What people call a run and its topics: kept beside it, shown everywhere, the folder as it was."""

import shutil

import pytest
from run_dirs import demo_run, headline, open_page, press, run_in
from typer.testing import CliRunner

from grads import api
from grads.__main__ import app
from grads.errors import ConfigError, RunError
from grads.selection.options import SelectionConfig
from grads.store.folders import Evaluation
from grads.store.runs import Run


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    return demo_run(tmp_path)


def test_a_title_and_notes_stand_in_the_list_and_the_folder_stays(run):
    for line in (["rename", str(run.path), " Ward  round "], ["note", str(run.path), "for Ada"]):
        assert CliRunner().invoke(app, line).exit_code == 0
    (summary,) = api.summaries()
    assert (summary.id, summary.title, summary.notes) == ("demo", "Ward round", "for Ada")
    shown = CliRunner().invoke(app, ["list"], env={"COLUMNS": "200"}).stdout
    assert "Ward round" in shown
    assert summary.made[:10] in shown or summary.made
    CliRunner().invoke(app, ["rename", str(run.path), ""])
    assert api.summary(run).title == ""
    assert api.summary(run).notes == "for Ada"


def test_texts_that_are_too_long_and_damage_are_told(run):
    with pytest.raises(ConfigError, match="121 characters"):
        api.describe(run, title="x" * 121)
    assert not run.about_file.exists()
    run.about_file.write_text('{"title": 3}')
    with pytest.raises(RunError, match=r"about\.json cannot be read: title"):
        api.summary(run)


@pytest.mark.job
def test_a_deleted_run_does_not_come_back(run):
    """Whoever still has it open is told, and no folder is left."""
    decided = {"sample_id": 1, "decision": "pin"}
    evaluation = Evaluation.open(run, "tenth")
    shutil.rmtree(run.path)
    for change in (
        lambda: run.update_about(title="x"),
        lambda: run.name_topic(0, "x"),
        lambda: run.decide(decided),
        lambda: run.correct(decided),
        lambda: evaluation.rate(decided),
        lambda: api.start_run(run),
        lambda: api.ask_token_signals(run, [1]),
    ):
        with pytest.raises(RunError, match="any more: was it deleted or moved"):
            change()
        assert not run.path.exists()


def test_a_renamed_topic_is_obeyed_in_coverage_and_views_until_the_topics_are_others(run):
    first = api.load_pool(run).cluster_names()[0]
    done = CliRunner().invoke(app, ["rename", str(run.path), "Hydration", "--topic", "0"])
    assert done.exit_code == 0, done.output
    pool = api.load_pool(run)
    assert pool.cluster_names()[0] == "Hydration"
    shown = api.preview(pool, SelectionConfig(ratio=0.1))
    assert "Hydration" in {row.name for row in api.coverage(pool, shown, api.TOPIC)}
    assert "Hydration" in api.report(run, "grads-10")
    run.clusters_file.write_text(run.clusters_file.read_text() + "\n")
    assert Run.open(run.path).topic_names() == {}
    api.name_topic(run, 0, "")
    assert api.load_pool(run).cluster_names()[0] == first
    run.clusters_file.write_text("")
    with pytest.raises(RunError, match=r"clusters\.json cannot be read"):
        run.topic_names()


def test_a_topic_that_is_not_there_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="no topic 99: they are numbered from 0 to"):
        api.name_topic(run, 99, "x")
    with pytest.raises(ConfigError, match="it has none yet"):
        api.name_topic(run_in(tmp_path, "stopped"), 0, "x")


def test_pages_show_and_set_the_name(run):
    at = open_page("Run", run="demo")
    at.text_input(key="title-demo").set_value("Ward *round*")
    at.text_area(key="notes-demo").set_value("see <b>row 3</b>")
    press(at, "Save name and notes")
    assert run.read_about().title == "Ward *round*"
    start = open_page("Start")
    headline(start)
    assert any(m.value.startswith(r"**Ward \*round\***") for m in start.markdown)
    assert any("demo" in c.value and r"\<b\>row 3" in c.value for c in start.caption)
    explore = open_page("Explore", run="demo")
    (box,) = [box for box in explore.selectbox if box.label == "Run"]
    assert box.options == ["Ward *round*"]
    assert box.value == "demo"


def test_explore_renames_a_topic(run):
    at = open_page("Explore", run="demo")
    (name,) = [box for box in at.text_input if str(box.key).startswith("topic-name-0")]
    name.set_value("Hydration").run()
    at.button(key="save-topic-name").click().run()
    assert run.topic_names() == {0: "Hydration"}
    (topics,) = [box for box in at.multiselect if box.label == "Topics"]
    assert "Hydration" in topics.options
