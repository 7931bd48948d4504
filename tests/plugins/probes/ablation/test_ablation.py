from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from anarch_core import project, relax
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.probe.base import ProbeContext
from anarch_core.training.evaluation import evaluate
from anarch_plugins.probes.ablation.options import AblationOptions
from anarch_plugins.probes.ablation.probe import AblationProbe, _random


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x, y = torch.randn(200, 1, 8), torch.randint(3, (200,))
    return TensorData(name="toy", x_train=x[:100], y_train=y[:100], x_test=x[100:], y_test=y[100:], classes=3)


@pytest.fixture
def cnn() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))


@pytest.fixture
def efcn(cnn: nn.Module, data: TensorData) -> nn.Module:
    """An eFCN that has moved off the convolutions in every direction."""
    model = relax(cnn, "efcn", example_input=data.x_train[:1]).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def measure(model: nn.Module, data: TensorData, **options):
    return AblationProbe(AblationOptions(**options)).measure(ProbeContext(model=model, data=data))


def test_at_the_switch_only_the_local_part_works(cnn, data) -> None:
    model = relax(cnn, "efcn", example_input=data.x_train[:1]).model
    scalars = measure(model, data).scalars
    for kept in ("full", "local", "shared", "not_unshared"):
        assert scalars[f"loss_{kept}"] == pytest.approx(evaluate(cnn, data.x_test, data.y_test).loss, rel=1e-5)
    assert scalars["loss_off_local"] != pytest.approx(scalars["loss_full"], rel=1e-3)


def test_shared_is_what_projecting_gives(efcn, data) -> None:
    expected = evaluate(project(efcn), data.x_test, data.y_test)
    scalars = measure(efcn, data).scalars
    assert scalars["loss_shared"] == pytest.approx(expected.loss, rel=1e-5)
    assert scalars["accuracy_shared"] == pytest.approx(expected.accuracy)


def test_local_and_off_local_are_masks_by_hand(efcn, data) -> None:
    scalars = measure(efcn, data, part="train").scalars
    for name, keep_local in (("local", True), ("off_local", False)):
        masked = copy.deepcopy(efcn)
        with torch.no_grad():
            for index, (inputs, outputs, taps, before) in {0: (8, 8, 3, 1), 2: (8, 6, 3, 0)}.items():
                weight = masked[index].weight
                for row in range(len(weight)):
                    for column in range(weight.shape[1]):
                        inside = 0 <= column % inputs - (row % outputs - before) < taps
                        if inside != keep_local:
                            weight[row, column] = 0
        assert scalars[f"loss_{name}"] == pytest.approx(evaluate(masked, data.x_train, data.y_train).loss, rel=1e-5)


def test_random_masks_keep_as_many_weights_in_each_row_as_the_receptive_field_has(efcn) -> None:
    masked = dict(_random(efcn, torch.Generator().manual_seed(0)))
    assert set(masked) == {"0.weight", "2.weight"}
    ends_see_two_pixels = [2, 3, 3, 3, 3, 3, 3, 2] * 2
    assert (masked["0.weight"] != 0).sum(1).tolist() == ends_see_two_pixels
    assert (masked["2.weight"] != 0).sum(1).tolist() == [6] * 18
    kept = masked["0.weight"] != 0
    assert torch.equal(masked["0.weight"][kept], efcn[0].weight[kept])


def test_same_seed_same_masks_and_the_network_untouched(efcn, data) -> None:
    before = copy.deepcopy(efcn.state_dict())
    efcn.train()
    first, second = measure(efcn, data), measure(efcn, data)
    assert dict(first.scalars) == dict(second.scalars)
    assert len(first.details["random"]["accuracies"]) == 3
    assert efcn.training
    for name, tensor in efcn.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_refuses_what_it_cannot_do(cnn, efcn, data) -> None:
    with pytest.raises(ProbeError, match="needs relaxed layers, and this Sequential has none"):
        measure(cnn, data)
    with pytest.raises(ProbeError, match="needs validation data, and the data set 'toy' has none"):
        measure(efcn, data, part="validation")
