"""What samples and errors say is text on every page, never markup."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest
from run_dirs import (
    PAGES,
    assert_sound,
    demo_run,
    open_page,
    rewrite_sample,
    run_in,
    set_source_columns,
    set_state,
)

from grads import api
from grads.store.runs import Status
from studio import charts, evaluation_charts, words

EVIL = (
    '<script>alert("1")</script> <b>bold</b> **strong** [x](javascript:alert(1)) $y$ :red[z] &lt;'
)


def assert_shown_as_text(bodies: list[str]) -> None:
    """The page's HTML holds the text escaped, and no element that it asked for."""
    text = "".join(bodies)
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &lt;b&gt;bold&lt;/b&gt;" in text
    assert "&amp;lt;" in text
    for tag in ("<script", "<b>", "<a ", "<strong"):
        assert tag not in text


def assert_literal(markdown: str) -> None:
    """The evil text is there, and each of its marks has a backslash before it."""
    assert "script" in markdown
    assert not set(re.sub(r"\\.", "", markdown)) & set("<>*[]$:&"), markdown


@pytest.mark.parametrize("page", ["Explore", "Select"])
@pytest.mark.parametrize("view", ["Text", "Where the signal lies"])
def test_a_samples_text_is_never_html(run, page, view):
    rewrite_sample(run, 5, f"Question {EVIL}", f"Answer {EVIL}")
    at = open_page(page, sample="5")
    (box,) = [g for g in at.button_group if g.label == "View"]
    box.set_value(view).run()
    assert_shown_as_text([b.proto.body for b in at.get("html")])


def test_a_samples_text_is_never_markdown(run, pool):
    """On the buttons of its neighbours and among its columns."""
    position = int(pool.positions(np.array([5]))[0])
    near = int(pool.scores.sample_id[pool.neighbours(position, np.ones(300, bool), 1)[0]])
    rewrite_sample(run, near, EVIL, EVIL)
    at = open_page("Explore", sample="5")
    found = [b for b in at.button if (b.key or "").endswith(f"-{near}")]
    assert found
    for button in found:
        assert_literal(button.label.split(": ", 1)[1])


def test_a_column_of_the_data_is_never_markdown(run):
    set_source_columns(run, note=pa.array([EVIL] * 300))
    at = open_page("Explore", sample="5")
    assert_sound(at)
    (caption,) = [c.value for c in at.caption if "note" in c.value]
    assert_literal(caption)


# What Streamlit's pages look for in a text after its marks are understood, as they do (1.67).
READ_LATER = (
    r":material[/_]\w+:",
    r":[\w+-][\w_+-]*:",
    r"(?i)(https?://|www(?=\.))[-.\w]+",
    r"[-.\w+]+@[-\w]+(\.[-\w]+)+",
    r"(^|\s)(<->|->|<-|--|>=|<=|~=)(\s|$)",
)
MARKED = (
    ":material/home: and :material_home:",
    ":smile: :+1: a:smile:b",
    ":red[x] :blue-background[x] :small[x] :streamlit:",
    "see https://a.bc/d?e=f or HTTP://a.bc, www.a.bc, WWW.a.bc",
    "mail a.b+c@d-e.fg now",
    "a -> b <- c <-> d -- e >= f <= g ~= h",
    "->",
    "$x$ $$y$$ **b** _i_ ~~s~~ `c` [a](b) ![a](b) <b>x</b> <!-- c --> &lt; &#60;",
    "# no heading",
    "1. no list",
    "1) no list",
    "- no list",
    "> no quote",
    "| no | table |",
    "    no code",
    "no heading\n===\n\n    no code\n- no list\n",
    "half \ud800 of a character, \x1b[31m and \u202egnp",
)


@pytest.mark.parametrize("text", MARKED)
def test_literal_text_is_shown_as_it_stands(text):
    made = words.literal(text)
    assert not set(re.sub(r"\\.", "", made)) & set(words.MARKS), made
    assert "\n" not in made
    assert not made.startswith(" ")
    for source in (made, re.sub(r"\\(.)", r"\1", made)):  # some look before, some after
        for found in READ_LATER:
            assert not re.search(found, source), (found, source)
    shown = re.sub(r"\\([^\w]|_)", r"\1", made).replace(words.JOINER, "")
    assert shown == api.visible(" ".join(text.split()))


HOSTILE = ":red[evil] :material:home: $x$ `c` **b** ->"  # a folder may be called so


def markdown_of(at) -> list[str]:
    """Every text of a page that Streamlit reads as Markdown: bodies, labels, helps."""
    texts, left = [], [at._tree]
    while left:
        node = left.pop()
        left += getattr(node, "children", {}).values()
        proto = getattr(node, "proto", None)
        if getattr(node, "type", "") in ("html", "code", "json", "plotly_chart"):
            continue
        texts += [str(getattr(proto, name, "")) for name in ("body", "label", "help", "text")]
    return texts


@pytest.mark.parametrize("state", ["finished", "failed", "running"])
def test_no_name_and_no_message_is_markdown_on_any_page(root, state):
    run = demo_run(root, HOSTILE) if state == "finished" else run_in(root, state, HOSTILE)
    config = run.config_values() | {"dataset": f"/x/{HOSTILE}", "model": HOSTILE}
    run.config_file.write_text(json.dumps(config))
    if state == "finished":
        columns = {HOSTILE: pa.array([f"{HOSTILE} {i % 9}" for i in range(300)])}
        set_source_columns(run, **columns | {f"n{HOSTILE}": pa.array(np.arange(300.0))})
        topics = run.clusters_file.read_text()
        terms = json.loads(topics)["clusters"][0]["terms"]
        run.clusters_file.write_text(topics.replace(terms[0], HOSTILE))
        api.decide(run, 5, "pin", HOSTILE, reviewer=HOSTILE)
        rewrite_sample(run, 5, HOSTILE, HOSTILE)
        within = f"n{HOSTILE}:0:200"
    else:
        set_state(run, state, error=HOSTILE, message=HOSTILE, stage=HOSTILE, unit=HOSTILE)
        within = ""
    told = set()
    for page in PAGES:
        asked = {"run": HOSTILE, "sample": "5", "within": within, "bound": within}
        at = open_page(page, **asked, by=HOSTILE, colour=HOSTILE, dataset=str(root / HOSTILE))
        assert_sound(at)
        texts = markdown_of(at)
        assert len(texts) > 10
        for text in texts:
            for mark in (":red[evil]", ":material:home:", "$x$", "`c`", "**b**", " ->"):
                assert mark not in text, (page, text)
        told |= {page} if any("evil" in text for text in texts) else set()
    assert {"Start", "Run", "Explore" if state == "finished" else "Run"} <= told


@pytest.mark.parametrize("figure", ["topics", "coverage", "curves", "overlap"])
def test_no_name_is_a_language_of_plotly(figure):
    name = "<b>a</b> %{x} $y$ &amp;"
    made = {
        "topics": lambda: charts.topics([name], [1], [1]),
        "coverage": lambda: charts.coverage([name], [1.0], [1.0], [(0.5, 1.5)]),
        "curves": lambda: evaluation_charts.training_curves({name: [(1, 1.0)]}, ["selection"]),
        "overlap": lambda: evaluation_charts.overlap([name], [[1.0]]),
    }[figure]()
    text = json.dumps(made.to_plotly_json(), default=str)
    assert "&lt;b>a&lt;/b> &#37;{x} &#36;y&#36; &amp;amp;" in text
    assert not re.search(r"<b>|%\{x\} \$|\$y\$", text)


def test_errors_of_a_job_are_never_markdown(root):
    run = run_in(root, "failed")
    run.write_status(Status(state="failed", error=f"bad row {EVIL}"))
    (box,) = open_page("Run").error
    assert_literal(box.value)
