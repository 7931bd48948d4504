"""What workers promise."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

from anarch_core.errors import MissingDependencyError
from anarch_core.experiment.events import Event
from anarch_core.files.tables import read_table
from anarch_core.running.deaths import TRIES
from anarch_core.testing.bench import Bench
from anarch_core.testing.component import ComponentConformance
from anarch_core.testing.marked import Marked
from anarch_core.testing.patience import AT_ONCE, alarmed, within
from anarch_core.testing.shift import at_work
from anarch_core.testing.stories import LONG, Interrupted, Whole, once, stopped_after, told_interrupted, told_whole
from anarch_core.workers.base import AbstractWorkers

A_MOMENT = 5.0
"""Seconds that wait() may take while nothing is under way; it is to take about one."""

RELIED_ON = ("started", "begun", "scored", "trained", "measured", "snapshot", "switch")
"""Kinds of events that decide something: children that start, figures, what observers are told."""

BY_THE_CLOCK = ("seconds", "left", "digest", "machines")
"""What differs between two results of one segment."""


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
        expected = stopped_after(self, story.saved, folder / "again")
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
        with Marked() as marked, at_work(self.workers, bench, self.patience) as shift:
            shift.submit("trunk")
            shift.until(lambda: shift.told("trunk", "trained"), "no step of the trunk was told")
            begun = len(shift.told("trunk", "begun"))
            self.kill(shift.workers, marked.processes())

            def again() -> bool:
                return len(shift.told("trunk", "begun")) > begun

            for _ in range(TRIES):  # as often as a run tries: the next worker may have been taken away as well, and not be missed yet
                shift.until(
                    lambda: not shift.under_way or again(), "neither was the job lost nor did it go on, after its worker was taken away"
                )
                if shift.under_way:
                    break
                outcome = shift.outcomes[-1]
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

    @once
    def whole(self, folder: Path) -> Whole:
        """Have everything trained."""
        return told_whole(self, folder)

    @once
    def interrupted(self, folder: Path) -> Interrupted:
        """Stop, go on, and break off."""
        return told_interrupted(self, folder)


def _counts(event: Event) -> bool:
    """Whether an event is one that decides something: not a sign of life."""
    return event.kind in RELIED_ON and not (event.kind == "trained" and event.value[1] is None)


def _told(event: Event) -> Event:
    """The event without what is noted in it of the machine."""
    return event if event.kind != "begun" else attrs.evolve(event, value={name: event.value[name] for name in ("iteration", "rows")})


def _timeless(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in BY_THE_CLOCK}
