"""The pages in another language: every text of theirs, and the same options behind the words."""

import json
import os
import re
import shutil
import string
import sys
from functools import cache
from html import unescape

import numpy as np
import pytest
import streamlit as st
from run_dirs import (
    DEMO,
    PAGES,
    ROOT,
    assert_sound,
    demo_run,
    everything,
    headline,
    open_page,
    press,
    run_in,
    set_state,
)
from streamlit.runtime.scriptrunner import get_script_run_ctx

from grads import api
from grads.api import Evaluation, Run, RunConfig, Sentence
from grads.store.files import write_json
from studio import language, words
from studio.language import FOLDER, LANGUAGES, catalogue

sys.path.insert(0, str(ROOT / "assets"))
import words as collected

OTHERS = [code for code in LANGUAGES if code != "en"]


def names(text):
    """What stands in the braces of a text."""
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


@pytest.mark.parametrize("code", OTHERS)
def test_the_file_of_a_language_is_current_and_whole(code):
    """As `make words` leaves it, each text translated, with the same values in its braces."""
    assert (FOLDER / f"{code}.po").read_bytes() == collected.updated(code)
    found = catalogue(code)
    assert [text for text in collected.texts() if text not in found] == []
    maths = [text for text in found if "$" in text]  # its braces hold no values
    for text, told in found.items():
        if text not in maths:
            assert names(told) == names(text), text


# What stays as it is: names, file types, terms, and what the demo's own data and settings say.
AS_IT_IS = set(
    """
    GrADS Studio arXiv JSONL JSON CSV TSV Parquet Arrow HTML Markdown YAML LoRA QLoRA CPU GPU CUDA
    Linux English demo SmolLM Instruct TRL LLaMA Factory axolotl torchtune Alpaca ShareGPT OpenAI
    medical jsonl parquet rows ROUGE lm evaluation harness Tab logits
    Axolotl Excel GGUF Git Hub Hugging Face Transformers Unsloth
    bfloat bit cpu cuda eager float mps sdpa
    """.split()
)
MARKUP = re.compile(
    r":material/\w+:|:\w+\[|https?://\S+|`[^`]*`|\$[^$]*\$|“[^”]*”|&\w+;|<[^>]*>|{\w+}|\S*[/_.=]\S*"
    r"|\b[a-z]+-\d+\b"  # selections of the demo
)
WORD = re.compile(r"[A-Za-z][A-Za-z]{2,}")
KINDS = """markdown caption info warning error success button selectbox multiselect text_input
    text_area number_input slider toggle checkbox radio metric page_link download_button
    button_group expander popover""".split()
ENTRIES = """selectbox multiselect text_input text_area number_input slider toggle checkbox radio
    button_group""".split()  # their values are what people have entered
PARTS = ("label", "value", "body", "help", "placeholder")


def said(at):
    """What a page says in words of its own."""
    for kind in KINDS:
        for one in at.get(kind):
            sources = (one, getattr(one, "proto", None))
            parts = [part for part in PARTS if part != "value" or kind not in ENTRIES]
            texts = [getattr(source, part, None) for part in parts for source in sources]
            yield from {text for text in texts if isinstance(text, str)}
            for option in getattr(getattr(one, "proto", None), "options", None) or ():
                yield str(getattr(option, "content", option))
    yield from pictured(at)
    for table in at.dataframe:
        yield from table.value.get("reason", ())


def pictured(at):
    """What the linked views and their legend say."""
    for one in at.get("html"):
        if 'class="key"' in one.proto.body:
            yield one.proto.body
    for one in at.get("bidi_component"):
        if one.proto.component_name != "grads.views":
            continue
        data = json.loads(one.proto.json)
        yield from data["words"].values()
        for named in (*data["groups"], *(bar for v in data["views"] for bar in v.get("bars", ()))):
            yield named["name"]
        for view in data["views"]:
            yield from (view[part] for part in ("title", "alt", "x", "y"))


@cache
def of_the_demo():
    """What the demo's own data say on pages: topics, columns and their values, names of people."""
    pool = api.load_pool(Run.open(DEMO / "run"))
    names = {name for name in pool.cluster_names() if not isinstance(name, Sentence)}
    names |= {term for topic in pool.clusters for term in topic.terms}
    names |= {*pool.own_columns, *pool.run.selection_names(), *pool.probes}
    names |= {file.parent.name for file in pool.run.evaluations.glob("*/result.json")}
    for column in set(pool.categories) - {api.TOPIC}:
        names |= set(pool.categories[column].names)
    longest_first = sorted(map(re.escape, names), key=len, reverse=True)
    return re.compile(rf"(?<!\w)({'|'.join(longest_first)})(?!\w)|^\d+: .*")


def english(at):
    """What a page says in English words that it should not."""
    return left_in_english({text.replace("\\", "") for text in said(at)} - quoted())


def left_in_english(texts):
    """Those that hold an English word that they should not."""
    return {
        text
        for text in texts
        if set(WORD.findall(MARKUP.sub(" ", of_the_demo().sub(" ", text)))) - AS_IT_IS
    }


@cache
def quoted():
    """Names and questions of the demo as pages show them: an option, a headline."""
    run = Run.open(DEMO / "run")
    asked = [prompt.prompt for prompt in api.read_evaluation(run, "tenth").answers.prompts]
    lines = [words.shorten(text, length) for text in asked for length in (300, 400)]
    return {*run.selection_names(), *run.evaluation_names(), *(f"**{line}**" for line in lines)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    demo_run(root)
    return root


@pytest.mark.parametrize("page", PAGES)
def test_no_english_word_is_left_on_a_page(page, runs, monkeypatch):
    monkeypatch.setenv("GRADS_RUNS_DIR", str(runs))
    at = open_page(page, lang="zh", run="demo")
    assert_sound(at)
    assert english(at) == set()
    assert any("\u4e00" <= letter <= "\u9fff" for letter in "".join(said(at)))


@pytest.mark.parametrize("way", ["selections", "sizes"])
def test_no_english_word_is_left_where_an_evaluation_starts(way, runs, monkeypatch):
    """All that is folded, and the forms: their price needs held-out samples."""
    monkeypatch.setenv("GRADS_RUNS_DIR", str(runs))
    at = open_page("Evaluate", lang="zh", run="demo")
    for name in ("Test a selection", "Find a setting", "rate"):
        at.session_state[name] = True
    at.session_state["How the settings overlap, without any training"] = True
    at.session_state["way"] = way
    for form in ("evaluate", "tune"):
        at.session_state[f"{form}-heldout-demo"] = str(DEMO / "medical_qa_heldout.jsonl")
    at.run()
    assert_sound(at)
    criteria = {one.label for one in api.criteria().values()}
    assert english(at) - criteria == set()
    assert len([b for b in at.button if b.key in ("start-evaluation", "start-search")]) == 2


@pytest.mark.parametrize("state", ["running", "stopped", "failed"])
def test_no_english_word_is_left_on_an_evaluation_that_is_not_finished(
    state, tmp_path, monkeypatch
):
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    evaluation = Evaluation.open(demo_run(tmp_path), "tenth")
    evaluation.result_file.unlink()
    set_state(evaluation, state, message="random, seed 1")
    at = open_page("Evaluate", lang="zh", run="demo")
    assert_sound(at)
    assert [b.proto.text for b in at.get("progress")] == ["随机，种子 1"] * (state == "running")
    left = {text for text in english(at) if "the loss is nan" not in text}
    assert left == set()


def test_another_run_is_compared_in_the_language_of_the_reader(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    demo_run(tmp_path)
    write_json(
        demo_run(tmp_path, "other").config_file,
        Run.open(tmp_path / "demo").config_values() | {"seed": 7, "epochs": 2.0},
    )
    at = open_page("Explore", lang="zh", run="demo", other="other")
    assert_sound(at)
    text = everything(at)
    assert "行与文本均相同的有 300 个样本；" in text
    assert "两次运行的不同之处：轮数、种子。" in text
    assert "秩相关为斯皮尔曼系数" in text


SQUARE = '["map_x","map_y",-1,-1,1,-1,1,1,-1,1]'
STATES = (
    ("Explore", {"sample": "5", "within": "signal:0:3", "shape": SQUARE, "colour": "signal"}),
    ("Explore", {"search": "0000", "colour": "nothing"}),
    ("Explore", {"selection": "grads-10", "colour": "found topic", "show": "leaving"}),
    ("Select", {"budget": "3", "show": "decided", "bound": "signal:0:2", "alike": "any"}),
    ("Select", {"criterion": "loss_high", "show": "aside", "colour": "kind", "bound": "loss:2:9"}),
    ("Select", {"auto": "true", "criterion": "density", "draw": "top", "show": "kept"}),
    ("Review", {"queue": "duplicates"}),
    ("Review", {"queue": "topic", "at": "2"}),
    ("Review", {"queue": "borderline", "at": "61"}),
    ("Review", {"queue": "disagreements"}),
)


@pytest.mark.parametrize(("page", "more"), STATES)
def test_no_english_word_is_left_where_examples_are_chosen(page, more, runs, monkeypatch):
    """Filters, colours, lists and queues of every kind, and an example that is read."""
    monkeypatch.setenv("GRADS_RUNS_DIR", str(runs))
    at = open_page(page, lang="zh", run="demo", **more)
    assert_sound(at)
    assert english(at) == set()


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """A runs folder with a finished run, a stopped one, one that waits, and data looked at.

    Gives query parameters that name the data.
    """
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    monkeypatch.setenv("GRADS_DATA_DIRS", str(tmp_path))
    data, columns = tmp_path / "data.jsonl", {"prompt": "问", "response": "答"}
    data.write_text('{"问": "一", "答": "二"}\n', encoding="utf-8")
    demo_run(tmp_path)
    run_in(tmp_path, "stopped", "r1")
    run_in(tmp_path, "queued", "r2")
    looked = api.draft(RunConfig(dataset=str(data), columns=columns), "data")
    shutil.copytree(
        DEMO / "run", looked.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("config.json")
    )
    looked.update_manifest(columns=columns, unused_columns=["题"])
    os.utime(looked.path)  # an old one would be removed
    return {"dataset": str(data), "map_prompt": "问", "map_response": "答"}


@pytest.mark.parametrize(
    ("page", "more"),
    [
        ("Data", {}),
        ("Run", {"view": "New run"}),
        ("Run", {"view": "Queue"}),
        ("Run", {"run": "r1"}),
        ("Run", {"run": "r2"}),
    ],
)
def test_no_english_word_is_left_where_data_and_jobs_are(page, more, jobs):
    """Data that were looked at, a price to be paid, a queue, runs at rest and in waiting."""
    at = open_page(page, lang="zh", **jobs, **more)
    assert_sound(at)
    assert english(at) == set()


def test_what_the_engine_says_is_told_with_its_parts(monkeypatch):
    """Each part in the language of the reader; what people have written as they wrote it."""
    said = Sentence("{said} by {reviewer}", said=Sentence("always kept"), reviewer="Ada")
    said = Sentence("{said}: {reason}", said=said, reason="{typical} of kept")
    assert said == language.told(said) == "always kept by Ada: {typical} of kept"
    monkeypatch.setattr(language, "current", lambda: "zh")
    assert language.told(said) == "必选（Ada）：{typical} of kept"
    assert language.told("always kept") == "always kept", "a person's words, whatever they are"


def test_every_reason_is_told_in_the_language_of_the_reader(runs, monkeypatch):
    """Whatever the criterion, the draw and the ranges; columns go by their names."""
    pool = api.load_pool(Run.open(runs / "demo"))
    low, high = np.quantile(pool.scores.loss, [0.2, 0.8])
    monkeypatch.setattr(language, "current", lambda: "zh")
    for values in (
        {},
        {"length_control": "sqrt", "draw": "stratified"},
        {"length_control": "none", "draw": "top", "deduplicate": True},
        {"criterion": "random", "pins": [1], "excluded": [2]},
        {"criterion": "loss_low", "bounds": [f"loss:{low}:{high}"], "clusters": [0, 1]},
    ):
        options = api.SelectionConfig.parse({"ratio": 0.5} | values)
        shown = api.preview(pool, options)
        lines = map(language.told, api.reasons(pool, shown, np.arange(len(pool))))
        assert set(WORD.findall("".join(lines))) <= {"loss"}, values


def shown(html):
    """What a page that was handed out says in words of its own, without its scripts."""
    for said in re.findall(r'(?:aria-label|placeholder)="([^"]*)"', html):
        yield unescape(said)
    body = re.sub(r"<(script|style|kbd)\b.*?</\1>", " ", html, flags=re.DOTALL)
    yield from (unescape(text) for text in re.split(r"<[^>]*>", body) if text.strip())


@pytest.mark.parametrize("kind", api.QUEUES)
def test_no_english_word_is_left_in_a_packet(kind, tmp_path):
    """Nor in what its script says; the samples, and what comes back, are those of English."""
    run = demo_run(tmp_path)
    for name, decision in (("", "pin"), ("Bo", "exclude"), ("Cy", "pin")):
        api.decide(run, 5, decision, "wrong, duplicate of row 3, b, c", reviewer=name)
    api.tag(run, "1", [5, 6])
    config = api.QueueConfig(kind=kind, topic=0, tag="1", selection="grads-10", count=9)
    english = api.packet_page(run, config)
    with language.speaking("zh"):
        told = api.packet_page(run, config, language.told)
    before, data = (json.loads(re.findall(r">({.*})<", page)[0]) for page in (english, told))
    said = [data["title"], *data["words"].values(), *data["called"].values(), *shown(told)]
    assert left_in_english(said) == set()
    assert before["words"].keys() == data["words"].keys()
    assert '<html lang="zh">' in told
    assert "{{" not in told
    for page in (before, data):
        del page["words"], page["called"], page["title"], page["packet"]
    if kind == "disagreements":
        (sample,), (here,) = before["entries"][0], data["entries"][0]
        assert sample.pop("opinions")[1] == "Bo leaves it out: wrong, duplicate of row 3, b, c"
        assert here.pop("opinions") == [
            "未署名者 主张保留：错误, 与第 3 行重复, b, c",
            "Bo 主张排除：错误, 与第 3 行重复, b, c",
            "Cy 主张保留：错误, 与第 3 行重复, b, c",
        ]
    assert before == data


# What a report shows as the settings and files have it.
VALUES = (
    "float32 aligned grads top sample lora auto question answer topic kind UTC SHA dev0".split()
)


@pytest.mark.parametrize(
    ("selection", "evaluation"), [(None, None), ("grads-10", "tenth"), ("clean-10", "tenth")]
)
def test_no_english_word_is_left_in_a_report(selection, evaluation, tmp_path):
    """But for the texts of samples and the commands, which stay, and values of settings."""
    run = demo_run(tmp_path)
    api.decide(run, 5, "exclude", "wrong, b c", reviewer="Al")
    english = api.report(run, selection, evaluation)
    with language.speaking("zh"):
        told = api.report(run, selection, evaluation, tell=language.told)
    assert '<html lang="zh">' in told
    data = re.compile(r'<div class="turn".*?</div>|<pre>.*?</pre>', re.DOTALL)
    assert data.findall(english) == data.findall(told)
    said = " | ".join(shown(data.sub("", told)))
    about = run.read_manifest()
    for name in (*about.versions, about.device, about.source.digest, about.model_digest, *VALUES):
        said = said.replace(name, " ")
    assert left_in_english(said.split(" | ")) == set()


@pytest.mark.parametrize(
    ("page", "says"), [("Select", "Download the report"), ("Review", "This queue as a packet")]
)
def test_what_a_page_hands_out_later_is_in_its_language(page, says, runs, monkeypatch):
    """It is made when it is asked for, where no page runs any more."""
    handed = {}
    monkeypatch.setattr(
        st, "download_button", lambda label, data, *_, **__: handed.update({label: data})
    )
    monkeypatch.setenv("GRADS_RUNS_DIR", str(runs))
    for code in LANGUAGES:
        assert_sound(open_page(page, lang=code, run="demo"))
        made = handed[catalogue(code).get(says, says)]()
        text = made.decode() if isinstance(made, bytes) else made
        assert f'<html lang="{code}">' in text
        assert ("Examples of the run demo" in text or "by default" in text) == (code == "en")


def test_a_switch_keeps_what_is_set_and_goes_with_links(runs, monkeypatch):
    """The same options behind other words; the language goes to the next page."""
    monkeypatch.setenv("GRADS_RUNS_DIR", str(runs))
    at = open_page("Select", run="demo", budget="25")
    assert headline(at) == "Keep 75 of 300 examples"
    press(at, "中文")
    assert "75" in headline(at)
    assert "Keep" not in headline(at)
    assert "rank correlation" not in " ".join(pictured(at)), "worked out for another reader"
    assert at.query_params["budget"] in ("25", ["25"])
    assert at.query_params["lang"] in ("zh", ["zh"])
    # AppTest finds what is chosen among the options by their words, outside of the page.
    inside = language.current
    monkeypatch.setattr(
        language, "current", lambda: inside() if get_script_run_ctx(suppress_warning=True) else "zh"
    )
    press(at, "English")
    assert headline(at) == "Keep 75 of 300 examples"
    assert "lang" not in at.query_params


def test_what_is_chosen_is_shown_in_the_words_of_the_new_language(runs, monkeypatch):
    """A box in the browser holds its choice as it reads; the server has to give it the new one."""
    monkeypatch.setenv("GRADS_RUNS_DIR", str(runs))
    at = open_page("Evaluate", run="demo")
    chosen = at.multiselect(key="answering").set_value(["base", "grads-10"])
    assert chosen.run().multiselect(key="answering").value == ["base", "grads-10"]
    press(at, "中文")
    box = at.multiselect(key="answering")
    assert box.value == ["base", "grads-10"]
    assert box.proto.set_value
    assert list(box.proto.raw_values) == ["基础模型", "grads-10"]
