"""Generated convolutions: every setting that a relaxation has to be exact for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import nn

from anarch_core.testing.cases import Case

__all__ = ["CONVOLUTIONS", "Case", "cases"]

CONVOLUTIONS: tuple[Callable[..., nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""By number of spatial dimensions, less one."""

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


@st.composite
def cases(draw: st.DrawFn, dims: tuple[int, ...] = (1, 2, 3), modes: tuple[str, ...] = PADDING_MODES) -> Case:
    """Draw a convolution.

    1 to 3 dimensions; rectangular kernels and inputs; stride, dilation; numeric, ``same`` and ``valid`` padding of these modes;
    groups, also depthwise; with and without bias.
    """
    d = draw(st.sampled_from(dims))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    mode = draw(st.sampled_from(modes))
    kernel = [draw(st.integers(1, 4 if d < 3 else 3)) for _ in range(d)]
    dilation = [draw(st.integers(1, 2)) for _ in range(d)]
    word = draw(st.sampled_from([None, None, "same", "valid"]))
    stride = [1 if word == "same" else draw(st.integers(1, 3)) for _ in range(d)]
    padding = [draw(st.integers(0, 2)) for _ in range(d)]
    size = []
    for axis in range(d):
        extent = dilation[axis] * (kernel[axis] - 1)
        reach = (extent + 1) // 2 if word == "same" else 0 if word == "valid" else padding[axis]
        # PyTorch reflects less than, and wraps at most, a whole axis; the kernel has to fit into the padded input.
        smallest = max(1, extent + 1 - 2 * reach, reach + 1 if mode == "reflect" else reach if mode == "circular" else 1)
        size.append(smallest + draw(st.integers(0, 3)))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    conv = CONVOLUTIONS[d - 1](
        inputs,
        outputs,
        tuple(kernel),
        stride=tuple(stride),
        padding=word or tuple(padding),
        dilation=tuple(dilation),
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
        dtype=torch.float64,
    )
    return Case(conv, torch.randn(2, inputs, *size, dtype=torch.float64))


def plain(d: int) -> Case:
    """A convolution of ``d`` dimensions without anything unusual: kernel 3, padded to keep its size, with bias."""
    torch.manual_seed(0)
    conv = CONVOLUTIONS[d - 1](2, 3, 3, padding=1, dtype=torch.float64)
    return Case(conv, torch.randn(2, 2, *(6, 5, 4)[:d], dtype=torch.float64))


def large(d: int) -> Case:
    """A convolution on the meta device whose dense matrix fits into no memory."""
    size = [(4096, 128, 32)[d - 1]] * d
    return Case(CONVOLUTIONS[d - 1](64, 64, 3, padding=1, device="meta"), torch.empty(1, 64, *size, device="meta"))
