"""The memory format of activations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.ops.memory_format import channels_last, is_channels_last, takes_channels_last
from anarch_core.relaxation.verbs import relax
from anarch_core.training.evaluation import evaluate
from anarch_core.training.loop import Training


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 1, 5), (2, 3, 4, 5), (2, 1, 4, 5), (2, 3, 2, 4, 5)])
def test_channels_last_in_any_number_of_dimensions(shape):
    x = torch.randn(shape)
    y = channels_last(x)
    assert not is_channels_last(x)
    assert is_channels_last(y)
    assert channels_last(y) is y
    assert torch.equal(x, y)
    assert y.movedim(1, -1).is_contiguous()
    if len(shape) == 4:
        assert y.is_contiguous(memory_format=torch.channels_last)


class Viewing(nn.Module):
    """Flattens with a view, as many tutorials do."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4 * 6 * 6, 2)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().view(x.shape[0], -1))


class Flattening(Viewing):
    """Flattens in any memory format."""

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().flatten(1))


@pytest.mark.parametrize("relaxation", ["conv", "lcn", "efcn", "tiled", "shared"])
def test_a_network_that_takes_views_is_trained_and_evaluated_as_ever(relaxation):
    torch.manual_seed(0)
    x, y = torch.randn(8, 3, 6, 6), torch.randint(2, (8,))
    found = []
    viewing, flattening = Viewing(), Flattening()
    flattening.load_state_dict(viewing.state_dict())
    for model in viewing, flattening:
        network = model if relaxation == "conv" else relax(model, relaxation, example_input=x).model
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        training = Training(model=network, optimizer=optimizer, x=x, y=y, batch_size=4, seed=0, learning_rate=lambda _: 0.1)
        training.advance(2)
        found.append((evaluate(network, x, y).loss, training.end_epoch().loss))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_looking_whether_a_network_takes_it_leaves_no_trace():
    model = Flattening()
    model.conv.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert takes_channels_last(model, torch.randn(4, 3, 6, 6))
    assert model.training
    assert model.norm.training
    assert not model.conv.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_asked_for_only_where_there_are_pixels_and_the_network_takes_it():
    assert not takes_channels_last(nn.Linear(3, 2), torch.randn(4, 3))
    assert not takes_channels_last(Viewing(), torch.randn(4, 3, 6, 6))
