"""One network in several processes: each holds some output channels of every large layer.

No family of the lattice mixes output channels, so what a process holds of a relaxed layer is the relaxed layer of a convolution with fewer
output channels. A door for those who relax networks of their own, and for authors of probes that measure them.
"""

from __future__ import annotations

from anarch_core.sharding.cut import Cut
from anarch_core.sharding.shards import Shards
from anarch_core.sharding.shared_out import cuts_of, shards_of

__all__ = ["Cut", "Shards", "cuts_of", "shards_of"]
