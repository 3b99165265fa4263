"""The commands that train and measure: evaluate and tune."""

from typing import Annotated, Any

import typer

from grads import api
from grads.cli.options import ConfigFile, Json, RunDir, option, settings_of
from grads.cli.terminal import console, estimate_line, work
from grads.config.evaluation import EvaluationConfig, TuneConfig
from grads.jobs import processes as jobs
from grads.store.runs import Run


def _e(name: str, *flags: str) -> Any:
    return option(EvaluationConfig, name, *flags)


def _t(name: str, *flags: str) -> Any:
    return option(TuneConfig, name, *flags)


Heldout = Annotated[str | None, _e("heldout")]
General = Annotated[list[str] | None, _e("general")]
HeldoutLimit = Annotated[int | None, _e("heldout_limit")]
GeneralLimit = Annotated[int | None, _e("general_limit")]
Training = Annotated[str | None, _e("training", "--warmup")]
Epochs = Annotated[float | None, _e("epochs")]
Lr = Annotated[float | None, _e("lr")]
LoraRank = Annotated[int | None, _e("lora_rank")]
BatchSize = Annotated[int | None, _e("batch_size")]
BatchTokens = Annotated[int | None, _e("batch_tokens")]
Seeds = Annotated[int | None, _e("seeds")]
FirstSeed = Annotated[int | None, _e("first_seed")]
Dtype = Annotated[str | None, _e("dtype")]
Device = Annotated[str | None, _e("device")]


def evaluate(
    run_dir: RunDir,
    name: Annotated[
        str | None, typer.Option(help="Name of the evaluation [default: its selections].")
    ] = None,
    config_file: ConfigFile = None,
    selections: Annotated[list[str] | None, _e("selections", "--selection")] = None,
    criteria: Annotated[list[str] | None, _e("criteria", "--criterion")] = None,
    ratio: Annotated[float | None, _e("ratio")] = None,
    arms: Annotated[list[str] | None, _e("arms")] = None,
    heldout: Heldout = None,
    general: General = None,
    heldout_limit: HeldoutLimit = None,
    general_limit: GeneralLimit = None,
    training: Training = None,
    epochs: Epochs = None,
    lr: Lr = None,
    lora_rank: LoraRank = None,
    batch_size: BatchSize = None,
    batch_tokens: BatchTokens = None,
    seeds: Seeds = None,
    first_seed: FirstSeed = None,
    dtype: Dtype = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Train selections, random subsets and everything, and measure what is learned and forgotten.

    Options that take several values are given several times.
    """
    settings = EvaluationConfig.parse(settings_of(config_file, **_given(dict(locals()))))
    named = name or "-".join(settings.selections) or "evaluation"
    _compare(Run.open(run_dir), named, settings, as_json)


def tune(
    run_dir: RunDir,
    name: Annotated[str, typer.Option(help="Name of the search.")] = "tune",
    config_file: ConfigFile = None,
    ratio: Annotated[float | None, _t("ratio")] = None,
    settings: Annotated[list[str] | None, _t("settings", "--setting")] = None,
    save_as: Annotated[str | None, _t("save_as")] = None,
    heldout: Heldout = None,
    general: General = None,
    heldout_limit: HeldoutLimit = None,
    general_limit: GeneralLimit = None,
    training: Training = None,
    epochs: Epochs = None,
    lr: Lr = None,
    lora_rank: LoraRank = None,
    batch_size: BatchSize = None,
    batch_tokens: BatchTokens = None,
    seeds: Seeds = None,
    dtype: Dtype = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Try a fixed grid of settings in short trainings, and test the best one again.

    Options that take several values are given several times.
    """
    config_ = TuneConfig.parse(settings_of(config_file, **_given(dict(locals()))))
    _compare(Run.open(run_dir), name, config_, as_json)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are settings of an evaluation."""
    apart = ("run_dir", "name", "config_file", "as_json")
    return {key: value for key, value in options.items() if key not in apart}


def _compare(run: Run, name: str, settings: EvaluationConfig | TuneConfig, as_json: bool) -> None:
    """Say what an evaluation will take, and work at it."""
    made = api.create_evaluation(run, name, settings)
    if not as_json and jobs.observe(made).state != "finished":
        console.print(estimate_line(api.estimate_evaluation(run, settings)))
    work(made, as_json)
