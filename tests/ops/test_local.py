"""The product of a locally connected layer against gather and einsum."""

from __future__ import annotations

from contextlib import nullcontext

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

from anarch_core.lattice.families import LCN, incidence, label_counts
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.ops import batch_last, depthwise, gathers, local
from anarch_core.ops.batch_last import BatchLast, batch_last_plan
from anarch_core.ops.depthwise import Depthwise, depthwise_plan
from anarch_core.ops.fused import fused_sgd
from anarch_core.ops.gathers import Gathers, gather_plan
from anarch_core.ops.local import local_product
from anarch_core.ops.strip_plan import strip_plan
from anarch_core.ops.strips import Strips

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


KERNELS = {
    "strips": lambda geometry, x: strip_plan(geometry),
    "gathers": lambda geometry, x: gather_plan(geometry, x.device),
    "batch last": lambda geometry, x: batch_last_plan(geometry) if reads_anything(geometry) else strip_plan(geometry),
}


def reads_anything(geometry):
    return min(label_counts(LCN, geometry)) > 0


@pytest.fixture(params=KERNELS, autouse=True)
def kernels(request, monkeypatch):
    """Every test here is run with every set of kernels."""
    monkeypatch.setattr(local, "_kernels", KERNELS[request.param])
    return request.param


def reference(x, weight, geometry):
    groups, _, inputs = geometry.channel_block
    read, position = x, []
    for dim, axis in enumerate(geometry.axes):
        pair = torch.from_numpy(incidence(LCN, axis).pair)
        read = read.index_select(2 + dim, pair % axis.size)
        position.append(pair // axis.size)
    products = torch.einsum("bgip,pgio->bgop", read.unflatten(1, (groups, inputs)).flatten(3), weight.flatten(0, -4))
    y = products.unflatten(3, read.shape[2:]).flatten(1, 2)
    for dim, (axis, where) in enumerate(zip(geometry.axes, position, strict=True)):
        shape = list(y.shape)
        shape[2 + dim] = axis.positions
        y = y.new_zeros(shape).index_add(2 + dim, where, y)
    return y


def operands(geometry, batch=3, dtype=torch.float64):
    groups, outputs, inputs = geometry.channel_block
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, geometry.in_channels, *geometry.input_size, generator=generator, dtype=dtype)
    weight = torch.randn(*label_counts(LCN, geometry), groups, inputs, outputs, generator=generator, dtype=dtype)
    return x.requires_grad_(), weight.requires_grad_()


@st.composite
def geometries(draw):
    d = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 4 if d < 3 else 2)) for _ in range(d)]
    dilation = [draw(st.integers(1, 2)) for _ in range(d)]
    reach = [dil * (k - 1) + 1 for k, dil in zip(kernel, dilation, strict=True)]
    size = tuple(draw(st.integers(r, r + 5 if d < 3 else r + 2)) for r in reach)
    mode = draw(st.sampled_from(["zeros", "circular", "reflect", "replicate"]))
    most = [s - 1 for s in size] if mode == "reflect" else [min(s, r) for s, r in zip(size, reach, strict=True)]
    padding = [draw(st.integers(0, m)) for m in most]
    stride = [draw(st.integers(1, 3)) for _ in range(d)]
    conv = CONVOLUTIONS[d - 1](inputs, outputs, tuple(kernel), tuple(stride), tuple(padding), tuple(dilation), groups, padding_mode=mode)
    return ConvGeometry.of(conv, size)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(geometry=geometries())
def test_outputs_and_gradients_of_any_geometry(geometry):
    x, weight = operands(geometry)
    y, expected = local_product(x, weight, geometry), reference(x, weight, geometry)
    close(y, expected)
    direction = torch.randn_like(expected)
    close(torch.autograd.grad(y, (x, weight), direction), torch.autograd.grad(expected, (x, weight), direction))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv1d(2, 3, 3, stride=2, padding=1),
        nn.Conv1d(4, 2, 3, padding=2, padding_mode="circular", groups=2),
        nn.Conv2d(1, 2, (2, 3), padding=(0, 1), dilation=(1, 2)),
    ],
)
def test_twice_differentiable(conv):
    geometry = ConvGeometry.of(conv, (5, 5)[: conv.weight.ndim - 2])
    x, weight = operands(geometry, batch=2)
    assert torch.autograd.gradcheck(lambda x, w: local_product(x, w, geometry), (x, weight))
    assert torch.autograd.gradgradcheck(lambda x, w: local_product(x, w, geometry), (x, weight))


def test_a_third_derivative_exists():
    geometry = ConvGeometry.of(nn.Conv1d(2, 2, 3, padding=1), (4,))
    for product in (local_product, reference):
        x, weight = operands(geometry)
        (g,) = torch.autograd.grad(product(x, weight, geometry).pow(4).sum(), weight, create_graph=True)
        (gg,) = torch.autograd.grad(g.pow(2).sum(), x, create_graph=True)
        (ggg,) = torch.autograd.grad(gg.pow(2).sum(), weight)
        if product is local_product:
            found = ggg
    close(found, ggg)


def test_bfloat16_autocast_is_as_good_as_a_convolution_in_bfloat16():
    geometry = ConvGeometry.of(nn.Conv2d(8, 8, 3, padding=1), (6, 6))
    x, weight = operands(geometry, batch=5, dtype=torch.float32)
    expected = reference(x.double(), weight.double(), geometry)
    with torch.autocast("cpu", torch.bfloat16):
        y = local_product(x, weight, geometry)
    assert y.dtype == torch.bfloat16
    assert (y - expected).abs().max() < 2**-7 * expected.abs().max()
    y.sum().backward()
    assert x.grad.dtype == weight.grad.dtype == torch.float32


@pytest.mark.parametrize("kernels", ["gathers", "batch last"], indirect=True)
def test_bfloat16_autocast_of_groups_sums_in_float32(kernels):
    geometry = ConvGeometry.of(nn.Conv2d(8, 8, 5, padding=2, groups=4), (6, 6))
    x, weight = operands(geometry, batch=5, dtype=torch.float32)
    expected = reference(x.double(), weight.double(), geometry)
    with torch.autocast("cpu", torch.bfloat16):
        y = local_product(x, weight, geometry)
    assert y.dtype == torch.bfloat16
    assert (y - expected).abs().max() < 2**-7 * expected.abs().max()
    y.float().sum().backward()
    assert x.grad.dtype == weight.grad.dtype == torch.float32


def assert_descends(geometry, decay):
    """Plain descent inside the backward pass comes to the weight that the optimizer comes to."""
    x, weight = operands(geometry)
    expected = weight.detach().clone().requires_grad_()
    for parameter, inside in (weight, fused_sgd), (expected, None):
        optimizer = torch.optim.SGD([parameter], lr=0.1, weight_decay=decay)
        product = local_product if inside else reference
        with inside(optimizer) if inside else nullcontext():
            product(x.detach(), parameter, geometry).square().sum().backward()
            optimizer.step()
    close(weight, expected)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_descent_inside_backward(decay):
    assert_descends(ConvGeometry.of(nn.Conv2d(4, 6, 3, padding=1, groups=2), (5, 4)), decay)


def test_weights_that_are_views_of_a_flat_vector():
    geometry = ConvGeometry.of(nn.Conv1d(2, 3, 3, padding=1), (6,))
    x, weight = operands(geometry)
    flat = torch.cat([torch.zeros(7, dtype=weight.dtype), weight.detach().flatten()])
    close(local_product(x, flat[7:].view_as(weight), geometry), reference(x, weight, geometry))


@pytest.mark.parametrize("kernels", ["strips"], indirect=True)
def test_memory_of_the_strips_is_far_below_the_unfolded_input():
    geometry = ConvGeometry.of(nn.Conv2d(4, 4, 7, padding=3), (16, 16))
    x, weight = operands(geometry, batch=64, dtype=torch.float32)
    unfolded = 49 * x.numel() * 4
    with torch.profiler.profile(profile_memory=True) as profile:
        local_product(x, weight, geometry).sum().backward()
    allocated = sum(max(event.self_device_memory_usage + event.self_cpu_memory_usage, 0) for event in profile.events())
    assert allocated < unfolded / 2 + 4 * weight.numel()


def test_outputs_and_input_gradients_are_channels_last():
    geometry = ConvGeometry.of(nn.Conv2d(3, 4, 3, padding=1), (6, 5))
    x, weight = operands(geometry)
    y = local_product(x, weight, geometry)
    (gx,) = torch.autograd.grad(y.sum(), x)  # an expanded gradient, all strides 0
    for tensor in y, gx:
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    close(gx, torch.autograd.grad(reference(x, weight, geometry).sum(), x)[0])


def test_outputs_may_be_changed_in_place():
    geometry = ConvGeometry.of(nn.Conv1d(3, 4, 3, padding=1), (6,))
    x, weight = operands(geometry)
    close(local_product(x, weight, geometry).relu_(), reference(x, weight, geometry).relu())


@pytest.mark.parametrize("conv", [nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.Conv3d(2, 4, 2, stride=2, padding=1, groups=2)])
def test_a_part_at_a_time(monkeypatch, conv):
    monkeypatch.setattr(gathers, "LARGEST", 100)
    monkeypatch.setattr(batch_last, "LARGEST", 100)
    geometry = ConvGeometry.of(conv, (5, 6, 4)[: conv.weight.ndim - 2])
    x, weight = operands(geometry)
    y, expected = local_product(x, weight, geometry), reference(x, weight, geometry)
    close(y, expected)
    direction = torch.randn_like(expected)
    close(torch.autograd.grad(y, (x, weight), direction), torch.autograd.grad(expected, (x, weight), direction))


@st.composite
def depthwise_geometries(draw):
    d = draw(st.integers(1, 3))
    channels = draw(st.integers(2, 5))
    size = tuple(draw(st.integers(4, 7)) for _ in range(d))
    conv = CONVOLUTIONS[d - 1](
        channels,
        channels * draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        stride=draw(st.integers(1, 3)),
        padding=draw(st.integers(0, 2)),
        dilation=draw(st.integers(1, 1 if d == 3 else 2)),
        groups=channels,
        padding_mode=draw(st.sampled_from(["zeros", "circular", "reflect"])),
    )
    return ConvGeometry.of(conv, size)


@pytest.mark.parametrize("kernels", ["strips"], indirect=True)
class TestDepthwise:
    """The kernels for groups of one input channel, which apply to nothing else."""

    @pytest.fixture(autouse=True)
    def _depthwise(self, kernels, monkeypatch):
        monkeypatch.setattr(local, "_kernels", lambda geometry, x: (depthwise_plan if reads_anything(geometry) else strip_plan)(geometry))

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(geometry=depthwise_geometries())
    def test_outputs_and_gradients(self, geometry):
        x, weight = operands(geometry)
        y, expected = local_product(x, weight, geometry), reference(x, weight, geometry)
        close(y, expected)
        direction = torch.randn_like(expected)
        close(torch.autograd.grad(y, (x, weight), direction), torch.autograd.grad(expected, (x, weight), direction))

    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("largest", [1, 30, 100])
    def test_a_part_at_a_time(self, monkeypatch, largest, stride):
        monkeypatch.setattr(depthwise, "LARGEST", largest)
        geometry = ConvGeometry.of(nn.Conv2d(2, 4, 3, padding=2, stride=stride, groups=2), (5, 4))
        x, weight = operands(geometry)
        y, expected = local_product(x, weight, geometry), reference(x, weight, geometry)
        close(y, expected)
        direction = torch.randn_like(expected)
        close(torch.autograd.grad(y, (x, weight), direction), torch.autograd.grad(expected, (x, weight), direction))

    def test_twice_differentiable(self):
        geometry = ConvGeometry.of(nn.Conv1d(2, 4, 3, padding=1, groups=2), (4,))
        x, weight = operands(geometry, batch=2)
        assert torch.autograd.gradgradcheck(lambda x, w: local_product(x, w, geometry), (x, weight))

    def test_bfloat16_autocast_sums_in_float32(self):
        geometry = ConvGeometry.of(nn.Conv2d(8, 8, 5, padding=2, groups=8), (6, 6))
        x, weight = operands(geometry, batch=5, dtype=torch.float32)
        expected = reference(x.double(), weight.double(), geometry)
        with torch.autocast("cpu", torch.bfloat16):
            y = local_product(x, weight, geometry)
        assert (y - expected).abs().max() < 2**-7 * expected.abs().max()
        y.float().sum().backward()
        assert x.grad.dtype == weight.grad.dtype == torch.float32

    @pytest.mark.parametrize("decay", [0.0, 0.1])
    def test_descent_inside_backward(self, decay):
        assert_descends(ConvGeometry.of(nn.Conv2d(3, 6, 3, padding=1, groups=3), (5, 4)), decay)


@pytest.mark.parametrize(
    ("expected", "conv", "side", "batch"),
    [
        (Strips, nn.Conv2d(64, 64, 5, padding=2), 8, 250),
        (Strips, nn.Conv2d(3, 64, 4, stride=2, padding=2), 32, 250),
        (Gathers, nn.Conv3d(4, 8, 3, padding=1), 8, 2),
        (Gathers, nn.Conv2d(128, 128, 3, padding=1, groups=8), 8, 2),
        (BatchLast, nn.Conv2d(128, 128, 3, padding=1, groups=32), 8, 100),
        (BatchLast, nn.Conv1d(128, 128, 5, padding=2, groups=32), 40, 250),
        (Depthwise, nn.Conv2d(64, 64, 3, padding=1, groups=64), 16, 100),
    ],
    ids=str,
)
@pytest.mark.parametrize("kernels", ["strips"], indirect=True)
def test_which_kernels_take_the_product_on_a_cpu(monkeypatch, kernels, expected, conv, side, batch):
    monkeypatch.undo()
    geometry = ConvGeometry.of(conv, (side,) * (conv.weight.ndim - 2))
    assert isinstance(local._kernels(geometry, torch.zeros(1).expand(batch)), expected)
