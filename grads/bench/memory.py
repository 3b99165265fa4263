"""Memory of scoring long answers over a large vocabulary, beside plain autograd's.

A random model of one thin layer with the embedding and the head of a real one (V = 152,000,
d = 896), 1,024 response tokens a sample: what is held above the model and above the body's own
activations is the head's doing. Each arm runs in a process of its own, so that none inherits what
another's allocator keeps.
"""

import json
import subprocess
import sys
from typing import Any

import torch

from grads.bench.peak import peak_memory
from grads.engine.gradients import GradientScorer

VOCABULARY, HIDDEN, ANSWER = 152_000, 896, 1_024
BATCHES = (1, 8)
ARMS = ("body", "scoring", "autograd")


def main() -> dict[str, dict[str, int]]:
    """Peak memory above the model in MB, by arm and batch size."""
    found: dict[str, dict[str, int]] = {}
    for arm in ARMS:
        for batch in BATCHES if arm != "autograd" else BATCHES[:1]:  # eight would need 30 GB
            command = [sys.executable, "-m", "grads.bench.memory", arm, str(batch)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.setdefault(arm, {})[str(batch)] = json.loads(done.stdout)
    found["scoring above the body"] = {
        str(batch): found["scoring"][str(batch)] - found["body"][str(batch)] for batch in BATCHES
    }
    return found


def measure(arm: str, batch: int) -> int:
    """Peak memory of one arm above the model, in MB."""
    model = _model()
    ids = torch.randint(0, VOCABULARY, (batch, ANSWER + 1))
    labels = ids.clone()
    labels[:, 0] = -100
    inputs = ids, torch.ones_like(ids), labels
    scorer = GradientScorer(model)
    work = {
        "body": lambda: _body(scorer, ids),
        "scoring": lambda: scorer.score(*inputs),
        "autograd": lambda: _autograd(model, ids, labels),
    }[arm]
    with peak_memory() as peak:
        work()
    return round(peak["mb"])


def _model() -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).eval()


def _body(scorer: GradientScorer, ids: torch.Tensor) -> None:
    """Forward to the head and back to the embeddings."""
    with torch.enable_grad():
        hidden, leaf = scorer.to_head(ids)
    torch.autograd.grad(hidden, leaf, hidden.detach())


def _autograd(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> None:
    model.requires_grad_(True)
    model(input_ids=ids, labels=labels, use_cache=False).loss.backward()


if __name__ == "__main__":
    print(measure(sys.argv[1], int(sys.argv[2])))
