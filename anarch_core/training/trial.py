"""Training steps taken in several ways from one state, which is put back: whether they come to the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from anarch_core.config.values import Precision
from anarch_core.machine import own_randomness

Live = Callable[[], Mapping[str, torch.Tensor]]
"""All tensors that a step changes, by name, where they lie; those of the network begin with :data:`MODEL`."""

MODEL = "model."

LIKE: Mapping[Precision, float] = {"float64": 1e-9, "float32": 1e-3, "tf32": 3e-2, "bfloat16": 3e-2}
"""How far two ways may be apart in a tensor, of the largest change that the steps made to it: rounding, and what becomes of it in a few
steps. What the host decides otherwise from step to step makes for differences of other sizes altogether."""

UNSTEADY = 0.05
"""Share of the squared change of all parameters that may lie in some which do not repeat themselves. The bias of a convolution before a
batch normalisation has a gradient of nothing but rounding, and Adam takes steps of full length along it."""


class NotCapturedError(Exception):
    """Why steps cannot be captured."""


class Trial:
    """Several ways of taking the same steps.

    Args:
        live: see above.
        model: that is trained.
        optimizer: that takes them.
        device: they are taken on.
        like: how far two ways may be apart, one of :data:`LIKE`.
    """

    def __init__(self, live: Live, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device, like: float) -> None:
        self._live, self._optimizer, self._device, self._like = live, optimizer, device, like
        self._parameters = [f"{MODEL}{name}" for name, _ in model.named_parameters()]
        self._before = {name: tensor.clone() for name, tensor in live().items()}
        self._kept: Mapping[str, torch.Tensor] = {}
        self._unsteady: set[str] = set()

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Let all be as it was afterwards, learning rates, gradients and random numbers included."""
        rates = [group["lr"] for group in self._optimizer.param_groups]
        with own_randomness(self._device):
            try:
                yield
            finally:
                for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate
                self._optimizer.zero_grad()
                for name, tensor in self._live().items():
                    if name in self._before:
                        tensor.copy_(self._before[name])

    def keep(self) -> None:
        """Keep what was come to, to compare other ways with.

        Raises:
            NotCapturedError: the steps made tensors that were not there.
        """
        self._kept = {name: tensor.clone() for name, tensor in self._live().items()}
        if self._kept.keys() != self._before.keys():
            msg = f"a step makes {min(self._kept.keys() ^ self._before.keys())} anew"
            raise NotCapturedError(msg)

    def require_repeated(self) -> None:
        """Refuse steps that come to something else when they are taken again, but for tensors in which little happens.

        Raises:
            NotCapturedError: naming the tensor in which most happens.
        """
        changes = {name: self._change(name) for name in self._parameters}
        self._unsteady = self._apart()
        lost = {name: changes.get(name, 0.0) for name in sorted(self._unsteady)}
        if lost and sum(lost.values()) > UNSTEADY * sum(changes.values()):
            msg = f"the same steps, taken twice, differ in {max(lost, key=lost.__getitem__)}"
            raise NotCapturedError(msg)

    def require_alike(self) -> None:
        """Refuse steps that come to something else in any of the tensors that repeat themselves.

        Raises:
            NotCapturedError: naming one.
        """
        apart = self._apart() - self._unsteady
        if apart:
            msg = f"captured steps and ordinary ones differ in {min(apart)}"
            raise NotCapturedError(msg)

    def _apart(self) -> set[str]:
        """The tensors that are now something else than what was kept, by more than rounding explains."""
        return {name for name, tensor in self._live().items() if not self._alike(tensor, self._kept[name], self._before[name])}

    def _alike(self, found: torch.Tensor, kept: torch.Tensor, before: torch.Tensor) -> bool:
        if not found.numel():
            return True
        found, kept, before = _exact(found), _exact(kept), _exact(before)
        gap, change, size = (found - kept).abs().max(), (kept - before).abs().max(), kept.abs().max()
        return bool(gap <= self._like * change + 4 * torch.finfo(torch.float32).eps * size)

    def _change(self, name: str) -> float:
        """The squared norm of how far a tensor went."""
        return float((_exact(self._kept[name]) - _exact(self._before[name])).abs().square().sum())


def _exact(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
