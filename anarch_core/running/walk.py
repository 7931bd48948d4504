"""The walk through the tree of segments: what is ready is trained, until everything is done."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from anarch_core.config.run_config import RunConfig
from anarch_core.errors import Stopped
from anarch_core.experiment.companions import companions, lonely, wanted_by
from anarch_core.experiment.owing import Owing
from anarch_core.experiment.placement import looked_into_on
from anarch_core.experiment.results import Results, Unfinished
from anarch_core.experiment.segments import Segment, snapshots
from anarch_core.experiment.store import RunStore
from anarch_core.experiment.tree import tree
from anarch_core.files.replacing import write_text
from anarch_core.planning.order import Cost, by_parameters, longest_first
from anarch_core.plugin.registry import Registry
from anarch_core.running.dispatch import Dispatch
from anarch_core.running.fates import Fates, in_words
from anarch_core.running.observing import Observing
from anarch_core.running.preparation import chained_before, prepare
from anarch_core.running.progress import AbstractProgress
from anarch_core.running.reuse import completed, reuse
from anarch_core.running.same_experiment import asks_the_same
from anarch_core.running.taking import Taking
from anarch_core.schedule import Clock, Moment
from anarch_core.segment.stopping import Stop
from anarch_core.workers.base import AbstractWorkers, Crew, Outcome

if TYPE_CHECKING:
    from anarch_core.experiment.context import RunContext
    from anarch_core.experiment.events import Event
    from anarch_core.observer.base import AbstractObserver


class Walk:
    """A run under way.

    Args:
        config: the run, complete, as it shares the machine.
        before: what the directory was asked for before; None where there was nothing.
        store: the run directory.
        registry: where components are looked up.
        progress: told.
        stop: asked.
        observers: told.
        workers: who trains the segments.
    """

    def __init__(
        self,
        config: RunConfig,
        before: RunConfig | None,
        store: RunStore,
        registry: Registry,
        progress: AbstractProgress,
        stop: Stop,
        observers: Sequence[AbstractObserver],
        workers: AbstractWorkers,
    ) -> None:
        # Not where a stop breaks off what is under way: an import that was cannot be done again in the same process.
        from anarch_core.experiment.context import RunContext
        from anarch_core.planning.chaining import chained
        from anarch_core.planning.footprint import footprints
        from anarch_core.planning.preflight import foreseen
        from anarch_core.planning.sharing import shared

        progress.say(f"loading {config.data}")
        self.before, self.store, self.registry, self.progress, self.stop = before, store, registry, progress, stop
        with stop.at_once():
            here = attrs.evolve(config, device=looked_into_on(config, registry))
            context = RunContext.open(here, store, registry)
        self.clock = Clock(config.epochs, context.iterations_per_epoch)
        known = context.moments(self.clock)
        self.switches: dict[int, set[Moment]] = {seed: set(known) for seed in config.seeds}
        self.config = config
        self.cost: Cost | None = None
        self.grow()
        planned = tuple(self.segments.values())
        with stop.at_once():
            networks = footprints(context, planned)
            self.need = foreseen(context, networks)
            self.searches = config.asks_schedule and not known
            settled = shared(context, self.need, len(planned), grows=self.searches)
            self.config = attrs.evolve(config, jobs=settled.jobs, threads=settled.threads)
            tried = chained(attrs.evolve(context, config=self.config), networks, planned, chained_before(store))
        context = attrs.evolve(context, chained=tried)
        self.share = settled
        self.cost = None if len(settled.places) == 1 else by_parameters(networks, planned)
        self.line_up()
        if sum(len(place.processes) for place in settled.places) > 1:
            with stop.at_once():
                context = context.aside()
        self.context: RunContext = attrs.evolve(context, config=self.config)
        self.dispatch = Dispatch(workers, store, stop, self.say, self.lost)
        self.running, self.adopted = self.dispatch.underway, set[str]()
        self.grows = before is not None and not asks_the_same(self.config, before)
        self.observing = Observing(observers, context.iterations_per_epoch, progress.say)
        self.taking = Taking(store, self.say, stop)
        self.seen: set[str] = set()
        self.remarks: set[str] = set()
        self.fates = Fates(self.context, self.running)
        self.wanted = wanted_by(self.context.probes)

    def grow(self) -> None:
        """Make the tree of the switch moments known by now."""
        self.segments = {segment.id: segment for segment in tree(self.config, self.clock, self.switches, self.registry)}
        self.line_up()
        self.kept = snapshots(self.segments.values())
        self.progress.planned(tuple(self.segments.values()))

    def line_up(self) -> None:
        """Decide in which order segments are handed over: as they stand in the tree, if they are trained one after the other."""
        segments = tuple(self.segments.values())
        self.queue = segments if self.cost is None else longest_first(segments, self.cost)

    def run(self) -> Results:
        """Train everything, and tell the observers."""
        self.taking.require_known(self.trunk)
        resumed = self.before is not None
        prepare(self.context, self.before)
        status, fates = "broken", self.fates
        try:
            self.observing.begun(self.config, self.store, resumed=resumed)
            self.observing.planned(tuple(self.segments.values()))
            results = self.train()
            status = results.status
        except Stopped:
            status = "stopped"
            raise
        finally:
            asked = self.stop.asked
            with contextlib.suppress(Stopped):
                self.observing.over(
                    status, self.store, tuple(fates.finished), fates.failed, fates.skipped, hurry=lambda: self.stop.asked is not asked
                )
        return results

    def train(self) -> Results:
        """Train everything."""
        try:
            with self.stop.insisted():
                self.walk()
        except Stopped:
            self.dispatch.close(at_once=True)
            self.fates.write("stopped", self.segments)
            raise
        finally:
            self.dispatch.close()
        return self.fates.write("stopped" if self.stop() else "failed" if self.fates.failed else "finished", self.segments)

    def trunk(self, seed: int) -> str:
        """Identity of the trunk of a seed, of this run or another that the directory was asked for."""
        config = attrs.evolve(self.config, seeds=(seed,), noise_seeds=(0,), relax=(), path=(), control=(), optimizer_state="reset")
        return tree(config, self.clock, {}, self.registry)[0].id

    def walk(self) -> None:
        """Have trained what is ready until all is done, or what is under way until it is saved."""
        crew = Crew(
            context=self.context,
            on_event=self.dispatch.hearing(self.heard),
            say=self.say,
            stop=self.stop,
            need=self.need,
            segments=len(self.segments),
            places=self.share.places,
        )
        for note in (*self.share.notes, *self.config.idle, *lonely(self.config, self.context.probes)):
            self.say(note)
        self.adopted.update(self.dispatch.open(crew, self.segments))
        self.take()
        for line in reuse(self.store, self.segments.values(), self.fates.finished, self.fates.owing, self.clock, grows=self.grows):
            self.say(line)
        self.found()
        told = False
        while True:
            waiting = False
            if not self.stop():
                waiting = self.submit()
            elif not told:
                told = True
                self.dispatch.stop()
            if not (self.running or waiting):
                return
            for segment, outcome in self.dispatch.ended():
                self.ended(segment, outcome)

    def take(self) -> None:
        """Note what earlier processes finished of the segments that have become known."""
        new = [segment for segment in self.segments.values() if segment.id not in self.seen and segment.id not in self.adopted]
        self.seen.update(segment.id for segment in new)
        self.taking.take(new, self.fates.finished, self.running)
        taken = [segment for segment in new if segment.id in self.fates.finished]
        for segment in taken:
            found = self.owed(segment)
            for iteration in found.switches if found.switches is not None else self.fates.finished[segment.id].switches:
                self.switched(segment, iteration)
        for segment in taken:
            if found := self.owed(segment):
                self.fates.owing[segment.id] = found
            else:
                self.progress.ended(segment, "", before=True)
                self.observing.finished(segment, self.fates.answer(segment.id))

    def owed(self, segment: Segment) -> Owing:
        """What a segment that was taken does not have of what is asked for by now."""
        return self.fates.owed(segment, self.taking.lefts[segment.id], self.to_keep(segment), self.companions(segment))

    def switched(self, segment: Segment, iteration: int) -> None:
        """The schedule found a moment while the trunk was trained."""
        moment = Moment(iteration, self.clock.iterations_per_epoch)
        if moment not in self.switches[segment.seed]:
            self.switches[segment.seed].add(moment)
            self.grow()
            self.observing.planned(tuple(self.segments.values()))
            self.take()

    def submit(self) -> bool:
        """Hand over segments that are ready, as many as fit; whether there are more."""
        from anarch_core.experiment.events import Job

        for segment in self.queue:
            if segment.id in self.running or self.fates.settled(segment):
                continue
            if self.fates.ready(segment):
                others = self.companions(segment)
                if not all(map(self.fates.settled, others.values())):
                    continue
                if not self.dispatch.room():
                    return True
                self.dispatch.submit(
                    Job(
                        segment=segment,
                        keep=self.to_keep(segment),
                        keep_optimizer=self.config.optimizer_state == "carry",
                        companions={name: other for name, other in others.items() if other.id in self.fates.finished},
                        chained=self.context.chained.get(segment.network, True),
                    )
                )
            elif (why := self.fates.never(segment)) is not None:
                self.skip(segment, why)
        return False

    def companions(self, segment: Segment) -> dict[str, Segment]:
        """The segments of the run that this one is compared with by some probe."""
        return companions(segment, self.wanted, self.segments, self.config.seeds[0])

    def to_keep(self, segment: Segment) -> frozenset[int]:
        """Iterations at which the network of a segment is wanted: others leave it, or it is measured."""
        measured = self.context.probe_moments(segment) if self.config.probe else ()
        return frozenset(self.kept.get(segment.id, ())) | {moment.iteration for moment in measured}

    def skip(self, segment: Segment, why: str) -> None:
        """Do without a segment that cannot be trained."""
        self.fates.skipped[segment.id] = Unfinished(title=segment.title, error=why)
        self.progress.ended(segment, f"skipped: {why}")
        self.observing.skipped(segment, why)

    def heard(self, event: Event) -> None:
        """Something happened in a segment."""
        segment = self.segments[event.segment]
        self.observing.heard(event)
        if event.kind == "placed":
            self.progress.placed(segment, event.value)
        elif event.kind == "started":
            self.progress.started(segment)
        elif event.kind == "begun":
            for row in (*event.value["rows"][:1], *event.value["rows"][1:][-1:]):
                self.progress.scored(segment, row)
        elif event.kind == "scored":
            self.progress.scored(segment, event.value)
        elif event.kind == "trained":
            self.progress.trained(segment, *event.value)
        elif event.kind == "measuring":
            self.progress.measuring(segment, event.value)
        elif event.kind == "switch":
            self.switched(segment, event.value)
        elif event.kind == "warning":
            self.progress.say(f"warning: {event.value}")
        elif event.kind == "remark" and event.value not in self.remarks:
            self.remarks.add(event.value)
            self.progress.say(event.value)

    def ended(self, segment: Segment, outcome: Outcome) -> None:
        """A job ended: finished, failed or stopped."""
        if segment.id in self.adopted:
            self.adopted.remove(segment.id)
            if outcome.result is not None:  # of a job that was not told what this process asks for
                self.take()
                return
        if outcome.error is not None:
            error = outcome.error
            if outcome.trace is not None:
                trace = self.store.segment(segment.id).error_file
                write_text(trace, outcome.trace)
                error = f"{error} (see {trace})"
            self.fates.failed[segment.id] = Unfinished(title=segment.title, error=error)
            self.progress.ended(segment, f"failed: {error}")
            self.observing.failed(segment, error)
        elif outcome.result is not None:
            self.fates.finished[segment.id] = outcome.result
            owed = self.fates.owing.pop(segment.id, None)
            self.store.segment(segment.id).error_file.unlink(missing_ok=True)
            words = in_words(outcome.result, self.context.data.objective.metric) if owed is None else completed(segment, owed, self.clock)
            self.progress.ended(segment, words)
            if segment.kind == "trunk" and self.config.relax and not self.switches[segment.seed]:
                self.say(f"{segment.title}: the schedule {self.config.switch!r} found no moment to switch at; nothing branches off")
            self.observing.finished(segment, self.fates.answer(segment.id))
        elif not self.stop():
            self.stop.ask(signal.SIGTERM)  # its process alone was asked to stop
        self.found()

    def found(self) -> None:
        """Write and tell the results by now."""
        results = self.fates.write("running", self.segments)
        trunks = (segment for segment in self.segments.values() if segment.kind == "trunk")
        self.progress.found(results, searching=self.searches and not all(map(self.fates.settled, trunks)))

    def lost(self, segment: Segment, how: str) -> None:
        """The worker of a segment is gone, which is to be tried again."""
        self.progress.lost(segment)
        self.observing.lost(segment)
        self.say(f"{segment.title}: {how}; it goes on from where its state was saved")

    def say(self, text: str) -> None:
        """A line about the run."""
        self.progress.say(text)
        self.observing.said(text)
