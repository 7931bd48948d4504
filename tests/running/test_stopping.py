"""Signals, and where they take effect."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest

from anarch_core.segment.stopping import APART, SIGNALS, Stop, Stopped, interrupts


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("anarch_core.segment.stopping.time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_waits_for_whoever_asks(number):
    noticed: list[bool] = []
    stop = Stop(notice=lambda: noticed.append(True))
    with stop.on_signals():
        assert not stop()
        os.kill(os.getpid(), number)
        assert not noticed  # a handler says nothing: it may interrupt somebody who does
        assert stop()
        assert stop()
    assert noticed == [True]
    assert stop.asked is number


WENT_ON: list[str] = []


def interrupted(stop: Stop) -> None:
    """Asked to stop where that does not wait."""
    with stop.at_once():
        os.kill(os.getpid(), signal.SIGTERM)
        WENT_ON.append("to the next line")


def interrupted_in_a_message(stop: Stop) -> None:
    """Asked to stop where that does wait, inside of where it does not."""
    with stop.at_once():
        with stop.later():
            os.kill(os.getpid(), signal.SIGTERM)
            stop.check()
        stop.check()
        WENT_ON.append("after the message")


def interrupted_in_what_says_something_else(stop: Stop) -> None:
    """Asked to stop in a library that turns every exception into one of its own."""
    with stop.at_once():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException as error:
            msg = "could not determine the shape"
            raise ValueError(msg) from error


def interrupted_in_what_goes_on(stop: Stop) -> None:
    """Asked to stop in a library that makes do with less."""
    with stop.at_once(), contextlib.suppress(BaseException):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    "work", [interrupted, interrupted_in_a_message, interrupted_in_what_says_something_else, interrupted_in_what_goes_on]
)
def test_where_nothing_has_to_be_saved_it_does_not_wait(work):
    stop = Stop()
    with stop.on_signals():
        with pytest.raises(Stopped):
            work(stop)
        stop.check()
        with pytest.raises(Stopped):
            stop.at_once().__enter__()
    assert not WENT_ON


def test_another_signal_insists_unless_it_is_the_same_one_sent_twice(clock):
    stop = Stop()
    with stop.on_signals():
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        clock[0] += APART
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)


def insisted_in_what_says_something_else(stop: Stop) -> None:
    """Asked to stop in a library that turns every exception into one of its own."""
    with stop.insisted():
        try:
            stop.ask(signal.SIGTERM)
        finally:
            msg = "could not determine the shape"
            raise ValueError(msg)


def test_an_error_that_comes_of_insisting_is_taken_for_it_and_another_is_not(clock):
    stop = Stop()
    with pytest.raises(ValueError, match="could not determine"):
        insisted_in_what_says_something_else(stop)
    clock[0] += APART
    with pytest.raises(Stopped):
        insisted_in_what_says_something_else(stop)


def test_a_worker_is_not_insisted_with(clock):
    stop = Stop(insist=False)
    with stop.on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        clock[0] += APART
        os.kill(os.getpid(), signal.SIGTERM)


def test_handlers_are_put_back_and_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        found = [signal.getsignal(number) for number in SIGNALS]
        stop = Stop()
        with stop.on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
        assert [signal.getsignal(number) for number in SIGNALS] == found
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_handle_none():
    entered: list[bool] = []

    def enter() -> None:
        with Stop().on_signals():
            entered.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [True]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_is_interrupted_by_what_ends_a_job_or_a_terminal(number):
    with interrupts(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_a_thread_that_no_signal_reaches_is_stopped_at_once_where_nothing_is_to_be_saved_and_later_elsewhere():
    stop, ended, begun = Stop(), [], threading.Barrier(2)

    def measure():
        try:
            with stop.at_once():
                begun.wait()
                while True:
                    time.sleep(0.001)
        except Stopped:
            ended.append("at once")

    def train():
        begun.wait()
        while not stop():
            time.sleep(0.001)
        ended.append("after a step")

    for work in (measure, train):
        stop.asked = None
        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
        stop.ask_in(thread.ident)
        thread.join(10)
    assert ended == ["at once", "after a step"]
