"""Where models come from, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial

import pytest
import tiny
import torch
from chain import PATIENCE, save_tiny_model

from grads.data.chat import PLAIN_TEMPLATE, encode
from grads.data.turns import Turn
from grads.engine import adapters, device, models
from grads.engine.device import pick_device, pick_dtype
from grads.errors import ModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    save_tiny_model(path)
    return path


def test_local_folder(folder):
    model = models.load_model(str(folder), "cpu", torch.float32)
    assert not model.training
    tokenizer = models.load_tokenizer(str(folder))
    assert tokenizer.chat_template == PLAIN_TEMPLATE
    assert models.position_limit(str(folder)) == 128


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_weights_rounded_are_the_model_as_loaded_so(name, tmp_path):
    """Bit for bit; to cast all of it would round the angles of positions too."""
    tiny.make_model(name).save_pretrained(tmp_path)
    loaded = models.load_model(str(tmp_path), "cpu", torch.bfloat16)
    rounded = models.load_model(str(tmp_path), "cpu", torch.float32)
    models.round_weights(rounded, torch.bfloat16)
    ids = torch.arange(40)[None] % tiny.VOCAB
    with torch.no_grad():
        theirs, ours = (m(input_ids=ids, use_cache=False).logits for m in (loaded, rounded))
    assert torch.equal(theirs, ours)


def test_demo_is_a_float_model_that_trains_and_saves(demo_model, tmp_path):
    """Out of the package's GGUF file, converted once, its quantised mark gone."""
    model = models.load_model("demo", "cpu", torch.float32)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert getattr(model.config, "quantization_config", None) is None
    assert not getattr(model, "is_quantized", False)
    tokenizer = models.load_tokenizer("demo")
    sample = encode([Turn("user", "Hi"), Turn("assistant", "Hello")], tokenizer, 64)
    trained = tokenizer.decode(sample.input_ids[sample.trained].tolist())
    assert trained == "Hello<|im_end|>"
    adapted = adapters.add_lora(model, 2)
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    assert (tmp_path / "adapter_model.safetensors").exists()


@pytest.mark.job
def test_a_gguf_file_gives_the_same_weights_as_the_demo(demo_model):
    gguf = next(models.demo_package().glob("*.gguf"))
    ours = models.load_model("demo", "cpu", torch.float32)
    theirs = models.load_model(str(gguf), "cpu", torch.float32)
    assert getattr(theirs.config, "quantization_config", None) is None
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_demo_without_its_package_is_the_hub_id(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(models, "demo_package", lambda: None)
    with pytest.raises(ModelError, match="cannot load the model of 'demo'"):
        models.load_model("demo", "cpu", torch.float32)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./nowhere", "no model folder at nowhere"),
        ("nowhere.gguf", "no GGUF file at nowhere.gguf"),
        ("nobody/no-such-model", "cannot load the tokenizer of 'nobody/no-such-model'"),
    ],
)
def test_missing_models_are_one_line(model, message):
    with pytest.raises(ModelError, match=message) as caught:
        models.load_tokenizer(model)
    assert "\n" not in caught.value.args[0]


def test_pickled_weights_are_refused(folder, tmp_path):
    """Only safetensors or GGUF: a pickle could run anything."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path / name)
    model = models.load_model(str(folder), "cpu", torch.float32)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load the model"):
        models.load_model(str(tmp_path), "cpu", torch.float32)


def test_remote_code_is_never_run(folder, tmp_path):
    """A model that brings its own code is refused, and the code is not imported."""
    shutil.copytree(folder, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config |= {
        "model_type": "stranger",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    }
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    mark = tmp_path / "ran"
    (tmp_path / "m" / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    with pytest.raises(ModelError, match="needs code of its own, which is never run"):
        models.load_model(str(tmp_path / "m"), "cpu", torch.float32)
    assert not mark.exists()


def test_absent_device(monkeypatch):
    """Also on a machine that has such a device."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="device 'cuda' is not on this machine"):
        pick_device("cuda")
    assert pick_device("cpu") == "cpu"


def test_the_number_format_is_what_pays_on_this_processor(monkeypatch):
    """By how much faster products of the model's own width are; a format that is named is taken."""
    asked = []

    def gain(width):
        asked.append(width)
        return {576: 4.3, 896: 1.6}.get(width, 0.1)

    monkeypatch.setattr(device, "bfloat16_gain", gain)
    monkeypatch.setattr(models, "width", {"wide": 576, "slow": 896, "other": 1024}.__getitem__)
    found = [pick_dtype("auto", "cpu", model) for model in ("wide", "slow", "other")]
    assert found == [torch.bfloat16, torch.float32, torch.float32]
    assert asked == [576, 896, 1024]
    assert pick_dtype("float32", "cpu", "wide") == torch.float32
    assert pick_dtype("bfloat16", "cpu", "other") == torch.bfloat16
    assert len(asked) == 3


def test_products_are_timed_in_both_formats_and_not_at_all_for_narrow_models(monkeypatch):
    timed = []

    def seconds(rows, weight):
        timed.append((rows.dtype, tuple(weight.shape)))
        return 1.0 if rows.dtype == torch.float32 else 0.25

    monkeypatch.setattr(device, "_seconds", seconds)
    device.bfloat16_gain.cache_clear()
    try:
        assert device.bfloat16_gain(600) == device.bfloat16_gain(600) == 4
        assert timed == [(torch.float32, (600, 600)), (torch.bfloat16, (600, 600))]
        assert device.bfloat16_gain(64) == 1
    finally:
        device.bfloat16_gain.cache_clear()
    assert len(timed) == 2


def test_the_width_of_a_model_is_read_without_its_weights(tmp_path):
    save_tiny_model(tmp_path / "m")
    for file in (tmp_path / "m").glob("*.safetensors"):
        file.unlink()
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert models.width(str(tmp_path / "m")) == config["hidden_size"]


def test_help_is_fast_and_loads_no_model_library():
    code = "import sys; sys.argv = ['grads', '--help']; from grads.__main__ import app\n"
    code += "try: app()\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ.copy(),
        timeout=PATIENCE,
    )
    assert done.stdout.strip().endswith("False"), done.stderr


def test_a_tokenizer_is_read_anew_when_its_template_changes(tmp_path):
    save_tiny_model(tmp_path)
    template = tmp_path / "chat_template.jinja"
    for written in ("{{ messages[0].content }}", "now {{ messages[0].content }}"):
        template.write_text(written)
        assert models.load_tokenizer(str(tmp_path)).chat_template == written


def test_a_hub_models_tokenizer_is_read_anew_when_its_template_changes(tmp_path, monkeypatch):
    """It was mended where the hub's files lie: a process that keeps tokenizers must not go on."""
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("0" * 40)
    save_tiny_model(snapshot)
    (tmp_path / "models--org--name" / "refs").mkdir()
    (tmp_path / "models--org--name" / "refs" / "main").write_text("0" * 40)
    keep = partial(models.try_to_load_from_cache, cache_dir=tmp_path)
    monkeypatch.setattr(models, "try_to_load_from_cache", keep)
    load = models.AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        models.AutoTokenizer, "from_pretrained", lambda name, **more: load(name, cache_dir=tmp_path)
    )
    for written in ("{{ messages[0].content }}", "now {{ messages[0].content }}"):
        (snapshot / "chat_template.jinja").write_text(written)
        assert models.load_tokenizer("org/name").chat_template == written
