"""The order of samples: functions of their arguments alone, the same on every device, in every process, for every resumed run."""

from __future__ import annotations

import hashlib

import torch


def batches_per_epoch(samples: int, batch_size: int) -> int:
    """How many batches hold all samples; the last may be smaller."""
    return -(-samples // batch_size)


def epoch_order(n: int, seed: int, epoch: int) -> torch.Tensor:
    """The order in which an epoch visits ``n`` training samples.

    A function of its arguments alone: drawn by a generator of its own on the CPU, so it is the same on every device, in every process and
    for every resumed run.

    Returns:
        a permutation of 0 … n-1, int64, on the CPU.
    """
    return permutation(n, f"epoch:{seed}:{epoch}")


def permutation(n: int, key: str) -> torch.Tensor:
    """A random order of 0 … n-1 that is a function of ``n`` and ``key`` alone, int64, on the CPU."""
    # Hashing keeps (seed 1, epoch 2) from meeting (seed 2, epoch 1), as a sum or a product of the two would not.
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.randperm(n, generator=generator)
