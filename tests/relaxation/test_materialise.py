"""Convolutions whose weight is computed are refused, and relaxed exactly as they are at this moment if asked to."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from anarch_core import load, save, switch
from anarch_core.errors import OptimizerStateWarning, SurgeryError
from anarch_core.relaxation.verbs import plan, project, relax


class Standardised(nn.Conv2d):
    """A convolution with a standardised weight (Qiao et al. 2019)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / std
        return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def conv(kind=nn.Conv2d, **options):
    torch.manual_seed(0)
    return kind(2, 4, 3, padding=1, **options)


def quietly(old_style):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return old_style(conv())


COMPUTED = {
    "WeightNorm, which computed its weight": lambda: parametrizations.weight_norm(conv()),
    "SpectralNorm, which computed its weight": lambda: parametrizations.spectral_norm(conv()),
    "Orthogonal, which computed its weight": lambda: parametrizations.orthogonal(conv(padding_mode="circular")),
    "its hooks (WeightNorm)": lambda: quietly(nn.utils.weight_norm),
    "its hooks (SpectralNorm)": lambda: quietly(nn.utils.spectral_norm),
    "its hooks (RandomUnstructured)": lambda: prune.random_unstructured(conv(), "weight", 0.5),
    "the forward of Standardised": lambda: conv(Standardised),
}


def network(case):
    return nn.Sequential(COMPUTED[case](), nn.ReLU(inplace=True)).double()


@pytest.fixture
def x():
    return torch.randn(2, 2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", COMPUTED)
@pytest.mark.parametrize("training", [True, False])
def test_it_is_exact_at_the_switch_and_what_is_given_up_is_said(case, training, x):
    model = network(case).train(training)
    with pytest.raises(SurgeryError, match=r"0 cannot be relaxed: .* materialise it \(materialise=True"):
        relax(model, "efcn", example_input=x)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    relaxed = relax(model, "efcn", example_input=x, materialise=True)
    assert relaxed.report.exact
    assert relaxed.report.error < 1e-12
    assert relaxed.report.notes == [f"materialised: 0, whose weight at this moment is free from now on, without {case}"]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    torch.testing.assert_close(relaxed.model(x), model(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", COMPUTED)
@pytest.mark.parametrize("delta", [False, True])
def test_it_is_saved_and_loaded(case, delta, x, tmp_path):
    model = network(case).eval()
    relaxed = relax(model, "lcn", example_input=x, materialise=True).model
    save(relaxed, tmp_path / "relaxed.safetensors", parent=model if delta else None)
    again = load(tmp_path / "relaxed.safetensors", model=network(case).eval())
    assert torch.equal(again(x), relaxed(x))


def test_its_projection_is_a_plain_convolution_that_is_loaded_again(x, tmp_path):
    model = network("WeightNorm, which computed its weight")
    back = project(relax(model, "lcn", example_input=x, materialise=True).model)
    assert type(back[0]) is nn.Conv2d
    torch.testing.assert_close(back(x), model(x), rtol=1e-10, atol=1e-12)
    save(back, tmp_path / "back.safetensors")
    again = load(tmp_path / "back.safetensors", model=network("WeightNorm, which computed its weight"))
    assert torch.equal(again(x), back(x))
    with pytest.raises(SurgeryError, match="no such convolution"):
        load(tmp_path / "back.safetensors", model=nn.Sequential(nn.Linear(2, 2)))


def test_the_parameter_map_is_total_and_frozen_weights_stay_frozen(x):
    model = network("WeightNorm, which computed its weight").requires_grad_(False)
    relaxed = relax(model, "lcn", example_input=x, materialise=True)
    assert set(relaxed.parameter_map) == {name for name, _ in model.named_parameters()}
    assert relaxed.parameter_map["0.parametrizations.weight.original0"] == ("0.weight", "0.bias")
    assert not any(parameter.requires_grad for parameter in relaxed.model.parameters())


def test_a_plan_says_whether_it_can_be_done(x):
    model = nn.Sequential(conv(Standardised), nn.Flatten()).double()
    assert list(plan(model, "lcn", example_input=x).refused) == ["0"]
    planned = plan(model, "lcn", example_input=x, materialise=True)
    assert (list(planned.refused), [layer.path for layer in planned.layers]) == ([], ["0"])


class Padded(nn.Conv2d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


class SamePadding(nn.Conv2d):
    """As in TensorFlow: padded by as much as the input needs, before it is convolved."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (3, 3, 3, 3)))


class Raises(nn.Conv2d):
    def forward(self, x):
        if x.shape[0] == 2 and not torch.equal(x, x.round()):
            msg = "round numbers, please"
            raise ValueError(msg)
        return super().forward(x)


class Twice(nn.Conv2d):
    def forward(self, x):
        return super().forward(super().forward(x)[:, :2])


def scaled():
    layer = conv()
    layer.register_forward_hook(lambda module, args, output: 2 * output)
    return layer


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: conv(Padded), "what it computes is not a plain convolution of its input"),
        (lambda: SamePadding(2, 4, 7), "what it computes is not a plain convolution of its input"),
        (lambda: conv(Raises), "it cannot be materialised: it raises ValueError: round numbers, please"),
        (lambda: conv(Twice), "it calls 2 convolutions, expected one"),
        (scaled, "what it computes is not a plain convolution of its input"),
        (lambda: nn.ConvTranspose2d(2, 2, 3), "it is a ConvTranspose2d"),
    ],
)
def test_what_is_no_plain_convolution_at_this_moment_is_refused_still(build, reason, x):
    with pytest.raises(SurgeryError, match=f"0 cannot be relaxed: .*{reason}"):
        relax(nn.Sequential(build()).double(), "lcn", example_input=x.round(), materialise=True)


class Named(nn.Conv2d):
    """A convolution with a constructor of its own, as in torchvision's video models."""

    def __init__(self, channels: int) -> None:
        super().__init__(2, channels, 3, padding=1)


def test_a_subclass_that_computes_what_a_convolution_does_is_one(x):
    model = nn.Sequential(Named(4), nn.Flatten()).double()
    relaxed = relax(model, "efcn", example_input=x)
    assert relaxed.report.exact
    assert not relaxed.report.notes
    torch.testing.assert_close(project(relaxed.model)(x), model(x), rtol=1e-10, atol=1e-12)


def test_layers_that_are_refused_for_one_reason_are_named_together(x):
    model = nn.Sequential(conv(Standardised), nn.Conv2d(4, 4, 1), Standardised(4, 4, 3)).double()
    with pytest.raises(SurgeryError, match=r"^0, 2 cannot be relaxed: it is a Standardised, which lcn does not know") as caught:
        relax(model, "lcn", example_input=x)
    assert caught.value.paths == ("0", "2")


def test_a_parametrization_between_shapes(x):
    class Doubled(nn.Module):
        def forward(self, weight):
            return torch.cat([weight, -weight])

        def right_inverse(self, weight):
            return weight[: len(weight) // 2]

    layer = conv()
    parametrize.register_parametrization(layer, "weight", Doubled())
    assert relax(nn.Sequential(layer).double(), "tiled", example_input=x, materialise=True).report.exact


@pytest.mark.parametrize("case", ["WeightNorm, which computed its weight", "the forward of Standardised"])
def test_a_switch_in_place_resets_the_state_of_what_computed_the_weight(case, x):
    model = network(case)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(x).square().sum().backward()
    optimizer.step()
    expected = model(x).detach()
    with pytest.warns(OptimizerStateWarning, match="0.*weight"):
        switched = switch(model, optimizer, "lcn", example_input=x, materialise=True, optimizer_state="carry")
    assert switched.optimizer_state == {"0.weight": "reset", "0.bias": "carried"}
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-12)


def test_part_of_a_compiled_network_is_saved_under_the_name_it_has_uncompiled(x, tmp_path):
    model = network("the forward of Standardised")
    model[0] = torch.compile(model[0], backend="eager")
    relaxed = relax(model, "efcn", example_input=x, materialise=True).model
    save(relaxed, tmp_path / "relaxed.safetensors")
    again = load(tmp_path / "relaxed.safetensors", model=network("the forward of Standardised"))
    torch.testing.assert_close(again(x), model(x), rtol=1e-10, atol=1e-12)


def test_a_compiled_part_that_pytorch_cannot_copy_is_refused_by_path(x):
    """copy.deepcopy gives the parametrized module inside, without what compiled it."""
    model = network("WeightNorm, which computed its weight")
    model[0] = torch.compile(model[0], backend="eager")
    with pytest.raises(SurgeryError, match=r"0 cannot be copied, .* are not compiled; compile it afterwards") as caught:
        relax(model, "efcn", example_input=x, materialise=True)
    assert caught.value.paths == ("0",)
