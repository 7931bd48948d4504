"""Whole runs on a card: every probe, captured and not, stopped and gone on with."""

from __future__ import annotations

import math

import pytest
import torch

from anarch_core.checkpoint.network import load
from anarch_core.experiment.results import Results
from anarch_core.running.runner import run
from anarch_core.segment.saving import SaveClock
from tests.gpu.built_in import built_in
from tests.running.test_training_settings import files, run_with_stops

FURTHER = {
    "stability": {"noise_seeds": "0,1"},
    "alignment": {"seeds": "0,1"},
    "cka": {"seeds": "0,1"},
    "sharpness": {"options": {"sharpness": {"pairs": 2, "starts": 1, "steps": 2}}},
}
"""What a run has to be for some probes to have something to measure."""


@pytest.fixture
def trained(small, device, tmp_path):
    """Runs a configuration on the device."""

    def run_(name="run", **settings):
        return run(small(**{"device": device.type, **settings}), out=tmp_path / name, progress="silent")

    return run_


@pytest.mark.parametrize("probe", sorted(built_in("probe")))
def test_every_probe_measures(trained, one_figure, probe):
    results = trained(probe=probe, switch="at:1", epochs=2, branch_epochs=1, **FURTHER.get(probe, {}))
    assert not results.failed
    found = [value for each in results.segments for moments in each.probes.get(probe, {}).values() for value in moments.values()]
    assert found or probe in ("filters", "weights")  # which draw
    assert all(value is None or math.isfinite(value) for value in found)


def test_a_run_that_is_stopped_anywhere_comes_to_the_same(small, device, tmp_path, monkeypatch, one_figure):
    """To the same bytes where kernels repeat theirs, as those of an efcn do, and on a processor all of them."""
    config = small(device=device.type, batch_size=12, switch="at:2", control="none")
    whole = run(config, out=tmp_path / "whole", progress="silent")
    monkeypatch.setattr(SaveClock, "due", lambda self, every=None: True)
    assert run_with_stops(config, tmp_path / "stopped") >= 2
    assert all(each.machines[0].captured for each in whole.segments)
    one, other = files(tmp_path / "whole"), files(tmp_path / "stopped")
    assert one.keys() == other.keys()
    if device.type == "cpu":
        assert one == other
    for segment, again in zip(whole.segments, Results.read(tmp_path / "stopped").segments, strict=True):
        networks = [load(tmp_path / name / "segments" / segment.id / "final.safetensors") for name in ("whole", "stopped")]
        for tensor, wanted in zip(networks[1].parameters(), networks[0].parameters(), strict=True):
            torch.testing.assert_close(tensor, wanted, rtol=1e-3, atol=1e-4)
        assert again.final.train_loss == pytest.approx(segment.final.train_loss, rel=1e-3)


@pytest.mark.parametrize(("optimizer", "options"), [("sgd", {}), ("sgd", {"sgd": {"momentum": 0.9}}), ("adam", {})], ids=str)
def test_a_captured_run_is_an_ordinary_one(trained, one_figure, optimizer, options):
    settings = {"relax": "efcn,lcn", "control": "none", "optimizer": optimizer, "options": options}
    captured, ordinary = (trained(capture, capture=capture, **settings) for capture in ("auto", "off"))
    assert all(each.machines[0].captured for each in captured.segments)
    assert not any(each.machines[0].captured for each in ordinary.segments)
    for one, other in zip(captured.segments, ordinary.segments, strict=True):
        assert one.id == other.id
        assert one.final.train_loss == pytest.approx(other.final.train_loss, rel=1e-3)


@pytest.mark.parametrize(("first", "then"), [("off", "auto"), ("auto", "auto")])
def test_a_trunk_is_trained_again_as_it_was_captured_or_not(trained, device, one_figure, first, then):
    """For a switch time that it had not kept its network of; to the same bytes, or it is refused."""
    settings = {"control": "none", "batch_size": 12, "relax": "efcn", "epochs": 3}
    trained(switch="at:1,3", capture=first, **settings)
    results = trained(switch="at:1,2,3", capture=then, **settings)
    if device.type == "cpu" or not results.failed:
        assert [each.switch_epoch for each in results.segments if each.kind == "branch"] == [1, 2, 3]
    trunk = next(each for each in results.segments if each.kind == "trunk")
    assert [machine.captured for machine in trunk.machines] == [first == "auto"]
