"""Intervals, pairing, bootstrap and verdicts against cases worked out by hand; and the words."""

import numpy as np
import pytest

from grads.evaluation import intervals, results
from grads.evaluation.about import About, Leaks, MeasuredOn
from grads.evaluation.arms import Arm
from grads.evaluation.intervals import NONE, Estimate
from grads.evaluation.trials import TrialResult

T_2 = 4.30265  # 97.5% point of Student's t with two degrees of freedom


def test_interval_of_three_values_by_hand():
    """1, 2, 3: standard deviation 1, standard error 1/sqrt(3); p of t = 2 sqrt(3) from its CDF."""
    found = intervals.estimate(np.array([1.0, 2.0, 3.0]))
    assert found.mean == 2
    assert found.low == pytest.approx(2 - T_2 / np.sqrt(3), abs=1e-5)
    assert found.high == pytest.approx(2 + T_2 / np.sqrt(3), abs=1e-5)
    t = 2 * np.sqrt(3)
    assert found.p == pytest.approx(1 - t / np.sqrt(t**2 + 2))


def test_one_value_has_no_interval():
    assert intervals.estimate(np.array([1.5])) == Estimate(1.5, None, None, None)


@pytest.mark.parametrize(("value", "p"), [(0.0, 1.0), (0.25, 0.0)])
def test_equal_values_have_an_interval_of_no_width(value, p):
    assert intervals.estimate(np.full(3, value)) == Estimate(value, value, value, p)


def test_pairing_takes_the_seeds_that_both_have():
    """Differences -0.1, -0.2, -0.3: standard deviation 0.1."""
    ours = {0: 1.0, 1: 1.2, 2: 1.4, 7: 99.0}
    found = intervals.paired(ours, {0: 1.1, 1: 1.4, 2: 1.7, 8: -99.0})
    assert found.mean == pytest.approx(-0.2)
    assert found.high - found.mean == pytest.approx(T_2 * 0.1 / np.sqrt(3), rel=1e-5)
    assert intervals.verdict(found, higher_is_better=False) == NONE


def test_pairing_sees_what_two_intervals_hide():
    """Seeds differ by far more than the arms, but the arms differ by the same in each seed."""
    ours = {0: 1.00, 1: 2.01, 2: 3.02}
    theirs = {seed: value + 0.1 + 0.01 * (seed == 1) for seed, value in ours.items()}
    apart = [intervals.estimate(np.array(list(arm.values()))) for arm in (ours, theirs)]
    assert apart[0].high > apart[1].low
    assert intervals.verdict(intervals.paired(ours, theirs), False) == "better"


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "expected"),
    [
        (0.1, 0.3, True, "better"),
        (0.1, 0.3, False, "worse"),
        (-0.3, -0.1, True, "worse"),
        (-0.3, -0.1, False, "better"),
        (-0.1, 0.3, True, NONE),
        (0.0, 0.3, True, NONE),
        (None, None, True, NONE),
    ],
)
def test_verdict_never_goes_beyond_the_interval(low, high, higher_is_better, expected):
    assert intervals.verdict(Estimate(0.2, low, high, None), higher_is_better) == expected


def test_bootstrap_of_a_gap_that_all_samples_share_has_no_width():
    """Each of 20 samples of 5 tokens is better by 0.1 a token, in both seeds."""
    theirs = np.random.default_rng(0).random((2, 20))
    low, high = intervals.bootstrap(theirs - 0.5, theirs, np.full(20, 5.0))
    assert low == pytest.approx(-0.1)
    assert high == pytest.approx(-0.1)


def test_bootstrap_of_normal_gaps_is_as_wide_as_theory_says():
    gap = np.random.default_rng(0).normal(0.3, 1, (1, 1000))
    low, high = intervals.bootstrap(gap, np.zeros((1, 1000)), np.ones(1000))
    assert (low + high) / 2 == pytest.approx(gap.mean(), abs=0.01)
    assert high - low == pytest.approx(2 * 1.96 * gap.std() / np.sqrt(1000), rel=0.1)
    assert intervals.bootstrap(gap, np.zeros((1, 1000)), np.ones(1000)) == (low, high)


def test_bootstrap_sees_a_gap_that_hangs_on_one_sample():
    gap = np.zeros((3, 10))
    gap[:, 4] = -5
    low, high = intervals.bootstrap(gap, np.zeros((3, 10)), np.ones(10))
    assert low < -0.5
    assert high == 0


def test_break_even():
    assert intervals.break_even(600, 400, 100) == 2
    assert intervals.break_even(600, 100, 100) is None
    assert intervals.break_even(600, 100, 400) is None


# -- what results.py makes of them


def trials(heldout, general, samples=10):
    """Files of an arm whose one held-out and one general sample have these losses, by seed."""
    return {
        seed: TrialResult(
            arm="some",
            seed=seed,
            key=f"some-{seed}",
            samples=samples,
            response_tokens=50,
            sums={
                "heldout_loss": ([2 * a], [2.0]),
                "general_loss": ([b, b], [1.0, 1.0]),
                "general_kl": ([0.1, 0.1], [1.0, 1.0]),
            },
            files={"heldout": [0], "general": [0, 1]},
            steps=3,
            tokens=100,
            seconds=2.0,
            curve=[(1, 3.0)],
        )
        for seed, (a, b) in enumerate(zip(heldout, general, strict=True))
    }


MINE = Arm("mine", "selection", selection="mine", rival="random")
RANDOM = Arm("random", "random")


def compare(ours, theirs):
    return results.compare(MINE, ours, RANDOM, theirs)


def test_words_for_better_worse_and_none():
    flat = [2.0, 2.1, 2.2]
    found = compare(trials([1.50, 1.51, 1.49], [2.40, 2.51, 2.61]), trials([1.9] * 3, flat))
    assert (found.learning, found.forgetting) == ("better", "worse")
    assert found.metrics["heldout_loss"].difference == pytest.approx(-0.4)
    assert "has learned more (error on held-out questions lower by 0.400" in found.sentence
    assert "on general questions it does worse (error higher by 0.407" in found.sentence
    found = compare(trials([1.9] * 3, flat), trials([1.50, 1.51, 1.49], [2.40, 2.51, 2.61]))
    assert (found.learning, found.forgetting) == ("worse", "better")
    assert "has learned less" in found.sentence
    assert "on general questions it does better" in found.sentence
    found = compare(trials([1.5, 1.9, 1.7], flat), trials([1.7, 1.5, 1.8], flat))
    assert (found.learning, found.forgetting) == (NONE, NONE)
    assert found.sentence.startswith("The model trained on the 10 samples of 'mine'")
    assert "no difference in what was learned" in found.sentence
    assert "chance alone can explain it" in found.sentence


def test_one_seed_gives_no_interval_and_says_so():
    found = compare(trials([1.0], [2.0]), trials([9.0], [3.0]))
    assert (found.learning, found.forgetting) == (NONE, NONE)
    assert found.metrics["heldout_loss"].low is None
    assert "at least three seeds" in found.sentence
    row = results.summary(MINE, trials([1.0], [2.0]))
    assert row.interval["heldout_loss"] is None
    assert row.mean["heldout_loss"] == 1


def test_kl_alone_is_no_forgetting():
    """The predictions moved far from the base model's, the general loss did not."""
    ours, theirs = trials([1.0, 1.1, 1.2], [2.0] * 3), trials([1.0, 1.2, 1.1], [2.0] * 3)
    for seed, file in ours.items():
        file.sums["general_kl"] = ([5.0 + seed, 5.0], [1.0, 1.0])
    found = compare(ours, theirs)
    assert found.metrics["general_kl"].verdict == "worse"
    assert found.forgetting == NONE


def test_base_is_paired_with_every_seed():
    found = results.compare(
        MINE, trials([1.0, 1.1, 1.2], [2.0] * 3), Arm("base", "base"), trials([3.0], [1.0])
    )
    assert found.seeds == 3
    assert found.metrics["heldout_loss"].difference == pytest.approx(-1.9)
    assert found.learning == "better"
    assert found.forgetting == "worse"


def file_of(name):
    return MeasuredOn(name=name, samples=2, response_tokens=3, with_options=1, refused=0)


def on_two_files(first, second, general=2.0):
    """Trainings of an arm by seed: losses per token on two held-out files, the samples mixed."""
    found = trials([0.0] * len(first), [general] * len(first))
    for (a, b), trial in zip(zip(first, second, strict=True), found.values(), strict=True):
        trial.sums["heldout_loss"] = ([b, 2 * a, 2 * b, a], [1.0, 2.0, 2.0, 1.0])
        trial.files["heldout"] = [1, 0, 1, 0]
    return found


def test_each_file_has_its_own_numbers_and_verdict():
    """More learned on one file, less on the other; together nothing is seen."""
    done = {
        "mine": on_two_files([1.0, 1.1, 1.2], [2.0, 2.1, 2.2]),
        "random": on_two_files([1.4, 1.51, 1.6], [1.6, 1.7, 1.81]),
    }
    about = About([file_of("a"), file_of("b")], [file_of("g")], Leaks(near_duplicates=[]), [])
    assert compare(done["mine"], done["random"]).learning == NONE
    first, second = results.by_file([MINE, RANDOM], done, about)  # the one general file is all
    assert (first.probe, first.name, second.probe, second.name) == ("heldout", "a", "heldout", "b")
    assert {arm.label: arm.mean["heldout_loss"] for arm in first.arms} == {
        "mine": pytest.approx(1.1),
        "random": pytest.approx((1.4 + 1.51 + 1.6) / 3),
    }
    assert second.arms[0].mean["heldout_loss"] == pytest.approx(2.1)
    assert second.arms[0].mean["general_loss"] is None
    low, high = first.arms[0].interval["heldout_loss"]
    assert (low + high) / 2 == pytest.approx(1.1)
    assert [one.comparisons[0].verdict for one in (first, second)] == ["better", "worse"]
    assert list(first.comparisons[0].metrics) == ["heldout_loss"]
    assert first.comparisons[0].metrics["heldout_loss"].difference == pytest.approx(-1.21 / 3)


def test_no_file_is_told_of_before_an_arm_is_measured():
    about = About([file_of("a"), file_of("b")], [file_of("g")], Leaks(near_duplicates=[]), [])
    assert results.by_file([], {}, about) == []


def test_a_general_file_is_judged_by_forgetting():
    done = {label: trials([1.0] * 3, [2.0] * 3, samples=5) for label in ("mine", "random")}
    for seed, trial in done["mine"].items():
        trial.sums["general_loss"] = ([2.0, 3.0 + seed / 100], [1.0, 1.0])
    about = About([file_of("h")], [file_of("a"), file_of("b")], Leaks(near_duplicates=[]), [])
    verdicts = [one.comparisons[0].verdict for one in results.by_file([MINE, RANDOM], done, about)]
    assert verdicts == [NONE, "worse"]


def test_files_together_are_summed():
    whole = MeasuredOn.together([file_of("a"), file_of("b")])
    assert (whole.name, whole.samples, whole.response_tokens) == ("a, b", 4, 6)
    assert whole.with_options == 2
    assert MeasuredOn.together([file_of("a")]) == file_of("a")
