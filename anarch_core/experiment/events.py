"""What passes between those who train segments and those who ask for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from anarch_core.experiment.segments import Segment


@attrs.frozen
class Event:
    """What a segment tells while it is trained.

    Attributes:
        kind: ``"placed"`` when it is known who trains it (value: that, in words, such as ``"cuda:1"``); ``"started"``; ``"begun"`` when
            the network is there (value: a mapping of ``iteration``, the steps that an earlier process did, ``rows``, its history, and
            ``notes``, of :class:`~anarch_core.experiment.segment_result.Notes`); ``"scored"`` (value: the history row of the start);
            ``"trained"`` (value: steps done, the last history row or None); ``"measuring"`` (value: what, in words); ``"measured"``
            (value: a mapping of ``probe``, ``moment``, ``values``, ``units`` and ``note``); ``"snapshot"`` (value: iteration) and
            ``"saved"``, when the network, or the state to go on from, is on disk; ``"switch"`` (value: iteration the schedule chose);
            ``"warning"`` (value: text); ``"remark"`` (value: text, which is said once in a run).
        segment: identity.
        value: as above.
    """

    kind: str
    segment: str
    value: Any = None


Emit = Callable[[Event], None]


@attrs.frozen(kw_only=True)
class Job:
    """A segment to be trained.

    Attributes:
        segment: which.
        keep: iterations at which others leave it, as far as known.
        keep_optimizer: whether they carry its optimizer state over.
        companions: by name, segments that have ended and that its probes compare it with.
        chained: whether small layers of its network are trained as chains, which decides the last digits.
    """

    segment: Segment
    keep: frozenset[int] = frozenset()
    keep_optimizer: bool = False
    companions: Mapping[str, Segment] = attrs.field(factory=dict)
    chained: bool = True

    @property
    def involved(self) -> frozenset[str]:
        """Identities of the segments whose files are read to train and to measure it, its own among them."""
        parent = self.segment.parent
        return frozenset({self.segment.id, *(other.id for other in self.companions.values())} | ({parent.id} if parent else set()))
