"""The interface of probes, and what probes are written with: coordinates of the parameters, and what a layer's outputs read.

A door for authors of probes.
"""

from __future__ import annotations

from anarch_core.probe.base import AbstractProbe, Measurement, ProbeContext
from anarch_core.probe.coordinates import ParameterParts
from anarch_core.probe.receptive_field import SpatialLayer, chosen_layer, spatial_layers

__all__ = [
    "AbstractProbe",
    "Measurement",
    "ParameterParts",
    "ProbeContext",
    "SpatialLayer",
    "chosen_layer",
    "spatial_layers",
]
