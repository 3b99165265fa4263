"""How many tokens go into one pass: as many as were given, or as memory has room for.

What a pass finds of a sample does not depend on what else is in it, so a pass that memory has
refused is cut in half and made again.
"""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from grads.config.run import RunConfig
from grads.errors import is_out_of_memory

MOST = 2**16  # tokens of a pass that has grown: a GPU is busy with fewer

Result = TypeVar("Result")


class Room:
    """The tokens that a pass may have, padding included."""

    def __init__(self, tokens: int, growing: bool = False) -> None:
        self.tokens, self._growing = tokens, growing

    @classmethod
    def of(cls, config: RunConfig, device: str) -> "Room":
        """What the settings give; with `auto` it grows on a GPU, where larger passes are faster."""
        return cls(config.pass_tokens, config.batch_tokens == "auto" and device != "cpu")

    def tried(self, work: Callable[[], Result], samples: int) -> Result | None:
        """What `work` gives; None where memory refused it: then there is room for half as much.

        `samples` is how many its largest pass has: one alone cannot be cut, so its error is raised,
        and it does not grow towards one.
        """
        try:
            result = work()
        except (RuntimeError, MemoryError) as error:
            if samples == 1 or not is_out_of_memory(error):
                raise
            tokens, self.tokens, self._growing = self.tokens, self.tokens // 2, False
            print(
                f"a pass of {samples} samples ({tokens} tokens at most) ran out of memory:"
                f" going on with {self.tokens} tokens",
                flush=True,
            )
            free()
            return None
        if self._growing and samples > 1:
            self.tokens = min(2 * self.tokens, MOST)
        return result


def free() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
