"""Names and texts of others are text everywhere: no path, no markup, no command of a terminal."""

import io
import json
import shutil
import unicodedata

import pytest
from rich.console import Console
from run_dirs import DEMO, demo_run
from typer.testing import CliRunner

from grads import api
from grads.__main__ import app
from grads.cli import commands, terminal
from grads.config.base import read_yaml
from grads.config.evaluation import EvaluationConfig
from grads.config.run import RunConfig
from grads.errors import ConfigError, RunError
from grads.stages import worker
from grads.store.folders import Draft, Evaluation, ProbeRequest, TokenRequest, open_folder
from grads.store.runs import Run, Status

OUTSIDE = (
    "../../other/selections/everything",
    "..",
    "",
    "/etc/passwd",
    "a/b",
    "./everything",
    "a\0b",
)


@pytest.mark.parametrize("name", ["evaluations", "token_signal", "probe_request", "selections"])
def test_a_run_may_have_any_name(tmp_path, name):
    """Also that of a folder within runs, as its own and as that of the folder it lies in."""
    for run in (demo_run(tmp_path, name), demo_run(tmp_path / "deep" / name, "mine")):
        assert type(open_folder(run.path)) is Run
        assert type(open_folder(run.path / "evaluations" / "tenth")) is Evaluation
        assert type(open_folder(run.path / "token_signal")) is TokenRequest
        assert type(open_folder(run.path / "probe_request")) is ProbeRequest
        assert api.observe(open_folder(run.path)).state == "finished"


def test_a_run_within_a_run_is_a_run(tmp_path):
    outer = demo_run(tmp_path)
    inner = demo_run(outer.evaluations, "copy")
    assert type(open_folder(inner.path)) is Run


@pytest.mark.parametrize("place", ["evaluations/tenth", "token_signal", "probe_request"])
@pytest.mark.parametrize("settings", ["", '{"dataset": ', "\0" * 40])
def test_what_lies_in_a_run_with_damaged_settings_is_taken_for_no_run(tmp_path, place, settings):
    run = demo_run(tmp_path)
    (run.path / place).mkdir(exist_ok=True, parents=True)
    (run.path / place / "config.json").write_text('{"general": []}')
    run.config_file.write_text(settings)
    with pytest.raises(RunError, match=r"demo/config\.json cannot be read"):
        open_folder(run.path / place)
    assert type(open_folder(run.path)) is Run, "it can still be stopped and deleted"


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


# -- what goes out to a terminal

HOSTILE = "data [v2]:smile: [/bold]\x1b[2J\x1b]0;owned\x07\u202egnp\r\nline\udcff"
SEEN = r"data [v2]:smile: [/bold]\x1b[2J\x1b]0;owned\x07\u202egnp\r\nline\udcff"


def assert_tame(text):
    """Nothing in it that a terminal obeys, but ends of lines."""
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c != "\n"], text
    assert "\u202e" not in text


def hostile_run(root):
    """A finished run of which every name, and the error, is hostile."""
    run = demo_run(root, HOSTILE.replace("/", "_").replace("\n", "").replace("\udcff", ""))
    values = run.config_values() | {"dataset": f"/x/{HOSTILE.replace('/', '')}", "model": HOSTILE}
    run.config_file.write_text(json.dumps(values))
    run.update_manifest(unused_columns=[HOSTILE])
    run.write_rejects([{"sample_id": 0, "row": 0, "reason": HOSTILE, "advice": HOSTILE}])
    run.write_status(Status(state="failed", error=HOSTILE, message=HOSTILE))
    return run


def test_names_are_no_markup_and_no_escapes_on_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    run = hostile_run(tmp_path)
    listed = CliRunner().invoke(app, ["list", "--runs-dir", str(tmp_path)])
    assert listed.exit_code == 0, listed.exception
    assert SEEN in listed.output
    assert SEEN.replace("/", "") in listed.output
    status = CliRunner().invoke(app, ["status", "--run-dir", str(run.path)])
    assert status.exit_code == 0, status.exception
    assert SEEN in status.output
    for output in (listed.output, status.output):
        assert_tame(output)


def test_what_is_shown_of_a_job_is_no_markup_and_no_escapes(tmp_path, capfd):
    run = hostile_run(tmp_path)
    summary = api.summary(run)
    terminal.show(None, False, lambda _: terminal.run_lines(run, summary))
    terminal.say(f"stopped; go on with {HOSTILE}")
    run.write_status(Status(state="failed", stage=HOSTILE))
    terminal.watch(run)
    out, err = capfd.readouterr()
    assert SEEN in out
    assert SEEN in err.replace("\n", "")
    assert_tame(out + err)


def test_the_bar_of_a_job_takes_no_markup(tmp_path, monkeypatch):
    """On a terminal, whose own commands are left out here."""
    screen = Console(file=io.StringIO(), force_terminal=True, width=300, no_color=True)
    monkeypatch.setattr(terminal, "console", screen)
    run = hostile_run(tmp_path)
    run.write_status(Status(state="failed", stage="[/bold] [red]x", message="[/bold]"))
    terminal.watch(run)
    assert "[/bold] [red]x" in screen.file.getvalue()


def test_an_error_is_one_bounded_line(capsys, monkeypatch):
    def fail():
        raise RunError(f"no file at {HOSTILE}{'x' * 10**6}: check the path")

    monkeypatch.setattr(commands, "app", fail)
    with pytest.raises(SystemExit):
        commands.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: no file at {SEEN}xxx")
    assert line.endswith("xxx: check the path")
    assert len(line) < 2_100
    assert_tame(line)


def test_traces_in_a_log_hold_no_escapes(tmp_path, monkeypatch, capsys):
    """Of a job, which people read by `tail`; what the status says of it is one bounded line."""
    run = Run.create(RunConfig(dataset="x.jsonl"), tmp_path / "run")

    def fail(job):
        raise ValueError(f"{HOSTILE} {'x' * 10**5}")

    monkeypatch.setattr(worker, "_stages", fail)
    assert worker.main(run, at_once=True) == 1
    out = capsys.readouterr().out
    assert "Traceback" in out
    assert SEEN.partition(r"\n")[0] in out
    assert_tame(out)
    assert_tame(run.read_status().error)
    assert len(run.read_status().error) < 2_500


# -- settings from a file


def bomb(levels):
    """Lines of YAML that stand for ten to the power of `levels` values."""
    rows = ["a0: &a0 [x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return rows


@pytest.mark.parametrize(
    "lines",
    [
        [*bomb(12), "dataset: *a11"],
        [*bomb(12), "dataset: x", "columns: *a11"],
        [
            "m0: &m0 {k: v}",
            *(f"m{n}: &m{n} {{<<: [{f'*m{n - 1}, ' * 10}]}}" for n in range(1, 12)),
        ],
        ["dataset: &loop [*loop]"],
    ],
    ids=["value", "columns", "merges", "loop"],
)
def test_a_yaml_file_may_not_stand_for_more_than_it_holds(tmp_path, lines):
    path = tmp_path / "settings.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(
        ConfigError, match=r"settings.yaml line \d+: .* repeated by an alias"
    ) as told:
        RunConfig.parse(read_yaml(path))
    assert len(str(told.value)) < 500


def test_an_alias_of_a_word_is_no_repetition(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("dataset: &name x.jsonl\nmodel: *name\ncolumns: {prompt: *name, response: a}\n")
    assert read_yaml(path)["columns"]["prompt"] == "x.jsonl"


def test_nesting_without_end_is_an_error_of_one_line(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("dataset: " + "[" * 100_000)
    with pytest.raises(ConfigError, match="nested too deeply"):
        read_yaml(path)


@pytest.mark.parametrize(
    "value", ["x" * 10**6, ["x"] * 10**5, {"x" * 10**5: 1}, [[[[[["deep"]]]]]]]
)
def test_an_error_repeats_little_of_a_value(value):
    with pytest.raises(ConfigError) as told:
        RunConfig.parse({"dataset": value, "max_length": value})
    assert len(told.value.args[0]) < 1_000
    assert "max_length is" in str(told.value)
    with pytest.raises(ConfigError, match="unknown setting"):
        RunConfig.parse({"dataset": "x", "y" * 10**6: 1})
