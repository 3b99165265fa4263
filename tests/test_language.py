"""The pages in another language: every text of theirs, and the same options behind the words."""

import os
import re
import shutil
import string
import sys

import pytest
from run_dirs import (
    DEMO,
    PAGES,
    ROOT,
    assert_sound,
    demo_run,
    headline,
    open_page,
    press,
    run_in,
)

from grads import api
from grads.api import RunConfig
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
    Axolotl Excel GGUF Git Hub Hugging Face Transformers Unsloth
    bfloat bit cpu cuda eager float mps sdpa
    """.split()
)
MARKUP = re.compile(
    r":material/\w+:|:\w+\[|https?://\S+|`[^`]*`|\$[^$]*\$|“[^”]*”|&\w+;|<[^>]*>|\S*[/_.=]\S*"
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


def english(at):
    """What a page says in English words that it should not."""
    return {
        text
        for text in said(at)
        if set(WORD.findall(MARKUP.sub(" ", text.replace("\\", "")))) - AS_IT_IS
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


def test_a_switch_keeps_what_is_set_and_goes_with_links(runs, monkeypatch):
    """The same options behind other words; the language goes to the next page."""
    monkeypatch.setenv("GRADS_RUNS_DIR", str(runs))
    at = open_page("Select", run="demo", budget="25")
    assert headline(at) == "Keep 75 of 300 examples"
    press(at, "中文")
    assert "75" in headline(at)
    assert "Keep" not in headline(at)
    assert at.query_params["budget"] == ["25"]
    assert at.query_params["lang"] == ["zh"]
    press(at, "English")
    assert headline(at) == "Keep 75 of 300 examples"
    assert "lang" not in at.query_params
