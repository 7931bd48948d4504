"""What a schedule promises."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterable, Iterator
from typing import ClassVar

from anarch_core.errors import ConfigError
from anarch_core.schedule import AbstractSchedule, Clock, Moment
from anarch_core.testing.component import ComponentConformance

Row = dict[str, float]


class ScheduleConformance(ComponentConformance):
    """Tests of a schedule.

    Attributes:
        clocks: lengths of trunks to ask it about; at least one has to suit the options.
    """

    kind = "schedule"
    clocks: ClassVar[tuple[Clock, ...]] = (Clock(1, 1), Clock(3, 7), Clock(20, 40), Clock(150, 200), Clock(1000, 1))

    def schedule(self) -> AbstractSchedule:
        """The schedule with the tested options."""
        schedule: AbstractSchedule = self.registry.create(self.kind, self.info.name, dict(self.options))
        return schedule

    def histories(self) -> list[list[Row]]:
        """Trunks of forty epochs: the loss falls and stays, falls in steps, rises, is not a number; with and without a validation part.

        Columns that the schedule needs go from a million to a millionth and back, with either sign; in one trunk, some rows lack them and
        some have nan.
        """
        losses = (
            [max(2.0 * 0.8**epoch, 0.2) for epoch in range(40)],
            [2.0 / (1 + epoch // 10) for epoch in range(40)],
            [1.0 + 0.1 * epoch for epoch in range(40)],
            [1.0 / (1 + epoch) if epoch < 5 else math.nan for epoch in range(40)],
        )
        needs = [need for need in self.schedule().needs if need != "epoch"]
        held_out = any(need.startswith("validation_") for need in needs)
        rows = [_history(values, validation) for values in losses for validation in (False, True) if validation or not held_out]
        return rows if not needs else [_with(needs, values, history) for values in _VALUES for history in rows]

    def test_moments_lie_on_the_trunk(self) -> None:
        """Moments are within the trunk and in its unit; what does not fit is refused in one line."""
        refused = []
        for clock in self.clocks:
            try:
                moments = self.schedule().moments(clock)
            except ConfigError as error:
                assert "\n" not in str(error), f"refuse in one line: {error}"
                refused.append(f"{clock}: {error}")
                continue
            assert isinstance(moments, tuple), f"moments() gives a {type(moments).__name__}, expected a tuple of Moment"
            for moment in moments:
                assert isinstance(moment, Moment), (
                    f"moments() gives a {type(moment).__name__}, expected Moment(iteration, iterations_per_epoch)"
                )
                assert moment.iterations_per_epoch == clock.iterations_per_epoch, (
                    f"{moment!r} counts in epochs of another length than {clock}; make it with clock.iterations_per_epoch"
                )
                assert 0 <= moment.iteration <= clock.iterations, (
                    f"{moment!r} lies outside the trunk of {clock.iterations} steps; leave it out, or raise ConfigError"
                )
        assert len(refused) < len(self.clocks), f"every trunk is refused ({'; '.join(refused)}); set `clocks` to some that suit the options"

    def test_moments_depend_on_the_clock_alone(self) -> None:
        """Asked again, or anew, the schedule gives the same moments."""
        schedule = self.schedule()
        for clock in self.clocks:
            try:
                first = schedule.moments(clock)
            except ConfigError:
                continue
            advice = "moments() must be a function of clock and options, or a resumed run switches elsewhere"
            assert schedule.moments(clock) == first, f"asked twice about {clock} it gives other moments; {advice}"
            assert self.schedule().moments(clock) == first, f"another instance gives other moments for {clock}; {advice}"

    def test_needs_are_columns(self) -> None:
        """What it needs are names of columns, the same whenever it is asked, and none of the test set."""
        schedule = self.schedule()
        needs = schedule.needs
        assert not isinstance(needs, str), f"needs gives the text {needs!r}, expected a tuple of texts"
        assert isinstance(needs, Collection), f"needs gives a {type(needs).__name__}, expected a tuple of texts"
        for need in needs:
            assert isinstance(need, str), f"needs has a {type(need).__name__}, expected the name of a column"
            assert not need.startswith("test_"), f"it needs {need!r}, but the test set decides nothing; take 'validation_{need[5:]}'"
        assert list(self.schedule().needs) == list(needs) == list(schedule.needs), (
            "asked again, or of another instance, needs are others; make them a function of the options"
        )

    def test_switches_depend_on_the_history_alone(self) -> None:
        """Whether to switch now is the same for an instance that saw every epoch and for one that sees this history first."""
        for history in self.histories():
            steady = self.schedule()
            for length in range(1, len(history) + 1):
                seen = history[:length]
                before = copy.deepcopy(seen)
                try:
                    answer = steady.switches_now(seen)
                except KeyError as error:
                    column = error.args[0]
                    advice = (
                        "rows may lack it, between two measurements; take row.get()" if column in steady.needs else "name it in `needs`"
                    )
                    msg = f"switches_now() looks at {column!r}, which this history does not have; {advice}"
                    raise AssertionError(msg) from error
                assert isinstance(answer, bool), f"switches_now() gives a {type(answer).__name__}, expected True or False"
                assert repr(seen) == repr(before), "switches_now() changed the history; work on a copy"
                same = answer == self.schedule().switches_now(seen) == steady.switches_now(seen)
                assert same, (
                    f"after {length} epochs an instance that saw all of them and a fresh one disagree; "
                    "work everything out from `history`, keep nothing on self: a resumed run starts with a fresh instance"
                )

    def test_switches_at_all(self) -> None:
        """There is a moment for some trunk, or a history upon which it switches."""
        assert any(self._moments()) or any(
            self.schedule().switches_now(history[:length]) for history in self.histories() for length in range(1, len(history) + 1)
        ), "the schedule never switches: moments() is empty for every trunk and switches_now() False for every history"

    def _moments(self) -> Iterator[tuple[Moment, ...]]:
        for clock in self.clocks:
            try:
                yield self.schedule().moments(clock)
            except ConfigError:
                continue


_VALUES: tuple[list[float | None], ...] = (
    [10.0 ** (6 - 12 * epoch / 39) for epoch in range(40)],
    [10.0 ** (-6 + 12 * epoch / 39) for epoch in range(40)],
    [-(10.0 ** (6 - 12 * epoch / 39)) for epoch in range(40)],
    [-(10.0 ** (-6 + 12 * epoch / 39)) for epoch in range(40)],
    [float(epoch // 8) if epoch % 2 else math.nan if epoch % 3 else None for epoch in range(40)],
)
"""What columns are that a schedule needs; None where a row lacks them."""


def _with(needs: Iterable[str], values: Iterable[float | None], history: Iterable[Row]) -> list[Row]:
    return [
        {key: number for key, number in row.items() if key not in needs} | ({} if value is None else dict.fromkeys(needs, value))
        for row, value in zip(history, values, strict=True)
    ]


def _history(losses: list[float], validation: bool) -> list[Row]:
    rows: list[Row] = []
    for epoch, loss in enumerate(losses, start=1):
        row = {"epoch": float(epoch), "train_loss": loss, "train_accuracy": 50.0, "learning_rate": 0.1}
        if validation:
            row |= {"validation_loss": loss + 0.1, "validation_accuracy": 45.0}
        rows.append(row)
    return rows
