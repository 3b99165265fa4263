"""A model whose layers are spread over the devices of a team, by FSDP2 (torch's fully_shard).

Each process keeps its share of every decoder layer, and gathers one whole for as long as it is
computed. The embedding, the final norm and the head stay whole in each: they are few weights, and
the scoring reads them. A pass is one of all processes: each must make as many as the others.
"""

from itertools import chain
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from grads.engine import team
from grads.errors import ModelError


def spread(model: Any, device: str) -> Any:
    """The model, loaded whole on the CPU, with its layers spread over the team's devices.

    Layer by layer goes to its device, so that none holds more than its share and one layer. What
    is added to the model afterwards, such as an adapter, is whole in each process. Raises
    ModelError where the model does not say which its layers are.
    """
    layers = _layers(model)
    size = team.current().size
    mesh = init_device_mesh(device, (size,), mesh_dim_names=("fsdp",))  # PEFT knows it by the name
    for layer in layers.values():
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    kept = [weight for weight in model.parameters() if not isinstance(weight, DTensor)]
    for tensor in chain(kept, model.buffers()):
        tensor.data = tensor.data.to(device)
    # What calls the layers one by one lets them share their buffers. It ends below the head, where
    # a pass of the scoring is broken off.
    stack = model.get_submodule(next(iter(layers)).rpartition(".")[0].rpartition(".")[0])
    fully_shard(stack, mesh=mesh, ignored_params=set(kept))
    # For the Trainer: it neither wraps such a model nor moves it, and averages the gradients of
    # what is whole.
    model._is_distributed_loading_by_transformers = True
    return model


def _layers(model: Any) -> dict[str, torch.nn.Module]:
    """The decoder layers by their names: what Transformers would not split, outermost."""
    kinds, found = set(model._no_split_modules or ()), dict[str, torch.nn.Module]()
    ends = {model.get_input_embeddings(), model.get_output_embeddings()}
    for name, module in model.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer in found)
        if type(module).__name__ in kinds and not inner and ends.isdisjoint(module.modules()):
            found[name] = module
    if not found:
        raise ModelError(
            f"{type(model).__name__} does not say which its layers are, so they cannot be spread"
            " over processes: leave out shard"
        )
    return found


def is_spread(model: Any) -> bool:
    """Whether a pass of the model is one of all processes."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor on the CPU; of one that is spread, all processes ask together."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()


def share_of(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What this process holds of a whole tensor that is spread, if at all, as `like` is."""
    tensor = tensor.to(like.device)
    if isinstance(like, DTensor) and tensor.shape == like.shape:
        return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
    return tensor
