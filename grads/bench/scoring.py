"""Speed and memory of scoring, as ratios to its peers in one process.

All arms see the same batches of the same samples, in turn, several rounds; a ratio is taken within
a round, so that a machine whose speed drifts does not bend it. The peers:

- directed: scoring, and every sample held against the mean gradients of two probe sets;
- bound: the body forward and its activations' backward alone, without the head and without norms;
- LoRA step: a step of a LoRA training, forward, backward, AdamW;
- during: the same, its gradients read sample by sample (`--when during`);
- training: a full-parameter step (forward, backward, AdamW), what a user pays anyway;
- other ways to the same numbers (grads/bench/peers.py).
"""

import copy
import importlib.util
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from grads.bench import memory as long_answers
from grads.bench import peers
from grads.bench.peak import peak_memory
from grads.bench.peers import Arm, Batch
from grads.config.run import RunConfig
from grads.data import prepare as data
from grads.data.sources import read_source
from grads.data.tokens import IGNORE, TokenPool, token_batches
from grads.engine import models
from grads.engine.adapters import add_lora
from grads.engine.directions import Direction
from grads.engine.during import TrainingTap
from grads.engine.gradients import GradientScorer
from grads.engine.loss import response_losses
from grads.engine.probing import mean_gradient
from grads.errors import GradsError
from grads.store.files import write_out

SAMPLES, MAX_LENGTH, BATCH_TOKENS, ROUNDS = 24, 256, 2048, 3


def main(out: Path, dataset: str) -> dict[str, Any]:
    """Measure every arm, write the result, after each round what is known by then, and return it.

    Raises GradsError where a peer is not installed, or the arms disagree.
    """
    _refuse_without_peers()
    config = RunConfig(dataset=dataset, limit=SAMPLES, max_length=MAX_LENGTH).absolute()
    tokenizer = models.load_tokenizer(config.model)
    prepared = data.prepare(read_source(config), config, tokenizer, MAX_LENGTH)
    pool = TokenPool.from_table(prepared.tokens)
    batches = [pool.collate(part) for part in token_batches(pool.lengths, BATCH_TOKENS)]
    tokens = int(pool.lengths.sum())

    model = models.load_model(config.model, "cpu", torch.float32)
    for name in peers.absent():
        print(f"left out, for it is not installed: {name}", file=sys.stderr, flush=True)
    makers: dict[str, Callable[[Any], Arm]] = {
        "scoring": _scoring,
        "directed": lambda model: _directed(model, pool),
        "bound": _bound,
        "LoRA step": lambda model: _lora_step(model, read=False),
        "during": lambda model: _lora_step(model, read=True),
        "training": _training,
    } | peers.present()
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    memory: dict[str, float] = {}
    norms: dict[str, np.ndarray] = {}
    long = {"long_answers_mb": long_answers.main()}
    for round_number in range(ROUNDS):
        for name, make in makers.items():
            arm = make(copy.deepcopy(model))
            with peak_memory() as peak:
                arm(batches[-1])  # the largest: allocators and caches are warm
                started = time.perf_counter()
                results = [arm(batch) for batch in batches]
                seconds[name].append(time.perf_counter() - started)
            memory[name] = max(memory.get(name, 0.0), peak["mb"])
            if results[0] is not None:
                norms[name] = torch.cat([r for r in results if r is not None]).numpy()
            print(
                f"round {round_number + 1} {name}: {seconds[name][-1]:.1f} s",
                file=sys.stderr,
                flush=True,
            )
            del arm, results
        found = _found(dataset, pool, tokens=tokens, seconds=seconds, memory=memory, norms=norms)
        write_out(out, json.dumps(found | long, indent=2) + "\n")
    return found | long


def _refuse_without_peers() -> None:
    if importlib.util.find_spec("opacus") is None:
        raise GradsError(
            "the benchmark measures against Opacus, which is not installed: pip install"
            " '.[bench]' in the source folder, or call `make bench` there"
        )


def _found(
    dataset: str,
    pool: TokenPool,
    *,
    tokens: int,
    seconds: dict[str, list[float]],
    memory: dict[str, float],
    norms: dict[str, np.ndarray],
) -> dict[str, Any]:
    ours = norms["scoring"]
    differ = {
        name: float(np.nanmax(np.abs(theirs / ours - 1)))
        for name, theirs in norms.items()
        if name != "scoring"
    }
    if max(differ.values()) > 1e-2:
        raise GradsError(f"the arms do not compute the same norms: {differ}")
    arms = {}
    for name, times in seconds.items():
        ratios = [mine / theirs for mine, theirs in zip(times, seconds["scoring"], strict=True)]
        arms[name] = {
            "tokens_per_s": round(tokens / statistics.median(times), 1),
            "time_over_scoring": [round(r, 2) for r in sorted(ratios)],
            "peak_memory_mb": round(memory[name]),
            "largest_relative_difference": differ.get(name),
        }
    return {
        "date": date.today().isoformat(),
        "machine": f"{psutil.cpu_count()} cores, {platform.machine()}, {torch.get_num_threads()}"
        f" threads, {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "model": "SmolLM2-135M-Instruct, float32",
        "rows": f"{len(pool)} of {Path(dataset).name},"
        f" {pool.lengths.min()}-{pool.lengths.max()} tokens, {tokens} in all",
        "scoring_over_training": _ratios(seconds, "scoring", "training"),
        "scoring_over_bound": _ratios(seconds, "scoring", "bound"),
        "during_over_lora_step": _ratios(seconds, "during", "LoRA step"),
        "arms": arms,
    }


def _ratios(seconds: dict[str, list[float]], arm: str, other: str) -> list[float]:
    """By rounds: how long an arm takes for each second of another."""
    return [round(a / b, 3) for a, b in zip(seconds[arm], seconds[other], strict=True)]


def _bound(model: Any) -> Arm:
    scorer = GradientScorer(model)

    def run(batch: Batch) -> None:
        with torch.enable_grad():
            hidden, leaf = scorer.to_head(batch[0])
        torch.autograd.grad(hidden, leaf, hidden.detach())

    return run


def _lora_step(model: Any, read: bool) -> Arm:
    """At learning rate 0: all of a step's work, and the same weights for every batch."""
    tap = TrainingTap(model)
    adapted = add_lora(model, 16)
    trainable = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=0.0)

    def run(batch: Batch) -> torch.Tensor | None:
        adapted.train()
        share = 1 / int((batch[2][:, 1:] != IGNORE).sum())
        with tap.reading(batch, share) if read else nullcontext() as reading:
            losses = response_losses(adapted, *batch)
            (losses.sum() * share).backward()
        optimizer.step()
        optimizer.zero_grad()
        if reading is None:
            return None
        reading.losses = losses.detach()
        found = reading.result()
        return torch.stack([found.embed_grad_norm, found.head_grad_norm], dim=1)

    return run


def _directed(model: Any, pool: TokenPool) -> Arm:
    """Against the first and the second half of the pool."""
    scorer, half = GradientScorer(model), len(pool) // 2
    return _scored(
        scorer,
        [
            mean_gradient(scorer, pool.subset(part), batch_tokens=BATCH_TOKENS, device="cpu")
            for part in (np.arange(half), np.arange(half, len(pool)))
        ],
    )


def _scoring(model: Any) -> Arm:
    return _scored(GradientScorer(model), [])


def _scored(scorer: GradientScorer, directions: list[Direction]) -> Arm:
    def run(batch: Batch) -> torch.Tensor:
        result = scorer.score(*batch, directions)
        return torch.stack([result.embed_grad_norm, result.head_grad_norm], dim=1)

    return run


def _training(model: Any) -> Arm:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def run(batch: Batch) -> None:
        ids, mask, labels = batch
        model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run
