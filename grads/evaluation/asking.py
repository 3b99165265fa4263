"""Tasks of lm-evaluation-harness asked of a model, and its values by sample."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from grads.errors import EvaluationError, Stopped
from grads.evaluation.cost import WRITTEN
from grads.evaluation.tasks import SEED, Tasks, prepare, quiet, said
from grads.evaluation.trials import TaskMetric


@dataclass(frozen=True)
class Answered:
    """What one model made of the tasks."""

    metrics: list[TaskMetric]
    values: dict[str, list[float]]  # of each metric by its key, a value a sample
    samples: list[dict[str, Any]]  # as lm_eval logs them, with the name of their task


def ask(tasks: Tasks, asked: Any) -> Answered:
    """Ask a model in its chat template; raises Stopped between batches.

    `asked` is `in_process` of one here, or of one that vLLM has `served`.
    """
    from lm_eval.evaluator import evaluate
    from transformers import set_seed

    set_seed(SEED)
    for task in tasks.loaded.values():
        prepare(task)
    try:
        with quiet():
            found = evaluate(
                lm=asked,
                task_dict={"tasks": tasks.loaded},
                limit=tasks.limit,
                bootstrap_iters=0,
                log_samples=True,
                apply_chat_template=True,
                fewshot_as_multiturn=True,
            )["samples"]
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"lm_eval cannot tell the result of {', '.join(tasks.loaded)} ({said(error)}): leave"
            " out the task or the metric that does not fit its samples"
        ) from error
    metrics, values = [], {}
    for name in tasks.parts:
        for metric, numbers in _by_sample(tasks, name, found):
            metrics.append(metric)
            values[metric.key] = numbers
    logged = [{"task": task} | sample for task in tasks.loaded for sample in found[task]]
    return Answered(metrics, values, logged)


def _by_sample(
    tasks: Tasks, name: str, found: dict[str, list[dict[str, Any]]]
) -> Iterator[tuple[TaskMetric, list[float]]]:
    """Each metric that all parts of a task have, with its values in the order of the samples."""
    values: dict[tuple[str, str], list[float]] = {}
    better: dict[str, bool] = {}
    for task in tasks.parts[name]:
        judged = tasks.judged(task)
        better |= judged
        for sample in sorted(found[task], key=lambda sample: int(sample["doc_id"])):
            for metric in judged.keys() & set(sample["metrics"]):
                values.setdefault((metric, sample["filter"]), []).append(float(sample[metric]))
    whole = sum(len({sample["doc_id"] for sample in found[task]}) for task in tasks.parts[name])
    for (metric, filtered), numbers in sorted(values.items()):
        if len(numbers) == whole:
            told = metric if filtered == "none" else f"{metric} {filtered}"
            yield (
                TaskMetric(
                    key=f"task:{name}:{told}",
                    task=name,
                    metric=told,
                    higher_is_better=better[metric],
                    samples=whole,
                ),
                numbers,
            )


def in_process(
    model: Any,
    tokenizer: Any,
    *,
    batch_size: int,
    report: Callable[[int], None] = lambda passes: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Any:
    """The model as lm_eval asks it where it is, which tells of its work and can be stopped.

    `tokenizer` is changed: give one that nothing else uses.
    """
    from lm_eval.models.huggingface import HFLM

    class Asked(HFLM):
        def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
            if should_stop():
                raise Stopped
            logits = super()._model_call(inps, *args, **kwargs)
            report(inps.numel())
            return logits

        def _model_generate(self, context: Any, *args: Any, **kwargs: Any) -> Any:
            if should_stop():
                raise Stopped
            written = super()._model_generate(context, *args, **kwargs)
            report(context.numel() + WRITTEN * (written.numel() - context.numel()))
            return written

    # Likelihoods summed in bfloat16 would make equals of choices that are not.
    return Asked(
        pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32"
    )
