"""Tasks of lm-evaluation-harness on local files: what models make of them, against brute force."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from chain import PATIENCE, ROOT, WORDS, save_tiny_model
from test_evaluation import make_probe

from grads.config.evaluation import EvaluationConfig
from grads.engine import models
from grads.engine.training import add_lora
from grads.errors import ConfigError, EvaluationError, Stopped
from grads.evaluation import asking, tasks
from grads.evaluation.measure import adapter_counts

needs_lm_eval = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="lm_eval is not installed: see requirements-tasks.txt",
)
CHOICES = ["lung blood", "pain", "rest water"]


def write_tasks(folder):
    """A task of choices, one of written answers, and a group of two, each on files of its own."""
    folder.mkdir()
    rows = [{"question": f"{word}?", "choices": CHOICES, "right": i % 3} for i, word in few(6)]
    write(folder, "heart", rows, output_type="multiple_choice", doc_to_choice="{{choices}}")
    write(folder, "lungs", rows[3:], output_type="multiple_choice", doc_to_choice="{{choices}}")
    rows = [{"question": f"{word}?", "right": word} for _, word in few(4)]
    how = {"until": ["."], "max_gen_toks": 8, "do_sample": False}
    metrics = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
    write(folder, "say", rows, output_type="generate_until", generation_kwargs=how, metrics=metrics)
    group = {"group": "body", "task": ["heart", "lungs"]}
    (folder / "body.yaml").write_text(yaml.safe_dump(group))


def few(n):
    return list(enumerate(WORDS[:n]))


def write(folder, name, rows, *, metrics=({"metric": "acc"},), **more):
    file = folder / f"{name}.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{right}}",
        "metric_list": list(metrics),
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task | more))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "tasks"
    write_tasks(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tiny_model(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(place):
    return models.load_model(place, "cpu", torch.float32)


def config_of(folder, *names, **more):
    values = {"selections": ["a"], "tasks": names, "tasks_dir": str(folder)}
    return EvaluationConfig.parse(values | more)


def asked(folder, model, place, *names, **more):
    loaded = tasks.load(config_of(folder, *names, **more), 64)
    return asking.ask(loaded, in_process(model, place, batch_size=2))


def in_process(model, place, **more):
    return asking.in_process(model, models.load_tokenizer(place), **more)


def prompt(tokenizer, question):
    """Token ids of a question as the chat template has it, up to where the answer begins."""
    turns = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def by_hand(model, tokenizer, question, choice):
    """Log-likelihood of a choice after the question."""
    ids = prompt(tokenizer, question)
    whole = torch.tensor([ids + tokenizer(choice, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        likely = torch.log_softmax(model(input_ids=whole).logits[0], dim=-1)
    places = range(len(ids) - 1, whole.shape[1] - 1)
    return sum(likely[place, whole[0, place + 1]].item() for place in places)


@needs_lm_eval
def test_the_likeliest_choice_in_the_chat_template(folder, model, place):
    tokenizer = models.load_tokenizer(place)
    found = asked(folder, model, place, "heart")
    (metric,) = found.metrics
    assert (metric.key, metric.samples, metric.higher_is_better) == ("task:heart:acc", 6, True)
    expected = []
    for i, word in few(6):
        scores = [by_hand(model, tokenizer, f"{word}?", choice) for choice in CHOICES]
        expected.append(float(np.argmax(scores) == i % 3))
        (logged,) = [sample for sample in found.samples if sample["doc_id"] == i]
        said = [likelihood for likelihood, _ in logged["filtered_resps"]]
        assert said == pytest.approx(scores, abs=1e-4)
    assert found.values == {"task:heart:acc": expected}


@needs_lm_eval
def test_likelihoods_of_a_model_in_bfloat16_are_finer_than_that(folder, place):
    """Of numbers from 8 to 16, bfloat16 knows sixteenths alone."""
    coarse = models.load_model(place, "cpu", torch.bfloat16)
    found = asked(folder, coarse, place, "heart")
    said = np.array([pair[0] for one in found.samples for pair in one["filtered_resps"]])
    large = 16 * said[said < -8]
    assert len(large)
    assert (large != np.round(large)).any()


@needs_lm_eval
def test_written_answers_are_greedy_and_end_where_the_task_says(folder, model, place):
    tokenizer = models.load_tokenizer(place)
    found = asked(folder, model, place, "say")
    assert list(found.values) == ["task:say:exact_match"]
    for sample in found.samples:
        ids = prompt(tokenizer, sample["doc"]["question"])
        start = len(ids)
        while len(ids) < start + 8:
            with torch.no_grad():
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        text = tokenizer.decode(ids[start:], skip_special_tokens=True)
        assert sample["resps"] == [[text.split(".")[0]]]
        assert sample["exact_match"] == (sample["doc"]["right"] == text.split(".")[0])


@needs_lm_eval
def test_a_group_is_all_samples_of_its_tasks(folder, model, place):
    """Beside one of them by itself, which is asked once."""
    found = asked(folder, model, place, "body,heart")
    assert list(found.values) == ["task:body:acc", "task:heart:acc"]
    heart = found.values["task:heart:acc"]
    assert (
        found.values["task:body:acc"]
        == heart + asked(folder, model, place, "lungs").values["task:lungs:acc"]
    )
    assert len(found.samples) == 9
    assert tasks.load(config_of(folder, "body", "heart"), 64).work.count == 27


@needs_lm_eval
def test_the_first_samples_alone_and_again_the_same(folder, model, place):
    whole = asked(folder, model, place, "heart", "say").values
    few = asked(folder, model, place, "heart", "say", task_limit=2).values
    assert few == {name: numbers[:2] for name, numbers in whole.items()}
    loaded = tasks.load(config_of(folder, "heart", task_limit=2), 64)
    assert loaded.work.count == 6
    assert loaded.digest != tasks.load(config_of(folder, "heart"), 64).digest


@needs_lm_eval
@pytest.mark.parametrize(
    "other",
    [
        {"doc_to_target": "{{(right + 1) % 3}}"},  # the same requests, another right answer
        {"metrics": [{"metric": "acc"}, {"metric": "acc_norm"}]},
        {"metrics": [{"metric": "acc", "higher_is_better": False, "aggregation": "mean"}]},
        {"metrics": [{"metric": "acc", "ignore_case": True}]},
        {"filter_list": [{"name": "first", "filter": [{"function": "take_first"}]}]},
        {"doc_to_text": "{{question}}!"},
    ],
    ids=lambda other: json.dumps(other)[:60],
)
def test_what_is_asked_another_way_is_known_as_other(tmp_path, other):
    """By its digest: arms that were asked before do not count."""
    rows = [{"question": "heart?", "choices": CHOICES, "right": 1}]
    choice = {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}"}
    digests = []
    for name, more in (("one", {}), ("again", {}), ("other", other)):
        folder = tmp_path / name
        folder.mkdir()
        write(folder, "heart", rows, **choice | more)
        digests.append(tasks.load(config_of(folder, "heart"), 64).digest)
    assert digests[0] == digests[1] != digests[2]


@needs_lm_eval
def test_few_shot_examples_are_the_same_for_every_model(tmp_path, model, place):
    rows = [{"question": f"{word}?", "choices": CHOICES, "right": i % 3} for i, word in few(9)]
    how = {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}"}
    write(tmp_path, "shots", rows, num_fewshot=2, fewshot_split="test", **how)
    loaded = tasks.load(config_of(tmp_path, "shots"), 64)
    asks = (in_process(model, place, batch_size=4) for _ in range(2))
    one, two = (asking.ask(loaded, asked).samples for asked in asks)
    assert [sample["arguments"] for sample in one] == [sample["arguments"] for sample in two]
    assert all(sample["arguments"][0][0].count("### Answer:") == 3 for sample in one)


@needs_lm_eval
def test_what_is_no_mean_over_samples_is_named_and_not_shown(tmp_path, model, place):
    how = {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}"}
    how["metrics"] = [{"metric": "acc"}, {"metric": "f1"}]
    for name, choices in (("odd", CHOICES[:2]), ("ends", CHOICES)):
        right = range(len(choices))
        rows = [{"question": "the?", "choices": choices, "right": i} for i in right]
        write(tmp_path, name, rows, **how)
    assert tasks.load(config_of(tmp_path, "odd"), 64).notes == [
        "task odd: f1 is no mean over samples, and is not shown"
    ]
    assert list(asked(tmp_path, model, place, "odd").values) == ["task:odd:acc"]
    with pytest.raises(EvaluationError, match=r"cannot tell the result of ends .*multiclass"):
        asked(tmp_path, model, place, "ends")


@needs_lm_eval
def test_work_is_told_and_stops_between_batches(folder, model, place):
    loaded = tasks.load(config_of(folder, "heart", "say"), 64)
    told = []

    def ask(stop):
        asked = in_process(model, place, batch_size=1, report=told.append, should_stop=stop)
        return asking.ask(loaded, asked)

    with pytest.raises(Stopped):
        ask(lambda: len(told) == 2)
    assert len(told) == 2
    ask(lambda: False)
    assert len(told) > 2 + 4
    assert loaded.work.passes > 0


@needs_lm_eval
@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        (["haert"], {}, r"no task 'haert' among [\d,]+: there are heart, .*--tasks-dir"),
        (["heart"], {"tasks_dir": "/no/such"}, "no folder at /no/such"),
        (["gone"], {}, r"task 'gone' cannot be loaded \(FileNotFoundError: .*check the YAML file"),
        (["wrong"], {}, r"task 'wrong' cannot be loaded \(UndefinedError: 'choices' is undef"),
        (["unsafe"], {}, "runs code that the model writes"),
    ],
)
def test_tasks_that_cannot_be_asked_say_why(tmp_path, names, more, message):
    own = tmp_path / "own"
    write_tasks(own)
    rows = [{"question": "a", "right": "b"}]
    write(own, "gone", rows, output_type="generate_until")
    (own / "gone.jsonl").unlink()
    write(own, "wrong", rows, output_type="multiple_choice", doc_to_choice="{{choices}}")
    write(own, "unsafe", rows, output_type="generate_until", unsafe_code=True)
    with pytest.raises(EvaluationError, match=message):
        tasks.load(config_of(own, *names, **more), 64)


def test_without_lm_eval_it_is_said_what_to_install(folder, monkeypatch):
    monkeypatch.setattr(tasks, "find_spec", lambda name: None)
    with pytest.raises(EvaluationError, match=r"not installed: pip install '\.\[tasks\]'"):
        tasks.check_names(config_of(folder, "heart"))
    none = EvaluationConfig(selections=("a",))
    tasks.check_names(none)
    assert tasks.load(none, 64) is None


@needs_lm_eval
def test_a_task_of_the_hub_says_what_is_missing_without_a_connection(tmp_path):
    rows = [{"question": "a", "right": "b"}]
    write(tmp_path, "far", rows, output_type="generate_until", dataset_path="org/no-such-data")
    code = (
        "from grads.config.evaluation import EvaluationConfig; from grads.evaluation import tasks\n"
        f"c = EvaluationConfig(selections=('a',), tasks=('far',), tasks_dir={str(tmp_path)!r})\n"
        "try: tasks.load(c, 64)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "import sys; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""},
    )
    said, torch_loaded = done.stdout.splitlines()
    assert said.startswith("EvaluationError task 'far' cannot be loaded"), done.stderr
    assert "need a connection or must lie in its cache" in said
    assert torch_loaded == "False", "an estimate loads tasks"


def test_names_are_typed_with_commas_or_one_by_one():
    parsed = EvaluationConfig.parse({"selections": ["a"], "tasks": ["x,y", "z"]})
    assert parsed.tasks == ("x", "y", "z")
    assert EvaluationConfig.parse(json.loads(parsed.model_dump_json())) == parsed
    with pytest.raises(ConfigError, match="task 'x' is named twice"):
        EvaluationConfig.parse({"selections": ["a"], "tasks": ["x,x"]})


def test_an_adapter_counts_once_it_changes_a_prediction(place):
    probe, _ = make_probe()
    adapted = add_lora(models.load_model(place, "cpu", torch.float32), 4).eval()
    assert not adapter_counts(adapted, probe, "cpu"), "a fresh adapter adds nothing"
    with torch.no_grad():
        name = next(n for n, _ in adapted.named_parameters() if "lora_B" in n)
        dict(adapted.named_parameters())[name].add_(0.01)
    assert adapter_counts(adapted, probe, "cpu")
