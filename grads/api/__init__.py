"""All that pages, commands and other programs may call; imports in under a second, no torch."""

from grads.api.drafts import (
    allowed_roots,
    check,
    columns_of,
    data_place,
    draft,
    examples,
    lengths,
    model_place,
    save_upload,
)
from grads.api.evaluations import (
    create_evaluation,
    estimate_evaluation,
    evaluations,
    read_evaluation,
    start_evaluation,
    subset_overlap,
)
from grads.api.runs import (
    RunSummary,
    ask_token_signals,
    bench,
    busy,
    create_run,
    delete_run,
    load_pool,
    resume_run,
    start_new,
    start_run,
    stop_run,
    summaries,
    summary,
)
from grads.config.base import Flag, OneOf, Settings, read_yaml
from grads.config.evaluation import ARMS, EvaluationConfig, TuneConfig
from grads.config.run import RunConfig
from grads.errors import ConfigError, GradsError, RunError
from grads.evaluation.metrics import SHOWN as METRICS
from grads.export.saved import bundle, bundle_name, export_selection
from grads.export.write import FORMATS, changed_lines
from grads.jobs import watch
from grads.jobs.processes import observe
from grads.selection.criteria import criteria
from grads.selection.decisions import decide, decisions, with_decisions
from grads.selection.filters import Filter
from grads.selection.options import Bound, SelectionConfig, usual_draw
from grads.selection.pool import SIGNALS, Categories, Pool
from grads.selection.preview import Preview, coverage, emptied, overlap, preview
from grads.selection.subsets import select_samples
from grads.store.bundled import APP
from grads.store.columns import SCORES
from grads.store.folders import Draft, Evaluation, TokenRequest, open_folder
from grads.store.runs import ACTIVE, JobFolder, Run, Status, list_runs, runs_root

COLUMNS = SIGNALS | SCORES  # every number of a sample by name, with its label and meaning

__all__ = [
    "ACTIVE",
    "APP",
    "ARMS",
    "COLUMNS",
    "FORMATS",
    "METRICS",
    "Bound",
    "Categories",
    "ConfigError",
    "Draft",
    "Evaluation",
    "EvaluationConfig",
    "Filter",
    "Flag",
    "GradsError",
    "JobFolder",
    "OneOf",
    "Pool",
    "Preview",
    "Run",
    "RunConfig",
    "RunError",
    "RunSummary",
    "SelectionConfig",
    "Settings",
    "Status",
    "TokenRequest",
    "TuneConfig",
    "allowed_roots",
    "ask_token_signals",
    "bench",
    "bundle",
    "bundle_name",
    "busy",
    "changed_lines",
    "check",
    "columns_of",
    "coverage",
    "create_evaluation",
    "create_run",
    "criteria",
    "data_place",
    "decide",
    "decisions",
    "delete_run",
    "draft",
    "emptied",
    "estimate_evaluation",
    "evaluations",
    "examples",
    "export_selection",
    "lengths",
    "list_runs",
    "load_pool",
    "model_place",
    "observe",
    "open_folder",
    "overlap",
    "preview",
    "read_evaluation",
    "read_yaml",
    "resume_run",
    "runs_root",
    "save_upload",
    "select_samples",
    "start_evaluation",
    "start_new",
    "start_run",
    "stop_run",
    "subset_overlap",
    "summaries",
    "summary",
    "usual_draw",
    "watch",
    "with_decisions",
]
