"""Other ways to the norms that scoring finds, each as its makers would go it.

- autograd loop: plain autograd, one sample at a time, one backward pass over the whole model;
- frozen loop: the same with all but embedding and head frozen, the best a loop can do;
- ghost clipping: Opacus on an untied copy, all but embedding and head frozen;
- dattri: the gradients that its attribution methods start from, whole, by a mapped backward pass;
- Bergson: the gradients that its collector takes with hooks, whole; of linear layers alone, so of
  the head.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset

from grads.data.tokens import IGNORE

MAPPED = 4  # samples that dattri maps over at once; the whole gradients of one take 226 MB
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # ids, mask, labels: (B, T) each
Arm = Callable[[Batch], torch.Tensor | None]
"""What one batch costs; (B, 2) norms of embedding and head, NaN where it takes none."""


def present() -> dict[str, Callable[[Any], Arm]]:
    """What makes each peer's arm of a model, by its name; of those that are installed."""
    return {name: make for name, (package, make) in _all().items() if _installed(package)}


def absent() -> list[str]:
    """The names of the others."""
    return [name for name, (package, _) in _all().items() if not _installed(package)]


def _all() -> dict[str, tuple[str, Callable[[Any], Arm]]]:
    return {
        "autograd loop": ("torch", _autograd_loop),
        "frozen loop": ("torch", _frozen_loop),
        "ghost clipping": ("opacus", _ghost_clipping),
        "dattri": ("dattri", _dattri),
        "Bergson": ("bergson", _bergson),
    }


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _untied(model: Any) -> tuple[torch.nn.Embedding, torch.nn.Linear]:
    """Give the head weights of its own, and count the padding row as a real one."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    model.config.tie_word_embeddings = False
    embedding.padding_idx = None
    return embedding, head


def _embedding_and_head_only(model: Any) -> tuple[torch.nn.Embedding, torch.nn.Linear]:
    embedding, head = _untied(model)
    model.requires_grad_(False)
    embedding.weight.requires_grad_(True)
    head.weight.requires_grad_(True)
    return embedding, head


def _mean_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(B,) mean loss of each sample over its response tokens."""
    losses = F.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=IGNORE, reduction="none"
    )
    result: torch.Tensor = losses.sum(1) / (labels[:, 1:] != IGNORE).sum(1)
    return result


def _autograd_loop(model: Any) -> Arm:
    return _loop(model, *_untied(model))


def _frozen_loop(model: Any) -> Arm:
    return _loop(model, *_embedding_and_head_only(model))


def _loop(model: Any, embedding: torch.nn.Embedding, head: torch.nn.Linear) -> Arm:
    """One sample at a time, without padding: backward, then the norms of two weight gradients."""

    def run(batch: Batch) -> torch.Tensor:
        rows = []
        for ids, mask, labels in zip(*batch, strict=True):
            length = int(mask.sum())
            logits = model(input_ids=ids[None, :length], use_cache=False).logits
            _mean_losses(logits, labels[None, :length]).sum().backward()
            gradients: list[Any] = [embedding.weight.grad, head.weight.grad]
            rows.append(torch.stack([g.norm(dim=1).norm() for g in gradients]))
            model.zero_grad(set_to_none=True)
        return torch.stack(rows)

    return run


def _ghost_clipping(model: Any) -> Arm:
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
        GradSampleModuleFastGradientClipping,
    )

    embedding, head = _embedding_and_head_only(model)
    model.train()
    wrapped = GradSampleModuleFastGradientClipping(
        model, max_grad_norm=1.0, use_ghost_clipping=True, loss_reduction="sum", strict=False
    )

    def run(batch: Batch) -> torch.Tensor:
        ids, mask, labels = batch
        logits = wrapped(input_ids=ids, attention_mask=mask, use_cache=False).logits
        _mean_losses(logits, labels).sum().backward()
        parameters: list[Any] = [embedding.weight, head.weight]
        norms = torch.stack([p._norm_sample for p in parameters], dim=1).detach()
        for parameter in parameters:
            parameter._norm_sample = parameter.grad = None
        return norms

    return run


def _dattri(model: Any) -> Arm:
    """Without a mask, which cannot be mapped over: padding stands behind what is learned.

    A batch is taken in parts: mapped over all of it, it needs more than 13 GB on the demo's model.
    """
    from dattri.task import AttributionTask

    embedding, _ = _embedding_and_head_only(model)
    model.set_attn_implementation("eager")  # its backward pass can be mapped

    def loss(parameters: Any, sample: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        ids, labels = sample
        given = {"input_ids": ids[None], "use_cache": False}
        logits = torch.func.functional_call(model, parameters, (), given).logits
        return _mean_losses(logits, labels[None])[0]

    task = AttributionTask(loss_func=loss, model=model, checkpoints=[model.state_dict()])
    gradients = task.get_grad_loss_func(in_dims=(None, 0))
    parameters, _ = task.get_param(ckpt_idx=0)

    @torch.no_grad()  # of the gradients themselves
    def run(batch: Batch) -> torch.Tensor:
        rows, cut = [], embedding.weight.numel()
        for part in zip(batch[0].split(MAPPED), batch[2].split(MAPPED), strict=True):
            whole = gradients(parameters, part)
            rows.append(torch.stack([whole[:, :cut].norm(dim=1), whole[:, cut:].norm(dim=1)], 1))
        return torch.cat(rows)

    return run


def _bergson(model: Any) -> Arm:
    from bergson.collector.in_memory_collector import InMemoryCollector
    from bergson.config import IndexConfig
    from bergson.gradients import GradientProcessor

    _, head = _embedding_and_head_only(model)
    (name,) = (name for name, module in model.named_modules() if module is head)
    collector = InMemoryCollector(
        model=model,
        data=Dataset.from_dict({"input_ids": [[0]]}),
        cfg=IndexConfig(run_path=""),
        target_modules={name},
        processor=GradientProcessor(),
    )

    def run(batch: Batch) -> torch.Tensor:
        ids, mask, labels = batch
        with collector.with_batch(None):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            _mean_losses(logits, labels).sum().backward()
        norms = collector.mod_grads.pop(name).norm(dim=1)
        model.zero_grad(set_to_none=True)
        return torch.stack([torch.full_like(norms, torch.nan), norms], dim=1)

    return run
