"""The preliminary SFT epoch: LoRA or full parameters, by the Transformers Trainer.

An optimizer step takes `batch_size` samples and averages the loss over all their response tokens.
It runs in as many passes of at most `batch_tokens` tokens as needed, so memory is bounded and the
result does not depend on how the step was cut.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from grads.config.run import RunConfig
from grads.data.tokens import TokenPool, token_batches
from grads.engine import team
from grads.engine.adapters import add_lora
from grads.engine.checkpoints import keep_newest, mark_whole, newest_sound
from grads.engine.collecting import Collector
from grads.engine.full_checkpoints import SpreadTrainer, restore
from grads.engine.loss import response_losses
from grads.engine.room import Room
from grads.engine.sharding import is_spread
from grads.errors import Stopped, WarmupError

CHECKPOINT_EVERY_S = 120.0
# In bfloat16 on a CPU, plain matrix products attend faster than the fused kernel, whose backward
# pass is slow there; their memory grows with the square of the length, so only for short samples.
PLAIN_ATTENTION_UP_TO = 256


@dataclass(frozen=True)
class Step:
    """What one optimizer step reports."""

    step: int
    steps: int
    loss: float  # nats per response token
    lr: float
    tokens: int  # all tokens of the step, padding not counted


class _Positions(Dataset[dict[str, int]]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, int]:
        return {"position": i}


class _OneDevice(TrainingArguments):
    """One device however many GPUs are visible: the Trainer would wrap the model for all of them,
    and its batches are positions in a pool that one process holds."""

    @property
    def n_gpu(self) -> int:
        return 1


class _SftTrainer(Trainer):
    """A Trainer whose batches are positions in a TokenPool, split by tokens at each step."""

    def __init__(
        self, pool: TokenPool, room: Room, collector: Collector | None, **kwargs: Any
    ) -> None:
        super().__init__(train_dataset=_Positions(len(pool)), data_collator=_positions, **kwargs)
        self.in_step = is_spread(kwargs["model"])
        self.pool, self.room, self.collector = pool, room, collector
        self.team = team.current()
        self.last_loss, self.last_tokens = 0.0, 0

    def get_train_dataloader(self) -> Any:
        """Every process of a team gets the whole batch, and takes its share of it."""
        loader = super().get_train_dataloader()
        if self.team.size > 1:
            batches: Any = loader.batch_sampler
            batches.num_processes, batches.process_index = 1, 0
            batches.even_batches = False  # the last one is not filled up with samples seen before
        return loader

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if isinstance(self.model, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            restore(self.model, resume_from_checkpoint)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        model.train()
        positions = inputs["positions"].cpu().numpy()
        if self.collector is not None:
            self.collector.before_step(int(self.pool.lengths[positions].sum()))
        total = None
        while total is None:  # a pass that was broken off has left half of its gradients
            passes = self._share(positions)
            largest = 1 if self.team.size > 1 else max(map(len, passes))  # a team has one rhythm
            total = self.room.tried(partial(self._passes, model, positions, passes), largest)
            if total is None:
                model.zero_grad(set_to_none=True)
        self.last_loss = float(total)
        self.last_tokens = int(self.pool.lengths[positions].sum())
        if not np.isfinite(self.last_loss):
            ids = self.pool.sample_ids[positions].tolist()
            raise WarmupError(
                f"the loss is {self.last_loss} at step {self.state.global_step + 1}, on samples"
                f" {ids}: look at those samples, lower --lr, or use --dtype float32"
            )
        return total

    def _passes(self, model: Any, positions: np.ndarray, passes: list[np.ndarray]) -> torch.Tensor:
        """Forward and backward of a step; its loss."""
        trained = self.pool.response_tokens(positions)
        least = self._least_passes(len(passes))
        total = torch.zeros((), device=self.args.device)
        found = []
        for number, part in enumerate(passes, 1):
            last = number == len(passes)  # only then are gradients summed over the team
            with nullcontext() if last else self.accelerator.no_sync(model):
                loss, reading = self._pass(model, part, trained)
            total += loss
            found.append(reading)
        for _ in range(len(passes), least):  # the others wait for this process
            self._losses(model, self._batch(positions[:1]), weight=0.0)
        if self.collector is not None:
            self.collector.keep([table for table in found if table is not None])
        return self.team.total(total)

    def _least_passes(self, mine: int) -> int:
        """How many passes a step takes in which this process has `mine` of its own.

        One where gradients are summed over the team; of spread layers every pass is one of all.
        """
        return max(self.team.gathered(mine)) if self.in_step else 1

    def _share(self, positions: np.ndarray) -> list[np.ndarray]:
        """The passes of this process in a step on the samples at these positions."""
        if self.team.size > 1:
            by_length = positions[np.argsort(self.pool.lengths[positions], kind="stable")]
            positions = by_length[self.team.rank :: self.team.size]
        parts = token_batches(self.pool.lengths[positions], self.room.tokens)
        return [positions[part] for part in parts]

    def _batch(self, positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ids, mask, labels = self.pool.collate(positions)
        return ids.to(self.args.device), mask.to(self.args.device), labels.to(self.args.device)

    def _pass(
        self, model: Any, positions: np.ndarray, trained: int
    ) -> tuple[torch.Tensor, pa.Table | None]:
        """Loss of a part of a step, backward done; what the collector, if any, has read in it."""
        batch = self._batch(positions)
        weight = self.team.size / trained  # the team's gradients are averaged, not summed
        if self.collector is None:
            return self._losses(model, batch, weight).sum() / trained, None
        with self.collector.reading(batch, weight) as reading:
            reading.losses = self._losses(model, batch, weight)
        table = self.collector.table(reading, positions, self.state.global_step)
        return reading.losses.sum() / trained, table

    def _losses(self, model: Any, batch: tuple[torch.Tensor, ...], weight: float) -> torch.Tensor:
        """The losses of the response tokens, backward from `weight` times their sum done."""
        with self.compute_loss_context_manager():
            losses = response_losses(model, *batch)
            loss = losses.sum() * weight
        self.accelerator.backward(loss)
        return losses.detach()


class _SpreadSftTrainer(SpreadTrainer, _SftTrainer):
    """One of all weights, which may be spread: so are its checkpoints."""


def _positions(items: list[dict[str, int]]) -> dict[str, torch.Tensor]:
    return {"positions": torch.tensor([item["position"] for item in items])}


class _Watch(TrainerCallback):
    """Reports each step, asks for checkpoints by the clock, and passes a stop on."""

    def __init__(self, report: Callable[[Step], None], should_stop: Callable[[], bool]) -> None:
        self.report, self.should_stop = report, should_stop
        self.saved = time.monotonic()
        self.trainer: _SftTrainer | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        assert trainer is not None
        assert trainer.lr_scheduler is not None
        lr = float(trainer.lr_scheduler.get_last_lr()[0])
        self.report(
            Step(state.global_step, state.max_steps, trainer.last_loss, lr, trainer.last_tokens)
        )
        due = time.monotonic() - self.saved > CHECKPOINT_EVERY_S
        stop, save = trainer.team.asked(self.should_stop), trainer.team.agreed(due)
        control.should_training_stop |= stop
        control.should_save |= stop or save
        if control.should_save and trainer.team.leads:
            keep_newest(Path(args.output_dir))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self.trainer is not None
        if self.trainer.collector is not None:  # before the mark that lets the checkpoint count
            self.trainer.collector.flush(state.global_step)
        self.trainer.team.gathered(None)  # each process has written its part
        if self.trainer.team.leads:
            mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self.saved = time.monotonic()


def sample_fraction(n: int, fraction: float, seed: int) -> np.ndarray:
    """Sorted positions of the seeded share of n samples that the warm-up trains on."""
    count = max(1, round(fraction * n))
    return np.sort(np.random.default_rng(seed).permutation(n)[:count])


def train(
    model: Any,
    pool: TokenPool,
    config: RunConfig,
    *,
    dtype: torch.dtype,
    device: str,
    checkpoints: Path,
    report: Callable[[Step], None] = lambda step: None,
    should_stop: Callable[[], bool] = lambda: False,
    max_steps: int | None = None,
    collector: Collector | None = None,
) -> Any:
    """Train `model` on all of `pool`, going on from the last sound checkpoint; the trained model.

    One that the disk has damaged is told of in the log, and the one before is taken. It takes
    `config.epochs` epochs, or `max_steps` optimizer steps where they are given. Raises WarmupError
    on a NaN or infinite loss (ModelError where the weights it began with have them) and Stopped,
    with a checkpoint behind it, when asked to stop. In
    bfloat16 the trained weights stay in float32 (mixed precision): an adapter's do by themselves,
    for full parameters the model must come in float32. A `collector` of the same pool reads every
    pass.
    """
    mine = team.current()
    if mine.asked(should_stop):  # asked to while the model was loaded
        raise Stopped
    if config.quantize != "none" and config.warmup == "full":
        raise WarmupError("quantised layers cannot be trained themselves: train with lora")
    mixed = dtype == torch.bfloat16
    set_seed(config.seed)
    if config.warmup == "lora":
        model = add_lora(model, config.lora_rank)
    steps = max_steps or math.ceil(math.ceil(len(pool) / config.batch_size) * config.epochs)
    arguments = _OneDevice(
        output_dir=str(checkpoints),
        num_train_epochs=config.epochs,
        max_steps=max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.03 if steps > 1 else 0,  # a share; its first step learns nothing
        weight_decay=0.0,
        bf16=mixed,
        use_cpu=device == "cpu",
        seed=config.seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    watch = _Watch(report, should_stop)
    by_name = config.shard == "layers" and config.warmup == "full"
    kind = _SpreadSftTrainer if by_name else _SftTrainer
    trainer = kind(
        pool, Room.of(config, device), collector, model=model, args=arguments, callbacks=[watch]
    )
    watch.trainer = trainer
    newest = mine.agreed(_go_on_from(checkpoints, collector) if mine.leads else None)
    with prepared(model, config, dtype=dtype, device=device, longest=int(pool.lengths.max())):
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    if trainer.state.global_step < trainer.state.max_steps:
        raise Stopped
    if collector is not None:
        collector.flush(trainer.state.global_step)
    return model.eval()


def _go_on_from(checkpoints: Path, collector: Collector | None) -> Path | None:
    """The checkpoint to go on from; None for the start."""
    newest = newest_sound(checkpoints, tell=lambda text: print(text, flush=True))
    step = int(newest.name.rpartition("-")[2]) if newest else 0
    if collector is None or collector.go_on_from(step):
        return newest
    print("what was read in the warm-up is damaged: it begins anew", flush=True)
    shutil.rmtree(checkpoints)
    return None


@contextmanager
def prepared(
    model: Any, config: RunConfig, *, dtype: torch.dtype, device: str, longest: int
) -> Iterator[None]:
    """The model as it trains in `dtype` on samples of up to `longest` tokens, under autocast.

    In bfloat16 an adapter leaves the casting of its inputs to autocast, and short samples on a CPU
    attend by plain matrix products unless another way was chosen. Raises WarmupError where the
    model knows no gradient checkpointing that is asked for.
    """
    mixed = dtype == torch.bfloat16
    usual = model.config._attn_implementation
    faster = mixed and device == "cpu" and longest <= PLAIN_ATTENTION_UP_TO
    if faster and config.attention == "auto":
        model.set_attn_implementation("eager")
    if config.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            kind = model.config.model_type
            raise WarmupError(f"{kind} models know no gradient checkpointing: train without it")
        model.activation_checkpointing_enable({"use_reentrant": False})
    try:
        with disable_input_dtype_casting(model, active=mixed):
            yield
    finally:
        model.set_attn_implementation(usual)
        if config.gradient_checkpointing:
            model.activation_checkpointing_disable()
