"""Probes of the trunk while it is trained: what they measure stands in the rows of its history, for schedules to decide by."""

from __future__ import annotations

from torch import nn

from anarch_core.config.watching import needed, watched_probe
from anarch_core.errors import AnarchError, ConfigError
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.events import Emit, Event
from anarch_core.experiment.segments import Segment
from anarch_core.machine import give_back
from anarch_core.probe.base import AbstractProbe, ProbeContext
from anarch_core.probe.measuring import DisturbedError, measured


class Watching:
    """Measures the network of one segment at the ends of epochs; only that of the trunk.

    Args:
        context: of the run.
        segment: which.
        emit: told what is measured, and what failed.
    """

    def __init__(self, context: RunContext, segment: Segment, emit: Emit) -> None:
        self._context, self._segment, self._emit = context, segment, emit
        self._probes = context.watched if segment.kind == "trunk" else {}

    def due(self, epoch: int) -> bool:
        """Whether anything is measured after an epoch."""
        return bool(self._probes) and epoch % self._context.config.watch_every == 0

    def columns(self, model: nn.Module, epoch: int) -> dict[str, float | None]:
        """What the row of an epoch has of watched probes; nothing between two measurements.

        A probe that fails is told of, and what the schedule needs of it is None.

        Args:
            model: the network.
            epoch: that just ended; 0 before training.

        Raises:
            ConfigError: before training, a probe does not measure what the schedule looks at.
            AnarchError: before training, a probe that the schedule needs fails.
            DisturbedError: a probe changed the network or the data, and they cannot be put back.
        """
        found: dict[str, float | None] = {}
        for name, probe in self._probes.items() if self.due(epoch) else ():
            wanted = [column for column in needed(self._context.schedule) if watched_probe(column, self._probes) == name]
            self._emit(Event("measuring", self._segment.id, name))
            try:
                own = self._measured(name, probe, model)
            except DisturbedError:
                raise  # training on would give something else
            except AnarchError as error:  # hours of training must not be lost to a probe
                if epoch == 0 and wanted:
                    raise
                self._emit(Event("warning", self._segment.id, f"probe {name} after epoch {epoch} of {self._segment.title} failed: {error}"))
                own = dict.fromkeys(wanted)
            if epoch == 0:
                _require(wanted, own, name, self._context.config.switch)
            found |= own
        return found

    def _measured(self, name: str, probe: AbstractProbe, model: nn.Module) -> dict[str, float | None]:
        context = ProbeContext(model=model, data=self._context.data, seed=self._segment.seed)
        disturbances: list[str] = []
        give_back()  # room for what this one takes
        found = measured(probe, context, tell=disturbances.append, reread=self._context.reread)
        for text in disturbances:
            self._emit(Event("warning", self._segment.id, f"probe {name}, watched on {self._segment.title}: {text}"))
        return {f"{name}.{scalar}": value for scalar, value in found.scalars.items()}


def _require(wanted: list[str], found: dict[str, float | None], probe: str, switch: str) -> None:
    for column in wanted:
        if column not in found:
            measured = ", ".join(sorted(found)) or "no number at all"
            msg = f"switch {switch!r} looks at {column!r}, which probe {probe} does not measure; it measures {measured}"
            raise ConfigError(msg)
