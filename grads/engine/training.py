"""The preliminary SFT epoch: LoRA or full parameters, by the Transformers Trainer.

An optimizer step takes `batch_size` samples and averages the loss over all their response tokens.
It runs in as many passes of at most `batch_tokens` tokens as needed, so memory is bounded and the
result does not depend on how the step was cut.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peft.helpers import disable_input_dtype_casting
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from grads.config.run import RunConfig
from grads.data.tokens import IGNORE, TokenPool, token_batches
from grads.engine.adapters import add_lora
from grads.engine.checkpoints import keep_newest, mark_whole, newest_sound
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

    def __init__(self, pool: TokenPool, batch_tokens: int, **kwargs: Any) -> None:
        super().__init__(train_dataset=_Positions(len(pool)), data_collator=_positions, **kwargs)
        self.pool, self.batch_tokens = pool, batch_tokens
        self.last_loss, self.last_tokens = 0.0, 0

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        model.train()
        positions = inputs["positions"].cpu().numpy()
        passes = token_batches(self.pool.lengths[positions], self.batch_tokens)
        batches = [self.pool.collate(positions[part]) for part in passes]
        trained = sum(int((labels[:, 1:] != IGNORE).sum()) for _, _, labels in batches)
        total = torch.zeros((), device=self.args.device)
        for batch in batches:
            with self.compute_loss_context_manager():
                loss = response_loss(model, *(t.to(self.args.device) for t in batch)) / trained
            self.accelerator.backward(loss)
            total += loss.detach()
        self.last_loss = float(total)
        self.last_tokens = int(self.pool.lengths[positions].sum())
        if not np.isfinite(self.last_loss):
            ids = self.pool.sample_ids[positions].tolist()
            raise WarmupError(
                f"the loss is {self.last_loss} at step {self.state.global_step + 1}, on samples"
                f" {ids}: look at those samples, lower --lr, or use --dtype float32"
            )
        return total


def response_loss(model: Any, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> Any:
    """Sum of the negative log-likelihood over response positions, in nats."""
    logits, targets = response_logits(model, ids, mask, labels)
    return F.cross_entropy(logits.float(), targets, reduction="sum")


def response_logits(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, V) at the N response positions of a batch, and their labels (N,).

    Only those positions are let into the model's own head: the logits of prompts and padding,
    often most of the memory, are never made.
    """
    sample, position = torch.nonzero(labels[:, 1:] != IGNORE, as_tuple=True)

    def responses_only(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (args[0][sample, position][None],)

    hook = model.get_output_embeddings().register_forward_pre_hook(responses_only)
    try:
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0]
    finally:
        hook.remove()
    return logits, labels[sample, position + 1]


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
        if self.should_stop():
            control.should_save = control.should_training_stop = True
        elif time.monotonic() - self.saved > CHECKPOINT_EVERY_S:
            control.should_save = True
        if control.should_save:
            keep_newest(Path(args.output_dir))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
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
) -> Any:
    """Train `model` on all of `pool`, going on from the last sound checkpoint; the trained model.

    One that the disk has damaged is told of in the log, and the one before is taken. It takes
    `config.epochs` epochs, or `max_steps` optimizer steps where they are given. Raises WarmupError
    on a NaN or infinite loss (ModelError where the weights it began with have them) and Stopped,
    with a checkpoint behind it, when asked to stop. In
    bfloat16 the trained weights stay in float32 (mixed precision): an adapter's do by themselves,
    for full parameters the model must come in float32.
    """
    if should_stop():  # asked to while the model was loaded
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
    trainer = _SftTrainer(pool, config.batch_tokens, model=model, args=arguments, callbacks=[watch])
    watch.trainer = trainer
    newest = newest_sound(checkpoints, tell=lambda text: print(text, flush=True))
    with prepared(model, config, dtype=dtype, device=device, longest=int(pool.lengths.max())):
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    if trainer.state.global_step < trainer.state.max_steps:
        raise Stopped
    return model.eval()


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
