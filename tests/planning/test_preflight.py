"""Before anything is trained: networks that give something else than finite logits are told in one line, in either mode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import torch

from anarch_core.config.resolution import resolve
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError
from anarch_core.objective.outputs import require_outputs
from anarch_core.planning.plan import plan_run
from anarch_core.running.runner import run

NETWORKS = """
import collections, dataclasses, math
import torch
from torch import nn

Outputs = collections.namedtuple("Outputs", ("logits", "aux_logits"))

@dataclasses.dataclass
class Record:
    logits: torch.Tensor
    hidden: torch.Tensor

class Network(nn.Module):
    def __init__(self, classes, kind="logits", when="training", norm=False):
        super().__init__()
        self.head = nn.Linear(16, classes)
        self.norm = nn.BatchNorm1d(classes) if norm else nn.Identity()
        self.give, self.when = getattr(self, kind), when

    def forward(self, x):
        logits = self.norm(self.head(x.flatten(1)))
        return self.give(logits) if self.training == (self.when == "training") else logits

    def logits(self, logits): return logits
    def named(self, logits): return Outputs(logits, logits)
    def two(self, logits): return logits, logits
    def table(self, logits): return {"out": logits, "aux": logits}
    def record(self, logits): return Record(logits, logits)
    def nothing(self, logits): return None
    def wide(self, logits): return torch.cat([logits, logits], 1)
    def image(self, logits): return logits[:, :, None]
    def squeezed(self, logits): return logits.squeeze(0)
    def labels(self, logits): return logits.long()
    def infinite(self, logits): return logits / 0
    def certain(self, logits):  # the labels go 0, 1, 2, 0, 1, 2, ...: never the class after that of the place
        after = (torch.arange(3) - torch.arange(len(logits))[:, None] - 1) % 3 == 0
        return logits.masked_fill(after, -math.inf)
    def cut(self, logits): return logits.detach()
    def failing(self, logits): raise ValueError("no logits today" + chr(10) + "nor tomorrow")

def frozen(classes):
    return Network(classes).requires_grad_(False)

def normalised(classes):
    return Network(classes, norm=True)
"""

OF = "for {count} of shape (1, 16) in {mode} mode, expected a tensor of ({n}, 3); "
REFUSED = {
    "named": f"gives a Outputs (logits, aux_logits) {OF}switch auxiliary outputs off",
    "two": f"gives a tuple of 2 {OF}switch",
    "table": f"gives a dict (out, aux) {OF}switch",
    "record": f"gives a Record (logits, hidden) {OF}switch",
    "nothing": f"gives a NoneType {OF}switch",
    "wide": f"gives ({{n}}, 6) {OF}give its last layer as many outputs",
    "image": f"gives ({{n}}, 3, 1) {OF}let it end in one number",
    "labels": f"gives ({{n}}, 3) of int64 {OF}let it give scores",
    "failing": "no logits today",
}


@pytest.fixture
def networks(module_of: Callable[[str], str]) -> str:
    """Name of a module in the working directory."""
    return module_of(NETWORKS)


def configuration(signals: Path, model: str, *, batch_size: int = 10, **options: object) -> RunConfig:
    settings = {"data": f"tensors:{signals}", "model": model, "batch_size": batch_size, "epochs": 1, "jobs": 1, "device": "cpu"}
    return resolve({**settings, "options": {model: options} if options else {}})


def refusal(signals: Path, model: str, **settings: object) -> str:
    """Why a run does not start, told alike by its plan; it leaves nothing behind."""
    config = configuration(signals, model, **settings)
    with pytest.raises(ConfigError) as caught:
        run(config, out="out", progress="silent")
    assert not Path("out/segments").exists()
    message = str(caught.value)
    assert "\n" not in message
    assert planned(config) == message
    return message


def planned(config: RunConfig, *, timed: bool = True) -> str | None:
    try:
        return plan_run(config, timed=timed).refusal
    except ConfigError as error:  # a network that fails in evaluation mode fails as soon as it is built
        return str(error)


@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_row_of_logits_is_told_in_one_line(signals, networks, kind, mode) -> None:
    count, n = ("10 inputs", 10) if mode == "training" else ("two inputs", 2)
    message = refusal(signals, f"{networks}:Network", kind=kind, when=mode)
    assert REFUSED[kind].format(count=count, n=n, mode=mode) in message


@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_numbers_that_are_not_finite_before_anything_is_trained(signals, networks, mode) -> None:
    samples = 10 if mode == "training" else 2
    message = refusal(signals, f"{networks}:Network", kind="infinite", when=mode)
    assert f"numbers whose loss is not finite for {samples} of {samples} inputs in {mode} mode, and nothing was trained yet" in message


def test_a_class_may_be_ruled_out(signals, networks) -> None:
    assert planned(configuration(signals, f"{networks}:Network", kind="certain"), timed=False) is None


@pytest.mark.parametrize(("factory", "options"), [("Network", {"kind": "cut"}), ("frozen", {})])
def test_outputs_that_no_parameter_leads_to(signals, networks, factory, options) -> None:
    assert "depend on no parameter that requires a gradient" in refusal(signals, f"{networks}:{factory}", **options)


def test_a_last_batch_of_one_sample_is_tried(signals, networks) -> None:
    """Batch norm takes no single sample, and 39 is one less than the training samples."""
    message = refusal(signals, f"{networks}:normalised", batch_size=39)
    assert "with a batch of 1: Expected more than 1 value per channel when training" in message
    message = refusal(signals, f"{networks}:Network", batch_size=39, kind="squeezed")
    assert "gives (3,) for one input" in message


def test_a_learning_rate_that_is_too_large_is_no_fault_of_the_network(signals, networks) -> None:
    config = attrs.evolve(configuration(signals, f"{networks}:Network", batch_size=27), lr=1e6)
    assert planned(config, timed=False) is None


def test_a_single_sample_that_is_left_over_is_evaluated(signals, networks, monkeypatch) -> None:
    monkeypatch.setattr("anarch_core.planning.preflight.EVALUATED", 19)  # 40 training samples, 20 test samples
    assert "gives (3,) for one input of shape (1, 16) in evaluation mode" in refusal(
        signals, f"{networks}:Network", kind="squeezed", when="evaluation"
    )


def test_auxiliary_heads_of_torchvision() -> None:
    """What its factories give in training mode unless they are told otherwise."""
    torchvision = pytest.importorskip("torchvision", exc_type=Exception)
    outputs = torchvision.models.GoogLeNetOutputs(*[torch.zeros(2, 10)] * 3)
    with pytest.raises(
        ConfigError, match=r"gives a GoogLeNetOutputs \(logits, aux_logits2, aux_logits1\) for two inputs.*aux_logits=False"
    ):
        require_outputs(outputs, 2, (1000,), "the network GoogLeNet", "two inputs in training mode")
