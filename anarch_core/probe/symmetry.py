"""Layers that say which symmetries they have, or had before they were relaxed, and how far they keep them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import torch
from torch import nn

from anarch_core.errors import ProbeError
from anarch_core.layers.base import whole_modules
from anarch_core.layers.constrained import ConstrainedLayer
from anarch_core.relaxation.trace import inputs_of

Transform = Callable[[torch.Tensor], torch.Tensor]
Symmetries = Mapping[str, tuple[Transform, Transform]]
"""Name -> (T, T'): a layer g has the symmetry if g(T h) = T' g(h)."""


@attrs.frozen(kw_only=True)
class SymmetricLayer:
    """A layer with symmetries other than shifts.

    Attributes:
        path: in the network.
        module: the layer.
        input: what it was given when the example ran through the network.
        symmetries: of the layer, or of the one that it was relaxed from.
    """

    path: str
    module: nn.Module
    input: torch.Tensor
    symmetries: Symmetries

    @torch.no_grad()
    def errors(self) -> dict[str, float | None]:
        """How far the layer is from each symmetry on its own inputs, ``|g(T h) - T' g(h)| / |g(h)|``; None where its output is zero."""
        output = self.module(self.input)
        size = float(output.norm())
        found: dict[str, float | None] = {}
        for name, (given, expected) in self.symmetries.items():
            apart = self.module(given(self.input)) - expected(output)
            found[name] = float(apart.norm()) / size if size else None
        return found


def symmetries_of(module: nn.Module, path: str) -> Symmetries:
    """What a module says of its symmetries by a method ``symmetries()``; a relaxed one, what the module it was relaxed from says.

    Raises:
        ProbeError: it says something else.
    """
    own = module.constrained if isinstance(module, ConstrainedLayer) else module
    says = getattr(own, "symmetries", None)
    if not callable(says):
        return {}
    found = says()
    pairs = found.values() if isinstance(found, Mapping) else [None]
    if not all(isinstance(pair, tuple) and len(pair) == 2 and all(map(callable, pair)) for pair in pairs):
        msg = (
            f"symmetries() of {path or 'the network'}, a {type(own).__name__}, must give a mapping of names to pairs of functions: "
            "what its input undergoes, and what its output undergoes then"
        )
        raise ProbeError(msg)
    named: Symmetries = found
    return named


def symmetric_layers(model: nn.Module, example_input: torch.Tensor) -> dict[str, SymmetricLayer]:
    """The layers of a network that have symmetries other than shifts, or had them, by path; those called once on the example.

    Args:
        model: never changed.
        example_input: with a batch dimension.

    Raises:
        ProbeError: a layer does not say what its symmetries are.
    """
    known = {path: (module, symmetries) for path, module in whole_modules(model) if (symmetries := symmetries_of(module, path))}
    inputs = inputs_of(model, list(known), example_input) if known else {}
    return {
        path: SymmetricLayer(path=path, module=module, input=inputs[path][0], symmetries=symmetries)
        for path, (module, symmetries) in known.items()
        if len(inputs[path]) == 1
    }
