"""Neighbourhoods of a network by what lengths are relative to, in its own coordinates or in those that a CNN and its eFCN share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch

from anarch_core.curvature.neighbourhood import FilterView, Neighbourhood, filter_norms
from anarch_core.curvature.risk import Risk
from anarch_core.errors import ProbeError
from anarch_core.layers.constrained import is_bias
from anarch_core.layers.fully_connected import FullyConnectedLayer
from anarch_core.layers.lattice_layer import LatticeLayer
from anarch_core.probe.coordinates import ParameterParts

Lengths = Literal["plain", "adaptive", "filter"]
"""What a radius is relative to: nothing, every weight, every filter."""

Projection = Callable[[torch.Tensor], torch.Tensor]


def neighbourhood(risk: Risk, lengths: Lengths = "plain", *, shared: ParameterParts | None = None) -> Neighbourhood:
    """The networks around one that differ from it by a perturbation ``d`` of its parameters ``w``.

    * plain: its length is ``|d|``;
    * adaptive: ``|d / w|``, entry by entry (Kwon et al. 2021; Andriushchenko et al. 2023): what is zero stays so, and rescaling a layer and
      undoing it in the next changes nothing;
    * filter: the largest ``|d_f| / |w_f|`` of a filter ``f`` (Li et al. 2018), the weights into one output channel, at all its positions.
      Biases, and what has a single axis, stay as they are.

    With ``shared``, perturbations are confined to the shared part and in the orthonormal coordinates ``n^(1/2) w``, where a weight counts
    as the ``n`` entries that it stands for, and lengths are relative to the shared part of the weights. Then the neighbourhood of a CNN
    is that of its relaxation at the switch.

    Args:
        risk: the loss, at ``w``.
        lengths: which.
        shared: the parts of the network; None for all directions, by the parameters as they are.

    Raises:
        ProbeError: lengths are relative to numbers that the shared part mixes, so that they cannot be told within it.
    """
    scale, project = (None, None) if shared is None else _coordinates(risk, shared)
    if lengths == "plain":
        return Neighbourhood(risk, stretch=scale, project=project)
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in risk.parameters])
    if scale is not None:
        weights = torch.where(scale > 0, weights / scale, 0)
    if project is not None:
        weights = project(weights)
    filters = None
    if lengths == "adaptive":
        stretch = (weights if scale is None else weights * scale).abs_()
    else:
        filters = filter_views(risk)
        stretch = torch.zeros_like(weights)
        for name, view in filters.items():
            view(risk.named_views(stretch)[name]).copy_(filter_norms(view(risk.named_views(weights)[name])))
    del weights
    if project is not None:
        _require_closed(project, stretch, lengths)
    return Neighbourhood(risk, stretch=stretch if scale is None else stretch.mul_(scale), project=project, filters=filters)


def _coordinates(risk: Risk, shared: ParameterParts) -> tuple[torch.Tensor | None, Projection | None]:
    """What the orthonormal coordinates are multiplied by to give the parameters, and the projection onto the shared part in them."""
    scale = None
    if shared.scale:
        ones = {name: torch.ones_like(parameter) for name, parameter in zip(risk.names, risk.parameters, strict=True)}
        scale = _flat(risk, shared.covariant(ones))

    def project(vector: torch.Tensor) -> torch.Tensor:
        return _flat(risk, shared.project(risk.named_views(vector), "shared"))

    return scale, project if shared.owners else None


def _require_closed(project: Projection, stretch: torch.Tensor, lengths: Lengths) -> None:
    """See that what the stretch makes of a shared perturbation is shared."""
    noise = torch.randn(stretch.shape, dtype=stretch.dtype, device=stretch.device, generator=torch.Generator(stretch.device).manual_seed(0))
    stretched = project(noise).mul_(stretch)
    del noise
    if not torch.allclose(project(stretched), stretched, rtol=1e-4, atol=1e-5 * float(stretched.abs().max())):
        msg = (
            f"the shared part ties numbers that {lengths} lengths move by different amounts, so that these lead out of it; measure it in "
            "plain lengths, or in all directions"
        )
        raise ProbeError(msg)


def filter_views(risk: Risk) -> dict[str, FilterView]:
    """How the weights of a network are seen as filters, by the name of the parameter; biases and what has a single axis are left out."""
    layers = {path: module for path, module in risk.model.named_modules() if isinstance(module, LatticeLayer)}
    views: dict[str, FilterView] = {}
    for name, parameter in zip(risk.names, risk.parameters, strict=True):
        path, _, own = name.rpartition(".")
        if parameter.ndim < 2 or is_bias(own):
            continue
        views[name] = _view_of(layers[path]) if path in layers else _rows
    return views


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten(1)[None]


def _view_of(layer: LatticeLayer) -> FilterView:
    if isinstance(layer, FullyConnectedLayer):  # its own view leaves out what is between groups
        channels = layer.geometry.out_channels
        return lambda tensor: tensor.view(1, channels, -1)
    return lambda tensor: layer.weight_view(tensor).movedim((-3, -2), (0, 1))


def _flat(risk: Risk, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[name].reshape(-1).to(risk.dtype) for name in risk.names])
