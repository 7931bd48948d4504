"""Matrix products that skip the zeros of their left factor, on a CPU.

After ReLU and 3 × 3 max pooling with stride 2 a seventh of a layer's output gradient differs from zero, in no pattern that a block of a
dense product could skip. Row by row it is simple: a sum of the rows of the right factor that count. Such sums reach about half the
arithmetic speed of a dense product, so they win where less than a third is left.

Compiled by Numba, which is optional (``pip install anarch[numba]``); :func:`pays` is False without it.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import torch

LEAST, DENSEST = 2**22, 0.3  # numbers in the larger factor; share of the left factor that is not zero
ROWS, COLUMNS = 256, 1024  # of the result at a time: what is read of the right factor stays in a cache
TRANSPOSED = 4096  # rows of the left factor that are copied at a time where it is a transpose


def pays(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> bool:
    """Whether ``left @ right`` into ``out`` is faster with the zeros of ``left`` skipped: large, sparse and possible at all."""
    return (
        max(right.numel(), out.numel()) >= LEAST
        and type(left) is torch.Tensor  # not a stand-in without data
        and left.device.type == "cpu"
        and left.dtype == right.dtype == out.dtype
        and left.dtype in (torch.float32, torch.float64)
        and right.is_contiguous()
        and out.is_contiguous()
        and importlib.util.find_spec("numba") is not None
        and int(np.count_nonzero(left.detach().numpy())) < DENSEST * left.numel()  # a quarter of the time of torch's
    )


def add_product(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, beta: float, alpha: float) -> None:
    """``out = beta * out + alpha * left @ right``; what ``out`` holds does not matter where ``beta`` is 0.

    The order of the sums is that of the rows of ``right``, whatever the number of threads.

    Args:
        out: [n, m], contiguous.
        left: [n, k].
        right: [k, m], contiguous.
        beta: factor of the old values.
        alpha: factor of the product.
    """
    import numba

    from anarch_core.ops.sparse_kernel import add_product as compiled

    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(threads)  # where both use OpenMP, numba starts its threads by changing the number for all
    target, read = out.detach().numpy(), right.detach().numpy()
    number = target.dtype.type
    copied = None if left.is_contiguous() else left.new_empty(min(len(left), TRANSPOSED), left.shape[1])
    for first in range(0, len(out), TRANSPOSED):
        rows = left[first : first + TRANSPOSED]
        if copied is not None:
            rows = copied[: len(rows)].copy_(rows)
        compiled(target[first : first + TRANSPOSED], rows.numpy(), read, number(beta), number(alpha), ROWS, COLUMNS)
