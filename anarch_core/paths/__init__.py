"""Paths between two networks: through weight space, straight or relaxed, and through output space; and the barriers on them.

A door for authors of probes.
"""

from __future__ import annotations

from anarch_core.paths.interpolation import Barrier, Profile, interpolate

__all__ = [
    "Barrier",
    "Profile",
    "interpolate",
]
