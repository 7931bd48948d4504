"""Walks the tree of segments: trains whatever is ready, until everything is done."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from anarch_core.config.resolution import complete, factories, resolve
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import RunError, Stopped
from anarch_core.experiment.owing import Owing, asked_probes, owing, with_probes
from anarch_core.experiment.results import ObjectiveRecord, Results, Unfinished
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.segments import Segment, snapshots
from anarch_core.experiment.store import RunStore
from anarch_core.experiment.tree import tree
from anarch_core.files.replacing import write_text
from anarch_core.machine import resolve_device
from anarch_core.objective.base import Metric
from anarch_core.plugin.factories import of_this_process
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.running.deaths import Deaths
from anarch_core.running.observing import Observing
from anarch_core.running.observing import observers as named_observers
from anarch_core.running.preparation import prepare, taken
from anarch_core.running.progress import AbstractProgress
from anarch_core.running.reuse import completed, reuse
from anarch_core.running.same_experiment import asked_before, asks_the_same, same_experiment
from anarch_core.running.showing import ProgressStyle, make_progress
from anarch_core.running.stopping import InterruptedRunError, Stop
from anarch_core.running.taking import Taking
from anarch_core.running.workers import AbstractWorkers, InProcess, Outcome, Processes
from anarch_core.schedule import Clock, Moment

if TYPE_CHECKING:
    from anarch_core.experiment.context import RunContext
    from anarch_core.experiment.events import Event
    from anarch_core.observer.base import AbstractObserver


def run(
    config: RunConfig,
    *,
    out: Path | str | None = None,
    registry: Registry | None = None,
    progress: ProgressStyle | AbstractProgress = "auto",
    observers: Sequence[AbstractObserver] = (),
) -> Results:
    """Train every segment of a run that is not done yet.

    A directory that holds the same experiment is gone on with, to the same bytes (on a CPU) as if it had never been left. It may be asked
    for more, other seeds, switch times, relaxations, controls or probes: only what is missing is trained or measured.

    Args:
        config: the run.
        out: the run directory, by default the configuration's.
        registry: where components are looked up, the installed plugins by default. With one of the caller's own, everything is trained in
            this process, one segment at a time.
        progress: what to show.
        observers: to be told what happens, beside those that the configuration names.

    Returns:
        the results; segments that failed are in ``failed``, the others went on without them.

    Raises:
        ConfigError: the configuration cannot be run here.
        RunError: the directory is in use or holds another experiment.
        SurgeryError: a relaxation refuses a layer.
        OutOfMemoryError: the memory does not suffice.
        InterruptedRunError: SIGINT, SIGTERM or SIGHUP; the state is saved.
    """
    own_registry = registry is not None
    registry = registry or get_registry()
    config = complete(config, registry)
    out = out or config.out
    if out is None:
        msg = "no run directory was given; pass out=..."
        raise RunError(msg)
    store, to_name = RunStore(Path(out)), factories({"model": config.model, "data": config.data}, registry)
    with _progress(progress) as shown:
        stop = Stop(notice=lambda: shown.say("stopping: saving the state of what is under way"))
        with stop.on_signals(), taken(store):
            try:
                before = asked_before(store, registry)
                config = attrs.evolve(same_experiment(config, before, store), device=resolve_device(config.device), out=store.path)
                if only_here(config):
                    config = attrs.evolve(config, jobs=1)
                told = [*named_observers(config, registry), *observers]
                results = _Run(config, before, store, registry, shown, stop, told, in_process=own_registry).run()
            except Stopped:
                raise InterruptedRunError.of(store, "stopped at once, what was saved is there", to_name) from None
            if stop.asked is not None:
                raise InterruptedRunError.of(store, "stopped, nothing is lost", to_name)
            return results


def resume(
    out: Path | str,
    *,
    model: str | None = None,
    data: str | None = None,
    progress: ProgressStyle | AbstractProgress = "auto",
    observers: Sequence[AbstractObserver] = (),
) -> Results:
    """Go on with the run in a directory; see :func:`run`.

    Args:
        out: the run directory.
        model: that it was started with; needed where it is a factory, ``package.module:name``, which no file's word is taken for.
        data: likewise.
        progress: what to show.
        observers: to be told what happens, beside those that the run names.

    Raises:
        RunError: there is no run in it, or one of another model or other data.
        ConfigError: its model or its data are a factory, and the argument does not name it.
    """
    store = RunStore(Path(out))
    if not store.config_file.exists():
        msg = f"{out} holds no run: there is no {store.config_file.name} in it"
        raise RunError(msg)
    named = {name: given for name, given in (("model", model), ("data", data)) if given is not None}
    return run(resolve(named, [store.config_file]), out=out, progress=progress, observers=observers)


def only_here(config: RunConfig) -> bool:
    """Whether no other process can have the model or the data: functions of a script or a notebook, or objects."""
    return any(map(of_this_process, (config.model or "", config.data)))


@contextlib.contextmanager
def _progress(progress: ProgressStyle | AbstractProgress) -> Iterator[AbstractProgress]:
    if isinstance(progress, AbstractProgress):
        yield progress
        return
    with make_progress(progress) as shown:
        yield shown


class _Run:
    """A run under way."""

    def __init__(
        self,
        config: RunConfig,
        before: RunConfig | None,
        store: RunStore,
        registry: Registry,
        progress: AbstractProgress,
        stop: Stop,
        observers: Sequence[AbstractObserver],
        *,
        in_process: bool,
    ) -> None:
        # Not where a stop breaks off what is under way: an import that was cannot be done again in the same process.
        from anarch_core.experiment.context import RunContext
        from anarch_core.planning.footprint import footprints
        from anarch_core.planning.preflight import settle

        progress.say(f"loading {config.data}")
        self.before, self.store, self.registry, self.progress, self.stop = before, store, registry, progress, stop
        with stop.at_once():
            context = RunContext.open(config, store, registry)
        self.clock = Clock(config.epochs, context.iterations_per_epoch)
        known = context.moments(self.clock)
        self.switches: dict[int, set[Moment]] = {seed: set(known) for seed in config.seeds}
        self.config = config
        self.grow()
        planned = tuple(self.segments.values())
        with stop.at_once():
            jobs, threads = settle(context, planned, footprints(context, planned))
        self.config = attrs.evolve(config, jobs=jobs, threads=threads)
        self.context: RunContext = attrs.evolve(context, config=self.config)
        self.probes = asked_probes(self.config, registry)
        self.grows = before is not None and not asks_the_same(self.config, before)
        self.in_process = in_process or self.config.jobs == 1
        self.running: dict[str, Segment] = {}
        self.observing = Observing(observers, context.iterations_per_epoch, progress.say)
        self.taking = Taking(store, self.say, stop)
        self.seen: set[str] = set()
        self.finished: dict[str, SegmentResult] = {}
        self.owing: dict[str, Owing] = {}
        self.failed: dict[str, Unfinished] = {}
        self.skipped: dict[str, Unfinished] = {}
        self.deaths = Deaths()

    def grow(self) -> None:
        """Make the tree of the switch moments known by now."""
        self.segments = {segment.id: segment for segment in tree(self.config, self.clock, self.switches, self.registry)}
        self.kept = snapshots(self.segments.values())
        self.progress.planned(tuple(self.segments.values()))

    def run(self) -> Results:
        """Train everything, and tell the observers."""
        self.taking.require_known(self.trunk)
        resumed = self.before is not None
        prepare(self.context, self.before)
        status = "broken"
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
                    status, self.store, tuple(self.finished), self.failed, self.skipped, hurry=lambda: self.stop.asked is not asked
                )
        return results

    def train(self) -> Results:
        """Train everything."""
        workers = self.workers()
        try:
            self.walk(workers)
        except Stopped:
            workers.close(at_once=True)
            self.write("stopped")
            raise
        finally:
            workers.close()
        return self.write("stopped" if self.stop() else "failed" if self.failed else "finished")

    def trunk(self, seed: int) -> str:
        """Identity of the trunk of a seed, of this run or another that the directory was asked for."""
        config = attrs.evolve(self.config, seeds=(seed,), relax=(), path=(), control=(), optimizer_state="reset")
        return tree(config, self.clock, {}, self.registry)[0].id

    def walk(self, workers: AbstractWorkers) -> None:
        """Have trained what is ready until all is done, or what is under way until it is saved."""
        self.take()
        for line in reuse(self.store, self.segments.values(), self.finished, self.owing, self.clock, grows=self.grows):
            self.say(line)
        self.write("running")
        told = False
        while True:
            if not self.stop():
                self.submit(workers)
            elif not told:
                told = True
                workers.stop()
            if not self.running:
                return
            for outcome in workers.wait():
                self.ended(outcome)

    def workers(self) -> AbstractWorkers:
        """Who does it."""
        if self.in_process:
            return InProcess(self.context, self.config.threads or 1, self.heard, self.stop)
        return Processes(self.config, self.store, self.heard)

    def take(self) -> None:
        """Note what earlier processes finished of the segments that have become known."""
        new = [segment for segment in self.segments.values() if segment.id not in self.seen]
        self.seen.update(segment.id for segment in new)
        self.taking.take(new, self.finished, self.running)
        taken = [segment for segment in new if segment.id in self.finished]
        for segment in taken:
            found = self.owed(segment)
            for iteration in found.switches if found.switches is not None else self.finished[segment.id].switches:
                self.switched(segment, iteration)
        for segment in taken:
            if found := self.owed(segment):
                self.owing[segment.id] = found
            else:
                self.progress.ended(segment, "", before=True)
                self.observing.finished(segment, self.answer(segment.id))

    def owed(self, segment: Segment) -> Owing:
        """What a segment that was taken does not have of what is asked for."""
        return owing(
            self.finished[segment.id],
            self.taking.lefts[segment.id],
            keep=self.kept.get(segment.id, ()),
            keep_optimizer=self.config.optimizer_state == "carry",
            probes=self.probes,
            schedule=self.context.schedule,
        )

    def switched(self, segment: Segment, iteration: int) -> None:
        """The schedule found a moment while the trunk was trained."""
        moment = Moment(iteration, self.clock.iterations_per_epoch)
        if moment not in self.switches[segment.seed]:
            self.switches[segment.seed].add(moment)
            self.grow()
            self.observing.planned(tuple(self.segments.values()))
            self.take()

    def submit(self, workers: AbstractWorkers) -> None:
        """Hand over segments that are ready, as many as fit."""
        from anarch_core.experiment.events import Job

        for segment in self.segments.values():
            if len(self.running) >= workers.capacity:
                return
            done = segment.id in self.finished and segment.id not in self.owing
            if done or segment.id in self.running or segment.id in self.failed or segment.id in self.skipped:
                continue
            if self.ready(segment):
                self.running[segment.id] = segment
                keep = frozenset(self.kept.get(segment.id, ()))
                workers.submit(Job(segment=segment, keep=keep, keep_optimizer=self.config.optimizer_state == "carry"))

    def ready(self, segment: Segment) -> bool:
        """Whether the parent's snapshot exists; notes a segment whose parent will never have one."""
        parent = segment.parent
        if parent is None or segment.leaves is None or self.store.segment(parent.id).snapshot(segment.leaves.iteration).exists():
            return True
        why = None
        if parent.id in self.failed or parent.id in self.skipped:
            why = f"{parent.title} did not get there"
        elif parent.id in self.finished and parent.id not in self.running and parent.id not in self.owing:
            how = self.finished[parent.id].ended_before(segment.leaves.iteration)
            why = f"the snapshot of {parent.title} is gone" if how is None else f"{parent.title} {how}"
        if why is not None:
            self.skipped[segment.id] = Unfinished(title=segment.title, error=why)
            self.progress.ended(segment, f"skipped: {why}")
            self.observing.skipped(segment, why)
        return False

    def heard(self, event: Event) -> None:
        """Something happened in a segment."""
        segment = self.segments[event.segment]
        self.observing.heard(event)
        if event.kind == "started":
            self.progress.started(segment)
        elif event.kind == "trained":
            self.progress.trained(segment, *event.value)
        elif event.kind == "measuring":
            self.progress.measuring(segment, event.value)
        elif event.kind == "switch":
            self.switched(segment, event.value)
        elif event.kind == "warning":
            self.progress.say(f"warning: {event.value}")

    def ended(self, outcome: Outcome) -> None:
        """A job ended: finished, failed or stopped."""
        segment = self.running.pop(outcome.segment)
        if outcome.died and (self.stop() or self.again(segment, outcome.error or "")):
            return
        if outcome.error is not None:
            error = outcome.error
            if outcome.trace is not None:
                trace = self.store.segment(segment.id).error_file
                write_text(trace, outcome.trace)
                error = f"{error} (see {trace})"
            self.failed[segment.id] = Unfinished(title=segment.title, error=error)
            self.progress.ended(segment, f"failed: {error}")
            self.observing.failed(segment, error)
        elif outcome.result is not None:
            self.finished[segment.id] = outcome.result
            owed = self.owing.pop(segment.id, None)
            self.store.segment(segment.id).error_file.unlink(missing_ok=True)
            words = _in_words(outcome.result, self.context.data.objective.metric) if owed is None else completed(segment, owed, self.clock)
            self.progress.ended(segment, words)
            if segment.kind == "trunk" and self.config.relax and not self.switches[segment.seed]:
                self.say(f"{segment.title}: the schedule {self.config.switch!r} found no moment to switch at; nothing branches off")
            self.observing.finished(segment, self.answer(segment.id))
        elif not self.stop():
            self.stop.ask(signal.SIGTERM)  # its process alone was asked to stop
        self.write("running")

    def again(self, segment: Segment, how: str) -> bool:
        """Whether a segment is tried again whose process died."""
        if self.deaths.hopeless(self.store.segment(segment.id)):
            return False
        self.say(f"{segment.title}: {how}; it goes on from where its state was saved")
        return True

    def say(self, text: str) -> None:
        """A line about the run."""
        self.progress.say(text)
        self.observing.said(text)

    def answer(self, identity: str) -> SegmentResult:
        """The result of a finished segment, as far as it is asked for and not of other options."""
        stale = self.owing[identity].probes if identity in self.owing else ()
        return with_probes(self.finished[identity], [probe for probe in self.context.probes if probe not in stale])

    def write(self, status: str) -> Results:
        """Write the results so far."""
        results = Results(
            path=self.store.path,
            data=self.config.data,
            model=self.config.model or "",
            objective=ObjectiveRecord.of(self.config.objective, self.context.data.objective),
            status=status,
            segments=tuple(self.answer(identity) for identity in self.segments if identity in self.finished),
            planned=len(self.segments),
            failed=self.failed,
            skipped=self.skipped,
            headlines={name: probe.headlines(self.context.data.objective) for name, probe in self.context.probes.items()},
        )
        results.write()
        return results


def _in_words(result: SegmentResult, metric: Metric) -> str:
    if result.diverged:
        return f"diverged in epoch {result.diverged_epoch}"
    reached = ", ".join(f"{part} {metric.text(result.score('final', f'{part}_{metric.name}'))}" for part in ("train", "test"))
    text = f"{reached} ({result.seconds:.0f} s)"
    return f"{text}; {result.ended}" if result.stopped_early else text
