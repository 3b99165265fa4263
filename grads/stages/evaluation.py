"""The job of an evaluation: train each arm from the base model, measure it, write what it shows."""

from dataclasses import replace

from grads.config.evaluation import EvaluationConfig
from grads.evaluation import arms, results, tasks, texts
from grads.evaluation.answers import positions, short_references, shown
from grads.evaluation.cost import SHORT_TOKENS
from grads.evaluation.probes import Probes, load_probes, load_replay
from grads.evaluation.result import Prompt
from grads.export.corrections import corrections
from grads.jobs.job import Job
from grads.selection.decisions import contradictions
from grads.selection.pool import Pool
from grads.selection.record import read_record
from grads.stages.lab import Lab
from grads.store.folders import Evaluation
from grads.store.lines import broken_lines
from grads.store.runs import Run


def evaluate(job: Job[Evaluation], config: EvaluationConfig) -> None:
    """Every arm under every seed, each skipped if its file is there; result.json after each."""
    evaluation, run = job.folder, job.folder.run
    job.stage("prepare")
    scored = Pool(run)
    planned = arms.plan(run, config, len(scored))
    trials = arms.trials(scored, planned, config, config.repetitions)
    lab = Lab(job, config)
    probes = load_probes(run, config, lab.tokenizer)
    about = probes.about
    about.notes.extend(broken_lines(run.unreadable_decisions()))
    about.notes.extend(changed_since(run, planned, trials))
    if config.replay is not None:
        wanted = max(trial.replay_rows for trial in trials)
        lab.general_rows = load_replay(run, config.replay, lab.tokenizer, probes, wanted=wanted)
    lab.tasks = tasks.load(config, run.read_manifest().longest)
    if lab.tasks:
        about = replace(about, tasks_digest=lab.tasks.digest)
        about.notes.extend(lab.tasks.notes)
        if lab.tasks.served:
            about.notes.append(texts.SERVED)
    lab.measure_on(probes.heldout, probes.general)
    prompts = asked(probes)
    lab.answering, lab.shown = {t.key for t in trials if t.answers}, shown(probes.heldout)
    lab.asked = short_references(probes.heldout, lab.tokenizer, config.answers)
    if config.answers:
        compared = {"count": len(lab.asked), "tokens": SHORT_TOKENS}
        about.notes.append(texts.WRITTEN.format(**compared))
    job.stage("evaluate", "token passes")
    asked_of_all = sum(lab.asked.values()) + (lab.tasks.work.passes if lab.tasks else 0)
    lab.expect(trials, probes.heldout.tokens + probes.general.tokens + asked_of_all)
    for trial in trials:
        results.write(evaluation, planned, about, prompts=prompts, finished=False)
        lab.finish(trial, probes.heldout, probes.general)
    results.write(evaluation, planned, about, prompts=prompts, finished=True)
    lab.tidy()


def changed_since(run: Run, planned: list[arms.Arm], trials: list[arms.Trial]) -> list[str]:
    """What people have decided and corrected since the selections were saved, of the samples that
    are trained on as they were saved; under later seeds these may be others."""
    notes = []
    for name in dict.fromkeys(arm.selection for arm in planned if arm.selection):
        record, labels = read_record(run, name), {a.label for a in planned if a.selection == name}
        draws = [trial.sample_ids for trial in trials if trial.arm in labels]
        if rows := sorted({d.sample_id for ids in draws for d in contradictions(run, record, ids)}):
            notes.append(texts.DECIDED_SINCE.format(rows=rows, name=name))
        if rows := sorted(corrections(run).keys() & {i for ids in draws for i in ids.tolist()}):
            notes.append(texts.CORRECTED_SINCE.format(rows=rows, name=name))
    return notes


def asked(probes: Probes) -> list[Prompt]:
    """The prompts that arms answer, with their references."""
    heldout = probes.heldout
    return [
        Prompt(
            file=probes.about.heldout[heldout.source[i]].name,
            row=int(heldout.samples.sample_ids[i]),
            prompt="\n\n".join(turn.content for turn in heldout.turns[i][:-1]),
            reference=heldout.turns[i][-1].content,
        )
        for i in positions(heldout)
    ]
