"""Paths between two networks: through weight space, straight or relaxed, and through output space; and the barriers on them.

Planes through three networks, and planes around one. A door for authors of probes.
"""

from __future__ import annotations

from anarch_core.paths.interpolation import interpolate
from anarch_core.paths.planes import Passed, Plane, plane
from anarch_core.paths.profile import Barrier, Profile
from anarch_core.paths.random_planes import RandomPlane, random_plane
from anarch_core.paths.single_layers import LAYER_BARRIERS, LayerPath, LayerPaths, layer_by_layer
from anarch_core.paths.surface import Surface
from anarch_core.paths.triangle import NoPlaneError

__all__ = [
    "LAYER_BARRIERS",
    "Barrier",
    "LayerPath",
    "LayerPaths",
    "NoPlaneError",
    "Passed",
    "Plane",
    "Profile",
    "RandomPlane",
    "Surface",
    "interpolate",
    "layer_by_layer",
    "plane",
    "random_plane",
]
