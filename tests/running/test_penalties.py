"""What a run makes of penalties: in which segments, in the history, and after every stop."""

from __future__ import annotations

import attrs
import pytest

from anarch_core.config.run_config import RunConfig
from anarch_core.experiment.results import Results
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.planning.plan import plan_run
from anarch_core.running.progress import Silent
from anarch_core.running.runner import run
from anarch_core.segment.saving import SaveClock
from tests.running.test_training_settings import files, run_with_stops

PATH = {"path": ["efcn@1,conv@3"], "relax": (), "control": "continued"}
PENALTIES = {"penalty": "parts:20,bound:0.001", "options": {"parts": {"ramp": "linear"}, "bound": {"rate": 10.0}}}


@pytest.fixture(scope="module")
def plain(small, tmp_path_factory) -> Results:
    return run(small(**PATH, probe="delta"), out=tmp_path_factory.mktemp("plain"), progress="silent")


@pytest.fixture(scope="module")
def held(small, tmp_path_factory) -> Results:
    return run(small(**PATH, **PENALTIES, probe="delta"), out=tmp_path_factory.mktemp("held"), progress="silent")


def of(results: Results, kind: str, relaxation: str | None = None) -> SegmentResult:
    [one] = [each for each in results.segments if each.kind == kind and (relaxation is None or each.relaxation == relaxation)]
    return one


def test_a_run_that_is_stopped_anywhere_ends_in_the_same_bytes(small, held, tmp_path, monkeypatch):
    monkeypatch.setattr(SaveClock, "due", lambda self, every=None: True)
    assert run_with_stops(small(**PATH, **PENALTIES, probe="delta"), tmp_path / "stopped") >= 3
    assert files(tmp_path / "stopped") == files(held.path)


def test_relaxed_networks_are_drawn_to_the_constraints(plain, held):
    far, near = (of(results, "branch", "efcn").scalars("delta", "end")["off_local"] for results in (plain, held))
    assert near < 0.8 * far


def test_what_no_penalty_touches_is_as_it_was(plain, held):
    for kind in ("trunk", "continued"):
        one, other = of(plain, kind), of(held, kind)
        assert (one.id, one.history) == (other.id, other.history)
    assert not any("parts" in column for column in of(held, "branch", "efcn>conv").history[-1])


def test_the_history_says_what_was_added(held):
    start, *rows = of(held, "branch", "efcn").history
    assert not any(column.startswith(("parts.", "bound.")) for column in start)
    assert [row["parts.weight"] for row in rows] == sorted(row["parts.weight"] for row in rows)
    assert rows[-1]["parts.weight"] == 20.0
    assert rows[-1]["bound.multiplier"] >= rows[-1]["bound.mean_multiplier"] > 0
    delta = of(held, "branch", "efcn").scalars("delta", "end")
    assert rows[-1]["parts.off_local"] == pytest.approx(delta["off_local"], rel=1e-4)
    assert rows[-1]["parts.unshared"] == pytest.approx(delta["unshared"], rel=1e-4)


class Listening(Silent):
    """Keeps the lines that a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_penalty_that_has_nothing_to_hold_is_said_once(small, tmp_path):
    config: RunConfig = attrs.evolve(small(relax=(), control="continued", switch="at:1", epochs=1), penalty="parts")
    listening = Listening()
    run(config, out=tmp_path / "run", progress=listening)
    line = "penalty parts adds nothing: it holds relaxed layers, and this run has none; add --relax or --path"
    assert listening.lines.count(line) == 1
    assert plan_run(config, timed=False).notes == (line,)


def test_a_penalty_that_never_added_anything_is_said_once(small, tmp_path):
    options = {"parts": {"of": "off-local"}, "bound": {"bound": 0.0}}
    config = small(relax="efcn,lcn", control="none", switch="at:1,2", epochs=2, penalty="parts,bound", options=options)
    listening = Listening()
    run(config, out=tmp_path / "run", progress=listening)
    said = [line for line in listening.lines if "added nothing" in line]
    assert said == ["penalty parts added nothing to the loss of lcn, from its first step to its last"]


def test_gradients_of_a_dense_layer_are_held_and_planned(small):
    config = small(relax="efcn", control="none", switch="at:1")
    plain, held = (plan_run(attrs.evolve(config, penalty=penalty), timed=False) for penalty in ((), ("parts",)))
    (constrained, before), (same, after) = (plan.networks for plan in (plain, held))
    assert constrained.footprint.training == same.footprint.training
    assert after.footprint.training.used > before.footprint.training.used


@pytest.mark.parametrize("options", [{"ramp": "linear"}, {"begins": "1it"}, {"weight": 0.0, "start": 1.0, "ramp": "cosine"}])
def test_a_term_that_is_not_there_at_the_first_step_or_the_last_is_planned_too(small, options):
    config = small(relax="lcn", control="none", switch="at:1")
    steps = {}
    for name, changes in (("plain", {}), ("always", {"weight": 1.0}), ("at times", options)):
        asked = attrs.evolve(config, penalty=("parts",) if changes else (), options={"parts": changes} if changes else {})
        steps[name] = plan_run(asked, timed=False).networks[1].footprint.training.used
    assert steps["plain"] < 0.9 * steps["always"]
    assert steps["at times"] == pytest.approx(steps["always"], rel=0.02)
