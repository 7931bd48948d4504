"""What the chains walk on is the training loss, by coordinates in which networks compare."""

from __future__ import annotations

import functools

import langevin
import learning_coefficient
import pytest
import torch
from learning_coefficient import Choice, Landscape, along_the_slope
from torch import nn
from torch.func import functional_call, grad, jacrev

from anarch_core import relax
from anarch_core.data import TensorData


@pytest.fixture
def data() -> TensorData:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 1, 6, generator=generator), torch.arange(24) % 3
    return TensorData(name="toy", x_train=x, y_train=y, x_test=x, y_test=y, classes=3)


@pytest.fixture
def cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)).eval()


def test_a_cnn_and_its_efcn_are_as_steep_along_what_they_share(cnn, data) -> None:
    efcn = relax(cnn, "efcn", example_input=data.x_train[:1]).model.eval()
    start = torch.zeros(1, 1000, dtype=torch.float64)
    narrow, wide = Landscape(cnn, data), Landscape(efcn, data)
    (loss, slope), (loss_wide, slope_wide) = narrow.whole(start[:, : narrow.risk.size]), wide.whole(start[:, : wide.risk.size])
    torch.testing.assert_close(loss, loss_wide)
    parts = learning_coefficient.ParameterParts.of(efcn, data.x_train[:1])
    shared = parts.project(wide.risk.named_views(slope_wide[0].float()), "shared")
    torch.testing.assert_close(sum(part.square().sum() for part in shared.values()), slope.square().sum().float())


def test_moving_and_coming_back_leaves_the_network_as_it_was(cnn, data) -> None:
    before = {name: tensor.clone() for name, tensor in cnn.state_dict().items()}
    landscape = Landscape(cnn, data)
    there = torch.ones(2, landscape.risk.size, dtype=torch.float64)
    losses, _ = landscape.whole(there)
    assert losses[0] == losses[1] != landscape.risk.value()
    for potential in (landscape.whole, landscape.by_batches(5)):
        potential(there)
        assert all(torch.equal(tensor, before[name]) for name, tensor in cnn.state_dict().items())


def test_gradients_of_batches_are_right_on_average(cnn, data) -> None:
    landscape = Landscape(cnn, data)
    place = torch.zeros(1, landscape.risk.size, dtype=torch.float64)
    potential = landscape.by_batches(8)
    losses, slopes = zip(*(potential(place) for _ in range(100)), strict=True)
    loss, slope = landscape.whole(place)
    assert all(float(each) == pytest.approx(float(loss), rel=1e-5) for each in losses)
    found = torch.cat(slopes)
    assert float((found.mean(0) - slope[0]).abs().max()) < 5 * float(found.std(0).max()) / 10


def test_what_a_slope_takes_away_is_found_without_the_matrix(cnn, data) -> None:
    landscape = Landscape(cnn, data)
    values, components, norm = along_the_slope(landscape)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(functional_call(cnn, landscape.risk.named_views(flat), (data.x_train,)), data.y_train)

    dense = landscape.scale[:, None] * jacrev(grad(loss))(landscape.weights) * landscape.scale
    curvatures, vectors = torch.linalg.eigh(dense.double())
    slopes = vectors.T @ landscape.whole(torch.zeros(1, landscape.risk.size, dtype=torch.float64))[1][0]
    assert norm == pytest.approx(float(slopes.norm()), rel=1e-5)
    expected = langevin.sloping(curvatures, slopes, landscape.strength, 20.0)
    assert langevin.sloping(values, components, landscape.strength, 20.0) == pytest.approx(expected, rel=1e-3)


def test_tables_tell_of_networks(cnn, data) -> None:
    landscape = Landscape(cnn, data)
    states, scales = learning_coefficient.minima({"a network": landscape})
    found = learning_coefficient.corrected("a network", landscape, 20, (1000.0,))
    free = learning_coefficient.uncorrected("a network", landscape, [Choice(1000, 1e-4, 20, 20), Choice(1000, 1e-4, 2, 4, 6)])
    assert [len(table.rows) for table in (states, scales, found, free)] == [1, 1, 1, 2]
    assert states.rows[0][1] == "47"
    expected = pytest.approx(float(scales.rows[0][3].split()[0]), rel=0.5)
    assert float(found.rows[0][1].split()[0]) == expected
    assert float(free.rows[0][1].split()[0]) == expected
    assert [found.rows[0][-1][:5], free.rows[1][-1][:5]] == ["62 in", "12 in"]


def test_known_answers_are_told_beside_what_was_found(monkeypatch) -> None:
    few = functools.partial(langevin.Sampling)
    monkeypatch.setattr(learning_coefficient, "LINEAR", [((2, 2, 2), 1)])
    monkeypatch.setattr(learning_coefficient, "Sampling", lambda **how: few(**(how | {"burn_in": 20, "steps": 40})))
    regular, linear = learning_coefficient.known()
    assert [row[1] for row in linear.rows] == ["2.000", "2.000"]
    assert len({row[1] for row in regular.rows[:5]}) == 1
