"""The pages in another language: every text of theirs, and the same options behind the words."""

import json
import re
import string
import sys
from functools import cache

import numpy as np
import pytest
from run_dirs import DEMO, PAGES, ROOT, assert_sound, demo_run, headline, open_page, press
from streamlit.runtime.scriptrunner import get_script_run_ctx

from grads import api
from grads.api import Run, Sentence
from studio import language
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
    medical jsonl parquet rows
    Tab logits
    """.split()
)
MARKUP = re.compile(
    r":material/\w+:|:\w+\[|https?://\S+|`[^`]*`|\$[^$]*\$|“[^”]*”|&\w+;|<[^>]*>|{\w+}|\S*[/_.=]\S*"
)
WORD = re.compile(r"[A-Za-z][A-Za-z]{2,}")
KINDS = """markdown caption info warning error success button selectbox multiselect text_input
    text_area number_input slider toggle checkbox radio metric page_link download_button
    button_group expander popover""".split()
CHOOSING = ("selectbox", "multiselect", "radio", "button_group")  # their values are keys
PARTS = ("label", "value", "body", "help", "placeholder")


def said(at):
    """What a page says in words of its own."""
    for kind in KINDS:
        for one in at.get(kind):
            for source in (one, getattr(one, "proto", None)):
                for part in PARTS:
                    text = getattr(source, part, None)
                    if isinstance(text, str) and (part != "value" or kind not in CHOOSING):
                        yield text
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
    return {
        text
        for text in said(at)
        if set(WORD.findall(MARKUP.sub(" ", of_the_demo().sub(" ", text.replace("\\", "")))))
        - AS_IT_IS
    }


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
