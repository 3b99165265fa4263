"""The page Evaluate: what was found, and the form that asks for more."""

import dataclasses
import json

import pytest
from run_dirs import (
    assert_sound,
    everything,
    has_button,
    headline,
    messages,
    open_page,
    press,
    set_state,
)
from test_tasks import needs_lm_eval, write_tasks

from grads import api
from grads.store.folders import Evaluation
from studio import verdict, words


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([("better", "worse")], "It learned more than a random subset, and forgot more"),
        ([("no difference seen",) * 2] * 2, "Neither of 2 subsets differs from random ones"),
        ([("no difference seen",) * 2] * 3, "None of 3 subsets differs from random ones"),
        (
            [("better", "no difference seen"), ("worse", "better"), ("worse", "worse")],
            "Of 3 subsets, 1 learned more, 2 learned less, 1 forgot less, 1 forgot more than random"
            " ones",
        ),
    ],
)
def test_the_headline_counts_several_subsets(run, verdicts, expected):
    compared = [
        {"kind": "selection", "against_kind": "random", "seeds": 3, "arm": f"s{i}"}
        | {"learning": learning, "forgetting": forgetting}
        for i, (learning, forgetting) in enumerate(verdicts)
    ]
    assert verdict.sentence(found_with(run, compared)) == expected


def found_with(run, compared):
    """The demo's evaluation as if these were its comparisons, other fields as they were."""
    found = api.read_evaluation(run, "tenth")
    pair = found.result.comparisons[0]
    result = found.result.model_copy(
        update={"comparisons": [pair.model_copy(update=values) for values in compared]}
    )
    return dataclasses.replace(found, result=result)


def test_one_subset_with_its_longer_twin_is_one_subset(run):
    """A selection trained as long as everything is no further subset."""
    compared = [
        {"kind": kind, "against_kind": kind.replace("selection", "random"), "seeds": 3, "arm": kind}
        | {"learning": "worse", "forgetting": "no difference seen"}
        for kind in ("selection", "selection_steps")
    ]
    assert verdict.sentence(found_with(run, compared)) == "It learned less than a random subset"


def several(run, copies=4):
    """The demo's evaluation as if it had tested more subsets, each with what `tenth` got."""
    file = run.evaluations / "tenth" / "result.json"
    result = json.loads(file.read_text())
    answers = json.loads(file.with_name("answers.json").read_text())
    tenth = next(arm for arm in result["arms"] if arm["kind"] == "selection")
    pair = next(c for c in result["comparisons"] if c["against_kind"] == "random")
    for i in range(copies):
        label = f"other-{i}"
        result["arms"].append(tenth | {"label": label})
        result["comparisons"].append(pair | {"arm": label, "learning": "worse"})
        result["break_even"][label] = {"trainings": 2.0, "sentence": "it pays after two"}
        for prompt in answers["prompts"]:
            prompt["answers"][label] = f"said by {label}"
    file.write_text(json.dumps(result))
    file.with_name("answers.json").write_text(json.dumps(answers))


def test_many_subsets_are_counted_pictured_and_folded(run):
    several(run)
    at = open_page("Evaluate", run="demo")
    assert_sound(at)
    assert headline(at).endswith("of what all gain; of 6 subsets, 4 learned less than random ones")
    assert "#### full learned most and forgot least, on average" in everything(at)
    found = "At the same size: of 6 subsets, 4 learned less than random ones"
    assert found in [box.label for box in at.expander]
    folded = {box.label: [line.value for line in box.markdown] for box in at.expander}
    assert len(folded["Each in a sentence"]) == len(folded["When it pays"]) == 6
    assert folded["When it pays"][-1] == "- " + words.literal("other-3: it pays after two.")
    (shown,) = [box for box in at.multiselect if box.label == "Answers of"]
    assert len(shown.value) == verdict.ANSWERS
    assert "said by other-3" not in everything(at)
    at = shown.set_value(["other-3"]).run()
    assert "said by other-3" in everything(at)
    assert_sound(at)


def measured_at(share, criterion, gain):
    """A point of the curve over sizes."""
    learned, forgotten = 4.0 - gain, 0.1 * gain
    return {
        "criterion": criterion,
        "budget": share,
        "arm": f"{criterion}-{share}",
        "samples": 3 * int(share),
        "learning": learned,
        "learning_interval": [learned - 0.1, learned + 0.1],
        "forgetting": forgotten,
        "forgetting_interval": None,
        "gain": gain,
    }


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ((0.5, 0.92, 0.95), "10% by grads gain 92% of what all gain"),
        ((0.5, 0.7, 0.8), "At most 80% of what all gain was reached, at 25% by grads"),
    ],
)
def test_of_several_sizes_the_decision_and_the_curve_are_open(run, gains, said):
    file = run.evaluations / "tenth" / "result.json"
    result = json.loads(file.read_text())
    points = zip((5.0, 10.0, 25.0), gains, strict=True)
    result["curve"] = [measured_at(share, "grads", gain) for share, gain in points]
    result["curve"].append(measured_at(100.0, "everything", 1.0))
    file.write_text(json.dumps(result))
    at = open_page("Evaluate", run="demo")
    assert f"#### How much is enough? {said}" in everything(at)
    folded = {box.label for box in at.expander if not box.proto.expanded}
    assert len(folded) == len(at.expander), "nothing stands open but the decision and the curve"
    assert "full learned most and forgot least, on average" in folded


def test_several_files_are_shown_one_by_one(run):
    """Each with its own table and its own verdict, of learning or of forgetting."""
    file = run.evaluations / "tenth" / "result.json"
    result = json.loads(file.read_text())
    assert "File by file" not in everything(open_page("Evaluate", run="demo"))
    pair = next(c for c in result["comparisons"] if c["against_kind"] == "random")
    result["by_file"] = [
        {
            "probe": probe,
            "name": name,
            "arms": [
                {"label": arm["label"], "mean": {f"{probe}_loss": 1.25}, "interval": {}}
                for arm in result["arms"]
            ],
            "comparisons": [pair | {"verdict": verdict}],
        }
        for probe, name, verdict in (
            ("heldout", "a_b_.jsonl", "better"),
            ("general", "a_b_.jsonl", "worse"),
        )
    ]
    file.write_text(json.dumps(result))
    at = open_page("Evaluate", run="demo")
    assert_sound(at)
    assert [tab.label for tab in at.tabs] == [words.literal("a_b_.jsonl")] * 2
    told = everything(at).replace("\\", "")
    assert f"{pair['arm']} against random, learning: better" in told
    assert f"{pair['arm']} against random, forgetting: worse" in told
    (shown,) = [t.value for t in at.dataframe if list(t.value.columns) == ["arm", "Held-out loss"]]
    assert shown["Held-out loss"].unique().tolist() == ["1.250"]


def test_tasks_stand_in_the_table_with_what_they_say(run):
    file = run.evaluations / "tenth" / "result.json"
    result = json.loads(file.read_text())
    key = "task:heart:acc"
    told = {"task": "heart", "metric": "acc", "higher_is_better": True, "samples": 6}
    result["tasks"] = [told | {"key": key}]
    for arm in result["arms"]:
        arm["mean"][key], arm["interval"][key] = 0.5, [0.25, 0.75]
    file.write_text(json.dumps(result))
    at = open_page("Evaluate", run="demo")
    assert_sound(at)
    (table,) = [t.value for t in at.dataframe if "heart acc" in t.value.columns]
    assert set(table["heart acc"]) == {"0.500 ± 0.250"}


def fill(at, label, value):
    boxes = [box for box in (*at.text_input, *at.multiselect) if box.label == label]
    boxes[0].set_value(value)
    return at


def test_several_sizes_and_general_rows_can_be_asked_for(run, started):
    """The form's curve of budgets, with replay and tasks, as the command line has them."""
    at = open_page("Evaluate", run="demo")
    at.session_state["Test a selection"] = True
    at.session_state["way"] = "sizes"
    at.run()
    general = "assets/demo/general.jsonl"
    fill(at, "Held-out examples", "assets/demo/medical_qa_heldout.jsonl")
    fill(at, "Sizes, in percent of the pool", "5, 20")
    fill(at, "Criteria", ["grads", "magnitude"])
    fill(at, "General rows to mix in", general)
    fill(at, "Their share of what is trained on, in percent", "10")
    at.run()
    assert_sound(at)
    press(at, "Start the evaluation")
    (config,) = started
    assert config.budgets == (5.0, 20.0)
    assert config.criteria == ("grads", "magnitude")
    assert config.replay.endswith(general)
    assert config.replay_share == (0.1,)
    fill(at, "Their share of what is trained on, in percent", "a lot").run()
    assert "replay_share" in messages(at)
    assert not has_button(at, "Start the evaluation")


def test_tasks_that_are_not_there_are_named(run, started):
    at = open_page("Evaluate", run="demo")
    at.session_state["Test a selection"] = True
    at.run()
    fill(at, "Held-out examples", "assets/demo/medical_qa_heldout.jsonl")
    fill(at, "Tasks of lm-evaluation-harness", "no_such_task").run()
    assert "no_such_task" in messages(at)
    assert not has_button(at, "Start the evaluation")


@needs_lm_eval
def test_vllm_is_offered_where_it_is_installed(run, started, tmp_path, monkeypatch):
    write_tasks(tmp_path / "own")
    monkeypatch.setattr(api, "can_serve", lambda: False)
    at = open_page("Evaluate", run="demo")
    at.session_state["Test a selection"] = True
    at.run()
    label = "vLLM serves the models"
    assert label not in [toggle.label for toggle in at.toggle]
    monkeypatch.setattr(api, "can_serve", lambda: True)
    fill(at, "Held-out examples", "assets/demo/medical_qa_heldout.jsonl")
    fill(at, "Tasks of lm-evaluation-harness", "heart")
    fill(at, "Folder of your own tasks", str(tmp_path / "own")).run()
    (toggle,) = [toggle for toggle in at.toggle if toggle.label == label]
    toggle.set_value(True).run()
    press(at, "Start the evaluation")
    assert_sound(at)
    (config,) = started
    assert (config.tasks, config.tasks_with) == (("heart",), "vllm")


def test_a_running_evaluation_shows_what_it_has_found_and_a_failed_one_its_log(run):
    evaluation = Evaluation.open(run, "tenth")
    result = json.loads(evaluation.result_file.read_text())
    evaluation.result_file.write_text(json.dumps(result | {"finished": False}))
    set_state(evaluation, "running")
    at = open_page("Evaluate", run="demo")
    assert headline(at) == "Measuring whether it helped"
    assert len(at.dataframe) == 1
    assert has_button(at, "Stop")
    set_state(evaluation, "failed")
    evaluation.log_file.write_text("the last words\n")
    at = open_page("Evaluate", run="demo")
    assert_sound(at)
    assert headline(at) == "The measurement has failed"
    assert any("the last words" in block.value for block in at.code)
    assert has_button(at, "Resume")


def test_the_demo_can_be_evaluated_as_it_is(run):
    """Its run sets none aside: the file that lies beside its data is there at first."""
    assert not run.read_manifest().counts.heldout
    at = open_page("Evaluate", run="demo")
    for title in ("Test a selection", "Find a setting"):
        at.session_state[title] = True
    at.run()
    assert_sound(at)
    held = [box.value for box in at.text_input if box.label == "Held-out examples"]
    assert held == ["assets/demo/medical_qa_heldout.jsonl"] * 2
    assert has_button(at, "Start the evaluation")
    assert has_button(at, "Start the search")


def test_the_demos_file_is_not_offered_to_a_run_of_other_data(run):
    assert api.demo_heldout(run)
    rewritten = run.config_values() | {"dataset": "mine/medical_qa.jsonl"}
    run.config_file.write_text(json.dumps(rewritten))
    assert api.demo_heldout(run) is None


def test_nothing_can_be_started_without_samples_to_measure_on(run):
    """What to do is said in the words of the page."""
    at = open_page("Evaluate", run="demo")
    assert not has_button(at, "Start the")
    for title in ("Test a selection", "Find a setting"):
        at.session_state[title] = True
    at.run()
    for box in [box for box in at.text_input if box.label == "Held-out examples"]:
        box.set_value("")
    at.run()
    assert "give a file with “heldout”" in messages(at)
    assert not has_button(at, "Start the")
    held = [box for box in at.text_input if box.label == "Held-out examples"]
    for box in held:
        box.set_value("no/such/file.jsonl")
    at.run()
    assert "no/such/file.jsonl: check the path" in messages(at)
    for box in [box for box in at.text_input if box.label == "Held-out examples"]:
        box.set_value("assets/demo/medical_qa_heldout.jsonl; assets/demo/general.jsonl")
    at.run()
    assert_sound(at)
    assert has_button(at, "Start the evaluation")
    assert has_button(at, "Start the search")


def test_who_rates_is_who_decides(run):
    """A name is given once in a session."""
    at = open_page("Evaluate", run="demo")
    at.session_state["rate"] = True
    at.session_state["reviewer"] = "Dr Ada"
    at.run()
    (name,) = [box for box in at.text_input if box.label == "Your name (optional)"]
    assert name.value == "Dr Ada"
