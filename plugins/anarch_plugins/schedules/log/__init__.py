"""Switch times spaced evenly on a logarithmic scale, as in the paper."""

from __future__ import annotations

from anarch_core.plugin import ScheduleInfo, hookimpl
from anarch_plugins.schedules.log.options import LogOptions


@hookimpl
def anarch_schedules() -> list[ScheduleInfo]:
    """Register the schedule."""
    return [
        ScheduleInfo(
            name="log",
            summary="Epoch 0 and epochs spaced evenly on a logarithmic scale up to the end of the trunk; log:20 is the paper's.",
            target="anarch_plugins.schedules.log.schedule:LogSchedule",
            options=LogOptions,
            references=("d'Ascoli et al. 2019, Finding the Needle in the Haystack with Convolutions, section 3",),
        )
    ]
