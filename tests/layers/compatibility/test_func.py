"""Relaxed layers under ``torch.func`` and forward-mode differentiation, against loops and ordinary gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vmap

from anarch_core.relaxation.verbs import relax

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # PyTorch's own, in forward mode


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def detached(network):
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


def called(network):
    return lambda parameters, x: functional_call(network, parameters, (x,))


def loss_of(network):
    return lambda parameters, x: functional_call(network, parameters, (x,)).pow(3).sum()


def directions(parameters):
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in parameters.items()}


@pytest.mark.row("`torch.func.vmap` over inputs")
def test_a_stack_of_batches(network, batch):
    stack = torch.stack([batch(3), batch(3) + 1], dim=1)
    close(vmap(network, in_dims=1)(stack), torch.stack([network(stack[:, 0]), network(stack[:, 1])]))


@pytest.mark.row("`torch.func.jvp`, `torch.autograd.forward_ad`")
def test_derivatives_along_a_direction(network, batch):
    parameters, x, along = detached(network), batch(3), batch(4)[:3]
    moved = directions(parameters)
    y, derivative = jvp(called(network), (parameters, x), (moved, along))
    close(y, network(x))
    columns, pull = torch.func.vjp(called(network), parameters, x)
    towards = torch.randn_like(columns)
    weights, inputs = pull(towards)
    close((towards * derivative).sum(), (inputs * along).sum() + sum((weights[name] * moved[name]).sum() for name in moved))
    with forward_ad.dual_level():
        dual = {name: forward_ad.make_dual(parameters[name], moved[name]) for name in moved}
        close(forward_ad.unpack_dual(called(network)(dual, forward_ad.make_dual(x, along))).tangent, derivative)


@pytest.mark.row("gradients of gradients")
def test_a_gradient_penalty(network, batch):
    x = batch(3).requires_grad_()
    (inputs,) = torch.autograd.grad(network(x).pow(3).sum(), x, create_graph=True)
    expected = torch.autograd.grad(inputs.square().sum(), list(network.parameters()))
    penalty = grad(lambda parameters, x: grad(loss_of(network), argnums=1)(parameters, x).square().sum())
    close(tuple(penalty(detached(network), x.detach()).values()), expected)


@pytest.mark.row("per-sample gradients, `vmap(grad(loss), in_dims=(None, 0, 0))`")
def test_gradients_of_every_sample(network, batch):
    def loss(parameters, x, y):
        return nn.functional.cross_entropy(functional_call(network, parameters, (x[None],)), y[None])

    x, y = batch(4), torch.tensor([0, 3, 7, 1])
    found = vmap(grad(loss), in_dims=(None, 0, 0))(detached(network), x, y)
    for sample in range(len(x)):
        alone = nn.functional.cross_entropy(network(x[sample : sample + 1]), y[sample : sample + 1])
        expected = torch.autograd.grad(alone, list(network.parameters()))
        close(tuple(values[sample] for values in found.values()), expected)


@pytest.mark.row("ensembles, `stack_module_state` and `vmap`")
@pytest.mark.parametrize("own_inputs", [False, True], ids=["the same inputs", "inputs of their own"])
def test_networks_at_once(network, batch, own_inputs):
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(-1.5)
    parameters, _ = stack_module_state([network, other])
    inputs = [batch(3), batch(4)[1:] if own_inputs else batch(3)]
    x, dims = (torch.stack(inputs), (0, 0)) if own_inputs else (inputs[0], (0, None))
    values, gradients = vmap(torch.func.grad_and_value(loss_of(network)), in_dims=dims)(parameters, x)[::-1]
    for number, (member, own) in enumerate(zip([network, other], inputs, strict=True)):
        alone = loss_of(member)(dict(member.named_parameters()), own)
        close(values[number], alone)
        close(tuple(each[number] for each in gradients.values()), torch.autograd.grad(alone, list(member.parameters())))


@pytest.mark.row("`torch.func.hessian`, products with it by `jvp(grad(loss))`")
def test_second_derivatives(network, batch):
    parameters, x = detached(network), batch(2)
    moved = directions(parameters)
    _, product = jvp(lambda each: grad(loss_of(network))(each, x), (parameters,), (moved,))
    leaves = list(network.parameters())
    first = torch.autograd.grad(loss_of(network)(dict(network.named_parameters()), x), leaves, create_graph=True)
    expected = torch.autograd.grad(sum((a * b).sum() for a, b in zip(first, moved.values(), strict=True)), leaves)
    close(tuple(product.values()), expected)

    last = "9.weight"
    matrix = hessian(lambda weight: loss_of(network)({**parameters, last: weight}, x))(parameters[last])
    alone = torch.autograd.functional.hessian(lambda weight: loss_of(network)({**parameters, last: weight}, x), parameters[last])
    close(matrix, alone)


@pytest.mark.row("the empirical neural tangent kernel, `vmap(jacrev(f))` and `einsum`")
def test_the_tangent_kernel(network, batch):
    def features(parameters, x):
        return functional_call(network, parameters, (x[None],)).squeeze(0)

    x = batch(3)
    jacobian = vmap(jacrev(features), in_dims=(None, 0))(detached(network), x)
    kernel = sum(torch.einsum("Naf,Mbf->NMab", each.flatten(2), each.flatten(2)) for each in jacobian.values())
    rows = [
        torch.cat([part.flatten() for part in torch.autograd.grad(output, list(network.parameters()), retain_graph=True)])
        for output in network(x).flatten()
    ]
    flat = torch.stack(rows)
    close(kernel.permute(0, 2, 1, 3).flatten(2).flatten(0, 1), flat @ flat.T)


@pytest.fixture
def small(family):
    torch.manual_seed(0)
    x = torch.randn(6, 2, 5, dtype=torch.float64)
    model = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(10, 3)).double()
    return relax(model, family, example_input=x).model, x, torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.row("curvlinops: Hessian, Gauss-Newton, empirical Fisher")
def test_linear_operators_of_curvature(small):
    curvlinops = pytest.importorskip("curvlinops")
    model, x, y = small
    loss, leaves = nn.CrossEntropyLoss(), list(model.parameters())
    operators = {
        name: getattr(curvlinops, f"{name}LinearOperator")(model, loss, leaves, [(x, y)], check_deterministic=False)
        for name in ("Hessian", "GGN", "EF")
    }
    direction = torch.randn(operators["GGN"].shape[0], generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    first = torch.autograd.grad(loss(model(x), y), leaves, create_graph=True)
    flat = torch.cat([part.flatten() for part in first])
    product = torch.autograd.grad(flat @ direction, leaves)
    close(operators["Hessian"] @ direction, torch.cat([part.flatten() for part in product]))

    outputs = model(x)
    jacobian = torch.stack(
        [torch.cat([part.flatten() for part in torch.autograd.grad(each, leaves, retain_graph=True)]) for each in outputs.flatten()]
    )
    share = outputs.softmax(1).detach()
    curvature = torch.diag_embed(share) - share[:, :, None] * share[:, None, :]
    moved = (curvature @ (jacobian @ direction).view(6, 3, 1)).flatten() / 6
    close(operators["GGN"] @ direction, jacobian.T @ moved)

    samples = torch.stack([torch.cat([p.flatten() for p in torch.autograd.grad(loss(model(x[[k]]), y[[k]]), leaves)]) for k in range(6)])
    close(operators["EF"] @ direction, samples.T @ (samples @ direction) / 6)


@pytest.mark.row("curvlinops: K-FAC", holds=False)
def test_kfac_knows_its_own_layers_only(small):
    curvlinops = pytest.importorskip("curvlinops")
    model, x, y = small
    with pytest.raises(NotImplementedError, match="un-supported layers"):
        curvlinops.KFACLinearOperator(model, nn.CrossEntropyLoss(), list(model.parameters()), [(x, y)])
