"""A run as one page to send on: what it tells, what it must not let in, and what it refuses."""

import html
import json
import re
import shlex

import pytest
import typer
from run_dirs import demo_run, kept_ids, rewrite_sample, run_in
from typer.testing import CliRunner

from grads import api
from grads.__main__ import app
from grads.errors import ConfigError, RunError
from grads.selection.options import SelectionConfig
from studio import charts

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> & \u202eback"


@pytest.fixture
def run(tmp_path):
    return demo_run(tmp_path)


def plain(page: str) -> str:
    """What a reader of the page sees."""
    body = page.split("<body>")[1]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_a_report_tells_what_was_done_and_found(run):
    run.write_rejects(
        [
            {"sample_id": n, "row": n, "line": n + 1, "reason": "no answer", "advice": "give one"}
            for n in (300, 301)
        ]
    )
    api.describe(run, title="Ward round", notes="for Ada\nsecond line")
    api.decide(run, 12, "exclude", "wrong dose", reviewer="Dr Ada")
    seen = plain(api.report(run, "clean-10", "tenth"))
    for told in (
        "Ward round",
        "for Ada second line",
        "Keeps 30 of 300 examples",
        "medical_qa.jsonl",
        "2 no answer give one row 300 (line 301)",
        "max length 256 1024",
        "criterion aligned grads",
        "SmolLM2" if run.config().model != "demo" else "model demo",
        "Score every sample 2 min 35 s",
        "Kept examples: 15 of 30",
        "Set aside examples: 10 of 270",
        "12 never kept wrong dose Dr Ada",
        "It did not train on the selection clean-10.",
        "grads-10 30 3 4.062 ± 0.004",
    ):
        assert told in seen, told
    found = api.read_evaluation(run, "tenth").result
    assert found.comparisons[0].sentence in seen


def test_the_examples_are_those_of_the_selection_with_their_reasons(run):
    page = api.report(run, "grads-10")
    rows = {
        kind: [int(n) for n in re.findall(rf"<article{mark}><div class=.who.>row (\d+)", page)]
        for kind, mark in (("kept", ""), ("aside", " class=aside"))
    }
    kept = set(kept_ids(run, "grads-10"))
    assert len(rows["kept"]) == 15
    assert set(rows["kept"]) <= kept
    assert len(rows["aside"]) == 10
    assert not set(rows["aside"]) & kept
    assert html.unescape(page).count("in the draw's 10%") == 25


def test_the_page_needs_nothing_else_and_obeys_no_text(run):
    """Texts of samples, titles and reasons are shown; nothing is loaded, and nothing runs."""
    kept = kept_ids(run, "grads-10")
    for sample in kept:
        rewrite_sample(run, sample, HOSTILE, HOSTILE)
    api.describe(run, title=HOSTILE, notes=HOSTILE)
    api.name_topic(run, 0, HOSTILE[:40])
    api.decide(run, kept[0], "pin", HOSTILE, reviewer=HOSTILE)
    page = api.report(run, "grads-10", "tenth")
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 30
    assert "\u202e" not in page
    tags = set(re.findall(r"<(\w+)", page))
    assert not tags & {"script", "img", "link", "iframe", "object", "base", "a"}
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    attributes = re.findall(r'\s([\w-]+)="[^"]*"', re.sub(r">[^<]*<", "><", page))
    assert not [name for name in attributes if name.startswith("on") or name in ("src", "href")]
    assert set(re.findall(r"url\(([^)]*)\)", page)) == {"#hatch"}


def test_without_a_selection_it_tells_of_the_run(run):
    seen = plain(api.report(run))
    assert "300 examples are scored" in seen
    assert "Evenly from the strongest learning signal" in seen
    assert "Kept examples" not in seen


def test_the_lines_at_its_end_are_commands_that_exist(run):
    page = api.report(run, "clean-10", "tenth")
    (block,) = re.findall(r"<pre>(.*?)</pre>", page, re.S)
    lines = [shlex.split(line)[3:] for line in html.unescape(block).splitlines()]
    assert [line[0] for line in lines] == ["run", "select", "evaluate"]
    for command, *options in lines:
        typer.main.get_command(app).commands[command].make_context(command, options)


def test_the_command_writes_the_file_anew(run, tmp_path):
    out = tmp_path / "report.html"
    out.write_text("old")
    line = ["report", "--run-dir", str(run.path), "--out", str(out), "--selection", "grads-10"]
    done = CliRunner().invoke(app, [*line, "--json"])
    assert json.loads(done.stdout) == {"out": str(out)}
    assert out.read_text(encoding="utf-8") == api.report(run, "grads-10")


def test_the_colours_are_those_of_the_pages(run):
    """One accent for what is kept and grey for what is set aside, light, dark and in print."""
    text = api.report(run, "grads-10")
    for name, colour in (("kept", charts.KEPT), ("aside", charts.NEUTRAL)):
        assert re.findall(rf"--{name}: *(#\w+)", text) == [colour]


def test_what_cannot_be_reported_is_said(run, tmp_path):
    with pytest.raises(ConfigError, match="HTML file"):
        api.write_report(run, tmp_path / "report.pdf")
    api.write_report(run, tmp_path / "made" / "report.html")
    with pytest.raises(RunError, match=r"cannot write .*report"):
        api.write_report(run, tmp_path / "made" / "report.html" / "report.html")
    with pytest.raises(RunError, match="no selection 'gone'"):
        api.report(run, "gone")
    with pytest.raises(RunError, match="no evaluation 'gone'"):
        api.report(run, None, "gone")
    with pytest.raises(RunError, match=r"no scores\.parquet yet"):
        api.report(run_in(tmp_path, "stopped"))


# -- the lines that repeat what a page shows


@pytest.mark.parametrize(
    "given",
    [
        {"ratio": 0.1},
        {"auto": True},
        {"ratio": 0.075, "budget_unit": "tokens", "focus": 1.3, "typicality": 0.0, "seed": 7},
        {"ratio": 0.2, "draw": "stratified", "deduplicate": True, "length_control": "sqrt"},
        {"count": 9, "criterion": "loss_high", "clusters": [0, 2], "pins": [3, 5], "excluded": [9]},
        {"ratio": 0.3, "criterion": "aligned", "bounds": ["question_gain_z:-0.5:", "loss:0.1:4"]},
        {"ratio": 1 / 3, "towards": 1.0, "away": -0.5, "cosine": "both", "draw": "top"},
    ],
    ids=str,
)
def test_a_copied_line_makes_the_same_selection(run, given):
    options = SelectionConfig.parse(given)
    line = api.select_command(run, options, "copied")
    done = CliRunner().invoke(app, shlex.split(line)[3:])
    assert done.exit_code == 0, done.output
    expected = api.preview(api.load_pool(run), options).kept
    pool = api.load_pool(run)
    assert kept_ids(run, "copied") == pool.scores.sample_id[expected].tolist()
    assert api.read_record(run, "copied").options == options


def test_a_copied_line_has_only_what_was_said(run):
    line = api.select_command(run, SelectionConfig(ratio=0.1), "a b")
    assert line == (f"python -m grads select --run-dir {run.path} --name 'a b' --ratio 0.1")
