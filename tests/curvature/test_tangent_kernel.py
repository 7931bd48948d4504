"""The tangent kernel against closed forms and against dense Jacobians by torch.func."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from anarch_core.curvature import centred_alignment, effective_rank, kernel_distance, tangent_kernel
from anarch_core.errors import ProbeError


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def by_jacobian(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """``J J'`` with the trace over outputs, in evaluation mode."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    trained = {name: parameters[name] for name, parameter in model.named_parameters() if parameter.requires_grad}
    mode = model.training
    model.eval()
    with sdpa_kernel(SDPBackend.MATH):
        jacobian = jacrev(lambda some: functional_call(model, {**parameters, **some}, (inputs,)).flatten(1))(trained)
    model.train(mode)
    rows = torch.cat([tensor.flatten(2) for tensor in jacobian.values()], 2).flatten(1)
    return rows @ rows.T


def linear_in(given: torch.Tensor, slopes: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a linear layer contributes, weight and bias."""
    return {"whole": (slopes @ slopes.T) * (given @ given.T + 1)}


def test_of_a_linear_network_it_is_that_of_the_inputs() -> None:
    x = torch.randn(6, 5).double()
    found = tangent_kernel(nn.Linear(5, 3, bias=False).double(), x)
    torch.testing.assert_close(found.whole, 3 * x @ x.T, rtol=1e-12, atol=1e-12)
    assert found.outputs == 3
    assert found.layers == {"": {"whole": pytest.approx(3 * float(x.square().sum()))}}


def test_of_two_linear_layers_it_is_the_closed_form() -> None:
    x = torch.randn(6, 5).double()
    model = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Linear(4, 3, bias=False)).double()
    first, second = (layer.weight.detach() for layer in model)
    hidden = x @ first.T
    expected = 3 * hidden @ hidden.T + second.square().sum() * x @ x.T
    torch.testing.assert_close(tangent_kernel(model, x).whole, expected, rtol=1e-12, atol=1e-12)
    assert tangent_kernel(model, x).by_rows == ("0", "1")


@pytest.mark.parametrize("budget", [2**26, 200, 1])
def test_any_network_is_that_of_its_jacobian_whatever_is_held_at_once(budget) -> None:
    attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.5)
    model = nn.Sequential(nn.Linear(3, 4), attention, nn.Flatten(), nn.Linear(20, 2)).double()
    model[0].weight.requires_grad_(False)
    x = torch.randn(5, 5, 3).double()
    found = tangent_kernel(model, x, budget=budget)
    torch.testing.assert_close(found.whole, by_jacobian(model, x), rtol=1e-10, atol=1e-10)
    assert sum(layer["whole"] for layer in found.layers.values()) == pytest.approx(float(found.whole.trace()), rel=1e-12)


def test_layers_that_say_what_they_contribute_give_what_rows_give() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x = torch.randn(6, 5).double()
    found = tangent_kernel(model, x, layers={"0": linear_in, "4": linear_in})
    torch.testing.assert_close(found.whole, by_jacobian(model, x), rtol=1e-11, atol=1e-11)
    assert found.by_rows == ("2",)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(self.inner(x).relu()))


class Beside(Twice):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(x).relu() @ self.inner.weight)


class Tied(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(4, 4)
        self.other.weight = self.inner.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.other(self.inner(x).relu()))


class Turned(Twice):
    """Its layer sees tokens before samples."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(x.view(-1, 2, 2).movedim(1, 0).repeat(1, 1, 2)).movedim(0, 1).sum(1))


class Recomputed(Twice):
    """Its layer is called again while gradients are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(checkpoint(self.inner, self.first(x).sin(), use_reentrant=False).relu())


@pytest.mark.parametrize("kind", [Twice, Beside, Tied, Turned, Recomputed])
def test_what_a_layer_says_counts_only_where_it_is_all_that_its_parameters_do(kind) -> None:
    model = kind().double()
    x = torch.randn(2, 4).double()
    rows = tangent_kernel(model, x)
    found = tangent_kernel(model, x, layers=dict.fromkeys(["first", "inner", "head"][kind is not Recomputed :], linear_in))
    torch.testing.assert_close(found.whole, rows.whole, rtol=1e-11, atol=1e-11)
    assert "inner" in found.by_rows
    if kind is not Recomputed:  # torch.func has no checkpoints
        torch.testing.assert_close(rows.whole, by_jacobian(model, x), rtol=1e-11, atol=1e-11)


def test_the_network_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tangent_kernel(model, torch.randn(5, 4), layers={"0": linear_in})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not model[0]._forward_hooks
    assert not model[0]._forward_pre_hooks


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(4, 2).half(), "float16; convert the network"),
        (nn.Linear(4, 2).requires_grad_(False), "set requires_grad"),
        (nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2, track_running_stats=False)), "1: batch norm .* mixes the samples"),
    ],
)
def test_what_it_cannot_tell_is_refused(model, message) -> None:
    with pytest.raises(ProbeError, match=message):
        tangent_kernel(model, torch.randn(4, 4))


def test_outputs_that_hang_on_nothing_are_refused() -> None:
    class Cut(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).detach()

    with pytest.raises(ProbeError, match="autograd sees no way"):
        tangent_kernel(Cut(4, 2), torch.randn(3, 4))
    with pytest.raises(ProbeError, match="at least two samples, got 1"):
        tangent_kernel(nn.Linear(4, 2), torch.randn(1, 4))


def test_alignment_is_one_with_the_labels_themselves_at_any_scale() -> None:
    labels = nn.functional.one_hot(torch.tensor([0, 1, 2, 0, 1, 2])).double()
    ideal = labels @ labels.T
    assert centred_alignment(7 * ideal + 3, ideal) == pytest.approx(1, abs=1e-14), "a constant is centred away"
    some = torch.randn(6, 4).double()
    kernel = some @ some.T
    assert 0 < centred_alignment(kernel, ideal) < 1
    assert centred_alignment(1e-6 * kernel, ideal) == pytest.approx(centred_alignment(kernel, ideal), rel=1e-12)
    middle = torch.eye(6).double() - 1 / 6
    left, right = middle @ kernel @ middle, middle @ ideal @ middle
    expected = float((left * right).sum() / (left.norm() * right.norm()))
    assert centred_alignment(kernel, ideal) == pytest.approx(expected, rel=1e-12)
    assert centred_alignment(torch.ones(6, 6).double(), ideal) is None, "nothing is left of it"


def test_kernels_are_as_far_apart_as_their_directions() -> None:
    one, other = torch.diag(torch.tensor([1.0, 0.0])).double(), torch.diag(torch.tensor([0.0, 5.0])).double()
    assert kernel_distance(one, 3 * one) == 0
    assert kernel_distance(one, other) == 1
    assert kernel_distance(one, one + other / 5) == pytest.approx(1 - 0.5**0.5)
    assert kernel_distance(one, 0 * one) is None


def test_the_effective_rank_counts_equal_values() -> None:
    assert effective_rank(torch.tensor([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3)
    assert effective_rank(torch.tensor([1.0, -1e-18])) == pytest.approx(1)
    assert effective_rank(torch.zeros(3)) is None
