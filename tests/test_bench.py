"""What the benchmark measures against computes what scoring does."""

import copy

import numpy as np
import pytest
import tiny
import torch

from grads.bench import peers, scoring
from grads.data.tokens import IGNORE


@pytest.fixture(scope="module")
def batch():
    """Three samples of unequal length, padded on the right."""
    lengths = torch.tensor([12, 9, 7])
    ids = torch.randint(5, 90, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(12) < lengths[:, None]).long()
    labels = ids.masked_fill(mask == 0, IGNORE)
    labels[:, :4] = IGNORE
    return ids * mask, mask, labels


@pytest.mark.parametrize("name", ["autograd loop", "frozen loop", "ghost clipping", "dattri"])
def test_a_peer_finds_the_norms_of_scoring(name, batch):
    if name in peers.absent():
        pytest.skip(f"{name} is not installed: see requirements-peers.txt")
    model = tiny.make_model("llama-tied")
    ours = scoring._scoring(copy.deepcopy(model))(batch)
    arm = peers.present()[name](copy.deepcopy(model))
    for _ in range(2):  # nothing of a batch is left for the next one
        np.testing.assert_allclose(arm(batch), ours, rtol=1e-4)


def test_bergson_finds_those_of_the_head(batch):
    if "Bergson" in peers.absent():
        pytest.skip("Bergson is not installed: see requirements-peers.txt")
    model = tiny.make_model("llama-tied")
    ours = scoring._scoring(copy.deepcopy(model))(batch)[:, 1]
    arm = peers.present()["Bergson"](copy.deepcopy(model))
    for _ in range(2):
        found = arm(batch)
        assert found[:, 0].isnan().all()
        np.testing.assert_allclose(found[:, 1], ours, rtol=1e-4)
