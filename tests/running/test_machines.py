"""A segment says which machines worked on it, one after the other."""

from __future__ import annotations

import importlib.util
import json
import os

import attrs
import pytest
import torch

from anarch_core.experiment import context
from anarch_core.experiment.machines import this_machine
from anarch_core.running.progress import Silent
from anarch_core.running.runner import InterruptedRunError, run
from anarch_core.segment import execution, retracing

INITIALISED = """
import hashlib, json
import torch
torch.manual_seed(0)
weight = torch.nn.Conv1d(16, 16, 5).weight.detach()
print(json.dumps([torch.backends.cpu.get_cpu_capability(), hashlib.sha256(weight.numpy().tobytes()).hexdigest()]))
"""


class Stopping(Silent):
    """Stops the run in the middle of a branch."""

    def trained(self, segment, iteration, row):
        if segment.kind == "branch" and iteration >= 4:
            os.kill(os.getpid(), 2)


@pytest.fixture
def on(monkeypatch):
    """What runs from now on is on a machine of that name."""

    def move(host, **changed):
        monkeypatch.setattr(context, "this_machine", lambda *what: attrs.evolve(this_machine(*what), host=host, **changed))

    return move


def machines(results):
    return {one.kind: [(machine.host, machine.did) for machine in one.machines] for one in results.segments}


def test_a_segment_that_goes_on_elsewhere_names_both_machines(small, tmp_path, on):
    config = small(control="none", switch="at:1")
    on("n1")
    with pytest.raises(InterruptedRunError):
        run(config, out=tmp_path / "run", progress=Stopping())
    on("n2")
    results = run(config, out=tmp_path / "run", progress="silent")
    assert machines(results) == {"trunk": [("n1", "trained")], "branch": [("n1", "trained"), ("n2", "trained")]}
    assert "n1, then n2" in repr(results.segments[-1])
    assert "kinds" not in repr(results)
    if importlib.util.find_spec("pandas") is not None:
        frame = results.to_dataframe()
        assert frame["hosts"].tolist() == ["n1", "n1, n2"]
        assert frame["machines"].nunique() == 1


def test_a_finished_segment_that_is_measured_elsewhere_says_so(small, tmp_path, on):
    config = small(control="none", switch="at:1")
    on("n1")
    run(config, out=tmp_path / "run", progress="silent")
    for host in ("n1", "n2", "n2"):
        on(host, gpu=None if host == "n1" else "H100")
        probes = ("weights",) if host == "n1" else ("weights", "delta")
        results = run(attrs.evolve(config, probe=probes), out=tmp_path / "run", progress="silent")
    assert machines(results) == {kind: [("n1", "trained"), ("n2", "completed")] for kind in ("trunk", "branch")}
    assert "Machines of 2 kinds worked on its segments (GPU: none, H100)" in " ".join(repr(results).split())


def test_a_network_that_cannot_be_made_again_elsewhere_is_refused_with_both_machines(small, tmp_path, on, monkeypatch):
    config = small(control="none", switch="at:1")
    on("n1", cpu="old")
    run(config, out=tmp_path / "run", progress="silent")
    on("n2", cpu="new")
    monkeypatch.setattr(retracing, "tensors_digest", lambda path: str(path))
    results = run(small(control="none", switch="at:1,2"), out=tmp_path / "run", progress="silent")
    [error] = [unfinished.error for unfinished in results.failed.values()]
    assert "it was trained on old (" in error
    assert ", and this is new (" in error


def test_a_state_that_an_earlier_version_saved_is_gone_on_with(small, tmp_path, monkeypatch):
    config = small(control="none", switch="at:1")
    to_json = execution.Notes.to_json
    monkeypatch.setattr(execution.Notes, "to_json", lambda notes: {k: v for k, v in to_json(notes).items() if k != "machines"})
    with pytest.raises(InterruptedRunError):
        run(config, out=tmp_path / "run", progress=Stopping())
    monkeypatch.undo()
    results = run(config, out=tmp_path / "run", progress="silent")
    assert [len(one.machines) for one in results.segments] == [1, 1]


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="there is nothing less than what this processor has")
def test_on_a_processor_with_other_instructions_even_the_initialisation_is_another(python):
    found = []
    for less in ({}, {"ATEN_CPU_CAPABILITY": "default"}):
        ended = python("-c", INITIALISED, environment={**os.environ, **less})
        assert ended.returncode == 0, ended.stderr
        found.append(json.loads(ended.stdout))
    (here, weights), (less, others) = found
    assert (here == less, weights == others) == (False, False)
