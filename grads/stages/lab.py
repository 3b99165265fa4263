"""Trains and measures the arms of an evaluation or a search, one after another."""

import hashlib
import json
import shutil
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grads.config.evaluation import Recipe
from grads.data.tokens import TokenPool
from grads.engine import models, training
from grads.engine.anatomy import refuse_unknown_tokens
from grads.engine.device import dtype_name, pick_device, pick_dtype
from grads.errors import EvaluationError, WarmupError
from grads.evaluation import arms, serving
from grads.evaluation.answers import closeness, write_answers
from grads.evaluation.arms import Trial
from grads.evaluation.asking import Answered, ask, in_process
from grads.evaluation.damage import remove_damaged
from grads.evaluation.measure import Probe, Reference, adapter_counts, measure, response_counts
from grads.evaluation.metrics import SHOWN, Sums
from grads.evaluation.pace import Ahead, Pace
from grads.evaluation.tasks import Tasks
from grads.evaluation.texts import AT_WORK
from grads.evaluation.trials import (
    TrialResult,
    finished_elsewhere,
    read_trials,
)
from grads.jobs.job import Job
from grads.stages import loading
from grads.store.files import replacing
from grads.store.folders import Evaluation

Lists = dict[str, tuple[list[float], list[float]]]  # sums of each metric by sample


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
        self.model_digest = loading.refuse_other_model(self.run)
        self.device = pick_device(self.settings.device)
        self.dtype = pick_dtype(self.settings.dtype, self.device, self.settings.model)
        self.pool = loading.load_pool(self.run)
        self.tokenizer = models.load_tokenizer(self.settings.model)
        self.general_rows: TokenPool | None = None  # that some trials mix in
        self.elsewhere: dict[str, TrialResult] = {}  # the same trainings in other evaluations
        self.measured_on = ""  # what tells the recipe, the model and the test samples from others
        self.answering: set[str] = set()  # keys of the trials that write answers
        self.shown: dict[int, int] = {}  # positions of what those answer, and the work of each
        self.asked: dict[int, int] = {}  # the same of what all answer
        self.tasks: Tasks | None = None  # that all are asked
        self.pace = Pace(self.run, recipe)
        self.left: dict[str, Ahead] = {}  # each training to come, by its key
        self.later: list[Ahead] = []  # what comes after this stage, about
        self.now = ""  # the key of the training at work
        self.total = self.spent = self.current = 0

    def measure_on(self, *probes: Probe) -> None:
        """Say on what everything is measured: arms that were measured on other samples, or trained
        by another recipe, do not count as done."""
        apart = {"seeds", *Recipe.PATHS}  # files count as what they hold, wherever they lie
        recipe = {n: getattr(self.recipe, n) for n in Recipe.model_fields if n not in apart}
        digest = hashlib.sha256(
            repr([sorted(recipe.items()), self.model_digest, list(SHOWN)]).encode()
        )
        digest.update((self.tasks.digest if self.tasks else "").encode())
        for probe in probes:
            digest.update(repr([probe.source.tolist(), sorted(probe.answers.items())]).encode())
            for pool in (probe.samples, probe.options):
                for array in (pool.offsets, pool.input_ids, pool.trained):
                    digest.update(array.tobytes())
            digest.update(probe.options.sample_ids.tobytes())
        self.measured_on = digest.hexdigest()[:16]
        remove_damaged(self.evaluation)
        for trial in self._done().values():
            self.pace.finished(trial)
        self.elsewhere = finished_elsewhere(self.evaluation, self.measured_on)

    def _done(self) -> dict[str, TrialResult]:
        """Finished arms by file name that this job can keep."""
        files = read_trials(self.evaluation)
        return {n: arm for n, arm in files.items() if arm.measured_on == self.measured_on}

    def expect(
        self, trials: list[Trial], measured: int, later: dict[str, Ahead] | None = None
    ) -> None:
        """What lies ahead in this stage, and `later`; twins count once."""
        known = {arm.key for arm in self._done().values()}
        work = self.work(trials, measured)
        self.left |= {
            key: one
            for key, one in work.items()
            if key not in known and not self._from_elsewhere(key)
        }
        self.total += sum(one.passes for one in work.values())
        self.later = list((later or {}).values())
        self._report(0)

    def work(self, trials: list[Trial], measured: int) -> dict[str, Ahead]:
        """What trials take, each measurement passing `measured` tokens, by their keys."""
        shown = sum(self.shown.values())
        return {
            t.key: Ahead(
                self._training_passes(t), measured + (shown if t.key in self.answering else 0)
            )
            for t in trials
        }

    def _from_elsewhere(self, key: str) -> TrialResult | None:
        """The same training in another evaluation, if it wrote the answers that are wanted here."""
        found = self.elsewhere.get(key)
        if found is None or set(found.written) != set(self.asked):
            return None
        return None if found.answers is None and key in self.answering else found

    def _training_passes(self, trial: Trial) -> int:
        lengths = self.pool.lengths[self._index(trial)]
        if self.general_rows is not None:
            lengths = np.concatenate([lengths, self.general_rows.lengths[self._mixed_in(trial)]])
        return arms.training_passes(lengths, trial, self.recipe)

    def _mixed_in(self, trial: Trial) -> np.ndarray:
        """Positions among the general rows of what the trial trains on besides."""
        if trial.replay is None or self.general_rows is None:
            return np.zeros(0, dtype=np.int64)
        return trial.replay.drawn(len(self.general_rows), len(trial.sample_ids), trial.seed)

    def _training_set(self, trial: Trial) -> TokenPool:
        """What the trial trains on, its subset first."""
        subset, mixed = self.pool.subset(self._index(trial)), self._mixed_in(trial)
        if self.general_rows is None or not len(mixed):
            return subset
        return TokenPool.joined([subset, self.general_rows.subset(mixed)])

    def _index(self, trial: Trial) -> np.ndarray:
        """Positions in the pool of what the trial trains on."""
        return np.flatnonzero(np.isin(self.pool.sample_ids, trial.sample_ids))

    def _report(self, passes: int) -> None:
        self.current += passes
        left = max(sum(one.passes for one in self.left.values()) - self.current, 0)
        work = self.spent + self.current
        self.job.progress(self.total - left, self.total, left=left, work=work)
        self._foresee()

    def _foresee(self) -> None:
        """Tell the end of the stage and of all, by the pace of this evaluation."""
        ahead = dict(self.left)
        if self.now in ahead:
            ahead[self.now] = replace(ahead[self.now], done=self.current)
        status, of_stage = self.job.status, self.pace.left(list(ahead.values()))
        if of_stage is not None:
            status.eta_s = of_stage
            status.left_s = of_stage + (self.pace.left(self.later) or 0.0)

    def finish(self, trial: Trial, heldout: Probe, general: Probe) -> None:
        """Train, measure and write the trial unless that is done; a twin's file is copied, also
        one of another evaluation.

        A file of another training (the selection was made anew since) is done over.
        """
        reference = Reference(self.evaluation.reference_file(trial.phase), general)
        target = self.evaluation.arm_file(trial.name)
        files = self._done()
        same = trial.name in files and files[trial.name].key == trial.key
        if same and (len(trial.sample_ids) or reference.path.exists()):
            return
        twin = next((arm for arm in files.values() if arm.key == trial.key), None)
        twin = twin or self._from_elsewhere(trial.key)
        if twin is not None and len(trial.sample_ids):
            own = {"arm": trial.arm, "seed": trial.seed, "phase": trial.phase}
            twin.model_copy(update=own).write(target)
            return
        (said,) = AT_WORK.texts
        self.job.status.message = said.format(arm=trial.arm, seed=trial.seed)
        self.now, started = trial.key, time.monotonic()
        found = self._conduct(trial, heldout, general, reference)
        found.write(target)
        self.pace.finished(found, time.monotonic() - started)
        shutil.rmtree(self._checkpoints(trial), ignore_errors=True)
        if done := self.left.pop(trial.key, None):
            self.spent += done.passes
        self.current = 0
        self.job.status.message = ""

    def _conduct(
        self, trial: Trial, heldout: Probe, general: Probe, reference: Reference
    ) -> TrialResult:
        """Train and measure: size, price, loss curve, sums by sample, answers."""
        index = self._index(trial)
        full = self.recipe.training == "full" and len(index)
        dtype = torch.float32 if full else self.dtype
        model = loading.load_base_model(self.run, dtype, self.device)
        for probe in (heldout, general):
            refuse_unknown_tokens(model, probe.samples.input_ids)
        if len(index):
            model = self._train(model, trial)
            if full:
                models.round_weights(model, self.dtype)
            self._refuse_idle(model, trial, general)
        with nullcontext() if len(index) else reference.being_written():
            sums = self._measure(model, heldout, general, reference)
        written = self._written(model, heldout, self.asked)
        answers = None
        if trial.key in self.answering:
            answers = list(self._written(model, heldout, self.shown).values())
        answered = self._answered(model, trial, general)  # may let go of the model
        lines = self._steps(trial) if len(index) else {}
        return TrialResult(
            arm=trial.arm,
            seed=trial.seed,
            key=trial.key,
            phase=trial.phase,
            measured_on=self.measured_on,
            samples=len(index),
            replay_rows=len(self._mixed_in(trial)),
            response_tokens=int(response_counts(self.pool)[index].sum()),
            steps=len(lines),
            tokens=sum(line["tokens"] for line in lines.values()),
            seconds=round(sum(line["seconds"] for line in lines.values()), 1),
            curve=[(step, round(lines[step]["loss"], 5)) for step in sorted(lines)],
            sums=sums | _as_lists(heldout, closeness(heldout, written)) | _each_once(answered),
            tasks=answered.metrics,
            files={probe.name: probe.source.tolist() for probe in (heldout, general)},
            written=written,
            answers=answers,
        )

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
                self._training_set(trial),
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

    def _refuse_idle(self, model: Any, trial: Trial, probe: Probe) -> None:
        """Raise EvaluationError where the adapter in use leaves every prediction as it was."""
        if self.recipe.training == "lora" and not adapter_counts(model, probe, self.device):
            raise EvaluationError(
                f"arm {trial.arm}, seed {trial.seed}: its adapter changes no prediction: it would"
                " be compared as the untrained model; give more --epochs or a higher --lr"
            )

    def _steps(self, trial: Trial) -> dict[int, dict[str, Any]]:
        """The line of metrics of each optimizer step of a finished training, by its number.

        An attempt that was killed leaves steps that the next one takes again: the last line counts.
        """
        lines = [line for line in self.evaluation.read_metrics() if line.get("key") == trial.key]
        return {line["step"]: line for line in lines}

    def _measure(self, model: Any, heldout: Probe, general: Probe, reference: Reference) -> Lists:
        """What the model predicts, by every metric and sample."""
        found: Lists = {}
        for probe, against in ((heldout, None), (general, reference)):
            sums = measure(
                model,
                probe,
                self.settings.pass_tokens,
                self.device,
                reference=against,
                report=self._report,
                should_stop=self.job.should_stop,
            )
            found |= _as_lists(probe, sums)
        return found

    def _written(self, model: Any, heldout: Probe, asked: dict[int, int]) -> dict[int, str]:
        return write_answers(
            model,
            self.tokenizer,
            heldout,
            asked,
            report=self._report,
            should_stop=self.job.should_stop,
        )

    def _answered(self, model: Any, trial: Trial, general: Probe) -> Answered:
        """What the model makes of the tasks; the samples are kept in a file."""
        if self.tasks is None:
            return Answered([], {}, [])
        if self.tasks.served:
            answered = self._served(self.tasks, model, trial, general)
        else:
            longest = self.run.read_manifest().longest
            asked = in_process(
                model,
                models.load_tokenizer(self.settings.model),
                batch_size=max(1, self.settings.pass_tokens // longest),
                report=self._report,
                should_stop=self.job.should_stop,
            )
            answered = ask(self.tasks, asked)
        self.evaluation.task_file(trial.key).parent.mkdir(exist_ok=True)
        with replacing(self.evaluation.task_file(trial.key)) as draft:
            lines = (json.dumps(row, ensure_ascii=False, default=str) for row in answered.samples)
            draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return answered

    def _served(self, tasks: Tasks, model: Any, trial: Trial, general: Probe) -> Answered:
        """What the model makes of the tasks where vLLM serves it; it is handed over."""
        base = self.evaluation.checkpoints / f"base-{dtype_name(self.dtype)}"
        own = self._checkpoints(trial) / "served"
        shutil.rmtree(own, ignore_errors=True)  # of an attempt that was killed
        for folder in (base.parent, own.parent):
            folder.mkdir(exist_ok=True)
        untrained = self.recipe.training == "lora" or not len(trial.sample_ids)
        handed = serving.hand_over(
            model,
            models.load_tokenizer(self.settings.model),
            general.samples,
            weights=base if untrained else own,
            adapter=own,
        )
        try:
            with serving.served(
                handed,
                batch_tokens=self.settings.pass_tokens,
                report=self._report,
                should_stop=self.job.should_stop,
            ) as asked:
                return ask(tasks, asked)
        except EvaluationError as error:
            raise EvaluationError(f"arm {trial.arm}, seed {trial.seed}: {error}") from None

    def _checkpoints(self, trial: Trial) -> Path:
        return self.evaluation.checkpoints / trial.key

    def tidy(self) -> None:
        """Remove what only the job needed."""
        shutil.rmtree(self.evaluation.checkpoints, ignore_errors=True)
        for file in self.evaluation.path.glob("reference-*.npy"):
            file.unlink()


def _as_lists(probe: Probe, found: dict[str, Sums]) -> Lists:
    """As a file holds them: metrics by the samples that they are of."""
    return {
        f"{probe.name}_{name}": (_rounded(over), _rounded(under))
        for name, (over, under) in found.items()
    }


def _each_once(answered: Answered) -> Lists:
    """Values of tasks as sums, to which each sample adds once."""
    return {name: (values, [1.0] * len(values)) for name, values in answered.values.items()}


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]
