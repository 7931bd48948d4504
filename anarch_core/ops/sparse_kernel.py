"""The loops of :mod:`anarch_core.ops.sparse_product`, compiled; importing this module needs Numba."""

from __future__ import annotations

import os

import numba
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.floating]

AT_ONCE = 8  # rows of the right factor summed in one pass over a row of the result


# Compiled code is kept as pickles, and a .numba_config.yaml in the working directory may say where; only the user may.
KEEP = os.environ.get("NUMBA_CACHE_DIR", "") == numba.config.CACHE_DIR


@numba.njit(parallel=True, cache=KEEP, fastmath={"contract", "nsz", "reassoc"})  # type: ignore[untyped-decorator]
def add_product(out: Matrix, left: Matrix, right: Matrix, beta: np.floating, alpha: np.floating, rows: int, columns: int) -> None:
    """``out = beta * out + alpha * left @ right``, ``rows`` × ``columns`` of the result at a time."""
    n, k = left.shape
    m = right.shape[1]
    across = (m + columns - 1) // columns
    down = (n + rows - 1) // rows
    for task in numba.prange(across * down):
        where = np.empty(k + AT_ONCE, np.int64)
        value = np.empty(k + AT_ONCE, left.dtype)
        first = task % across * columns
        last = min(m, first + columns)
        for i in range(task // across * rows, min(n, task // across * rows + rows)):
            count = 0
            for j in range(k):  # without a branch: which numbers are zero cannot be predicted
                where[count] = j
                value[count] = alpha * left[i, j]
                count += 1 if left[i, j] != 0 else 0
            for j in range(count, count + AT_ONCE):
                where[j] = 0
                value[j] = 0
            row = out[i, first:last]
            if beta == 0:
                row[:] = 0
            elif beta != 1:
                row *= beta
            for j in range(0, count, AT_ONCE):
                v0, v1, v2, v3 = value[j], value[j + 1], value[j + 2], value[j + 3]
                v4, v5, v6, v7 = value[j + 4], value[j + 5], value[j + 6], value[j + 7]
                r0, r1 = right[where[j], first:last], right[where[j + 1], first:last]
                r2, r3 = right[where[j + 2], first:last], right[where[j + 3], first:last]
                r4, r5 = right[where[j + 4], first:last], right[where[j + 5], first:last]
                r6, r7 = right[where[j + 6], first:last], right[where[j + 7], first:last]
                for c in range(last - first):
                    row[c] += (v0 * r0[c] + v1 * r1[c] + v2 * r2[c] + v3 * r3[c]) + (v4 * r4[c] + v5 * r5[c] + v6 * r6[c] + v7 * r7[c])
