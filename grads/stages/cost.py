"""What a run will cost on this machine, from a short measurement of its own model and data."""

import threading
import time
from typing import Any

import numpy as np
import psutil
import torch

from grads.config.run import RunConfig
from grads.data.tokens import IGNORE, TokenPool, token_batches
from grads.engine import adapters, models
from grads.engine.anatomy import refuse_unknown_tokens
from grads.engine.device import pick_device, pick_dtype, refuse_attention
from grads.engine.gradients import GradientScorer
from grads.engine.loss import response_losses
from grads.engine.training import prepared, sample_fraction
from grads.store.cost import RunCost

MEASURED_TOKENS = 512  # in one training step and one scoring batch; two rounds of each
CHECKED = 4  # samples that the run's self-check computes by plain autograd, at about this factor
AUTOGRAD = 2.0
READ = 1.05  # of a training step, one whose gradients are read sample by sample
DIRECTED = 0.03  # of the scoring pass, each probe set (docs/benchmarks.md)
ALONE = 0.3  # of the scoring pass, the answers without their questions: a forward pass


def measure(config: RunConfig, pool: TokenPool, stored: int) -> RunCost:
    """Seconds by stage, peak memory and disk in bytes, and the rates they come from.

    One training step and one scoring batch of about 512 tokens are timed after a first round that
    warms the caches. Memory grows linearly with the tokens of a batch; gradients and optimizer
    state take 12 bytes a trained weight. `stored` are the bytes that the prepared data take.
    """
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device, config.model)
    started = time.monotonic()
    refuse_attention(config.attention, device, dtype)
    model = models.load_model(
        config.model,
        device,
        torch.float32 if config.warmup == "full" else dtype,
        attention=config.attention,
        quantize=config.quantize,
    )
    loading = time.monotonic() - started
    batch = _typical_batch(pool, min(MEASURED_TOKENS, config.pass_tokens))
    tokens = int(pool.lengths[batch].sum())
    inputs = pool.collate(batch, device)
    before, watch = _memory(device), _Peak(device)
    scorer = GradientScorer(model)
    refuse_unknown_tokens(model, pool.input_ids)
    with watch:
        scoring = tokens / _seconds(lambda: scorer.score(*inputs), device)
    training, trainable = None, 0
    if config.warmup != "none" and not config.warmup_from:
        model = adapters.add_lora(model, config.lora_rank) if config.warmup == "lora" else model
        for parameter in model.parameters() if config.warmup == "full" else ():
            parameter.requires_grad_(True)
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        longest = int(pool.lengths.max())
        with watch, prepared(model, config, dtype=dtype, device=device, longest=longest):
            training = tokens / _seconds(lambda: _train_step(model, dtype, inputs), device)
    padded = int(pool.lengths[batch].max()) * len(batch)
    growth = max(watch.most - before - 4 * trainable, 0) / padded
    seconds = _stage_seconds(config, pool, loading=loading, scoring=scoring, training=training)
    widest = min(config.pass_tokens, int(pool.lengths.max()) * len(pool))
    return RunCost(
        seconds={name: round(value, 1) for name, value in seconds.items()},
        memory_bytes=int(before + growth * widest + 12 * trainable),
        disk_bytes=stored + _disk(config, pool, trainable),
        training_tokens_per_s=training and round(training, 1),
        scoring_tokens_per_s=round(scoring, 1),
        samples=len(pool),
        tokens=int(pool.lengths.sum()),
        device=device,
    )


def _typical_batch(pool: TokenPool, tokens: int) -> np.ndarray:
    """Positions of samples around the median length that fill one small batch."""
    middle = np.argsort(pool.lengths, kind="stable")[len(pool) // 2 :]
    first: np.ndarray = middle[token_batches(pool.lengths[middle], tokens)[0]]
    return first


def _seconds(work: Any, device: str) -> float:
    """Seconds of the faster of two rounds."""
    times = []
    for _ in range(2):
        started = time.monotonic()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - started)
    return min(times)


def _train_step(model: Any, dtype: torch.dtype, inputs: tuple[torch.Tensor, ...]) -> None:
    ids, mask, labels = inputs
    model.train()
    trained = max(int((labels != IGNORE).sum()), 1)
    with torch.autocast(ids.device.type, dtype, enabled=dtype == torch.bfloat16):
        loss = response_losses(model, ids, mask, labels).sum() / trained
    loss.backward()
    model.zero_grad(set_to_none=True)


def _stage_seconds(
    config: RunConfig, pool: TokenPool, *, loading: float, scoring: float, training: float | None
) -> dict[str, float]:
    """What each stage takes; `scoring` and `training` are speeds, in tokens a second."""
    tokens = float(pool.lengths.sum())
    sets = 1 + DIRECTED * len(config.sets)
    seconds = {"score": loading + (sets * tokens / scoring if config.when == "after" else 0.0)}
    if config.extras:
        seconds["extras"] = ALONE * tokens / scoring
    order = np.sort(pool.lengths)
    checked = order[np.linspace(0, 0.9 * (len(order) - 1), CHECKED).astype(int)].sum()
    seconds["self-check"] = float(checked) * (AUTOGRAD + 1) / scoring
    if training:
        chosen = sample_fraction(len(pool), config.warmup_fraction, config.seed)
        trained = float(pool.lengths[chosen].sum()) * config.epochs
        read = 1.0 if config.when == "after" else READ * sets
        seconds["warm-up"] = loading + read * trained / training
    return seconds


def _memory(device: str) -> int:
    """Bytes in use: of the GPU where there is one, else of the process."""
    if device == "cuda":
        return torch.cuda.memory_allocated()
    return int(psutil.Process().memory_info().rss)


class _Peak:
    """The most memory in use while it is entered, looked at every few milliseconds."""

    def __init__(self, device: str) -> None:
        self.device, self.most = device, 0
        self._ended = threading.Event()

    def __enter__(self) -> None:
        self._ended.clear()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.005):
            self.most = max(self.most, _memory(self.device))

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


def _disk(config: RunConfig, pool: TokenPool, trainable: int) -> int:
    """Bytes that come on top: trained weights with their state, features, scores, token signals."""
    kept = 4 * trainable if config.warmup_from is None else 0
    signals = 8 * int(pool.lengths.sum()) if config.token_signals is not False else 0
    return 3 * kept + len(pool) * (64 * 4 + 256 * 4 + 64) + signals
