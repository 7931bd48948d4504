"""What a run says while it works."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from anarch_core.config.learning_rate import LearningRate
from anarch_core.experiment.segments import Segment, Settings, Task
from anarch_core.running.progress import LINE_EVERY, Bars, Lines, Silent, make_progress


def segment(seed: int = 0) -> Segment:
    rate = LearningRate(base=0.1, epochs=10)
    settings = Settings(iterations=400, batch_size=100, optimizer="sgd", learning_rate=rate)
    return Segment(kind="trunk", task=Task(data="mnist1d", model="cnn1d"), seed=seed, settings=settings)


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("anarch_core.running.progress.time.monotonic", lambda: now[0])
    return now


def test_lines_are_rare(capsys, clock):
    lines = Lines()
    lines.planned(2, 800)
    for step in range(1, 301):
        clock[0] = step * LINE_EVERY / 100
        lines.trained(segment(), step, None)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert said[0] == " 12 % done, about 70 s left; trunk, seed 0: 25 %"
    clock[0] += LINE_EVERY
    lines.measuring(segment(), "hessian: products 3/8")
    assert capsys.readouterr().err.endswith("trunk, seed 0: hessian: products 3/8\n")


def test_every_segment_that_ends_has_a_line(capsys):
    lines = Lines()
    lines.planned(3, 1200)
    lines.ended(segment(0), "", before=True)
    lines.ended(segment(1), "train 99.0 %, test 88.8 % (7 s)")
    lines.ended(segment(2), "failed: no luck")
    assert capsys.readouterr().err.splitlines() == [
        "[2/3] trunk, seed 1: train 99.0 %, test 88.8 % (7 s)",
        "[3/3] trunk, seed 2: failed: no luck",
    ]


def test_bars_draw_the_run_and_what_is_under_way(clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Bars(console) as bars:
        bars.planned(2, 800)
        bars.started(segment())
        bars.trained(segment(), 0, None)
        clock[0] += 5
        bars.trained(segment(), 100, {"epoch": 25, "train_accuracy": 71.25})
        bars.measuring(segment(), "delta")
        bars.ended(segment(), "train 99.0 % [bold]")
    text = console.file.getvalue()
    assert "0 of 2 segments" in text
    assert "trunk, seed 0" in text
    assert "train 99.0 % [bold]" in text


def test_bars_only_on_a_terminal():
    assert isinstance(make_progress(), Lines)
    assert isinstance(make_progress("silent"), Silent)
    assert isinstance(make_progress("bars"), Bars)
