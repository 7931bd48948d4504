"""The relaxation ``lrlc``: exact, of low rank, and free to leave the convolution because its banks differ."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.errors import SurgeryError
from anarch_core.relaxation import Site, drift, project, relax
from anarch_lrlc.layer import LowRankLayer
from anarch_lrlc.options import LowRankOptions
from anarch_lrlc.relaxation import LowRankRelaxation

EVERY_FORM = [
    LowRankOptions(banks=3, coefficients=coefficients, normalisation=normalisation)
    for coefficients in ("separable", "full")
    for normalisation in ("softmax", "none")
]
CONVOLUTIONS = [
    (nn.Conv1d(2, 3, 5, stride=2, padding=2), (2, 12)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2), (4, 7, 6)),
    (nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular", bias=False), (3, 5, 4)),
    (nn.Conv2d(2, 2, 3, padding=1), (2, 1, 1)),
    (nn.Conv3d(2, 2, 2, padding=1, padding_mode="replicate"), (2, 3, 3, 2)),
]
every_form = pytest.mark.parametrize("options", EVERY_FORM, ids=lambda o: f"{o.coefficients}-{o.normalisation}")
every_convolution = pytest.mark.parametrize(("conv", "shape"), CONVOLUTIONS, ids=str)


def lifted(conv: nn.Module, shape: tuple[int, ...], options: LowRankOptions | None = None) -> LowRankLayer:
    torch.manual_seed(0)
    site = Site(path="conv", module=conv.double(), input_shape=shape, output_shape=())
    return LowRankRelaxation(options or LowRankOptions()).lift(site)


def moved(layer: LowRankLayer) -> LowRankLayer:
    """Anywhere in its family."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


@every_form
@every_convolution
def test_it_equals_the_convolution_and_projects_back_to_it(conv, shape, options):
    layer = lifted(conv, shape, options)
    x = torch.randn(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(layer(x), conv(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(x[0]), conv(x[0]), rtol=0, atol=1e-12)
    back = layer.project()
    assert repr(back) == repr(conv)
    for name, parameter in conv.named_parameters():
        torch.testing.assert_close(back.get_parameter(name), parameter, rtol=0, atol=1e-12)


@every_form
@every_convolution
def test_it_is_the_locally_connected_layer_it_says_it_is(conv, shape, options):
    layer = moved(lifted(conv, shape, options))
    x = torch.randn(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(layer(x), layer.lattice()(x), rtol=0, atol=1e-12)


@every_form
def test_every_sample_has_a_gradient_of_its_own(options):
    conv, shape = CONVOLUTIONS[0]
    layer = moved(lifted(conv, shape, options))
    x = torch.randn(3, *shape, dtype=torch.float64)

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, (x,)).pow(2).sum()

    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for sample in range(3):
        expected = torch.autograd.grad(layer(x[sample]).pow(2).sum(), list(layer.parameters()))
        torch.testing.assert_close(tuple(each[sample] for each in found.values()), expected, rtol=1e-10, atol=1e-10)


def test_identical_banks_are_a_trap():
    """They get equal gradients, and the coefficients none: the layer would be a convolution for ever. So banks start apart."""
    conv, shape = CONVOLUTIONS[0]
    layer = lifted(conv, shape)
    x = torch.randn(4, *shape, dtype=torch.float64)
    target = torch.randn_like(conv(x))

    def gradients() -> tuple[torch.Tensor, torch.Tensor]:
        layer.zero_grad()
        (layer(x) - target).square().mean().backward()
        return layer.logits0.grad, layer.bank_view(layer.banks.weight.grad)

    logits, banks = gradients()
    assert logits.abs().max() > 1e-5
    with torch.no_grad():
        view = layer.bank_view(layer.banks.weight)
        view.copy_(view.mean(1, keepdim=True).expand_as(view))
    logits, banks = gradients()
    assert logits.abs().max() < 1e-15
    torch.testing.assert_close(banks, banks[:, :1].expand_as(banks))


def test_without_normalisation_the_unshared_part_is_what_varies_with_the_position():
    """The parts of the parameters are the parts of the map: what the layer without its unshared part is, is a convolution."""
    layer = moved(lifted(nn.Conv1d(2, 3, 3), (2, 9), LowRankOptions(coefficients="full", normalisation="none")))
    before = layer.lattice().drift()
    shared, unshared, off_local = layer.split(layer.logits, "logits")
    torch.testing.assert_close(shared + unshared + off_local, layer.logits)
    with torch.no_grad():
        layer.logits.copy_(unshared)
    assert layer.drift().shared < 1e-20 * before.shared
    assert layer.drift().unshared == pytest.approx(before.unshared)
    with torch.no_grad():
        layer.logits.copy_(shared)
    assert layer.drift().unshared < 1e-20 * before.unshared
    assert layer.drift().shared == pytest.approx(before.shared)


def test_every_default_initialisation_is_a_convolution_with_banks_apart():
    layer = moved(lifted(*CONVOLUTIONS[1]))
    layer.reset_parameters()
    assert layer.drift().unshared < 1e-20 * layer.drift().shared
    assert layer.bank_view(layer.banks.weight).std(1).min() > 0


def test_a_network_is_relaxed_trained_and_projected_by_name():
    model = nn.Sequential(nn.Conv1d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv1d(4, 4, 3), nn.Flatten(), nn.Linear(40, 2)).double()
    x = torch.randn(3, 1, 12, dtype=torch.float64)
    relaxed = relax(model, "lrlc", example_input=x, options={"banks": 2})
    assert relaxed.report.exact
    assert drift(relaxed.model).total.unshared < 1e-20
    relaxed.model(x).square().sum().backward()
    torch.optim.SGD(relaxed.model.parameters(), lr=0.01).step()
    assert drift(relaxed.model).total.unshared > 0
    assert [type(module).__name__ for module in project(relaxed.model)] == ["Conv1d", "ReLU", "Conv1d", "Flatten", "Linear"]


def test_it_lies_inside_of_lcn_and_efcn():
    model = nn.Sequential(nn.Conv1d(1, 4, 5, padding=2)).double()
    x = torch.randn(3, 1, 12, dtype=torch.float64)
    low_rank = relax(model, "lrlc", example_input=x).model
    moved(low_rank[0])
    for family in ("lcn", "efcn"):
        assert relax(low_rank, family, example_input=x).report.exact
    with pytest.raises(SurgeryError, match="project it first"):
        relax(relax(model, "lcn", example_input=x).model, "lrlc", example_input=x)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_optimizer_state_is_carried_to_every_bank(optimizer):
    from anarch_core.relaxation import carry_optimizer_state

    model = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1)).double()
    x = torch.randn(3, 1, 8, dtype=torch.float64)
    settings = {"lr": 0.1, "momentum": 0.9} if optimizer is torch.optim.SGD else {"lr": 0.1}
    source = optimizer(model.parameters(), **settings)
    model(x).square().sum().backward()
    source.step()
    relaxed = relax(model, "lrlc", example_input=x)
    target = optimizer(relaxed.model.parameters(), **settings)
    fate = carry_optimizer_state(relaxed, source, target)
    assert {name for name, what in fate.items() if what == "carried"} == {"0.banks.weight", "0.bias"}
    key = "momentum_buffer" if optimizer is torch.optim.SGD else "exp_avg"
    layer = relaxed.model[0]
    state = layer.bank_view(target.state[layer.banks.weight][key])
    torch.testing.assert_close(state.sum(1).flatten(0, 1), source.state[model[0].weight][key])
    relaxed.model(x).square().sum().backward()
    target.step()
