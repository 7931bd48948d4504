"""Switching at given moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anarch_core.errors import ConfigError
from anarch_core.schedule import AbstractSchedule, Clock, Moment
from anarch_plugins.schedules.at.options import AtOptions


class AtSchedule(AbstractSchedule):
    """The moments that the user wrote."""

    options: AtOptions

    def moments(self, clock: Clock) -> tuple[Moment, ...]:
        """The given moments.

        Raises:
            ConfigError: one of them comes after the end of the trunk.
        """
        moments = tuple(Moment.parse(text, clock.iterations_per_epoch) for text in self.options.moments)
        for text, moment in zip(self.options.moments, moments, strict=True):
            if moment.iteration > clock.iterations:
                msg = f"switch at {text} lies beyond the trunk, which ends after {clock.epochs} epochs ({clock.iterations} optimizer steps)"
                raise ConfigError(msg)
        return moments

    def switches_now(self, history: Sequence[Mapping[str, float]]) -> bool:
        """False: all moments are known beforehand."""
        return False
