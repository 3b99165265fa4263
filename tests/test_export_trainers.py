"""Exports, loaded by the trainers' own code: the tokens that they train are those that were scored.

TRL is a requirement of the tests; the others are installed without what they require (see
requirements-peers.txt), and tests of one that is missing are skipped.
"""

import json
from itertools import groupby

import pytest
import torch
import yaml
from peers import peer
from run_dirs import demo_run
from test_data import make_tokenizer
from test_templates import CALL, HEART, LUNG, says
from trained import KINDS, LENGTH, MODELS, SETS, ours, subset_of, tokenizer_of, written
from transformers import LlamaConfig, LlamaForCausalLM

from grads import api
from grads.data.turns import Turn
from grads.engine.models import load_tokenizer
from grads.errors import ExportError
from grads.export.rows import Subset, count_lines
from grads.export.write import changed_lines
from grads.stages.preparing import keep_template

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each model, as a user has it: one without template brings none."""
    place = tmp_path_factory.mktemp("models")
    made = {}
    for name in MODELS:
        tokenizer = tokenizer_of(name)
        if name == "no template":
            tokenizer.chat_template = None
        made[name] = place / name.replace(" ", "-")
        tokenizer.save_pretrained(made[name])
        settings = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
        config = LlamaConfig(vocab_size=len(tokenizer), **settings, **heads)
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(made[name])
    return made


@pytest.fixture(autouse=True)
def no_caches(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def exported(model, rows, kind, folder, out, **settings):
    """The scored rows, the manifest and the folder; a set that the template refuses is skipped."""
    subset = subset_of(SETS[rows], tokenizer_of(model))
    if subset is None:
        pytest.skip("the template refuses such rows, so no run holds them")
    manifest, out = written(subset, kind, out / "out", model=str(folder), **settings)
    return subset, manifest, out


def kept(subset, manifest):
    """What was scored of the rows that were not refused."""
    gone = {row["sample_id"] for row in manifest["refused"]}
    return [row for n, row in zip(subset.ids, ours(subset), strict=True) if n not in gone]


# -- TRL


def train_rows_of_trl(out, monkeypatch):
    """The data set that TRL's script hands to its trainer, as the trainer has prepared it."""
    from trl import SFTTrainer, get_dataset, get_peft_config
    from trl.scripts.sft import make_parser

    monkeypatch.chdir(out)
    command = ["--config", "trl.yaml", "--use_cpu", "--report_to", "none"]
    script, training, model, mixture = make_parser().parse_args_and_config(command)
    trainer = SFTTrainer(
        model=model.model_name_or_path,
        args=training,
        train_dataset=get_dataset(mixture)[script.dataset_train_split],
        peft_config=get_peft_config(model),
    )
    rows = trainer.train_dataset
    return trainer, list(zip(rows["input_ids"], rows["labels"], strict=True))


@pytest.mark.parametrize("rows", SETS)
@pytest.mark.parametrize("model", MODELS)
def test_trl_trains_what_was_scored(tmp_path, monkeypatch, folders, model, rows):
    subset, manifest, out = exported(model, rows, "trl", folders[model], tmp_path, warmup="full")
    assert manifest["refused"] == []
    _, found = train_rows_of_trl(out, monkeypatch)
    assert found == ours(subset)


# -- LLaMA-Factory

ALONE = {"assistant first", "no question"}  # sets of rows that a target by turns takes none of


def settings_of(out, kind):
    return yaml.safe_load((out / f"{kind}.yaml").read_text(encoding="utf-8"))


def rows_of_llamafactory(out, monkeypatch, **changes):
    """The data set that LLaMA-Factory's own parser, template and loader make of the config."""
    parser = peer(monkeypatch, "llamafactory", "hparams.parser")
    data = peer(monkeypatch, "llamafactory", "data")
    from transformers import AutoTokenizer

    monkeypatch.chdir(out)
    values = settings_of(out, "llamafactory") | {"report_to": "none", "use_cpu": True} | changes
    monkeypatch.setattr("transformers.TrainingArguments.parallel_mode", "one process")
    arguments = parser.get_train_args({k: v for k, v in values.items() if v is not None})
    model, settings, training, finetuning, _ = arguments
    tokenizer = AutoTokenizer.from_pretrained(model.model_name_or_path)
    template = data.get_template_and_fix_tokenizer(tokenizer, settings)
    made = data.get_dataset(template, model, settings, training, finetuning.stage, tokenizer)
    rows = made["train_dataset"]
    return list(zip(rows["input_ids"], rows["labels"], strict=True))


@pytest.mark.parametrize("rows", SETS)
@pytest.mark.parametrize("model", MODELS)
def test_llamafactory_trains_what_was_scored(tmp_path, monkeypatch, folders, model, rows):
    if rows in ALONE:
        pytest.skip("refused as a whole")
    subset, manifest, out = exported(model, rows, "llamafactory", folders[model], tmp_path)
    found = rows_of_llamafactory(out, monkeypatch)
    assert found == kept(subset, manifest)
    assert len(found) == manifest["rows"] == len(subset) - len(manifest["refused"])


def test_long_rows_are_cut():
    """Else the sets that hold one say nothing of it."""
    for model in MODELS:
        assert max(len(ids) for ids, _ in ours(subset_of(["long"], tokenizer_of(model)))) == LENGTH


def trained_texts(rows, tokenizer):
    """What is trained, as text, without white space around it."""
    found = []
    for ids, labels in rows:
        runs = groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] >= 0)
        found.append([tokenizer.decode([i for i, _ in run]).strip() for on, run in runs if on])
    return found


@pytest.mark.parametrize("rows", ["single turn", "system", "mixed", "first answer silent"])
def test_llamafactory_reads_the_conversations_too(tmp_path, monkeypatch, folders, rows):
    """By its own template for ChatML, which trains a line break more; no row is dropped."""
    subset, manifest, out = exported("chatml", rows, "llamafactory", folders["chatml"], tmp_path)
    changes = {"tokenized_path": None, "template": "chatml"}
    found = rows_of_llamafactory(out, monkeypatch, **changes)
    tokenizer = tokenizer_of("chatml")
    assert trained_texts(found, tokenizer) == trained_texts(ours(subset), tokenizer)
    assert manifest["converted"] == (1 if rows == "mixed" else 0)


def test_llamafactory_reads_tools_and_calls(tmp_path, monkeypatch, folders):
    _, _, out = exported("qwen2_5", "tools", "llamafactory", folders["qwen2_5"], tmp_path)
    changes = {"tokenized_path": None, "template": "qwen"}
    ((ids, labels),) = rows_of_llamafactory(out, monkeypatch, **changes)
    tokenizer = tokenizer_of("qwen2_5")
    ((call, answer),) = trained_texts([(ids, labels)], tokenizer)
    assert '"name": "look_up", "arguments": {"city": "Rome"}' in call
    assert answer == "It is sunny.<|im_end|>"
    text = tokenizer.decode(ids)
    assert "The weather of a place." in text
    assert "<tool_response>\nSunny.\n</tool_response>" in text


# -- Axolotl


def rows_of_axolotl(out, monkeypatch):
    """The rows as Axolotl's loader, strategy and handling of long rows make them of the config."""
    wrappers = peer(monkeypatch, "axolotl", "utils.data.wrappers")
    shared = peer(monkeypatch, "axolotl", "utils.data.shared")
    utils = peer(monkeypatch, "axolotl", "utils.data.utils")
    config = peer(monkeypatch, "axolotl", "utils.config")
    default = peer(monkeypatch, "axolotl", "utils.dict").DictDefault
    from transformers import AutoTokenizer

    monkeypatch.chdir(out)
    cfg = config.validate_config(default(settings_of(out, "axolotl")))
    config.normalize_cfg_datasets(cfg)
    (source,) = cfg.datasets
    tokenizer = AutoTokenizer.from_pretrained(cfg.base_model)
    data = shared.load_dataset_with_config(source, False)
    data = data.get("train", data) if isinstance(data, dict) else data
    made, _ = wrappers.get_dataset_wrapper(source, tokenizer, cfg, source.type, data)
    made = utils.handle_long_seq_in_dataset(made, cfg.sequence_len, cfg)
    return list(zip(made["input_ids"], made["labels"], strict=True))


@pytest.mark.parametrize("rows", SETS)
@pytest.mark.parametrize("model", MODELS)
def test_axolotl_trains_what_was_scored(tmp_path, monkeypatch, folders, model, rows):
    subset, manifest, out = exported(model, rows, "axolotl", folders[model], tmp_path)
    assert manifest["refused"] == []
    assert rows_of_axolotl(out, monkeypatch) == ours(subset)


def test_axolotl_gets_tokens_where_an_end_is_no_single_token(tmp_path, monkeypatch, folders):
    """It would stop at such a template."""
    tokenizer = make_tokenizer(MODELS["llama3"][0], "</s>")  # does not know <|eot_id|>
    subset = subset_of(SETS["several turns"], tokenizer)
    _, out = written(subset, "axolotl", tmp_path / "out", model=str(folders["chatml"]))
    assert rows_of_axolotl(out, monkeypatch) == ours(subset)


# -- OpenAI and torchtune


@pytest.mark.parametrize("rows", SETS)
def test_openai_gets_messages_weights_and_calls_with_ids(tmp_path, folders, rows):
    if rows in ("no question", "text", "reasoning"):
        pytest.skip("refused as a whole")
    subset, manifest, out = exported("qwen2_5", rows, "openai", folders["qwen2_5"], tmp_path)
    lines = [json.loads(line) for line in (out / "train.jsonl").read_bytes().splitlines()]
    assert len(lines) == manifest["rows"] == len(subset)
    for line, conversation in zip(lines, subset.conversations(), strict=True):
        assert line.get("tools", []) == conversation.tools
        for said, turn in zip(line["messages"], conversation.turns, strict=True):
            assert said["role"] == turn.role
            assert (said["content"] or "") == turn.content
            assert (said.get("weight") == 0) == (turn.role == "assistant" and not turn.trained)
        calls = [c for said in line["messages"] for c in said.get("tool_calls", [])]
        results = [m["tool_call_id"] for m in line["messages"] if m["role"] == "tool"]
        assert [call["id"] for call in calls] == results
        for call in calls:
            assert call["function"]["name"] == "look_up"
            assert json.loads(call["function"]["arguments"]) == {"city": "Rome"}


def test_torchtune_reads_the_rows_and_trains_every_answer(tmp_path, monkeypatch, folders):
    messages = peer(monkeypatch, "torchtune", "data._messages")
    from datasets import load_dataset

    _, manifest, out = exported("chatml", "mixed", "torchtune", folders["chatml"], tmp_path)
    assert manifest["converted"] == 1
    source = settings_of(out, "torchtune")["dataset"]
    monkeypatch.chdir(out)
    data = load_dataset(source["source"], data_files=source["data_files"], split="train")
    columns = {"messages": source["conversation_column"]}
    read = messages.OpenAIToMessages(source["train_on_input"], columns)
    assert len(data) == manifest["rows"] == 4
    for row in data:
        made = read(row)["messages"]
        messages.validate_messages(made)
        assert [m.masked for m in made] == [m.role != "assistant" for m in made]


# -- what a target does not take


def plain_subset(*rows):
    """Rows of turns as a run from before 0.5 holds them: without template and tokens."""
    turns = [[vars(turn) for turn in row] for row in rows]
    data = [{"n": n} for n in range(len(rows))]
    return Subset("mine", None, data, None, turns, None, ids=[10 * n for n in range(len(rows))])


GOOD = [HEART, says("A pump.")]
REFUSED = {
    "llamafactory": {
        "an answer stands where a question is due": [says("I"), *GOOD],
        "a system turn stands behind others": [*GOOD, Turn("system", "Stop."), *GOOD],
        "a turn of the user stands where an answer is due": [
            HEART,
            says("", tool_calls=CALL),
            Turn("tool", "Sunny."),
            LUNG,
            says("Yes."),
        ],
        "a turn both answers and calls tools": [HEART, says("Wait.", tool_calls=CALL)],
    },
    "openai": {
        "it is a plain text, no conversation": KINDS["text"],
        "nobody asks: it has no turn of a user": KINDS["no question"],
        "there is no place for its reasoning": KINDS["reasoning"],
        "a tool call has no result": [HEART, says("", tool_calls=CALL), *GOOD],
        "the result of a tool answers no call": [HEART, Turn("tool", "Sunny."), says("Yes.")],
    },
    "torchtune": {
        "there is no place for tools": KINDS["tools"],
        "an answer must not be trained, and all would be": KINDS["last answer silent"],
        "there is no place for its reasoning": KINDS["reasoning"],
        "an answer stands where a question is due": KINDS["assistant first"],
    },
}


@pytest.mark.parametrize(("kind", "reason"), [(k, r) for k in REFUSED for r in REFUSED[k]])
def test_rows_that_a_target_does_not_take_are_left_out_and_listed(tmp_path, kind, reason):
    subset = plain_subset(GOOD, REFUSED[kind][reason], GOOD)
    manifest, out = written(subset, kind, tmp_path / "out")
    assert manifest["refused"] == [{"sample_id": 10, "reason": reason}]
    assert manifest["rows"] == count_lines(out / "train.jsonl") == 2
    assert changed_lines(manifest) == [f"left out: 1 row, as row 10: {reason}"]
    assert json.loads((out / "manifest.json").read_text()) == manifest


def test_an_export_of_nothing_fails_with_the_reason(tmp_path):
    with pytest.raises(ExportError, match="takes none of the 1 rows; row 0: there is no place"):
        written(plain_subset(KINDS["tools"]), "torchtune", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_so_it_does_for_a_run_that_keeps_tokens(tmp_path):
    subset = subset_of(["tools"], tokenizer_of("qwen2_5"))
    with pytest.raises(ExportError, match="takes none of the 1 rows; row 0: there is no place"):
        written(subset, "torchtune", tmp_path / "out")


def test_turns_of_one_role_are_joined(tmp_path):
    row = [
        Turn("system", "Be brief."),
        Turn("developer", "Be kind."),
        HEART,
        LUNG,
        says("", tool_calls=CALL),
        Turn("tool", "One."),
        Turn("tool", "Two."),
        says("A pump. A bellows."),
    ]
    manifest, out = written(plain_subset(row), "llamafactory", tmp_path / "out")
    (line,) = (out / "train.jsonl").read_text().splitlines()
    assert [(m["role"], m["content"]) for m in json.loads(line)["messages"]] == [
        ("system", "Be brief.\n\nBe kind."),
        ("user", "What is the heart?\n\nAnd the lung?"),
        ("function_call", '[{"name": "look_up", "arguments": {"city": "Rome"}}]'),
        ("tool", "One.\n\nTwo."),
        ("assistant", "A pump. A bellows."),
    ]
    assert changed_lines(manifest) == ["changed for llamafactory, their meaning kept: 1 row"]


def test_trl_never_gets_weights_it_would_ignore(tmp_path):
    """Without a template that tells them, and without tokens, there is no way."""
    with pytest.raises(ExportError, match="keeps no tokens"):
        written(plain_subset(KINDS["last answer silent"]), "trl", tmp_path / "out")


# -- from a run


def test_a_run_keeps_the_template_it_was_scored_with(tmp_path):
    """The demo's model writes a line break behind each answer, which is not trained."""
    run = demo_run(tmp_path)
    _, before = api.export_selection(run, "grads-10", "trl"), run.exports / "grads-10" / "trl"
    assert "chat_template_path" not in settings_of(before, "trl")
    keep_template(run, load_tokenizer("demo"))
    api.export_selection(run, "grads-10", "trl")
    settings = settings_of(before, "trl")
    assert settings["completion_only_loss"]
    assert settings["assistant_only_loss"]
    marked = (before / settings["chat_template_path"]).read_text()
    assert run.template_file.read_text() in marked
    assert "{%- generation -%}" in marked


def test_a_model_with_several_templates_leaves_none(tmp_path):
    run = demo_run(tmp_path)
    tokenizer = tokenizer_of("chatml")
    keep_template(run, tokenizer)
    assert run.template_file.read_text() == tokenizer.chat_template
    tokenizer.chat_template = {"default": "a", "tool_use": "b"}
    keep_template(run, tokenizer)
    assert not run.template_file.exists()
