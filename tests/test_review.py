"""People's review: queues, several reviewers, files out and in, packets, corrections."""

import csv
import io
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chain import config_for, save_tiny_model
from run_dirs import (
    assert_sound,
    demo_run,
    everything,
    grads,
    has_button,
    headline,
    messages,
    open_page,
    press,
)

from grads import api
from grads.api import QueueConfig
from grads.data.layouts import conversation
from grads.errors import ConfigError, ExportError, GradsError, RunError
from grads.export.corrections import Layout
from grads.stages import worker
from grads.store.runs import Run

HOSTILE = "</script><script>alert(1)</script>\u2028<b>&amp;"
FORMULAS = ["=1+1", "'=1", "''x", "-5", "'", "@a", "a,b\nc", '"quoted"', "\t1", "wörtlich"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    return demo_run(tmp_path)


def told(run, sample):
    return [(one.reviewer, one.decision) for one in api.opinions(run).get(sample, [])]


# -- several reviewers


def test_the_last_word_of_each_reviewer_counts_and_the_stricter_holds(run):
    api.decide(run, 5, "exclude", "wrong dose", reviewer="Ada")
    api.decide(run, 5, "pin", "a fine answer", reviewer="Bo")
    api.decide(run, 6, "pin", reviewer="Ada")
    assert told(run, 5) == [("Ada", "exclude"), ("Bo", "pin")]
    assert list(api.disagreements(run)) == [5]
    assert api.decisions(run)[5].reviewer == "Ada", "left out until it is settled"
    record = api.select_samples(run, "now", api.SelectionConfig(ratio=0.1))
    assert record.options.excluded == (5,)
    assert "reviewers disagree about samples 5" in record.warnings[-1]
    manifest = api.export_selection(run, "now", "jsonl")
    assert manifest["disagreed"] == [5]
    assert any(
        "reviewers disagree" in line and "row 5" in line for line in api.changed_lines(manifest)
    )
    shown = grads("decisions", "--run-dir", run.path).output
    assert "reviewers disagree about sample 5: Ada leaves it out: wrong dose; Bo keeps it" in shown
    pool = api.load_pool(run)
    seen = api.preview(pool, api.with_decisions(run, api.SelectionConfig(ratio=0.1)))
    (line,) = api.reasons(pool, seen, pool.positions(np.array([5])))
    assert line == "never kept by Ada: wrong dose; reviewers disagree"
    api.decide(run, 5, "exclude", "seen together", reviewer="Bo")
    assert not api.disagreements(run)


def test_a_settling_decision_stands_alone_until_someone_disagrees_anew(run):
    api.decide(run, 5, "exclude", reviewer="Ada")
    api.decide(run, 5, "pin", reviewer="Bo")
    done = grads(
        *("decide", "--run-dir", run.path, "--pin", 5, "--reviewer", "Chair", "--settle", "--json")
    )
    assert json.loads(done.output)["disagreements"] == {}
    assert told(run, 5) == [("Chair", "pin")]
    api.decide(run, 5, "exclude", reviewer="Ada")
    assert list(api.disagreements(run)) == [5]


def test_a_reviewer_takes_back_the_own_word_and_nobody_in_particular_all(run):
    api.decide(run, 5, "exclude", reviewer="Ada")
    api.decide(run, 5, "pin", reviewer="Bo")
    api.decide(run, 5, "clear", reviewer="Ada")
    assert told(run, 5) == [("Bo", "pin")]
    api.decide(run, 5, "clear")
    assert told(run, 5) == []


@pytest.mark.parametrize("reviewer", ["Bo", ""])
def test_what_is_taken_back_leaves_what_others_said(run, reviewer):
    """Before, and since; what a decision settled is said again."""
    api.decide(run, 5, "pin", "rare", reviewer="Ada")
    api.decide(run, 5, "exclude", reviewer=reviewer)
    before = {5: api.opinions(run)[5]}
    api.decide(run, 5, "pin", reviewer=reviewer, settles=True)
    api.decide(run, 5, "exclude", reviewer="Cy")
    api.take_back(run, before, reviewer)
    assert sorted(told(run, 5)) == sorted(
        [("Ada", "pin"), (reviewer, "exclude"), ("Cy", "exclude")]
    )
    api.take_back(run, {5: [one for one in before[5] if one.reviewer == "Ada"]}, reviewer)
    assert sorted(told(run, 5)) == [("Ada", "pin"), ("Cy", "exclude")]


# -- files


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_decisions_go_out_and_come_in_again(run, tmp_path, kind):
    """Into another copy of the run, letter by letter; taken in again, they change nothing."""
    for sample, text in enumerate(FORMULAS):
        api.decide(run, sample, "exclude", f"{text}", reviewer="Ada")
        api.decide(run, sample, "pin", "fine", reviewer=f"B{text}")
    file, other = tmp_path / f"out.{kind}", demo_run(tmp_path, "other")
    done = grads("decisions", "--run-dir", run.path, "--export", file)
    assert f"wrote {2 * len(FORMULAS)} decisions" in done.output
    if kind == "csv":
        rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline="")))
        assert not [cell for row in rows for cell in row if cell.startswith(("=", "@", "-", "\t"))]
    for again in (False, True):
        done = grads("decisions", "--run-dir", other.path, "--import", file, "--json")
        assert done.exit_code == 0, done.output
        found = json.loads(done.output)["imported"]
        assert (found["taken"], found["known"]) == ((0, 20) if again else (20, 0))
    assert api.opinions(other) == api.opinions(run)


def test_each_row_that_cannot_be_taken_is_told_by_line(run, tmp_path):
    api.decide(run, 9, "pin", reviewer="Ada")
    held = pq.read_table(run.samples_file)
    mask = pa.array([i == 7 for i in held["sample_id"].to_pylist()])
    place = held.schema.get_field_index("heldout")
    pq.write_table(held.set_column(place, "heldout", mask), run.samples_file)
    rows = [
        ({"sample_id": "1", "decision": "pin", "reviewer": "Ada"}, None),
        ({"sample_id": "x", "decision": "pin"}, "no number of a row"),
        ({"sample_id": "2", "decision": "maybe"}, "use pin, exclude or clear"),
        ({"sample_id": "9999", "decision": "pin"}, "no sample 9999"),
        ({"sample_id": "7", "decision": "pin"}, "no sample 7"),
        ({"sample_id": "3", "decision": "pin", "hash": "0" * 32}, "another text"),
        ({"sample_id": "4", "decision": "pin", "time": "yesterday"}, "its time is"),
        ({"sample_id": "4", "decision": "pin", "time": "2026-01-01T00:00:00"}, "its time is"),
        ({"sample_id": "5", "decision": "pin", "settles": "perhaps"}, "its settles is"),
        ({"sample_id": "6", "decision": "clear"}, "names no reviewer"),
        ({"sample_id": "1", "decision": "exclude", "reviewer": "Ada"}, "twice"),
        (
            {
                "sample_id": "9",
                "decision": "exclude",
                "reviewer": "Ada",
                "time": "2020-01-01T00:00:00+00:00",
            },
            "Ada has said otherwise",
        ),
    ]
    names = ["sample_id", "decision", "reason", "reviewer", "time", "settles", "hash"]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, delimiter=";")  # as Excel saves it in many countries
    writer.writeheader()
    writer.writerows(row for row, _ in rows)
    text.write("1;pin;a;b\n")
    file = tmp_path / "back.csv"
    file.write_text(text.getvalue(), encoding="utf-8")
    before = run.decisions_file.read_text()
    done = grads("decisions", "--run-dir", run.path, "--import", file, "--json")
    assert done.exit_code == 1
    found = json.loads(done.output)["imported"]
    assert found["taken"] == 1
    expected = {n: reason for n, (_, reason) in enumerate(rows, start=2) if reason}
    expected[len(rows) + 2] = "it has 4 fields where the header has 7"
    assert [row["line"] for row in found["refused"]] == list(expected)
    for row in found["refused"]:
        assert expected[row["line"]] in row["reason"]
    assert run.decisions_file.read_text().startswith(before)
    assert len(run.read_decisions()) == 2


def test_what_was_settled_since_is_not_opened_again(run, tmp_path):
    api.decide(run, 5, "exclude", reviewer="Ada")
    content = api.decisions_as(run, "jsonl")
    api.decide(run, 5, "pin", reviewer="Chair", settles=True)
    found = api.take_in(run, content, "ada.jsonl")
    assert found.taken == 0
    assert "Chair has settled it since" in found.refused[0]["reason"] or (
        "said otherwise" in found.refused[0]["reason"]
    )
    assert told(run, 5) == [("Chair", "pin")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.csv", b"a,b\n1,2\n", "no columns sample_id and decision"),
        ("book.xlsx", b"PK", "read and written as .csv or .jsonl"),
    ],
)
def test_a_file_of_something_else_is_refused(run, name, content, said):
    with pytest.raises(GradsError, match=said):
        api.take_in(run, content, name)
    assert not run.decisions_file.exists()


# -- queues


def test_queues_hold_what_they_are_called_after(run):
    pool = api.load_pool(run)

    def of(**values):
        return api.review_queue(run, QueueConfig.parse(values))

    order = pool.scores.sample_id[np.argsort(-pool.numbers["signal"], kind="stable")].tolist()
    assert of(kind="highest", count=5) == [(one,) for one in order[:5]]
    assert of(kind="lowest", count=1) == [(order[-1],)]
    assert of(seed=3, count=9) == of(seed=3, count=20)[:9] != of(seed=4, count=9)
    topic = {sample for (sample,) in of(kind="topic", topic=1, count=1000)}
    assert topic == set(pool.scores.sample_id[pool.cluster == 1].tolist())
    groups = of(kind="duplicates")
    assert groups
    for group in groups:
        places = pool.positions(np.array(group))
        assert len(group) > 1
        assert len(set(pool.duplicate_group[places].tolist())) == 1
    api.decide(run, 5, "pin", reviewer="Ada")
    assert of(kind="disagreements") == []
    api.decide(run, 5, "exclude", reviewer="Bo")
    assert of(kind="disagreements") == [(5,)]
    with pytest.raises(GradsError, match="no topic 99"):
        of(kind="topic", topic=99)
    with pytest.raises(ConfigError, match="--selection"):
        of(kind="borderline")


def test_the_cut_of_a_selection_lies_between_its_last_and_the_next(run):
    options = api.SelectionConfig.parse({"criterion": "loss_high", "count": 40})
    api.select_samples(run, "hard", options)
    loss = api.load_pool(run).scores.loss
    near = api.review_queue(run, QueueConfig(kind="borderline", selection="hard", count=4))
    ranks = np.argsort(np.argsort(-loss, kind="stable"), kind="stable")
    assert all(abs(int(ranks[sample]) - 40) <= 5 for (sample,) in near)


# -- packets


def test_a_packet_holds_its_texts_as_data_alone(run, tmp_path):
    api.correct(run, 5, ("answer",), HOSTILE, reviewer="Ada")
    api.decide(run, 5, "pin", HOSTILE, reviewer="Ada")
    api.decide(run, 5, "exclude", reviewer="Bo")
    file = tmp_path / "deep" / "packet.html"
    done = grads("packet", "--run-dir", run.path, "--queue", "disagreements", "--out", file)
    assert "wrote a packet of 1" in done.output, done.output
    page = file.read_text(encoding="utf-8")
    assert HOSTILE not in page
    assert len(re.findall("<script", page)) == 2
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert not set("<>&\u2028") & set(block)
    data = json.loads(block)
    ((sample,),) = data["entries"]
    assert sample["turns"][-1]["content"] == HOSTILE
    assert sample["opinions"][0] == f"Ada keeps it: {HOSTILE}"
    assert data["settles"] is True
    assert "default-src 'none'" in page
    assert "http" not in page.split("</head>")[1].split(block)[1]


def test_an_empty_queue_makes_no_packet(run, tmp_path):
    config = QueueConfig(kind="disagreements")
    with pytest.raises(ExportError, match="nothing to look at"):
        api.write_packet(run, config, tmp_path / "packet.html")
    assert not (tmp_path / "packet.html").exists()


# -- corrections


def test_a_correction_goes_into_exports_with_the_original_beside(run, tmp_path):
    record = api.select_samples(run, "all", api.SelectionConfig(ratio=1.0, criterion="random"))
    original = run.read_samples([5])[5]["raw"]
    row = json.loads(original)
    done = grads(
        *("correct", "--run-dir", run.path, "--sample", 5, "--field", "answer"),
        *("--text", "Call an ambulance.", "--reviewer", "Dr Ada", "--reason", "outdated"),
    )
    assert "answer: Call an ambulance." in done.output, done.output
    for kind in ("jsonl", "csv", "parquet", "hf"):
        manifest = api.export_selection(run, "all", kind, with_scores=kind == "parquet")
        assert manifest["rows"] == record.samples.kept
        assert manifest["corrected"] == [5]
        (made,) = manifest["corrections"]
        assert (made["before"], made["after"]) == (row["answer"], "Call an ambulance.")
        assert (made["reviewer"], made["reason"]) == ("Dr Ada", "outdated")
        assert any("corrected by people: 1 row" in line for line in api.changed_lines(manifest))
    (file,) = (run.exports / "all" / "jsonl").glob("*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    assert json.loads(lines[5]) == row | {"answer": "Call an ambulance."}
    source = [raw["raw"] for raw in run.read_samples(list(range(300))).values()]
    assert [line for n, line in enumerate(lines) if n != 5] == [
        line for n, line in enumerate(source) if n != 5
    ], "the other rows byte for byte"
    table = pq.read_table(run.exports / "all" / "parquet" / "all.parquet")
    assert table["answer"][5].as_py() == "Call an ambulance."
    assert run.read_samples([5])[5]["raw"] == original
    api.correct(run, 5, ("answer",), row["answer"], reviewer="Dr Ada")
    assert api.corrections(run) == {}
    assert api.export_selection(run, "all", "jsonl")["corrected"] == []


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        (("reply",), "x", "has no text 'reply': there are question, answer"),
        (("answer",), "  ", "could not be used with that text"),
        (("answer",), "half \ud800", "half a character"),
    ],
)
def test_a_correction_that_cannot_be_is_refused(run, field, text, said):
    with pytest.raises(RunError, match=said):
        api.correct(run, 5, field, text)
    with pytest.raises(RunError, match="is that already"):
        api.correct(run, 5, ("answer",), api.texts_of(run, 5)[("answer",)])
    assert not run.corrections_file.exists()


def test_lost_corrections_are_no_corrections(run):
    api.correct(run, 5, ("answer",), "Rest.")
    run.corrections_file.write_bytes(b"")
    with pytest.raises(RunError, match="is empty, so what was corrected is lost"):
        api.corrections(run)


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory):
    """A scored run of a tiny model over Parquet with messages: types, and tokens to make anew."""
    place = tmp_path_factory.mktemp("dialogues")
    save_tiny_model(place / "model")
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"fever {'cough ' * (i % 5)}?"},
                {"role": "assistant", "content": f"rest and water {'sleep ' * i}."},
            ],
            "age": i,
        }
        for i in range(12)
    ]
    pq.write_table(pa.Table.from_pylist(rows), place / "data.parquet")
    config = config_for(place, dataset=str(place / "data.parquet"), warmup="none", heldout=0)
    run = Run.create(config, place / "run")
    assert worker.main(run, at_once=True) == 0, run.read_status().error
    api.select_samples(run, "all", api.SelectionConfig(ratio=1.0, criterion="random"))
    return run


def test_a_corrected_row_is_tokenised_anew_as_the_run_would(dialogues):
    """Tokens of the corrected text for trainers of tokens; the others keep what was scored."""
    run, path = dialogues, ("messages", 1, "content")
    before = run.read_table(run.tokens_file)["input_ids"].to_pylist()
    api.correct(run, 3, path, "see the doctor.", reviewer="Ada")
    manifest = api.export_selection(run, "all", "llamafactory")
    assert manifest["corrected"] == [3]
    from datasets import load_from_disk

    tokens = load_from_disk(str(run.exports / "all" / "llamafactory" / "tokens"))["train"]
    assert [ids for n, ids in enumerate(tokens["input_ids"]) if n != 3] == [
        ids for n, ids in enumerate(before) if n != 3
    ]
    vocabulary = json.loads((run.path.parent / "model" / "tokenizer.json").read_text())
    words = {number: word for word, number in vocabulary["model"]["vocab"].items()}
    said = " ".join(words[number] for number in tokens["input_ids"][3])
    assert "the doctor ." in said
    assert "water" not in said
    api.export_selection(run, "all", "parquet")
    table = pq.read_table(run.exports / "all" / "parquet" / "all.parquet")
    assert table["messages"][3].as_py()[1]["content"] == "see the doctor."
    assert table.schema.field("age").type == pa.int64()
    turns = api.corrected_turns(run, [3, 4])
    assert list(turns) == [3]
    read = conversation(table.to_pylist()[3], Layout("", dict(run.read_manifest().columns)))
    assert [vars(turn) for turn in read.turns] == turns[3]


# -- the page


def test_an_expert_goes_through_a_queue(run):
    """Keep, exclude with reasons, skip, undo; the place and the queue stand in the address."""
    ids = [sample for (sample,) in api.review_queue(run, QueueConfig(count=4))]
    at = open_page("Review", run="demo", size="4")
    assert headline(at) == "Would you train on this?"
    assert "1 of 4 in this queue, 0 decided by you" in everything(at) + progress(at)
    assert "First say who you are" in messages(at)
    assert all(button.disabled for button in at.button if button.label in ("Keep", "Exclude"))
    at.text_input(key="reviewer").set_value("Dr Ada").run()
    at = press(at, "Keep")
    assert at.query_params["at"] == "2"
    at.button_group(key=f"why-{ids[1]}").set_value(["wrong", "outdated"])
    at.text_input(key=f"own-{ids[1]}").set_value("dose")
    at = press(at, "Exclude")
    at = press(at, "Skip")
    made = api.decisions(run)
    assert {sample: one.decision for sample, one in made.items()} == {
        ids[0]: "pin",
        ids[1]: "exclude",
    }
    assert made[ids[1]].reason == "wrong, outdated, dose"
    assert made[ids[1]].reviewer == "Dr Ada"
    assert "4 of 4 in this queue, 2 decided by you" in progress(at)
    at = press(at, "Exclude")
    assert "You are through this queue: 1 kept, 2 excluded" in messages(at)
    for place in ("4", "3", "2"):
        at = press(at, "Undo")
        assert at.query_params["at"] == place
    assert told(run, ids[1]) == []
    assert told(run, ids[0]) == [("Dr Ada", "pin")]
    again = open_page("Review", run="demo", size="4")
    again.text_input(key="reviewer").set_value("Dr Ada").run()
    assert again.query_params["at"] == "2", "where she has not decided yet"


def progress(at):
    return " ".join(one.proto.text for one in at.get("progress"))


def test_reviewers_who_disagree_are_seen_and_settled(run):
    api.decide(run, 5, "pin", HOSTILE, reviewer="Ada")
    api.decide(run, 5, "exclude", reviewer="Bo")
    for page in ("Explore", "Select", "Review"):
        at = open_page(page, run="demo", sample="5", queue="disagreements")
        assert "Reviewers disagree about row 5" in messages(at), page
    at.text_input(key="reviewer").set_value("Chair").run()
    at = press(at, "Keep")
    assert told(run, 5) == [("Chair", "pin")]
    assert "nothing to look at" in messages(at)
    at = press(at, "Undo")
    assert sorted(told(run, 5)) == [("Ada", "pin"), ("Bo", "exclude")]


def test_one_of_near_duplicates_stays(run):
    group = api.review_queue(run, QueueConfig(kind="duplicates"))[0]
    at = open_page("Review", run="demo", queue="duplicates")
    at.text_input(key="reviewer").set_value("Ada").run()
    at = at.button(key=f"only-{group[1]}").click().run()
    assert_sound(at)
    made = api.decisions(run)
    assert {sample: one.decision for sample, one in made.items()} == {
        sample: "pin" if sample == group[1] else "exclude" for sample in group
    }
    assert made[group[0]].reason == f"near-duplicates: row {group[1]} stays"
    at = press(at, "Undo")
    assert api.decisions(run) == {}
    assert has_button(at, "Keep all")


def test_a_text_is_corrected_on_the_page(run):
    sample = api.review_queue(run, QueueConfig())[0][0]
    at = open_page("Review", run="demo")
    at.text_input(key="reviewer").set_value("Ada").run()
    at.toggle(key=f"correct-{sample}").set_value(True).run()
    (box,) = [one for one in at.text_area if one.label == "answer"]
    box.set_value("See a **doctor**.").run()
    at = press(at, "Save the correction")
    assert_sound(at)
    (made,) = api.corrections(run)[sample]
    assert (made.after, made.reviewer) == ("See a **doctor**.", "Ada")
    assert "Corrected by Ada" in everything(at)
    assert "See a **doctor**." in everything(open_page("Explore", run="demo", sample=str(sample)))
    at = press(at, "Back to the original")
    assert api.corrections(run) == {}


def test_a_file_of_decisions_is_taken_in_on_the_page(run):
    at = open_page("Review", run="demo")
    (field,) = at.get("file_uploader")
    lines = [{"sample_id": 5, "decision": "pin", "reviewer": "Bo"}, {"sample_id": "x"}]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    field.set_value([("bo.jsonl", content, "application/json")]).run()
    assert_sound(at)
    assert "1 decision taken in, 0 known already" in messages(at)
    assert "1 row refused" in messages(at)
    assert told(run, 5) == [("Bo", "pin")]
