"""What a run is: data set, model, warm-up, scoring."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from grads.config.base import DEMO_MODEL, Flag
from grads.config.probe import ProbeConfig, pairs

ROLES = ("messages", "prompt", "input", "response", "system", "tools", "text")


class RunConfig(ProbeConfig):
    """One run: data set, model, warm-up, scoring."""

    PATHS = ("dataset", "model", "warmup_from", *ProbeConfig.PATHS)

    dataset: str
    """JSONL, JSON, CSV, TSV or Parquet file, also as .gz or .zst; a folder or a quoted glob of
    such files; a save_to_disk folder, or a hub id."""
    dataset_config: str | None = None
    """Configuration (subset) name of a hub data set."""
    split: str | None = None
    """Split of a hub data set or of a folder that holds several; by default train."""
    revision: str | None = None
    """Git revision of a hub data set."""
    columns: Annotated[dict[str, str], Flag("--map")] = Field(default_factory=dict)
    """Column mapping by hand, ROLE=COLUMN with ROLE one of messages, prompt, input, response,
    system, tools, text; without it the layout is recognised."""
    layout: Literal["auto", "text", "chosen"] = "auto"
    """How rows are read: auto by their columns; text trains all of a column `text`, as pre-training
    does; chosen trains the chosen answers of a preference data set."""
    limit: int | None = Field(None, ge=1)
    """Read only the first N rows of the source."""
    subsample: int | None = Field(None, ge=1)
    """Of the rows read, take N drawn at random; they keep their row numbers."""
    subsample_seed: int = Field(0, ge=0)
    """Seed of that draw alone, so that runs of other models and seeds take the same rows."""
    heldout: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Set N samples aside, before anything else, for evaluation; auto takes a tenth, at most 200,
    and none of under 50."""
    max_length: int = Field(1024, ge=8)
    """Longest sample, in tokens; longer ones are cut at the end."""
    model: str = DEMO_MODEL
    """Hub id, local folder, GGUF file, or `demo` (SmolLM2-135M-Instruct)."""
    warmup: Literal["lora", "full", "none"] = "lora"
    """What the warm-up trains: LoRA on all linear layers, all parameters, or nothing."""
    when: Literal["after", "during"] = "after"
    """When gradients are taken: after the warm-up, in a pass of their own with its final weights,
    or during it, out of its own passes with the weights of each step, which saves that pass."""
    warmup_fraction: float = Field(1.0, gt=0, le=1)
    """Share of the pool, drawn by seed, that the warm-up trains on."""
    warmup_from: str | None = None
    """Run directory whose finished warm-up is taken over instead of training one."""
    epochs: float = Field(1.0, gt=0)
    """Epochs of the warm-up."""
    lr: float | None = Field(None, gt=0)
    """Peak learning rate of the warm-up; by default 2e-4 for lora and 2e-5 for full."""
    lora_rank: int = Field(16, ge=1)
    """Rank of the LoRA adapter; its alpha is twice the rank."""
    batch_size: int = Field(16, ge=1)
    """Samples an optimizer step of the warm-up."""
    batch_tokens: Annotated[int, Field(ge=8)] | Literal["auto"] = 2048
    """Most tokens, padding included, in one forward pass, of the warm-up and of the scoring;
    optimizer steps with more tokens accumulate gradients over several passes. auto begins with
    2048 and, on a GPU, grows until memory says no. A pass that runs out of memory is halved."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the model; auto is bfloat16 where the GPU computes it, or where this CPU
    multiplies at least twice as fast in it as in float32 (measured at the start), else float32."""
    quantize: Literal["none", "4bit", "8bit"] = "none"
    """Keep the layers between embedding and head in 4 or 8 bits (bitsandbytes), for models that do
    not fit; with LoRA or without a warm-up."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """How attention is computed, in training and scoring; auto is what Transformers takes, and
    plain products where they are faster. flash_attention_2 needs a GPU, bfloat16 and flash-attn."""
    gradient_checkpointing: bool = False
    """In training keep only each layer's input and compute the rest again: less memory, about a
    third more time."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes cuda, then mps, then cpu."""
    processes: int = Field(1, ge=1)
    """Processes that work at the run together on this machine, one a GPU; on several machines,
    start the command with torchrun or accelerate launch instead."""
    shard: Literal["none", "layers"] = "none"
    """What of the model is spread over the processes instead of held whole by each: its layers,
    for a model that fits no single GPU; embedding and head stay whole."""
    seed: int = Field(0, ge=0)
    """Seed of the held-out split, the warm-up, the features and the clusters."""
    token_signals: bool | None = None
    """Keep per-token signals; by default for pools of up to 5,000 samples."""
    clusters: int | None = Field(None, ge=1)
    """Number of topic clusters; by default it follows the pool's size."""

    @field_validator("columns", mode="before")
    @classmethod
    def _from_pairs(cls, columns: Any) -> Any:
        return pairs(columns, "ROLE=COLUMN, as in prompt=question")

    @field_validator("columns")
    @classmethod
    def _known_roles(cls, columns: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(columns) - set(ROLES))
        if unknown:
            raise ValueError(f"unknown role {', '.join(unknown)}: use {', '.join(ROLES)}")
        whole = {"messages", "text"} & set(columns)
        if columns and not whole and not {"prompt", "response"} <= set(columns):
            raise ValueError("map either messages or text, or both prompt and response")
        return columns

    @model_validator(mode="after")
    def _every_sample_is_trained_on(self) -> Self:
        """Where gradients come out of the warm-up, it has to see every sample."""
        if self.when == "during":
            problems = {
                f"warmup is '{self.warmup}'": self.warmup == "none",
                f"warmup_from is {self.warmup_from!r}": self.warmup_from is not None,
                f"warmup_fraction is {self.warmup_fraction:g}": self.warmup_fraction < 1,
                f"epochs is {self.epochs:g}": self.epochs < 1,
            }
            found = [problem for problem, there in problems.items() if there]
            if found:
                raise ValueError(
                    f"when is 'during', which takes a warm-up that sees every sample, but"
                    f" {' and '.join(found)}: change that, or leave out when"
                )
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_from and self.warmup == "none":
            raise ValueError(
                f"warmup_from is {self.warmup_from!r} but warmup is 'none': leave one of them out"
            )
        if self.quantize != "none" and self.warmup == "full":
            raise ValueError(
                f"quantize is {self.quantize!r} but warmup is 'full': quantised layers cannot be"
                " trained themselves, use lora"
            )
        return self

    @model_validator(mode="after")
    def _can_be_spread(self) -> Self:
        if self.shard != "none":
            others = {"quantize": self.quantize != "none", "when": self.when != "after"}
            for name in (name for name, there in others.items() if there):
                raise ValueError(
                    f"shard is {self.shard!r} but {name} is {getattr(self, name)!r}, which works"
                    " with whole models alone: leave one of them out"
                )
        return self

    @property
    def pass_tokens(self) -> int:
        """Tokens of a pass, to begin with where they are auto."""
        return 2048 if self.batch_tokens == "auto" else self.batch_tokens

    @property
    def learning_rate(self) -> float:
        """Peak learning rate with its default filled in."""
        return self.lr or (2e-5 if self.warmup == "full" else 2e-4)

    def for_file(self, file: str, limit: int | None = None) -> Self:
        """The settings for another file: what was said of the run's own data does not hold there.

        None of it is held out.
        """
        own = ("dataset_config", "split", "revision", "layout", "subsample")
        changed = {name: type(self).model_fields[name].default for name in own}
        return self.model_copy(update=changed | {"dataset": file, "limit": limit, "heldout": 0})
