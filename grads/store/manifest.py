"""manifest.json of a run: what it was made of, with what, and what each stage has found.

It grows stage by stage. What no stage has told yet has the default, and is not in the file.
"""

from pydantic import Field

from grads.config.probe import Role
from grads.errors import RunError
from grads.store.records import Part, Stored


class Source(Part):
    """The data that were read."""

    name: str = ""
    digest: str | None = None
    """SHA-256 of the file's content, or what else tells it from another state of it."""
    layout: str = ""
    lines: bool = False
    """Whether it is a file of lines, which an export gives back byte for byte."""


class Counts(Part):
    """Rows of the source, and what became of them."""

    rows: int = 0
    usable: int = 0
    """Held-out ones included."""
    refused: int = 0
    heldout: int = 0
    truncated: int = 0
    response_tokens: int = 0
    """Of the usable rows."""


class SelfCheck(Part):
    """The fast gradients against plain autograd, on a few samples."""

    samples: list[int] = Field(default_factory=list)
    """Their sample ids."""
    largest_relative_difference: float
    tolerance: float | None = None
    """The difference from which the run would have stopped."""


class WarmUp(Part):
    """The warm-up that the scored model has had."""

    kind: str
    """lora or full; none in runs of 0.1 to 0.4 that trained nothing."""
    samples: int | None = None
    """How many it trained on; None where it was taken over."""
    taken_from: str | None = None
    """The run that it was taken over from."""


class ChatTemplate(Part):
    """The template that the samples were written with; its text is chat_template.jinja."""

    of_the_model: bool
    """Whether the model brings it; else it is the plain one."""
    special_tokens: dict[str, str] = Field(default_factory=dict)
    """The tokenizer's, by their names, as a template may use them."""


class ProbeSet(Part):
    """A probe set whose rows lie in probe_sets/, and how the samples lie to it in probes/."""

    role: Role
    source: str
    """The file that it was read from, or the samples of the pool that it is."""
    digest: str
    """SHA-256 of the file's content, or what else tells its rows from others."""
    samples: int
    response_tokens: int
    refused: int = 0
    """Rows of the file that could not be used."""
    in_pool: int = 0
    """Of the samples, those that also stand in the pool."""
    sketch: int | None = None
    """The numbers a token that its mean gradient at the head was kept in; None: all, exactly."""


class Manifest(Stored):
    """What a run was made of and has found."""

    run: str = ""
    """Id of the run."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of the libraries that computed it, by name."""
    device: str = ""
    dtype: str = ""
    model: str = ""
    model_digest: str | None = None
    """Digest of the model's and tokenizer's files; none before 0.5."""
    seed: int = 0
    gradients_taken: str | None = None
    """before any warm-up, or after the warm-up."""
    source: Source = Field(default_factory=Source)
    columns: dict[str, str] = Field(default_factory=dict)
    """Which column of the source plays which role."""
    unused_columns: list[str] = Field(default_factory=list)
    """Columns of text, lists or labels that nothing uses; none told before 0.5."""
    without_end_of_turn: int = 0
    """Samples whose answers no token ends, as the chat template shows none."""
    spelled_out: int = 0
    """Samples whose text spells out control tokens, which stay text; none told before 0.5."""
    max_length: int | None = None
    """Tokens after which samples were cut: the setting, or less where the model reads less."""
    chat_template: ChatTemplate | None = None
    """None before 0.5, and of a model with several."""
    counts: Counts = Field(default_factory=Counts)
    seconds: dict[str, float] = Field(default_factory=dict)
    """What each stage has taken, attempts summed, by its name."""
    load_seconds: float = 0.0
    """What the last loading of the base model took; none told before 0.5."""
    weights: dict[str, str] = Field(default_factory=dict)
    """A fingerprint of the base model's weights by their number format; none before 0.5."""
    files: dict[str, str | None] = Field(default_factory=dict)
    """Digest of each file or folder that a stage makes, None where it makes none here."""
    made: dict[str, dict[str, str | None]] = Field(default_factory=dict)
    """What each finished stage was made from: digests by name; nothing before 0.5."""
    probes: dict[str, ProbeSet] = Field(default_factory=dict)
    """The probe sets by name."""
    warmup: WarmUp | None = None
    self_check: SelfCheck | None = None

    @property
    def longest(self) -> int:
        """`max_length`, in tokens; raises RunError before the data were read."""
        if self.max_length is None:
            raise RunError("manifest.json tells no max_length: wait for the run, or resume it")
        return self.max_length
