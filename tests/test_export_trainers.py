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
from trained import MODELS, SETS, ours, subset_of, tokenizer_of, written
from transformers import LlamaConfig, LlamaForCausalLM

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
    subset, _, out = exported("qwen2_5", "tools", "llamafactory", folders["qwen2_5"], tmp_path)
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
    data = data["train"] if "train" in data else data
    made, _ = wrappers.get_dataset_wrapper(source, tokenizer, cfg, source.type, data)
    made = utils.handle_long_seq_in_dataset(made, cfg.sequence_len, cfg)
    return list(zip(made["input_ids"], made["labels"], strict=True))


@pytest.mark.parametrize("rows", SETS)
@pytest.mark.parametrize("model", MODELS)
def test_axolotl_trains_what_was_scored(tmp_path, monkeypatch, folders, model, rows):
    subset, manifest, out = exported(model, rows, "axolotl", folders[model], tmp_path)
    assert manifest["refused"] == []
    assert rows_of_axolotl(out, monkeypatch) == ours(subset)
