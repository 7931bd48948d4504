"""The networks that the probes of a segment are given beside its own: of its companions, and of the way that it was trained on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from torch import nn

from anarch_core.experiment.context import RunContext
from anarch_core.experiment.events import Job
from anarch_core.experiment.segments import Segment
from anarch_core.probe.base import COMPANIONS
from anarch_core.schedule import Moment


class Company:
    """Reads networks when a probe asks for them.

    Args:
        context: of the run.
        job: the segment, and with which others it is compared.
    """

    def __init__(self, context: RunContext, job: Job) -> None:
        self._context, self._job = context, job

    def companions(self, needs: Collection[str], moment: str) -> dict[str, nn.Module]:
        """The networks of other segments that a probe needs, as far trained as the one that it measures; none at its start.

        Args:
            needs: of the probe.
            moment: ``"end"``, or one of those between as they are written, ``"5ep"``.
        """
        found = {}
        for name in COMPANIONS:
            other = self._job.companions.get(name) if name in needs else None
            if other is not None and (file := self._file(other, moment)) is not None:
                found[name] = self._context.load(file, other.seed)
        return found

    def trajectory(self, until: str) -> Iterator[tuple[float, nn.Module]]:
        """(epochs since its start, network) of the segment wherever it was kept, up to a moment, oldest first."""
        for moment in self.moments:
            file = self._context.store.segment(self._job.segment.id).snapshot(moment.iteration)
            if until in ("start", "average") or not file.exists():
                return
            yield moment.epoch, self._context.load(file, self._job.segment.seed)
            if str(moment) == until:
                return

    @property
    def moments(self) -> Sequence[Moment]:
        """Between the start and the end of the segment, at which its probes measure."""
        return self._context.probe_moments(self._job.segment)

    def _file(self, other: Segment, moment: str) -> Path | None:
        files = self._context.store.segment(other.id)
        between = {str(one): files.snapshot(one.iteration) for one in self.moments}
        file = {"end": files.final_file, **between}.get(moment)
        return file if file is not None and file.exists() else None
