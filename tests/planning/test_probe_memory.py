"""A probe that is rehearsed before a run disturbs nothing, whatever it does, and says a number."""

from __future__ import annotations

import attrs
import pytest
import torch

from anarch_core.errors import PluginError
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.store import RunStore
from anarch_core.planning.footprint import footprints
from anarch_core.plugin.registry import get_registry
from anarch_core.probe.base import AbstractProbe, Measurement


class Disturbing(AbstractProbe):
    needs = frozenset({"data"})

    def __init__(self, do) -> None:
        self.do = do

    def measure(self, context) -> Measurement:
        self.do(context)
        return Measurement(scalars={})


@pytest.fixture
def context(small, tmp_path) -> RunContext:
    return RunContext.open(small(relax=(), control="none"), RunStore(tmp_path / "run"), get_registry())


def rehearsed(context: RunContext, probe: AbstractProbe) -> int:
    [found] = footprints(attrs.evolve(context, probes={"disturbing": probe}), ())
    return found.probes["disturbing"].used


@pytest.mark.parametrize(
    "do",
    [
        lambda context: torch.set_grad_enabled(False),
        lambda context: torch.set_default_dtype(torch.float64),
        lambda context: torch.set_float32_matmul_precision("medium"),
        lambda context: torch.manual_seed(7),
        lambda context: context.data.x_train.sub_(1),
        lambda context: context.data.x_train.numpy().fill(0),
        lambda context: exit(3),
    ],
)
def test_settings_random_state_and_data_are_as_they_were(context, do):
    before = torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.get_rng_state(), context.data.x_train.clone()
    assert rehearsed(context, Disturbing(do)) > 0
    after = torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.get_rng_state(), context.data.x_train
    assert torch.is_grad_enabled()
    assert after[:2] == before[:2]
    assert torch.equal(after[2], before[2])
    assert torch.equal(after[3], before[3])


def test_memory_that_is_no_number_is_refused_by_name(context):
    probe = Disturbing(lambda context: None)
    probe.memory = lambda rehearsal: "much"
    with pytest.raises(PluginError, match=r"Disturbing: memory\(\) gave a str, expected int or float"):
        rehearsed(context, probe)
