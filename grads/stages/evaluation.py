"""The job of an evaluation: train each arm from the base model, measure it, write what it shows."""

import hashlib
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grads.config.evaluation import EvaluationConfig, Recipe
from grads.engine import models, training
from grads.errors import EvaluationError, WarmupError
from grads.evaluation import arms, results
from grads.evaluation.arms import Trial
from grads.evaluation.measure import Probe, Reference, measure, response_counts, write_answer
from grads.evaluation.metrics import SHOWN, Sums
from grads.evaluation.probes import load_probes
from grads.evaluation.result import Prompt
from grads.evaluation.trials import TrialResult, read_trials
from grads.jobs.job import Job
from grads.selection.pool import Pool
from grads.stages import run as stages
from grads.store.folders import Evaluation

PROMPTS = 4  # held-out prompts that arms write an answer to


def evaluate(job: Job[Evaluation], config: EvaluationConfig) -> None:
    """Every arm under every seed, each skipped if its file is there; result.json after each."""
    evaluation, run = job.folder, job.folder.run
    job.stage("prepare")
    scored = Pool(run)
    planned = arms.plan(run, config, len(scored))
    trials = arms.trials(scored, planned, config, config.repetitions)
    lab = Lab(job, config)
    probes = load_probes(run, config, lab.tokenizer)
    lab.measure_on(probes.heldout, probes.general)
    prompts = asked(probes.heldout)
    answering = {arm.label for arm in planned if arm.declared.answers}
    lab.answering = {t.key for t in trials if t.seed == config.first_seed and t.arm in answering}
    job.stage("evaluate", "token passes")
    lab.expect(trials, probes.heldout.tokens + probes.general.tokens)
    for trial in trials:
        results.write(evaluation, planned, probes.about, prompts=prompts, finished=False)
        lab.finish(trial, probes.heldout, probes.general)
    results.write(evaluation, planned, probes.about, prompts=prompts, finished=True)
    lab.tidy()


class Lab:
    """Trains and measures one trial after another, and reports the work done and left.

    Work is counted in passes of a token through the model.
    """

    def __init__(self, job: Job[Evaluation], recipe: Recipe) -> None:
        self.job, self.recipe = job, recipe
        self.evaluation = job.folder
        self.evaluation.arms.mkdir(exist_ok=True)
        self.run = job.folder.run
        self.settings = recipe.for_training(self.run.config(), 0)
        self.model_digest = stages.refuse_other_model(self.run)
        self.device = models.pick_device(self.settings.device)
        self.dtype = models.pick_dtype(self.settings.dtype, self.device)
        self.pool = stages.load_pool(self.run)
        self.tokenizer = models.load_tokenizer(self.settings.model)
        self.measured_on = ""  # what tells the recipe, the model and the test samples from others
        self.answering: set[str] = set()  # keys of the trials that write answers
        self.left: dict[str, int] = {}  # work of each training to come, by its key
        self.total = self.spent = self.current = 0

    def measure_on(self, *probes: Probe) -> None:
        """Say on what everything is measured: arms that were measured on other samples, or trained
        by another recipe, do not count as done."""
        recipe = {name: getattr(self.recipe, name) for name in Recipe.model_fields}
        recipe.pop("seeds")
        digest = hashlib.sha256(
            repr([sorted(recipe.items()), self.model_digest, list(SHOWN)]).encode()
        )
        for probe in probes:
            for pool in (probe.samples, probe.options):
                digest.update(pool.input_ids.tobytes() + pool.trained.tobytes())
        self.measured_on = digest.hexdigest()[:16]

    def _done(self) -> dict[str, TrialResult]:
        """Finished arms by file name that this job can keep."""
        files = read_trials(self.evaluation)
        return {n: arm for n, arm in files.items() if arm.measured_on == self.measured_on}

    def expect(self, trials: list[Trial], measured: int) -> None:
        """What lies ahead, each measurement passing `measured` tokens; twins count once."""
        known = {arm.key for arm in self._done().values()}
        work = {t.key: self._training_passes(t) + measured for t in trials}
        self.left |= {key: passes for key, passes in work.items() if key not in known}
        self.total += sum(work.values())
        self._report(0)

    def _training_passes(self, trial: Trial) -> int:
        return arms.training_passes(self.pool.lengths[self._index(trial)], trial, self.recipe)

    def _index(self, trial: Trial) -> np.ndarray:
        """Positions in the pool of what the trial trains on."""
        return np.flatnonzero(np.isin(self.pool.sample_ids, trial.sample_ids))

    def _report(self, passes: int) -> None:
        self.current += passes
        left = max(sum(self.left.values()) - self.current, 0)
        work = self.spent + self.current
        self.job.progress(self.total - left, self.total, left=left, work=work)

    def finish(self, trial: Trial, heldout: Probe, general: Probe) -> None:
        """Train, measure and write the trial unless that is done; a twin's file is copied.

        A file of another training (the selection was made anew since) is done over.
        """
        reference = Reference(self.evaluation.reference_file(trial.phase), general)
        target = self.evaluation.arm_file(trial.name)
        files = self._done()
        same = trial.name in files and files[trial.name].key == trial.key
        if same and (len(trial.sample_ids) or reference.path.exists()):
            return
        twin = next((arm for arm in files.values() if arm.key == trial.key), None)
        if twin is not None and len(trial.sample_ids):
            own = {"arm": trial.arm, "seed": trial.seed, "phase": trial.phase}
            twin.model_copy(update=own).write(target)
            return
        self.job.status.message = f"{trial.arm}, seed {trial.seed}"
        self._conduct(trial, heldout, general, reference).write(target)
        shutil.rmtree(self._checkpoints(trial), ignore_errors=True)
        self.spent += self.left.pop(trial.key, 0)
        self.current = 0
        self.job.status.message = ""

    def _conduct(
        self, trial: Trial, heldout: Probe, general: Probe, reference: Reference
    ) -> TrialResult:
        """Train and measure: size, price, loss curve, sums by sample, answers."""
        index = self._index(trial)
        full = self.recipe.training == "full" and len(index)
        dtype = torch.float32 if full else self.dtype
        model = stages.load_base_model(self.run, dtype, self.device)
        lines: dict[int, dict[str, Any]] = {}
        if len(index):
            model = self._train(model, trial)
            lines = self._steps(trial)
            model = model.to(self.dtype) if full else model
            sums = self._measure(model, heldout, general, reference)
        else:
            with reference.being_written():
                sums = self._measure(model, heldout, general, reference)
        found = TrialResult(
            arm=trial.arm,
            seed=trial.seed,
            key=trial.key,
            phase=trial.phase,
            measured_on=self.measured_on,
            samples=len(index),
            response_tokens=int(response_counts(self.pool)[index].sum()),
            steps=len(lines),
            tokens=sum(line["tokens"] for line in lines.values()),
            seconds=round(sum(line["seconds"] for line in lines.values()), 1),
            curve=[(step, round(lines[step]["loss"], 5)) for step in sorted(lines)],
            sums=sums,
            general_losses=_by_file(sums["general_loss"], general),
        )
        if trial.key in self.answering:
            found.answers = [
                write_answer(model, self.tokenizer, heldout.turns[i]) for i in positions(heldout)
            ]
        return found

    def _train(self, model: Any, trial: Trial) -> Any:
        last = time.monotonic()

        def report(step: training.Step) -> None:
            nonlocal last
            now = time.monotonic()
            seconds, last = now - last, now
            self.job.metrics(
                arm=trial.arm,
                seed=trial.seed,
                key=trial.key,
                step=step.step,
                loss=step.loss,
                lr=step.lr,
                tokens=step.tokens,
                seconds=round(seconds, 3),
                tokens_per_s=round(step.tokens / seconds, 1),
            )
            self._report(arms.TRAINED * step.tokens)

        try:
            return training.train(
                model,
                self.pool.subset(self._index(trial)),
                self.settings.model_copy(update={"seed": trial.seed}),
                dtype=self.dtype,
                device=self.device,
                checkpoints=self._checkpoints(trial),
                report=report,
                should_stop=self.job.should_stop,
                max_steps=trial.max_steps,
            )
        except WarmupError as error:
            raise EvaluationError(f"arm {trial.arm}, seed {trial.seed}: {error}") from None

    def _steps(self, trial: Trial) -> dict[int, dict[str, Any]]:
        """The line of metrics of each optimizer step of a finished training, by its number.

        An attempt that was killed leaves steps that the next one takes again: the last line counts.
        """
        lines = [line for line in self.evaluation.read_metrics() if line.get("key") == trial.key]
        return {line["step"]: line for line in lines}

    def _measure(
        self, model: Any, heldout: Probe, general: Probe, reference: Reference
    ) -> dict[str, tuple[list[float], list[float]]]:
        """The sums of every metric by sample, as lists."""
        found: dict[str, Sums] = {}
        for probe, against in ((heldout, None), (general, reference)):
            sums = measure(
                model,
                probe,
                self.settings.batch_tokens,
                self.device,
                reference=against,
                report=self._report,
                should_stop=self.job.should_stop,
            )
            found |= {f"{probe.name}_{name}": pair for name, pair in sums.items()}
        return {name: (_rounded(over), _rounded(under)) for name, (over, under) in found.items()}

    def _checkpoints(self, trial: Trial) -> Path:
        return self.evaluation.checkpoints / trial.key

    def tidy(self) -> None:
        """Remove what only the job needed."""
        shutil.rmtree(self.evaluation.checkpoints, ignore_errors=True)
        for file in self.evaluation.path.glob("reference-*.npy"):
            file.unlink()


def positions(heldout: Probe) -> list[int]:
    """Positions of the first held-out samples that ask something."""
    asking = [i for i, turns in enumerate(heldout.turns) if turns[0].role != "assistant"]
    return asking[:PROMPTS]


def asked(heldout: Probe) -> list[Prompt]:
    """The prompts that arms answer, with their references."""
    return [
        Prompt(
            row=int(heldout.samples.sample_ids[i]),
            prompt="\n\n".join(turn.content for turn in heldout.turns[i][:-1]),
            reference=heldout.turns[i][-1].content,
        )
        for i in positions(heldout)
    ]


def _by_file(sums: tuple[list[float], list[float]], general: Probe) -> list[float]:
    """Loss on each general file, in nats per response token."""
    loss, tokens = (np.array(part) for part in sums)
    files = range(int(general.source.max()) + 1)
    return [
        float(loss[general.source == f].sum() / tokens[general.source == f].sum()) for f in files
    ]


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]
