"""CKA between the layers of networks: against features taken by hand, of relaxed networks at the switch, and of layers of every kind."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

from anarch_core import relax
from anarch_core.errors import ProbeError
from anarch_core.similarity import OUTPUT, cka, compared, linear_cka, unbiased_hsic


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(24, 2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network(seed: int, channels: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    first = [nn.Conv1d(2, channels, 3, padding=1), nn.BatchNorm1d(channels), nn.ReLU(inplace=True), nn.Dropout(0.5)]
    last = [nn.Conv1d(channels, 4, 3, stride=2, groups=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(*first, *last).double()


def features(model: nn.Sequential, x: torch.Tensor, layers: Sequence[str]) -> list[torch.Tensor]:
    model, found = copy.deepcopy(model).eval(), []
    with torch.no_grad():
        for name, module in model.named_children():
            x = module(x)
            if name in layers:
                found.append(x.flatten(1).clone())
    return [*found, x.flatten(1)]


LAYERS = ("0", "1", "4", "7")


def test_every_layer_is_compared_with_every_other_one(x) -> None:
    a, b = network(0), network(1)
    found = cka(a, b, x)
    assert found.rows == found.columns == (*LAYERS, OUTPUT)
    assert (found.samples, found.minibatches) == (24, 1)
    expected = [[linear_cka(first, second) for second in features(b, x, LAYERS)] for first in features(a, x, LAYERS)]
    torch.testing.assert_close(found.matrix, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    assert found.layers == {name: pytest.approx(expected[at][at], abs=1e-12) for at, name in enumerate(found.rows)}
    assert found.undefined == {}


def test_minibatches_have_their_estimates_averaged_before_the_ratio_is_taken(x, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anarch_core.similarity.comparison.permutation", lambda n, key: torch.arange(n))
    a, b = network(0), network(1)
    found = cka(a, b, x, batch_size=8)
    assert found.minibatches == 3
    pairs = [[features(net, part, LAYERS) for net in (a, b)] for part in x.split(8)]

    def mean(first: int, i: int, second: int, j: int) -> float:
        return sum(unbiased_hsic(p[first][i] @ p[first][i].T, p[second][j] @ p[second][j].T) for p in pairs) / 3

    expected = [[mean(0, i, 1, j) / math.sqrt(mean(0, i, 0, i) * mean(1, j, 1, j)) for j in range(5)] for i in range(5)]
    torch.testing.assert_close(found.matrix, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_some_of_the_samples_are_drawn_and_others_for_another_seed(x) -> None:
    a, b = network(0), network(1)
    found = [cka(a, b, x, samples=10, seed=seed) for seed in (0, 0, 1)]
    assert {each.samples for each in found} == {10}
    assert torch.equal(found[0].matrix, found[1].matrix)
    assert not torch.equal(found[0].matrix, found[2].matrix)
    assert cka(a, b, x, samples=100).samples == 24


@pytest.mark.parametrize("batch_size", [24, 9])
@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled", "ungroup", "grow", "lcn+efcn"])
def test_a_relaxed_network_at_the_switch_has_its_parents_representations(x, relaxation: str, batch_size: int) -> None:
    parent = network(0)
    model = parent
    for name in relaxation.split("+"):
        model = relax(model, name, example_input=x[:1]).model
    found = cka(parent, model, x, batch_size=batch_size)
    assert list(found.layers) == [*LAYERS, OUTPUT]
    assert all(abs(value - 1) < 1e-10 for value in found.layers.values())
    own = cka(parent, parent, x, batch_size=batch_size)
    torch.testing.assert_close(found.matrix, own.matrix, rtol=0, atol=1e-10)


def test_networks_are_left_as_they_were_and_dropout_is_off(x) -> None:
    a, b = network(0).train(), network(1).eval()
    before = copy.deepcopy([a.state_dict(), b.state_dict()])
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert cka(a, b, x).layers == cka(a, b, x).layers
    assert a.training
    assert not b.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(not module._forward_hooks for module in (*a.modules(), *b.modules()))
    for network_, held in zip((a, b), before, strict=True):
        assert all(torch.equal(value, held[name]) for name, value in network_.state_dict().items())


def test_several_networks_are_what_each_of_them_is_alone(x) -> None:
    a, others = network(0), {"wide": network(1, channels=6), "other": network(2)}
    calls = []
    found = compared(a, others, x, batch_size=12, progress=lambda *done: calls.append(done))
    assert calls == [(1, 2), (2, 2)]
    for name, other in others.items():
        assert torch.equal(found[name].matrix, cka(a, other, x, batch_size=12).matrix)


def test_networks_of_other_layers_share_what_has_the_same_name(x) -> None:
    other = nn.Sequential(nn.Conv1d(2, 5, 5), nn.Flatten(), nn.Linear(25, 3)).double()
    found = cka(network(0), other, x)
    assert found.columns == ("0", "2", OUTPUT)
    assert found.matrix.shape == (5, 3)
    assert list(found.layers) == ["0", OUTPUT]


class Block(nn.Module):
    """What holds no weights itself."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_a_relaxed_layer_is_a_whole_and_what_it_was_is_compared_with_it(x) -> None:
    wrapped = nn.Sequential(Block(nn.Conv1d(2, 4, 3)), nn.Flatten(), nn.Linear(28, 3)).double()
    relaxed = relax(nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(28, 3)).double(), "grow", example_input=x[:1]).model
    found = cka(wrapped, relaxed, x)
    assert found.rows == ("0", "0.inner", "2", OUTPUT)
    assert found.columns == ("0", "2", OUTPUT)


class Twice(nn.Module):
    """Calls a layer twice, another one in training alone, and one that gives what has no samples."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.idle, self.table = nn.Linear(9, 9), nn.Linear(9, 9), nn.Embedding(5, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x.mean(1))) + self.table(torch.arange(5)).sum(0)


def test_all_calls_of_a_layer_together_are_its_features(x) -> None:
    model, other = Twice().double(), nn.Sequential(nn.Flatten(), nn.Linear(18, 3)).double()
    once = model.layer(x.mean(1))
    both = torch.cat([once, model.layer(once)], 1).detach()
    found = cka(model, other, x)
    assert found.rows == ("layer", OUTPUT)
    assert float(found.matrix[0, 0]) == pytest.approx(linear_cka(both, other(x).detach()), abs=1e-12)
    assert found.undefined == {"table": "it returns a tensor of [5, 9] for 24 samples, whose first axis is not that of the samples"}


class Choosing(nn.Module):
    """Calls a layer only where the mean of its inputs is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen, self.head = nn.Linear(18, 18), nn.Linear(18, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        return self.head(self.chosen(x) if x.mean() > 0 else x)


def test_a_layer_that_only_some_minibatches_call_has_no_similarity() -> None:
    torch.manual_seed(0)
    model, signs = Choosing().double(), torch.tensor([1.0, -1.0]).repeat_interleave(8)[:, None]
    x = signs * torch.rand(16, 18, dtype=torch.float64)
    found = cka(model, model, x, batch_size=4)
    assert found.undefined == {"chosen": "it is not called for every minibatch"}
    assert found.rows == ("head", OUTPUT)


def test_what_is_dead_or_not_finite_is_told(x) -> None:
    a, b = network(0), network(1)
    with torch.no_grad():
        a[4].weight.zero_()
        b[7].weight[0, 0] = torch.nan
    found = cka(a, b, x)
    assert found.layers["4"] is None
    assert found.undefined["4"] == "its output is the same for all samples, but for one at most"
    assert found.layers["7"] is found.layers[OUTPUT] is None
    # what follows a dead layer does not vary either, and that is told first
    assert found.undefined["7"] == found.undefined["4"]
    assert cka(b, b, x).undefined["7"] == "its output is not finite"
    assert cka(network(2), b, x).undefined["7"] == "its output is not finite in the other network"
    assert found.layers["0"] is not None


def test_layers_of_every_kind_are_found() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = nn.LSTM(6, 5)
            self.attention = nn.TransformerEncoderLayer(6, 2, 7, batch_first=True)
            self.normed = weight_norm(nn.Linear(6, 4))
            self.pruned = prune.random_unstructured(nn.Linear(4, 3), "weight", 0.5)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            states, _ = self.recurrent(x.transpose(0, 1))
            return self.pruned(self.normed(self.attention(x).mean(1))), states

    torch.manual_seed(0)
    model, x = Mixed().double(), torch.randn(8, 3, 6, dtype=torch.float64)
    found = cka(model, model, x)
    attention = [f"attention.{name}" for name in ("self_attn", "linear1", "linear2", "norm1", "norm2")]
    assert found.rows == ("recurrent", *attention, "normed", "pruned", OUTPUT)
    torch.testing.assert_close(found.matrix.diagonal(), torch.ones(9, dtype=torch.float64), rtol=0, atol=1e-12)
    states = model.recurrent(x.transpose(0, 1))[0].transpose(0, 1).flatten(1).detach()
    pruned = model.eval()(x)[0].detach()
    assert float(found.matrix[0, 7]) == pytest.approx(linear_cka(states, pruned), abs=1e-12)
    assert found.undefined == {}  # the attention reads the weights of its out_proj, and does not call it


def test_minibatches_of_too_few_samples_are_refused(x) -> None:
    with pytest.raises(ProbeError, match="at least 4 samples at once, got 3; take more samples, or larger minibatches"):
        cka(network(0), network(1), x, batch_size=3)
    with pytest.raises(ProbeError, match="got 0"):
        cka(network(0), network(1), x, batch_size=0)
    with pytest.raises(ProbeError, match="got 2"):
        cka(network(0), network(1), x[:2])


def test_it_shows_itself(x) -> None:
    text = str(cka(network(0), network(1), x, batch_size=12))
    assert "Debiased linear CKA" in text
    assert "24 in 2 minibatches" in text
