"""The fast gradients against plain autograd, one sample at a time, over many architectures."""

import copy

import numpy as np
import pytest
import tiny
import torch

from grads.engine import head
from grads.engine.adapters import add_lora
from grads.engine.autograd import autograd_norms
from grads.engine.gradients import GradientScorer
from grads.errors import ModelError

NUMBERS = ("loss", "embed_grad_norm", "head_grad_norm")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of a few columns, so that the tiny vocabulary is walked in many steps."""
    monkeypatch.setattr(head, "MIN_BLOCK", 8)
    monkeypatch.setitem(head.BLOCK_ELEMENTS, "cpu", 64)


def assert_agree(result, expected, tolerance=1e-4):
    """Every number of every sample, and the per-token signals, within a relative tolerance."""
    for i, sample in enumerate(expected):
        for name in NUMBERS:
            mine, theirs = float(getattr(result, name)[i]), getattr(sample, name)
            assert mine == pytest.approx(theirs, rel=tolerance), (name, i)
        scale = sample.embed_grad_norm * sample.head_grad_norm
        assert float(result.grad_dot[i]) == pytest.approx(sample.grad_dot, abs=tolerance * scale)
        for name in ("embed_token_norm", "head_token_norm"):
            mine, theirs = getattr(result, name)[i].numpy(), getattr(sample, name)
            np.testing.assert_allclose(mine, theirs, rtol=10 * tolerance, atol=1e-7 * theirs.max())


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_agrees_with_autograd(name, side):
    """Mixed lengths, repeated tokens, several turns, padding on either side."""
    model, samples = tiny.make_model(name), tiny.make_samples()
    expected = [tiny.reference(model, sample) for sample in samples]
    result = GradientScorer(model).score(*tiny.collate(samples, pad_id=0, side=side))
    assert_agree(result, expected)


@pytest.mark.parametrize("name", ["gpt2", "llama-tied", "gemma2-softcap", "granite-logit-scaling"])
def test_response_longer_than_hidden_size(name):
    """|R| above d takes the second pass over blocks, next to samples that do not."""
    model = tiny.make_model(name)
    samples = tiny.make_samples(lengths=(100, 6, 90))
    assert samples[0].trained.sum() > tiny.HIDDEN > samples[1].trained.sum()
    expected = [tiny.reference(model, sample) for sample in samples]
    assert_agree(GradientScorer(model).score(*tiny.collate(samples, 0)), expected)


def test_padding_token_that_is_also_the_end_of_turn():
    """The padding_idx trap: its row's gradient counts where the token is real."""
    model = tiny.make_model("llama-tied")
    embedding = model.get_input_embeddings()
    assert embedding.padding_idx == 0
    samples = tiny.make_samples()
    for sample in samples:
        sample.ids[[2, -1]] = 0
    expected = [tiny.reference(model, sample) for sample in samples]
    assert_agree(GradientScorer(model).score(*tiny.collate(samples, 0)), expected)
    assert embedding.padding_idx == 0


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "mixtral-moe"])
def test_lora_adapter_in_place(name):
    """With an adapter whose weights are far from zero, and nothing merged."""
    adapted = add_lora(tiny.make_model(name), rank=4)
    outer = [weight for key, weight in adapted.named_parameters() if "lora_B" in key]
    assert len(outer) >= 4
    with torch.no_grad():
        for weight in outer:
            weight.normal_(std=0.2)
    model, samples = adapted.get_base_model(), tiny.make_samples()
    expected = [tiny.reference(model, sample) for sample in samples]
    assert_agree(GradientScorer(model).score(*tiny.collate(samples, 0)), expected)


def overfitted(samples, steps=300):
    """A float64 model trained on its own samples until every p(y) is above 0.9999."""
    model = tiny.make_model("llama-tied", torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    ids, _, labels = tiny.collate(samples, 0)
    sample, position = torch.nonzero(labels[:, 1:] != -100, as_tuple=True)
    for _ in range(steps):
        logits = model(input_ids=ids).logits[sample, position]
        loss = torch.nn.functional.cross_entropy(logits, labels[sample, position + 1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        model.model.norm.weight *= 2.5  # sharper: 1 - p(y) spreads from 1e-5 to below 1e-9
        logits = model(input_ids=ids).logits[sample, position]
    probability = logits.softmax(-1).gather(1, labels[sample, position + 1][:, None])
    return model.eval(), float(probability.min())


def test_well_learned_tokens_keep_their_digits():
    """The cancellation trap: 1 - p(y) far below what float32 can hold beside 1."""
    samples = tiny.make_samples(lengths=(12, 20, 9))
    model, least = overfitted(samples)
    assert least > 0.9999
    expected = [tiny.reference(model, sample) for sample in samples]
    in_double = GradientScorer(model).score(*tiny.collate(samples, 0))
    # Autograd's own p(y) - 1 keeps but 16 - 9 digits here, even in float64.
    assert_agree(in_double, expected, tolerance=1e-5)
    assert float(in_double.loss.max()) < 1e-4
    # The float32 body's logits differ in the 7th digit, which moves 1 - p(y) by about z * 1e-7.
    single = GradientScorer(copy.deepcopy(model).float()).score(*tiny.collate(samples, 0))
    for name in NUMBERS:
        np.testing.assert_allclose(getattr(single, name), getattr(in_double, name), rtol=1e-3)


def test_head_pass_keeps_digits_on_exact_inputs():
    """The same float32 hidden states: the head's sums alone, where 1 - p(y) is 1e-8."""
    torch.manual_seed(0)
    weight, h = torch.randn(97, 32), torch.randn(6, 32) * 0.1
    labels = torch.arange(6)
    h += weight[labels] * (40 / (weight[labels] ** 2).sum(1))[:, None]
    groups = head.group_rows(labels[None], torch.tensor([6]), labels, [6])
    norm = head.head_pass(head.Head(weight, None), h.clone(), labels, groups).signals.norms[0]
    z = (h.double() @ weight.double().T).requires_grad_()
    loss = torch.nn.functional.cross_entropy(z, labels)
    (d,) = torch.autograd.grad(loss, z)
    assert float(loss) < 1e-5
    assert float(norm) == pytest.approx(float((d.T @ h.double()).norm()), rel=1e-5)


def test_single_batches_give_the_same_numbers():
    """The result does not depend on which samples share a batch, nor on their order."""
    model, samples = tiny.make_model("qwen3"), tiny.make_samples()
    scorer = GradientScorer(model)
    together = scorer.score(*tiny.collate(samples, 0))
    backwards = scorer.score(*tiny.collate(samples[::-1], 0))
    for i, sample in enumerate(samples):
        alone = scorer.score(*tiny.collate([sample], 0))
        for name in NUMBERS:
            value = float(getattr(together, name)[i])
            assert float(getattr(alone, name)[0]) == pytest.approx(value, rel=1e-5)
            assert float(getattr(backwards, name)[-1 - i]) == pytest.approx(value, rel=1e-5)


def test_bfloat16_body_accumulates_in_float32():
    """A bfloat16 model agrees with its float32 copy to the body's own rounding."""
    model, samples = tiny.make_model("llama-tied", torch.bfloat16), tiny.make_samples()
    half = GradientScorer(model).score(*tiny.collate(samples, 0))
    single = GradientScorer(copy.deepcopy(model).float()).score(*tiny.collate(samples, 0))
    assert half.head_grad_norm.dtype == torch.float32
    for name in NUMBERS:
        np.testing.assert_allclose(getattr(half, name), getattr(single, name), rtol=0.02)


def test_self_check_reference_agrees_with_the_tests_own():
    """The product's slow path and this file's are two pieces of code with one answer."""
    model, sample = tiny.make_model("gemma3-scaled-embedding"), tiny.make_samples()[2]
    ids, _, labels = tiny.collate([sample], 0)
    theirs, mine = tiny.reference(model, sample), autograd_norms(model, ids[0], labels[0])
    for name in NUMBERS:
        assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=1e-5)
    assert not any(p.requires_grad for p in GradientScorer(model).model.parameters())


def test_memory_does_not_grow_with_the_vocabulary(monkeypatch):
    """No tensor of the head pass holds tokens x V: the largest is one block."""
    monkeypatch.setitem(head.BLOCK_ELEMENTS, "cpu", 2**12)
    widths = []
    original = head.Head.logits

    def watched(self, h, rows):
        z, slope = original(self, h, rows)
        widths.append(z.numel())
        return z, slope

    monkeypatch.setattr(head.Head, "logits", watched)
    wide = head.Head(torch.randn(50_000, 8), None)
    labels = torch.arange(20)
    groups = head.group_rows(labels[None], torch.tensor([20]), labels, [20])
    head.head_pass(wide, torch.randn(20, 8), labels, groups)
    assert max(widths) <= 2**12
    assert sum(widths) >= 20 * 50_000


def test_unknown_head_is_refused_by_name():
    """Logits that are not what the head says stop the scorer before any number is made."""
    model = tiny.make_model("granite-logit-scaling")
    forward = model.forward

    def bent(**kwargs):
        output = forward(**kwargs)
        output.logits = output.logits.sinh()
        return output

    model.forward = bent
    with pytest.raises(ModelError, match="GraniteForCausalLM: its logits do not follow"):
        GradientScorer(model)


def test_adapted_embedding_is_refused_by_name():
    """An adapter on the head or the embedding has no plain weight to differentiate."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["lm_head"], r=2)
    model = get_peft_model(tiny.make_model("llama-untied"), config).get_base_model()
    with pytest.raises(ModelError, match="leave both out of the adapter"):
        GradientScorer(model)


def test_a_sample_without_labels_is_refused():
    """It would otherwise become 0 or NaN."""
    sample = tiny.make_samples()[0]
    sample.trained[:] = False
    with pytest.raises(ValueError, match="sample 0 of the batch has no trained token"):
        GradientScorer(tiny.make_model("gpt2")).score(*tiny.collate([sample], 0))
