"""What the training configs of all trainers say alike: the model, where things lie."""

from pathlib import Path

from grads.config.base import DEMO_HUB_ID, DEMO_MODEL
from grads.config.run import RunConfig
from grads.export.rows import TEMPLATE_NAME, Subset


def model_name(config: RunConfig) -> str:
    """The model as a trainer finds it from the export's folder."""
    if config.model == DEMO_MODEL:
        return DEMO_HUB_ID
    path = Path(config.model).expanduser()
    return str(path.resolve()) if path.exists() else config.model


def lora_alpha(config: RunConfig) -> int:
    """The scale of an adapter, as the warm-up has it."""
    return 2 * config.lora_rank


def write_template(source: str, data: Path) -> str:
    """Write a chat template beside the data; returns its name."""
    data.with_name(TEMPLATE_NAME).write_text(source, encoding="utf-8", newline="")
    return TEMPLATE_NAME


def brings_none(subset: Subset) -> bool:
    """Whether the model is known to have no chat template of its own."""
    return subset.template is not None and not subset.template.of_the_model


def is_text(subset: Subset) -> bool:
    """Whether the rows are plain texts, of which everything is trained."""
    return any(turn["role"] == "text" for turns in subset.turns for turn in turns[:1])
