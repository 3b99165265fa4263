"""Gradients out of a training's own passes: against autograd, and against the training without."""

import copy

import numpy as np
import pytest
import tiny
import torch
from test_directions import expected_towards, pool_of
from test_gradients import assert_agree

from grads.config.run import RunConfig
from grads.engine import collecting, training
from grads.engine.adapters import add_lora
from grads.engine.collecting import Collector
from grads.engine.during import TrainingTap
from grads.engine.gradients import GradientScorer
from grads.engine.probing import mean_gradient
from grads.errors import ScoringError, Stopped

LENGTHS = tuple(np.random.default_rng(0).integers(5, 40, 40))
STEPS = 10  # of 8 samples, in two epochs


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
@pytest.mark.parametrize("kind", ["frozen", "full"])
def test_a_pass_agrees_with_autograd(name, kind):
    """Whether the embedding and the head are trained or not; mixed lengths, several turns."""
    model, samples = tiny.make_model(name), tiny.make_samples()
    wanted = tiny.make_samples(seed=1, lengths=(8, 21, 13))
    expected = [tiny.reference(model, sample) for sample in samples]
    lying = expected_towards(model, samples, wanted)
    model.requires_grad_(kind == "full")
    tap = TrainingTap(model)
    direction = mean_gradient(tap.scorer, pool_of(wanted), batch_tokens=24, device="cpu")
    found = tap.score(*tiny.collate(samples, pad_id=0), [direction])
    assert_agree(found, expected)
    mine = np.stack([np.asarray(values) for values in found.towards[0]], axis=1)
    assert np.abs(mine - lying).max() / np.abs(lying).max() < 2e-4
    assert all(p.requires_grad == (kind == "full") for p in model.parameters())


@pytest.mark.parametrize("name", ["gpt2", "gemma2-softcap", "opt-projected"])
def test_responses_longer_than_the_hidden_size(name):
    """Beyond |R| = d blocks of the gradient take the place of the Gram matrix."""
    model, samples = tiny.make_model(name), tiny.make_samples(lengths=(100, 6, 90))
    expected = [tiny.reference(model, sample) for sample in samples]
    assert_agree(TrainingTap(model).score(*tiny.collate(samples, 0)), expected)


def config(**values):
    settings = {"dataset": "x.jsonl", "batch_size": 8, "lora_rank": 4, "epochs": 2.0, "lr": 1e-2}
    return RunConfig.parse(settings | {"batch_tokens": 100} | values)


def train(folder, *, stop_at=None, sets=None, collect=True, dtype=torch.float32, **values):
    """The trained weights, the collector, and the model's weights before each step."""
    pool, model = pool_of(tiny.make_samples(lengths=LENGTHS)), tiny.make_model("llama-tied")
    settings, before, steps = config(**values), [], []
    model.requires_grad_(settings.warmup == "full")
    collector = Collector(
        folder / "read",
        TrainingTap(model, dtype),
        pool,
        seed=0,
        with_tokens=True,
        sets=sets or {},
        batch_tokens=100,
    )

    def report(step):
        steps.append(step)
        before.append(copy.deepcopy(model.state_dict()))

    adapted = training.train(
        model,
        pool,
        settings,
        dtype=dtype,
        device="cpu",
        checkpoints=folder / "checkpoints",
        report=report,
        should_stop=lambda: stop_at is not None and len(steps) == stop_at,
        collector=collector if collect else None,
    )
    return dict(adapted.named_parameters()), collector, before


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_each_sample_is_read_with_the_weights_of_its_step(tmp_path, kind):
    """And every sample once, as the last epoch has read it."""
    _, collector, after = train(tmp_path, warmup=kind)
    table, pool = collector.merged(), collector.pool
    assert table["sample_id"].to_pylist() == list(range(len(LENGTHS)))
    steps = table["step"].to_numpy()
    assert sorted(steps) == sorted(np.repeat(np.arange(STEPS // 2, STEPS), 8))
    model = tiny.make_model("llama-tied")
    if kind == "lora":
        model = add_lora(model, 4).get_base_model()
    for step in (STEPS // 2, STEPS - 1):
        model.load_state_dict(after[step - 1])
        chosen = np.flatnonzero(steps == step)
        expected = GradientScorer(model).score(*pool.collate(chosen))
        for name in ("loss", "embed_grad_norm", "head_grad_norm", "grad_dot"):
            mine = table[name].to_numpy()[chosen]
            np.testing.assert_allclose(mine, getattr(expected, name), rtol=2e-4, atol=1e-6)
        for name in ("embed_token_norm", "head_token_norm"):
            for place, theirs in zip(chosen, getattr(expected, name), strict=True):
                mine = table[name][int(place)].as_py()
                np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-6)
        features = np.stack([table["feature"][int(i)].as_py() for i in chosen])
        np.testing.assert_allclose(features, expected.mean_hidden, rtol=1e-3, atol=1e-5)
    start = GradientScorer(tiny.make_model("llama-tied")).score(*pool.collate(np.arange(40)))
    moved = np.abs(np.log(table["head_grad_norm"].to_numpy() / start.head_grad_norm.numpy()))
    assert moved.max() > 0.05  # the weights of the step, not those of the start


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_training_is_not_touched(tmp_path, kind):
    """Its weights end up the same to the last bit."""
    read, _, _ = train(tmp_path / "a", warmup=kind, sets=probe_sets())
    plain, _, _ = train(tmp_path / "b", warmup=kind, collect=False)
    assert read.keys() == plain.keys()
    assert all(torch.equal(read[name], plain[name]) for name in read)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_training_in_bfloat16_is_read_as_closely_as_it_computes(tmp_path, kind):
    """Against float32 with the same weights: the numbers are its own, with eight bits a factor."""
    _, collector, after = train(tmp_path, warmup=kind, dtype=torch.bfloat16, sets=probe_sets())
    table, pool = collector.merged(), collector.pool
    chosen = np.flatnonzero(table["step"].to_numpy() == STEPS - 1)
    model = tiny.make_model("llama-tied")
    if kind == "lora":
        model = add_lora(model, 4).get_base_model()
    model.load_state_dict(after[STEPS - 2])
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    expected = GradientScorer(model).score(*pool.collate(chosen))
    for name in ("loss", "embed_grad_norm", "head_grad_norm"):
        mine = table[name].to_numpy()[chosen]
        np.testing.assert_allclose(mine, getattr(expected, name), rtol=0.03)
        assert (mine != np.asarray(getattr(expected, name))).any()  # it is the training's own pass


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_training_in_bfloat16_is_not_touched(tmp_path, kind):
    read, _, _ = train(tmp_path / "a", warmup=kind, sets=probe_sets(), dtype=torch.bfloat16)
    plain, _, _ = train(tmp_path / "b", warmup=kind, collect=False, dtype=torch.bfloat16)
    assert all(torch.equal(read[name], plain[name]) for name in read)


def probe_sets():
    return {"good": (pool_of(tiny.make_samples(seed=1, lengths=(8, 21, 13))), None)}


def test_sets_are_measured_along_the_way(tmp_path, monkeypatch):
    """With a mean gradient as of each step, the cosine is that of the step's weights."""
    monkeypatch.setattr(collecting, "RENEWED_AFTER", 0)
    sets = probe_sets()
    _, collector, after = train(tmp_path, sets=sets)
    table, pool = collector.merged(), collector.pool
    model = add_lora(tiny.make_model("llama-tied"), 4).get_base_model()
    model.load_state_dict(after[STEPS - 2])
    scorer = GradientScorer(model)
    direction = mean_gradient(scorer, sets["good"][0], batch_tokens=100, device="cpu")
    chosen = np.flatnonzero(table["step"].to_numpy() == STEPS - 1)
    expected = scorer.score(*pool.collate(chosen), [direction]).towards[0]
    for field in expected._fields:
        mine = table[f"good:{field}"].to_numpy()[chosen]
        np.testing.assert_allclose(mine, getattr(expected, field), rtol=1e-3, atol=1e-5)


def test_a_set_is_measured_anew_after_twenty_times_its_tokens(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(
        collecting, "mean_gradient", lambda *a, **k: taken.append(1) or mean_gradient(*a, **k)
    )
    train(tmp_path, sets=probe_sets())  # 42 tokens; an epoch of the pool has 867
    assert len(taken) == 2


def test_a_stopped_training_goes_on_with_what_it_has_read(tmp_path):
    _, whole, _ = train(tmp_path / "a")
    for stop_at in (3, 4):
        with pytest.raises(Stopped):
            train(tmp_path / "b", stop_at=stop_at)
    _, resumed, _ = train(tmp_path / "b")
    mine, theirs = resumed.merged(), whole.merged()
    for name in ("sample_id", "step", "loss", "embed_grad_norm", "head_grad_norm", "grad_dot"):
        np.testing.assert_allclose(mine[name].to_numpy(), theirs[name].to_numpy(), rtol=1e-5)


@pytest.mark.parametrize("damage", ["gone", "cut", "beyond"])
def test_what_is_damaged_is_read_again(tmp_path, damage, capsys):
    """A training begins anew where what it had read is lost; what was read too far is dropped."""
    _, whole, _ = train(tmp_path / "a")
    with pytest.raises(Stopped):
        train(tmp_path / "b", stop_at=3)
    (file,) = (tmp_path / "b/read").iterdir()
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    else:
        file.rename(file.with_name("until-00000099.parquet"))
    _, resumed, _ = train(tmp_path / "b")
    assert resumed.merged().equals(whole.merged())
    assert "begins anew" in capsys.readouterr().out


def test_a_missing_sample_is_noticed(tmp_path):
    _, collector, _ = train(tmp_path)
    for file in collector.folder.iterdir():
        file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ScoringError, match="resume, which trains anew"):
        collector.merged()
