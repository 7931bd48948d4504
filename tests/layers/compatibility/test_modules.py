"""Relaxed layers as modules among others: asked what they are, moved, copied, wrapped, averaged, computed again."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import distributed, nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from anarch_core.layers import relaxed_layers
from anarch_core.relaxation.verbs import relax

ATTRIBUTES = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
    "output_padding",
    "transposed",
)


def close(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def gradients(network, x, call=None):
    x = x.clone().requires_grad_()
    network.zero_grad()
    (call or network)(x).pow(3).sum().backward()
    return [x.grad, *(parameter.grad.clone() for parameter in network.parameters())]


@pytest.mark.row("a convolution's attributes: `in_channels`, `kernel_size`, `stride`, …")
def test_what_a_convolution_is_asked(network, convolutions):
    layers = relaxed_layers(network)
    assert len(layers) == 5
    for path, layer in layers.items():
        conv = convolutions.get_submodule(path)
        assert {name: getattr(layer, name) for name in ATTRIBUTES} == {name: getattr(conv, name) for name in ATTRIBUTES}


@pytest.mark.row("`to(memory_format=torch.channels_last)`, and `channels_last_3d`")
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.channels_last_3d])
def test_memory_formats_are_for_activations(network, batch, memory_format):
    expected, strides = network(batch(3)), [parameter.stride() for parameter in network.parameters()]
    assert network.to(memory_format=memory_format) is network
    assert [parameter.stride() for parameter in network.parameters()] == strides
    close(network(batch(3)), expected)
    close(network(batch(3).to(memory_format=torch.channels_last_3d)), expected)


@pytest.mark.row("empty batches, forwards and backwards")
def test_a_batch_of_nothing(network, batch):
    gx, *others = gradients(network, batch(3)[:0])
    assert network(batch(3)[:0]).shape == (0, 8)
    assert gx.shape == (0, 1, 2, 5, 5)
    assert all(not each.any() for each in others)


@pytest.mark.row("`copy.deepcopy`")
def test_a_copy(network, batch):
    copied = copy.deepcopy(network)
    close(gradients(copied, batch(3)), gradients(network, batch(3)))
    assert not {p.data_ptr() for p in copied.parameters()} & {p.data_ptr() for p in network.parameters()}


@pytest.mark.row("pickle, `torch.save` of the module")
def test_written_and_read(network, batch):
    close(pickle.loads(pickle.dumps(network))(batch(3)), network(batch(3)))
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    close(torch.load(file, weights_only=False)(batch(3)), network(batch(3)))


@pytest.mark.row("`nn.DataParallel`")
def test_data_parallel(network, batch):
    close(gradients(network, batch(3), nn.DataParallel(network)), gradients(network, batch(3)))


@pytest.mark.row("`DistributedDataParallel`")
def test_distributed(network, batch, tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        found = gradients(network, batch(3), nn.parallel.DistributedDataParallel(network))
    finally:
        distributed.destroy_process_group()
    close(found, gradients(network, batch(3)))


@pytest.mark.row("moving averages, `AveragedModel`")
def test_a_moving_average(network, batch):
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.75), use_buffers=True)
    averaged.update_parameters(network)
    start = [parameter.detach().clone() for parameter in network.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    averaged.update_parameters(network)
    close([parameter.detach() for parameter in averaged.parameters()], [1.25 * each for each in start])
    assert averaged(batch(3)).shape == (3, 8)


@pytest.mark.row("activation checkpointing, `torch.utils.checkpoint`")
@pytest.mark.parametrize("reentrant", [True, False])
def test_activations_computed_again(network, batch, reentrant):
    again = gradients(network, batch(3), lambda x: checkpoint(network, x, use_reentrant=reentrant))
    close(again, gradients(network, batch(3)))


@pytest.mark.row("bfloat16 autocast")
def test_outputs_under_autocast_are_of_its_dtype(network, batch):
    network, x = network.float(), batch(3).float()
    with torch.autocast("cpu", torch.bfloat16):
        for layer in relaxed_layers(network).values():
            assert layer(torch.ones(1, layer.in_channels, *layer.geometry.input_size)).dtype == torch.bfloat16
        y = network(x)
    close(y.float(), network(x), 0.1)
    y.float().sum().backward()
    assert {parameter.grad.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.row("bfloat16 weights")
def test_weights_of_low_precision(network, batch):
    expected = network(batch(3)).float()
    y = network.bfloat16()(batch(3).bfloat16())
    assert y.dtype == torch.bfloat16
    close(y.float(), expected, 0.1)
    y.sum().backward()
    assert {parameter.grad.dtype for parameter in network.parameters()} == {torch.bfloat16}


@pytest.mark.row("the meta device")
def test_shapes_without_numbers(network, batch):
    state, expected = copy.deepcopy(network.state_dict()), network(batch(3))
    y = network.to("meta")(batch(3).to("meta"))
    assert (y.shape, y.device.type) == (expected.shape, "meta")
    y.sum().backward()
    network.to_empty(device="cpu").load_state_dict(state)
    close(network(batch(3)), expected)


@pytest.mark.row("`torch.inference_mode`, and training afterwards")
def test_training_after_inference(family):
    x = torch.ones(2, 1, 11, 3)  # a size that no other test has, so that nothing is known of it yet
    model = relax(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)), family, example_input=x, check=False).model
    with torch.inference_mode():
        model(x)
    model(x).sum().backward()
    assert model[0].weight.grad.any()


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


@pytest.mark.row("`torch.nn.utils.parametrize` of a relaxed layer")
def test_a_weight_that_is_computed(network, batch):
    expected = copy.deepcopy(network)
    with torch.no_grad():
        expected[3].weight.mul_(2)
    parametrize.register_parametrization(network[3], "weight", Doubled())
    close(network(batch(3)), expected(batch(3)))
    network(batch(3)).sum().backward()
    assert network[3].parametrizations.weight.original.grad.any()
