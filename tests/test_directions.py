"""Inner products with a probe set's mean gradient, and answers without their questions."""

import copy
import tracemalloc

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

from grads.data.tokens import IGNORE, TokenPool
from grads.engine import head
from grads.engine.gradients import GradientScorer
from grads.engine.probing import common_ends, mean_gradient, without_questions
from grads.engine.self_check import self_check
from grads.errors import ScoringError


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of a few columns, so that the tiny vocabulary is walked in many steps."""
    monkeypatch.setattr(head, "MIN_BLOCK", 8)
    monkeypatch.setitem(head.BLOCK_ELEMENTS, "cpu", 64)


def pool_of(samples):
    lengths = [len(sample.ids) for sample in samples]
    return TokenPool(
        sample_ids=np.arange(len(samples)),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        input_ids=np.concatenate([sample.ids for sample in samples]).astype(np.int32),
        trained=np.concatenate([sample.trained for sample in samples]),
    )


def reading(hidden):
    """Position-weighted mean of hidden states (T, d), of length 1."""
    weight = torch.arange(1, len(hidden) + 1).to(hidden.dtype)
    return F.normalize((weight[:, None] * hidden).sum(0) / weight.sum(), dim=0)


def expected_towards(model, samples, wanted):
    """By plain autograd, one V x d matrix a sample: rows of Towards' fields."""
    theirs = [tiny.gradients(model, sample) for sample in wanted]
    embed, out = (torch.stack([found[i] for found in theirs]).mean(0) for i in (0, 1))
    read = torch.stack([reading(found[2]) for found in theirs]).mean(0)
    rows = []
    for sample in samples:
        e, h, hidden = tiny.gradients(model, sample)
        dots = float((e * embed).sum()), float((h * out).sum())
        both = torch.sqrt(e.norm() ** 2 + h.norm() ** 2) * torch.sqrt(
            embed.norm() ** 2 + out.norm() ** 2
        )
        rows.append(
            (
                *dots,
                dots[0] / float(e.norm() * embed.norm()),
                dots[1] / float(h.norm() * out.norm()),
                sum(dots) / float(both),
                float(reading(hidden) @ read),
            )
        )
    return np.array(rows)


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_agrees_with_autograd(name, side):
    """Two sets at once, of several batches; one holds a sample of the pool."""
    model, samples = tiny.make_model(name), tiny.make_samples()
    sets = [tiny.make_samples(seed=1, lengths=(8, 21, 13)), [samples[2]]]
    expected = [expected_towards(model, samples, wanted) for wanted in sets]
    scorer = GradientScorer(model)
    directions = [
        mean_gradient(scorer, pool_of(wanted), batch_tokens=24, device="cpu") for wanted in sets
    ]
    found = scorer.score(*tiny.collate(samples, pad_id=0, side=side), directions)
    for towards, rows in zip(found.towards, expected, strict=True):
        mine = np.stack([np.asarray(values) for values in towards], axis=1)
        scale = np.abs(rows).max(axis=0)
        np.testing.assert_allclose(mine / scale, rows / scale, atol=2e-4)
    own = found.towards[1]
    for cosine in (own.embed_cosine, own.head_cosine, own.cosine, own.rds):
        assert float(cosine[2]) == pytest.approx(1, abs=1e-4)  # a sample lies on itself


def test_long_responses_take_the_second_pass():
    model = tiny.make_model("gpt2")
    samples, wanted = tiny.make_samples(lengths=(100, 6, 90)), tiny.make_samples(1, (70, 9))
    rows = expected_towards(model, samples, wanted)
    scorer = GradientScorer(model)
    direction = mean_gradient(scorer, pool_of(wanted), batch_tokens=80, device="cpu")
    (towards,) = scorer.score(*tiny.collate(samples, 0), [direction]).towards
    mine = np.stack([np.asarray(values) for values in towards], axis=1)
    np.testing.assert_allclose(mine, rows, rtol=2e-4, atol=1e-5)


def test_without_directions_the_scores_are_the_same():
    model, samples = tiny.make_model("llama-tied"), tiny.make_samples()
    scorer, batch = GradientScorer(model), tiny.collate(samples, 0)
    direction = mean_gradient(scorer, pool_of(samples), batch_tokens=64, device="cpu")
    plain, directed = scorer.score(*batch), scorer.score(*batch, [direction])
    assert plain.towards == []
    for name in ("loss", "embed_grad_norm", "head_grad_norm", "grad_dot"):
        assert torch.equal(getattr(plain, name), getattr(directed, name))


def test_well_learned_labels_keep_their_digits():
    """The label's entry is kept apart: else a dot loses its digits as 1 - p does."""
    torch.manual_seed(0)
    weight, gradient = torch.randn(40, 8).double(), torch.randn(40, 8).double()
    labels = torch.tensor([3, 17, 25])
    h = 45 * F.normalize(weight[labels], dim=1)
    ids, lengths = torch.zeros(1, 4, dtype=torch.long), torch.tensor([4])
    groups = head.group_rows(ids, lengths, labels, [3])

    def dots(dtype):
        side = head.HeadDirection(gradient.to(dtype), h.to(dtype))
        linear = head.Head(weight.to(dtype), None)
        return head.head_pass(linear, h.to(dtype), labels, groups, directions=[side]).signals.dots[
            0
        ]

    probability = (h @ weight.T).softmax(1)
    of_label = F.one_hot(labels, 40)
    others = probability * (1 - of_label)
    assert others.sum(1).max() < 1e-3
    d = others - of_label * others.sum(1, keepdim=True)  # 1 - p has no digits left in any format
    expected = (d * (h @ gradient.T)).sum(1)
    np.testing.assert_allclose(dots(torch.float64), expected, rtol=1e-6)
    np.testing.assert_allclose(dots(torch.float32), expected, rtol=1e-3)


def test_a_sketch_keeps_inner_products_on_average():
    model, samples = tiny.make_model("llama-untied"), tiny.make_samples()
    scorer, wanted = GradientScorer(model), pool_of(tiny.make_samples(1))
    batch = tiny.collate(samples, 0)

    def head_dots(**sketch):
        direction = mean_gradient(scorer, wanted, batch_tokens=64, device="cpu", **sketch)
        return direction, scorer.score(*batch, [direction]).towards[0]

    _, exact = head_dots()
    found = [head_dots(sketch=8, seed=seed) for seed in range(200)]
    assert found[0][0].head.shape == (tiny.VOCAB, 8)
    every = torch.stack([towards.head_dot for _, towards in found])
    error = every.std(0) / len(found) ** 0.5
    assert (torch.abs(every.mean(0) - exact.head_dot) < 4 * error).all()
    for _, towards in found[:3]:
        assert torch.allclose(towards.embed_dot, exact.embed_dot, rtol=1e-4)
    assert torch.allclose(head_dots(sketch=999)[1].head_dot, exact.head_dot, rtol=1e-4)


def test_the_self_check_sees_a_wrong_direction(monkeypatch):
    """A run with probe sets holds inner products against autograd too."""
    model, pool = tiny.make_model("llama-tied"), pool_of(tiny.make_samples())
    scorer = GradientScorer(model)
    assert self_check(scorer, pool, "cpu", directions=True).largest_relative_difference < 1e-4
    usual = head.logit_gradients

    def without_labels(*args, label_grad, **kwargs):
        return usual(*args, label_grad=0 * label_grad, **kwargs)

    monkeypatch.setattr("grads.engine.directions.logit_gradients", without_labels)
    self_check(scorer, pool, "cpu")
    with pytest.raises(ScoringError, match="differ from plain autograd"):
        self_check(scorer, pool, "cpu", directions=True)


def test_losses_alone_are_those_of_a_cross_entropy():
    for name in ("gpt2", "gemma2-softcap", "phi-head-bias"):
        model, samples = tiny.make_model(name), tiny.make_samples()
        batch = tiny.collate(samples, 0, side="left")
        found = GradientScorer(copy.deepcopy(model)).losses(*batch)
        expected = [tiny.reference(model, sample).loss for sample in samples]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


# -- answers without their questions


def tokens(*rows):
    """Rows of (ids, number of leading ids that are not trained), or of (ids, marks)."""
    samples = []
    for ids, marks in rows:
        trained = np.arange(len(ids)) >= marks if isinstance(marks, int) else np.array(marks, bool)
        samples.append(tiny.Sample(np.array(ids), trained))
    return pool_of(samples)


def test_what_is_common_to_all_prompts_stays():
    """1 2 begins every prompt and 8 9 ends it: the template's; between stands the question."""
    pool = tokens(([1, 2, 30, 31, 8, 9, 50, 51], 6), ([1, 2, 40, 8, 9, 60, 61, 62], 5))
    alone = without_questions(pool)
    assert alone.input_ids.tolist() == [1, 2, 8, 9, 50, 51, 1, 2, 8, 9, 60, 61, 62]
    assert alone.trained.tolist() == [*[False] * 4, *[True] * 2, *[False] * 4, *[True] * 3]
    assert alone.sample_ids.tolist() == [0, 1]


def test_later_questions_go_too():
    first = ([1, 30, 9, 50, 31, 32, 9, 51], [0, 0, 0, 1, 0, 0, 0, 1])
    alone = without_questions(tokens(first, ([1, 40, 41, 9, 60], 4)))
    assert alone.input_ids.tolist() == [1, 9, 50, 9, 51, 1, 9, 60]


def test_samples_without_a_question_of_their_own_are_left_out():
    """Texts that are trained whole ask nothing; equal questions tell nothing apart."""
    mixed = tokens(([1, 30, 9, 50], 3), ([60, 61, 62], 0), ([1, 31, 9, 51], 3))
    assert without_questions(mixed).sample_ids.tolist() == [0, 2]
    unlike = tokens(([30, 50], 1), ([31, 51], 1))
    assert len(without_questions(unlike)) == 0  # nothing would be left to begin with
    same = tokens(([1, 30, 9, 50], 3), ([1, 30, 9, 51], 3))
    assert len(without_questions(same)) == 0


def test_the_answers_of_a_large_pool_lie_on_disk(tmp_path):
    """As the pool's own tokens do: in memory, pieces and their join took twice its size."""
    n, width = 2_000, 200
    ids = np.tile(np.arange(width, dtype=np.int32), (n, 1))
    ids[:, 50:60] = np.arange(n)[:, None]  # the questions
    trained = np.tile(np.arange(width) >= 100, n)
    pool = TokenPool(np.arange(n), width * np.arange(n + 1), ids.ravel(), trained)
    tracemalloc.start()
    alone = without_questions(pool, tmp_path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (alone.lengths == width - 10).all()
    assert most < pool.input_ids.nbytes / 4
    assert not list(tmp_path.iterdir())


def test_common_ends():
    rows = [np.array([1, 2, 3, 9]), np.array([1, 2, 4, 5, 9])]
    assert common_ends(rows) == (2, 1)
    assert common_ends([np.array([1, 2])] * 2) == (2, 2)
    assert common_ends([np.array([], int), np.array([1])]) == (0, 0)
    assert IGNORE == -100
