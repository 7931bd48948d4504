"""A wrong observer is found, and what to mend is said.

Each test breaks a correct component in one place and runs the one check that has to notice.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anarch_core.observer import AbstractObserver, EpochDone, Event, Measured, RunBegun, SegmentFailed, SegmentStarted
from anarch_core.testing import ObserverConformance

Kit = Callable[..., Any]


class Quiet(AbstractObserver):
    def observe(self, event: Event) -> None:
        pass


class Summing(Quiet):
    def observe(self, event: Event) -> None:
        if isinstance(event, EpochDone):
            self.total = sum(event.row.values())


class Appending(Quiet):
    def observe(self, event: Event) -> None:
        if isinstance(event, RunBegun):
            (Path(event.path) / "new").mkdir()


class Remembering(Quiet):
    rows = -1

    def observe(self, event: Event) -> None:
        if isinstance(event, SegmentStarted) and event.earlier:
            raise KeyError(event.segment.id)


class Strict(Quiet):
    def observe(self, event: Event) -> None:
        if type(event).__module__ != "anarch_core.observer.events":
            raise TypeError(event.name)


class Closing(Quiet):
    def close(self) -> None:
        self.file.close()


class Hasty(Quiet):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        Path("log.txt").touch()


class Drawing(Quiet):
    def observe(self, event: Event) -> None:
        random.random()


class Sudden(Quiet):
    def observe(self, event: Event) -> None:
        if isinstance(event, SegmentFailed | Measured) and not getattr(event, "values", None):
            raise SystemExit


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        (Drawing, "test_leaves_the_process_alone", "the observer changed random state of Python, which the training"),
        (Appending, "test_hears_a_run_in_parts", r"told of 'run_begun' it raised FileExistsError: .* a run would leave it out from there"),
        (Remembering, "test_comes_late", "told of 'segment_started' it raised KeyError"),
        (Summing, "test_hears_what_fails", "told of 'epoch_done' it raised TypeError"),
        (Sudden, "test_hears_what_fails", "told of 'measured' it raised SystemExit"),
        (Strict, "test_passes_over_other_events", "told of 'novelty' it raised TypeError"),
    ],
)
def test_a_wrong_observer(fails: Kit, plugin: Kit, tmp_path: Path, target: type, check: str, message: str) -> None:
    plugin("observer", target)
    fails(ObserverConformance, check, message, tmp_path)


def test_one_that_raises_at_once(fails: Kit, plugin: Kit, tmp_path: Path) -> None:
    plugin("observer", type("Raising", (Quiet,), {"observe": lambda self, event: event.missing}))
    fails(ObserverConformance, "test_hears_a_whole_run", "told of 'run_begun' it raised AttributeError", tmp_path)


def test_one_that_closes_what_it_never_opened(fails: Kit, plugin: Kit) -> None:
    plugin("observer", Closing)
    fails(ObserverConformance, "test_may_hear_nothing", "told of 'the end' it raised AttributeError")


def test_one_that_writes_too_early(fails: Kit, plugin: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin("observer", Hasty)
    fails(ObserverConformance, "test_writes_nothing_before_the_run", r"wrote log.txt; wait for RunBegun", tmp_path, monkeypatch)


def test_a_right_one(passes: Kit, plugin: Kit, tmp_path: Path) -> None:
    plugin("observer", Quiet)
    for check in ("test_hears_a_whole_run", "test_hears_a_run_in_parts", "test_hears_what_fails", "test_leaves_the_process_alone"):
        passes(ObserverConformance, check, tmp_path / check)
