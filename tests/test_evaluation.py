"""What is measured of a model, against brute force; which arms there are; the search's rules."""

import copy
import json

import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch
from chain import WORDS, save_tiny_model
from run_dirs import demo_run

from grads import api
from grads.config.evaluation import EvaluationConfig, TuneConfig
from grads.data.tokens import TokenPool
from grads.data.turns import Turn
from grads.engine import models
from grads.errors import ConfigError, EvaluationError, Stopped
from grads.evaluation import answers, arms, cost, texts, tuning
from grads.evaluation import measure as evaluation
from grads.evaluation.answers import positions
from grads.evaluation.arms import Arm, Trial, training_passes
from grads.evaluation.measure import Probe, Reference, measure
from grads.evaluation.probes import load_probes
from grads.selection.options import SelectionConfig
from grads.stages.evaluation import asked, changed_since
from grads.store.bundled import DEMO


def make_probe(n=7, seed=0):
    """Samples of mixed length; every other one has three options over the same prompt."""
    rng = np.random.default_rng(seed)
    samples = tiny.make_samples(seed, tuple(rng.integers(6, 30, n)))
    pool = to_pool(range(n), samples)
    options, owners, answers = [], [], {}
    for i in range(0, n, 2):
        start = len(samples[i].ids) // 2
        for _ in range(3):
            own = rng.integers(3, tiny.VOCAB, rng.integers(1, 6))
            ids = np.concatenate([samples[i].ids[:start], own])
            trained = np.arange(len(ids)) >= start
            options.append(tiny.Sample(ids, trained))
            owners.append(i)
        answers[i] = int(rng.integers(0, 3))
    turns = [[Turn("user", "a"), Turn("assistant", "b")]] * n
    source = np.arange(n) % 2
    return Probe("general", pool, turns, source, to_pool(owners, options), answers), samples


def to_pool(ids, samples):
    return TokenPool.from_table(
        pa.table(
            {
                "sample_id": pa.array(list(ids), pa.int64()),
                "input_ids": pa.array([s.ids.tolist() for s in samples], pa.large_list(pa.int32())),
                "trained": pa.array(
                    [s.trained.tolist() for s in samples], pa.large_list(pa.bool_())
                ),
            }
        )
    )


@pytest.fixture(scope="module")
def model():
    return tiny.make_model("llama-tied")


@pytest.fixture(scope="module")
def moved(model):
    """The same model with every weight perturbed by a known amount."""
    other = copy.deepcopy(model)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return other


def by_hand(model, sample):
    """Log-probabilities (R, V) in float64 at response positions, and their targets."""
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(np.asarray(sample.ids))[None].long()).logits[0]
    places = np.flatnonzero(sample.trained[1:])
    return torch.log_softmax(logits[places], dim=-1), torch.from_numpy(sample.ids[1:][places])


def test_loss_and_token_accuracy_against_brute_force(model):
    probe, samples = make_probe()
    found = measure(model, probe, 60, "cpu")
    for i, sample in enumerate(samples):
        log_probs, targets = by_hand(model, sample)
        expected = -log_probs[torch.arange(len(targets)), targets.long()].sum().item()
        assert found["loss"][0][i] == pytest.approx(expected, rel=1e-5)
        assert found["accuracy"][0][i] == (log_probs.argmax(-1) == targets).sum().item()
        assert found["loss"][1][i] == found["accuracy"][1][i] == len(targets)
    assert "kl" not in found


def test_kl_against_brute_force_in_float64(model, moved, tmp_path):
    """All positions compared: the base model read back from its file, the other one perturbed."""
    probe, samples = make_probe()
    reference = Reference(tmp_path / "reference.npy", probe)
    with reference.being_written():
        measure(model, probe, 60, "cpu", reference=reference)
    total, positions = 0.0, 0
    for sample in samples:
        base, other = (by_hand(m, sample)[0] for m in (model, moved))
        total += (base.exp() * (base - other)).sum().item()
        positions += len(base)
    found = measure(moved, probe, 1000, "cpu", reference=Reference(reference.path, probe))["kl"]
    assert found[1].sum() == positions
    assert total / positions > 0.01
    assert found[0].sum() == pytest.approx(total, rel=2e-3)
    same = measure(model, probe, 1000, "cpu", reference=Reference(reference.path, probe))["kl"]
    assert abs(same[0].sum() / positions) < 1e-5


def test_kl_of_two_distributions_by_hand(tmp_path):
    """Uniform over four against (1/2, 1/4, 1/8, 1/8): a quarter of ln 2."""
    sample = tiny.Sample(np.array([1, 2, 3]), np.array([False, True, True]))
    probe = Probe("x", to_pool([0], [sample]), [[]], np.zeros(1, int), to_pool([], []), {})
    reference = Reference(tmp_path / "r.npy", probe)
    with reference.being_written():
        reference.divergence(np.array([0]), torch.full((2, 4), 0.25).log())
    other = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.25] * 4]).log()
    total, number = Reference(reference.path, probe).divergence(np.array([0]), other)
    assert total[0] == pytest.approx(0.25 * np.log(2), rel=1e-3)
    assert number[0] == 2


def test_kl_takes_the_same_few_positions_for_every_model(model, moved, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "KL_POSITIONS", 9)
    probe, samples = make_probe()
    reference = Reference(tmp_path / "reference.npy", probe)
    with reference.being_written():
        measure(model, probe, 60, "cpu", reference=reference)
    assert np.load(reference.path).shape == (9, tiny.VOCAB)
    found = measure(moved, probe, 60, "cpu", reference=Reference(reference.path, probe))["kl"]
    base, other = (torch.cat([by_hand(m, s)[0] for s in samples]) for m in (model, moved))
    each = (base.exp() * (base - other)).sum(dim=-1)[reference.chosen]
    assert found[1].sum() == 9
    assert found[0].sum() == pytest.approx(each.sum().item(), rel=2e-3)


def test_option_accuracy_against_a_brute_force_count(model):
    probe, _ = make_probe(n=41)
    hits, asked = measure(model, probe, 200, "cpu")["option_accuracy"]
    expected = np.zeros(41)
    for position, right in probe.answers.items():
        scores = []
        for j in np.flatnonzero(probe.options.sample_ids == position):
            span = slice(probe.options.offsets[j], probe.options.offsets[j + 1])
            option = tiny.Sample(probe.options.input_ids[span], probe.options.trained[span])
            log_probs, targets = by_hand(model, option)
            scores.append(log_probs[torch.arange(len(targets)), targets.long()].mean().item())
        expected[position] = scores.index(max(scores)) == right
    assert asked.sum() == 21
    assert hits.tolist() == expected.tolist()
    assert 0 < hits.sum() < 21


def test_of_equal_options_the_first_is_chosen(model):
    sample = tiny.Sample(np.array([5, 6, 7, 8]), np.array([False, False, True, True]))
    twins = to_pool([0, 0], [sample, sample])
    for right, expected in ((0, 1.0), (1, 0.0)):
        probe = Probe("x", to_pool([0], [sample]), [[]], np.zeros(1, int), twins, {0: right})
        assert measure(model, probe, 100, "cpu")["option_accuracy"][0][0] == expected


def test_options_mark_only_their_own_tokens(tmp_path):
    """An earlier answer of the assistant is the prompt's; one that is cut makes the row unfit."""
    save_tiny_model(tmp_path)
    tokenizer = models.load_tokenizer(str(tmp_path))
    turns = [
        Turn("user", "the heart?"),
        Turn("assistant", "lung blood"),
        Turn("user", "cough?"),
        Turn("assistant", "never read"),
    ]
    texts = ["pain rest", "water"]
    found = evaluation.encode_options(turns, texts, tokenizer, 64)
    for text, option in zip(texts, found, strict=True):
        own = tokenizer.decode(option.input_ids[option.trained])
        assert own.split() == [*text.split(), "</s>"]
    assert evaluation.encode_options(turns, [*texts, " ".join(WORDS * 9)], tokenizer, 64) is None


def test_parts_of_a_probe_measure_as_the_whole(model):
    probe, _ = make_probe(n=9)
    whole = measure(model, probe, 100, "cpu")
    index = np.array([1, 4, 6])
    part = measure(model, probe.part(index), 100, "cpu")
    for name in ("loss", "accuracy", "option_accuracy"):
        np.testing.assert_allclose(part[name][0], whole[name][0][index], rtol=1e-5)
    assert measure(model, probe.part(np.array([1])), 100, "cpu").keys() == {"loss", "accuracy"}


def test_measuring_stops_between_batches(model):
    probe, _ = make_probe()
    tokens = []
    with pytest.raises(Stopped):
        measure(model, probe, 30, "cpu", report=tokens.append, should_stop=lambda: len(tokens) == 2)
    assert sum(tokens) < probe.tokens
    measure(model, probe, 30, "cpu", report=tokens.append)
    assert sum(tokens[2:]) == probe.tokens


def test_an_answer_continues_the_prompt_greedily(tmp_path):
    """Token by token, as the highest logit says."""
    save_tiny_model(tmp_path)
    tokenizer = models.load_tokenizer(str(tmp_path))
    model = models.load_model(str(tmp_path), "cpu", torch.float32)
    turns = [Turn("user", "the heart?"), Turn("assistant", "lung")]
    written = answers.write_answer(model, tokenizer, turns)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": turns[0].content}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = len(ids)
    while len(ids) < start + cost.ANSWER_TOKENS and (ids[-1] != 2 or len(ids) == start):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert written == tokenizer.decode(ids[start:], skip_special_tokens=True).strip()


# -- settings and the rules of the search


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"criteria": ["random"], "ratio": 0.1}, "an arm by itself"),
        ({"criteria": ["magnitude"]}, "criteria need a size"),
        ({"selections": ["a", "a"]}, "selection 'a' is named twice"),
        ({"selections": ["a"], "seeds": 0}, "seeds is 0"),
        ({"arms": []}, "no arm"),
        ({"selections": ["a"], "arms": ["best"]}, "arms.0 is 'best'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        EvaluationConfig.parse(values)


def test_work_of_a_training_follows_steps():
    recipe = EvaluationConfig(selections=("a",), epochs=2, batch_size=4)
    lengths, ids = np.full(10, 7), np.arange(10)
    assert training_passes(lengths, Trial("a", 0, ids, None), recipe) == 3 * 2 * 70
    assert training_passes(lengths, Trial("a", 0, ids, 30), recipe) == 3 * 10 * 70


@pytest.mark.parametrize(
    ("values", "redrawn"),
    [
        ({}, True),
        ({"criterion": "random"}, True),
        ({"draw": "top"}, False),
        ({"auto": True}, False),
    ],
)
def test_a_seed_redraws_what_is_drawn_by_lot(values, redrawn):
    """The default, as a further criterion too, is another subset under every seed."""
    options = SelectionConfig(**({"ratio": 0.1} if "auto" not in values else {}), **values)
    assert Arm("some", "criterion", options=options).redrawn == redrawn
    assert not Arm("full", "full").redrawn


def test_the_grid_holds_random_and_refuses_unknown_names():
    assert 9 <= len(tuning.GRID) <= 12
    names = list(tuning.grid(TuneConfig(settings=("density",), ratio=0.2)))
    assert names == ["random", "density"]
    chosen = tuning.grid(TuneConfig(ratio=0.2))
    assert chosen["typical-low-sample"] == SelectionConfig(ratio=0.2), "the default is among them"
    assert len(set(chosen.values())) == len(chosen)
    with pytest.raises(EvaluationError, match="no setting 'best' in the grid: there are random"):
        tuning.grid(TuneConfig(settings=("best",)))


def test_halves_share_nothing_and_miss_nothing():
    first, second = tuning.halves(11)
    assert sorted([*first, *second]) == list(range(11))
    with pytest.raises(EvaluationError, match="there are 1 samples"):
        tuning.halves(1)


def test_noise_of_one_pilot_by_hand():
    """Values 1, 2, 3: t (4.303) times their spread (1) times sqrt(1 + 1/3)."""
    assert tuning.noise(np.array([1.0, 2.0, 3.0])) == pytest.approx(4.30265 * np.sqrt(4 / 3))
    assert tuning.noise(np.array([1.0])) is None


def test_the_winner_learns_more_and_forgets_no_more_than_noise_allows():
    points = {"a": (1.0, 2.6), "b": (1.2, 2.05), "c": (1.3, 1.9), "d": (1.6, 1.0)}
    random = (1.5, 2.0)
    assert tuning.pick(points, random, allowance=0.1) == "b"
    assert tuning.pick(points, random, allowance=1.0) == "a"
    assert tuning.pick(points, random, allowance=0.0) == "c"
    assert tuning.pick({"d": points["d"]}, random, allowance=1.0) is None
    assert set(tuning.pareto_front(points)) == {"a", "b", "c", "d"}
    assert tuning.pareto_front(points | {"e": (1.1, 1.9)}) == ["a", "d", "e"]


def test_configs_survive_the_way_through_json():
    for config in (EvaluationConfig(selections=("a",), seeds=2), TuneConfig(ratio=0.3)):
        assert type(config).parse(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(
    ("stored", "files"),
    [(None, ()), ("a.jsonl", ("a.jsonl",)), (["a.jsonl", "b.jsonl"], ("a.jsonl", "b.jsonl"))],
)
def test_one_held_out_file_or_none_is_what_settings_held_before(stored, files):
    for kind in (EvaluationConfig, TuneConfig):
        assert kind.parse({"heldout": stored}).heldout == files


def test_several_held_out_files_are_one_set_that_remembers_its_files(tmp_path):
    """Of one name they are told apart by their place; of each the first rows count."""
    run = demo_run(tmp_path)
    rows = (DEMO / "medical_qa_heldout.jsonl").read_text().splitlines(keepends=True)
    files = []
    for name, part in (("x", rows[:9]), ("y", rows[9:20])):
        (tmp_path / name).mkdir()
        files.append(tmp_path / name / "test.jsonl")
        files[-1].write_text("".join(part))
    recipe = EvaluationConfig(
        selections=("grads-10",), heldout=tuple(map(str, files)), heldout_limit=8
    )
    found = load_probes(run, recipe, models.load_tokenizer("demo"))
    assert [one.name for one in found.about.heldout] == [str(file) for file in files]
    assert [one.samples for one in found.about.heldout] == [8, 8]
    assert found.heldout.source.tolist() == [0] * 8 + [1] * 8
    assert positions(found.heldout) == [0, 1, 8, 9], "of each file in turn"
    assert [(prompt.file, prompt.row) for prompt in asked(found)] == [
        (str(file), row) for file in files for row in (0, 1)
    ]


def test_general_rows_that_are_trained_on_or_protected_are_told_of(tmp_path):
    """What stands in the pool is not forgotten, and what is protected was chosen for."""
    run = demo_run(tmp_path)
    (protected,) = (n for n, one in run.read_manifest().probes.items() if one.role == "protect")
    taught = run.read_sample(int(api.load_pool(run).scores.sample_id[0]))["turns"]
    kept = run.read_table(run.probe_set_file(protected), ["turns"])["turns"].to_pylist()[:2]
    rows = [
        [{key: turn[key] for key in ("role", "content")} for turn in t] for t in (taught, *kept)
    ]
    rows.append([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}])
    file = tmp_path / "general.jsonl"
    file.write_text("\n".join(json.dumps({"messages": row}) for row in rows))
    config = EvaluationConfig(
        selections=("grads-10",),
        heldout=(str(DEMO / "medical_qa_heldout.jsonl"),),
        general=(str(file),),
    )
    found = load_probes(run, config, models.load_tokenizer("demo"))
    assert [note for note in found.about.notes if "general samples" in note] == [
        texts.TAUGHT.format(count=1),
        texts.PROTECTED_BY.format(count=2, name=protected),
    ]


def test_notes_name_vetoed_and_corrected_samples_that_a_later_seed_draws(tmp_path):
    """The saved subset holds neither of them, so it is not stale; the draw of seed 1 does."""
    run = demo_run(tmp_path)
    config = EvaluationConfig(selections=("grads-10",), arms=("selection",), seeds=2)
    pool = api.load_pool(run)
    planned = arms.plan(run, config, len(pool))
    trials = arms.trials(pool, planned, config, config.repetitions)
    saved, later = (set(t.sample_ids.tolist()) for t in trials if t.arm == "grads-10")
    assert changed_since(run, planned, trials) == []
    veto, corrected = sorted(later - saved)[:2]
    api.decide(run, veto, "exclude")
    api.correct(run, corrected, ("answer",), "Otherwise.")
    assert api.stale(run, "grads-10") == []
    assert changed_since(run, planned, trials) == [
        f"people have decided otherwise about samples [{veto}] since 'grads-10' was saved",
        f"samples [{corrected}] of 'grads-10' are corrected since; arms train what was scored",
    ]


def test_an_estimate_counts_the_loading_of_every_model(tmp_path):
    run = demo_run(tmp_path)
    config = EvaluationConfig(
        selections=("grads-10",), heldout=(str(DEMO / "medical_qa_heldout.jsonl"),)
    )
    run.update_manifest(load_seconds=0.0)  # as runs from before say
    before = api.estimate_evaluation(run, config)
    run.update_manifest(load_seconds=7.0)
    after = api.estimate_evaluation(run, config)
    assert after.seconds == pytest.approx(before.seconds + 7 * before.arms, abs=0.2)


@pytest.mark.parametrize("layout", ["text", "chosen"])
def test_how_the_runs_own_rows_are_read_is_not_asked_of_other_files(tmp_path, layout):
    run = demo_run(tmp_path)
    values = json.loads(run.config_file.read_text())
    run.config_file.write_text(json.dumps(values | {"layout": layout}))
    recipe = EvaluationConfig(
        selections=("grads-10",), heldout=(str(DEMO / "medical_qa_heldout.jsonl"),)
    )
    found = load_probes(run, recipe, models.load_tokenizer("demo"))
    assert (len(found.heldout), len(found.general)) == (40, 120)
