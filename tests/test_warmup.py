"""The warm-up: steps cut into passes, checkpoints, seeds; and the parts of the scoring pass."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch
import transformers

from grads.config.run import RunConfig
from grads.data.tokens import TokenPool, token_batches
from grads.engine import checkpoints, passes, scoring, self_check, training
from grads.engine.autograd import SampleNorms
from grads.engine.checkpoints import COMPLETE
from grads.engine.gradients import GradientScorer
from grads.engine.passes import Parts
from grads.errors import ScoringError, Stopped, WarmupError
from grads.store.runs import Run


@pytest.fixture
def pool():
    rng = np.random.default_rng(0)
    samples = tiny.make_samples(lengths=tuple(rng.integers(5, 40, 40)))
    table = pa.table(
        {
            "sample_id": np.arange(40) * 2,
            "input_ids": pa.array([s.ids.tolist() for s in samples], pa.large_list(pa.int32())),
            "trained": pa.array([s.trained.tolist() for s in samples], pa.large_list(pa.bool_())),
        }
    )
    return TokenPool.from_table(table)


def config(**values):
    settings = {"dataset": "x.jsonl", "batch_size": 8, "lora_rank": 4, "epochs": 2.0, "lr": 1e-3}
    return RunConfig.parse(settings | values)


def train(pool, folder, stop_at=None, name="llama-tied", **values):
    """The trainable weights after a warm-up, and what its steps reported."""
    model, steps = tiny.make_model(name), []
    trained = training.train(
        model,
        pool,
        config(**values),
        dtype=torch.float32,
        device="cpu",
        checkpoints=folder,
        report=steps.append,
        should_stop=lambda: stop_at is not None and len(steps) == stop_at,
    )
    weights = {k: v.detach().clone() for k, v in trained.named_parameters() if "lora" in k}
    return weights or dict(trained.named_parameters()), steps


def assert_same(a, b, tolerance=1e-5):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=tolerance, atol=tolerance)


def test_result_does_not_depend_on_how_a_step_is_cut(pool, tmp_path):
    """Gradient accumulation over small passes is the one large pass."""
    whole, steps = train(pool, tmp_path / "a", batch_tokens=10_000)
    cut, _ = train(pool, tmp_path / "b", batch_tokens=40)
    assert len(steps) == steps[-1].steps == 2 * 5
    assert_same(whole, cut, 1e-4)


def test_a_warm_up_of_one_step_learns(pool, tmp_path):
    """Its only step was the first of the rising rate, 0: nothing was trained, in silence."""
    trained, steps = train(pool, tmp_path, batch_size=40, epochs=1.0)
    assert len(steps) == steps[0].steps == 1
    moved = [weight.abs().max() for name, weight in trained.items() if "lora_B" in name]
    assert moved
    assert all(move > 0 for move in moved)


def test_loss_is_the_mean_over_response_tokens(pool, tmp_path):
    """The first step's loss, by the slow way."""
    _, steps = train(pool, tmp_path, batch_size=40, epochs=1.0)
    model = tiny.make_model("llama-tied")
    losses, counts = [], []
    for i in range(len(pool)):
        ids, _, labels = pool.collate(np.array([i]))
        logits = model(input_ids=ids).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum")
        losses.append(float(loss.detach()))
        counts.append(int((labels[0, 1:] != -100).sum()))
    assert steps[0].loss == pytest.approx(sum(losses) / sum(counts), rel=1e-4)
    assert len(steps) == 1, "one step takes all samples"


@pytest.mark.parametrize(
    ("kind", "name"), [("lora", "llama-tied"), ("full", "llama-tied"), ("full", "mixtral-moe")]
)
def test_a_stopped_warm_up_goes_on_from_its_checkpoint(pool, tmp_path, kind, name):
    """Also of a model whose files name and cut its weights otherwise than it does: of experts."""
    whole, _ = train(pool, tmp_path / "a", warmup=kind, name=name)
    with pytest.raises(Stopped):
        train(pool, tmp_path / "b", stop_at=4, warmup=kind, name=name)
    resumed, steps = train(pool, tmp_path / "b", warmup=kind, name=name)
    assert [step.step for step in steps] == [5, 6, 7, 8, 9, 10]
    assert_same(whole, resumed)


def test_a_number_of_steps_overrules_the_epochs(pool, tmp_path):
    """17 steps of 8 out of 40 samples: more than three epochs, with the rate falling to zero."""
    steps = []
    training.train(
        tiny.make_model("llama-tied"),
        pool,
        config(),
        dtype=torch.float32,
        device="cpu",
        checkpoints=tmp_path,
        report=steps.append,
        max_steps=17,
    )
    assert [step.step for step in steps] == list(range(1, 18))
    assert steps[-1].steps == 17
    assert steps[-1].lr < steps[8].lr / 10


@pytest.mark.parametrize("longest", [256, 8])
def test_bfloat16_trains_float32_weights_and_comes_close(pool, tmp_path, monkeypatch, longest):
    """The adapter stays in float32; the loss is that of float32 to within bfloat16's three digits.

    Short samples attend by plain products, long ones by the fused kernel; afterwards all do as
    before.
    """
    monkeypatch.setattr(training, "PLAIN_ATTENTION_UP_TO", longest)
    _, exact = train(pool, tmp_path / "a")
    model, steps = tiny.make_model("llama-tied").to(torch.bfloat16), []
    usual = model.config._attn_implementation
    before = tiny.make_model("llama-tied").to(torch.bfloat16).state_dict()
    seen = set()
    layer = type(model.model.layers[0].self_attn)
    forward = layer.forward

    def spied(self, *args, **kwargs):
        if self.training:
            seen.add(self.config._attn_implementation)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(layer, "forward", spied)
    trained = training.train(
        model,
        pool,
        config(),
        dtype=torch.bfloat16,
        device="cpu",
        checkpoints=tmp_path / "b",
        report=steps.append,
    )
    assert seen == {"eager" if longest == 256 else usual}
    assert model.config._attn_implementation == usual
    adapter = {k: v for k, v in trained.named_parameters() if "lora" in k}
    assert {weight.dtype for weight in adapter.values()} == {torch.float32}
    assert any(weight.abs().max() > 0 for name, weight in adapter.items() if "lora_B" in name)
    frozen = {k.replace(".base_layer", ""): v for k, v in trained.state_dict().items()}
    for name, weight in before.items():
        torch.testing.assert_close(frozen[f"base_model.model.{name}"], weight)
    for ours, theirs in zip(steps, exact, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-2)


def test_half_a_checkpoint_is_not_used(pool, tmp_path):
    """A job killed while writing: the folder without its mark is passed over."""
    with pytest.raises(Stopped):
        train(pool, tmp_path, stop_at=4)
    (mark,) = tmp_path.glob("checkpoint-*/complete")
    mark.unlink()
    _, steps = train(pool, tmp_path)
    assert steps[0].step == 1


def change_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


KINDS = {  # of trainings, and what their checkpoints hold of the model
    "LoRA": ({}, "adapter_model.safetensors"),
    "full": ({"warmup": "full"}, "model.safetensors"),
    "spread": ({"warmup": "full", "shard": "layers"}, "model.safetensors"),
}
FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")
DAMAGES = (change_a_bit, cut, empty, Path.unlink)


@pytest.fixture
def stopped_twice(pool, tmp_path):
    """Makes a training with checkpoints at steps 4 and 6, as its disk has them."""

    def stopped(**values):
        for stop_at in (4, 2):
            with pytest.raises(Stopped):
                train(pool, tmp_path / "b", stop_at=stop_at, **values)
        names = sorted(path.name for path in (tmp_path / "b").iterdir())
        assert names == ["checkpoint-4", "checkpoint-6"]
        return tmp_path / "b"

    return stopped


@pytest.fixture
def twice_stopped(stopped_twice):
    return stopped_twice()


@pytest.mark.parametrize(
    ("kind", "name", "damage"),
    [
        (kind, name, damage)
        for kind, (_, own) in KINDS.items()
        for name in (own, *FILES)
        for damage in (DAMAGES if kind == "LoRA" else (cut,))
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    pool, stopped_twice, capsys, kind, name, damage
):
    """Whatever of it: the training goes on from the one before, and the log tells so."""
    values, _ = KINDS[kind]
    folder = stopped_twice(**values)
    damage(folder / "checkpoint-6" / name)
    resumed, steps = train(pool, folder, **values)
    assert [step.step for step in steps] == [5, 6, 7, 8, 9, 10]
    told = f"checkpoint-6 is damaged ({name} changed on the disk): trying checkpoint-4"
    assert told in capsys.readouterr().out
    undisturbed, _ = train(pool, folder.parent / "a", **values)
    assert_same(undisturbed, resumed)


def test_damaged_marks(pool, twice_stopped, capsys):
    """Cut, it is damage; gone, the checkpoint was never whole; both gone, it is the start."""
    cut(twice_stopped / "checkpoint-6" / COMPLETE)
    _, steps = train(pool, shutil.copytree(twice_stopped, twice_stopped.parent / "c"))
    assert steps[0].step == 5
    assert f"checkpoint-6 is damaged ({COMPLETE} changed" in capsys.readouterr().out
    (twice_stopped / "checkpoint-6" / COMPLETE).unlink()
    change_a_bit(twice_stopped / "checkpoint-4" / "optimizer.pt")
    _, steps = train(pool, twice_stopped)
    assert steps[0].step == 1
    told = "checkpoint-4 is damaged (optimizer.pt changed on the disk): trying the start"
    assert told in capsys.readouterr().out


def test_a_checkpoint_of_before_is_taken_as_it_is(pool, twice_stopped):
    """Its mark is empty."""
    empty(twice_stopped / "checkpoint-6" / COMPLETE)
    _, steps = train(pool, twice_stopped)
    assert steps[0].step == 7


def test_a_checkpoint_is_on_the_disk_before_its_mark(pool, tmp_path, monkeypatch):
    """The whole of it: a power failure leaves no mark over half a checkpoint."""
    synced = []

    def note(place):
        synced.append((place.name, (place.parent / COMPLETE).exists()))

    monkeypatch.setattr(checkpoints, "sync", note)
    with pytest.raises(Stopped):
        train(pool, tmp_path, stop_at=4)
    (folder,) = tmp_path.iterdir()
    others = {path.name for path in folder.iterdir()} - {COMPLETE}
    assert others <= {name for name, marked in synced if not marked}


def test_no_more_than_two_checkpoints_lie_there(pool, tmp_path, monkeypatch):
    """Saved at every step: the last two, at the end and on the way."""
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    counts, mark = [], training.mark_whole

    def counted(checkpoint):
        mark(checkpoint)
        counts.append(len(list(tmp_path.iterdir())))

    monkeypatch.setattr(training, "mark_whole", counted)
    train(pool, tmp_path)
    assert counts == [1, *[2] * 9]
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-9", "checkpoint-10"}


def test_training_lowers_the_loss_and_the_seed_decides(pool, tmp_path):
    first, steps = train(pool, tmp_path / "a", epochs=8.0, lr=1e-2)
    assert steps[-1].loss < 0.9 * steps[0].loss
    again, _ = train(pool, tmp_path / "b", epochs=8.0, lr=1e-2)
    assert_same(first, again)
    other, _ = train(pool, tmp_path / "c", epochs=8.0, lr=1e-2, seed=1)
    assert any(not torch.allclose(first[k], other[k]) for k in first)


def test_nan_names_the_step_and_the_samples(pool, tmp_path):
    with pytest.raises(WarmupError, match=r"at step \d+, on samples \[") as caught:
        train(pool, tmp_path, lr=1e30, epochs=5.0)
    assert "--lr" in str(caught.value)


def test_fraction_is_seeded_and_sized():
    chosen = training.sample_fraction(100, 0.25, 3)
    assert len(set(chosen.tolist())) == 25
    assert (np.diff(chosen) > 0).all()
    assert (chosen == training.sample_fraction(100, 0.25, 3)).all()
    assert len(training.sample_fraction(10, 0.001, 0)) == 1


# -- batches and the scoring pass


def test_token_batches_hold_each_sample_once_within_the_bound():
    lengths = np.random.default_rng(0).integers(1, 50, 200)
    lengths[7] = 500
    batches = token_batches(lengths, 100)
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))
    for batch in batches:
        assert len(batch) * lengths[batch].max() <= 100 or len(batch) == 1


def score(run, pool, **kwargs):
    run.path.mkdir(exist_ok=True)
    scorer = GradientScorer(tiny.make_model("llama-tied"))
    parts = Parts(run.parts, pool, batch_tokens=60, made_from="")
    settings = {"device": "cpu", "seed": 0, "with_tokens": True}
    scoring.score_pool(parts, scorer, **settings | kwargs)
    return parts.merged()


def test_finished_parts_are_not_computed_again(pool, tmp_path, monkeypatch):
    """Stopped between batches, resumed: what was written stays untouched, the rest is added."""
    monkeypatch.setattr(passes, "PART_TOKENS", 150)
    whole = score(Run(tmp_path / "whole"), pool)
    run, reports = Run(tmp_path / "run"), []
    with pytest.raises(Stopped):
        score(run, pool, report=reports.append, should_stop=lambda: len(reports) == 7)
    written = {path: path.stat().st_mtime_ns for path in run.parts.iterdir()}
    assert 1 <= len(written) < len(list((tmp_path / "whole" / "scores").iterdir()))
    again = []
    resumed = score(run, pool, report=again.append)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert resumed.equals(whole)
    assert again[0].done > 0
    assert again[-1].done == len(pool)
    assert again[-1].tokens < pool.lengths.sum()
    assert again[-1].tokens_left == 0


def test_a_missing_sample_is_noticed(pool, tmp_path, monkeypatch):
    run = Run(tmp_path)
    score(run, pool)
    other = pool.subset(np.arange(39))
    with pytest.raises(ScoringError, match="do not hold each sample once"):
        Parts(run.parts, other, batch_tokens=60, made_from="").merged()


def test_the_folder_of_wrong_parts_is_removed_and_the_pass_goes_on(pool, tmp_path):
    """As the message advises: they lie where it says, and all are made anew."""
    whole = score(Run(tmp_path / "whole"), pool)
    run = Run(tmp_path / "run")
    score(run, pool.subset(np.r_[0:39, 38]))  # one twice, one not at all
    with pytest.raises(ScoringError) as refused:
        score(run, pool)
    told = r"the parts in (.+) do not hold each sample once: remove the folder and resume"
    shutil.rmtree(re.fullmatch(told, str(refused.value))[1])
    assert score(run, pool).equals(whole)


def test_a_stop_is_heard_between_the_samples_of_the_self_check(pool, monkeypatch):
    """Each can take long by plain autograd: the first that ends after the wish is the last."""
    scorer = GradientScorer(tiny.make_model("llama-tied"))
    honest, computed = self_check.autograd_norms, []

    def counted(*args):
        computed.append(args)
        return honest(*args)

    monkeypatch.setattr(self_check, "autograd_norms", counted)
    with pytest.raises(Stopped):
        self_check.self_check(scorer, pool, "cpu", should_stop=lambda: len(computed) == 2)
    assert len(computed) == 2


def test_self_check_stops_a_model_whose_gradients_differ(pool, monkeypatch):
    scorer = GradientScorer(tiny.make_model("llama-tied"))
    found = self_check.self_check(scorer, pool, "cpu")
    assert found.largest_relative_difference < 1e-4
    assert len(found.samples) == self_check.SAMPLES
    honest = self_check.autograd_norms

    def doubled(*args):
        norms = honest(*args)
        return SampleNorms(norms.loss, 2 * norms.embed_grad_norm, *norms[2:])

    monkeypatch.setattr(self_check, "autograd_norms", doubled)
    with pytest.raises(ScoringError, match="differ from plain autograd by 50"):
        self_check.self_check(scorer, pool, "cpu")


def test_projection_keeps_distances_roughly():
    projection = scoring.random_projection(2000, 0)
    points = np.random.default_rng(1).standard_normal((20, 2000)).astype(np.float32)
    before = np.linalg.norm(points[:, None] - points[None], axis=-1)
    after = np.linalg.norm((points[:, None] - points[None]) @ projection, axis=-1)
    off = ~np.eye(20, dtype=bool)
    assert np.abs(after[off] / before[off] - 1).max() < 0.25
    assert scoring.random_projection(64, 0) is None


def test_two_visible_gpus_train_on_one(pool, tmp_path, monkeypatch):
    """The Trainer would wrap the model in DataParallel, which hides its head."""
    expected, _ = train(pool, tmp_path / "one")
    monkeypatch.setattr(transformers.TrainingArguments, "n_gpu", property(lambda self: 2))
    found, steps = train(pool, tmp_path / "two")
    assert len(steps) == 10
    assert_same(expected, found)


def test_the_newest_of_several_whole_checkpoints_counts(pool, tmp_path):
    """A kill may leave several; 11 is newer than 9."""
    undisturbed, _ = train(pool, tmp_path / "a", epochs=3.0)
    folder = tmp_path / "b"
    for stop_at in (9, 2):
        with pytest.raises(Stopped):
            train(pool, folder, stop_at=stop_at, epochs=3.0)
        if stop_at == 9:
            shutil.copytree(folder / "checkpoint-9", tmp_path / "kept")
    for name in ("checkpoint-7", "checkpoint-8"):
        shutil.copytree(tmp_path / "kept", folder / name)
    resumed, steps = train(pool, folder, epochs=3.0)
    assert [step.step for step in steps] == [12, 13, 14, 15]
    assert_same(undisturbed, resumed)
