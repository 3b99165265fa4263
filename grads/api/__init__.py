"""All that pages, commands and other programs may call; imports in under a second, no torch."""

from grads.api.about import describe, name_topic
from grads.api.agreement import RunAgreement, agree, second_seeds
from grads.api.drafts import (
    allowed_roots,
    check,
    columns_of,
    data_place,
    draft,
    examples,
    first_rows,
    give_up,
    keep_warm,
    lengths,
    look,
    model_place,
    save_upload,
)
from grads.api.evaluations import (
    EvaluationSummary,
    FoundEvaluation,
    create_evaluation,
    estimate_evaluation,
    evaluations,
    read_evaluation,
    start_evaluation,
    subset_overlap,
)
from grads.api.exports import export_selection
from grads.api.launching import launch_script
from grads.api.queue import KINDS, QueuedJob, queue
from grads.api.reports import (
    evaluation_command,
    packet_command,
    report,
    run_command,
    select_command,
    write_report,
)
from grads.api.reproduce import Agreement, compared, repetition
from grads.api.review import packet_page, review_queue, write_packet
from grads.api.runs import (
    RunSummary,
    ask_token_signals,
    bench,
    busy,
    create_probe,
    create_run,
    delete_run,
    demo_heldout,
    is_launched,
    listed,
    load_pool,
    place_demo,
    resume_run,
    rough_cost,
    start_new,
    start_probe,
    start_run,
    stop_run,
    summaries,
    summary,
    take_part,
    wait,
)
from grads.config.base import Flag, OneOf, Settings, read_yaml
from grads.config.evaluation import ARM_KINDS, ARMS, ArmKind, EvaluationConfig, TuneConfig
from grads.config.probe import ProbeConfig
from grads.config.queue import QUEUES, QueueConfig
from grads.config.run import RunConfig
from grads.config.spelling import flag_of
from grads.data.layouts import NAMES as LAYOUTS
from grads.data.layouts import ROLES
from grads.data.rejects import place as row_place
from grads.errors import (
    ConfigError,
    DataError,
    GradsError,
    LayoutError,
    RunError,
    of_the_machine,
)
from grads.evaluation.cost import EvaluationCost
from grads.evaluation.metrics import FORGETTING, LEARNING, METRICS
from grads.evaluation.points import BudgetPoint
from grads.evaluation.ratings import Better, Tally, open_pairs, pairs, rate, ratings, tallies
from grads.evaluation.ratings import sentence as rating_sentence
from grads.evaluation.result import (
    Answers,
    ArmResult,
    Comparison,
    EvaluationResult,
    Means,
    Overlap,
    Spent,
    TuneResult,
)
from grads.evaluation.tasks import can_serve
from grads.evaluation.texts import ARMS as NAMED_ARMS
from grads.evaluation.texts import AT_WORK, PARTS, SENTENCES
from grads.evaluation.texts import arm as arm_in_words
from grads.evaluation.texts import sentence as evaluation_sentence
from grads.export.corrections import (
    Correction,
    correct,
    corrected_turns,
    corrections,
    name_of,
    texts_of,
)
from grads.export.saved import bundle, bundle_name
from grads.export.weighted import WAYS as WEIGHTS
from grads.export.write import FORMATS, changed_lines
from grads.jobs import watch
from grads.jobs.launch import SCHEDULERS
from grads.jobs.processes import observe
from grads.selection.agreement import SCORE, Ranks, highest
from grads.selection.criteria import Criterion, criteria
from grads.selection.cut import Cut
from grads.selection.decision_files import TakenIn, decisions_as, take_in, write_decisions
from grads.selection.decisions import (
    REASONS,
    STAYS,
    decide,
    decide_all,
    decisions,
    disagreements,
    in_words,
    opinions,
    stale,
    stale_names,
    take_back,
    why_in_words,
    with_decisions,
)
from grads.selection.density import number_of_bars
from grads.selection.filters import Filter, outline
from grads.selection.luck import Band
from grads.selection.options import Bound, SelectionConfig, usual_draw
from grads.selection.pool import SIGNALS, TOPIC, Categories, Pool
from grads.selection.preview import Coverage, Preview, coverage, emptied, overlap, preview
from grads.selection.reasons import reasons
from grads.selection.record import (
    Decision,
    SelectionRecord,
    read_record,
    read_selection,
    saved_last,
)
from grads.selection.subsets import all_matching, select_samples
from grads.selection.tags import tag, tags, tags_of
from grads.store.bundled import APP
from grads.store.columns import DURING, EXTRAS, MAP, SCORES, towards_column
from grads.store.cost import RunCost
from grads.store.files import write_out
from grads.store.folders import (
    Draft,
    Evaluation,
    ProbeRequest,
    TokenRequest,
    data_stamp,
    open_folder,
)
from grads.store.lines import broken_lines
from grads.store.manifest import Manifest
from grads.store.runs import ACTIVE, JobFolder, Run, Status, list_runs, runs_root
from grads.text import Sentence, for_spreadsheet, visible

COLUMNS = (
    SIGNALS | SCORES | DURING | EXTRAS
)  # every number of a sample by name, with its label and meaning

__all__ = [
    "ACTIVE",
    "APP",
    "ARMS",
    "ARM_KINDS",
    "AT_WORK",
    "COLUMNS",
    "FORGETTING",
    "FORMATS",
    "KINDS",
    "LAYOUTS",
    "LEARNING",
    "MAP",
    "METRICS",
    "NAMED_ARMS",
    "PARTS",
    "QUEUES",
    "REASONS",
    "ROLES",
    "SCHEDULERS",
    "SCORE",
    "SENTENCES",
    "STAYS",
    "TOPIC",
    "WEIGHTS",
    "Agreement",
    "Answers",
    "ArmKind",
    "ArmResult",
    "Band",
    "Better",
    "Bound",
    "BudgetPoint",
    "Categories",
    "Comparison",
    "ConfigError",
    "Correction",
    "Coverage",
    "Criterion",
    "Cut",
    "DataError",
    "Decision",
    "Draft",
    "Evaluation",
    "EvaluationConfig",
    "EvaluationCost",
    "EvaluationResult",
    "EvaluationSummary",
    "Filter",
    "Flag",
    "FoundEvaluation",
    "GradsError",
    "JobFolder",
    "LayoutError",
    "Manifest",
    "Means",
    "OneOf",
    "Overlap",
    "Pool",
    "Preview",
    "ProbeConfig",
    "ProbeRequest",
    "QueueConfig",
    "QueuedJob",
    "Ranks",
    "Run",
    "RunAgreement",
    "RunConfig",
    "RunCost",
    "RunError",
    "RunSummary",
    "SelectionConfig",
    "SelectionRecord",
    "Sentence",
    "Settings",
    "Spent",
    "Status",
    "TakenIn",
    "Tally",
    "TokenRequest",
    "TuneConfig",
    "TuneResult",
    "agree",
    "all_matching",
    "allowed_roots",
    "arm_in_words",
    "ask_token_signals",
    "bench",
    "broken_lines",
    "bundle",
    "bundle_name",
    "busy",
    "can_serve",
    "changed_lines",
    "check",
    "columns_of",
    "compared",
    "correct",
    "corrected_turns",
    "corrections",
    "coverage",
    "create_evaluation",
    "create_probe",
    "create_run",
    "criteria",
    "data_place",
    "data_stamp",
    "decide",
    "decide_all",
    "decisions",
    "decisions_as",
    "delete_run",
    "demo_heldout",
    "describe",
    "disagreements",
    "draft",
    "emptied",
    "estimate_evaluation",
    "evaluation_command",
    "evaluation_sentence",
    "evaluations",
    "examples",
    "export_selection",
    "first_rows",
    "flag_of",
    "for_spreadsheet",
    "give_up",
    "highest",
    "in_words",
    "is_launched",
    "keep_warm",
    "launch_script",
    "lengths",
    "list_runs",
    "listed",
    "load_pool",
    "look",
    "model_place",
    "name_of",
    "name_topic",
    "number_of_bars",
    "observe",
    "of_the_machine",
    "open_folder",
    "open_pairs",
    "opinions",
    "outline",
    "overlap",
    "packet_command",
    "packet_page",
    "pairs",
    "place_demo",
    "preview",
    "queue",
    "rate",
    "rating_sentence",
    "ratings",
    "read_evaluation",
    "read_record",
    "read_selection",
    "read_yaml",
    "reasons",
    "repetition",
    "report",
    "resume_run",
    "review_queue",
    "rough_cost",
    "row_place",
    "run_command",
    "runs_root",
    "save_upload",
    "saved_last",
    "second_seeds",
    "select_command",
    "select_samples",
    "stale",
    "stale_names",
    "start_evaluation",
    "start_new",
    "start_probe",
    "start_run",
    "stop_run",
    "subset_overlap",
    "summaries",
    "summary",
    "tag",
    "tags",
    "tags_of",
    "take_back",
    "take_in",
    "take_part",
    "tallies",
    "texts_of",
    "towards_column",
    "usual_draw",
    "visible",
    "wait",
    "watch",
    "why_in_words",
    "with_decisions",
    "write_decisions",
    "write_out",
    "write_packet",
    "write_report",
]
