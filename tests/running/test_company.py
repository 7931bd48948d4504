"""Probes meet the networks of other segments, and those that were kept on the way."""

from __future__ import annotations

import json
import os
import signal
import textwrap
from pathlib import Path

import attrs
import pytest

from anarch_core.config.run_config import RunConfig
from anarch_core.errors import RunError
from anarch_core.experiment.results import Results
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.records import ProbeInfo
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.running.progress import Silent
from anarch_core.running.runner import InterruptedRunError, run
from anarch_core.segment.execution import train_segment

PROBES = """
import torch
from anarch_core.probe import AbstractProbe, Measurement

def norm(network):
    return float(torch.cat([p.detach().double().reshape(-1) for p in network.parameters()]).norm())

class Meeting(AbstractProbe):
    needs = frozenset({"twin"})

    def measure(self, context):
        pairs = zip(context.model.parameters(), context.twin.parameters(), strict=True)
        apart = sum(float((a - b).double().square().sum()) for a, b in pairs) ** 0.5
        met = {name: norm(network) for name, network in context.others.items()}
        return Measurement(scalars={"apart": apart, "own": norm(context.model), **met})

class Walking(AbstractProbe):
    def measure(self, context):
        way = list(context.trajectory())
        return Measurement(scalars={"own": norm(context.model)}, details={"way": [[at, norm(network)] for at, network in way]})

class Comparing(AbstractProbe):
    needs = frozenset({"control", "sibling"})

    def measure(self, context):
        return Measurement(scalars={name: norm(network) for name, network in context.others.items()})
"""


@pytest.fixture
def registry(tmp_path, monkeypatch) -> Registry:
    (tmp_path / "meeting_probes.py").write_text(textwrap.dedent(PROBES))
    monkeypatch.syspath_prepend(tmp_path)
    infos = tuple(
        ProbeInfo(name=name.lower(), summary="Odd.", target=f"meeting_probes:{name}") for name in ("Meeting", "Walking", "Comparing")
    )
    plugin = PluginRecord(name="odd", module="odd", distribution="odd", version="1", status=Status.LOADED, error="", components=infos)
    return Registry((*get_registry().plugins, plugin))


@pytest.fixture
def asking(small):
    """Makes configurations with the probes of this file, which no installed plugin has."""

    def configuration(*, probe, probe_at="", **settings) -> RunConfig:
        return attrs.evolve(small(**settings), probe=probe, probe_at=probe_at or ())

    return configuration


class Listening(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


class Stopping(Silent):
    """Stops the run when a segment has taken so many steps."""

    def __init__(self, title: str, steps: int) -> None:
        self.title, self.steps = title, steps

    def trained(self, segment, iteration, row) -> None:
        if segment.title == self.title and iteration >= self.steps:
            os.kill(os.getpid(), signal.SIGTERM)


def by_title(results: Results) -> dict[tuple[str, float | None, int, int], object]:
    return {(one.relaxation or one.kind, one.switch_epoch, one.seed, one.noise): one for one in results.segments}


def content(path: Path) -> dict[str, object]:
    """All that segments left, without seconds and who holds them."""
    found: dict[str, object] = {}
    for file in sorted(path.glob("segments/**/*")):
        if file.is_file() and file.name not in (".lock", "result.json"):
            found[str(file.relative_to(path))] = file.read_bytes()
    for one in json.loads((path / "results.json").read_text())["segments"]:
        found[one["id"]] = {name: value for name, value in one.items() if name not in ("seconds", "machines")}
    return found


def test_a_twin_starts_from_the_same_network_and_meets_the_batches_in_another_order(asking, tmp_path, registry):
    config = asking(noise_seeds="0,1", switch="at:1", control="continued", probe="meeting")
    results = run(config, out=tmp_path / "run", registry=registry, progress="silent")
    found = by_title(results)
    for name in ("efcn", "continued"):
        one, other = found[name, 1.0, 0, 0], found[name, 1.0, 0, 1]
        assert one.start == other.start
        assert one.final != other.final
        scalars = other.scalars("meeting", "end")
        assert scalars["apart"] > 0
        assert abs(scalars["own"] - scalars["twin"]) <= scalars["apart"]
        assert not one.scalars("meeting", "end")
        assert one.probe_notes["meeting"]["end"] == "skipped: no twin here"


def test_probes_measure_between_start_and_end_and_are_given_the_way_there(asking, tmp_path, registry):
    config = asking(probe="walking", probe_at="3it,1", switch="at:0", control="none")
    results = run(config, out=tmp_path / "run", registry=registry, progress="silent")
    branch = by_title(results)["efcn", 0.0, 0, 0]
    assert list(branch.probes["walking"]) == ["start", "3it", "1ep", "end"]
    own = {at: scalars["own"] for at, scalars in branch.probes["walking"].items()}
    assert len(set(own.values())) == 4
    way = branch.details("walking", "end")["way"]
    assert way == [[0.75, own["3it"]], [1.0, own["1ep"]]]
    assert branch.details("walking", "3it")["way"] == way[:1]
    assert branch.details("walking", "start")["way"] == []


def test_moments_and_companions_that_are_asked_for_later_give_what_asking_at_once_gives(asking, tmp_path, registry):
    asked = {
        "seeds": "0,1",
        "noise_seeds": "0,1",
        "switch": "at:1",
        "control": "continued",
        "probe": "meeting,comparing,walking",
        "probe_at": "1",
    }
    little = {"seeds": "0", "switch": "at:1", "control": "none", "probe": "meeting,comparing"}
    run(asking(**asked), out=tmp_path / "once", registry=registry, progress="silent")
    run(asking(**little), out=tmp_path / "grown", registry=registry, progress="silent")
    run(asking(**asked), out=tmp_path / "grown", registry=registry, progress="silent")
    once, grown = content(tmp_path / "once"), content(tmp_path / "grown")
    assert grown.keys() == once.keys()
    assert [name for name in once if grown[name] != once[name]] == []
    # And asked for less again, the answer is that of less.
    answer = run(asking(**little), out=tmp_path / "grown", registry=registry, progress="silent")
    assert {at for one in answer.segments for moments in one.probes.values() for at in moments} <= {"start", "end"}


def test_a_stopped_run_goes_on_to_the_same(asking, tmp_path, registry):
    config = asking(noise_seeds="0,1", switch="at:1", control="continued", probe="meeting,walking", probe_at="1")
    run(config, out=tmp_path / "whole", registry=registry, progress="silent")
    with pytest.raises(InterruptedRunError):
        run(config, out=tmp_path / "run", registry=registry, progress=Stopping("efcn at 1ep, seed 0, noise 1", 4))
    run(config, out=tmp_path / "run", registry=registry, progress="silent")
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_a_companion_that_failed_keeps_nobody_waiting(asking, tmp_path, registry, monkeypatch):
    def failing(context, job, emit, stop):
        if job.segment.kind == "branch" and not job.segment.noise:
            msg = "no luck"
            raise RunError(msg)
        return train_segment(context, job, emit, stop)

    monkeypatch.setattr("anarch_core.segment.execution.train_segment", failing)
    config = asking(noise_seeds="0,1", switch="at:1", control="none", probe="meeting")
    results = run(config, out=tmp_path / "run", registry=registry, progress="silent")
    assert [failed.title for failed in results.failed.values()] == ["efcn at 1ep, seed 0"]
    assert by_title(results)["efcn", 1.0, 0, 1].probe_notes["meeting"]["end"] == "skipped: no twin here"
    monkeypatch.undo()
    mended = run(config, out=tmp_path / "run", registry=registry, progress="silent")
    assert by_title(mended)["efcn", 1.0, 0, 1].scalars("meeting", "end")["apart"] > 0


def test_a_run_says_which_probes_have_nobody_to_compare_with(asking, tmp_path, registry):
    telling = Listening()
    run(asking(switch="at:1", control="none", probe="meeting"), out=tmp_path / "run", registry=registry, progress=telling)
    assert [text for text in telling.said if "measures nothing" in text] == [
        "probe meeting measures nothing: it needs segments of another order of batches, and this run has one; add --noise-seeds 0,1"
    ]
