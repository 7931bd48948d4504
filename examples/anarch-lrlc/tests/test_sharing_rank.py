"""The probe ``sharing-rank``: 1 for a convolution, at most K for lrlc, full for weights of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.errors import ProbeError
from anarch_core.layers import relaxed_layers
from anarch_core.probe import ProbeContext
from anarch_core.relaxation import relax
from anarch_lrlc.probe import SharingRank, local_matrix


def network(family: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, stride=2), nn.Tanh(), nn.Conv2d(3, 4, (2, 3), groups=1)).double()
    return relax(model, family, example_input=torch.randn(1, 2, 11, 12, dtype=torch.float64), options=options).model


def initialise(model: nn.Module) -> None:
    """The relaxed layers' own initialisation, nothing shared."""
    for layer in relaxed_layers(model).values():
        layer.reset_parameters()


def rank(model: nn.Module) -> dict[str, float | None]:
    return dict(SharingRank(None).measure(ProbeContext(model=model)).scalars)


@pytest.mark.parametrize("family", ["lcn", "efcn", "lrlc", "tiled", "shared"])
def test_a_fresh_convolution_has_rank_one(family):
    assert rank(network(family)) == {"effective_rank": pytest.approx(1, abs=1e-9), "beyond_first": pytest.approx(0, abs=1e-9)}


def test_the_rank_of_lrlc_is_at_most_the_number_of_banks():
    model = network("lrlc", banks=3, coefficients="full")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    spectra = SharingRank(None).measure(ProbeContext(model=model)).tensors
    assert [int((values > 1e-9 * values[0]).sum()) for values in spectra.values()] == [3, 3]


def test_tiles_are_as_many_filters():
    model = network("tiled", period=2)
    initialise(model)
    spectra = SharingRank(None).measure(ProbeContext(model=model)).tensors
    assert [int((values > 1e-9 * values[0]).sum()) for values in spectra.values()] == [4, 4]


def test_rows_are_the_filters_of_the_positions_inside():
    """Row by row what the layer does to an image with one pixel: nothing is taken from the layout of the weight."""
    model = network("lcn")
    initialise(model)
    layer, x = model[0], torch.zeros(1, 2, 11, 12, dtype=torch.float64, requires_grad=True)
    matrix = local_matrix(layer)
    outputs = layer(x)[0]
    assert outputs.shape == (3, 6, 6)
    # Stride 2, padding 1: positions 1 to 4 of 11 rows and 1 to 5 of 12 columns read nothing outside, and 5 of 11 reads rows 9 to 11.
    inside = [(i, j) for i in range(1, 5) for j in range(1, 6)]
    assert len(matrix) == len(inside)
    for row, (i, j) in zip(matrix, inside, strict=True):
        gradients = [torch.autograd.grad(outputs[o, i, j], x, retain_graph=True)[0][0] for o in range(3)]
        field = torch.stack(gradients)[:, :, 2 * i - 1 : 2 * i + 2, 2 * j - 1 : 2 * j + 2]
        torch.testing.assert_close(row.sort().values, field.flatten().sort().values)


def test_a_gain_for_every_position_keeps_rank_one_though_it_is_no_convolution():
    model = network("lcn")
    with torch.no_grad():
        view = model[2].weight
        view.mul_(torch.rand(view.shape[0] // 2, 1, dtype=view.dtype).repeat_interleave(2, 0)[:, :, None, None, None])
    values = SharingRank(None).measure(ProbeContext(model=model)).tensors["2"]
    assert values[1] < 1e-9 * values[0]
    assert model[2].drift().unshared > 0


def test_layers_without_inner_positions_are_left_out_and_no_layer_is_an_error():
    model = relax(nn.Sequential(nn.Conv1d(1, 1, 5, padding=2)), "lcn", example_input=torch.randn(1, 1, 4)).model
    with pytest.raises(ProbeError, match="inside of the input"):
        rank(model)
