"""A finished run's scores, clusters and number columns as arrays, and a subset by options."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grads import selection
from grads.config import SelectionConfig
from grads.runs import Run
from grads.selection import Scores, Selection

SCORE_COLUMNS = ("loss", "embed_grad_norm", "head_grad_norm", "grad_dot")


def load_scores(run: Run) -> Scores:
    """scores.parquet as arrays, sorted by sample id."""
    table = run.read_table(run.scores_file)
    names = ("sample_id", "response_tokens", *SCORE_COLUMNS)
    return Scores(**{name: table[name].to_numpy() for name in names})


def choose(run: Run, scores: Scores, options: SelectionConfig) -> Selection:
    """The subset of a run's scores that the options ask for, with its clusters and columns."""
    columns = number_columns(run) if options.bounds else {}
    return selection.select(scores, options, columns, load_clusters(run))


def load_clusters(run: Run) -> np.ndarray | None:
    """(n,) cluster of each scored sample, where the run has them."""
    if not run.features_file.exists():
        return None
    labels: np.ndarray = run.read_table(run.features_file, ["cluster"])["cluster"].to_numpy()
    return labels


def number_columns(run: Run) -> dict[str, np.ndarray]:
    """Every column of numbers that a bound may name: scores first, then the source's own."""
    scores = run.read_table(run.scores_file)
    found = {
        name: scores[name].to_numpy()
        for name in ("sample_id", "prompt_tokens", "response_tokens", *SCORE_COLUMNS)
    }
    if "columns" not in pq.read_schema(run.samples_file).names:
        return found
    samples = run.read_table(run.samples_file, ["sample_id", "columns"])
    in_pool = pc.is_in(samples["sample_id"], scores["sample_id"])
    extra = samples.filter(in_pool).sort_by("sample_id")["columns"].combine_chunks()
    for field in extra.type:
        values = pc.struct_field(extra, field.name)
        if field.name not in found and (
            pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
        ):
            found[field.name] = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return found
