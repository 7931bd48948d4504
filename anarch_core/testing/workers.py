"""What workers promise."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import attrs
import pytest
import torch

from anarch_core.checkpoint.schema import SEGMENT_STATE
from anarch_core.checkpoint.state import load_state
from anarch_core.errors import MissingDependencyError
from anarch_core.experiment.events import Event
from anarch_core.files.tables import read_table
from anarch_core.segment.stopping import Stop
from anarch_core.surroundings import Surroundings
from anarch_core.testing.component import ComponentConformance
from anarch_core.testing.shift import AT_ONCE, Bench, Marked, Shift, alarmed, as_a_worker, within
from anarch_core.workers.base import AbstractWorkers, Outcome
from anarch_core.workers.training import run_job

A_MOMENT = 5.0
"""Seconds that wait() may take while nothing is under way; it is to take about one."""

LONG = 100_000
"""Epochs of a trunk that nobody waits for."""

RELIED_ON = ("started", "begun", "scored", "trained", "measured", "snapshot", "switch")
"""Kinds of events that decide something: children that start, figures, what observers are told."""

BY_THE_CLOCK = ("seconds", "left", "digest", "machines")
"""What differs between two results of one segment."""

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Whole:
    """A trunk, two that leave it side by side, one of which cannot start, and one more; then the end.

    Attributes:
        expected: the same trained here, one after the other.
        ended: outcomes by segment, in words.
        idle: seconds that wait() took while nothing was under way.
        left: what was not ended by close().
        changed: what of this process is not as it was.
    """

    bench: Bench
    expected: Expected
    shift: Shift
    ended: Mapping[str, Outcome]
    idle: Sequence[float]
    left: Sequence[str]
    changed: Sequence[str]


@attrs.frozen(kw_only=True)
class Expected:
    """What training gives in this process."""

    bench: Bench
    events: Mapping[str, Sequence[Event]]
    ended: Mapping[str, Outcome]


@attrs.frozen(kw_only=True)
class Interrupted:
    """A trunk that was asked to stop, gone on with by other workers, and broken off at once.

    Attributes:
        stopped: outcome of the first job.
        saved: iteration of the state that it left; None for no state.
        state: its tensors, by name.
        begun: iteration from which the second job went on.
        left: what was not ended by close(at_once=True).
    """

    stopped: Outcome
    saved: int | None
    state: Mapping[str, torch.Tensor]
    begun: int
    left: Sequence[str]


def _once(story: Callable[[Any, Path], T]) -> Callable[[Any, Path], T]:
    """Tell a story once for a class of tests: starting workers may take long."""

    @functools.wraps(story)
    def told(self: Any, folder: Path) -> T:
        stories = vars(type(self)).get("_stories")
        if stories is None:
            stories = {}
            type(self)._stories = stories
        if story.__name__ not in stories:
            try:
                stories[story.__name__] = story(self, folder)
            except BaseException as error:
                stories[story.__name__] = error
        found: T | BaseException = stories[story.__name__]
        if isinstance(found, BaseException):
            raise found
        return found

    return told


class WorkersConformance(ComponentConformance):
    """Tests of workers, local or remote: they train a run of some seconds, and are stopped, broken off and killed.

    Attributes:
        jobs: of the run.
        patience: seconds to wait for any one thing, as for a job to begin.
        relaxation: what the run relaxes to.
        probe: what measures it; one that leaves tensors.
        model: the network, on signals [1, 16].
        model_options: its options, by field name.
    """

    kind = "workers"
    jobs: ClassVar[int] = 2
    patience: ClassVar[float] = 60.0
    relaxation: ClassVar[str] = "efcn"
    probe: ClassVar[str] = "weights"
    model: ClassVar[str] = "cnn1d"
    model_options: ClassVar[Mapping[str, Any]] = {"channels": 3}

    @pytest.fixture(name="folder")
    def _folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("runs")

    def workers(self) -> AbstractWorkers:
        """The workers with the tested options."""
        try:
            workers: AbstractWorkers = self.registry.create(self.kind, self.info.name, dict(self.options))
        except MissingDependencyError as error:
            pytest.skip(str(error))
        return workers

    def kill(self, workers: AbstractWorkers, processes: Mapping[int, str]) -> None:
        """Take a worker that trains a segment away, as a machine that fails does; override it.

        Args:
            workers: at work.
            processes: those that they started on this machine, by number, with their commands.
        """
        raise NotImplementedError

    def test_building_starts_nothing(self, tmp_path: Path, monkeypatch: Any) -> None:
        """Building workers starts no process, leaves nothing in the working directory, and what was not opened can be closed."""
        monkeypatch.chdir(tmp_path)
        with Marked() as marked, alarmed():
            workers = self.workers()
            time.sleep(0.2)  # one that was just forked shows the variables of this process until it runs its program
            started = list(marked.processes().values())
            assert not started, f"building the workers started {started[0]!r:.100}; wait for open(), for the run may be refused"
            try:
                with within(AT_ONCE, "close()"):
                    workers.close()
            except Exception as error:
                msg = f"what was not opened cannot be closed: {type(error).__name__}: {error}; a run may be refused before it opens them"
                raise AssertionError(msg) from error
        found = [path.name for path in tmp_path.iterdir()]
        assert not found, f"building the workers wrote {', '.join(found)}; wait for open(), for the run may be refused"

    def test_knows_no_jobs_of_others(self, folder: Path) -> None:
        """In a run directory where nothing was trained before, no segment is said to be trained still."""
        adopted = self.whole(folder).shift.adopted
        wrong = [identity for found in adopted for identity in found]
        assert not wrong, f"adopt() gives {wrong}, which nobody trains: the run would wait for ever"

    def test_capacity_is_honest(self, folder: Path) -> None:
        """The capacity is a whole number of jobs at once, and counts those that are under way."""
        for capacity, under_way in self.whole(folder).shift.capacities:
            assert type(capacity) is int and capacity >= 0, f"capacity is {capacity!r}, expected a whole number from 0 on"
            assert capacity >= under_way, (
                f"capacity is {capacity} with {under_way} under way; it is how many jobs there may be at once, not how many more"
            )

    def test_waits_a_moment(self, folder: Path) -> None:
        """Where nothing is under way, wait() returns within seconds."""
        longest = max(self.whole(folder).idle)
        assert longest < A_MOMENT, (
            f"with nothing under way wait() took {longest:.0f} seconds, and the run would not hear a signal meanwhile"
        )

    def test_events_come_in_order(self, folder: Path) -> None:
        """What others rely on is told as in a run in one process: all of it, in this order, when it is so, and before the outcome."""
        whole = self.whole(folder)
        faults = [heard for heard in whole.shift.heard if heard.fault]
        assert not faults, f"the event {faults[0].event.kind!r} {faults[0].fault}"
        for name in ("trunk", "branch", "continued"):
            expected = [_told(event) for event in whole.expected.events[name] if _counts(event)]
            told = [
                _told(heard.event) for heard in whole.shift.heard if heard.event.segment == expected[0].segment and _counts(heard.event)
            ]
            for there, here in zip(told, expected, strict=False):
                assert there == here, (
                    f"of the {name} was told {there.kind!r} ({there.value!r:.60}) before {here.kind!r} ({here.value!r:.60})"
                )
            assert len(told) == len(expected), f"of the {name} {len(told)} events were told, expected {len(expected)}"

    def test_results_are_those_of_one_process(self, folder: Path) -> None:
        """Outcomes have the results that training in one process has."""
        whole = self.whole(folder)
        for name in ("trunk", "branch", "continued"):
            outcome, expected = whole.ended[name], whole.expected.ended[name]
            assert outcome.error is None, f"the {name} failed: {outcome.error}"
            assert not outcome.lost, f"the {name} was lost, though nothing was taken away"
            assert outcome.result is not None, f"the {name} has no result, as if it had been stopped"
            assert expected.result is not None
            theirs, ours = outcome.result.to_json(), expected.result.to_json()
            wrong = [key for key in ours if key not in BY_THE_CLOCK and theirs.get(key) != ours[key]]
            assert not wrong, f"the result of the {name} differs in {', '.join(wrong)}"

    def test_files_are_those_of_one_process(self, folder: Path) -> None:
        """When an outcome is there, so are all files of the segment in the run directory, byte for byte those of one process."""
        whole = self.whole(folder)
        for name in ("trunk", "branch", "continued"):
            here, there = whole.expected.bench.folder(name), whole.bench.folder(name)
            for file in sorted(path.relative_to(here) for path in here.rglob("*") if path.is_file() and not path.name.startswith(".")):
                assert (there / file).is_file(), f"{file} of the {name} is not in the run directory"
                if file.name == "result.json":
                    ours, theirs = (_timeless(read_table(folder / file)) for folder in (here, there))
                    assert theirs == ours, f"{file} of the {name} says something else than in one process"
                else:
                    same = (there / file).read_bytes() == (here / file).read_bytes()
                    assert same, f"{file} of the {name} has other bytes than in one process"
            left = there / "resume.safetensors"
            assert not left.exists(), f"the saved state of the {name} is still there, though it is done; remove it where it was removed"

    def test_what_raises_has_failed(self, folder: Path) -> None:
        """A segment that raises is failed, with the reason, and neither lost nor stopped; workers go on with the next one."""
        outcome = self.whole(folder).ended["later branch"]
        assert not outcome.lost, "a segment that raised was called lost, and would be tried again and again"
        assert outcome.error is not None and outcome.error.strip(), f"a segment that raised has no error: {outcome}"
        assert outcome.result is None, "a segment that raised has a result"

    def test_close_ends_everything(self, folder: Path) -> None:
        """After close() nothing runs that workers started, wherever it was put."""
        left = self.whole(folder).left
        assert not left, f"after close() there is still {left[0]}"

    def test_leaves_the_process_alone(self, folder: Path) -> None:
        """What this process shares is as it was: random states, signals, threads of torch, the working directory."""
        changed = self.whole(folder).changed
        assert not changed, f"from open() to close() the workers changed {', '.join(changed)}; put it back"

    def test_stop_saves(self, folder: Path) -> None:
        """Asked to stop, workers save the state: that of one process which stops at the same step."""
        story = self.interrupted(folder)
        outcome = story.stopped
        assert outcome.error is None and not outcome.lost, (
            f"a job that was asked to stop ended as {outcome}; expected neither error nor loss"
        )
        assert outcome.result is None, "a job that was asked to stop went on to its end"
        assert story.saved, "a job that was asked to stop left no saved state in the run directory"
        expected = self._stopped_after(story.saved, folder / "again")
        assert story.state.keys() == expected.keys(), f"the saved state lacks {', '.join(expected.keys() - story.state.keys())}"
        wrong = [name for name in expected if not story.state[name].equal(expected[name])]
        assert not wrong, f"the state saved after {story.saved} steps has another {wrong[0]} than in one process"

    def test_goes_on_from_what_was_saved(self, folder: Path) -> None:
        """A segment whose state is in the run directory goes on from it, whoever saved it."""
        story = self.interrupted(folder)
        assert story.begun == story.saved, f"a segment saved after {story.saved} steps was begun after {story.begun}"

    def test_close_at_once_ends_everything(self, folder: Path) -> None:
        """After close(at_once=True) nothing runs that workers started, though they had a job."""
        left = self.interrupted(folder).left
        assert not left, f"after close(at_once=True) there is still {left[0]}"

    def test_a_lost_worker_is_no_failure(self, folder: Path) -> None:
        """A job whose worker is taken away is lost, with the reason, or goes on elsewhere; the next one is trained."""
        if type(self).kill is WorkersConformance.kill:
            pytest.skip("override kill(), which takes a worker away, to have this tested")
        bench = self.bench(folder / "lost", epochs=LONG)
        with Marked() as marked, self._shift(bench) as shift:
            shift.submit("trunk")
            shift.until(lambda: shift.told("trunk", "trained"), "no step of the trunk was told")
            begun = len(shift.told("trunk", "begun"))
            self.kill(shift.workers, marked.processes())

            def again() -> bool:
                return len(shift.told("trunk", "begun")) > begun

            shift.until(
                lambda: not shift.under_way or again(), "neither was the job lost nor did it go on, after its worker was taken away"
            )
            for outcome in shift.outcomes:
                assert outcome.lost, (
                    f"a job whose worker was taken away ended as {outcome}; set `lost`, for it says nothing about the segment"
                )
                assert outcome.error and "\n" not in outcome.error, (
                    f"say in one line as `error` what became of the worker: {outcome.error!r}"
                )
                shift.submit("trunk")
            shift.until(again, "the job was not begun again, after its worker was taken away")

    def bench(self, folder: Path, **settings: Any) -> Bench:
        """The run that the workers train, in a folder."""
        own = {"workers": self.name, "jobs": self.jobs, "relax": self.relaxation, "probe": self.probe, "model": self.model}
        short = {"epochs": 2, "branch_epochs": 1, "switch": "at:1,2", "control": "continued"}
        options = {self.name: dict(self.options), self.model: dict(self.model_options)}
        return Bench.at(folder, self.registry, {**own, **short, **settings, "options": options})

    @_once
    def whole(self, folder: Path) -> Whole:
        """Have everything trained."""
        expected = _trained_here(self.bench(folder / "here"))
        bench = self.bench(folder / "there")
        idle, ended = [], {}
        with Marked() as marked:
            before = Surroundings.now()
            with self._shift(bench) as shift:
                for _ in range(2):
                    begun = time.monotonic()
                    shift.wait()
                    idle.append(time.monotonic() - begun)
                shift.train("trunk")
                for each in (bench, expected.bench):
                    each.damage("later branch")
                shift.train("branch", "later branch")
                shift.train("continued")
            left, changed = marked.left(), before.changed()
        for outcome in shift.outcomes:
            [name] = [name for name, segment in bench.segments.items() if segment.id == outcome.segment]
            ended[name] = outcome
        return Whole(bench=bench, expected=expected, shift=shift, ended=ended, idle=idle, left=left, changed=changed)

    @_once
    def interrupted(self, folder: Path) -> Interrupted:
        """Stop, go on, and break off."""
        bench, state, saved = self.bench(folder / "long", epochs=LONG), dict[str, torch.Tensor](), None
        file = bench.context.store.segment(bench.segments["trunk"].id).resume_file
        with self._shift(bench) as shift:
            shift.submit("trunk")
            shift.until(lambda: shift.told("trunk", "trained"), "no step of the trunk was told")
            with within(AT_ONCE, "stop()"):
                shift.workers.stop()
            shift.until(lambda: not shift.under_way, "the job that was asked to stop had not ended")
        if file.exists():
            state, metadata = load_state(file)
            saved = json.loads(metadata[SEGMENT_STATE])["training"]["iteration"]
        with Marked() as marked:
            with self._shift(bench) as others:
                others.submit("trunk")
                others.until(lambda: others.told("trunk", "begun"), "the job was not begun again")
            left = marked.left()
        [begun, *_] = others.told("trunk", "begun")
        return Interrupted(stopped=shift.outcomes[0], saved=saved, state=state, begun=begun.value["iteration"], left=left)

    @contextlib.contextmanager
    def _shift(self, bench: Bench) -> Iterator[Shift]:
        """Workers from open() to close(), at once if they have a job."""
        with alarmed():
            shift = Shift(self.workers(), bench, self.patience)
            try:
                shift.open()
                yield shift
            except BaseException:
                with contextlib.suppress(Exception):
                    shift.close(at_once=True)
                raise
            shift.close(at_once=bool(shift.under_way))

    def _stopped_after(self, iteration: int, folder: Path) -> Mapping[str, torch.Tensor]:
        """The state that this process saves which stops after so many steps."""
        bench, stop = self.bench(folder, epochs=LONG), Stop()

        def heard(event: Event) -> None:
            if event.kind == "trained" and event.value[0] >= iteration:
                stop.asked = signal.SIGTERM

        with as_a_worker():
            run_job(bench.context, attrs.evolve(bench.job("trunk"), keep=frozenset({iteration})), heard, stop)
        tensors, _ = load_state(bench.context.store.segment(bench.segments["trunk"].id).resume_file)
        return tensors


def _trained_here(bench: Bench) -> Expected:
    """The run trained in this process."""
    events: dict[str, list[Event]] = {}
    ended = {}
    with as_a_worker():
        for name in ("trunk", "branch", "continued"):
            ended[name] = run_job(bench.context, bench.job(name), events.setdefault(name, []).append, Stop())
    return Expected(bench=bench, events=events, ended=ended)


def _counts(event: Event) -> bool:
    """Whether an event is one that decides something: not a sign of life."""
    return event.kind in RELIED_ON and not (event.kind == "trained" and event.value[1] is None)


def _told(event: Event) -> Event:
    """The event without what is noted in it of the machine."""
    return event if event.kind != "begun" else attrs.evolve(event, value={name: event.value[name] for name in ("iteration", "rows")})


def _timeless(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in BY_THE_CLOCK}
