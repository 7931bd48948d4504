"""Relaxed layers that are layers of the lattice in other coordinates."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import attrs
import torch
from torch import nn

from anarch_core.constraint.parts import Drift
from anarch_core.errors import SurgeryError
from anarch_core.lattice.families import AbstractFamily
from anarch_core.layers.lattice_layer import LatticeLayer
from anarch_core.layers.placed import PlacedLayer


class ReparametrisedLayer(PlacedLayer):
    """A layer whose map from inputs to outputs is that of some layer of the lattice: the one that is written down here.

    Its parameters may be anything: factors of a low-rank weight, a sum of two weights, attention. What it is as a linear map decides the
    way back and the drift, so a subclass that can say what that is need not think about either.

    Attributes:
        family: of the lattice that the map lies in.
        linear: whether the layer is that map. False where the map depends on the input and its mean is meant, which no larger family holds.
    """

    family: AbstractFamily
    linear: ClassVar[bool] = True

    @abstractmethod
    def lattice(self) -> LatticeLayer:
        """The layer of ``family`` that is the same linear map. It shares no memory with this one, and may be much larger."""

    def gram(self, tensor: torch.Tensor, name: str = "weight") -> torch.Tensor:
        """Not known of any parameters.

        Raises:
            SurgeryError: always; a subclass overrides it if its parameters are weights of the matrix.
        """
        msg = f"the parameters of {self.relaxation} are not weights of the matrix from inputs to outputs"
        raise SurgeryError(msg)

    @torch.no_grad()
    def project(self) -> nn.Module:
        """The convolution whose dense matrix is nearest."""
        return self.lattice().project()

    @torch.no_grad()
    def drift(self, reference: nn.Module | None = None) -> Drift:
        """The parts of the map. What they would be at default initialisation is known for the layers of the lattice only.

        Raises:
            SurgeryError: the reference is a layer of another kind.
        """
        if reference is not None and not isinstance(reference, type(self)):
            msg = f"expected the same {self.relaxation} layer at an earlier moment as the reference, got {type(reference).__name__}"
            raise SurgeryError(msg)
        return attrs.evolve(self.lattice().drift(None if reference is None else reference.lattice()), initial=None)
