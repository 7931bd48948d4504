"""What a run says while it works."""

from __future__ import annotations

import errno
import io
import itertools
import re
import time
from pathlib import Path

import attrs
import pytest
from rich.console import Console

from anarch_core.config.learning_rate import LearningRate
from anarch_core.experiment.results import Results
from anarch_core.experiment.segments import Segment, Settings, Task, Transition
from anarch_core.running.bars import Bars, Drawing
from anarch_core.running.pace import Pace
from anarch_core.running.progress import LINE_EVERY, MOST_BARS, Lines, Silent
from anarch_core.running.showing import make_progress


def segment(seed: int = 0) -> Segment:
    rate = LearningRate(base=0.1, epochs=10)
    settings = Settings(iterations=400, batch_size=100, optimizer="sgd", learning_rate=rate)
    return Segment(kind="trunk", task=Task(data="mnist1d", model="cnn1d"), seed=seed, settings=settings)


def branch(seed: int = 0) -> Segment:
    return attrs.evolve(segment(seed), kind="scratch", relaxation="efcn", transition=Transition(action="scratch", relaxation="efcn"))


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("anarch_core.running.progress.time.monotonic", lambda: now[0])
    return now


def test_lines_are_rare(capsys, clock):
    lines = Lines()
    lines.planned([segment(0), segment(1)])
    for step in range(1, 301):
        clock[0] = step * LINE_EVERY / 100
        lines.trained(segment(), step, None)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert said[0] == " 12 % done, over 70 s left; trunk, seed 0: 25 %"
    clock[0] += LINE_EVERY
    lines.measuring(segment(), "hessian: products 3/8")
    assert capsys.readouterr().err.endswith("trunk, seed 0: hessian: products 3/8\n")


def test_every_segment_that_ends_has_a_line(capsys):
    lines = Lines()
    lines.planned([segment(0), segment(1), segment(2)])
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
        bars.planned([segment(0), segment(1)])
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


def test_bars_say_who_trains_and_how_many_wait(clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Bars(console) as bars:
        bars.planned([segment(seed) for seed in range(9)])
        for seed in range(9):
            bars.placed(segment(seed), f"waits as Slurm job {seed}")
        assert "9 waiting" in drawn(bars)
        assert [seed for seed in range(9) if f"waits as Slurm job {seed}" in drawn(bars)] == [0, 1, 2]
        bars.placed(segment(8), "Slurm job 8 on n1")
        bars.started(segment(8))
        bars.trained(segment(8), 100, {"epoch": 25, "train_accuracy": 71.25})
        assert "8 waiting" in drawn(bars)
        assert "trunk, seed 8 Slurm job 8 on n1" in drawn(bars)
        bars.lost(segment(8))
        assert "seed 8" not in drawn(bars)
        bars.placed(segment(8), "cuda:1")
        bars.started(segment(8))
        assert "trunk, seed 8 cuda:1" in drawn(bars)


def test_of_very_many_the_first_have_bars(clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Bars(console) as bars:
        bars.planned([segment(seed) for seed in range(90)])
        for seed in range(80):
            bars.started(segment(seed))
            bars.trained(segment(seed), 100, None)
        assert "80 at once" in drawn(bars)
        assert drawn(bars).count("trunk, seed") == MOST_BARS
        bars.ended(segment(0), "train 99.0 %")
        bars.trained(segment(70), 200, None)
        assert "trunk, seed 70" in drawn(bars)


def drawn(bars):
    """What stands there now, without gaps."""
    console = Console(file=io.StringIO(), width=120)
    console.print(bars._progress.get_renderable())
    return " ".join(console.file.getvalue().split())


def test_lines_say_who_trains_and_how_many_wait(capsys, clock):
    lines = Lines()
    lines.planned([segment(0), segment(1)])
    lines.placed(segment(0), "waits as Slurm job 17")
    clock[0] += LINE_EVERY
    lines.placed(segment(1), "waits as Slurm job 18")
    lines.placed(segment(0), "Slurm job 17 on n1")
    lines.started(segment(0))
    clock[0] += LINE_EVERY
    lines.trained(segment(0), 100, None)
    lines.ended(segment(0), "train 99.0 %, test 88.8 % (7 s)")
    lines.ended(segment(1), "skipped: trunk, seed 0 diverged")
    assert capsys.readouterr().err.splitlines() == [
        "  0 % done, 2 waiting; trunk, seed 1: waits as Slurm job 18",
        " 12 % done, 1 waiting; trunk, seed 0: Slurm job 17 on n1, 25 %",
        "[1/2] trunk, seed 0 (Slurm job 17 on n1): train 99.0 %, test 88.8 % (7 s)",
        "[2/2] trunk, seed 1: skipped: trunk, seed 0 diverged",
    ]


def test_a_progress_of_ones_own_need_not_know_of_places(clock):
    silent = Silent()
    silent.placed(segment(), "cuda:1")
    silent.lost(segment())


def results(*segments):
    return Results(path=Path("x"), data="mnist1d", model="cnn1d", status="running", segments=segments)


def test_lines_say_what_is_coming_once_and_what_a_schedule_has_found(capsys, clock):
    lines = Lines()
    lines.planned([segment(0), segment(1), segment(2)])
    lines.ended(segment(0), "", before=True)
    lines.found(results(), searching=True)
    lines.started(segment(1))
    lines.trained(segment(1), 100, None)
    lines.planned([segment(0), segment(1), segment(2), branch(1)])
    lines.trained(segment(1), 200, None)
    lines.ended(segment(1), "train 99.0 %, test 88.8 % (7 s)")
    lines.found(results())
    assert capsys.readouterr().err.splitlines() == [
        "coming: trunk; branches where the schedule finds a moment (2 segments, 2 seeds)",
        "coming: scratch efcn (1 segment, seed 1)",
        "[2/4] trunk, seed 1: train 99.0 %, test 88.8 % (7 s)",
    ]


def test_lines_say_nothing_of_a_run_that_is_done(capsys):
    lines = Lines()
    lines.planned([segment(0)])
    lines.ended(segment(0), "", before=True)
    lines.found(results())
    assert capsys.readouterr().err == ""


def test_above_the_bars_stands_the_table(clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    with Bars(console) as bars:
        bars.planned([segment(), branch()])
        assert "coming" not in screen(bars)
        bars.found(results())
        assert [line for line in screen(bars) if line.endswith("coming")] == ["trunk coming", "scratch efcn coming"]
        bars.started(segment())
        bars.scored(segment(), {"epoch": 0, "test_accuracy": 10.0})
        clock[0] += 1
        bars.trained(segment(), 100, {"epoch": 25, "train_accuracy": 71.25, "test_accuracy": 70.0})
        assert "trunk 10.0 71.2 70.0 25 %" in screen(bars)
        assert "trunk, seed 0" in drawn(bars)


def test_below_a_table_there_are_fewer_bars_on_a_low_terminal(clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=24)
    with Bars(console) as bars:
        bars.planned([segment(seed) for seed in range(90)])
        bars.found(results())
        for seed in range(80):
            bars.started(segment(seed))
            bars.trained(segment(seed), 100, None)
        assert "80 at once" in drawn(bars)
        assert drawn(bars).count("trunk, seed") == 8
        assert len(screen(bars)) < 24


def screen(bars):
    """The lines that stand there now, without gaps."""
    console = Console(file=io.StringIO(), width=80, height=24)
    console.print(bars._drawing.shown)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_what_is_said_is_never_drawn_over(monkeypatch):
    """Each drawing goes up by as many lines as the one before it has, whoever asked for them."""
    monkeypatch.setattr("anarch_core.running.bars.DRAWN_EVERY", 0.001)
    monkeypatch.setenv("TERM", "xterm")
    heights = itertools.cycle([2, 3, 5, 4])

    class Changing:
        def __rich_console__(self, console, options):
            time.sleep(0.001)
            yield "\n".join(["drawn"] * next(heights))

    console = Console(file=io.StringIO(), force_terminal=True)
    drawing = Drawing(Changing(), console)
    drawing.begin()
    for number in range(20):
        drawing.say(f"line {number}")
    drawing.end()
    text = console.file.getvalue()
    assert [number for number in range(20) if f"line {number}\n" in text] == [*range(20)]
    runs = [(what, len([*group])) for what, group in itertools.groupby(re.findall(r"drawn|\x1b\[1A", text))]
    lines, ups = ([number for what, number in runs if (what == "drawn") is drawn] for drawn in (True, False))
    assert [number - 1 for number in lines[:-1]] == ups[:-1]
    assert lines[-1] == ups[-1]  # at the end nothing is left


def test_a_progress_of_ones_own_need_not_know_of_results():
    silent = Silent()
    silent.found(results(), searching=True)
    silent.scored(segment(), {"epoch": 0, "test_accuracy": 10.0})


def test_a_terminal_that_cannot_draw_has_lines(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress(), Lines)
    monkeypatch.setenv("TERM", "vt100")
    assert isinstance(make_progress(), Bars)


def test_nobody_need_listen(monkeypatch):
    """A terminal that was closed does not end a run."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Gone())
    Lines().say("still here")
    with make_progress("bars") as bars:
        bars.planned([segment()])
        bars.started(segment())
        bars.say("still here")


class TestPace:
    """What is said of the time left is right from the first word on."""

    @staticmethod
    def train(pace, clock, trained, *, steps=400, seconds=0.01, measured=0.0):
        """A segment from its start to its end, a step in so many seconds."""
        pace.elsewhere(trained)
        clock[0] += measured
        for step in range(20, steps + 1, 20):
            clock[0] += 20 * seconds
            pace.trained(trained, step)
            yield pace.remaining()
        pace.elsewhere(trained)
        pace.end(trained, before=False)

    def test_nothing_is_said_until_enough_is_known(self, clock):
        """Loading, measuring and the first steps, which are slow, say nothing about the others."""
        pace = Pace()
        pace.planned([segment(0), segment(1)])
        said = list(self.train(pace, clock, segment(0), measured=1000.0))
        assert said[:15] == [""] * 15
        assert said[-1] == ", over 4 s left"

    def test_relaxed_networks_have_a_pace_of_their_own(self, clock):
        pace = Pace()
        pace.planned([segment(0), branch(0), branch(1)])
        list(self.train(pace, clock, segment(0)))
        said = list(self.train(pace, clock, branch(0), seconds=1.0))
        assert said[0] == ", over 8 s left"
        assert said[1] == ", about 13 min left"
        list(self.train(pace, clock, branch(1), seconds=1.0))
        assert pace.remaining() == ""

    def test_measuring_counts(self, clock):
        pace = Pace()
        pace.planned([segment(0), segment(1)])
        list(self.train(pace, clock, segment(0), measured=100.0))
        assert pace.remaining() == ", about 104 s left"

    def test_what_was_done_before_is_not_the_pace(self, clock):
        pace = Pace()
        pace.planned([segment(0), segment(1), segment(2)])
        pace.end(segment(0), before=True)
        pace.trained(segment(1), 300)
        for step in range(320, 401, 20):
            clock[0] += 20.0
            pace.trained(segment(1), step)
        assert pace.remaining() == ", over 7 min left"

    def test_what_waits_is_not_under_way(self, clock):
        """Two are trained at a time, whatever stands in the queue behind them."""
        pace = Pace()
        pace.planned([segment(seed) for seed in range(8)])
        for seed in range(2, 8):
            pace.placed(segment(seed), "waits")
        for step in range(20, 401, 20):
            for seed in (0, 1):
                pace.trained(segment(seed), step)
            clock[0] += 2.0
        alone = pace.remaining()
        for seed in range(2, 8):
            pace.lost(segment(seed))
        assert alone == pace.remaining() == ", over 2 min left"

    def test_nothing_is_known_while_all_wait(self, clock):
        pace = Pace()
        pace.planned([segment(0), segment(1), segment(2)])
        list(self.train(pace, clock, segment(0)))
        pace.placed(segment(1), "waits")
        assert (pace.queue(), pace.remaining()) == (", 1 waiting", "")
        pace.elsewhere(segment(1))
        assert (pace.queue(), pace.remaining()) == ("", ", about 8 s left")

    def test_who_trains_is_a_line(self):
        pace = Pace()
        pace.placed(segment(), "node\n[2]\x1b[31m" + 99 * "x")
        assert pace.place(segment().id).startswith("node [2]\\x1b[31mxxx")
        assert len(pace.place(segment().id)) == 60

    def test_one_that_goes_back_into_the_queue_is_under_way_no_more(self, clock):
        pace = Pace()
        pace.planned([segment(0), segment(1)])
        pace.elsewhere(segment(0))
        pace.placed(segment(0), "waits as Slurm job 17")
        assert pace.queue() == ", 1 waiting"
        pace.end(segment(0), before=False)
        assert (pace.queue(), pace.place(segment(0).id)) == ("", "")


def test_bars_only_on_a_terminal():
    assert isinstance(make_progress(), Lines)
    assert isinstance(make_progress("silent"), Silent)
    assert isinstance(make_progress("bars"), Bars)
