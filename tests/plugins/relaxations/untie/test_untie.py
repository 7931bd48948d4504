"""A module that is called several times gets weights for each call; a parameter in several places gets one for each place."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from anarch_core import drift, load, project, relax, save
from anarch_core.errors import SurgeryError
from anarch_core.layers import relaxed_layers
from anarch_core.models import build_model
from anarch_core.relaxation import plan


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def moved(model: nn.Module, scale: float = 0.1) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model


class Looped(nn.Module):
    """A block that is called ``depth`` times."""

    def __init__(self, block: nn.Module, depth: int) -> None:
        super().__init__()
        self.block = block
        self.depth = depth
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.depth):
            x = self.block(x)
        return self.head(x)


class Block(nn.Module):
    width = 4

    def __init__(self, *, bias: bool = True, norm: type[nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm(4)
        self.inner = nn.Linear(4, 6, bias=bias)
        self.outer = nn.Linear(6, 4, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.outer(torch.tanh(self.inner(self.norm(x))))


class Autoencoder(nn.Module):
    """An encoder, and a decoder that multiplies by the same matrix from the other side."""

    class Decoder(nn.Module):
        def __init__(self, weight: nn.Parameter) -> None:
            super().__init__()
            self.weight = weight
            self.bias = nn.Parameter(torch.zeros(weight.shape[1]))

        def forward(self, code: torch.Tensor) -> torch.Tensor:
            return code @ self.weight + self.bias

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, 3)
        self.decoder = self.Decoder(self.encoder.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(torch.tanh(self.encoder(x)))


class Language(nn.Module):
    """Tokens to tokens, with one matrix for embedding and head."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.body = body
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embedding(tokens)))


@settings(max_examples=15, deadline=None)
@given(depth=st.integers(2, 5), bias=st.booleans(), norm=st.sampled_from([nn.LayerNorm, nn.BatchNorm1d]), seed=st.integers(0, 99))
def test_equals_its_parent_in_both_modes_and_goes_back_to_it(depth, bias, norm, seed) -> None:
    torch.manual_seed(seed)
    parent, x = Looped(Block(bias=bias, norm=norm), depth), torch.randn(3, 4)
    parent(x)
    model = relax(parent, "untie", example_input=x).model
    torch.testing.assert_close(project(model).state_dict(), parent.state_dict(), rtol=1e-14, atol=0)
    for training in (False, True):
        torch.testing.assert_close(model.train(training)(x), copy.deepcopy(parent).train(training)(x), rtol=0, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(depth=st.integers(2, 4), seed=st.integers(0, 99))
def test_projection_and_drift_against_least_squares(depth, seed) -> None:
    torch.manual_seed(seed)
    x = torch.randn(2, 4)
    model = moved(relax(Looped(Block(), depth), "untie", example_input=x).model)
    copies = [torch.cat([p.flatten() for p in each.parameters()]) for each in model.block.free.copies]
    size, weights = len(copies[0]), torch.cat(copies).detach()
    incidence = torch.eye(size).repeat(depth, 1)
    theta = torch.linalg.lstsq(incidence, weights[:, None]).solution[:, 0]
    found = torch.cat([p.flatten() for p in project(model).block.parameters()])
    torch.testing.assert_close(found, theta, rtol=0, atol=1e-10)
    counted = torch.cat([torch.full((p.numel(),), not n.endswith("bias")) for n, p in model.block.free.copies[0].named_parameters()])
    shared, rest = (incidence @ theta).view(depth, -1)[:, counted], (weights - incidence @ theta).view(depth, -1)[:, counted]
    parts = drift(model).layers["block"]
    assert (parts.shared, parts.unshared, parts.off_local) == pytest.approx((float(shared.square().sum()), float(rest.square().sum()), 0))


def test_gradients_of_the_copies_add_up_to_that_of_the_parent() -> None:
    parent, x = Looped(Block(), 3), torch.randn(3, 4)
    relaxed = relax(parent, "untie", example_input=x)
    for network in (parent, relaxed.model):
        network(x).square().sum().backward()
    ours = dict(relaxed.model.named_parameters())
    for name, parameter in parent.block.named_parameters():
        copies = [f"block.free.copies.{number}.{name}" for number in range(3)]
        assert set(copies) <= set(relaxed.parameter_map[f"block.{name}"])
        link = next(link for link in relaxed.model.block.links if link.parent == name)
        stacked = torch.stack([ours[each].grad for each in copies])
        torch.testing.assert_close(stacked.sum(0), parameter.grad, rtol=0, atol=1e-10)
        torch.testing.assert_close(link.constraint.total(stacked), parameter.grad, rtol=0, atol=1e-10)
        torch.testing.assert_close(link.constraint.lift(parameter.detach()), torch.stack([ours[each].detach() for each in copies]))


def test_the_outermost_module_that_is_called_several_times() -> None:
    report = plan(Looped(Block(), 3), "untie", example_input=torch.randn(2, 4))
    assert [layer.path for layer in report.layers] == ["block"]
    assert report.layers[0].cost.parameters == 3 * report.layers[0].parameters_before
    inside = plan(Looped(Block(), 3), "untie", example_input=torch.randn(2, 4), layers="block.inner")
    assert [layer.path for layer in inside.layers] == ["block.inner"]


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_recurrent_cells(cell) -> None:
    parent, x = build_model("rnn1d", input_shape=(1, 40), classes=3, options={"cell": cell, "hidden": 6}), torch.randn(4, 1, 40)
    relaxed = relax(parent, "untie", example_input=x)
    assert relaxed.report.exact
    assert relaxed.model.cell.hidden_size == 6
    assert len(relaxed.model.cell.free.copies) == 8
    weights = drift(relaxed.model).layers["cell"]
    assert weights.unshared == pytest.approx(0, abs=1e-20)
    scratch = [torch.nn.init.uniform_(torch.empty(1000), -(6**-0.5), 6**-0.5) for _ in range(2)]
    counted = sum(parameter.numel() for name, parameter in relaxed.model.cell.free.named_parameters() if "bias" not in name)
    expected = float(torch.cat(scratch).var()) * counted
    assert sum(weights.initial) == pytest.approx(expected, rel=0.1)


def test_one_module_registered_under_many_names() -> None:
    block = Block()
    parent, x = nn.Sequential(*[block] * 4), torch.randn(3, 4)
    relaxed = relax(parent, "untie", example_input=x)
    assert len({id(layer) for layer in relaxed.model}) == 1
    assert [len(layer.free.copies) for layer in relaxed_layers(relaxed.model).values()] == [4]
    moved(relaxed.model)
    again = project(relaxed.model)
    assert again[0] is again[3]


def test_what_is_called_once_has_nothing_to_relax() -> None:
    report = plan(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), "untie", example_input=torch.randn(2, 4))
    assert not report.layers
    assert not report.refused
    assert set(report.idle.values()) == {"it is called once, and its parameters are in one place each", "it has no parameters"}


def test_calls_beyond_those_of_the_example_are_told() -> None:
    model = relax(Looped(Block(), 3), "untie", example_input=torch.randn(2, 4)).model
    model(torch.randn(5, 4))
    model(torch.randn(5, 4))
    model.depth = 2
    model(torch.randn(5, 4))
    model.depth = 4
    with pytest.raises(ValueError, match=r"weights for 3 calls in a pass, and this is one more.*activation checkpointing"):
        model(torch.randn(5, 4))
    model.depth = 3
    model(torch.randn(5, 4))


def test_activation_checkpointing_is_told() -> None:
    class Checkpointed(Looped):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(self.depth):
                x = checkpoint(self.block, x, use_reentrant=False)
            return self.head(x)

    model = relax(Checkpointed(Block(), 3), "untie", example_input=torch.randn(2, 4)).model
    with pytest.raises(ValueError, match="activation checkpointing calls it again"):
        model(torch.randn(2, 4)).sum().backward()


def test_each_call_has_running_statistics_of_its_own() -> None:
    parent, x = Looped(Block(norm=nn.BatchNorm1d), 3), torch.randn(9, 4)
    model = relax(parent, "untie", example_input=x).model
    model.train()(x)
    means = [each.norm.running_mean for each in model.block.free.copies]
    assert not torch.equal(means[0], means[1])
    back = project(model)
    torch.testing.assert_close(back.block.norm.running_mean, torch.stack(means).mean(0))
    assert back.block.norm.num_batches_tracked == 1


def test_state_that_calls_hand_on_is_refused() -> None:
    block = Block()
    block.inner = parametrizations.spectral_norm(block.inner)
    found = plan(Looped(block, 2), "untie", example_input=torch.randn(2, 4))
    assert "a call in training mode changes its buffer inner.parametrizations.weight.0._u" in found.refused["block"]


def test_tied_encoder_and_decoder() -> None:
    parent, x = nn.Sequential(Autoencoder(), nn.Linear(5, 2)), torch.randn(3, 5)
    relaxed = relax(parent, "untie", example_input=x)
    assert [layer.path for layer in relaxed.report.layers] == ["0"]
    layer = relaxed.model[0]
    assert layer.encoder.weight is not layer.decoder.weight
    for network in (parent, relaxed.model):
        network(x).square().sum().backward()
    total = layer.encoder.weight.grad + layer.decoder.weight.grad
    torch.testing.assert_close(total, parent[0].encoder.weight.grad, rtol=0, atol=1e-12)
    moved(relaxed.model)
    back = project(relaxed.model)
    assert back[0].encoder.weight is back[0].decoder.weight
    torch.testing.assert_close(back[0].encoder.weight, (layer.encoder.weight + layer.decoder.weight) / 2)
    assert torch.equal(back[0].decoder.bias, layer.decoder.bias)


def test_a_tie_of_the_whole_network(tmp_path) -> None:
    parent, tokens = Language(Block()), torch.randint(7, (2, 5))
    relaxed = relax(parent, "untie", example_input=tokens)
    assert [layer.path for layer in relaxed.report.layers] == [""]
    model = moved(relaxed.model)
    assert model.embedding.weight is not model.head.weight
    save(model, tmp_path / "untied.safetensors")
    again = load(tmp_path / "untied.safetensors", model=Language(Block()))
    assert torch.equal(again(tokens), model(tokens))
    back = project(model)
    assert type(back) is Language
    assert back.embedding.weight is back.head.weight


def test_calls_and_places_together() -> None:
    parent, x = build_model("ista", input_shape=(1, 8), classes=3, options={"atoms": 5, "steps": 3}), torch.randn(4, 1, 8)
    relaxed = relax(parent, "untie", example_input=x)
    link = next(link for link in relaxed.model.step.links if link.parent == "synthesis.dictionary")
    assert link.free == tuple(f"copies.{call}.{place}.dictionary" for call in range(3) for place in ("synthesis", "analysis"))
    assert relaxed.report.exact
    moved(relaxed.model)
    back = project(relaxed.model).step
    assert back.analysis.dictionary is back.synthesis.dictionary
    mean = torch.stack([dict(relaxed.model.step.free.named_parameters())[name] for name in link.free]).mean(0)
    torch.testing.assert_close(back.analysis.dictionary, mean)


def test_a_block_within_a_network_of_tied_parameters_is_a_choice() -> None:
    parent, tokens = Language(nn.Sequential(Looped(Block(), 3), nn.Linear(2, 4))), torch.randint(7, (2, 5))
    found = plan(parent, "untie", example_input=tokens)
    assert set(found.refused) == {"body.0.block"}
    assert "it is a part of the network, which is relaxed as a whole, and is called 3 times in a pass" in found.refused["body.0.block"]
    both = relax(parent, "untie", example_input=tokens, layers="body.*").model
    both = relax(both, "untie", example_input=tokens, layers="").model
    torch.testing.assert_close(both(tokens), parent(tokens))
    both(tokens)
    back = project(moved(both))
    assert back.embedding.weight is back.head.weight
    assert back.body[0].block.width == 4


def test_a_part_without_parameters_may_be_called_as_often_as_one_likes() -> None:
    class Dropped(Language):
        def __init__(self) -> None:
            super().__init__(nn.Identity())
            self.dropout = nn.Dropout(0.0)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.dropout(self.head(self.dropout(self.embedding(tokens))))

    relaxed = relax(Dropped(), "untie", example_input=torch.randint(7, (2, 5)))
    assert [layer.path for layer in relaxed.report.layers] == [""]
    assert relaxed.report.exact


@pytest.mark.parametrize("make", [lambda: Looped(Block(), 3), lambda: Looped(prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5), 2)])
def test_checkpoints(make, tmp_path) -> None:
    parent, x = make(), torch.randn(3, 4)
    model = moved(relax(parent, "untie", example_input=x).model)
    save(model, tmp_path / "untied.safetensors")
    again = load(tmp_path / "untied.safetensors", model=make())
    for _ in range(2):
        assert torch.equal(again(x), model(x))
    assert torch.equal(project(again)(x), project(model)(x))


def test_checkpoints_of_relaxed_layers_inside_of_an_untied_one(tmp_path) -> None:
    parent, x = Looped(nn.Sequential(nn.Conv1d(4, 4, 3, padding=1, groups=2), nn.Tanh()), 2), torch.randn(3, 4, 4)
    parent.head = nn.Flatten()
    inner = relax(relax(parent, "ungroup", example_input=x).model, "lcn", example_input=x).model
    model = moved(relax(inner, "untie", example_input=x).model)
    save(model, tmp_path / "untied.safetensors")
    again = load(tmp_path / "untied.safetensors", model=parent)
    assert torch.equal(again(x), model(x))
    assert torch.equal(project(again)(x), project(model)(x))


def test_what_was_relaxed_inside_goes_back_as_well(tmp_path) -> None:
    parent, x = Looped(nn.Sequential(nn.Conv1d(4, 4, 3, padding=1, groups=2), nn.Tanh()), 3), torch.randn(3, 4, 4)
    parent.head = nn.Flatten()
    model = moved(relax(relax(parent, "ungroup", example_input=x).model, "untie", example_input=x).model)
    weights = [parameter for name, parameter in model.named_parameters() if name.endswith("weight")]
    assert [tuple(weight.shape) for weight in weights] == [(4, 4, 3)] * 3

    back = project(model)
    assert not relaxed_layers(back)
    assert back.anarch_relaxations == ()
    mean = torch.stack(weights).mean(0)  # over calls; then the channels of each group
    expected = torch.cat([mean[:2, :2], mean[2:, 2:]])
    assert type(back.block[0]) is nn.Conv1d
    assert torch.allclose(back.block[0].weight, expected, rtol=0, atol=1e-12)


def test_weights_used_outside_of_the_module_are_refused() -> None:
    class Regularised(Looped):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + self.block.inner.weight.sum()

    found = plan(Regularised(Block(), 2), "untie", example_input=torch.randn(2, 4))
    assert "its weight is used outside of it, too" in found.refused["block"]
    with pytest.raises(SurgeryError, match="used outside"):
        relax(Regularised(Block(), 2), "untie", example_input=torch.randn(2, 4))


def test_second_derivatives() -> None:
    parent, x = Looped(Block(), 2), torch.randn(2, 4)
    model = relax(parent, "untie", example_input=x).model
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def gradient(values):
        leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
        loss = torch.func.functional_call(model, leaves, (x,)).square().sum()
        return leaves, torch.autograd.grad(loss, list(leaves.values()), create_graph=True)

    direction = {name: torch.randn_like(value) for name, value in parameters.items()}
    leaves, first = gradient(parameters)
    products = torch.autograd.grad(sum((g * d).sum() for g, d in zip(first, direction.values(), strict=True)), list(leaves.values()))
    step = 1e-5
    ahead, behind = (gradient({n: v + s * direction[n] for n, v in parameters.items()})[1] for s in (step, -step))
    for product, one, other in zip(products, ahead, behind, strict=True):
        torch.testing.assert_close(product, (one - other).detach() / (2 * step), rtol=1e-4, atol=1e-6)


def test_scratch_reaches_the_parameters_under_a_mask() -> None:
    parent, x = Looped(prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5), 2), torch.randn(3, 4)
    layer = relax(parent, "untie", example_input=x).model.block
    layer.reset_parameters()
    first, second = (each.weight_orig for each in layer.free.copies)
    assert not torch.equal(first, parent.block.weight_orig)
    assert not torch.equal(first, second)
    layer.begin_pass()
    layer(x)
    assert torch.equal(layer.free.copies[0].weight, first * parent.block.weight_mask)


def test_scratch_of_what_is_parametrized_is_not_known() -> None:
    parent = Looped(parametrizations.weight_norm(nn.Linear(4, 4)), 2)
    layer = relax(parent, "untie", example_input=torch.randn(3, 4)).model.block
    with pytest.raises(SurgeryError, match=r"default initialisation of copies.0.parametrizations.weight.original0.* is not known"):
        layer.reset_parameters()
