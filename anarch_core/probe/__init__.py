"""The interface of probes, and what probes are written with: coordinates of the parameters, and what a layer's outputs read.

A door for authors of probes. The interface takes no torch; what needs it is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anarch_core.lazy import lazy_names
from anarch_core.probe.base import AbstractProbe, Measurement, ProbeContext, ProbeRehearsal

if TYPE_CHECKING:
    from anarch_core.probe.coordinates import ParameterParts
    from anarch_core.probe.locality import RelaxedWeight, in_receptive_field, relaxed_weights, require_relaxed_layers, weighted_parts
    from anarch_core.probe.neighbourhoods import Lengths, neighbourhood
    from anarch_core.probe.receptive_field import SpatialLayer, chosen_layer, spatial_layers
    from anarch_core.probe.scores import chosen_data, finite, named_scores, score_unit
    from anarch_core.probe.symmetry import SymmetricLayer, symmetric_layers
    from anarch_core.probe.tangent import tangent_kernel_in_parts

__all__ = [
    "AbstractProbe",
    "Lengths",
    "Measurement",
    "ParameterParts",
    "ProbeContext",
    "ProbeRehearsal",
    "RelaxedWeight",
    "SpatialLayer",
    "SymmetricLayer",
    "chosen_data",
    "chosen_layer",
    "finite",
    "in_receptive_field",
    "named_scores",
    "neighbourhood",
    "relaxed_weights",
    "require_relaxed_layers",
    "score_unit",
    "spatial_layers",
    "symmetric_layers",
    "tangent_kernel_in_parts",
    "weighted_parts",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Lengths": "anarch_core.probe.neighbourhoods",
        "ParameterParts": "anarch_core.probe.coordinates",
        "SpatialLayer": "anarch_core.probe.receptive_field",
        "SymmetricLayer": "anarch_core.probe.symmetry",
        "chosen_data": "anarch_core.probe.scores",
        "finite": "anarch_core.probe.scores",
        "named_scores": "anarch_core.probe.scores",
        "neighbourhood": "anarch_core.probe.neighbourhoods",
        "score_unit": "anarch_core.probe.scores",
        "chosen_layer": "anarch_core.probe.receptive_field",
        "RelaxedWeight": "anarch_core.probe.locality",
        "in_receptive_field": "anarch_core.probe.locality",
        "relaxed_weights": "anarch_core.probe.locality",
        "require_relaxed_layers": "anarch_core.probe.locality",
        "spatial_layers": "anarch_core.probe.receptive_field",
        "symmetric_layers": "anarch_core.probe.symmetry",
        "tangent_kernel_in_parts": "anarch_core.probe.tangent",
        "weighted_parts": "anarch_core.probe.locality",
    },
)
