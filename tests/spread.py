"""What each of a team's processes finds of a model whose layers are spread; started by torchrun."""

import gc
import sys
from pathlib import Path

import pytest
import tiny
import torch
from test_memory_options import pool_of
from test_warmup import config, cut
from torch.distributed.tensor import DTensor

from grads.engine import team, training
from grads.engine.full_checkpoints import whole_weights
from grads.engine.gradients import GradientScorer
from grads.engine.sharding import spread
from grads.errors import ScoringError, Stopped

ARCHITECTURES = ("gpt2", "opt-projected", "gemma3-scaled-embedding", "mixtral-moe", "gpt-neox")
NUMBERS = ("loss", "embed_grad_norm", "head_grad_norm", "grad_dot", "mean_hidden")


def score(model):
    found = GradientScorer(model.eval()).score(*tiny.collate(tiny.make_samples(), pad_id=0))
    return {name: getattr(found, name).detach() for name in NUMBERS}


def assert_scored_alike(model, other):
    mine, theirs = score(model), score(other)
    for name in NUMBERS:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-5, atol=1e-6, msg=name)


def every_architecture_is_scored_as_when_whole(mine, folder):
    for name in ARCHITECTURES:
        assert_scored_alike(spread(tiny.make_model(name), "cpu"), tiny.make_model(name))


def a_process_holds_its_share(mine, folder):
    """Of the layers; embedding, head and norm are whole. After passes no more is kept than that."""
    before = held()
    model = spread(tiny.make_model("llama-untied"), "cpu")
    ends = [model.get_input_embeddings(), model.get_output_embeddings(), model.model.norm]
    whole = [weight for end in ends for weight in end.parameters()]
    assert not any(isinstance(weight, DTensor) for weight in whole)
    layers = list(model.model.layers.parameters())
    own = sum(weight.to_local().numel() for weight in layers)
    assert mine.total(torch.tensor(own)) == sum(weight.numel() for weight in layers)
    assert own < 1.1 * sum(weight.numel() for weight in layers) / mine.size
    score(model)
    assert held() - before < 1.1 * 4 * (own + sum(weight.numel() for weight in whole))


def held():
    """Bytes that tensors hold."""
    gc.collect()
    found = [t for t in gc.get_objects() if type(t) in (torch.Tensor, torch.nn.Parameter)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}
    return sum(storages.values())


def a_training_ends_as_one_of_whole_layers(mine, folder):
    """Some processes have fewer passes in a step than others."""
    settings = (
        ("llama-tied", {"warmup": "lora"}),
        ("llama-tied", {"warmup": "lora", "gradient_checkpointing": True}),
        ("llama-untied", {"warmup": "full"}),
        ("mixtral-moe", {"warmup": "full"}),
    )
    for number, (name, values) in enumerate(settings):
        trained = []
        for place, layers in (("whole", "none"), ("spread", "layers")):
            model = tiny.make_model(name)
            model = spread(model, "cpu") if layers == "layers" else model
            settings_ = config(lr=1e-2, batch_tokens=30, shard=layers, **values)
            trained.append(
                training.train(
                    model,
                    pool_of(),
                    settings_,
                    dtype=torch.float32,
                    device="cpu",
                    checkpoints=folder / f"{place}-{number}",
                )
            )
        whole, ours = trained
        if values["warmup"] == "lora":
            whole, ours = whole.get_base_model(), ours.get_base_model()
        assert_scored_alike(ours, whole)
        found, known = whole_weights(ours), whole.state_dict()
        assert found.keys() == (known.keys() if mine.leads else set())
        for key, weight in found.items():
            torch.testing.assert_close(weight, known[key], rtol=1e-4, atol=1e-5, msg=key)


def a_damaged_checkpoint_gives_way_to_the_one_before(mine, folder):
    """In all processes, where the weights are gathered to be written."""
    for stop_at in (4, 2):
        with pytest.raises(Stopped):
            train_all(folder / "damaged", stop_at)
    if mine.leads:
        cut(folder / "damaged" / "checkpoint-6" / "optimizer.pt")
    resumed, steps = train_all(folder / "damaged")
    assert [step.step for step in steps] == [5, 6, 7, 8]
    whole, _ = train_all(folder / "sound")
    assert_scored_alike(resumed, whole)


def train_all(folder, stop_at=None):
    """All weights of a spread model by eight steps, stopped after so many; and its steps."""
    steps = []
    trained = training.train(
        spread(tiny.make_model("llama-untied"), "cpu"),
        pool_of(),
        config(batch_tokens=30, batch_size=4, epochs=4.0, shard="layers", warmup="full"),
        dtype=torch.float32,
        device="cpu",
        checkpoints=folder,
        report=steps.append,
        should_stop=lambda: len(steps) == stop_at,
    )
    return trained, steps


def all_go_in_step_until_the_last_is_done(mine, folder):
    made = []
    team.in_step(
        passes(made, mine.rank * 3), idle=lambda: made.append("idle"), should_stop=lambda: False
    )
    most = 3 * (mine.size - 1)
    assert made == ["own"] * 3 * mine.rank + ["idle"] * (most - 3 * mine.rank)


def an_error_of_one_is_one_of_all(mine, folder):
    made = []
    with pytest.raises(ScoringError, match="bad sample"):
        team.in_step(
            passes(made, 5, broken=2 if mine.rank == 1 else None),
            idle=lambda: made.append("idle"),
            should_stop=lambda: False,
        )
    assert len(made) == 3


def a_stop_of_one_is_one_of_all(mine, folder):
    made = []
    with pytest.raises(Stopped):
        team.in_step(
            passes(made, 5),
            idle=lambda: made.append("idle"),
            should_stop=lambda: mine.leads and len(made) == 2,
        )
    assert len(made) == 2


def passes(made, count, broken=None):
    for number in range(count):
        yield
        made.append("own")
        if number == broken:
            raise ScoringError("a bad sample")


CHECKS = (
    a_process_holds_its_share,
    every_architecture_is_scored_as_when_whole,
    a_training_ends_as_one_of_whole_layers,
    a_damaged_checkpoint_gives_way_to_the_one_before,
    all_go_in_step_until_the_last_is_done,
    an_error_of_one_is_one_of_all,
    a_stop_of_one_is_one_of_all,
)

if __name__ == "__main__":
    for check in CHECKS:
        print(check.__name__, flush=True)
        check(team.join("cpu"), Path(sys.argv[1]))
