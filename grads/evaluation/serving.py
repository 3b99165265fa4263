"""An arm that vLLM serves to the tasks: handed over as files, held against what it was.

vLLM is not among the requirements, as each of its versions is made for one of torch; it is imported
where it is used. It runs the model in a process of its own, started for an arm and ended with it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from peft import PeftConfig, PeftModel

from grads.data.tokens import TokenPool
from grads.engine.device import dtype_name
from grads.engine.loss import response_losses
from grads.engine.room import free
from grads.errors import EvaluationError, Stopped
from grads.evaluation.cost import WRITTEN
from grads.evaluation.measure import CHECKED
from grads.evaluation.tasks import quiet, said
from grads.store.files import replacing

AT_ONCE = 64  # requests that are given to vLLM together; it can be stopped between such lots
SHARE = 0.8  # of what is free on a GPU; prompts' likelihoods need some of the rest
CACHE = 2**31  # bytes of attention's cache where there is no GPU
# How far a token's log-probability may be from the arm's own, in nats, in the mean: in bfloat16 two
# ways of computing SmolLM2 were 0.05 apart, as each is from float32.
APART = {torch.float32: 0.01, torch.bfloat16: 0.2}
SETTINGS = {
    "VLLM_NO_USAGE_STATS": "1",  # it would tell its makers of its use
    # The model alone is elsewhere: an engine elsewhere would outlive a job that is killed.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork would take over the threads of torch
    "VLLM_LOGGING_LEVEL": "WARNING",
}


@dataclass(frozen=True)
class Handed:
    """An arm as files, and what it predicts."""

    weights: Path  # a folder with the tokenizer too
    adapter: Path | None  # a folder
    dtype: torch.dtype
    samples: TokenPool  # a few
    predicted: np.ndarray  # log-probability of each response token of theirs, by the model itself


def hand_over(
    model: Any, tokenizer: Any, samples: TokenPool, *, weights: Path, adapter: Path
) -> Handed:
    """Write what vLLM reads, and give back the model's memory: it is of no use afterwards.

    Weights without a LoRA adapter are written to `weights`, unless they are there, the adapter to
    `adapter`. Predictions are kept of a few of the samples.
    """
    few = samples.subset(np.argsort(samples.lengths, kind="stable")[:CHECKED])
    predicted, dtype = _own(model, few), model.dtype
    lora = isinstance(model, PeftModel)
    if lora:
        model.save_pretrained(str(adapter), save_embedding_layers=False)
        model = model.unload()
    if not weights.exists():
        with replacing(weights) as draft:
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
    model.to("meta")
    free()
    return Handed(weights, adapter if lora else None, dtype, few, predicted)


@torch.inference_mode()
def _own(model: Any, samples: TokenPool) -> np.ndarray:
    """What the model itself gives the response tokens, in nats."""
    batch = samples.collate(np.arange(len(samples)), model.device)
    return -response_losses(model, *batch).double().cpu().numpy()


@contextmanager
def served(
    handed: Handed,
    *,
    batch_tokens: int,
    report: Callable[[int], None] = lambda passes: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Any]:
    """The arm as lm_eval asks one of vLLM, while its process runs.

    Raises EvaluationError where vLLM cannot serve it, or serves something else; to ask it raises
    Stopped between lots of requests.
    """
    os.environ.update(SETTINGS | os.environ)
    try:
        with quiet():
            asked = _asked(handed, batch_tokens, report=report, should_stop=should_stop)
    except Exception as error:  # vLLM is code of others, and refuses in many ways
        raise _refused(error) from error
    try:
        with quiet():
            _refuse_another(asked, handed)
        yield asked
    finally:
        asked.model.llm_engine.engine_core.shutdown()


def _asked(
    handed: Handed,
    batch_tokens: int,
    *,
    report: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> Any:
    """The arm as lm_eval asks it, which tells of its work and can be stopped."""
    from lm_eval.models.vllm_causallms import VLLM

    class Asked(VLLM):
        def _model_generate(self, requests: Any, generate: bool = False, **kwargs: Any) -> Any:
            if should_stop():
                raise Stopped
            try:
                found = super()._model_generate(requests, generate, **kwargs)
            except Exception as error:  # some models fail at their first request alone
                raise _refused(error) from error
            written = 0
            for one in found if generate else ():
                ids = one.outputs[0].token_ids
                written += len(ids)
                # As models in this process are read: vLLM keeps what marks the end of a turn.
                one.outputs[0].text = self.tokenizer.decode(ids, skip_special_tokens=True)
            report(sum(map(len, requests)) + WRITTEN * written)
            return found

    asked = Asked(
        pretrained=str(handed.weights),
        dtype=dtype_name(handed.dtype),
        batch_size=AT_ONCE,
        max_num_seqs=AT_ONCE,
        max_num_batched_tokens=max(batch_tokens, AT_ONCE),
        max_model_len=-1,  # as many as the model takes and memory has room for
        distributed_executor_backend="mp",  # a process of its own, whose memory is given back whole
        enforce_eager=True,  # for one arm, to compile would take longer
        **_memory(),
        **_with_adapter(handed),
    )
    asked._max_length = None  # the engine knows
    return asked


def _refused(error: Exception) -> EvaluationError:
    return EvaluationError(
        f"vLLM cannot serve it ({said(error)}): the job's log tells more; --tasks-with transformers"
        " asks it where it was trained"
    )


def _memory() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"kv_cache_memory_bytes": CACHE}
    free, whole = torch.cuda.mem_get_info()
    return {"gpu_memory_utilization": SHARE * free / whole}


def _with_adapter(handed: Handed) -> dict[str, Any]:
    """Adapter on the layers that it was trained on: vLLM would else put one on the head too, which
    then refuses the likelihoods of several prompts at once."""
    if handed.adapter is None:
        return {}
    from vllm.config.lora import MaxLoRARanks

    lora: Any = PeftConfig.from_pretrained(str(handed.adapter))
    room = [rank for rank in get_args(MaxLoRARanks) if rank >= lora.r]
    return {
        "lora_local_path": str(handed.adapter),
        "lora_target_modules": sorted({name.rpartition(".")[2] for name in lora.target_modules}),
        "max_lora_rank": min(room, default=lora.r),
    }


def _refuse_another(asked: Any, handed: Handed) -> None:
    """Raise EvaluationError where what is served predicts otherwise than what was handed over."""
    ours, served = handed.predicted, _predicted(asked, handed.samples)
    apart = float(np.abs(served - ours).mean())
    if not apart <= APART[handed.dtype]:
        raise EvaluationError(
            f"what vLLM serves is not what was trained: its log-probability of a token is"
            f" {apart:.2g} nats off in the mean; ask with --tasks-with transformers"
        )
    if handed.adapter is not None:
        adapter, asked.lora_request = asked.lora_request, None
        without = _predicted(asked, handed.samples)
        asked.lora_request = adapter
        if np.array_equal(served, without):
            raise EvaluationError(
                "vLLM serves the untrained model: its adapter changes no prediction; ask with"
                " --tasks-with transformers"
            )


def _predicted(asked: Any, samples: TokenPool) -> np.ndarray:
    """What the served model gives the response tokens, in nats."""
    spans = [slice(*pair) for pair in pairwise(samples.offsets)]
    prompts = [samples.input_ids[span].tolist() for span in spans]
    outputs = asked._model_generate(prompts)
    return np.array(
        [
            likely[token].logprob
            for span, ids, output in zip(spans, prompts, outputs, strict=True)
            for trained, token, likely in list(
                zip(samples.trained[span], ids, output.prompt_logprobs, strict=True)
            )[1:]
            if trained
        ]
    )
