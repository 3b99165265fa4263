"""No silent wrong result: incomplete models, files that changed, results made from other files."""

import itertools
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from chain import command, config_for, save_tiny_model, wait_for, write_data
from safetensors.torch import load_file, save_file

from grads import api
from grads.config.evaluation import EvaluationConfig
from grads.config.probe import ProbeConfig
from grads.config.run import RunConfig
from grads.data.sources import read_source
from grads.engine import adapters, models
from grads.engine.passes import Parts
from grads.errors import DataError, ModelError, RunError
from grads.jobs import processes as jobs
from grads.selection.options import SelectionConfig
from grads.store.columns import MEASURED
from grads.store.files import open_table, read_rows, write_table
from grads.store.runs import Run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl")
    return folder


@pytest.fixture(scope="module")
def finished(place):
    run = api.create_run(config_for(place), str(place / "runs" / "undisturbed"))
    api.start_run(run)
    assert wait_for(run, "finished", "failed").state == "finished"
    return run


@pytest.fixture
def copied(finished, tmp_path):
    """A finished run of its own, whose files may be damaged."""
    return Run(shutil.copytree(finished.path, tmp_path / "runs" / "copy"))


def settled(run):
    """The run once its job has ended well."""
    status = wait_for(run, "finished", "failed")
    assert status.state == "finished", status.error
    return run


def assert_same_scores(mine, theirs):
    a, b = (pq.read_table(run.scores_file) for run in (mine, theirs))
    assert a["sample_id"].equals(b["sample_id"])
    for name in MEASURED:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6)


# -- models that are not whole


def drop(name):
    return lambda weights: weights.pop(name)


def reshape(name):
    return lambda weights: weights.update({name: weights[name][:, :7].contiguous()})


def add(name):
    return lambda weights: weights.update({name: torch.zeros(2, tiny.HIDDEN)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("lm_head.weight"), r"are missing \(lm_head.weight\)"),
        (drop("model.layers.1.mlp.up_proj.weight"), "missing .*layers.1.mlp.up_proj"),
        (drop("model.norm.weight"), r"are missing \(model.norm.weight\)"),
        (reshape("model.layers.0.self_attn.q_proj.weight"), "another shape .*q_proj"),
        (add("score.weight"), r"no place in it \(score.weight\)"),
        (add("v_head.summary.weight"), "no place in it .*v_head"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_its_keys(tmp_path, change, message):
    """Transformers would fill in random weights and go on."""
    tiny.make_model("llama-untied").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=message):
        models.load_model(str(tmp_path), "cpu", torch.float32)


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_whole_checkpoints_load_as_they_were_saved(tmp_path, name):
    """A tied head is not missing, and nothing of any architecture is."""
    model = tiny.make_model(name)
    model.save_pretrained(tmp_path)
    loaded = models.load_model(str(tmp_path), "cpu", torch.float32)
    assert models.fingerprint(loaded) == models.fingerprint(model)


def test_a_classifier_is_no_language_model(tmp_path):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    kind, settings = tiny.ARCHITECTURES["llama-untied"]
    config = AutoConfig.for_model(kind, **settings)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"lm_head.weight.*score.weight"):
        models.load_model(str(tmp_path), "cpu", torch.float32)


def test_an_adapter_that_lacks_weights_is_refused(tmp_path):
    """PEFT would leave what is missing without effect, and warn."""
    tiny.make_model("llama-tied").save_pretrained(tmp_path / "model")
    adapted = adapters.add_lora(tiny.make_model("llama-tied"), 4)
    adapted.save_pretrained(tmp_path / "adapter")
    load = lambda: adapters.load_adapter(tiny.make_model("llama-tied"), tmp_path / "adapter")  # noqa: E731
    load()
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    weights.pop(min(weights))
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="does not fit its model"):
        load()


@pytest.mark.job
def test_two_loads_must_agree(copied, monkeypatch):
    """The check does not ask Transformers what it made up: it looks at the weights themselves."""
    from grads.stages import loading

    loading.load_base_model(copied, torch.float32, "cpu")
    real = models.load_model

    def made_up(*arguments, **options):
        model = real(*arguments, **options)
        torch.nn.init.normal_(model.model.layers[1].mlp.up_proj.weight)
        return model

    monkeypatch.setattr(models, "load_model", made_up)
    with pytest.raises(ModelError, match=r"two loads .* gave different weights"):
        loading.load_base_model(copied, torch.float32, "cpu")


# -- names that mean something else elsewhere


def test_paths_are_stored_absolute(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    run = api.create_run(RunConfig(dataset="data.jsonl", model="model"), str(tmp_path / "run"))
    assert run.config_values()["dataset"] == str(place / "data.jsonl")
    assert run.config_values()["model"] == str(place / "model")
    for name in ("demo", "org/name", "gpt2"):
        assert RunConfig(dataset=name, model=name).absolute().model == name, "no file, no path"
    files = ("data.jsonl", "./no.csv")
    measured = EvaluationConfig(heldout=files, general=files).absolute()
    assert measured.heldout == (str(place / "data.jsonl"), str(place / "no.csv"))
    assert measured.general == (str(place / "data.jsonl"), str(place / "no.csv"))


def test_a_hub_id_is_never_a_folder_of_the_working_folder(place, tmp_path, monkeypatch):
    """What a stored configuration calls a hub id stays one, wherever a job is resumed."""
    shutil.copytree(place / "model", tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    for load in (models.load_tokenizer, models.model_digest, models.position_limit):
        with pytest.raises(ModelError, match="'org/name' is a hub id, but"):
            load("org/name")
    with pytest.raises(DataError, match="'org/name' is a hub id, but"):
        read_source(RunConfig(dataset="org/name"))
    given = RunConfig(dataset="x.jsonl", model="org/name").absolute()
    assert given.model == str(tmp_path / "org" / "name"), "named at the start, it is the folder"


def other_weights(folder):
    """The same architecture and tokenizer, other weights."""
    tiny.make_model("llama-tied", seed=5).save_pretrained(folder)


@pytest.mark.job
def test_resumed_with_another_model_is_refused(place, tmp_path):
    shutil.copytree(place / "model", tmp_path / "model")
    shutil.copy(place / "data.jsonl", tmp_path)
    run = api.create_run(config_for(tmp_path), str(tmp_path / "runs" / "run"))
    api.start_run(run)
    settled(run)
    other_weights(tmp_path / "model")
    run.scores_file.unlink()
    api.resume_run(run)
    status = wait_for(run, "failed", "finished")
    assert status.state == "failed"
    assert "are not those that run run was made with" in status.error


@pytest.mark.job
def test_evaluated_with_another_model_is_refused(place, copied, tmp_path):
    """The evaluation would compare arms of one model with scores of another."""
    shutil.copytree(place / "model", tmp_path / "model")
    other_weights(tmp_path / "model")
    values = copied.config_values() | {"model": str(tmp_path / "model")}
    copied.config_file.write_text(json.dumps(values))
    general = EvaluationConfig(general=(str(place / "data.jsonl"),), arms=("random",), ratio=0.5)
    made = api.create_evaluation(copied, "e", general)
    api.start_run(made)
    status = wait_for(made, "failed", "finished")
    assert status.state == "failed"
    assert "are not those that run copy was made with" in status.error


# -- files that changed


def table_of(n=40):
    rng = np.random.default_rng(0)
    numbers = {name: rng.random(n).astype(np.float32) for name in MEASURED}
    truncated = rng.random(n) < 0.5
    return pa.table({"sample_id": np.arange(n), **numbers, "truncated": truncated})


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    """Every bit of a small scores file, one at a time: told, or without any effect."""
    table, path = table_of(), tmp_path / "scores.parquet"
    write_table(path, table)
    sound, told = path.read_bytes(), 0
    with path.open("r+b", buffering=0) as file:
        for bit in range(8 * len(sound)):
            place = bit // 8
            file.seek(place)
            file.write(bytes([sound[place] ^ 1 << bit % 8]))
            try:
                assert open_table(path).read().equals(table), f"bit {bit} changed what is read"
            except (pa.ArrowException, OSError):
                told += 1
            file.seek(place)
            file.write(sound[place : place + 1])
    assert path.read_bytes() == sound
    assert told > 0.9 * 8 * len(sound)


def test_single_rows_are_checked_too(tmp_path):
    path, texts = tmp_path / "samples.parquet", [f"text {i}" for i in range(50)]
    write_table(path, pa.table({"sample_id": np.arange(50), "text": texts}), 10)
    assert read_rows(path, [23])[23]["text"] == "text 23"
    column = open_table(path).metadata.row_group(2).column(1)
    damaged = bytearray(path.read_bytes())
    damaged[column.dictionary_page_offset + column.total_compressed_size - 5] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(OSError, match=r"(?i)crc"):
        read_rows(path, [23])
    run = Run(tmp_path)
    with pytest.raises(RunError, match=r"samples.parquet is damaged .* resume the run"):
        run.read_sample(23)


def test_other_readers_read_sealed_tables(tmp_path):
    import pandas as pd

    write_table(tmp_path / "a.parquet", table_of())
    assert pq.read_table(tmp_path / "a.parquet").equals(table_of())
    assert len(pd.read_parquet(tmp_path / "a.parquet")) == 40


@pytest.mark.job
def test_parts_made_from_other_tokens_are_made_anew(place, finished, copied):
    """Parts are kept by what they were made from, not by their number."""
    from grads.stages import loading

    stages_made = copied.read_manifest()
    interrupted = Run(shutil.copytree(copied.path, copied.path.parent / "interrupted"))
    for run in (copied, interrupted):  # as a kill after the scoring pass leaves it
        run.update_manifest(made={k: v for k, v in stages_made.made.items() if k != "score"})
        for file in (run.scores_file, run.features_file, run.clusters_file):
            file.unlink()
    wrong = pq.read_table(finished.scores_file)["loss"].to_numpy() + 1
    ids = pq.read_table(finished.scores_file)["sample_id"].to_numpy()
    pool = loading.load_pool(copied)
    parts = Parts(copied.parts, pool, batch_tokens=128, made_from="other")
    copied.parts.mkdir()
    for number, batches in enumerate(parts.plan()):
        chosen = np.sort(pool.sample_ids[np.concatenate(batches)])
        at = np.searchsorted(ids, chosen)
        part = pa.table({"sample_id": chosen, "loss": wrong[at].astype(np.float32)})
        write_table(parts.file(number), part.replace_schema_metadata({"made_from": "other"}))
    api.resume_run(copied)
    assert_same_scores(settled(copied), finished)


FILES = (
    "samples.parquet",
    "tokens.parquet",
    "scores.parquet",
    "features.parquet",
    "clusters.json",
    "rejects.jsonl",
    "adapter/adapter_model.safetensors",
    "token_signal/signals.parquet",
)


@pytest.mark.job
@pytest.mark.parametrize(
    ("name", "damage"), zip(FILES, itertools.cycle(["cut", "noise", "gone"]), strict=False)
)
def test_what_is_damaged_is_made_anew_by_a_resume(finished, copied, name, damage):
    """The printed advice works: a finished run is whole again, with the same scores."""
    file = copied.path / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        middle = len(content) // 2
        file.write_bytes(content[:middle] + (b"" if damage == "cut" else os.urandom(64)))
    done = command("resume", "--run-dir", str(copied.path), "--json")
    assert done.returncode == 0, done.stderr
    assert_same_scores(copied, finished)
    for other in FILES:
        assert (copied.path / other).stat().st_size > 0
    for other in [file for file in FILES if file.endswith(".parquet")]:
        mine, theirs = (open_table(run.path / other).read() for run in (copied, finished))
        assert mine.column_names == theirs.column_names
        assert len(mine) == len(theirs)
    assert api.select_samples(copied, "again", SelectionConfig(ratio=0.2)).samples.kept == 11
    with pytest.raises(RunError, match="its files are whole"):
        api.resume_run(copied)


@pytest.mark.job
def test_damaged_signals_that_were_asked_for_can_be_asked_for_again(place, tmp_path):
    config = config_for(place).model_copy(update={"token_signals": False})
    run = api.create_run(config, str(tmp_path / "runs" / "few"))
    api.start_run(run)
    sample = int(api.load_pool(settled(run)).scores.sample_id[0])

    def ask():
        request = api.ask_token_signals(run, [sample])
        assert wait_for(request, "finished", "failed").state == "finished"
        return run.read_token_signal(sample)

    first = ask()
    file = run.token_signal_file
    file.write_bytes(file.read_bytes()[:-20])
    api.resume_run(run)
    settled(run)
    np.testing.assert_allclose(ask()["head_token_norm"], first["head_token_norm"], rtol=1e-5)


@pytest.mark.job
def test_damage_is_told_with_advice_that_works(copied):
    copied.scores_file.write_bytes(copied.scores_file.read_bytes()[:-20])
    with pytest.raises(RunError, match=r"is damaged .* resume the run, which makes it anew"):
        api.load_pool(copied)
    assert jobs.observe(copied).state == "finished"
    api.resume_run(copied)
    assert len(api.load_pool(settled(copied))) == 53


@pytest.mark.job
def test_made_again_from_changed_data_is_refused(place, tmp_path):
    """The file that a damaged run would be read from again is another one by now."""
    shutil.copytree(place / "model", tmp_path / "model")
    write_data(tmp_path / "data.jsonl")
    run = api.create_run(config_for(tmp_path), str(tmp_path / "runs" / "run"))
    api.start_run(run)
    settled(run)
    write_data(tmp_path / "data.jsonl", n=50)
    run.tokens_file.unlink()
    api.resume_run(run)
    status = wait_for(run, "failed", "finished")
    assert status.state == "failed"
    assert "data.jsonl has changed since run run read it" in status.error


# -- what was finished elsewhere or before


def flip(file):
    """One bit in the middle of a file, where an adapter has its numbers."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


ADAPTER = "adapter/adapter_model.safetensors"


@pytest.mark.job
def test_a_damaged_warm_up_is_not_taken_over(place, copied, tmp_path):
    """It would be signed as sound."""
    flip(copied.path / ADAPTER)
    config = config_for(place, warmup_from=str(copied.path))
    run = api.create_run(config, str(tmp_path / "runs" / "second"))
    api.start_run(run)
    error = wait_for(run, "failed", "finished").error
    assert f"the warm-up of {copied.path}: its adapter is damaged; resume that run" in error
    assert not run.adapter.exists()
    api.resume_run(copied)
    settled(copied)
    api.resume_run(run)
    assert_same_scores(settled(run), copied)


def requests(run):
    """What is measured of a run that is scored, each started."""
    sample = int(api.load_pool(run).scores.sample_id[0])
    yield api.ask_token_signals(run, [sample])
    yield api.start_probe(run, ProbeConfig(targets={"one": f"rows:{sample}"}))


@pytest.mark.job
def test_nothing_is_measured_with_a_damaged_warm_up(copied):
    flip(copied.path / ADAPTER)
    for request in requests(copied):
        error = wait_for(request, "failed", "finished").error
        assert "adapter is damaged or gone: resume the run, which makes it anew" in error
    assert copied.read_manifest().probes == {}
    api.resume_run(copied)
    settled(copied)
    for request in requests(copied):
        assert wait_for(request, "failed", "finished").error is None


@pytest.mark.job
def test_nothing_is_measured_with_another_chat_template(place, copied, tmp_path):
    """A set would be written with another one than the samples."""
    model = shutil.copytree(place / "model", tmp_path / "model")
    values = copied.config_values() | {"model": str(model)}
    copied.config_file.write_text(json.dumps(values))
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    (model / "chat_template.jinja").write_text(template)
    for request in requests(copied):
        error = wait_for(request, "failed", "finished").error
        assert "are not those that run copy was made with" in error
    (model / "chat_template.jinja").unlink()
    for request in requests(copied):
        assert wait_for(request, "failed", "finished").error is None
