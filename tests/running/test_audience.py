"""Observers may raise, hang, be slow or leave the program: whoever tells them neither waits nor fails."""

from __future__ import annotations

import sys
import textwrap
import threading
import time

import pytest

from anarch_core.errors import RunError
from anarch_core.observer import AbstractObserver, EpochDone, SegmentStarted, Warned
from anarch_core.running import audience
from anarch_core.running.audience import Audience
from anarch_core.testing.observer import TRUNK, whole


class Noting(AbstractObserver):
    def __init__(self, options=None):
        super().__init__(options)
        self.told, self.closed = [], 0

    def observe(self, event):
        self.told.append(event)

    def close(self):
        self.closed += 1


class Raising(Noting):
    def observe(self, event):
        super().observe(event)
        raise self.options


class Waiting(Noting):
    def observe(self, event):
        self.options.wait(30)
        super().observe(event)


def epoch(number):
    return EpochDone(segment=TRUNK, epoch=number, iteration=4 * number, step=4 * number, row={"epoch": number})


def tell(events, *observers, **close):
    said = []
    audience = Audience([(f"observer {number}", observer) for number, observer in enumerate(observers)], said.append)
    for event in events:
        audience.tell((event,))
    audience.close(**close)
    return said


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(audience, "PATIENCE", 0.5)


def test_all_are_told_everything_in_order_on_threads_of_their_own(tmp_path):
    story, here = whole(tmp_path), threading.get_ident()
    first, second = Noting(), Noting()
    first.observe = lambda event: (first.told.append(event), threads.add(threading.get_ident()))
    threads = set()
    assert tell(story, first, second) == []
    assert first.told == second.told == story
    assert len(threads) == 1
    assert here not in threads
    assert (first.closed, second.closed) == (1, 1)


def test_a_story_is_made_when_it_is_told():
    noting, made = Noting(), []

    def story():
        made.append(threading.get_ident())
        yield epoch(0)
        yield epoch(1)

    audience = Audience([("observer", noting)], lambda text: None)
    audience.tell(story())
    audience.close()
    assert [event.epoch for event in noting.told] == [0, 1]
    assert made != [threading.get_ident()]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ValueError("no such server"), "ValueError: no such server"),
        (RunError("the server is down"), "the server is down"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_one_that_raises_is_left_out_and_named_once(tmp_path, error, why):
    raising, noting = Raising(error), Noting()
    said = tell(whole(tmp_path), raising, noting)
    assert said == [f"warning: observer 0 is left out from here on, and the run goes on: {why}"]
    assert len(raising.told) == 1
    assert raising.closed == 1
    assert len(noting.told) == len(whole(tmp_path))


def test_one_that_hangs_is_left_behind_and_told_nothing_more(impatient):
    go, began = threading.Event(), time.monotonic()
    waiting, noting = Waiting(go), Noting()
    said = tell([epoch(0), epoch(1)], waiting, noting)
    assert time.monotonic() - began < 2
    assert said == ["warning: observer 0 did not finish with the run and is left behind; what it told is not complete"]
    assert len(noting.told) == 2
    go.set()
    time.sleep(0.05)
    assert len(waiting.told) == 1


def test_one_that_gets_on_is_waited_for(monkeypatch):
    monkeypatch.setattr(audience, "PATIENCE", 2.0)
    monkeypatch.setattr(audience, "SILENT", 0.1)
    slow = Noting()
    slow.observe = lambda event: (time.sleep(0.4), slow.told.append(event))
    assert tell([epoch(number) for number in range(6)], slow) == ["waiting for observer 0 to finish"]
    assert len(slow.told) == 6


def test_nobody_is_waited_for_in_a_hurry():
    go, began = threading.Event(), time.monotonic()
    assert "left behind" in tell([epoch(0)], Waiting(go), hurry=lambda: True)[0]
    assert time.monotonic() - began < 1
    go.set()


def test_where_too_much_waits_rows_are_left_out_and_counted_but_no_beginnings(monkeypatch):
    monkeypatch.setattr(audience, "MOST_WAITING", 3)
    go = threading.Event()
    waiting = Waiting(go)
    said = []
    listening = Audience([("observer", waiting)], said.append)
    listening.tell((epoch(0),))
    while listening._listeners[0]._waiting:  # until it is being told of that one
        time.sleep(0.001)
    for number in range(1, 6):
        listening.tell((epoch(number),))
    listening.tell((Warned(text="?"),))
    started = SegmentStarted(segment=TRUNK, iteration=0, epoch=0, step=0)
    listening.tell((started,))
    go.set()
    listening.close()
    assert [getattr(event, "epoch", None) for event in waiting.told[:4]] == [0, 1, 2, 3]
    assert waiting.told[4:] == [started]
    assert said == ["warning: observer was too slow, and was not told 3 rows, measurements and warnings"]


def test_no_observer_costs_nothing():
    listening = Audience([], pytest.fail)
    assert not listening
    listening.tell((epoch(0),))
    listening.close()


def test_one_that_hangs_for_ever_does_not_keep_the_process(python):
    code = """
    import threading, time
    from anarch_core.observer import AbstractObserver, Warned
    from anarch_core.running import audience

    class Hanging(AbstractObserver):
        def observe(self, event):
            threading.Thread(target=time.sleep, args=(600,)).start()
            time.sleep(600)

    audience.PATIENCE = 0.1
    listening = audience.Audience([("observer", Hanging(None))], print)
    listening.tell((Warned(text="?"),))
    listening.close()
    print("over")
    """
    began = time.monotonic()
    ran = python("-c", textwrap.dedent(code), environment={"PYTHONPATH": ":".join(filter(None, sys.path))})
    assert ran.stdout.splitlines()[1:] == ["over"], ran.stderr
    assert time.monotonic() - began < 30
