"""LoRA adapters: fresh ones on every layer that takes one, saved ones loaded whole or refused."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open

from grads.engine.models import cannot_load, first_line, refuse_non_finite
from grads.errors import ModelError, of_the_machine

MAMBAS = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")
READ_PAST = ("out_proj", "conv1d")  # layers of theirs whose weights their kernels read themselves


def add_lora(model: Any, rank: int) -> Any:
    """A fresh LoRA adapter on every linear layer but the head, and those that it cannot stand in.

    Raises ModelError where the model does not work with one.
    """
    few = torch.arange(4, device=model.device)[None] % model.get_input_embeddings().num_embeddings
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        exclude_modules=_without_lora(model, few) or None,
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(model, config)
        with torch.no_grad():
            adapted(input_ids=few, use_cache=False)
    except Exception as error:  # what does not fit shows itself in many ways
        raise ModelError(
            of_the_machine(error)
            or f"{type(model).__name__} takes no LoRA adapter ({first_line(error)}): use --warmup"
            " full, or none"
        ) from error
    return adapted


def _without_lora(model: Any, few: torch.Tensor) -> list[str]:
    """Names of linear layers that no adapter can stand in for.

    Those whose weights are read past the layer, and routers, which give more than a product.
    """
    found = list(READ_PAST) if model.config.model_type in MAMBAS else []

    def note(name: str, output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            found.append(name)

    hooks = [
        module.register_forward_hook(lambda _, args, output, name=name: note(name, output))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    try:
        with torch.no_grad():
            model(input_ids=few, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def load_adapter(model: Any, path: Path) -> Any:
    """The model with a saved LoRA adapter in place; raises ModelError where that is not whole."""
    try:
        with safe_open(path / "adapter_model.safetensors", "pt") as file:  # PEFT reads pickles too
            names = set(file.keys())
        loaded = PeftModel.from_pretrained(model, str(path)).eval()
        weights = get_peft_model_state_dict(loaded)
        differ = names ^ set(weights)
    except Exception as error:  # as above
        raise cannot_load("adapter", str(path), error) from error
    if differ:  # PEFT would leave what is missing as it begins: without effect
        raise ModelError(
            f"the adapter {path} does not fit its model: {sorted(differ)[0]} and"
            f" {len(differ) - 1} more are on one side alone; train it again"
        )
    refuse_non_finite(str(path), weights.items())
    return loaded.get_base_model()
