"""What workers go through while they are tested: a run trained whole, and one that is stopped, gone on with and broken off."""

from __future__ import annotations

import functools
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import attrs
import torch

from anarch_core.checkpoint.schema import SEGMENT_STATE
from anarch_core.checkpoint.state import load_state
from anarch_core.experiment.events import Event
from anarch_core.machine import processor_threads
from anarch_core.segment.stopping import Stop
from anarch_core.surroundings import Surroundings
from anarch_core.testing.bench import Bench
from anarch_core.testing.marked import Marked
from anarch_core.testing.patience import AT_ONCE, within
from anarch_core.testing.shift import Shift, at_work
from anarch_core.workers.base import AbstractWorkers, Outcome
from anarch_core.workers.training import run_job

LONG = 100_000
"""Epochs of a trunk that nobody waits for."""

T = TypeVar("T")


class Employer(Protocol):
    """Who has workers, and a run for them."""

    patience: ClassVar[float]

    def workers(self) -> AbstractWorkers:
        """Workers that are not open yet."""

    def bench(self, folder: Path, **settings: Any) -> Bench:
        """The run that they train, in a folder."""


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


def once(story: Callable[[Any, Path], T]) -> Callable[[Any, Path], T]:
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


def told_whole(test: Employer, folder: Path) -> Whole:
    """Have everything trained."""
    expected = _trained_here(test.bench(folder / "here"))
    bench = test.bench(folder / "there")
    idle, ended = [], {}
    with Marked() as marked:
        before = Surroundings.now()
        with at_work(test.workers, bench, test.patience) as shift:
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


def told_interrupted(test: Employer, folder: Path) -> Interrupted:
    """Stop, go on, and break off."""
    bench, state, saved = test.bench(folder / "long", epochs=LONG), dict[str, torch.Tensor](), None
    file = bench.context.store.segment(bench.segments["trunk"].id).resume_file
    with at_work(test.workers, bench, test.patience) as shift:
        shift.submit("trunk")
        shift.until(lambda: shift.told("trunk", "trained"), "no step of the trunk was told")
        with within(AT_ONCE, "stop()"):
            shift.workers.stop()
        shift.until(lambda: not shift.under_way, "the job that was asked to stop had not ended")
    if file.exists():
        state, metadata = load_state(file)
        saved = json.loads(metadata[SEGMENT_STATE])["training"]["iteration"]
    with Marked() as marked:
        with at_work(test.workers, bench, test.patience) as others:
            others.submit("trunk")
            others.until(lambda: others.told("trunk", "begun"), "the job was not begun again")
        left = marked.left()
    [begun, *_] = others.told("trunk", "begun")
    return Interrupted(stopped=shift.outcomes[0], saved=saved, state=state, begun=begun.value["iteration"], left=left)


def stopped_after(test: Employer, iteration: int, folder: Path) -> Mapping[str, torch.Tensor]:
    """The state that this process saves which stops after so many steps."""
    bench, stop = test.bench(folder, epochs=LONG), Stop()

    def heard(event: Event) -> None:
        if event.kind == "trained" and event.value[0] >= iteration:
            stop.asked = signal.SIGTERM

    with processor_threads(1):  # as each worker has: the number decides the rounding
        run_job(bench.context, attrs.evolve(bench.job("trunk"), keep=frozenset({iteration})), heard, stop)
    tensors, _ = load_state(bench.context.store.segment(bench.segments["trunk"].id).resume_file)
    return tensors


def _trained_here(bench: Bench) -> Expected:
    """The run trained in this process."""
    events: dict[str, list[Event]] = {}
    ended = {}
    with processor_threads(1):  # as each worker has: the number decides the rounding
        for name in ("trunk", "branch", "continued"):
            ended[name] = run_job(bench.context, bench.job(name), events.setdefault(name, []).append, Stop())
    return Expected(bench=bench, events=events, ended=ended)
