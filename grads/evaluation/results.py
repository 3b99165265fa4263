"""From the finished trainings to what they show: means, intervals, comparisons, notes."""

from collections.abc import Iterable

import numpy as np

from grads.evaluation import curves, intervals, sentences, texts
from grads.evaluation.about import About, MeasuredOn
from grads.evaluation.arms import BASE, Arm
from grads.evaluation.intervals import NONE, Verdict
from grads.evaluation.metrics import DECIDES, FORGETTING, LEARNING, Shown
from grads.evaluation.price import break_evens, prices
from grads.evaluation.result import (
    Answers,
    ArmResult,
    Compared,
    Comparison,
    EvaluationResult,
    FileComparison,
    FileResult,
    Means,
    MetricResult,
    Probe,
    Prompt,
    SeedResult,
)
from grads.evaluation.trials import TrialResult, read_trials
from grads.store.folders import Evaluation
from grads.store.runs import Run

__all__ = ["FORGETTING", "LEARNING"]  # what the verdicts go by, for those who show them
Trials = dict[int, TrialResult]  # finished trainings of one arm by seed


def write(
    evaluation: Evaluation,
    planned: list[Arm],
    about: About,
    *,
    prompts: list[Prompt],
    finished: bool,
) -> None:
    """Write result.json and answers.json from the arms that are there."""
    done = by_arm(planned, read_trials(evaluation).values())
    build(evaluation.run, planned, done, about, finished=finished).write(evaluation.result_file)
    answers(prompts, done).write(evaluation.answers_file)


def by_arm(planned: list[Arm], trials: Iterable[TrialResult]) -> dict[str, Trials]:
    """The trainings of each planned arm that has some, by its label."""
    found: dict[str, Trials] = {arm.label: {} for arm in planned}
    for trial in trials:
        if trial.arm in found:
            found[trial.arm][trial.seed] = trial
    return {label: trials for label, trials in found.items() if trials}


def build(
    run: Run, planned: list[Arm], done: dict[str, Trials], about: About, *, finished: bool
) -> EvaluationResult:
    """What the trainings that are done show; `planned` gives the order."""
    shown = [arm for arm in planned if arm.label in done]
    comparisons = compare_all(shown, done)
    price = prices(run, shown, done)
    summaries = {arm.label: summary(arm, done[arm.label]) for arm in shown}
    return EvaluationResult(
        arms=list(summaries.values()),
        comparisons=comparisons,
        price=price,
        break_even=break_evens(shown, price),
        leaks=about.leaks,
        notes=about.notes + _notes(planned, done, comparisons),
        heldout=MeasuredOn.together(about.heldout),
        heldout_files=about.heldout,
        general=about.general,
        by_file=by_file(shown, done, about),
        tasks_digest=about.tasks_digest,
        tasks=next((t.tasks for trials in done.values() for t in trials.values()), []),
        replay=curves.replays(shown, summaries),
        curve=curves.over_budgets(shown, summaries),
        finished=finished,
    )


def values(trials: Trials, metric: str) -> dict[int, float]:
    """A metric by seed, of the seeds that were measured by it."""
    found = {seed: trial.value(metric) for seed, trial in sorted(trials.items())}
    return {seed: number for seed, number in found.items() if number is not None}


def _shown(trials: Trials) -> dict[str, Shown]:
    return {name: shown for trial in trials.values() for name, shown in trial.shown.items()}


def means(label: str, trials: Trials) -> Means:
    """Every metric of one arm over its seeds."""
    shown = _shown(trials)
    mean: dict[str, float | None] = dict.fromkeys(shown)
    interval: dict[str, tuple[float, float] | None] = dict.fromkeys(shown)
    for metric in shown:
        numbers = np.array(list(values(trials, metric).values()))
        if not len(numbers):
            continue
        found = intervals.estimate(numbers)
        mean[metric] = found.mean
        if found.low is not None and found.high is not None:
            interval[metric] = (found.low, found.high)
    return Means(label=label, mean=mean, interval=interval)


def summary(arm: Arm, trials: Trials) -> ArmResult:
    """What result.json says of one arm."""
    return ArmResult(
        arm=arm.kind,
        selection=arm.selection,
        kind=arm.kind,
        samples=trials[min(trials)].samples,
        replay=arm.replay.share if arm.replay else 0.0,
        replay_rows=trials[min(trials)].replay_rows,
        budget=arm.budget,
        response_tokens=round(np.mean([trial.response_tokens for trial in trials.values()])),
        seeds=[_of_seed(seed, trial) for seed, trial in sorted(trials.items())],
        **vars(means(arm.label, trials)),
    )


def _of_seed(seed: int, trial: TrialResult) -> SeedResult:
    return SeedResult(
        seed=seed,
        steps=trial.steps,
        tokens=trial.tokens,
        seconds=trial.seconds,
        curve=trial.curve,
        **{metric: trial.value(metric) for metric in trial.shown},
    )


# -- comparisons


def compare_all(shown: list[Arm], done: dict[str, Trials]) -> list[Comparison]:
    """Every pair of arms, on all that was measured."""
    return [compare(arm, done[arm.label], other, done[other.label]) for arm, other in _pairs(shown)]


def _pairs(shown: list[Arm]) -> list[tuple[Arm, Arm]]:
    """Each subset against random ones of its size, one with replay against the subset alone, each
    against full, and every arm against base."""
    by_label = {arm.label: arm for arm in shown}
    pairs = [(arm, by_label[arm.rival]) for arm in shown if arm.rival in by_label]
    pairs += [(arm, by_label[arm.alone]) for arm in shown if arm.alone in by_label]
    if "full" in by_label and by_label["full"].kind == "full":
        pairs += [(arm, by_label["full"]) for arm in shown if arm.declared.once]
    pairs += [(arm, by_label[BASE]) for arm in shown if arm.kind != BASE and BASE in by_label]
    return pairs


def compare(arm: Arm, ours: Trials, other: Arm, theirs: Trials) -> Comparison:
    """One arm against another.

    Learning is judged by the loss on held-out samples, forgetting by the loss on general samples:
    a model that forgets gets worse at what it could do. KL is shown beside it and decides nothing,
    for it also grows with changes that harm nothing.
    """
    compared = _compared(arm, ours, other, theirs)
    seeds, metrics, samples = compared.seeds, compared.metrics, ours[min(ours)].samples
    return Comparison(
        **vars(compared),
        learning=_verdict(metrics, LEARNING),
        forgetting=_verdict(metrics, FORGETTING),
        sentence=sentences.comparison(arm, other, metrics, seeds=seeds, samples=samples),
    )


def _verdict(metrics: dict[str, MetricResult], metric: str) -> Verdict:
    return metrics[metric].verdict if metric in metrics else NONE


def _compared(arm: Arm, ours: Trials, other: Arm, theirs: Trials) -> Compared:
    """Two arms in every metric, paired by seed. The base model, measured once, pairs with each."""
    if other.kind == BASE:
        theirs = {seed: theirs[min(theirs)] for seed in ours}
    seeds = sorted(ours.keys() & theirs.keys())
    metrics = {}
    for metric, shown in _shown(ours).items():
        a, b = values(ours, metric), values(theirs, metric)
        if not seeds or not a.keys() & b.keys():
            continue
        found = intervals.paired(a, b)
        metrics[metric] = MetricResult(
            difference=found.mean,
            low=found.low,
            high=found.high,
            p=found.p,
            bootstrap=_bootstrap(metric, ours, theirs, seeds),
            verdict=intervals.verdict(found, shown.higher_is_better),
        )
    return Compared(
        arm=arm.label,
        against=other.label,
        kind=arm.kind,
        against_kind=other.kind,
        seeds=len(seeds),
        metrics=metrics,
    )


def _bootstrap(metric: str, ours: Trials, theirs: Trials, seeds: list[int]) -> tuple[float, float]:
    a = np.array([ours[seed].sums[metric][0] for seed in seeds])
    b = np.array([theirs[seed].sums[metric][0] for seed in seeds])
    weight = np.array(ours[seeds[0]].sums[metric][1])
    return intervals.bootstrap(a, b, weight)


# -- file by file


def by_file(shown: list[Arm], done: dict[str, Trials], about: About) -> list[FileResult]:
    """Each file's own numbers and verdicts, where several are held out, or general."""
    sets: dict[Probe, list[MeasuredOn]] = {"heldout": about.heldout, "general": about.general}
    return [
        _on_file(probe, number, file.name, [(arm, done[arm.label]) for arm in shown])
        for probe, files in sets.items()
        if len(files) > 1 and shown
        for number, file in enumerate(files)
    ]


def _on_file(probe: Probe, number: int, name: str, arms: list[tuple[Arm, Trials]]) -> FileResult:
    done = {
        arm.label: {seed: trial.on_file(probe, number) for seed, trial in trials.items()}
        for arm, trials in arms
    }
    compared = [
        _compared(arm, done[arm.label], other, done[other.label])
        for arm, other in _pairs([arm for arm, _ in arms])
    ]
    return FileResult(
        probe=probe,
        name=name,
        arms=[means(label, trials) for label, trials in done.items()],
        comparisons=[
            FileComparison(**vars(one), verdict=_verdict(one.metrics, DECIDES[probe]))
            for one in compared
        ],
    )


# -- notes and answers


def _notes(planned: list[Arm], done: dict[str, Trials], comparisons: list[Comparison]) -> list[str]:
    seeds = max((len(trials) for trials in done.values()), default=0)
    notes = []
    if seeds == 1:
        notes.append(texts.ONE_SEED)
    elif seeds < 5:
        notes.append(texts.FEW_SEEDS.format(seeds=seeds))
    taken = [one.taken_from for trials in done.values() for one in trials.values()]
    if others := sorted({name for name in taken if name}):
        count = len(taken) - taken.count(None)
        notes.append(texts.TAKEN.format(count=count, names=", ".join(others)))
    drawn = [
        f"'{arm.selection}'"
        for arm in planned
        if arm.selection and arm.redrawn and arm.declared.once and not arm.replay
    ]
    if drawn:
        notes.append(texts.REDRAWN.format(names=", ".join(drawn)))
    against = [
        one for one in comparisons if one.theirs.random and one.theirs.once and not one.ours.random
    ]
    if len(against) > 1:
        notes.append(texts.MANY_COMPARED.format(count=len(against)))
    return notes


def answers(prompts: list[Prompt], done: dict[str, Trials]) -> Answers:
    """What the arms wrote under their first seed, beside each prompt and its reference."""
    firsts = {label: trials[min(trials)].answers for label, trials in done.items()}
    wrote = {label: texts for label, texts in firsts.items() if texts is not None}
    return Answers(
        prompts=[
            prompt.model_copy(
                update={"answers": {label: texts[i] for label, texts in wrote.items()}}
            )
            for i, prompt in enumerate(prompts)
        ]
    )
