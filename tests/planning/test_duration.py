"""The time of a run is that of its tree on a number of processes."""

from __future__ import annotations

import pytest

from anarch_core.config.run_config import RunConfig
from anarch_core.experiment.tree import tree
from anarch_core.planning.duration import AS_GOOD, by_jobs, longest_way, run_seconds
from anarch_core.plugin.registry import get_registry
from anarch_core.schedule import Clock, Moment

SAMPLES = {"train": 300, "test": 0}
"""Three steps of an epoch; an evaluation takes as long as one step."""

CLOCK = Clock(epochs=4, iterations_per_epoch=3)


def segments(*moments, control=(), seeds=(0,)):
    config = RunConfig(model="cnn1d", relax="efcn", control=control or "none", epochs=4, branch_epochs=2, batch_size=100, seeds=seeds)
    return tree(config, CLOCK, dict.fromkeys(seeds, tuple(Moment(3 * moment, 3) for moment in moments)), get_registry())


def seconds(segments, jobs, *, relaxed=1.0, samples=SAMPLES):
    pace = {segment.id: relaxed if segment.relaxation else 1.0 for segment in segments}
    return run_seconds(segments, pace, samples=samples, jobs=jobs)


TRUNK, BRANCH = 1 + 12 + 1, 1 + 6 + 1


def test_one_process_takes_one_segment_after_the_other():
    assert seconds(segments(0, 2), 1) == TRUNK + 2 * BRANCH
    assert seconds(segments(0, 2), 1, relaxed=3.0) == TRUNK + 2 * 3 * BRANCH


def test_a_branch_waits_until_its_parent_is_there():
    assert seconds(segments(4), 8) == 1 + 12 + BRANCH
    assert seconds(segments(0), 8) == max(TRUNK, 1 + BRANCH)
    assert seconds(segments(2), 8, relaxed=2.0) == 1 + 6 + 2 * BRANCH


def test_processes_that_are_free_take_what_is_ready():
    assert seconds(segments(0, 4, seeds=(0, 1)), 8) == 1 + 12 + BRANCH
    assert seconds(segments(0, seeds=(0, 1)), 2) == TRUNK + BRANCH


@pytest.mark.parametrize("jobs", [1, 2, 3, 8])
def test_more_processes_are_never_quicker_than_all_the_work_and_the_longest_way(jobs):
    tree = segments(0, 1, 2, 4, control="continued,scratch", seeds=(0, 1))
    alone = seconds(tree, 1)
    assert alone / jobs <= seconds(tree, jobs) <= alone
    assert seconds(tree, jobs) >= 1 + 12 + BRANCH


def paths(segments, *, relaxed=1.0):
    """The longest way through a tree, and times by segments at once."""
    pace = {segment.id: relaxed if segment.relaxation else 1.0 for segment in segments}
    return longest_way(segments, pace, samples=SAMPLES), by_jobs(segments, pace, samples=SAMPLES)


def test_the_longest_way_through_the_tree_is_what_no_number_of_processes_shortens():
    tree = segments(0, 2, 4, seeds=(0, 1))
    (way, least), _ = paths(tree)
    assert [segment.title for segment in way] == ["trunk, seed 0", "efcn at 4ep, seed 0"]
    assert least == seconds(tree, len(tree)) == 1 + 12 + BRANCH
    (way, least), _ = paths(tree[:1])
    assert ([segment.title for segment in way], least) == (["trunk, seed 0"], TRUNK)


def test_times_are_told_for_twice_as_many_processes_until_more_are_of_no_use():
    tree = segments(0, 1, 2, 4, control="continued,scratch", seeds=(0, 1, 2))
    (_, least), times = paths(tree)
    assert list(times)[:3] == [1, 2, 4]
    assert all(times[jobs] == seconds(tree, jobs) for jobs in times)
    most = list(times)[-1]
    assert times[most] == pytest.approx(least, rel=AS_GOOD)
    assert seconds(tree, most - 1) > least * (1 + AS_GOOD)


def test_what_is_one_after_the_other_takes_as_long_on_one_process():
    assert paths(segments(4)[:1])[1] == {1: TRUNK}
    assert list(paths(segments(4), relaxed=100.0)[1]) == [1]


def test_a_part_that_is_held_out_is_evaluated_every_epoch():
    assert seconds(segments(0)[:1], 1, samples={**SAMPLES, "validation": 150}) == TRUNK + 4 * 0.5
