"""What the stages of a run, and those of an evaluation, load: its model, its tokens."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from grads.data.tokens import TokenPool
from grads.engine import adapters, models, sharding, team
from grads.engine.device import dtype_name, pick_device, pick_dtype
from grads.errors import ModelError, ScoringError
from grads.store import pipeline
from grads.store.files import scratch
from grads.store.runs import Run


def refuse_other_model(run: Run) -> str:
    """The digest of the run's model; raises ModelError where it is not what the run was made with.

    Runs from before 0.5 kept none, and take what is there. A model that was refused before
    anything was made with it may be mended.
    """
    model, manifest = run.config().model, run.read_manifest()
    known, found = manifest.model_digest, models.model_digest(model)
    if known in (None, found):
        return found
    if {"warm-up", "score"} & set(manifest.made) or list(run.checkpoints.glob("checkpoint-*")):
        raise ModelError(
            f"the files of the model '{model}' are not those that run {run.id} was made with"
            f" ({found[:20]}, then {known[:20]}): put those back, or start a new run"
        )
    run.update_manifest(weights={})
    return found


def in_step(run: Run) -> bool:
    """Whether the model's layers are spread: then each pass is one of all processes."""
    return run.config().shard == "layers" and team.current().size > 1


def _placed(run: Run, load: Callable[[str], Any], device: str) -> Any:
    """The model that `load` puts on a device, or its layers on those of all processes."""
    if not in_step(run):
        return load(device)
    return sharding.spread(team.settled(lambda: load("cpu")), device)


def load_base_model(run: Run, dtype: torch.dtype, device: str) -> Any:
    """The model before any training; raises ModelError where two loads of it differ."""
    return _placed(run, lambda place: _load_base_model(run, dtype, place), device)


def _load_base_model(run: Run, dtype: torch.dtype, device: str) -> Any:
    started = time.monotonic()
    config = run.config()
    model = models.load_model(
        config.model, device, dtype, attention=config.attention, quantize=config.quantize
    )
    kept = dict(run.read_manifest().weights)
    name, found = dtype_name(dtype), models.fingerprint(model)
    if kept.setdefault(name, found) != found:
        raise ModelError(
            f"two loads of the model '{run.config().model}' gave different weights: some of them"
            " are made up, as its files do not hold them; give a complete model"
        )
    run.update_manifest(weights=kept, load_seconds=round(time.monotonic() - started, 2))
    return model


def load_pool(run: Run) -> TokenPool:
    """The tokens of every sample that is not held out, read group by group into scratch files."""
    names = ["sample_id", "prompt_tokens", "response_tokens", "heldout"]
    samples = run.read_table(run.samples_file, names)
    taken = ~samples["heldout"].to_numpy()
    lengths = pc.add(samples["prompt_tokens"], samples["response_tokens"]).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths[taken], dtype=np.int64)])
    pool = TokenPool(
        sample_ids=samples["sample_id"].to_numpy()[taken],
        offsets=offsets,
        input_ids=scratch(run.path, offsets[-1], np.int32),
        trained=scratch(run.path, offsets[-1], np.bool_),
    )
    start = place = 0
    for table in run.read_batches(run.tokens_file, ["input_ids", "trained"]):
        mine = pa.array(taken[start : start + len(table)])
        start += len(table)
        ids, trained = (table[name].filter(mine).flatten() for name in table.schema.names)
        end = place + len(ids)
        pool.input_ids[place:end] = ids.to_numpy()
        pool.trained[place:end] = trained.to_numpy(zero_copy_only=False)
        place = end
    return pool


def load_scoring_model(run: Run, dtype: torch.dtype, device: str) -> Any:
    """The base model with the run's warm-up in place."""
    if run.weights.exists():
        weights, attention = str(run.weights), run.config().attention
        return _placed(
            run,
            lambda place: models.load_model(weights, place, dtype, attention=attention),
            device,
        )
    model = load_base_model(run, dtype, device)
    if not run.adapter.exists():
        return model
    return team.settled(lambda: adapters.load_adapter(model, run.adapter))


def scoring_model_again(run: Run) -> Any:
    """The model that a finished run was scored with; raises ScoringError where it is gone.

    Raises ModelError or RunError where the files of it, or the samples, are not those of the run.
    """
    if not run.has_model:
        raise ScoringError(
            f"run {run.id} has no warmed-up model any more, so nothing more can be measured with"
            " it: score the data again"
        )
    refuse_other_model(run)
    pipeline.refuse_changed(run, "samples.parquet", "tokens.parquet", "adapter", "weights")
    device = pick_device(run.config().device)
    return load_scoring_model(run, number_format(run, device), device)


def number_format(run: Run, device: str) -> torch.dtype:
    """What the run is computed in: chosen when it began, and kept wherever it goes on."""
    config = run.config()
    return pick_dtype(run.read_manifest().dtype or config.dtype, device, config.model)
