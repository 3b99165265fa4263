"""The processes that work at one job together: torchrun or `accelerate launch` starts them.

The first one (rank 0) leads. Alone, a process is a team of one, and nothing here waits.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from grads.errors import GradsError, Stopped
from grads.store.machine import processes

# A process waits for the others while the first one reads a large data set alone, or clusters it.
# One that dies is noticed by its launcher, and by its closed connection.
PATIENCE = timedelta(days=30)

ENDED = object()

Value = TypeVar("Value")


@dataclass(frozen=True)
class Team:
    """This process among those of its job."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that owns the job."""
        return self.rank == 0

    def agreed(self, value: Value) -> Value:
        """The first process's value, in all."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def asked(self, should_stop: Callable[[], bool]) -> bool:
        """The first process's answer, in all; or the GradsError that it met."""
        answer: bool | GradsError = False
        if self.leads:
            try:
                answer = should_stop()
            except GradsError as error:
                answer = error
        answer = self.agreed(answer)
        if isinstance(answer, GradsError):
            raise answer
        return answer

    def gathered(self, value: Value) -> list[Value]:
        """Every process's value, by rank."""
        if self.size == 1:
            return [value]
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value)
        return box

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in each of them."""
        if self.size > 1:
            dist.all_reduce(value)
        return value


ALONE = Team()


def join(device: str) -> Team:
    """Meet the other processes, where a launcher has started several."""
    if processes() > 1 and not dist.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=device == "cpu", timeout=PATIENCE)
    return current()


def current() -> Team:
    """The team that this process has joined."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return Team(dist.get_rank(), dist.get_world_size())


def settled(work: Callable[[], Value]) -> Value:
    """What `work` gives in this process, once all have done theirs.

    An error of one is raised in all.
    """
    mine = current()
    try:
        result = work()
    except (GradsError, Stopped) as error:
        mine.gathered(error)
        raise
    nothing: Exception | None = None
    for other in mine.gathered(nothing):
        if other is not None:
            raise other
    return result


def in_step(
    passes: Iterator[None], idle: Callable[[], object], should_stop: Callable[[], bool]
) -> None:
    """Go through `passes`, of which each is one of all processes, as long as any has some left.

    Who has none makes the pass `idle`. An error of one, or a stop, is raised in all between two
    passes.
    """
    mine, going = current(), True
    trouble: GradsError | Stopped | None = None
    while True:
        try:
            if should_stop():
                raise Stopped
        except (GradsError, Stopped) as error:
            trouble = trouble or error
        states = mine.gathered((going, trouble))
        for _, theirs in states:
            if theirs is not None:
                raise theirs
        if not any(going for going, _ in states):
            return
        try:
            if going:
                going = next(passes, ENDED) is not ENDED
            else:
                idle()
        except GradsError as error:
            trouble = error
