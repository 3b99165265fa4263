"""The job of a search: pilots on one half of the test samples, the winner again on the other."""

from dataclasses import dataclass

import numpy as np

from grads.config.evaluation import TuneConfig
from grads.evaluation import results, texts, tuning
from grads.evaluation.about import About, MeasuredOn
from grads.evaluation.arms import BASE
from grads.evaluation.metrics import FORGETTING, LEARNING
from grads.evaluation.points import Noise, Point
from grads.evaluation.price import prices
from grads.evaluation.probes import load_probes
from grads.evaluation.result import Comparison, Overlap, TuneResult
from grads.evaluation.results import Trials
from grads.evaluation.trials import read_trials
from grads.evaluation.tuning import FINAL, PILOT
from grads.jobs.job import Job
from grads.selection import subsets
from grads.selection.pool import Pool
from grads.stages.lab import Lab
from grads.store.folders import Evaluation
from grads.store.lines import broken_lines


def tune(job: Job[Evaluation], config: TuneConfig) -> None:
    """Pilots of the whole grid, then the winner against random with fresh seeds and samples."""
    search, run = job.folder, job.folder.run
    job.stage("prepare")
    scored = Pool(run)
    lab = Lab(job, config)
    probes = load_probes(run, config, lab.tokenizer)
    probes.about.notes.extend(broken_lines(run.unreadable_decisions()))
    lab.measure_on(probes.heldout, probes.general)
    heldout, general = tuning.halves(len(probes.heldout)), tuning.halves(len(probes.general))
    first, second = (
        (probes.heldout.part(a), probes.general.part(b))
        for a, b in zip(heldout, general, strict=True)
    )
    overlap = tuning.overlap(scored, config.ratio)

    def found(finished: bool) -> TuneResult:
        return conclude(search, config, probes.about, overlap, finished=finished)

    job.stage("pilots", "token passes")
    pilots = tuning.pilot_trials(scored, config)
    measured = [sum(probe.tokens for probe in half) for half in (first, second)]
    later = lab.work(tuning.likely_finals(scored, config), measured[1])
    lab.expect(pilots, measured[0], later)
    for trial in pilots:
        found(finished=False).write(search.result_file)
        lab.finish(trial, *first)
    winner = found(finished=False).winner
    if winner is not None:
        job.stage("second test", "token passes")
        finals = tuning.final_trials(scored, config, winner)
        lab.expect(finals, measured[1])
        for trial in finals:
            lab.finish(trial, *second)
    result = found(finished=True)
    if result.selection is not None and winner is not None:
        subsets.select_samples(run, config.save_as, tuning.grid(config)[winner])
    result.write(search.result_file)
    lab.tidy()


def conclude(
    search: Evaluation, config: TuneConfig, about: About, overlap: Overlap, *, finished: bool
) -> TuneResult:
    """What a search has found, from the files that are there."""
    planned = tuning.planned(config)
    trials = list(read_trials(search).values())
    pilot, final = (
        results.by_arm(planned, (trial for trial in trials if trial.phase == phase))
        for phase in (PILOT, FINAL)
    )
    shown = [arm for arm in planned if arm.label in pilot]
    complete = len(shown) == len(planned) and len(pilot["random"]) == config.seeds
    picture = _picture(pilot) if "random" in pilot and BASE in pilot else None
    winner = _winner(picture) if complete and picture else None
    confirmation = None
    if finished and winner is not None:
        by_label = {arm.label: arm for arm in planned}
        confirmation = results.compare(
            by_label[winner], final[winner], by_label["random"], final["random"]
        )
    named = confirmation is not None and (
        confirmation.learning == "better" and confirmation.forgetting != "worse"
    )
    return TuneResult(
        kind="tune",
        arms=[results.summary(arm, pilot[arm.label]) for arm in shown],
        **(vars(picture) if picture else {}),
        winner=winner,
        confirmation=confirmation,
        confirmation_arms=[
            results.summary(arm, final[arm.label]) for arm in planned if arm.label in final
        ],
        selection=config.save_as if named else None,
        sentence=_sentence(config, winner, confirmation, named=named, finished=finished),
        comparisons=[confirmation] if confirmation else [],
        price=prices(search.run, shown, pilot),
        break_even={},
        heldout=MeasuredOn.together(about.heldout),
        heldout_files=about.heldout,
        general=about.general,
        by_file=results.by_file([arm for arm in planned if arm.label in final], final, about),
        leaks=about.leaks,
        notes=about.notes,
        overlap=overlap,
        finished=finished,
    )


@dataclass(frozen=True)
class _Picture:
    """Learning against forgetting, the noise of one pilot, and the settings none is better than."""

    points: dict[str, Point]
    noise: Noise
    front: list[str]


def _picture(pilot: dict[str, Trials]) -> _Picture:
    base = _mean(pilot[BASE], FORGETTING)
    points = {
        label: Point(learning=_mean(trials, LEARNING), forgetting=_mean(trials, FORGETTING) - base)
        for label, trials in pilot.items()
    }
    learning, forgetting = (
        tuning.noise(np.array(list(results.values(pilot["random"], metric).values())))
        for metric in (LEARNING, FORGETTING)
    )
    of_one_size = {
        label: (point.learning, point.forgetting)
        for label, point in points.items()
        if label not in (BASE, "full")
    }
    return _Picture(
        points=points,
        noise=Noise(learning=learning, forgetting=forgetting),
        front=tuning.pareto_front(of_one_size),
    )


def _mean(trials: Trials, metric: str) -> float:
    return float(np.mean(list(results.values(trials, metric).values())))


def _winner(picture: _Picture) -> str | None:
    points = {label: (point.learning, point.forgetting) for label, point in picture.points.items()}
    settings = {
        label: point for label, point in points.items() if label not in (BASE, "full", "random")
    }
    return tuning.pick(settings, points["random"], picture.noise.forgetting or 0.0)


def _sentence(
    config: TuneConfig,
    winner: str | None,
    confirmation: Comparison | None,
    *,
    named: bool,
    finished: bool,
) -> str:
    if not finished:
        return texts.SEARCHING
    if winner is None:
        return texts.NO_WINNER
    assert confirmation is not None
    told = texts.SAVED if named else texts.NOT_CONFIRMED
    return told.format(winner=winner, name=config.save_as, comparison=confirmation.sentence)
