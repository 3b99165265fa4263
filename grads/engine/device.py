"""Where a model is computed, and in which number format."""

import time
from functools import cache

import torch
from transformers.utils.import_utils import is_flash_attn_2_available

from grads.engine import models
from grads.errors import ModelError

NARROWEST = 512  # hidden size below which matrix products are not where the time goes
WORTH = 2.0  # times as fast: products are not all of a pass, and bfloat16 costs accuracy
ROWS, ROUNDS = 256, 5  # of the products that are timed: some 50 ms in all


def pick_device(device: str) -> str:
    """`auto` becomes cuda, then mps, then cpu; raises ModelError where the named one is absent."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next((name for name, present in there.items() if present), "cpu")
    if not there.get(device, True):
        raise ModelError(f"device '{device}' is not on this machine: use --device auto or cpu")
    return device


def pick_dtype(dtype: str, device: str, model: str) -> torch.dtype:
    """`auto` becomes bfloat16 where this model is computed much faster in it, else float32."""
    if dtype == "auto":
        return torch.bfloat16 if _bfloat16_pays(device, model) else torch.float32
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


def _bfloat16_pays(device: str, model: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device == "cpu" and bfloat16_gain(models.width(model)) >= WORTH


@cache
def bfloat16_gain(width: int) -> float:
    """How many times as fast as in float32 this CPU multiplies in bfloat16; 1 for narrow models.

    Timed once a process, on products of a model's hidden size: an instruction that a processor has
    (AVX-512 or AMX for bfloat16) is not yet one that makes it faster, and without one it is many
    times slower.
    """
    if width < NARROWEST:
        return 1.0
    rows, weight = torch.ones(ROWS, width), torch.ones(width, width)
    return _seconds(rows, weight) / _seconds(rows.bfloat16(), weight.bfloat16())


def _seconds(rows: torch.Tensor, weight: torch.Tensor) -> float:
    """The shortest of a few rounds, after one that warms the caches."""
    taken = []
    for _ in range(1 + ROUNDS):
        started = time.perf_counter()
        rows @ weight
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def refuse_attention(attention: str, device: str, dtype: torch.dtype) -> None:
    """Raise ModelError where this way of attention cannot be computed here."""
    if attention != "flash_attention_2":
        return
    other = "use --attention sdpa"
    if not is_flash_attn_2_available():
        raise ModelError(
            f"attention flash_attention_2 needs the package flash-attn and a CUDA GPU, and one of"
            f" them is not here: install it, or {other}"
        )
    if device != "cuda" or dtype == torch.float32:
        raise ModelError(
            f"attention flash_attention_2 computes in bfloat16 on a CUDA GPU, not in"
            f" {str(dtype).removeprefix('torch.')} on {device}: give --dtype bfloat16, or {other}"
        )


def dtype_name(dtype: torch.dtype) -> str:
    """A number format as settings and files name it: float32, bfloat16."""
    return str(dtype).removeprefix("torch.")
