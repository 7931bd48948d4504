"""What a relaxation does, as a digest, so that a file notices that the plugin that is installed does something else."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from anarch_core.relaxation.base import AbstractRelaxation, Site
from anarch_core.relaxation.lattice import CONVOLUTIONS

_CHANNELS, _KERNEL, _SIZE = 2, 3, 6
_DECIMALS = 1e6  # of numbers in float64, so that rounding errors of other machines do not tell


@torch.inference_mode(False)
@torch.no_grad()
def fingerprint(relaxation: AbstractRelaxation, dimensions: int) -> str:
    """SHA-256 over names, shapes and numbers of a small convolution that is lifted, and what the lifted layer gives with other weights.

    So it changes if a plugin lays out its weights in another way, or computes something else of them; not with the speed of its kernels.
    Takes milliseconds; the caller's random state stays as it was.

    Args:
        relaxation: with its options.
        dimensions: spatial ones, 1 to 3.

    Returns:
        64 hexadecimal digits; empty where the relaxation does not take such a convolution.
    """
    if not 1 <= dimensions <= len(CONVOLUTIONS):
        return ""
    state = hashlib.sha256()
    try:
        with torch.random.fork_rng(devices=[]):
            layer = CONVOLUTIONS[dimensions - 1](_CHANNELS, _CHANNELS, _KERNEL, padding=1, device="cpu", dtype=torch.float64)
            _fill(layer, 1.0)
            shape = (_CHANNELS, *[_SIZE] * dimensions)
            site = Site(path="layer", module=layer, input_shape=shape, output_shape=shape)
            if not isinstance(layer, relaxation.targets) or relaxation.refusal(site) is not None:
                return ""
            lifted = relaxation.lift(site).eval()
            for name, tensor in sorted([*lifted.named_parameters(), *lifted.named_buffers()]):
                state.update(f"{name} {tuple(tensor.shape)};".encode() + _bytes(tensor))
            _fill(lifted, 0.7)
            state.update(_bytes(lifted(_pattern(torch.empty(1, *shape, dtype=torch.float64), 0.3))))
    except Exception:  # it is no convolution's relaxation, and need not be
        return ""
    return state.hexdigest()


def _fill(layer: nn.Module, step: float) -> None:
    for _, parameter in sorted(layer.named_parameters()):
        parameter.copy_(_pattern(parameter, step))


def _pattern(like: torch.Tensor, step: float) -> torch.Tensor:
    """Numbers that do not repeat."""
    return torch.arange(1, like.numel() + 1, dtype=torch.float64).mul_(step).sin_().reshape(like.shape).to(like.dtype)


def _bytes(tensor: torch.Tensor) -> bytes:
    tensor = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return torch.round(tensor.double() * _DECIMALS).to(torch.int64).contiguous().numpy().tobytes()
