"""Workers under way, and what is seen of them meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from anarch_core.cards import cards, in_turn
from anarch_core.experiment.events import Event
from anarch_core.experiment.placement import trained_elsewhere
from anarch_core.planning.need import Need
from anarch_core.segment.stopping import Stop
from anarch_core.testing.bench import Bench
from anarch_core.testing.patience import AT_ONCE, alarmed, within
from anarch_core.workers.base import AbstractWorkers, Crew, Outcome

NEED = Need(peak_bytes=2**20, work="training", model_bytes=2**12)


@attrs.frozen(kw_only=True)
class Heard:
    """An event as it was told.

    Attributes:
        event: what.
        fault: what was wrong at that moment, in words; None for nothing.
    """

    event: Event
    fault: str | None


class Shift:
    """Workers under way.

    Args:
        workers: just built.
        bench: what they train.
        patience: seconds to wait for any one thing.

    Attributes:
        heard: all events.
        outcomes: by segment, in words.
        capacities: every one that was given, with the number of jobs under way.
        said: lines for the user.
    """

    def __init__(self, workers: AbstractWorkers, bench: Bench, patience: float) -> None:
        self.workers, self.bench, self.patience = workers, bench, patience
        self.heard: list[Heard] = []
        self.outcomes: list[Outcome] = []
        self.capacities: list[tuple[Any, int]] = []
        self.said: list[str] = []
        self.adopted: list[Any] = []
        self.under_way: dict[str, str] = {}
        self._thread = threading.current_thread()

    def open(self) -> None:
        """Start them as a run does."""
        context, config = self.bench.context, self.bench.context.config
        crew = Crew(
            context=context,
            on_event=self._hear,
            say=self.said.append,
            stop=Stop(),
            need=NEED,
            segments=3,
            places=() if trained_elsewhere(config, context.registry) else in_turn(cards(config.device), config.jobs or 1),
        )
        with within(self.patience, "open()"):
            self.workers.open(crew)
        with within(AT_ONCE, "adopt()"):
            known = [segment.id for segment in self.bench.segments.values()]
            self.adopted = [list(self.workers.adopt([])), list(self.workers.adopt(known))]

    def capacity(self) -> int:
        """Jobs at once, noted."""
        with within(AT_ONCE, "capacity"):
            found = self.workers.capacity
        self.capacities.append((found, len(self.under_way)))
        return found if isinstance(found, int) else 0

    def wait(self) -> Sequence[Outcome]:
        """What ended meanwhile."""
        with within(self.patience, "wait()"):
            outcomes = list(self.workers.wait())
        for outcome in outcomes:
            assert isinstance(outcome, Outcome), f"wait() gives a {type(outcome).__name__}, expected anarch_core.workers.Outcome"
            assert outcome.segment in self.under_way, f"wait() gives an outcome of {outcome.segment!r}, which is not under way"
            del self.under_way[outcome.segment]
        self.outcomes += outcomes
        return outcomes

    def until(self, seen: Callable[[], object], what: str) -> None:
        """Wait for something."""
        end = time.monotonic() + self.patience
        while not seen():
            assert time.monotonic() < end, f"after {self.patience:.0f} seconds {what} (`patience` of the test allows more)"
            self.wait()

    def submit(self, name: str) -> None:
        """Hand over a segment as soon as there is room."""
        self.until(lambda: self.capacity() > len(self.under_way), f"there was no room for a job: capacity is {self.capacity()}")
        job = self.bench.job(name)
        self.under_way[job.segment.id] = name
        with within(AT_ONCE, "submit()"):
            self.workers.submit(job)
        self.capacity()

    def train(self, *names: str) -> list[Outcome]:
        """Have segments trained, side by side as far as there is room, to their ends."""
        count = len(self.outcomes)
        for name in names:
            self.submit(name)
        self.until(lambda: not self.under_way, f"there was no outcome of {', '.join(self.under_way.values())}")
        return self.outcomes[count:]

    def told(self, name: str, kind: str) -> list[Event]:
        """Events of a segment."""
        identity = self.bench.segments[name].id
        return [heard.event for heard in self.heard if (heard.event.segment, heard.event.kind) == (identity, kind)]

    def close(self, *, at_once: bool = False) -> None:
        """End them."""
        with within(self.patience, f"close(at_once={at_once})"):
            self.workers.close(at_once=at_once)

    def _hear(self, event: Event) -> None:
        fault, files = None, self.bench.context.store.segment(event.segment)
        if threading.current_thread() is not self._thread:
            fault = f"was told on the thread {threading.current_thread().name!r}; call on_event from wait() or submit() alone"
        elif event.segment not in self.under_way:
            fault = "was told when its segment was not under way: after its outcome, or before it was submitted"
        elif event.kind == "snapshot" and not files.snapshot(event.value).exists():
            fault = "was told before its file was in the run directory, where children look for it"
        elif event.kind == "saved" and not (files.resume_file.exists() or files.result_file.exists()):
            fault = "was told before the state was in the run directory"
        self.heard.append(Heard(event=event, fault=fault))


@contextlib.contextmanager
def at_work(build: Callable[[], AbstractWorkers], bench: Bench, patience: float) -> Iterator[Shift]:
    """Workers from open() to close(), at once if they have a job."""
    with alarmed():
        shift = Shift(build(), bench, patience)
        try:
            shift.open()
            yield shift
        except BaseException:
            with contextlib.suppress(Exception):
                shift.close(at_once=True)
            raise
        shift.close(at_once=bool(shift.under_way))
