"""The table of a run that goes on: what it says from the first moment to the last."""

from __future__ import annotations

import io
from pathlib import Path

import attrs
import pytest
from rich.console import Console

from anarch_core.config.learning_rate import LearningRate
from anarch_core.experiment.results import Results
from anarch_core.experiment.segment_result import Scores, SegmentResult
from anarch_core.experiment.segments import Segment, Settings, Task, Transition
from anarch_core.running.coming import coming
from anarch_core.running.pace import Pace
from anarch_core.running.progress import Silent
from anarch_core.running.runner import run
from anarch_core.running.standing import LOOKED_AT_EVERY, Standing
from anarch_core.running.standing_table import StandingTable
from anarch_core.schedule import Moment

RATE = LearningRate(base=0.1, epochs=10)
SETTINGS = Settings(iterations=400, batch_size=100, optimizer="sgd", learning_rate=RATE)


def trunk(seed: int = 0) -> Segment:
    return Segment(kind="trunk", task=Task(data="mnist1d", model="cnn1d"), seed=seed, settings=SETTINGS)


def after(epoch: int, relaxation: str | None = "efcn", seed: int = 0, noise: int = 0) -> Segment:
    """A branch, or without a relaxation its control."""
    moment, action = Moment(40 * epoch, 40), "none" if relaxation is None else "relax"
    how, kind = Transition(action=action, relaxation=relaxation), "continued" if relaxation is None else "branch"
    left = {"parent": trunk(seed), "leaves": moment, "switch": moment}
    return attrs.evolve(trunk(seed), kind=kind, relaxation=relaxation, transition=how, noise=noise, **left)


def scratch(seed: int = 0) -> Segment:
    return attrs.evolve(trunk(seed), kind="scratch", relaxation="efcn", transition=Transition(action="scratch", relaxation="efcn"))


def result(segment: Segment, test: float, **measured: float) -> SegmentResult:
    scores = Scores(train_loss=0.1, train_accuracy=99.0, test_loss=0.4, test_accuracy=test)
    described = segment.describe()
    labels = {name: described[name] for name in ("id", "kind", "seed", "noise", "relaxation", "parent", "parent_iteration")}
    return SegmentResult(
        **labels,
        switch_epoch=described["switch_epoch"],
        switch_iteration=described["switch_iteration"],
        epochs=10,
        iterations_per_epoch=40,
        parameters=5210,
        diverged_epoch=None,
        final=scores,
        start=Scores({**scores, "test_accuracy": 10.0}),
        exactness=None,
        optimizer_state=None,
        probes={"delta": {"end": measured}} if measured else {},
        probe_details={},
        probe_notes={},
        switches=[],
        seconds=1.5,
        history=[],
    )


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("anarch_core.running.standing.time.monotonic", lambda: now[0])
    return now


class Told:
    """A run as its displays are told of it, and the lines of the table at any moment."""

    def __init__(self, clock, segments):
        self.clock, self.pace, self.done = clock, Pace(), []
        self.standing = Standing(self.pace)
        self.pace.planned(segments)

    def begin(self, *done, searching=False):
        for segment, found in done:
            self.pace.end(segment, before=True)
            self.done.append(found)
        self.found(searching=searching)

    def found(self, *, searching=False):
        headlines = {"delta": ["off_local"]}
        results = Results(path=Path("x"), data="d", model="m", status="running", segments=tuple(self.done), headlines=headlines)
        self.standing.found(results, searching=searching)

    def train(self, segment, steps, *, seconds=0.0, **row):
        self.pace.elsewhere(segment)
        self.standing.scored(segment, {"epoch": 0, "test_accuracy": 10.0})
        for step in (20, steps):
            self.clock[0] += seconds * step
            self.pace.trained(segment, step)
        self.standing.scored(segment, {"epoch": steps / 40, **row})

    def end(self, segment, outcome, found=None):
        self.pace.end(segment, before=False)
        self.standing.ended(segment, outcome)
        if found is not None:
            self.done.append(found)
        self.found()

    @property
    def lines(self):
        self.clock[0] += LOOKED_AT_EVERY
        return ["  ".join(cell for cell in line if cell) for line in self.standing.outlook().content.lines]


@pytest.fixture
def told(clock):
    return lambda *segments: Told(clock, segments)


def test_nothing_is_said_before_the_run_knows_what_it_looks_for(told):
    assert told(trunk()).standing.outlook() is None


def test_from_the_first_moment_every_line_is_there(told):
    run = told(trunk(), scratch(), after(0, None), after(0), after(2, None), after(2))
    run.begin()
    assert run.lines == ["trunk  coming", "scratch efcn  coming", "efcn  0  coming  coming", "efcn  2  coming  coming"]
    assert run.standing.outlook().content.headings == ["network", "t_w", "start", "train", "test", "", "continued"]


def test_a_line_says_what_is_known_by_now(told):
    """How far it is, the score at its start and the latest ones; then the results, and the mark of the best."""
    run = told(trunk(), after(0, None), after(0))
    run.begin()
    run.train(trunk(), 200, train_accuracy=40.0, test_accuracy=35.0)
    assert run.lines[0] == "trunk  10.0  40.0  35.0  50 %"
    run.train(trunk(), 240, train_accuracy=50.0)
    assert run.lines[0] == "trunk  10.0  50.0  35.0  60 %"
    run.train(trunk(), 400, train_accuracy=60.0)
    assert run.lines[0] == "trunk  10.0  60.0  35.0  measuring"
    run.end(trunk(), "train 99.0 %, test 70.0 %", result(trunk(), 70.0))
    assert run.lines == ["trunk  10.0  99.0  70.0", "efcn  0  coming  coming"]
    run.train(after(0, None), 100)
    assert run.lines[1] == "efcn  0  coming  25 %"
    run.end(after(0, None), "train 99.0 %", result(after(0, None), 71.0))
    run.end(after(0), "train 99.0 %", result(after(0), 72.0, off_local=0.25))
    assert run.lines[1] == "efcn  0  10.0  99.0  72.0  *  71.0  0.2500"


def test_at_the_end_it_is_the_table_that_is_printed(told):
    segments = [trunk(), scratch(), after(0, None), after(0), after(2, None), after(2)]
    run = told(*segments)
    run.begin()
    for number, segment in enumerate(segments):
        run.end(segment, "train 99.0 %", result(segment, 70.0 + number, off_local=0.5))
    final = Results(path=Path("x"), data="d", model="m", status="finished", segments=tuple(run.done), headlines={"delta": ["off_local"]})
    assert run.standing.outlook().content == final.table().content


def test_what_was_there_before_is_filled_in_from_the_first_moment(told):
    run = told(trunk(), after(0))
    run.begin((trunk(), result(trunk(), 70.0)))
    assert run.lines == ["trunk  10.0  99.0  70.0", "efcn  0  coming"]


def test_what_is_there_and_measured_once_more_keeps_its_numbers(told):
    run = told(trunk())
    run.done.append(result(trunk(), 70.0))
    run.begin()
    assert run.lines == ["trunk  10.0  99.0  70.0  to be completed"]
    run.pace.elsewhere(trunk())
    assert run.lines == ["trunk  10.0  99.0  70.0  being completed"]


def test_of_several_seeds_those_that_have_ended_count(told):
    run = told(trunk(0), trunk(1), trunk(2))
    run.begin()
    run.train(trunk(0), 100, train_accuracy=40.0)
    assert run.lines == ["trunk  10.0  40.0  0/3 seeds, 25 %"]
    run.end(trunk(0), "train 99.0 %", result(trunk(0), 70.0))
    assert run.lines == ["trunk  10.0  99.0  70.0  1/3 seeds"]
    run.train(trunk(1), 200, train_accuracy=40.0)
    assert run.lines == ["trunk  10.0  99.0  70.0  1/3 seeds, 50 %"]
    run.end(trunk(1), "failed: no luck")
    assert run.lines == ["trunk  10.0  99.0  70.0  1/3 seeds, 1 failed"]
    run.end(trunk(2), "train 99.0 %", result(trunk(2), 72.0))
    assert run.lines == ["trunk  10.0 ± 0.0  99.0 ± 0.0  71.0 ± 1.4  2/3 seeds, 1 failed"]


def test_what_failed_and_what_is_skipped_stay_in_sight(told):
    run = told(trunk(), after(0, None), after(0))
    run.begin()
    run.end(trunk(), "failed: no luck")
    run.end(after(0, None), "skipped: trunk, seed 0 did not get there")
    run.end(after(0), "skipped: trunk, seed 0 did not get there")
    assert run.lines == ["trunk  failed", "efcn  0  skipped  skipped"]


def test_how_long_it_takes_is_said_once_that_is_known(told):
    run = told(trunk(), after(0), after(2))
    run.begin()
    run.train(trunk(), 200, seconds=0.1)
    assert run.lines == ["trunk  10.0  50 %, over 22 s", "efcn  0  coming, over 44 s", "efcn  2  coming, over 44 s"]


def test_only_branches_that_have_ended_are_the_best(told):
    run = told(trunk(), after(0), after(2))
    run.begin()
    run.end(after(0), "train 99.0 %", result(after(0), 72.0))
    run.train(after(2), 200, train_accuracy=99.0, test_accuracy=90.0)
    assert run.lines[1:] == ["efcn  0  10.0  99.0  72.0  *", "efcn  2  10.0  99.0  90.0  50 %"]


def test_segments_that_a_schedule_finds_have_lines_from_then_on(told):
    run = told(trunk())
    run.begin(searching=True)
    assert run.standing.outlook().notes == ["later: branches where the schedule finds a moment"]
    run.pace.planned([trunk(), after(2, None), after(2)])
    assert run.lines == ["trunk  coming", "efcn  2  coming  coming"]


def test_other_orders_of_batches_are_counted(told):
    run = told(trunk(), after(0), after(0, noise=1), after(0, noise=2))
    run.begin()
    assert run.lines == ["trunk  coming", "efcn  0  coming"]
    assert run.standing.outlook().notes == ["not among these: 2 of another order of batches that have not ended"]


class TestWindow:
    """Of many lines, those are shown that are worth most, in the order of the table."""

    @pytest.fixture
    def many(self, told):
        run = told(trunk(), *(after(epoch) for epoch in range(100)))
        run.begin((trunk(), result(trunk(), 70.0)))
        for epoch in range(40):
            run.end(after(epoch), "train 99.0 %", result(after(epoch), 60.0 + (epoch == 7)))
        run.train(after(40), 200)
        return run

    @staticmethod
    def shown(run, most):
        run.clock[0] += LOOKED_AT_EVERY
        content, rest = run.standing.outlook().window(most)
        return [line[1] or line[0] for line in content.lines], rest

    def test_what_goes_on_the_best_what_ended_last_and_what_comes_next(self, many):
        assert self.shown(many, 7) == (["trunk", "7", "38", "39", "40", "41", "42"], "and 94 more: 37 done, 57 coming")
        assert self.shown(many, 1) == (["40"], "and 100 more: 41 done, 59 coming")

    def test_the_best_keeps_its_mark(self, many):
        content, _ = many.standing.outlook().window(7)
        assert [content.lines[index][1] for index in content.best] == ["7"]

    def test_where_there_is_room_all_are_shown(self, many):
        assert self.shown(many, 101) == (["trunk", *map(str, range(100))], "")


class TestInATerminal:
    @pytest.fixture
    def screen(self, told):
        run = told(trunk(), scratch(), *(after(epoch, relaxation) for epoch in range(10) for relaxation in (None, "efcn")))

        def screen(width, height, below=2):
            console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
            table = StandingTable(run.standing, below=lambda: below)
            assert not table
            headlines = {"delta": ["off_local", "unshared", "norm"]}
            results = Results(path=Path("x"), data="d", model="m", status="running", segments=tuple(run.done), headlines=headlines)
            table.found(results, searching=False)
            console.print(table)
            return console.file.getvalue().splitlines()

        screen.run = run
        return screen

    def test_it_leaves_room_for_what_stands_below(self, screen):
        for height in range(5, 40):
            assert len(screen(80, height)) <= max(height - 3, 0)

    def test_columns_of_a_table_are_never_wider_than_the_terminal(self, screen):
        screen.run.end(scratch(), "train 99.0 %", result(scratch(), 70.0, off_local=0.5, unshared=0.5, norm=2.0))
        for width in (40, 60, 80):
            assert max(map(len, screen(width, 200))) <= width

    def test_where_it_is_low_the_first_columns_are_shown_of_some_lines(self, screen):
        screen.run.end(scratch(), "train 99.0 %", result(scratch(), 70.0, off_local=0.5, unshared=0.5, norm=2.0))
        lines = screen(60, 16)
        assert [line.split()[:2] for line in lines if line.split()[:1] == ["efcn"]] == [["efcn", str(epoch)] for epoch in range(6)]
        assert lines[-1] == "and 4 more: 4 coming"
        assert sum(line.split()[:1] == ["network"] for line in lines) == 1

    def test_where_it_is_high_all_columns_and_how_to_read_them(self, screen):
        screen.run.end(scratch(), "train 99.0 %", result(scratch(), 70.0, off_local=0.5, unshared=0.5, norm=2.0))
        lines = screen(60, 60)
        assert sum(line.split()[:1] == ["network"] for line in lines) == 2
        assert any(line.startswith("Test and training accuracy in %") for line in lines)


class TestComing:
    """What is coming, in one line."""

    def test_each_sort_is_named_once(self):
        segments = [trunk(), scratch(), *(after(epoch, relaxation) for epoch in (0, 3) for relaxation in (None, "efcn", "lcn"))]
        assert coming(segments) == (
            "coming: trunk; 2 branches of efcn at 0ep, 3ep; 2 branches of lcn at 0ep, 3ep; 2 continued; scratch efcn (8 segments, seed 0)"
        )

    def test_seeds_and_orders_of_batches_are_counted(self):
        segments = [trunk(0), after(0, seed=0), after(0, seed=0, noise=1), trunk(1), after(0, seed=1), after(0, seed=1, noise=1)]
        assert coming(segments) == "coming: trunk; 1 branch of efcn at 0ep (6 segments, 2 seeds, 2 orders of batches)"

    def test_of_many_moments_the_first_and_the_last_are_named(self):
        assert coming([after(epoch) for epoch in range(100)]) == (
            "coming: 100 branches of efcn at 0ep, 1ep, 2ep, 3ep, 4ep, 5ep, …, 99ep (100 segments, seed 0)"
        )

    def test_of_many_relaxations_the_first_are_named(self):
        text = coming([after(0, f"r{number}") for number in range(20)])
        assert text.endswith("1 branch of r15 at 0ep; 12 more sorts (20 segments, seed 0)")

    def test_what_a_schedule_may_find(self):
        assert coming([trunk()], searching=True) == "coming: trunk; branches where the schedule finds a moment (1 segment, seed 0)"

    def test_nothing(self):
        assert coming([]) == ""


class Watching(Silent):
    """Keeps what the table said whenever results were told."""

    def __init__(self):
        self.pace = Pace()
        self.standing = Standing(self.pace)
        self.tables = []

    def planned(self, segments):
        self.pace.planned(segments)

    def started(self, segment):
        self.pace.elsewhere(segment)

    def scored(self, segment, row):
        self.standing.scored(segment, row)

    def trained(self, segment, iteration, row):
        self.pace.trained(segment, iteration)

    def ended(self, segment, outcome, *, before=False):
        self.pace.end(segment, before=before)
        if not before:
            self.standing.ended(segment, outcome)

    def found(self, results, *, searching=False):
        self.standing.found(results, searching=searching)
        self.tables.append(self.standing.outlook())


class TestARun:
    @pytest.fixture
    def begun(self, small, tmp_path, clock):
        progress = Watching()
        return run(small(switch="at:0,2", control="continued"), out=tmp_path / "run", progress=progress), progress.tables

    def test_fills_from_what_is_coming_to_what_is_printed(self, begun):
        results, tables = begun
        assert [line[0:2] + line[5:7] for line in tables[0].content.lines] == [
            ["trunk", "", "coming", ""],
            ["efcn", "0", "coming", "coming"],
            ["efcn", "2", "coming", "coming"],
        ]
        assert [len(table.content.pending) for table in tables][::5] == [3, 0]
        assert tables[-1].content == results.table().content

    def test_that_grows_has_what_is_there(self, begun, small, tmp_path):
        results, _ = begun
        progress = Watching()
        run(small(relax="efcn,lcn", switch="at:0,2", control="continued"), out=results.path, progress=progress)
        first = progress.tables[0].content
        assert [line for line in first.lines if line[0] != "lcn"] == [*results.table().content.lines]
        assert [first.lines[index][:2] for index in first.pending] == [["lcn", "0"], ["lcn", "2"]]

    def test_whose_schedule_looks_for_moments_says_so_until_the_trunk_has_ended(self, small, tmp_path, clock):
        progress = Watching()
        config = small(switch="when:train_loss>0", options={"when": {"times": 1}}, control="none")
        run(config, out=tmp_path / "run", progress=progress)
        assert [bool(table.notes) for table in progress.tables] == [True, False, False]
        assert [[line[0] for line in table.content.lines] for table in progress.tables] == [["trunk"], ["trunk", "efcn"], ["trunk", "efcn"]]
