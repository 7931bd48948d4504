"""Who trains the segments of a run: the interface of workers, and what they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anarch_core.cards import VISIBLE, Place
from anarch_core.experiment.store import RunStore
from anarch_core.files.scratch import scratch
from anarch_core.lazy import lazy_names
from anarch_core.segment.stopping import SIGNALS, Stop
from anarch_core.workers.base import AbstractWorkers, Crew, Outcome
from anarch_core.workers.courier import Desk, Piece, brought
from anarch_core.workers.elsewhere import open_elsewhere
from anarch_core.workers.in_process import InProcess
from anarch_core.workers.likeness import differences, versions
from anarch_core.workers.outpost import Outpost
from anarch_core.workers.training import open_context, run_job

if TYPE_CHECKING:
    from anarch_core.experiment.context import RunContext
    from anarch_core.experiment.events import Event, Job
    from anarch_core.planning.need import Need
    from anarch_core.sharding.joining import joined
    from anarch_core.workers.lines import event_from_line, event_to_line

__all__ = [
    "SIGNALS",
    "VISIBLE",
    "AbstractWorkers",
    "Crew",
    "Desk",
    "Event",
    "InProcess",
    "Job",
    "Need",
    "Outcome",
    "Outpost",
    "Piece",
    "Place",
    "RunContext",
    "RunStore",
    "Stop",
    "brought",
    "differences",
    "event_from_line",
    "event_to_line",
    "joined",
    "open_context",
    "open_elsewhere",
    "run_job",
    "scratch",
    "versions",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Event": "anarch_core.experiment.events",
        "Job": "anarch_core.experiment.events",
        "Need": "anarch_core.planning.need",
        "event_from_line": "anarch_core.workers.lines",
        "event_to_line": "anarch_core.workers.lines",
        "RunContext": "anarch_core.experiment.context",
        "joined": "anarch_core.sharding.joining",
    },
)
