"""The relaxation ``monarch``: Monarch matrices are no linear space, and have a nearest one and tangents all the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core import drift, project, relax
from anarch_core.errors import NoEffectWarning, SurgeryError
from anarch_core.relaxation import Site, carry_optimizer_state
from anarch_monarch.dense import MonarchDense
from anarch_monarch.layers import MonarchLinear
from anarch_monarch.relaxation import MonarchRelaxation

SIZES = [(6, 4, 2), (4, 6, 2), (9, 9, 3), (5, 3, 1), (16, 16, 4)]
every_size = pytest.mark.parametrize(("inputs", "outputs", "blocks"), SIZES)


def lifted(inputs: int, outputs: int, blocks: int) -> tuple[MonarchLinear, MonarchDense]:
    torch.manual_seed(3)
    monarch = MonarchLinear(inputs, outputs, blocks).double()
    return monarch, MonarchDense(monarch)


def moved(layer: MonarchDense) -> MonarchDense:
    with torch.no_grad():
        layer.weight.add_(0.3 * torch.randn_like(layer.weight))
    return layer


@every_size
def test_a_monarch_matrix_is_two_block_diagonal_ones_and_a_permutation_between_them(inputs, outputs, blocks):
    monarch, _ = lifted(inputs, outputs, blocks)
    deal = torch.eye(blocks * blocks).double()[torch.arange(blocks * blocks).view(blocks, blocks).T.flatten()]
    back = torch.eye(outputs).double()[torch.arange(outputs).view(blocks, -1).T.flatten()]
    matrix = back @ torch.block_diag(*monarch.left) @ deal @ torch.block_diag(*monarch.right)
    torch.testing.assert_close(monarch.matrix(), matrix)
    x = torch.randn(3, inputs, dtype=torch.float64)
    torch.testing.assert_close(monarch(x), x @ matrix.T + monarch.bias)


@every_size
def test_factors_come_back_and_not_only_their_product(inputs, outputs, blocks):
    """Each block of a Monarch matrix is that of factors (c L, R / c) for any c."""
    monarch, layer = lifted(inputs, outputs, blocks)
    with torch.no_grad():
        layer.weight.mul_(4)
    back = layer.project()
    torch.testing.assert_close(back.left, 2 * monarch.left)
    torch.testing.assert_close(back.right, 2 * monarch.right)


def test_factors_of_blocks_that_are_zero_come_back():
    """One of them is zero, as in a low-rank adapter that was never trained; were both, they could not be trained."""
    monarch, _ = lifted(6, 4, 2)
    with torch.no_grad():
        monarch.left[0].zero_()
    back = MonarchDense(monarch).project()
    torch.testing.assert_close(back.left, monarch.left)
    torch.testing.assert_close(back.right, monarch.right)


@every_size
def test_no_monarch_matrix_is_nearer_than_the_projection(inputs, outputs, blocks):
    layer = moved(lifted(inputs, outputs, blocks)[1])
    back = layer.project()
    distance = (back.matrix() - layer.weight).square().sum()
    torch.testing.assert_close(float(distance.detach()), layer.drift().unshared)
    # Nothing is gained by moving its factors, nor by any others that alternating least squares finds.
    gradients = torch.autograd.grad(distance, [back.left, back.right])
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-12
    for _ in range(5):
        other = MonarchLinear(inputs, outputs, blocks).double()
        factors = torch.optim.LBFGS([other.left, other.right], max_iter=20, line_search_fn="strong_wolfe")

        def closure(other: MonarchLinear = other, factors: torch.optim.LBFGS = factors) -> torch.Tensor:
            factors.zero_grad()
            loss = (other.matrix() - layer.weight.detach()).square().sum()
            loss.backward()
            return loss

        factors.step(closure)
        assert (other.matrix() - layer.weight).square().sum() >= distance * (1 - 1e-9)


@every_size
def test_the_shared_part_of_a_tensor_is_what_motions_of_the_factors_reach(inputs, outputs, blocks):
    layer = moved(lifted(inputs, outputs, blocks)[1])
    back = layer.project()

    def matrix(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(back, {"left": left, "right": right}, (torch.eye(inputs, dtype=torch.float64),)).T

    tangents = torch.autograd.functional.jacobian(matrix, (back.left.detach(), back.right.detach()))
    basis = torch.cat([each.reshape(inputs * outputs, -1) for each in tangents], 1)
    projector = basis @ torch.linalg.pinv(basis, rtol=1e-10)
    tensor = torch.randn_like(layer.weight)
    shared, unshared, off_local = layer.split(tensor)
    torch.testing.assert_close(shared, (projector @ tensor.flatten()).view_as(tensor))
    torch.testing.assert_close(shared + unshared, tensor)
    assert not off_local.any()


@every_size
def test_the_shared_part_of_the_weight_is_the_nearest_monarch_matrix(inputs, outputs, blocks):
    layer = moved(lifted(inputs, outputs, blocks)[1])
    shared, unshared, _ = layer.split(layer.weight.detach())
    torch.testing.assert_close(shared, layer.project().matrix().detach())
    found = layer.drift(MonarchDense(lifted(inputs, outputs, blocks)[0]))
    assert found.shared == pytest.approx(float(shared.square().sum()))
    assert found.unshared == pytest.approx(float(unshared.square().sum()))
    assert found.reference == pytest.approx(float(lifted(inputs, outputs, blocks)[0].matrix().detach().square().sum()))
    assert found.moved > 0


def test_a_penalty_on_the_unshared_part_has_the_gradient_of_the_squared_distance():
    """The projector depends on the weight, but to first order its turning changes nothing."""
    layer = moved(lifted(6, 4, 2)[1])
    layer.weight.grad = None
    layer.split(layer.weight)[1].square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, 2 * layer.split(layer.weight)[1].detach())


def test_momentum_of_both_factors_is_that_of_the_matrix_as_far_as_they_can_tell():
    """One gradient of W gives those of L and R; carried back they are its part along the tangent space."""
    torch.manual_seed(0)
    model = nn.Sequential(MonarchLinear(9, 6, 3)).double()
    x = torch.randn(7, 9, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    model(x).square().sum().backward()
    optimizer.step()
    relaxed = relax(model, "monarch", example_input=x)
    heir = torch.optim.SGD(relaxed.model.parameters(), lr=0.0, momentum=0.9)
    fate = carry_optimizer_state(relaxed, optimizer, heir)
    assert set(fate.values()) == {"carried"}
    relaxed.model(x).square().sum().backward()
    expected = relaxed.model[0].split(relaxed.model[0].weight.grad)[0]
    torch.testing.assert_close(heir.state[relaxed.model[0].weight]["momentum_buffer"], expected)


def test_second_moments_are_of_the_size_of_the_matrix():
    torch.manual_seed(0)
    layer, steps = MonarchLinear(64, 64, 4).double(), 200
    square, ours = torch.zeros(64, 64, dtype=torch.float64), dict.fromkeys(("left", "right"), 0.0)
    for _ in range(steps):
        matrix = torch.randn(64, 64, dtype=torch.float64)  # gradients of independent entries
        gradients = torch.autograd.grad((layer.matrix() * matrix).sum(), [layer.left, layer.right])
        square += matrix.square() / steps
        ours = {name: ours[name] + gradient.square() / steps for name, gradient in zip(ours, gradients, strict=True)}
    site = Site(path="", module=layer, input_shape=(64,), output_shape=(64,))
    relaxation = MonarchRelaxation(None)
    found = sum(relaxation.transport(site, relaxation.lift(site), name, tensor, "square")["weight"] for name, tensor in ours.items())
    assert (found > 0).all()
    torch.testing.assert_close(found.mean(), square.mean(), rtol=0.1, atol=0)


def test_a_network_is_relaxed_trained_and_projected_by_name():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), MonarchLinear(6, 8, 2), nn.ReLU(), nn.Linear(8, 2)).double()
    x = torch.randn(3, 5, dtype=torch.float64)
    relaxed = relax(model, "monarch", example_input=x)
    assert relaxed.report.exact
    assert drift(relaxed.model).total.unshared < 1e-30
    relaxed.model(x).square().sum().backward()
    torch.optim.SGD(relaxed.model.parameters(), lr=0.1).step()
    assert drift(relaxed.model).total.unshared > 0
    assert [type(module).__name__ for module in project(relaxed.model)] == ["Linear", "ReLU", "MonarchLinear", "ReLU", "Linear"]


@pytest.mark.parametrize(("inputs", "outputs", "blocks"), [(4, 8, 4), (8, 4, 4)])
def test_where_any_matrix_is_a_monarch_matrix_there_is_nothing_to_relax(inputs, outputs, blocks):
    model = nn.Sequential(MonarchLinear(inputs, outputs, blocks))
    with pytest.warns(NoEffectWarning, match=r"any matrix is a Monarch matrix"):
        relax(model, "monarch", example_input=torch.zeros(1, inputs))


def test_what_computes_something_else_is_refused():
    class Scaled(MonarchLinear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    with pytest.raises(SurgeryError, match="it is a Scaled"):
        relax(nn.Sequential(Scaled(6, 4, 2)), "monarch", example_input=torch.zeros(1, 6))


def test_blocks_that_do_not_divide_are_told():
    with pytest.raises(ValueError, match="blocks must divide in_features = 6 and out_features = 4, and is 3"):
        MonarchLinear(6, 4, 3)
