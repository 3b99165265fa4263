"""The end of an evaluation, foreseen by what is done and, before that, by the run's own speed."""

import pytest
from run_dirs import demo_run

from grads.config.evaluation import EvaluationConfig
from grads.evaluation.cost import passes_a_second
from grads.evaluation.pace import Ahead, Pace
from grads.evaluation.trials import TrialResult

RECIPE = EvaluationConfig.parse({"selections": ["clean-10"]})


@pytest.fixture
def run(tmp_path):
    found = demo_run(tmp_path)
    found.update_manifest(load_seconds=4.0)
    return found


def trial(tokens, seconds, **more):
    about = {"arm": "a", "seed": 0, "key": "k", "samples": 9, "response_tokens": 1, "steps": 1}
    return TrialResult.model_validate(
        about | {"tokens": tokens, "seconds": seconds, "curve": [], "sums": {}} | more
    )


def test_before_any_is_done_the_run_tells(run):
    rate, _ = passes_a_second(run, RECIPE)
    pace = Pace(run, RECIPE)
    ahead = [Ahead(training=3000, measured=500), Ahead(training=0, measured=500)]
    assert pace.left(ahead) == pytest.approx(4000 / rate + 2 * 4.0)
    begun = [Ahead(training=3000, measured=500, done=3100), ahead[1]]
    assert pace.left(begun) == pytest.approx(900 / rate + 4.0), "its model is loaded"
    assert pace.left([]) == 0


def test_what_is_done_tells_by_its_tokens_and_by_what_came_beside(run):
    pace = Pace(run, RECIPE)
    pace.finished(trial(tokens=1000, seconds=30.0), seconds=36.0)  # 0.01 s a pass, 6 s beside
    pace.finished(trial(tokens=0, seconds=0.0), seconds=8.0)
    ahead = Ahead(training=6000, measured=500)
    assert pace.left([ahead, ahead]) == pytest.approx(2 * (60 + 7))
    half_measured = Ahead(training=6000, measured=500, done=6250)
    assert pace.left([half_measured]) == pytest.approx(3.5)


def test_of_earlier_attempts_the_trainings_tell_and_of_other_evaluations_nothing(run):
    pace = Pace(run, RECIPE)
    pace.finished(trial(tokens=1000, seconds=30.0))
    pace.finished(trial(tokens=1000, seconds=9999.0, taken_from="another"))
    rate, _ = passes_a_second(run, RECIPE)
    assert pace.left([Ahead(6000, 500)]) == pytest.approx(60 + 4.0 + 500 / rate)


def test_without_any_speed_nothing_is_told_until_one_is_done(run):
    run.metrics_file.unlink()
    pace = Pace(run, RECIPE)
    assert pace.left([Ahead(100, 10)]) is None
    pace.finished(trial(tokens=0, seconds=0.0), seconds=8.0)  # the untrained model
    assert pace.left([Ahead(100, 10)]) is None
    pace.finished(trial(tokens=100, seconds=3.0), seconds=11.0)
    assert pace.left([Ahead(100, 10)]) == pytest.approx(1 + 8)
