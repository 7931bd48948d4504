"""The time that the protocol is given decides how many of its switch times it takes."""

from __future__ import annotations

import attrs
import pytest

from anarch_core.planning.plan import plan_run
from anarch_core.running.runner import run
from tests.gpu.protocol import BEGINNING, CAUTION, SEGMENT, chosen, keep, needed


@pytest.fixture(scope="module")
def plan(small):
    """Four switch times of steps that take a second in one network and two in the other, four an epoch."""
    found = plan_run(small(switch="at:0,1,2,3", control="continued,scratch"), timed=False)
    networks = [attrs.evolve(network, step_seconds=seconds) for network, seconds in zip(found.networks, (1.0, 2.0), strict=True)]
    return attrs.evolve(found, networks=tuple(networks))


def test_what_is_needed_is_that_of_the_segments_that_are_left(plan):
    every, two = needed(plan, [0, 1, 2, 3]), needed(plan, [0, 3])
    branches = 2 * (8 * 1.0 + 8 * 2.0)  # two epochs of four steps, continued and relaxed, twice
    scoring = 2 * 2 * (1.0 + 2.0) * (40 + 20) / 3 / 10
    assert every - two == pytest.approx(branches + scoring + 4 * SEGMENT)
    assert two > BEGINNING


def test_as_many_as_fit_evenly_and_with_both_ends(plan):
    assert chosen(plan, 1e9) == [0, 1, 2, 3]
    three = needed(plan, [0, 2, 3]) / CAUTION
    assert chosen(plan, three) == [0, 2, 3]
    assert chosen(plan, three - 0.1) == [0, 3]
    assert chosen(plan, 1.0) == [0, 3]


def test_what_is_kept_of_a_run(small, one_figure, tmp_path, capsys):
    run(small(control="none", switch="at:0", epochs=1, branch_epochs=1), out=tmp_path / "run", progress="silent")
    (tmp_path / "kept").mkdir()
    keep(tmp_path / "run", tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"results.json", "run.json", "report.html", "figures.tar.gz"}
    assert "efcn" in capsys.readouterr().out
