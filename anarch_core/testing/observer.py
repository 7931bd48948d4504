"""What an observer promises."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from anarch_core.errors import AnarchError
from anarch_core.observer.base import AbstractObserver
from anarch_core.observer.events import (
    EpochDone,
    Event,
    Measured,
    RunBegun,
    RunFinished,
    SegmentFailed,
    SegmentFinished,
    SegmentNode,
    SegmentSkipped,
    SegmentsPlanned,
    SegmentStarted,
    SwitchFound,
    Warned,
)
from anarch_core.surroundings import Surroundings
from anarch_core.testing.component import ComponentConformance

EPOCHS, UNIT = 3, 4


@attrs.frozen(kw_only=True)
class _Novelty(Event):
    """What a later version may tell."""

    name = "novelty"


class ObserverConformance(ComponentConformance):
    """Tests of an observer: it is told runs of two segments, a trunk and a branch, as it would be in a run, on a thread of its own."""

    kind = "observer"

    def observer(self) -> AbstractObserver:
        """The observer with the tested options."""
        observer: AbstractObserver = self.registry.create(self.kind, self.info.name, dict(self.options))
        return observer

    def test_hears_a_whole_run(self, tmp_path: Path) -> None:
        """Every event of a run is taken without an exception, and so is the end."""
        self.tell(whole(tmp_path))

    def test_hears_a_run_in_parts(self, tmp_path: Path) -> None:
        """A run that was stopped and gone on with, and then asked for once more, is taken by an instance after the other."""
        for story in (stopped(tmp_path), resumed(tmp_path), whole(tmp_path, earlier=True)):
            self.tell(story)

    def test_comes_late(self, tmp_path: Path) -> None:
        """A run that was finished before the observer was named is taken."""
        self.tell(whole(tmp_path, earlier=True))

    def test_hears_what_fails(self, tmp_path: Path) -> None:
        """Segments that fail or are skipped, numbers that are missing and warnings are taken."""
        self.tell(failing(tmp_path))

    def test_passes_over_other_events(self, tmp_path: Path) -> None:
        """An event of a kind that a later version may add is passed over."""
        first, *others = whole(tmp_path)
        self.tell([first, _Novelty(), *others])

    def test_may_hear_nothing(self) -> None:
        """One that is closed before the first event, as where a run is refused, has nothing to close."""
        self.tell([])

    def test_writes_nothing_before_the_run(self, tmp_path: Path, monkeypatch: Any) -> None:
        """Building an observer leaves nothing in the working directory."""
        monkeypatch.chdir(tmp_path)
        self.observer()
        found = [path.name for path in tmp_path.iterdir()]
        assert not found, f"building the observer wrote {', '.join(found)}; wait for RunBegun, for the run may be refused"

    def test_leaves_the_process_alone(self, tmp_path: Path) -> None:
        """What a whole process shares is as it was: random states, settings of numpy and torch, signals, the working directory."""
        self.tell(whole(tmp_path / "first"))  # what is imported may set something, once
        before = Surroundings.now()
        self.tell(whole(tmp_path / "second"))
        changed = before.changed()
        assert not changed, f"told a run, the observer changed {', '.join(changed)}, which the training beside it uses"

    def tell(self, story: Sequence[Event]) -> None:
        """Tell a fresh instance some events, as a run does.

        Raises:
            AssertionError: it raises.
        """
        observer, raised, last = self.observer(), list[BaseException](), "the end"

        def listen() -> None:
            nonlocal last
            try:
                for event in story:
                    last = event.name
                    observer.observe(event)
                last = "the end"
                observer.close()
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive(), f"told of {last!r}, it is not done after a minute; a run would leave it behind"
        if raised:
            said = str(raised[0]) if isinstance(raised[0], AnarchError) else f"{type(raised[0]).__name__}: {raised[0]}"
            msg = f"told of {last!r} it raised {said}; a run would leave it out from there on"
            raise AssertionError(msg) from raised[0]


TRUNK = SegmentNode(
    id="0123456789ab",
    title="trunk, seed 0",
    kind="trunk",
    seed=0,
    relaxation=None,
    parent=None,
    parent_iteration=None,
    switch_epoch=None,
    first_step=0,
    iterations=EPOCHS * UNIT,
    iterations_per_epoch=UNIT,
    settings={"task": {"data": "signals", "model": "net"}, "settings": {"batch_size": 10, "precision": "float32"}, "transition": {}},
)
BRANCH = attrs.evolve(
    TRUNK,
    id="ba9876543210",
    title="wide>wider at 1ep, seed 0",
    kind="branch",
    relaxation="wide>wider",
    parent=TRUNK.id,
    parent_iteration=UNIT,
    switch_epoch=1.0,
    first_step=UNIT,
)


def _opening(path: Path, *, again: bool) -> list[Event]:
    path.mkdir(parents=True, exist_ok=True)
    config = {"run": {"data": "signals", "seeds": [0], "relax": ["wide"]}, "optimizer": {"plain": {"momentum": 0.0}}}
    environment = {"versions": {"torch": "2"}, "started": "2026-01-01T00:00:00+00:00"}
    begun = RunBegun(run="00ff00ff00ff", path=str(path), config=config, environment=environment, resumed=again)
    return [begun, SegmentsPlanned(segments=(TRUNK, BRANCH))]


def _story(node: SegmentNode, epochs: range, *, earlier: bool) -> Iterator[Event]:
    for epoch in epochs:
        row = {"epoch": epoch, "train_loss": 2.0 / (1 + epoch), "train_accuracy": 20.0 * epoch, "learning_rate": 0.1}
        row |= {"test_loss": 2.5, "test_accuracy": 15.0 * epoch} if epoch in (0, EPOCHS) else {}
        step = node.first_step + epoch * UNIT
        yield EpochDone(segment=node, epoch=epoch, iteration=epoch * UNIT, step=step, row=row, earlier=earlier)
        if epoch in (0, EPOCHS):
            moment, values = ("start" if epoch == 0 else "end"), {"norm": 1.5, "share": None}
            yield Measured(segment=node, probe="norms", moment=moment, step=step, values=values, units={"share": "%"}, earlier=earlier)


def _started(node: SegmentNode, epoch: int = 0, *, earlier: bool = False) -> Event:
    return SegmentStarted(segment=node, iteration=epoch * UNIT, epoch=epoch, step=node.first_step + epoch * UNIT, earlier=earlier)


def _finished(node: SegmentNode, *, earlier: bool = False) -> Event:
    final = {"train_loss": 0.5, "train_accuracy": 60.0, "test_loss": None, "test_accuracy": 45.0}
    result = {"id": node.id, "kind": node.kind, "parent": node.parent, "parameters": 99, "final": final, "seconds": 1.5}
    return SegmentFinished(segment=node, result={**result, "diverged_epoch": None, "probes": {}, "switches": [UNIT]}, earlier=earlier)


def _over(path: Path, status: str, **ends: Any) -> Event:
    return RunFinished(status=status, results=str(path / "results.json"), **ends)


def whole(path: Path, *, earlier: bool = False) -> list[Event]:
    """All of a run in a directory, which ``earlier`` processes may have done."""
    story = _opening(path, again=earlier)
    for node in (TRUNK, BRANCH):
        story += [_started(node, earlier=earlier), *_story(node, range(EPOCHS + 1), earlier=earlier), _finished(node, earlier=earlier)]
    return [*story, _over(path, "finished", finished=(TRUNK.id, BRANCH.id))]


def stopped(path: Path) -> list[Event]:
    """A run that ends within both of its segments, which were trained side by side."""
    rows = zip(_story(TRUNK, range(2), earlier=False), _story(BRANCH, range(2), earlier=False), strict=True)
    found = SwitchFound(segment=TRUNK, iteration=UNIT, epoch=1)
    return [
        *_opening(path, again=False),
        _started(TRUNK),
        _started(BRANCH),
        *(event for pair in rows for event in pair),
        found,
        _over(path, "stopped"),
    ]


def resumed(path: Path) -> list[Event]:
    """That run gone on with: the last epoch was not saved, and is trained again."""
    story = _opening(path, again=True)
    for node in (TRUNK, BRANCH):
        story += [_started(node, 1), *_story(node, range(2), earlier=True), *_story(node, range(2, EPOCHS + 1), earlier=False)]
        story += [_finished(node)]
    return [*story, _over(path, "finished", finished=(TRUNK.id, BRANCH.id))]


def failing(path: Path) -> list[Event]:
    """A run whose trunk diverges and then fails, so that the branch is skipped."""
    row = {"epoch": 1, "train_loss": None, "train_accuracy": 10.0, "learning_rate": 0.1}
    skipped = Measured(segment=TRUNK, probe="norms", moment="start", step=0, note="failed: no numbers")
    return [
        *_opening(path, again=False),
        Warned(text="a file was damaged"),
        _started(TRUNK),
        skipped,
        EpochDone(segment=TRUNK, epoch=1, iteration=UNIT, step=UNIT, row=row),
        Warned(text="the loss is not finite", segment=TRUNK),
        SegmentFailed(segment=TRUNK, error="out of luck"),
        SegmentSkipped(segment=BRANCH, error="trunk, seed 0 did not get there"),
        _over(path, "failed", failed={TRUNK.id: "out of luck"}, skipped={BRANCH.id: "trunk, seed 0 did not get there"}),
    ]
