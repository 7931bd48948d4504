"""Relaxed layers: modules that stand where a constrained layer stood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import nn

from anarch_core.lattice.drift import Drift


class RelaxedLayer(nn.Module, ABC):
    """A layer that a relaxation made. It takes its parent's inputs and gives its parent's outputs: same shapes, dtype and device.

    Attributes:
        relaxation: name of the relaxation that made it.
    """

    relaxation: str

    @abstractmethod
    def reset_parameters(self) -> None:
        """Default initialisation, from the global random state; the control ``scratch`` starts here."""

    @abstractmethod
    def project(self) -> nn.Module:
        """The constrained layer nearest to this one: a left inverse of the lift. Shares no memory with it."""

    @abstractmethod
    def drift(self, reference: nn.Module | None = None) -> Drift:
        """How far this layer is from the constrained ones.

        Args:
            reference: the same layer at an earlier moment, for the motion of the shared part.
        """

    @abstractmethod
    def split(self, tensor: torch.Tensor, name: str = "weight") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Orthogonal parts of a tensor shaped as the parameter ``name``: (shared, unshared, off-local); they add up to it."""

    def keep(self, tensor: torch.Tensor, parts: tuple[bool, bool, bool], name: str = "weight") -> torch.Tensor:
        """The sum of some of the parts that :meth:`split` gives; a new tensor. Overridden where it takes less than all of them.

        Args:
            tensor: shaped as the parameter.
            parts: whether each of (shared, unshared, off-local) is kept.
            name: of the parameter.
        """
        total = torch.zeros_like(tensor)
        for part, kept in zip(self.split(tensor, name), parts, strict=True):
            if kept:
                total.add_(part)
        return total


def whole_modules(model: nn.Module, *, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Module]]:
    """Paths and modules of a network as ``named_modules`` gives them, but with relaxed layers as wholes.

    A relaxed layer may be made of modules, convolutions or other relaxed layers among them; these are its own affair and are not listed.
    """
    whole: str | None = None
    for path, module in model.named_modules(remove_duplicate=remove_duplicate):
        if whole is not None and (path.startswith(f"{whole}.") or whole == ""):
            continue
        whole = path if isinstance(module, RelaxedLayer) else None
        yield path, module


def relaxed_layers(model: nn.Module) -> dict[str, RelaxedLayer]:
    """The relaxed layers of a network by path, each once."""
    return {path: module for path, module in whole_modules(model) if isinstance(module, RelaxedLayer)}
