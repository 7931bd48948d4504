"""One network in several processes: each holds some output channels of every large layer.

No family of the lattice mixes output channels, so what a process holds of a relaxed layer is the relaxed layer of a convolution with fewer
output channels. A door for those who relax networks of their own.
"""

from __future__ import annotations

from anarch_core.sharding.shards import Shards

__all__ = ["Shards"]
