"""Workers on this machine: this process alone, or several processes of their own, each with a card where there are cards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import attrs

from anarch_core.workers import AbstractWorkers, Crew, Event, InProcess, Outcome, Place
from anarch_plugins.workers.local.process import Team

if TYPE_CHECKING:
    from anarch_core.workers import Job


class LocalWorkers(AbstractWorkers):
    """Trains segments in this process if there is one place for one process, otherwise in processes of their own."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._workers: AbstractWorkers = InProcess()

    def open(self, crew: Crew) -> None:
        """See which of the two it is."""
        if sum(len(place.processes) for place in crew.places) > 1:
            self._workers = Processes()
        self._workers.open(crew)

    @property
    def capacity(self) -> int:
        """As many as there are places."""
        return self._workers.capacity

    def submit(self, job: Job) -> None:
        """Hand over a job."""
        self._workers.submit(job)

    def wait(self) -> Sequence[Outcome]:
        """Go on until something happens."""
        return self._workers.wait()

    def stop(self) -> None:
        """Ask all jobs to save their state and end."""
        self._workers.stop()

    def close(self, *, at_once: bool = False) -> None:
        """End all processes."""
        self._workers.close(at_once=at_once)


class Processes(AbstractWorkers):
    """Trains segments in processes of their own, at each place one or several together."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._idle: dict[int, Team] = {}
        self._busy: dict[Team, str] = {}

    def open(self, crew: Crew) -> None:
        """Processes are started when there is something to do for them."""
        self._crew = crew

    @property
    def capacity(self) -> int:
        """As many as there are places."""
        return len(self._crew.places)

    def submit(self, job: Job) -> None:
        """Send the job to the best free place, starting processes if there are none that are alive."""
        number = best_place(self._crew.places, busy={team.number for team in self._busy}, started=self._idle)
        team = self._idle.pop(number, None)
        if team is None or not team.submit(job):
            if team is not None:
                team.end(at_once=True)
            team = Team(self._crew, number)
            team.submit(job)  # where that fails, a process has ended, and wait() says how
        self._busy[team] = job.segment.id
        if team.place.visible is not None:
            self._crew.on_event(Event("placed", job.segment.id, team.place.name))

    def wait(self) -> Sequence[Outcome]:
        """Read what the processes say; at most a second."""
        outcomes = []
        teams: dict[Connection, Team] = {line: team for team in self._busy for line in team.lines}
        for line in wait(list(teams), timeout=1.0):
            team = teams[line]  # type: ignore[index]
            if team not in self._busy or line not in team.lines:
                continue  # it has ended since
            message = team.heard(line, self._busy[team])
            if isinstance(message, Outcome):
                del self._busy[team]
                outcomes.append(self._ended(team, message))
            elif message is not None:
                self._crew.on_event(message)
        return outcomes

    def _ended(self, team: Team, outcome: Outcome) -> Outcome:
        """Keep the processes for another segment, if they can train one."""
        failed_on_card = outcome.error is not None and team.place.visible is not None
        if failed_on_card and not outcome.lost:
            outcome = attrs.evolve(outcome, error=f"on {team.place.name}: {outcome.error}")
        # An error of CUDA leaves a process that cannot use its card any more, and shows up as any exception.
        if team.broken or failed_on_card:
            team.end(at_once=team.broken)
        else:
            self._idle[team.number] = team
        return outcome

    def stop(self) -> None:
        """Ask all jobs to save their state and end."""
        for team in self._busy:
            team.stop()

    def close(self, *, at_once: bool = False) -> None:
        """End all processes."""
        for team in [*self._idle.values(), *self._busy]:
            team.end(at_once=at_once)
        self._idle.clear()
        self._busy.clear()


def best_place(places: Sequence[Place], *, busy: Collection[int], started: Collection[int]) -> int:
    """The number of the free place to train at next: where the fewest are at work, and of these where a process has its data already.

    Args:
        places: all of them.
        busy: numbers of those at which a segment is trained; not all.
        started: numbers of those at which a process waits.
    """
    at_work = Counter(places[number].name for number in busy)
    free = [number for number in range(len(places)) if number not in busy]
    return min(free, key=lambda number: (at_work[places[number].name], number not in started, number))
