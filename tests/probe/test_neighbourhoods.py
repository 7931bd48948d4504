"""Neighbourhoods: what rescaling does to sharpness, and that of a CNN beside that of its relaxation at the switch."""

from __future__ import annotations

import copy

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from anarch_core.curvature.lanczos import extreme_eigenvalues
from anarch_core.curvature.risk import HessianOperator, Risk
from anarch_core.curvature.sharpness import average_sharpness, sam_sharpness, worst_sharpness
from anarch_core.errors import ProbeError
from anarch_core.models import build_model
from anarch_core.probe.coordinates import ParameterParts
from anarch_core.probe.neighbourhoods import neighbourhood
from anarch_core.relaxation.verbs import relax

LENGTHS = ["plain", "adaptive", "filter"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def relu_network() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    return torch.randn(20, 4, dtype=torch.float64), torch.randint(3, (20,))


def figures(model: nn.Module, lengths: str) -> list[float]:
    """All three, near one network, on the same samples."""
    near = neighbourhood(Risk(model, *samples()), lengths)
    return [
        average_sharpness(near, 0.1, generator=seeded(), pairs=3).value,
        worst_sharpness(near, 0.1, generator=seeded(), steps=4).value,
        sam_sharpness(near, 0.1),
    ]


def test_the_adaptive_step_is_that_of_asam() -> None:
    model, moved = relu_network(), relu_network()
    risk = Risk(model, *samples())
    loss = nn.functional.cross_entropy(moved(risk.inputs), risk.targets)
    gradients = torch.autograd.grad(loss, list(moved.parameters()))
    length = (
        sum(float((weight.detach() * slope).square().sum()) for weight, slope in zip(moved.parameters(), gradients, strict=True)) ** 0.5
    )
    with torch.no_grad():
        for weight, slope in zip(moved.parameters(), gradients, strict=True):
            weight.add_(0.3 * weight**2 * slope / length)
        expected = float(nn.functional.cross_entropy(moved(risk.inputs), risk.targets) - loss)
    assert sam_sharpness(neighbourhood(risk, "adaptive"), 0.3) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("lengths", ["plain", "adaptive"])
def test_the_curvature_of_a_neighbourhood_is_that_by_its_own_vectors(lengths: str) -> None:
    risk = Risk(relu_network(), *samples())
    near = neighbourhood(risk, lengths)
    hessian = torch.stack([HessianOperator(risk) @ axis for axis in torch.eye(risk.size, dtype=torch.float64)])
    stretch = torch.ones(risk.size) if near.stretch is None else near.stretch
    expected = float(torch.linalg.eigvalsh(stretch[:, None] * hessian * stretch)[-1])
    found = extreme_eigenvalues(near.curvature(HessianOperator(risk)), generator=seeded(), rtol=1e-6, max_products=risk.size)
    assert found["largest"].value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("factor", [0.1, 0.7, 8.0])
def test_rescaling_a_layer_and_undoing_it_in_the_next_changes_only_plain_sharpness(factor: float) -> None:
    model, scaled = relu_network(), relu_network()
    with torch.no_grad():
        scaled[0].weight.mul_(factor)
        scaled[0].bias.mul_(factor)
        scaled[2].weight.div_(factor)
    for lengths in ("adaptive", "filter"):
        assert figures(scaled, lengths) == pytest.approx(figures(model, lengths), rel=1e-9, abs=1e-12)
    assert figures(scaled, "plain") != pytest.approx(figures(model, "plain"), rel=1e-2)


def test_adaptive_sharpness_does_not_change_when_single_units_are_rescaled_either() -> None:
    model, scaled = relu_network(), relu_network()
    factors = torch.tensor([0.1, 0.5, 1, 3, 10], dtype=torch.float64)
    with torch.no_grad():
        scaled[0].weight.mul_(factors[:, None])
        scaled[0].bias.mul_(factors)
        scaled[2].weight.div_(factors)
    assert figures(scaled, "adaptive") == pytest.approx(figures(model, "adaptive"), rel=1e-9)
    assert figures(scaled, "filter") != pytest.approx(figures(model, "filter"), rel=1e-2)


def test_filters_that_batch_norm_rescales_may_have_any_norm() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(4, 5, bias=False), nn.BatchNorm1d(5, eps=0.0), nn.ReLU(), nn.Linear(5, 3)).double().eval()
    scaled, factors = copy.deepcopy(model), torch.tensor([0.1, 0.5, 1, 3, 10], dtype=torch.float64)
    with torch.no_grad():
        scaled[0].weight.mul_(factors[:, None])
        scaled[1].running_var.mul_(factors**2)
        scaled[1].running_mean.mul_(factors)
    assert figures(scaled, "filter") == pytest.approx(figures(model, "filter"), rel=1e-9)
    assert figures(scaled, "plain") != pytest.approx(figures(model, "plain"), rel=1e-2)


def test_every_filter_moves_by_the_radius_of_its_norm_and_biases_stay() -> None:
    model = relu_network()
    risk = Risk(model, *samples())
    near = neighbourhood(risk, "filter")
    moves = risk.named_views(near.stretch * near.noise(seeded()) * 0.1)
    for layer in (0, 2):
        weight = model[layer].weight.detach()
        torch.testing.assert_close(moves[f"{layer}.weight"].norm(dim=1), 0.1 * weight.norm(dim=1))
        assert not moves[f"{layer}.bias"].any()


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), radius=st.floats(1e-3, 2), lengths=st.sampled_from(LENGTHS))
def test_no_step_and_no_direction_is_worse_than_the_worst_of_the_ascents(seed: int, radius: float, lengths: str) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    near = neighbourhood(Risk(model, torch.randn(10, 3, dtype=torch.float64), torch.randint(2, (10,))), lengths)
    worst = worst_sharpness(near, radius, generator=seeded(), starts=1, steps=3)
    wider = worst_sharpness(near, 1.5 * radius, generator=seeded(), starts=1, steps=1, smaller=worst.perturbation)
    assert 0 <= worst.value <= wider.value
    if worst.ascents[0].steps:
        assert worst.value >= min(sam_sharpness(near, radius), worst.ascents[0].value)
    assert near.change(worst.perturbation) == worst.value
    assert all(float(lengths_.max()) <= radius * (1 + 1e-9) for _, lengths_ in near._lengths(worst.perturbation))


def test_a_network_of_zeros_has_nothing_to_be_relative_to() -> None:
    model = relu_network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    near = neighbourhood(Risk(model, *samples()), "adaptive")
    with pytest.raises(ProbeError, match="no weight can be moved"):
        average_sharpness(near, 0.1, generator=seeded())


def lifted(cnn: nn.Module, moves: torch.Tensor, relaxation: str, example: torch.Tensor) -> torch.Tensor:
    """What a perturbation of a CNN is of its relaxation, by lifting the network before and after."""
    moved = copy.deepcopy(cnn)
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(torch.nn.utils.parameters_to_vector(moved.parameters()) + moves, moved.parameters())
    flat = [torch.nn.utils.parameters_to_vector(relax(net, relaxation, example_input=example).model.parameters()) for net in (moved, cnn)]
    return (flat[0] - flat[1]).detach()


NETWORKS = [("cnn1d", (1, 12), 3), ("vanilla-cnn", (1, 28, 28), 2)]


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
@pytest.mark.parametrize(("name", "shape", "channels"), NETWORKS, ids=["cnn1d", "vanilla-cnn"])
def test_a_cnn_and_its_relaxation_at_the_switch_have_the_same_shared_sharpness(name, shape, channels, relaxation: str) -> None:
    torch.manual_seed(0)
    cnn = build_model(name, input_shape=shape, classes=3, options={"channels": channels}).double()
    x, y = torch.randn(6, *shape, dtype=torch.float64), torch.randint(3, (6,))
    relaxed = relax(cnn, relaxation, example_input=x[:1]).model
    for lengths in LENGTHS:
        small, large = (neighbourhood(Risk(net, x, y), lengths, shared=ParameterParts.of(net, x[:1])) for net in (cnn, relaxed))
        assert sam_sharpness(large, 0.2) == pytest.approx(sam_sharpness(small, 0.2), rel=1e-9, abs=1e-13)
        worst = [worst_sharpness(near, 0.2, generator=seeded(), starts=1, steps=3).value for near in (large, small)]
        assert worst[0] == pytest.approx(worst[1], rel=1e-8)
        u = small.onto(small.noise(seeded()), 0.2)
        stretch = 1.0 if large.stretch is None else torch.where(large.stretch != 0, large.stretch, torch.inf)
        v = lifted(cnn, u if small.stretch is None else u * small.stretch, relaxation, x[:1]) / stretch
        same = [[(part.numel(), lengths_) for part, lengths_ in near._lengths(w)] for near, w in ((large, v), (small, u))]
        for (_, there), (_, here) in zip(*same, strict=True):
            torch.testing.assert_close(there.flatten(), here.flatten(), rtol=1e-9, atol=1e-12)
        assert large.change(v) == pytest.approx(small.change(u), rel=1e-8, abs=1e-13)


def test_small_shared_radii_are_the_shared_gradient_and_curvature() -> None:
    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)).double()
    x, y = torch.randn(20, 1, 8, dtype=torch.float64), torch.randint(3, (20,))
    model = relax(cnn, "efcn", example_input=x[:1]).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    risk, parts = Risk(model, x, y), ParameterParts.of(model, x[:1])
    near = neighbourhood(risk, shared=parts)
    shared = parts.project(parts.covariant(risk.named_views(risk.gradient())), "shared")
    norm = float(torch.cat([tensor.flatten() for tensor in shared.values()]).norm())
    assert sam_sharpness(near, 1e-5) / 1e-5 == pytest.approx(norm, rel=1e-3)
    u = near.onto(near.noise(seeded()), 1e-3)
    curved = float(u @ (near.curvature(HessianOperator(risk)) @ u))
    assert near.change(u) + near.change(u, sign=-1) == pytest.approx(curved, rel=1e-4)


def test_after_training_lengths_are_relative_to_the_shared_part_of_the_weights() -> None:
    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)).double()
    x, y = torch.randn(20, 1, 8, dtype=torch.float64), torch.randint(3, (20,))
    model = relax(cnn, "efcn", example_input=x[:1]).model
    stretches = {}
    for moved in (False, True):
        if moved:
            noise = {"weight": torch.randn_like(model[0].weight)}
            with torch.no_grad():
                model[0].weight.add_(noise["weight"] - model[0].weighted(noise, {"shared": 1.0})["weight"])
        parts = ParameterParts.of(model, x[:1])
        stretches[moved] = [neighbourhood(Risk(model, x, y), lengths, shared=parts).stretch for lengths in ("adaptive", "filter")]
    torch.testing.assert_close(stretches[True], stretches[False], rtol=1e-9, atol=1e-12)


def test_a_shared_part_that_lengths_lead_out_of_is_refused() -> None:
    """Weights that are multiples of one vector: moved in proportion to their sizes, they are none any longer."""

    @attrs.frozen(kw_only=True)
    class OneRow(ParameterParts):
        def project(self, vector, part):
            axis = torch.tensor([0.6, 0.8, 0.0, 0.0], dtype=torch.float64)
            return {"weight": (vector["weight"] @ axis)[:, None] * axis}

    model = nn.Linear(4, 3, bias=False).double()
    risk, parts = Risk(model, *samples()), OneRow(owners={"weight": (model, "weight")}, scale={})
    assert neighbourhood(risk, "plain", shared=parts).noise(seeded()).any()
    assert neighbourhood(risk, "filter", shared=parts).noise(seeded()).any()
    with pytest.raises(ProbeError, match="the shared part ties numbers that adaptive lengths move by different amounts"):
        neighbourhood(risk, "adaptive", shared=parts)
