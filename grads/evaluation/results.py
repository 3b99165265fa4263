"""From the finished arms to what they show: means, intervals, comparisons, price, sentences."""

import math
from typing import Any

import numpy as np

from grads.evaluation import intervals
from grads.evaluation.arms import BASE, Arm
from grads.evaluation.intervals import NONE, Verdict
from grads.evaluation.metrics import SHOWN
from grads.store.files import write_json
from grads.store.folders import Evaluation
from grads.store.runs import Run

LEARNING, FORGETTING = "heldout_loss", "general_loss"  # what the two verdicts go by
Trials = dict[int, dict[str, Any]]  # finished files of one arm by seed


def write(
    evaluation: Evaluation, planned: list[Arm], about: dict[str, Any], finished: bool
) -> None:
    """Write result.json and answers.json from the arms that are there."""
    files = list(evaluation.read_arms().values())
    by_arm = {
        arm.label: {file["seed"]: file for file in files if file["arm"] == arm.label}
        for arm in planned
    }
    done = {label: trials for label, trials in by_arm.items() if trials}
    write_json(evaluation.result_file, build(evaluation.run, planned, done, about, finished))
    if "prompts" in about:
        write_json(evaluation.answers_file, answers(about["prompts"], done))


def build(
    run: Run, planned: list[Arm], done: dict[str, Trials], about: dict[str, Any], finished: bool
) -> dict[str, Any]:
    """The content of result.json."""
    shown = [arm for arm in planned if arm.label in done]
    comparisons = compare_all(shown, done)
    price = prices(run, shown, done)
    return {
        "arms": [summary(arm, done[arm.label]) for arm in shown],
        "comparisons": comparisons,
        "price": price,
        "break_even": _break_evens(shown, price),
        "leaks": about["leaks"],
        "notes": about["notes"] + _notes(planned, done, comparisons),
        "heldout": about["heldout"],
        "general": about["general"],
        "finished": finished,
    }


def value(file: dict[str, Any], metric: str) -> float | None:
    """A metric of one arm and seed; None where it was not measured."""
    if metric not in file["sums"]:
        return None
    over, under = (sum(part) for part in file["sums"][metric])
    return over / under if under else None


def values(trials: Trials, metric: str) -> dict[int, float]:
    """A metric by seed."""
    found = {seed: value(file, metric) for seed, file in sorted(trials.items())}
    return {seed: number for seed, number in found.items() if number is not None}


def summary(arm: Arm, trials: Trials) -> dict[str, Any]:
    """What result.json says of one arm."""
    rows = []
    for seed, file in sorted(trials.items()):
        row = {metric: value(file, metric) for metric in SHOWN}
        price = {name: file[name] for name in ("steps", "tokens", "seconds", "curve")}
        rows.append({"seed": seed} | row | {"general_losses": file["general_losses"]} | price)
    mean: dict[str, float | None] = {}
    interval: dict[str, list[float | None] | None] = {}
    for metric in SHOWN:
        numbers = np.array(list(values(trials, metric).values()))
        found = intervals.estimate(numbers) if len(numbers) else None
        mean[metric] = found.mean if found else None
        interval[metric] = [found.low, found.high] if found and found.low is not None else None
    first = trials[min(trials)]
    return {
        "arm": arm.kind,
        "selection": arm.selection,
        "label": arm.label,
        "kind": arm.kind,
        "samples": first["samples"],
        "response_tokens": round(np.mean([file["response_tokens"] for file in trials.values()])),
        "seeds": rows,
        "mean": mean,
        "interval": interval,
    }


# -- comparisons


def compare_all(shown: list[Arm], done: dict[str, Trials]) -> list[dict[str, Any]]:
    """Each subset against random ones of its size, against full, and every arm against base."""
    by_label = {arm.label: arm for arm in shown}
    pairs = [(arm, by_label[arm.rival]) for arm in shown if arm.rival in by_label]
    small = ("random", "selection", "criterion")
    if "full" in by_label and by_label["full"].kind == "full":
        pairs += [(arm, by_label["full"]) for arm in shown if arm.kind in small]
    pairs += [(arm, by_label[BASE]) for arm in shown if arm.kind != BASE and BASE in by_label]
    return [compare(arm, done[arm.label], other, done[other.label]) for arm, other in pairs]


def compare(arm: Arm, ours: Trials, other: Arm, theirs: Trials) -> dict[str, Any]:
    """One arm against another, paired by seed. The base model, measured once, pairs with each.

    Learning is judged by the loss on held-out samples, forgetting by the loss on general samples:
    a model that forgets gets worse at what it could do. KL is shown beside it and decides nothing,
    for it also grows with changes that harm nothing.
    """
    if other.kind == BASE:
        theirs = {seed: theirs[min(theirs)] for seed in ours}
    seeds = sorted(ours.keys() & theirs.keys())
    metrics = {}
    for metric, shown in SHOWN.items():
        a, b = values(ours, metric), values(theirs, metric)
        if not seeds or not a.keys() & b.keys():
            continue
        found = intervals.paired(a, b)
        metrics[metric] = {
            "difference": found.mean,
            "low": found.low,
            "high": found.high,
            "p": found.p,
            "bootstrap": _bootstrap(metric, ours, theirs, seeds),
            "verdict": intervals.verdict(found, shown.higher_is_better),
        }
    verdicts = {
        name: metrics[metric]["verdict"] if metric in metrics else NONE
        for name, metric in (("learning", LEARNING), ("forgetting", FORGETTING))
    }
    return {
        "arm": arm.label,
        "against": other.label,
        "kind": arm.kind,
        "against_kind": other.kind,
        "seeds": len(seeds),
        "metrics": metrics,
        **verdicts,
        "sentence": sentence(arm, other, metrics, len(seeds), ours[min(ours)]["samples"]),
    }


def _bootstrap(metric: str, ours: Trials, theirs: Trials, seeds: list[int]) -> list[float]:
    a = np.array([ours[seed]["sums"][metric][0] for seed in seeds])
    b = np.array([theirs[seed]["sums"][metric][0] for seed in seeds])
    weight = np.array(ours[seeds[0]]["sums"][metric][1])
    return list(intervals.bootstrap(a, b, weight))


def sentence(arm: Arm, other: Arm, metrics: dict[str, Any], seeds: int, samples: int) -> str:
    """The comparison for a reader who knows the field of the data, not machine learning."""
    ours, theirs = _called(arm, samples), _called(other, samples)
    ours = ours[0].upper() + ours[1:]
    if not seeds or LEARNING not in metrics or FORGETTING not in metrics:
        return f"{ours} and {theirs} have not been trained under the same seed yet."
    if seeds == 1:
        return (
            f"{ours} and {theirs} have been compared once only; one training of each cannot tell"
            " a difference from chance. Repeat it with at least three seeds."
        )
    learning = _said(metrics[LEARNING], " on held-out questions", _LEARNED)
    forgetting = _said(metrics[FORGETTING], "", _KEPT)
    return f"{ours}, compared with {theirs}, {learning}; {forgetting}."


_LEARNED: dict[Verdict, str] = {
    "better": "has learned more",
    "worse": "has learned less",
    NONE: "shows no difference in what was learned",
}
_KEPT: dict[Verdict, str] = {
    "better": "on general questions it does better",
    "worse": "on general questions it does worse",
    NONE: "on general questions no difference is seen",
}


def _said(metric: dict[str, Any], where: str, words: dict[Verdict, str]) -> str:
    size, low, high = (metric[name] for name in ("difference", "low", "high"))
    if metric["verdict"] == NONE:
        return (
            f"{words[NONE]} (error{where} {size:+.3f}, with 95% confidence between {low:+.3f}"
            f" and {high:+.3f}: chance alone can explain it)"
        )
    low, high = sorted((abs(low), abs(high)))
    direction = "lower" if size < 0 else "higher"
    return (
        f"{words[metric['verdict']]} (error{where} {direction} by {abs(size):.3f}, with 95%"
        f" confidence by {low:.3f} to {high:.3f})"
    )


def _called(arm: Arm, samples: int) -> str:
    longer = ", trained as long as on everything" if arm.as_long_as_full else ""
    return {
        "base": "the untrained model",
        "full": "the model trained on all samples",
        "random": f"the model trained on {samples:,} random samples",
        "random_steps": f"the model trained on {samples:,} random samples{longer}",
    }.get(arm.kind, f"the model trained on the {samples:,} samples of '{arm.label}'{longer}")


# -- price


def prices(run: Run, shown: list[Arm], done: dict[str, Trials]) -> dict[str, Any]:
    """Tokens, steps and seconds of the warm-up, the scoring, and one training of each arm."""
    return {
        "warm-up": _warm_up_price(run),
        "scoring": _scoring_price(run),
        "training": {
            arm.label: _training_price(done[arm.label]) for arm in shown if arm.kind != BASE
        },
    }


def _training_price(trials: Trials) -> dict[str, float]:
    """Tokens, steps and seconds of one training, the mean over seeds."""
    names = ("tokens", "steps", "seconds")
    return {name: float(np.mean([file[name] for file in trials.values()])) for name in names}


def _warm_up_price(run: Run) -> dict[str, float]:
    """Of the run's warm-up; nothing where there was none or it was taken over."""
    lines = {row["step"]: row for row in run.read_metrics() if row["stage"] == "warm-up"}
    config, manifest = run.config(), run.read_manifest()
    share = config.warmup_fraction * config.epochs if lines else 0.0
    return {
        "tokens": round(share * pool_tokens(run)),
        "steps": len(lines),
        "seconds": float(manifest.get("seconds", {}).get("warm-up", 0.0)) if lines else 0.0,
    }


def _scoring_price(run: Run) -> dict[str, float]:
    seconds = run.read_manifest().get("seconds", {})
    spent = sum(float(seconds.get(stage, 0.0)) for stage in ("self-check", "score"))
    return {"tokens": pool_tokens(run), "steps": 0, "seconds": round(spent, 1)}


def pool_tokens(run: Run) -> int:
    """Tokens of all scored samples."""
    table = run.read_table(run.scores_file, ["prompt_tokens", "response_tokens"])
    return int(sum(table[name].to_numpy().sum() for name in table.column_names))


def _break_evens(shown: list[Arm], price: dict[str, Any]) -> dict[str, Any]:
    full = next((arm.label for arm in shown if arm.kind == "full"), None)
    if full is None:
        return {}
    choosing = price["warm-up"]["seconds"] + price["scoring"]["seconds"]
    whole = price["training"][full]["seconds"]
    found = {}
    for arm in shown:
        if arm.kind not in ("selection", "criterion"):
            continue
        subset = price["training"][arm.label]["seconds"]
        trainings = intervals.break_even(choosing, whole, subset)
        found[arm.label] = {
            "trainings": trainings,
            "sentence": _break_even_sentence(choosing, whole, subset, trainings),
        }
    return found


def _break_even_sentence(
    choosing: float, whole: float, subset: float, trainings: float | None
) -> str:
    cost = f"choosing took {choosing:,.0f} s; a training on everything {whole:,.0f} s, on the"
    if trainings is None:
        return f"{cost} subset {subset:,.0f} s: it saves no time, however often it is repeated"
    often = max(1, math.ceil(trainings))
    after = "the first training" if often == 1 else f"{often} trainings of this kind"
    return f"{cost} subset {subset:,.0f} s: the time comes back with {after}"


# -- notes and answers


def _notes(
    planned: list[Arm], done: dict[str, Trials], comparisons: list[dict[str, Any]]
) -> list[str]:
    seeds = max((len(trials) for trials in done.values()), default=0)
    notes = []
    if seeds == 1:
        notes.append("one seed has no interval: a difference cannot be told from chance")
    elif seeds < 5:
        notes.append(f"{seeds} seeds give wide intervals: a real but small difference may not show")
    drawn = [
        f"'{arm.selection}'"
        for arm in planned
        if arm.selection and arm.redrawn and not arm.as_long_as_full
    ]
    if drawn:
        notes.append(f"random draws, which each seed draws anew: {', '.join(drawn)}")
    against = [c for c in comparisons if c["against_kind"] == "random"]
    if len(against) > 1:
        notes.append(
            f"{len(against)} subsets are compared with random ones: about one comparison in twenty"
            " shows a difference where there is none"
        )
    return notes


def answers(prompts: list[dict[str, Any]], done: dict[str, Trials]) -> dict[str, Any]:
    """The content of answers.json: each prompt, its reference, and what the arms wrote."""
    wrote = {
        label: trials[min(trials)]["answers"]
        for label, trials in done.items()
        if "answers" in trials[min(trials)]
    }
    return {
        "prompts": [
            prompt | {"answers": {label: texts[i] for label, texts in wrote.items()}}
            for i, prompt in enumerate(prompts)
        ]
    }
