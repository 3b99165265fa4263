"""The numbers of a sample, each column declared once: for the stages, the pool and the pages."""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """A number of every sample."""

    name: str
    label: str  # for people
    help: str  # what it means, with its unit
    kind: pa.DataType
    measured: bool = False
    """Whether the scoring pass measures it (an attribute of `SampleGradients`); else it is copied
    from samples.parquet."""


SCORES = {
    column.name: column
    for column in (
        Column(
            "sample_id",
            "Row number",
            "Place of the example in the data file, counted from 0.",
            pa.int64(),
        ),
        Column(
            "prompt_tokens",
            "Length before the answer",
            "Tokens that are read before what is learned: the question, what comes before it, and"
            " what the chat template adds, such as an instruction that the data do not show.",
            pa.int32(),
        ),
        Column(
            "response_tokens",
            "Answer length",
            "Tokens of the answer: about 3 words for 4 tokens.",
            pa.int32(),
        ),
        Column(
            "loss",
            "Surprise (loss)",
            "How unexpected the answer is to the model, in nats per token; higher is more"
            " surprising.",
            pa.float32(),
            measured=True,
        ),
        Column(
            "embed_grad_norm",
            "Raw gradient, input words",
            "Gradient norm at the embedding layer.",
            pa.float32(),
            measured=True,
        ),
        Column(
            "head_grad_norm",
            "Raw gradient, output words",
            "Gradient norm at the LM head.",
            pa.float32(),
            measured=True,
        ),
        Column(
            "grad_dot",
            "Agreement of the two gradients",
            "Inner product of the two gradients.",
            pa.float32(),
            measured=True,
        ),
        Column(
            "truncated", "Cut", "Whether the example was cut at the longest length.", pa.bool_()
        ),
    )
}
DURING = {
    column.name: column
    for column in (
        Column(
            "step",
            "Steps before it was read",
            "Optimizer steps of the warm-up behind the weights that the example was measured with,"
            " where gradients were taken during the warm-up.",
            pa.int32(),
        ),
    )
}
MAP = ("map_x", "map_y")  # where a sample lies on the map of the texts, in features.parquet
MEASURED = tuple(name for name, column in SCORES.items() if column.measured)
EXTRAS = {
    column.name: column
    for column in (
        Column(
            "question_gain",
            "What the question saves",
            "How much less unexpected the answer is once the question is known, in nats per token;"
            " low means that the answer hardly belongs to its question.",
            pa.float32(),
        ),
        Column(
            "question_gain_z",
            "What the question saves, for its topic",
            "The same among examples of its topic and for the answer's length: 0 is typical, 1 is"
            " one standard deviation more.",
            pa.float32(),
        ),
    )
}


@dataclass(frozen=True)
class TowardsColumn:
    """A number that tells how a sample lies to a probe set; its column is called FIELD_SET."""

    field: str  # a column of probes/NAME.parquet
    label: str  # for people, before the set's name
    help: str


TOWARDS = {
    column.field: column
    for column in (
        TowardsColumn(
            "embed_cosine",
            "Input words, towards",
            "How far learning this example moves the input-word layer the same way as learning the"
            " examples of the set: 1 the same way, 0 neither, below 0 the other way.",
        ),
        TowardsColumn(
            "head_cosine",
            "Output words, towards",
            "The same for the layer that chooses words.",
        ),
        TowardsColumn(
            "cosine",
            "Both layers, towards",
            "The same for both layers together.",
        ),
        TowardsColumn(
            "rds",
            "Read alike, to",
            "How alike the model reads this example and those of the set: 1 is the same.",
        ),
        TowardsColumn(
            "embed_dot",
            "Input words, pull towards",
            "Inner product of the example's gradient with the set's at the input-word layer.",
        ),
        TowardsColumn(
            "head_dot",
            "Output words, pull towards",
            "Inner product of the example's gradient with the set's at the layer that chooses"
            " words.",
        ),
    )
}


def towards_name(field: str, probe_set: str) -> str:
    """What the column is called that tells how samples lie to a set."""
    return f"{field}_{probe_set}"


def towards_column(name: str) -> tuple[TowardsColumn, str] | None:
    """The column and the set of such a name; None where it is none."""
    for field, column in TOWARDS.items():
        if name.startswith(f"{field}_"):
            return column, name.removeprefix(f"{field}_")
    return None
