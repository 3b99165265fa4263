"""Arms that vLLM serves to tasks: what is handed over, what is refused, and the real thing."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from chain import ROOT, config_for, gone, save_tiny_model, until, wait_for, write_data
from peft import PeftModel
from test_evaluation_jobs import RECIPE, conduct
from test_tasks import config_of, in_process, needs_lm_eval, write_tasks
from transformers import AutoConfig, AutoModelForCausalLM

from grads import api
from grads.config.evaluation import EvaluationConfig
from grads.config.run import RunConfig
from grads.data.chat import encode
from grads.data.turns import Turn
from grads.engine import models
from grads.engine.training import add_lora
from grads.errors import EvaluationError, Stopped
from grads.evaluation import asking, serving, tasks
from grads.evaluation.measure import pool_of
from grads.evaluation.trials import read_trials
from grads.selection.options import SelectionConfig
from grads.store.folders import Evaluation

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: see the guide"
)
TALKS = [
    ("the heart?", "lung blood pain."),
    ("fever cough child?", "sleep."),
    ("skin rash?", "doctor drink water sleep pain heart"),
    ("rest?", "the doctor rest water pain."),
    ("the skin rash doctor drink water sleep pain?", "heart heart heart lung pain."),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model with heads of a size that vLLM has kernels for."""
    folder = tmp_path_factory.mktemp("model")
    save_tiny_model(folder)
    config = AutoConfig.from_pretrained(folder)
    config.update({"hidden_size": 64, "num_attention_heads": 2, "head_dim": 32})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def samples(place):
    return talks(place)


def talks(place):
    tokenizer = models.load_tokenizer(place)
    turns = [[Turn("user", question), Turn("assistant", answer)] for question, answer in TALKS]
    return pool_of(list(range(len(turns))), [encode(talk, tokenizer, 64) for talk in turns])


def arm(place, *, lora, dtype=torch.float32):
    model = models.load_model(place, "cpu", dtype)
    if lora:
        model = add_lora(model, 4).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.add_(torch.randn_like(weight) * 0.15)
    return model


def hand_over(model, place, samples, folder):
    folder.mkdir(exist_ok=True)
    there = {"weights": folder / "weights", "adapter": folder / "adapter"}
    return serving.hand_over(model, models.load_tokenizer(place), samples, **there)


class Stand:
    """In the place of a served model: says of prompts what a model in this process says."""

    def __init__(self, model, adapter=None):
        self.model, self.lora_request = model, adapter

    def _model_generate(self, prompts):
        return [SimpleNamespace(prompt_logprobs=[None, *self._likely(ids)]) for ids in prompts]

    def _likely(self, ids):
        with torch.no_grad():
            logits = self.model(input_ids=torch.tensor([ids])).logits[0]
        rows = torch.log_softmax(logits.float(), dim=-1)[:-1]
        for row, token in zip(rows, ids[1:], strict=True):
            yield {token: SimpleNamespace(logprob=row[token].item())}


@pytest.mark.parametrize("lora", [True, False])
def test_what_is_handed_over_is_the_model_and_its_memory_is_free(place, samples, lora, tmp_path):
    model = arm(place, lora=lora)
    handed = hand_over(model, place, samples, tmp_path)
    assert all(weight.is_meta for weight in model.parameters())
    assert models.load_tokenizer(str(handed.weights)).chat_template
    again = models.load_model(str(handed.weights), "cpu", torch.float32)
    assert (handed.adapter is not None) == lora
    if lora:
        again = PeftModel.from_pretrained(again, str(handed.adapter))
    likely = serving._predicted(Stand(again), handed.samples)
    assert len(handed.samples) == 4, "the longest is left out"
    assert likely == pytest.approx(handed.predicted, abs=1e-5)


def test_weights_of_the_base_model_are_written_once(place, samples, tmp_path):
    hand_over(arm(place, lora=False), place, samples, tmp_path)
    (file,) = (tmp_path / "weights").glob("*.safetensors")
    written = file.stat().st_mtime_ns
    hand_over(arm(place, lora=True), place, samples, tmp_path)
    assert file.stat().st_mtime_ns == written


def test_what_serves_another_model_is_refused(place, samples, tmp_path):
    """The untrained one, or one that predicts alike with its adapter and without."""
    handed = hand_over(arm(place, lora=True), place, samples, tmp_path)
    base = models.load_model(str(handed.weights), "cpu", torch.float32)
    with pytest.raises(EvaluationError, match=r"not what was trained: .* nats off"):
        serving._refuse_another(Stand(base, "adapter"), handed)
    trained = PeftModel.from_pretrained(base, str(handed.adapter))
    with pytest.raises(EvaluationError, match="its adapter changes no prediction"):
        serving._refuse_another(Stand(trained, "adapter"), handed)


@needs_lm_eval
def test_who_serves_tells_evaluations_apart(tmp_path):
    write_tasks(tmp_path / "own")
    one, two = (
        tasks.load(config_of(tmp_path / "own", "heart", tasks_with=name), 64)
        for name in ("transformers", "vllm")
    )
    assert (one.served, two.served) == (False, True)
    assert one.digest != two.digest


def test_where_vllm_cannot_serve_it_is_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "find_spec", lambda name: None)
    run, config = RunConfig(dataset="x"), config_of(tmp_path, "heart", tasks_with="vllm")
    with pytest.raises(EvaluationError, match="vLLM is not installed"):
        tasks.check_server(config, run)
    monkeypatch.setattr(tasks, "find_spec", lambda name: True)
    tasks.check_server(config, run)
    with pytest.raises(EvaluationError, match="the run's model is in 4bit"):
        tasks.check_server(config, run.model_copy(update={"quantize": "4bit"}))
    tasks.check_server(config_of(tmp_path, "heart"), run)


# -- the real thing, where it is installed


@needs_lm_eval
@needs_vllm
@pytest.mark.job
@pytest.mark.parametrize(
    ("lora", "dtype", "near"),
    [
        (True, torch.float32, 1e-5),
        (False, torch.float32, 1e-5),
        (True, torch.bfloat16, 0.1),
    ],
)
def test_vllm_answers_as_the_model_itself(place, samples, tmp_path, lora, dtype, near):
    write_tasks(tmp_path / "own")
    loaded = tasks.load(config_of(tmp_path / "own", "heart", "say"), 64)
    model = arm(place, lora=lora, dtype=dtype)
    own = asking.ask(loaded, in_process(model, place, batch_size=2))
    handed = hand_over(model, place, samples, tmp_path / "handed")
    told, stop = [], []
    with serving.served(
        handed, batch_tokens=128, report=told.append, should_stop=lambda: bool(stop)
    ) as asked:
        engines = at_vllm(psutil.Process())
        assert asked.max_length == 128
        theirs = asking.ask(loaded, asked)
        stop.append(True)
        with pytest.raises(Stopped):
            asking.ask(loaded, asked)
    assert engines
    until(lambda: all(map(gone, engines)), "the end of the engine")
    assert len(told) >= 3
    assert theirs.values == own.values
    for ours, served in zip(own.samples, theirs.samples, strict=True):
        assert ours["arguments"] == served["arguments"]
        if ours["task"] == "say":
            assert ours["resps"] == served["resps"]
        else:
            pairs = [np.array(one["filtered_resps"], dtype=float) for one in (ours, served)]
            assert pairs[0] == pytest.approx(pairs[1], abs=near)


@needs_lm_eval
@needs_vllm
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have a kernel for it")
@pytest.mark.job
def test_a_model_that_vllm_cannot_run_says_so(tmp_path):
    """Heads of 8 numbers, for which it has no kernel; it fails at the first request."""
    save_tiny_model(tmp_path / "small")
    place = str(tmp_path / "small")
    handed = hand_over(arm(place, lora=True), place, talks(place), tmp_path / "handed")
    with (
        pytest.raises(EvaluationError, match=r"vLLM cannot serve it .*head_dim"),
        serving.served(handed, batch_tokens=128),
    ):
        pass
    until(lambda: not at_vllm(psutil.Process()), "the end of vLLM's process")


@needs_lm_eval
@needs_vllm
@pytest.mark.job
def test_vllm_ends_with_a_job_that_is_killed(place, tmp_path):
    code = f"""if True:
        import sys, time
        from pathlib import Path
        sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
        from test_serving import arm, hand_over, serving, talks
        place = {place!r}
        handed = hand_over(arm(place, lora=False), place, talks(place), Path({str(tmp_path)!r}))
        with serving.served(handed, batch_tokens=128):
            print("served", flush=True)
            time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as job:
        assert any(line == "served\n" for line in job.stdout)
        working = at_vllm(psutil.Process(job.pid))
        job.kill()
    assert working
    until(lambda: all(map(gone, working)), "the end of vLLM's process")


def at_vllm(process):
    """The processes in which vLLM runs a model for this one."""
    return [p for p in process.children(recursive=True) if "VLLM" in p.name()]


@needs_lm_eval
@needs_vllm
@pytest.mark.job
@pytest.mark.parametrize("training", ["lora", "full"])
def test_an_evaluation_served_by_vllm_is_the_evaluation(place, training, tmp_path):
    """Trainings and losses bit for bit, tasks to within rounding; nothing is left behind."""
    write_tasks(tmp_path / "own")
    write_data(tmp_path / "data.jsonl")
    scored = config_for(tmp_path, model=place)
    run = api.create_run(scored, str(tmp_path / "runs" / "scored"))
    api.start_run(run)
    assert wait_for(run, "finished", "failed").state == "finished"
    api.select_samples(run, "fifth", SelectionConfig(ratio=0.2, draw="top"))
    asked = {"tasks": ["heart,say"], "tasks_dir": str(tmp_path / "own")}
    asked |= {"training": training, "dtype": "float32"}
    config = EvaluationConfig.parse(
        RECIPE | asked | {"selections": ["fifth"], "arms": ["base", "selection"], "seeds": 1}
    )
    conduct(run, "plain", config)
    conduct(run, "served", config.model_copy(update={"tasks_with": "vllm"}))
    plain, served = (read_trials(Evaluation.open(run, name)) for name in ("plain", "served"))
    assert plain.keys() == served.keys() == {"base-0", "fifth-0"}
    for name, trial in plain.items():
        assert trial.sums == served[name].sums
        assert trial.curve == served[name].curve
    assert not Evaluation.open(run, "served").checkpoints.exists()
