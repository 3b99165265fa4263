"""The columns of scores.parquet, each declared once: for the scoring pass, pool and pages."""

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
            "Question length",
            "Tokens of the question and everything before it.",
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
MEASURED = tuple(name for name, column in SCORES.items() if column.measured)
