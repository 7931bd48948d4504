"""The relaxation ``gpsa``: exact at the switch, borders included, and able to leave at once."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

from anarch_core.errors import SurgeryError
from anarch_core.lattice import NOTHING, ConvGeometry
from anarch_core.relaxation import Site, drift, project, relax
from anarch_core.testing.convolutions import Case, cases
from anarch_gpsa.layer import MOMENTUM, AttentionLayer
from anarch_gpsa.options import AttentionOptions
from anarch_gpsa.relaxation import AttentionRelaxation

pytestmark = pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel lengths")

CONVOLUTIONS = [
    (nn.Conv1d(2, 3, 5, stride=2, padding=2), (2, 9)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2), (4, 5, 4)),
    (nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular", bias=False), (3, 4, 4)),
    (nn.Conv2d(2, 2, 3, padding=1), (2, 1, 1)),
]
every_convolution = pytest.mark.parametrize(("conv", "shape"), CONVOLUTIONS, ids=str)


def lifted(conv: nn.Module, shape: tuple[int, ...]) -> AttentionLayer:
    torch.manual_seed(0)
    site = Site(path="conv", module=conv.double(), input_shape=tuple(shape), output_shape=())
    return AttentionRelaxation(AttentionOptions(head_dim=3)).lift(site)


def moved(layer: AttentionLayer) -> AttentionLayer:
    """Gates open to either side, attention sharp enough to differ from image to image."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))
    return layer


def positional(geometry: ConvGeometry) -> torch.Tensor:
    """P with its null key, [heads, positions, pixels + 1], written down pixel by pixel."""
    reads = [axis.reads() for axis in geometry.axes]
    heads = [tuple(h) for h in torch.cartesian_prod(*(torch.arange(a.kernel) for a in geometry.axes)).view(-1, len(reads)).tolist()]
    places = [tuple(p) for p in torch.cartesian_prod(*(torch.arange(a.positions) for a in geometry.axes)).view(-1, len(reads)).tolist()]
    attention = torch.zeros(len(heads), len(places), geometry.pixels + 1, dtype=torch.float64)
    for h, taps in enumerate(heads):
        for p, place in enumerate(places):
            pixel = [int(read[i, a]) for read, i, a in zip(reads, place, taps, strict=True)]
            flat = 0
            for coordinate, axis in zip(pixel, geometry.axes, strict=True):
                flat = flat * axis.size + coordinate
            attention[h, p, geometry.pixels if NOTHING in pixel else flat] = 1
    return attention


def reference(layer: AttentionLayer, x: torch.Tensor) -> torch.Tensor:
    """The formula, with every attention matrix written out: keys are the pixels and one null key of value zero."""
    geometry, weight = layer.geometry, layer.values.weight
    groups, outputs, inputs = geometry.channel_block
    tokens = torch.cat([x.flatten(2), x.new_zeros(*x.shape[:2], 1)], 2)
    gate = layer.gate.tanh().flatten()
    y = x.new_zeros(len(x), geometry.out_channels, geometry.positions)
    for h, hard in enumerate(positional(geometry)):
        scores = torch.einsum("dc,bcq,de,ben->bqn", layer.query[h], tokens[..., layer.anchors], layer.key[h], tokens[..., :-1])
        soft = (scores / math.sqrt(layer.options.head_dim)).softmax(-1)
        soft = torch.cat([soft, soft.new_zeros(*soft.shape[:2], 1)], -1)
        mixed = hard + gate[h] * (soft - hard)
        torch.testing.assert_close(mixed.sum(-1), torch.ones_like(mixed[..., 0]))
        for g in range(groups):
            own = slice(g * outputs, (g + 1) * outputs)
            seen = torch.einsum("bqn,bcn->bcq", mixed, tokens[:, g * inputs : (g + 1) * inputs])
            y[:, own] += torch.einsum("oc,bcq->boq", weight[own].flatten(2)[..., h], seen)
    y = y.unflatten(2, geometry.output_size)
    return y if layer.values.bias is None else y + layer.values.bias.view(-1, *[1] * len(geometry.axes))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases())
def test_it_equals_the_convolution_and_projects_back_to_it(case: Case):
    layer = lifted(case.module, case.x.shape[1:])
    y = case.module(case.x)
    assert (layer(case.x) - y).abs().max() <= 1e-10 * y.abs().max()
    back = layer.project()
    assert repr(back) == repr(case.module)
    for name, parameter in case.module.named_parameters():
        torch.testing.assert_close(back.get_parameter(name), parameter, rtol=0, atol=1e-10)


@every_convolution
def test_it_is_attention_with_a_null_key_and_a_gate_between_position_and_content(conv, shape):
    layer = moved(lifted(conv, shape))
    x = torch.randn(3, *shape, dtype=torch.float64)
    torch.testing.assert_close(layer(x), reference(layer, x), rtol=0, atol=1e-11)
    torch.testing.assert_close(layer(x[0]), layer(x)[0], rtol=0, atol=1e-11)


def test_softmax_over_positions_would_leak_and_borders_would_read_pixels_that_are_not_there():
    """Why P is the limit: at sharpness α part of the attention misses its pixel, and at a border without a null key all of it does."""
    offsets = torch.arange(-40, 41, dtype=torch.float64)
    leaks = {alpha: float(1 - 1 / torch.exp(-alpha * offsets**2).sum() ** 2) for alpha in (1, 2, 3, 5, 10, 20)}
    assert leaks == pytest.approx({1: 0.68, 2: 0.38, 3: 0.17, 5: 2.6e-2, 10: 1.8e-4, 20: 8.2e-9}, rel=0.03)
    outside = torch.exp(-20 * (torch.arange(5, dtype=torch.float64) + 1) ** 2)
    assert float((outside / outside.sum())[0]) == pytest.approx(1.0)


def test_gates_learn_from_the_first_step_and_queries_and_keys_from_the_second():
    layer = lifted(*CONVOLUTIONS[0])
    x, target = torch.randn(4, 2, 9, dtype=torch.float64), torch.randn(4, 3, 5, dtype=torch.float64)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    seen = []
    for _ in range(2):
        optimizer.zero_grad()
        (layer(x) - target).square().mean().backward()
        seen.append({name: float(parameter.grad.abs().max()) for name, parameter in layer.named_parameters()})
        optimizer.step()
    assert seen[0]["gate"] > 1e-3
    assert seen[0]["query"] == seen[0]["key"] == 0
    assert min(seen[1].values()) > 1e-9


def test_queries_and_keys_of_zero_are_a_saddle():
    layer = moved(lifted(*CONVOLUTIONS[0]))
    with torch.no_grad():
        layer.query.zero_()
        layer.key.zero_()
    layer(torch.randn(4, 2, 9, dtype=torch.float64)).square().sum().backward()
    assert layer.gate.grad.abs().max() > 0
    assert layer.query.grad.abs().max() == layer.key.grad.abs().max() == 0


@every_convolution
def test_where_attention_does_not_depend_on_the_image_the_layer_is_the_dense_one_it_says_it_is(conv, shape):
    layer = moved(lifted(conv, shape)).eval()
    with torch.no_grad():
        layer.query.zero_()  # uniform attention, which is what the running mean starts with
    x = torch.randn(3, *shape, dtype=torch.float64)
    torch.testing.assert_close(layer(x), layer.lattice()(x), rtol=0, atol=1e-11)


def test_the_projection_is_the_effective_kernel_averaged_over_queries():
    """E[o, c, δ] = mean over positions of Σ_h A^h_{i, i+δ} W_h, each tap over the positions at which it reads a pixel."""
    conv, shape = nn.Conv1d(2, 3, 3, padding=1), (2, 6)
    layer = moved(lifted(conv, shape))
    gate, weight = layer.gate.tanh(), layer.values.weight
    attention = (1 - gate).view(-1, 1, 1) * positional(layer.geometry)[..., :-1] + gate.view(-1, 1, 1) * layer.attention
    back = layer.project()
    for tap in range(3):
        pairs = [(i, i + tap - 1) for i in range(6) if 0 <= i + tap - 1 < 6]
        expected = torch.stack([torch.einsum("h,och->oc", attention[:, i, j], weight) for i, j in pairs]).mean(0)
        torch.testing.assert_close(back.weight[..., tap], expected)


def test_the_mean_attention_follows_training_and_rests_in_evaluation():
    layer = moved(lifted(*CONVOLUTIONS[0]))
    x, before = torch.randn(5, 2, 9, dtype=torch.float64), layer.attention.clone()
    layer.eval()(x)
    assert torch.equal(layer.attention, before)
    layer.train()(x)
    assert not torch.equal(layer.attention, before)
    torch.testing.assert_close(layer.attention.sum(-1), torch.ones_like(layer.attention[..., 0]))
    assert (layer.attention - before).abs().max() <= MOMENTUM


def test_a_network_is_relaxed_trained_and_projected_by_name():
    model = nn.Sequential(nn.Conv1d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv1d(4, 4, 3), nn.Flatten(), nn.Linear(40, 2)).double()
    x = torch.randn(3, 1, 12, dtype=torch.float64)
    relaxed = relax(model, "gpsa", example_input=x)
    assert relaxed.report.exact
    assert drift(relaxed.model).total.off_local == 0
    relaxed.model(x).square().sum().backward()
    torch.optim.SGD(relaxed.model.parameters(), lr=0.01).step()
    assert drift(relaxed.model).total.off_local > 0
    assert [type(module).__name__ for module in project(relaxed.model)] == ["Conv1d", "ReLU", "Conv1d", "Flatten", "Linear"]
    with pytest.raises(SurgeryError, match="depends on its input"):
        relax(relaxed.model, "efcn", example_input=x)


def test_the_running_mean_travels_in_the_state_and_second_derivatives_exist():
    layer = moved(lifted(*CONVOLUTIONS[0]))
    x = torch.randn(5, 2, 9, dtype=torch.float64)
    layer(x)
    other = lifted(*CONVOLUTIONS[0])
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other.project().weight, layer.project().weight)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), layer.query, create_graph=True)
    assert torch.autograd.grad(gradient.square().sum(), layer.gate)[0].abs().max() > 0
