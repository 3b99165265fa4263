"""The job of a search: pilots on one half of the test samples, the winner again on the other."""

from typing import Any

import numpy as np

from grads.config.evaluation import TuneConfig
from grads.evaluation import results, tuning
from grads.evaluation.arms import BASE, Arm
from grads.evaluation.probes import load_probes
from grads.evaluation.results import FORGETTING, LEARNING, Trials
from grads.evaluation.tuning import FINAL, PILOT
from grads.jobs.job import Job
from grads.selection import subsets
from grads.selection.pool import Pool
from grads.stages.evaluation import Lab
from grads.store.files import write_json
from grads.store.folders import Evaluation


def tune(job: Job[Evaluation], config: TuneConfig) -> None:
    """Pilots of the whole grid, then the winner against random with fresh seeds and samples."""
    search, run = job.folder, job.folder.run
    job.stage("prepare")
    scored = Pool(run)
    lab = Lab(job, config)
    probes = load_probes(run, config, lab.tokenizer)
    lab.measure_on(probes.heldout, probes.general)
    heldout, general = tuning.halves(len(probes.heldout)), tuning.halves(len(probes.general))
    first, second = (
        (probes.heldout.part(a), probes.general.part(b))
        for a, b in zip(heldout, general, strict=True)
    )
    about = probes.about | {"overlap": tuning.overlap(scored, config.ratio)}
    job.stage("pilots", "token passes")
    pilots = tuning.pilot_trials(scored, config)
    lab.expect(pilots, sum(probe.tokens for probe in first))
    for trial in pilots:
        write_json(search.result_file, conclude(search, config, about, finished=False))
        lab.finish(trial, *first)
    found = conclude(search, config, about, finished=False)
    if found["winner"] is not None:
        job.stage("second test", "token passes")
        finals = tuning.final_trials(scored, config, found["winner"])
        lab.expect(finals, sum(probe.tokens for probe in second))
        for trial in finals:
            lab.finish(trial, *second)
    found = conclude(search, config, about, finished=True)
    if found["selection"] is not None:
        subsets.select_samples(run, config.save_as, tuning.grid(config)[found["winner"]])
    write_json(search.result_file, found)
    lab.tidy()


def conclude(
    search: Evaluation, config: TuneConfig, about: dict[str, Any], finished: bool
) -> dict[str, Any]:
    """The content of a search's result.json, from the files that are there."""
    planned = tuning.planned(config)
    pilot, final = _by_arm(search, planned, PILOT), _by_arm(search, planned, FINAL)
    shown = [arm for arm in planned if arm.label in pilot]
    complete = len(shown) == len(planned) and len(pilot["random"]) == config.seeds
    picture = _picture(pilot) if "random" in pilot and BASE in pilot else {}
    winner = _winner(picture) if complete else None
    confirmation = None
    if finished and winner is not None:
        by_label = {arm.label: arm for arm in planned}
        confirmation = results.compare(
            by_label[winner], final[winner], by_label["random"], final["random"]
        )
    named = confirmation is not None and (
        confirmation["learning"] == "better" and confirmation["forgetting"] != "worse"
    )
    labels = [arm for arm in planned if arm.label in final]
    return {
        "kind": "tune",
        "arms": [results.summary(arm, pilot[arm.label]) for arm in shown],
        **picture,
        "winner": winner,
        "confirmation": confirmation,
        "confirmation_arms": [results.summary(arm, final[arm.label]) for arm in labels],
        "selection": config.save_as if named else None,
        "sentence": _sentence(config, winner, confirmation, named, finished),
        "comparisons": [confirmation] if confirmation else [],
        "price": results.prices(search.run, shown, pilot),
        "break_even": {},
        **about,
        "finished": finished,
    }


def _by_arm(search: Evaluation, planned: list[Arm], phase: str) -> dict[str, Trials]:
    files = [file for file in search.read_arms().values() if file["phase"] == phase]
    found = {
        arm.label: {file["seed"]: file for file in files if file["arm"] == arm.label}
        for arm in planned
    }
    return {label: trials for label, trials in found.items() if trials}


def _picture(pilot: dict[str, Trials]) -> dict[str, Any]:
    """Learning against forgetting, the noise of one pilot, and the settings none is better than."""
    base = _mean(pilot[BASE], FORGETTING)
    points = {
        label: {
            "learning": _mean(trials, LEARNING),
            "forgetting": _mean(trials, FORGETTING) - base,
        }
        for label, trials in pilot.items()
    }
    spread = {
        name: tuning.noise(np.array(list(results.values(pilot["random"], metric).values())))
        for name, metric in (("learning", LEARNING), ("forgetting", FORGETTING))
    }
    of_one_size = {
        label: (point["learning"], point["forgetting"])
        for label, point in points.items()
        if label not in (BASE, "full")
    }
    return {"points": points, "noise": spread, "front": tuning.pareto_front(of_one_size)}


def _mean(trials: Trials, metric: str) -> float:
    return float(np.mean(list(results.values(trials, metric).values())))


def _winner(picture: dict[str, Any]) -> str | None:
    points = {
        label: (point["learning"], point["forgetting"])
        for label, point in picture["points"].items()
    }
    settings = {
        label: point for label, point in points.items() if label not in (BASE, "full", "random")
    }
    return tuning.pick(settings, points["random"], picture["noise"]["forgetting"] or 0.0)


def _sentence(
    config: TuneConfig,
    winner: str | None,
    confirmation: dict[str, Any] | None,
    named: bool,
    finished: bool,
) -> str:
    if not finished:
        return "The search is not finished."
    if winner is None:
        return (
            "None of the settings learned more than random samples without forgetting more: none is"
            " called better, and none is saved. A random subset does as well here."
        )
    assert confirmation is not None
    if named:
        told = confirmation["sentence"]
        return f"'{winner}' is saved as '{config.save_as}'. In its second test, {told}"
    return (
        f"'{winner}' came first among the pilots but its second test does not show that it beats"
        f" random: none is called better, and none is saved. {confirmation['sentence']}"
    )
