"""Checkpoints of a full-parameter training; of spread layers the same for any number of processes.

There weights and the optimizer's moments are gathered as they are written, and shared out as they
are read. The moments stand by the weights' names: the optimizer's own numbers depend on what is
spread.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from grads.engine import models, team
from grads.engine.sharding import share_of, whole

MOMENTS, SCHEDULE = "optimizer.pt", "scheduler.pt"


def whole_weights(model: Any) -> dict[str, torch.Tensor]:
    """The state of a model whose layers may be spread, on the CPU; empty in all but the first.

    All processes ask together.
    """
    leads, found = team.current().leads, dict[int, torch.Tensor]()
    state = model.state_dict(keep_vars=True)
    for weight in state.values():
        if id(weight) not in found:  # tied ones stay one
            gathered = whole(weight)
            found[id(weight)] = gathered if leads else gathered.new_empty(0)
    return {name: found[id(weight)] for name, weight in state.items()} if leads else {}


@torch.no_grad()
def restore(model: Any, checkpoint: str) -> None:
    """Give a model, whole or spread, the weights of a checkpoint that holds all of them.

    They are loaded as anywhere: the files of some models, as of those with experts, name and cut
    the weights otherwise than the model does.
    """
    saved = team.settled(lambda: models.load_model(checkpoint, "cpu", model.dtype))
    for mine, theirs in zip(model.parameters(), saved.parameters(), strict=True):
        mine.copy_(share_of(theirs, mine))


class SpreadTrainer(Trainer):
    """A Trainer that writes and reads such checkpoints; all processes do both together."""

    model: Any
    optimizer: Any
    lr_scheduler: Any

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        weights = whole_weights(self.model)
        if self.args.should_save:
            super()._save(output_dir, weights)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        moments: dict[str, dict[str, torch.Tensor]] = {}
        for name, weight in self.model.named_parameters():
            gathered = {k: whole(value) for k, value in self.optimizer.state[weight].items()}
            if self.args.should_save:
                moments[name] = gathered
        if self.args.should_save:
            torch.save(moments, Path(output_dir) / MOMENTS)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        place = Path(checkpoint)
        moments = torch.load(place / MOMENTS, map_location="cpu", mmap=True, weights_only=True)
        for name, weight in self.model.named_parameters():
            # Copied: the file goes once there is a newer one.
            shares = {k: share_of(value, weight).clone() for k, value in moments[name].items()}
            self.optimizer.state[weight] = shares
        schedule = torch.load(place / SCHEDULE, weights_only=True)
        groups = self.optimizer.param_groups  # more where some weights are spread; all go alike
        schedule |= {k: v[:1] * len(groups) for k, v in schedule.items() if isinstance(v, list)}
        self.lr_scheduler.load_state_dict(schedule)
        for group, rate in zip(groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
