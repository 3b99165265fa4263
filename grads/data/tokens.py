"""Tokenised samples in memory, and batches of them bounded by tokens."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

IGNORE = -100  # label of a position that carries no loss, as everywhere in Transformers


@dataclass(frozen=True)
class TokenPool:
    """The tokens of n samples, flat: sample i owns `[offsets[i], offsets[i + 1])`."""

    sample_ids: np.ndarray  # (n,) int64
    offsets: np.ndarray  # (n + 1,) int64
    input_ids: np.ndarray  # (total,) int32
    trained: np.ndarray  # (total,) bool

    @classmethod
    def from_table(cls, table: pa.Table) -> "TokenPool":
        """From the columns sample_id, input_ids, trained of tokens.parquet."""
        table = table.combine_chunks()
        ids, trained = table["input_ids"].chunk(0), table["trained"].chunk(0)
        return cls(
            sample_ids=table["sample_id"].to_numpy(),
            offsets=ids.offsets.to_numpy().astype(np.int64),
            input_ids=ids.values.to_numpy(),
            trained=trained.values.to_numpy(zero_copy_only=False),
        )

    def __len__(self) -> int:
        return len(self.sample_ids)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each sample, (n,)."""
        return np.diff(self.offsets)

    def response_tokens(self, index: np.ndarray) -> int:
        """Positions with loss of the samples at these positions, in all."""
        spans = [slice(self.offsets[i] + 1, self.offsets[i + 1]) for i in index]
        return sum(int(self.trained[span].sum()) for span in spans)

    def subset(self, index: np.ndarray) -> "TokenPool":
        """The samples at these positions, in this order."""
        spans = [slice(self.offsets[i], self.offsets[i + 1]) for i in index]
        return TokenPool(
            self.sample_ids[index],
            np.concatenate([[0], np.cumsum(self.lengths[index])]),
            np.concatenate([self.input_ids[span] for span in spans]),
            np.concatenate([self.trained[span] for span in spans]),
        )

    @classmethod
    def joined(cls, pools: "list[TokenPool]") -> "TokenPool":
        """The samples of several pools, one pool behind the other."""
        lengths = np.concatenate([pool.lengths for pool in pools])
        return cls(
            sample_ids=np.concatenate([pool.sample_ids for pool in pools]),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            input_ids=np.concatenate([pool.input_ids for pool in pools]),
            trained=np.concatenate([pool.trained for pool in pools]),
        )

    def collate(self, index: np.ndarray, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """(input_ids, attention_mask, labels), each (B, T), of samples by position in the pool."""
        width = int(self.lengths[index].max())
        ids = np.zeros((len(index), width), dtype=np.int64)
        mask, labels = np.zeros_like(ids), np.full_like(ids, IGNORE)
        for row, i in enumerate(index):
            span = slice(self.offsets[i], self.offsets[i + 1])
            length = span.stop - span.start
            ids[row, :length] = self.input_ids[span]
            mask[row, :length] = 1
            labels[row, :length] = np.where(self.trained[span], self.input_ids[span], IGNORE)
        ids_, mask_, labels_ = (torch.from_numpy(a).to(device) for a in (ids, mask, labels))
        return ids_, mask_, labels_


def token_batches(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Positions of samples, sorted by length, cut so that rows x longest <= batch_tokens.

    A sample longer than `batch_tokens` forms a batch of its own. Ties keep their order, so the
    same lengths always give the same batches.
    """
    order = np.argsort(lengths, kind="stable")
    batches, start = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * lengths[order[end]] > batch_tokens:
            batches.append(order[start:end])
            start = end
    return batches
